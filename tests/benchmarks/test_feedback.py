"""A tracker that drifts is set right by masks that are sure and near, and by no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import feedback
from segmenters import Candidate
from tests.demo.square import ColourSegmenter, square_box, square_frame
from trackers import Track
from trackers.datasets import Sequence

COUNT, DRIFT = 9, 1.0  # frames; pixels per frame


class Drifting:
    """Knows how the square moves, and errs by a little more in each frame."""

    def __init__(self) -> None:
        self.index, self.off, self.learnt = 0, 0.0, 0

    def initialize(self, frame: np.ndarray, box: np.ndarray) -> None:
        assert box.tolist() == list(square_box(0))

    def track(self, frame: np.ndarray) -> Track:
        self.index, self.off = self.index + 1, self.off + DRIFT
        return Track(np.array(square_box(self.index), np.float32) + self.off, 0.9)

    def _place(self, box: np.ndarray, size: tuple[int, int]) -> None:
        self.off = float(box[0] - square_box(self.index)[0])

    def correct(self, frame: np.ndarray, box: np.ndarray) -> None:
        self._place(box, frame.shape[:2])
        self.learnt += 1


class Unsure(ColourSegmenter):
    def predict(self, embedding: Any, prompts: Any) -> list[list[Candidate]]:
        answers = super().predict(embedding, prompts)
        return [[Candidate(c.mask, 0.5, c.logits) for c in found] for found in answers]


@pytest.fixture
def sequence(tmp_path: Path) -> Sequence:
    for index in range(COUNT):
        Image.fromarray(square_frame(index)).save(tmp_path / f"{index}.png")
    boxes = np.array([square_box(index) for index in range(COUNT)], float)
    boxes[:, 2:] -= boxes[:, :2]
    return Sequence("square", tuple(tmp_path / f"{index}.png" for index in range(COUNT)), boxes)


def follow(sequence: Sequence, way: feedback.Way, segmenter: Any) -> tuple[float, int, int]:
    tracker: Any = Drifting()
    return (*feedback.follow(sequence, tracker, segmenter, way, every=3), tracker.learnt)


def test_masks_set_a_tracker_right(sequence: Sequence) -> None:
    alone, told, _ = follow(sequence, "alone", ColourSegmenter())
    assert told == 0 and alone < 0.6
    for way, learnt in (("placed", 0), ("corrected", 2)):
        found = follow(sequence, way, ColourSegmenter())  # type: ignore[arg-type]
        assert found[0] > alone + 0.1 and found[1:] == (2, learnt)


def test_masks_in_doubt_are_not_told(sequence: Sequence) -> None:
    alone = follow(sequence, "alone", ColourSegmenter())
    assert follow(sequence, "corrected", Unsure()) == alone
