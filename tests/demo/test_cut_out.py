"""Masks from tracks: what is lost, what is given, what is small, what is doubtful."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo import pipeline
from demo.pipeline import Segment, cut_out, find_candidates, look_closer, plan
from demo.project import KeyFrame, ObjectPrompt, Settings, TrackPoint, Tracks, read_doubts
from demo.run import run
from media import InputError
from media.video import VideoWriter, open_video
from segmenters import Candidate, Prompt
from segmenters.steady import Steadier
from tests.demo.square import HEIGHT, WIDTH, ColourSegmenter, red, square_box, square_frame


class Watched(ColourSegmenter):
    """Keeps what it was shown and asked."""

    def __init__(self, score: float = 0.9) -> None:
        self.score = score
        self.shown: list[tuple[int, int]] = []
        self.asked: list[Prompt] = []

    def encode(self, frame: np.ndarray) -> Any:
        self.shown.append(frame.shape[:2])
        return super().encode(frame)

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        self.asked += prompts
        return [
            [Candidate(c.mask, self.score, c.logits) for c in candidates]
            for candidates in super().predict(embedding, prompts)
        ]


def prompt(**changes: Any) -> ObjectPrompt:
    values: dict[str, Any] = {"id": 1, "name": "square", "color": "#ff8800", "frame": 0}
    return ObjectPrompt(**{**values, "box": square_box(values["frame"]), **changes})


def cut(
    clip: Path, span: range, *, lost: Sequence[int] = (), segmenter: Any = None, **changes: Any
) -> dict[int, np.ndarray]:
    one = prompt(**changes)
    tracks = Tracks()
    for index in span:
        box = None if index in lost else tuple(map(float, square_box(index)))
        tracks.put(index, 1, TrackPoint(box=box, score=0.9))
    made = {}
    with open_video(clip) as reader:
        segments: list[Segment] = plan(one, span)
        for index, _, found in cut_out(reader, tracks, segments, {}, segmenter or Watched()):
            (mask,) = found.values()
            made[index] = mask.mask
    return made


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def test_masks_follow_in_both_directions(clip: Path) -> None:
    made = cut(clip, range(8), frame=4, box=square_box(4))
    assert sorted(made) == list(range(8))
    for index, mask in made.items():
        assert iou(mask, red(square_frame(index))) > 0.9, index


def test_a_lost_object_has_an_empty_mask_and_costs_nothing(clip: Path) -> None:
    segmenter = Watched()
    made = cut(clip, range(6), lost=(2, 3), segmenter=segmenter)
    assert [mask.any() for mask in made.values()] == [True, True, False, False, True, True]
    assert len(segmenter.shown) == 5  # the key frame twice
    assert iou(made[4], red(square_frame(4))) > 0.9  # nothing is carried over the gap


def test_a_box_beside_the_frame_is_a_lost_object(clip: Path) -> None:
    segmenter, tracks = Watched(), Tracks()
    boxes = [square_box(0), (-30, 30, -2, 54), (WIDTH, 30, WIDTH + 24, 54)]
    for index, box in enumerate(boxes):
        tracks.put(index, 1, TrackPoint(box=box, score=0.9))
    with open_video(clip) as reader:
        segments = plan(prompt(), range(3))
        made = [list(m.values()) for _, _, m in cut_out(reader, tracks, segments, {}, segmenter)]  # type: ignore[arg-type]
    assert [found.mask.any() for (found,) in made] == [True, False, False]
    assert len(segmenter.shown) == 2  # the key frame


@pytest.mark.parametrize("cut", [False, True])
def test_what_was_decided_before_a_cut_does_not_count_behind_it(tmp_path: Path, cut: bool) -> None:
    """Of two halves that may be meant the one of the frame before is, but for a new shot."""

    class Either(ColourSegmenter):
        def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
            halves = np.zeros((2, HEIGHT, WIDTH), bool)
            halves[0, 20:80, 10:70] = halves[1, 20:80, 90:150] = True
            logits = np.full((2, 256, 256), -8, np.float32)
            logits[0, 32:128, 16:112] = logits[1, 32:128, 144:240] = 8
            scores = (0.85, 0.9)
            both = [Candidate(*one) for one in zip(halves, scores, logits, strict=True)]
            return [both] * len(prompts)

    other = np.full((HEIGHT, WIDTH, 3), (10, 60, 160), np.uint8)
    other[20:60, 80:] = (240, 220, 40)
    with VideoWriter(tmp_path / "two.mp4", size=(HEIGHT, WIDTH), fps=Fraction(24)) as writer:
        for index in range(6):
            writer.write(other if cut and index >= 3 else square_frame(0))
    tracks = Tracks()
    for index in range(6):
        box = (10.0, 20.0, 70.0, 80.0) if index < 3 else (10.0, 20.0, 150.0, 80.0)
        tracks.put(index, 1, TrackPoint(box=box, score=0.9))
    with open_video(tmp_path / "two.mp4") as reader:
        segments = plan(prompt(box=(10, 20, 70, 80)), range(6))
        made = cut_out(reader, tracks, segments, {}, Either())  # type: ignore[arg-type]
        masks = [mask.mask for _, _, found in made for mask in found.values()]
    found = ["left" if mask[50, 40] else "right" for mask in masks]
    assert found == ["left"] * 3 + ["right" if cut else "left"] * 3


def test_a_small_object_is_looked_at_closely(clip: Path) -> None:
    segmenter = Watched()
    cut(clip, range(3), segmenter=segmenter)
    x0, y0, x1, y1 = square_box(1)
    small = max(x1 - x0, y1 - y0) <= 0.25 * max(HEIGHT, WIDTH)
    assert small and segmenter.shown[0] == (HEIGHT, WIDTH)  # to find what the user means
    assert all(shown != (HEIGHT, WIDTH) for shown in segmenter.shown[1:])


def test_a_small_object_that_is_clicked_is_looked_at_twice() -> None:
    frame = square_frame(0)
    x0, y0, x1, y1 = square_box(0)
    key = prompt(box=None, points=(((x0 + x1) / 2, (y0 + y1) / 2, 1),))
    segmenter = Watched()
    embedding = segmenter.encode(frame)
    _, coarse = find_candidates(segmenter, embedding, key)  # type: ignore[arg-type]
    assert len(segmenter.shown) == 1, "a click is answered at once"
    found, window = look_closer(segmenter, frame, key, coarse)  # type: ignore[arg-type]
    assert len(segmenter.shown) == 2 and segmenter.shown[1] != segmenter.shown[0]
    assert window is not None and iou(found.mask, red(frame)) > 0.9


@pytest.mark.usefixtures("colour_models")
def test_how_still_masks_are_held_is_handed_on_and_makes_them_anew(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def steadier(*, inertia: float) -> Steadier:
        asked.append(inertia)
        return Steadier(inertia=inertia)

    monkeypatch.setattr(pipeline, "Steadier", steadier)
    for steady in (0.0, 0.0, 0.9):
        run(clip, tmp_path, [prompt()], Settings(do="segment", end=3, steady=steady))
    assert set(asked) == {0.0, 0.9} and len(asked) == 2
    with pytest.raises(InputError, match=r"0 to 0\.9"):
        Settings(steady=1.0)


@pytest.mark.usefixtures("colour_models")
@pytest.mark.parametrize(("score", "places"), [(0.95, None), (0.5, "6 frames (look at 0 to 5)")])
def test_doubtful_masks_are_noted(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, places: str | None
) -> None:
    monkeypatch.setattr(pipeline, "build_segmenter", lambda *a, **k: Watched(score))
    run(clip, tmp_path, [prompt()], Settings(do="segment", end=6))
    written = json.loads((tmp_path / "run.json").read_text())["notes"]
    notes = [note for note in written if "may be wrong" in note]
    assert notes == [] if places is None else "square" in notes[0] and places in notes[0]
    doubtful = json.loads((tmp_path / "run.json").read_text())["doubtful"]
    assert doubtful == {"1": [] if places is None else list(range(6))}
    # A correction makes only its own part anew; the doubts about the others stay.
    monkeypatch.setattr(pipeline, "build_segmenter", lambda *a, **k: Watched())
    corrected = prompt(corrections=(KeyFrame(frame=4, box=square_box(4)),))
    run(clip, tmp_path, [corrected], Settings(do="segment", end=6))
    left = read_doubts(tmp_path)
    assert left == {"1": [] if places is None else [0, 1, 2, 3]}
