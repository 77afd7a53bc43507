"""Look closer at a part of a frame, so that small objects get sharp masks.

A model of the SAM family sees every frame at 1024 pixels and answers in 256: an object of 60 pixels
in a 1080p frame has eight of them. A window round the object, encoded in place of the frame, gives
it as many as a large one has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from segmenters.base import Candidate, Embedding, Prompt, Segmenter

Region = Literal["auto", "always", "never"]
Window = tuple[int, int, int, int]  # x0 y0 x1 y1 in whole pixels, x1 and y1 exclusive
# Side of the window in longer sides of the box. `python -m benchmarks.steady window` measures what
# a window is worth, with this or another side.
CONTEXT = 3.0
SMALL = 0.25  # of the frame's longer side: up to here a window is looked at
STEP = 32  # windows have sides of whole steps, so that a box that trembles keeps its window


@dataclass(frozen=True, eq=False)
class View:
    """A window of a frame as the model sees it.

    Attributes:
        embedding: Of what is in the window.
        window: x0 y0 x1 y1 in whole pixels of the frame, x1 and y1 exclusive.
        size: (height, width) of the frame.
    """

    embedding: Embedding
    window: Window
    size: tuple[int, int]


def is_within(box: Sequence[float] | np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a box, float (4,) x0 y0 x1 y1 in pixels, has area inside a frame (height, width).

    A tracked box that has none can prompt nothing: its object is lost.
    """
    x0, y0, x1, y1 = np.clip(np.asarray(box, np.float32), 0, np.tile(size[::-1], 2))
    return bool(x1 > x0 and y1 > y0)


def choose_window(
    box: np.ndarray | None,
    size: tuple[int, int],
    *,
    points: np.ndarray | None = None,
    region: Region = "auto",
) -> Window:
    """Choose what to look at: a square round a box, or the whole frame.

    Args:
        box: Float (4,), x0 y0 x1 y1 in pixels, where the object is; None if nobody knows.
        size: (height, width) of the frame.
        points: Float (n, 2), x y in pixels, that have to be seen, too.
        region: Whether to look closer: "auto" if the object is small.

    Returns:
        x0 y0 x1 y1 in whole pixels, inside the frame.
    """
    height, width = size
    whole = (0, 0, width, height)
    if box is None or region == "never":
        return whole
    longest = float(max(box[2] - box[0], box[3] - box[1]))
    if region == "auto" and longest > SMALL * max(size):
        return whole
    side = STEP * max(int(np.ceil(CONTEXT * longest / STEP)), 1)
    x0, x1 = _span((box[0] + box[2]) / 2, side, width)
    y0, y1 = _span((box[1] + box[3]) / 2, side, height)
    if points is not None and not ((points >= (x0, y0)) & (points < (x1, y1))).all():
        return whole
    return x0, y0, x1, y1


def _span(centre: float, side: int, limit: int) -> tuple[int, int]:
    """`side` pixels round a centre, to an eighth, moved so that they lie between 0 and `limit`."""
    eighth = side // 8
    start = eighth * round((float(centre) - side / 2) / eighth)
    start = max(0, min(start, limit - side))
    return start, min(start + side, limit)


def look(segmenter: Segmenter, frame: np.ndarray, window: Window) -> View:
    """Encode a window of an RGB uint8 (h, w, 3) frame; see `choose_window`."""
    x0, y0, x1, y1 = window
    part = np.ascontiguousarray(frame[y0:y1, x0:x1])
    return View(segmenter.encode(part), window, frame.shape[:2])


def predict(segmenter: Segmenter, view: View, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
    """Answer prompts in full-frame pixels with masks at frame size, as `Segmenter.predict` does.

    Logits, in prompts and candidates, are those of the window.

    Raises:
        InputError: A prompt lies outside the window.
    """
    x0, y0, x1, y1 = view.window
    if (x0, y0) == (0, 0) and (y1, x1) == view.size:
        return segmenter.predict(view.embedding, prompts)
    corner = np.array([x0, y0], np.float32)
    inside = [
        replace(
            prompt,
            box=None if prompt.box is None else prompt.box - np.tile(corner, 2),
            points=None if prompt.points is None else prompt.points - corner,
        )
        for prompt in prompts
    ]
    answers = segmenter.predict(view.embedding, inside)
    return [[replace(c, mask=_paste(c.mask, view)) for c in candidates] for candidates in answers]


def answer(
    segmenter: Segmenter, frame: np.ndarray, asked: Sequence[tuple[Prompt, Window]]
) -> list[list[Candidate]]:
    """Answer prompts about an RGB uint8 (h, w, 3) frame, each in its own window.

    Each window is encoded once, and the prompts that share one share calls of the decoder.

    Returns:
        As `predict`, in the order of the prompts.
    """
    answers: dict[int, list[Candidate]] = {}
    for window in dict.fromkeys(window for _, window in asked):
        indices = [index for index, (_, own) in enumerate(asked) if own == window]
        view = look(segmenter, frame, window)
        found = predict(segmenter, view, [asked[index][0] for index in indices])
        answers.update(zip(indices, found, strict=True))
    return [answers[index] for index in range(len(asked))]


def _paste(mask: np.ndarray, view: View) -> np.ndarray:
    x0, y0, x1, y1 = view.window
    whole = np.zeros(view.size, bool)
    whole[y0:y1, x0:x1] = mask
    return whole
