"""Key frames: what a correction changes, and what it leaves alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo import pipeline
from demo.pipeline import plan, within
from demo.project import KeyFrame, ObjectPrompt, Settings
from demo.prompts import load_prompts
from demo.run import run
from media import InputError
from media.masks import load_mask, save_mask
from media.video import open_video
from tests.demo.square import COUNT, HEIGHT, WIDTH, ColourSegmenter, ColourTrackers, red

pytestmark = pytest.mark.usefixtures("colour_models")
FIRST = (10.0, 30.0, 30.0, 50.0)
SECOND = (50.0, 30.0, 70.0, 50.0)
OBJECT = ObjectPrompt(id=1, name="it", color="#ff8800", frame=8, box=FIRST)


class StillTracker:
    """Takes it that nothing moves: the box tells which key frame a frame depends on."""

    def __init__(self, box: Any) -> None:
        self.box = np.asarray(box, np.float32)


class StillTrackers(ColourTrackers):
    def add(self, id: int, frame: np.ndarray, box: Any) -> None:
        self.objects[id] = StillTracker(box)  # type: ignore[assignment]

    def correct(self, id: int, frame: np.ndarray, box: Any) -> None:
        self.objects[id].box = np.asarray(box, np.float32)

    def track(self, frame: np.ndarray) -> dict[int, Any]:
        return {i: pipeline.Track(box=o.box, score=0.5) for i, o in self.objects.items()}


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch, colour_models: None) -> None:
    monkeypatch.setattr(pipeline, "MultiTracker", StillTrackers)


def corrected(*frames: int) -> ObjectPrompt:
    return replace(OBJECT, corrections=tuple(KeyFrame(frame=f, box=SECOND) for f in frames))


def boxes(folder: Path) -> list[tuple[float, ...]]:
    data = json.loads((folder / "tracks.json").read_text())
    return [tuple(frame["objects"][0]["box"]) for frame in data["frames"]]


def work(clip: Path, folder: Path, prompts: list[ObjectPrompt], **settings: Any) -> dict[str, int]:
    """Run, and count the frames that each stage went through."""
    counts: dict[str, int] = {}

    def report(stage: str, done: int, total: int) -> None:
        counts[stage] = max(counts.get(stage, 0), done)

    run(clip, folder, prompts, Settings(**{"do": "segment", **settings}), report=report)
    return counts


def test_segments_lead_away_from_the_first_key_frame() -> None:
    segments = plan(corrected(14, 3, 18), range(2, 24))
    assert [(s.key.frame, s.frames) for s in segments] == [
        (8, range(8, 14)), (14, range(14, 18)), (18, range(18, 24)),
        (8, range(8, 3, -1)), (3, range(3, 1, -1)),
    ]  # fmt: skip
    assert [s.frames for s in plan(replace(OBJECT, frame=2), range(2, 5))] == [range(2, 5)]


def test_segments_lead_into_the_range_from_key_frames_beside_it() -> None:
    before, behind = plan(corrected(14, 3, 18), range(10, 16)), plan(OBJECT, range(3, 6))
    assert [s.frames for s in before] == [range(8, 14), range(14, 16)]
    assert [s.frames for s in behind] == [range(8, 2, -1)]
    assert [within(s, range(10, 16)).frames for s in before] == [range(10, 14), range(14, 16)]
    assert [within(s, range(3, 6)).frames for s in behind] == [range(5, 2, -1)]
    assert [s.frames for s in plan(corrected(14, 3, 18), range(15, 17))] == [range(14, 17)]
    assert [s.frames for s in plan(corrected(14, 3), range(0, 3))] == [range(3, -1, -1)]


def test_a_correction_changes_its_own_span_only(clip: Path, tmp_path: Path) -> None:
    assert work(clip, tmp_path, [OBJECT]) == {
        "follow": COUNT, "draw boxes": COUNT, "cut out": COUNT, "draw masks": COUNT,
    }  # fmt: skip
    assert boxes(tmp_path) == [FIRST] * COUNT
    counts = work(clip, tmp_path, [corrected(14)])
    assert (counts["follow"], counts["cut out"]) == (COUNT - 14, COUNT - 14)
    assert boxes(tmp_path) == [FIRST] * 14 + [SECOND] * (COUNT - 14)
    counts = work(clip, tmp_path, [corrected(14, 3)])
    assert (counts["follow"], counts["cut out"]) == (4, 4)
    assert boxes(tmp_path) == [SECOND] * 4 + [FIRST] * 10 + [SECOND] * (COUNT - 14)


def test_taking_a_correction_back_costs_nothing(clip: Path, tmp_path: Path) -> None:
    work(clip, tmp_path, [OBJECT])
    work(clip, tmp_path, [corrected(14)])
    counts = work(clip, tmp_path, [OBJECT])
    assert (counts["follow"], counts["cut out"]) == (0, 0)
    assert boxes(tmp_path) == [FIRST] * COUNT


def test_pieces_give_what_one_run_gives(clip: Path, tmp_path: Path) -> None:
    for prompts in ([OBJECT], [corrected(14)], [corrected(14, 3)]):
        work(clip, tmp_path / "pieces", prompts)
    work(clip, tmp_path / "whole", [corrected(14, 3)])
    for name in ("tracks.csv", "tracks.json", "segmented.mp4"):
        assert (tmp_path / "pieces" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_new_name_is_not_a_reason_to_follow_again(clip: Path, tmp_path: Path) -> None:
    work(clip, tmp_path, [OBJECT])
    counts = work(clip, tmp_path, [replace(OBJECT, name="dog", color="#00ff00")])
    assert (counts["follow"], counts["cut out"], counts["draw masks"]) == (0, 0, COUNT)
    assert json.loads((tmp_path / "tracks.json").read_text())["objects"][0]["name"] == "dog"
    assert json.loads((tmp_path / "run.json").read_text())["weights"]["segmenter"].startswith(
        "colour"
    )


def test_another_object_leaves_the_first_one_alone(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(clip, tmp_path, [OBJECT])
    asked: list[int] = []
    predict = ColourSegmenter.predict
    monkeypatch.setattr(
        ColourSegmenter, "predict", lambda self, e, p: asked.append(len(p)) or predict(self, e, p)
    )
    other = ObjectPrompt(id=2, name="other", color="#0000ff", frame=4, box=SECOND)
    work(clip, tmp_path, [OBJECT, other])
    # Its key frame in both directions, whole and from near; on all others the tracked box and a
    # larger one. The first object is not asked about.
    assert sum(asked) == 2 * 2 + 2 * (COUNT - 1)
    for number in (1, 2):
        assert len(list((tmp_path / "masks" / f"object_{number}").glob("*.png"))) == COUNT
    work(clip, tmp_path, [OBJECT])
    assert not (tmp_path / "masks" / "object_1").exists()


def test_each_object_has_its_own_fate(clip: Path, tmp_path: Path) -> None:
    left = ObjectPrompt(id=1, name="left", color="#ff8800", box=FIRST, do="track")
    middle = ObjectPrompt(id=2, name="middle", color="#00ff00", box=SECOND, do="segment")
    gone = ObjectPrompt(id=3, name="gone", color="#0000ff", box=(90, 30, 110, 50))
    counts = work(clip, tmp_path, [left, middle, gone], do="remove")
    assert counts["paint away"] == COUNT
    assert sorted(p.name for p in (tmp_path / "masks").iterdir() if p.is_dir()) == [
        "object_2", "object_3",
    ]  # fmt: skip
    assert "track" == replace(gone, do="remove").task("track")


def test_a_given_mask_is_a_correction_too(clip: Path, tmp_path: Path) -> None:
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[60:80, 100:120] = True
    save_mask(tmp_path / "m.png", square)
    prompt = replace(OBJECT, corrections=(KeyFrame(frame=14, mask=tmp_path / "m.png"),))
    work(clip, tmp_path / "out", [prompt])
    assert (load_mask(tmp_path / "out" / "masks" / "00014.png") == square).all()
    assert boxes(tmp_path / "out")[14] == (100, 60, 120, 80)
    with open_video(clip) as video:
        assert (load_mask(tmp_path / "out" / "masks" / "00013.png") == red(video[13])).all()


def test_corrections_in_a_prompts_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(
        '{"objects": [{"name": "a", "box": [1, 2, 3, 4], "do": "segment", "corrections": '
        '[{"frame": 5, "points": [[7, 8]]}]}]}'
    )
    (prompt,) = load_prompts(path)
    assert prompt.corrections == (KeyFrame(frame=5, points=((7.0, 8.0, 1),)),)
    assert prompt.do == "segment"
    for text, says in (
        ('{"box": [1, 2, 3, 4], "corrections": [{"frame": 0, "box": [1, 2, 3, 4]}]}', "twice"),
        ('{"box": [1, 2, 3, 4], "corrections": [{"frame": 4}]}', "nothing says where"),
        ('{"box": [1, 2, 3, 4], "do": "fly"}', "track, segment, remove"),
        ('{"box": [1, 2, 3, 4], "corrections": [{"frame": 4, "when": 1}]}', "unknown keys when"),
    ):
        path.write_text(f'{{"objects": [{text}]}}')
        with pytest.raises(InputError, match=says):
            load_prompts(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON: "),
        ("[]", "is not of the form"),
        ('{"objects": {"a": 1}}', "is not of the form"),
        ('{"objects": ["dog"]}', 'Object 1 .*: "dog" is not of the form'),
        ('{"objects": [{"box": "x"}]}', '"box": "x" is not a list of 4 numbers'),
        ('{"objects": [{"box": [1, 2, 3]}]}', "is not a list of 4 numbers"),
        ('{"objects": [{"box": [1, 2, 3, "x"]}]}', '"box": "x" is not a number'),
        ('{"objects": [{"box": [1, 2, NaN, 4]}]}', '"box": NaN is not a number'),
        ('{"objects": [{"points": [[1]]}]}', "is not a list of 2 or 3 numbers"),
        ('{"objects": [{"points": [[1, 2, 3]]}]}', "label is 1"),
        ('{"objects": [{"frame": 1.5, "box": [1, 2, 3, 4]}]}', '"frame": 1.5 is not a whole'),
        ('{"objects": [{"frame": true, "box": [1, 2, 3, 4]}]}', '"frame": true is not a number'),
        ('{"objects": [{"mask": 5}]}', '"mask" is not the name'),
        ('{"objects": [{"box": [1, 2, 3, 4], "corrections": 5}]}', "5 is not a list"),
        ('{"objects": [{"box": [1, 2, 3, 4], "color": "pink"}]}', "'pink' is not a colour"),
    ],
)
def test_what_is_wrong_with_a_prompts_file_is_said_in_words(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(InputError, match=says):
        load_prompts(tmp_path / "prompts.json")
