"""The chain's own logic, with models that follow by colour."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio.v3 as imageio
import numpy as np
import pytest

import checkpoints
from demo import pipeline, project
from demo.failures import Cancelled, explain
from demo.project import ObjectPrompt, Settings
from demo.run import run
from media import InputError
from media.masks import save_mask
from media.video import VideoWriter, open_video
from tests.demo.square import (
    COUNT,
    HEIGHT,
    WIDTH,
    ColourTracker,
    GreyInpainter,
    red,
    square_box,
    square_frame,
)

pytestmark = pytest.mark.usefixtures("colour_models")


def prompt(**changes: Any) -> ObjectPrompt:
    values: dict[str, Any] = {"id": 1, "name": "square", "color": "#ff8800"}
    values.update(changes)
    if not {"box", "points", "mask"} & set(values):
        values["box"] = square_box(values.get("frame", 0))
    return ObjectPrompt(**values)


def frames_of(path: Path) -> list[np.ndarray]:
    with open_video(path) as reader:
        return list(reader.frames())


def audio_md5(path: Path) -> str:
    digest = hashlib.md5()
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio[0]):
            digest.update(bytes(packet))
    return digest.hexdigest()


def test_remove_writes_all_results(clip: Path, tmp_path: Path) -> None:
    result = run(clip, tmp_path / "out", [prompt()], Settings(do="remove"))
    names = {p.name for p in result.outputs}
    assert names == {
        "tracks.json", "tracks.csv", "tracked.mp4", "masks", "segmented.mp4", "removed.mp4"
    }  # fmt: skip
    for name in ("tracked.mp4", "segmented.mp4", "removed.mp4"):
        frames = frames_of(tmp_path / "out" / name)
        assert len(frames) == COUNT
        assert frames[0].shape == (HEIGHT, WIDTH, 3)
        assert audio_md5(tmp_path / "out" / name) == audio_md5(clip)
    assert not red(frames[COUNT // 2]).any(), "the square is still in removed.mp4"
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == COUNT
    assert not list(tmp_path.rglob("*.part"))
    summary = json.loads((tmp_path / "out" / "run.json").read_text())
    assert summary["weights"] == {
        "tracker": "colour",
        "segmenter": "colour (sha256 0123)",
        "inpainter": "grey",
    }
    assert "painted grey" in summary["notes"]


def test_uneven_time_stamps_are_kept(tmp_path: Path) -> None:
    """A variable frame rate comes out as it went in, and so does where the video starts."""
    stamps = np.cumsum([0, 1, 3, 1, 2, 7, 1, 1, 2, 1]) * 90_000 // 24
    source = tmp_path / "uneven.mp4"
    with VideoWriter(
        source, size=(HEIGHT, WIDTH), fps=Fraction(24), time_base=Fraction(1, 90_000)
    ) as writer:
        for index, pts in enumerate(stamps):
            writer.write(square_frame(index), int(pts), 3750)
    run(source, tmp_path / "o", [prompt()], Settings(do="remove"))
    with open_video(source) as before:
        for name in ("tracked.mp4", "segmented.mp4", "removed.mp4"):
            with open_video(tmp_path / "o" / name) as after:
                scale = after.info.time_base / before.info.time_base
                assert [p * scale for p in after.pts] == list(before.pts) == list(stamps)
                assert [d * scale for d in after.durations] == list(before.durations)


def test_sound_of_a_real_film_is_kept_bit_by_bit(tmp_path: Path) -> None:
    film = checkpoints.find("sample_bunny")
    if film is None:
        pytest.skip("needs a clip: python -m checkpoints fetch sample_bunny")
    box = ObjectPrompt(id=1, name="rabbit", color="#ff8800", box=(400, 100, 800, 600))
    run(film, tmp_path, [box], Settings(end=2))
    assert audio_md5(tmp_path / "tracked.mp4") == audio_md5(film)


def test_tracks_have_the_documented_form(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path, [prompt(frame=10)], Settings())
    data = json.loads((tmp_path / "tracks.json").read_text())
    assert data["version"] == 1
    assert data["objects"] == [{"id": 1, "name": "square", "color": "#ff8800"}]
    assert [f["index"] for f in data["frames"]] == list(range(COUNT))
    for frame in data["frames"]:
        (entry,) = frame["objects"]
        assert entry["box"] == pytest.approx(square_box(frame["index"]), abs=1.01)
        assert frame["time"] == pytest.approx(frame["index"] / 24, abs=1e-4)
        assert not entry["lost"]
    assert data["frames"][10]["objects"][0]["score"] == 1.0
    with (tmp_path / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "time", "object", "x0", "y0", "x1", "y1", "score", "lost"]
    assert len(rows) == COUNT


def test_lost_object_has_an_empty_row_no_mask_and_is_not_painted(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ColourTracker.track

    def lose(self: ColourTracker, frame: np.ndarray) -> Any:
        track = original(self, frame)
        lost = 40 < track.box[0] < 60
        return type(track)(box=track.box, score=0.2 if lost else 0.9, lost=bool(lost))

    monkeypatch.setattr(ColourTracker, "track", lose)
    run(clip, tmp_path, [prompt()], Settings(do="remove"))
    data = json.loads((tmp_path / "tracks.json").read_text())
    lost = [f["index"] for f in data["frames"] if f["objects"][0]["lost"]]
    assert lost
    removed = frames_of(tmp_path / "removed.mp4")
    for index in lost:
        assert data["frames"][index]["objects"][0]["box"] is None
        assert red(removed[index]).sum() > 300
    with (tmp_path / "tracks.csv").open() as file:
        row = list(csv.DictReader(file))[lost[0]]
    assert (row["x0"], row["lost"]) == ("", "1")


def test_only_the_range_is_changed(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path, [prompt(frame=8)], Settings(do="remove", start=6, end=12))
    removed = frames_of(tmp_path / "removed.mp4")
    assert len(removed) == COUNT
    for index, frame in enumerate(removed):
        assert red(frame).any() == (index not in range(6, 12)), index
    assert len(list((tmp_path / "masks").glob("*.png"))) == 6


def test_trim_cuts_picture_and_sound(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path, [prompt(frame=8)], Settings(start=6, end=18, trim=True))
    assert len(frames_of(tmp_path / "tracked.mp4")) == 12
    with av.open(str(tmp_path / "tracked.mp4")) as container:
        audio = container.streams.audio[0]
        seconds = sum(p.duration or 0 for p in container.demux(audio)) * audio.time_base
    assert float(seconds) == pytest.approx(0.5, abs=0.05)


def test_two_objects_keep_apart(clip: Path, tmp_path: Path) -> None:
    objects = [prompt(), prompt(id=2, name="later", frame=12, color="#00aaff")]
    run(clip, tmp_path, objects, Settings(do="segment"))
    data = json.loads((tmp_path / "tracks.json").read_text())
    assert all([o["id"] for o in f["objects"]] == [1, 2] for f in data["frames"])
    for number in (1, 2):
        assert len(list((tmp_path / "masks" / f"object_{number}").glob("*.png"))) == COUNT


def test_points_and_masks_find_the_box(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "a", [prompt(points=((20.0, 40.0, 1),))], Settings())
    save_mask(tmp_path / "m.png", red(square_frame(0)))
    run(clip, tmp_path / "b", [prompt(mask=tmp_path / "m.png")], Settings())
    for name in "ab":
        first = json.loads((tmp_path / name / "tracks.json").read_text())["frames"][0]
        assert first["objects"][0]["box"] == pytest.approx(square_box(0), abs=1.01)


def test_second_run_does_nothing_and_a_change_redoes_only_what_it_touches(
    clip: Path, tmp_path: Path
) -> None:
    stages: list[str] = []

    def note(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            stages.append(stage)

    run(clip, tmp_path, [prompt()], Settings(do="remove"), report=note)
    assert stages == ["follow", "draw boxes", "cut out", "draw masks", "paint away"]
    stages.clear()
    run(clip, tmp_path, [prompt()], Settings(do="remove"), report=note)
    assert stages == []
    run(clip, tmp_path, [prompt()], Settings(do="remove", dilate=3), report=note)
    assert stages == ["paint away"]


def test_only_propagation_is_asked_for_shadows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(pipeline, "build_inpainter", lambda name, **how: asked.append(how))
    pipeline.Models(Settings(inpainter="propagation", shadow=True)).inpainter()
    pipeline.Models(Settings(inpainter="e2fgvi")).inpainter()
    assert asked[0]["shadow"] is True and "shadow" not in asked[1]
    models = pipeline.Models(Settings(inpainter="e2fgvi", shadow=True))
    models.check(segmenter=True, inpainter=False)
    with pytest.raises(InputError, match="Only propagation"):
        models.check(segmenter=False, inpainter=True)


def test_a_run_asks_only_for_the_models_that_it_needs(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for role in ("segmenter", "inpainter"):
        monkeypatch.setattr(pipeline, f"check_{role}", lambda _, role=role: asked.append(role))

    def needs(objects: list[ObjectPrompt], **settings: Any) -> list[str]:
        asked.clear()
        run(clip, tmp_path / "out", objects, Settings(end=2, **settings))
        return list(asked)

    x0, y0, x1, y1 = square_box(0)
    clicked = prompt(points=(((x0 + x1) / 2, (y0 + y1) / 2, 1),))
    assert needs([prompt()], do="track") == []
    assert needs([clicked], do="track") == ["segmenter"]
    assert needs([prompt()], do="segment") == ["segmenter"]
    assert needs([prompt(do="track")], do="segment") == []
    assert needs([prompt()], do="remove") == ["segmenter", "inpainter"]
    (tmp_path / "masks").mkdir()
    for index in range(2):
        save_mask(tmp_path / "masks" / f"{index:05d}.png", red(square_frame(index)))
    assert needs([], do="remove", masks=tmp_path / "masks") == ["inpainter"]


def test_cancelled_run_goes_on_where_it_stopped(clip: Path, tmp_path: Path) -> None:
    stage_now = ""

    def note(stage: str, done: int, total: int) -> None:
        nonlocal stage_now
        stage_now = stage

    with pytest.raises(Cancelled):
        run(
            clip, tmp_path, [prompt()], Settings(do="remove"), report=note,
            cancelled=lambda: stage_now == "paint away",
        )  # fmt: skip
    assert (tmp_path / "segmented.mp4").exists()
    assert not (tmp_path / "removed.mp4").exists()
    assert not list(tmp_path.rglob("*.part"))
    redone: list[str] = []
    run(clip, tmp_path, [prompt()], Settings(do="remove"), report=lambda s, d, t: redone.append(s))
    assert set(redone) == {"paint away"}


def test_a_run_stops_while_the_inpainter_still_looks_ahead(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class LooksAhead(GreyInpainter):
        def inpaint(self, frames: Any, masks: Any, **part: Any) -> Any:
            for index in range(len(frames)):
                frames[index]
                read.append(index)
            yield from super().inpaint(frames, masks, **part)

    monkeypatch.setattr(pipeline, "build_inpainter", lambda *a, **k: LooksAhead())
    with pytest.raises(Cancelled):
        run(clip, tmp_path, [prompt()], Settings(do="remove"), cancelled=lambda: len(read) == 3)
    assert read == [0, 1, 2]


def test_model_failure_is_not_passed_off_as_a_result(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        weights = ""
        notes = ()

        def inpaint(self, *args: Any, **kwargs: Any) -> Any:
            yield np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            raise RuntimeError("boom")

    monkeypatch.setattr(pipeline, "build_inpainter", lambda *a, **k: Broken())
    with pytest.raises(RuntimeError, match="boom"):
        run(clip, tmp_path, [prompt()], Settings(do="remove"))
    assert not (tmp_path / "removed.mp4").exists()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("frame", [0, COUNT - 1])
def test_a_prompt_beside_the_range_is_followed_into_it(
    clip: Path, tmp_path: Path, frame: int
) -> None:
    settings = Settings(do="remove", start=5, end=9)
    run(clip, tmp_path, [prompt(frame=frame)], settings)
    tracks = json.loads((tmp_path / "tracks.json").read_text())["frames"]
    assert [f["index"] for f in tracks] == [5, 6, 7, 8]
    for item in tracks:
        assert item["objects"][0]["box"] == pytest.approx(square_box(item["index"]), abs=2)
    assert sorted(p.stem for p in (tmp_path / "masks").glob("*.png")) == [
        "00005", "00006", "00007", "00008"
    ]  # fmt: skip
    shown = [red(picture).any() for picture in frames_of(tmp_path / "removed.mp4")]
    assert shown == [not 5 <= index < 9 for index in range(COUNT)]
    # Another range may lead back to masks of this one, but only to those it would make itself.
    run(clip, tmp_path, [prompt(frame=frame)], replace(settings, start=3, end=10))
    assert len(list((tmp_path / "masks").glob("*.png"))) == 7


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"points": ((500.0, 10.0, 1),)}, {}, "outside the frame"),
        ({"points": ((5.0, 10.0, 0),)}, {}, "nothing says where it is"),
        ({"box": (10, 10, 10, 40)}, {}, "has no area"),
        ({"box": (400, 10, 450, 40)}, {}, "outside the frame"),
        ({"frame": 24, "box": (1, 1, 9, 9)}, {}, "frame 24 does not exist"),
        ({}, {"start": 9, "end": 9}, "no frame between"),
    ],
)
def test_bad_prompts_get_one_sentence(
    clip: Path, tmp_path: Path, changes: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(clip, tmp_path / "out", [prompt(**changes)], Settings(**settings))
    assert not (tmp_path / "out").exists(), "a folder was made for nothing"


def test_bad_masks_get_one_sentence(clip: Path, tmp_path: Path) -> None:
    save_mask(tmp_path / "small.png", np.ones((10, 10), bool))
    with pytest.raises(InputError, match="10"):
        run(clip, tmp_path / "o", [prompt(mask=tmp_path / "small.png")], Settings())
    save_mask(tmp_path / "black.png", np.zeros((HEIGHT, WIDTH), bool))
    with pytest.raises(InputError, match="empty"):
        run(clip, tmp_path / "o", [prompt(mask=tmp_path / "black.png")], Settings())


def test_folder_of_another_video_is_not_overwritten(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    run(clip, tmp_path / "out", [prompt()], Settings())
    before = (tmp_path / "out" / "tracked.mp4").read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        run(other, tmp_path / "out", [prompt()], Settings())
    assert (tmp_path / "out" / "tracked.mp4").read_bytes() == before
    run(other, tmp_path / "out", [prompt()], Settings(), overwrite=True)


def test_input_is_never_written(clip: Path, tmp_path: Path) -> None:
    before = clip.read_bytes(), clip.stat().st_mtime_ns
    run(clip, tmp_path, [prompt()], Settings(do="remove"))
    assert (clip.read_bytes(), clip.stat().st_mtime_ns) == before


def test_input_where_results_go_is_refused(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pictures = out / "masks"
    pictures.mkdir(parents=True)
    for index in range(2):
        imageio.imwrite(pictures / f"{index}.png", square_frame(index))
    (out / "removed.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "link.mp4").symlink_to(out / "removed.mp4")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for source in (pictures, tmp_path / "link.mp4"):
        with pytest.raises(InputError, match="would replace the input"):
            run(source, out, [prompt()], Settings(do="remove"), overwrite=True)
    for below in (pictures, pictures / "results"):
        with pytest.raises(InputError, match="is in the input"):
            run(pictures, below, [prompt()], Settings())
    assert {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()} == before


def test_two_runs_do_not_share_a_folder(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "_PATIENCE", 0)
    refused: list[str] = []

    def another(stage: str, done: int, total: int) -> None:
        with pytest.raises(InputError) as error:
            run(clip, tmp_path / "out", [prompt()], Settings())
        refused.append(str(error.value))

    run(clip, tmp_path / "out", [prompt()], Settings(end=2), report=another)
    assert set(refused) == {
        f"Another run is at work in {tmp_path / 'out'}; wait for its end or choose another --out."
    }
    run(clip, tmp_path / "out", [prompt()], Settings(end=2))  # the folder is free again


def test_auto_takes_the_best_model_whose_weights_are_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here: set[str] = {"mixformerv2_small_seed", "mobile_sam"}
    monkeypatch.setattr(
        pipeline.checkpoints, "find", lambda name: tmp_path if name in here else None
    )
    chosen = pipeline.choose_models(Settings())
    assert (chosen.tracker, chosen.segmenter, chosen.inpainter) == (
        "mixformerv2_small", "mobile_sam", "propagation",
    )  # fmt: skip
    here |= {"mixformerv2_base", "sam_vit_b"}
    chosen = pipeline.choose_models(Settings())
    assert (chosen.tracker, chosen.segmenter) == ("mixformerv2_base", "sam_vit_b")
    assert pipeline.choose_models(Settings(segmenter="mobile_sam")).segmenter == "mobile_sam"


def test_where_memory_does_not_suffice_it_is_painted_at_half_the_size(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Greedy(GreyInpainter):
        def __init__(self, resolution: int | None = None, **options: Any) -> None:
            super().__init__()
            self.resolution = resolution

        def inpaint(self, frames: Any, masks: Any, **options: Any) -> Iterator[np.ndarray]:
            for index, frame in enumerate(super().inpaint(frames, masks, **options)):
                if index == 2 and (self.resolution or WIDTH) > most:
                    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
                yield frame

    most = 100
    monkeypatch.setattr(pipeline, "build_inpainter", lambda *a, **k: Greedy(**k))
    result = run(clip, tmp_path / "a", [prompt()], Settings(do="remove", resolution=900))
    assert any(f"done at {WIDTH // 2} pixels" in note for note in result.notes)
    assert "painted grey" in result.notes and len(frames_of(tmp_path / "a/removed.mp4")) == COUNT
    assert json.loads((tmp_path / "a/run.json").read_text())["settings"]["resolution"] == 900
    most = 1  # and not for ever
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        run(clip, tmp_path / "b", [prompt()], Settings(do="remove"))
    assert "not enough memory" in explain(caught.value)[0]
