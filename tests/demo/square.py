"""A clip whose content says what it is, and models that follow its red square by colour.

The pipeline's own logic (order, ranges, files, resuming, errors) is tested with these in
milliseconds; `test_end_to_end.py` runs the real models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from checkpoints import WeightsRecord
from segmenters import Candidate, Embedding, Prompt
from trackers import Track

WIDTH, HEIGHT, COUNT, SIDE = 160, 96, 24, 24


def square_box(index: int) -> tuple[int, int, int, int]:
    """Where the red square is on frame `index`: x0 y0 x1 y1."""
    return 10 + 4 * index, 30, 10 + 4 * index + SIDE, 30 + SIDE


def square_frame(index: int) -> np.ndarray:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    grey = (60 + 40 * ((rows // 8 + columns // 8) % 2)).astype(np.uint8)
    frame = np.repeat(grey[..., None], 3, axis=2)
    x0, y0, x1, y1 = square_box(index)
    frame[y0:y1, x0:x1] = (230, 20, 20)
    return frame


def red(frame: np.ndarray) -> np.ndarray:
    f = frame.astype(int)
    return (f[..., 0] > 150) & (f[..., 1] < 90)


def bounds(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array(
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float32
    )


class ColourTracker:
    """Follows red; lost when there is none."""

    weights = "colour"
    calls: list[str]

    def __init__(self) -> None:
        self.box = np.zeros(4, np.float32)

    def initialize(self, frame: np.ndarray, box: np.ndarray) -> None:
        self.box = np.asarray(box, np.float32)

    def track(self, frame: np.ndarray) -> Track:
        mask = red(frame)
        if not mask.any():
            return Track(box=self.box, score=0.1, lost=True)
        self.box = bounds(mask)
        return Track(box=self.box, score=0.9)

    def correct(self, frame: np.ndarray, box: np.ndarray) -> None:
        self.initialize(frame, box)


class ColourTrackers:
    """Several of them at once, as `trackers.MultiTracker` has them."""

    weights = "colour"

    def __init__(self, tracker: ColourTracker) -> None:
        self.objects: dict[int, ColourTracker] = {}

    def add(self, id: int, frame: np.ndarray, box: np.ndarray) -> None:
        self.objects[id] = ColourTracker()
        self.objects[id].initialize(frame, box)

    @property
    def ids(self) -> list[int]:
        return list(self.objects)

    def correct(self, id: int, frame: np.ndarray, box: np.ndarray) -> None:
        self.objects[id].correct(frame, box)

    def find(self, id: int, frame: np.ndarray) -> Track:
        return self.objects[id].track(frame)

    def remove(self, id: int) -> None:
        del self.objects[id]

    def track(self, frame: np.ndarray) -> dict[int, Track]:
        return {id: tracker.track(frame) for id, tracker in self.objects.items()}


class ColourSegmenter:
    """Masks what is red; its features are the frame itself."""

    weights = WeightsRecord("colour", "0123")
    device = torch.device("cpu")
    settings = ""

    def encode(self, frame: np.ndarray) -> Embedding:
        return Embedding(torch.from_numpy(frame.copy()), frame.shape[:2])

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        mask = red(embedding.features.numpy())
        scale = 256 / max(mask.shape)
        rows, columns = round(mask.shape[0] * scale), round(mask.shape[1] * scale)
        logits = np.full((256, 256), -8, np.float32)
        logits[:rows, :columns] = 16 * cv2.resize(mask.astype(np.float32), (columns, rows)) - 8
        return [[Candidate(mask=mask, score=0.9, logits=logits)] for _ in prompts]


class GreyInpainter:
    """Paints the hole grey and nothing else."""

    weights = "grey"

    def __init__(self) -> None:
        self.notes = ["painted grey"]

    def inpaint(
        self, frames: Any, masks: Any, *, start: int = 0, stop: int | None = None
    ) -> Iterator[np.ndarray]:
        for index in range(start, len(frames) if stop is None else stop):
            frame = frames[index].copy()
            frame[masks[index]] = 80
            yield frame


def run_here(*args: Any, paused: Any, picture: Any, **options: Any) -> Any:
    """A job's run in this process, where the colour models are."""
    from demo.run import run

    return run(*args, **options)
