"""Masks that hold still: what was decided in the frame before counts in the next.

A segmenter sees each frame for the first time, so that edges flicker and, now and then, a part of
the object comes or goes. Here the answer of the frame before is moved along by optical flow. It
helps to choose among the candidates, and its logits are averaged with the new ones, the less the
worse the flow explains the picture: where something was hidden or has appeared, the new frame
decides alone. Specks are dropped at the end.

It also tells when a tracker has jumped to something else, or stays behind when its object goes out
of the picture: an answer that lies on what was seen in the frame before, and was not the object, is
not the object. The numbers behind all this are in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from media.flow import dense_flow, warp
from segmenters.base import MASK_INPUT_SIZE, Candidate
from segmenters.cleanup import box_iou, choose_candidate, clean_mask, mask_box
from segmenters.region import Window

GRID = MASK_INPUT_SIZE[0]  # side of the logits
SIDE = 1024  # at which the model sees a frame
FINER = 2  # pixels per cell of the logits at which flow is found
DOUBT_SCORE = 0.85  # a mask with a lower score is doubtful
DOUBT_AGREEMENT = 0.3  # and so is one whose box overlaps less with the tracked one
SURE = 10.0  # logits beyond this count as this: sure enough to be given up within a few frames
BOX_MARGIN = 0.05  # of its size, at each side: by how much a box is the larger one of two
SPECK = 0.005  # of a mask's largest part: parts smaller than this are not shown
KNOWN = 0.5  # trust from which on a cell shows what the frame before has shown
ASTRAY = 0.15, 0.7  # an answer with less of the object, and more of what is known not to be it
GONE = 0.35  # of its late size: if less is left of an object, it has gone out of sight
HELD = 25  # frames; then a tracker that insists is believed, unless its object has gone
FADING = 0.95  # of the late size, from frame to frame


def boxes_to_ask(box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What to prompt with for a tracked box: one that is larger by a margin, and the box itself.

    A tracked box often cuts off feet, and a segmenter keeps to its box; a larger one lets in what
    stands beside the object. The frame before decides between the answers to both.

    Args:
        box: Float (4,), x0 y0 x1 y1 in pixels.
        size: (height, width) of the frame, which the results do not reach beyond.

    Returns:
        Two of float32 (4,).
    """
    box = np.asarray(box, np.float32)
    margin = BOX_MARGIN * np.tile(box[2:] - box[:2], 2) * np.array([-1, -1, 1, 1])
    inside = np.tile(size[::-1], 2)
    larger, own = (np.clip(one, 0, inside).astype(np.float32) for one in (box + margin, box))
    return larger, own


@dataclass(frozen=True, eq=False)
class SteadyMask:
    """The mask of a tracked object in one frame.

    Attributes:
        mask: Bool (h, w) at frame size.
        score: The model's own guess of the IoU of the candidate it is made from.
        agreement: IoU in [0, 1] of the box round the mask with the tracked one; nan without one.
        doubtful: Mask or track are probably wrong: they disagree, the score is low, or the answers
            were not the object; then the mask is the one before, moved, or empty.
    """

    mask: np.ndarray
    score: float
    agreement: float
    doubtful: bool


@dataclass(frozen=True, eq=False)
class _Before:
    """The frame before, and what was decided about it."""

    frame: np.ndarray
    logits: np.ndarray  # (256, 256), in the padded square of its window
    window: Window
    area: float  # of the mask, in pixels of the frame: the largest of late
    held: int = 0  # frames in a row in which the answers were not believed


class Steadier:
    """Makes steady masks of one tracked object, from frame to frame, forwards or backwards.

    Args:
        inertia: Weight in [0, 1) of the frame before where the flow explains the picture; 0 leaves
            each frame to itself.
        tolerance: Difference of colours, in grey values, that halves that weight nearly thrice.
    """

    def __init__(self, *, inertia: float = 0.6, tolerance: float = 15.0) -> None:
        self.inertia, self.tolerance = inertia, tolerance
        self._before: _Before | None = None

    def settle(
        self,
        frame: np.ndarray,
        candidates: Sequence[Candidate],
        *,
        box: np.ndarray | None = None,
        window: Window | None = None,
    ) -> SteadyMask:
        """Make one mask of the candidates for the next frame.

        Args:
            frame: RGB uint8 (h, w, 3).
            candidates: The answer to one prompt about it, or the answers to several.
            box: Float (4,), x0 y0 x1 y1 in pixels: where the tracker saw the object.
            window: What part of the frame was encoded, if not all of it.
        """
        size = frame.shape[:2]
        window = window or (0, 0, size[1], size[0])
        before, area, held, astray = self._before, 0.0, 0, False
        carried = None if before is None else self._carry(before, frame, window)
        previous = None if carried is None else _enlarge(carried[0], window, size)
        best = choose_candidate(candidates, previous=previous)
        mask, logits = best.mask, np.clip(best.logits, -SURE, SURE)
        if before is not None and carried is not None and self.inertia > 0:
            moved, trust = carried
            area = FADING * before.area
            # As long as nothing was found, there is nothing to jump from.
            if not before.area or not _is_astray(best.logits, moved, trust, window):
                logits = logits + self.inertia * trust * (moved - logits)
            elif before.held < HELD:
                _, _, scale = _grid(window)
                gone = (moved > 0).sum() / scale**2 < GONE * before.area
                # Once it is gone, it has to come back from where nothing was seen.
                logits = np.full_like(moved, -SURE) if gone else moved
                area, held, astray = before.area, before.held + (not gone), True
            mask = _enlarge(logits, window, size)
        # The logits keep specks: what comes out from behind a tree begins as a speck.
        mask = clean_mask(mask, max_hole=0, min_island=SPECK)
        self._before = _Before(frame, logits, window, max(area, float(mask.sum())), held)
        if box is None:
            return SteadyMask(mask, best.score, float("nan"), astray)
        agreement = box_iou(mask_box(mask), box)
        doubtful = astray or agreement < DOUBT_AGREEMENT or best.score < DOUBT_SCORE
        return SteadyMask(mask, best.score, agreement, doubtful)

    def hold(self, frame: np.ndarray, mask: np.ndarray) -> None:
        """Take a bool (h, w) mask of a frame as it is, and go on from there."""
        height, width = mask.shape
        rows, columns, _ = _grid((0, 0, width, height))
        logits = np.full(MASK_INPUT_SIZE, -SURE, np.float32)
        small = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        logits[:rows, :columns] = SURE * (2 * small - 1)
        self._before = _Before(frame, logits, (0, 0, width, height), float(mask.sum()))

    def forget(self) -> None:
        """Begin anew: the object is lost, or the next frame is of another shot."""
        self._before = None

    def _carry(
        self, before: _Before, frame: np.ndarray, window: Window
    ) -> tuple[np.ndarray, np.ndarray]:
        """The logits of the frame before, moved into the window, and how far to trust each."""
        rows, columns, scale = _grid(window)
        x0, y0, x1, y1 = window
        finer = (FINER * columns, FINER * rows)
        now, then = (
            cv2.resize(picture[y0:y1, x0:x1], finer, interpolation=cv2.INTER_AREA)
            for picture in (frame, before.frame)
        )
        flow = cv2.resize(dense_flow(now, then), (columns, rows), interpolation=cv2.INTER_AREA)
        flow = (flow / FINER).astype(np.float32)
        now, then = (
            cv2.resize(p, (columns, rows), interpolation=cv2.INTER_AREA) for p in (now, then)
        )
        change = np.abs(now.astype(np.float32) - warp(then.astype(np.float32), flow)).mean(axis=2)
        change = cv2.GaussianBlur(change, (0, 0), 1)

        # Where each cell was: in cells of this window, in pixels of the frame, in cells of that.
        cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1) + flow
        pixels = (cells + 0.5) / scale + (x0, y0)
        old_rows, old_columns, old_scale = _grid(before.window)
        places = ((pixels - before.window[:2]) * old_scale - 0.5).astype(np.float32)
        moved = np.full(MASK_INPUT_SIZE, -SURE, np.float32)
        moved[:rows, :columns] = cv2.remap(
            before.logits, places[..., 0], places[..., 1], cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        known = ((places > -1) & (places < (old_columns, old_rows))).all(axis=2)
        trust = np.zeros(MASK_INPUT_SIZE, np.float32)
        trust[:rows, :columns] = known * np.exp(-((change / self.tolerance) ** 2))
        return moved, trust


def _is_astray(logits: np.ndarray, moved: np.ndarray, trust: np.ndarray, window: Window) -> bool:
    """Whether an answer lies on what the frame before has shown not to be the object.

    Args:
        logits: The answer, (256, 256).
        moved, trust: The frame before; see `Steadier._carry`.
    """
    rows, columns, _ = _grid(window)
    inside = logits[:rows, :columns] > 0
    if not inside.any():
        return False
    mine = moved[:rows, :columns][inside] > 0
    known = trust[:rows, :columns][inside] > KNOWN
    share, strange = ASTRAY
    return bool(mine.mean() < share and (known & ~mine).mean() > strange)


def _grid(window: Window) -> tuple[int, int, float]:
    """Rows and columns of the logits that lie in a window, and cells per pixel."""
    x0, y0, x1, y1 = window
    scale = GRID / max(x1 - x0, y1 - y0)
    return max(round((y1 - y0) * scale), 1), max(round((x1 - x0) * scale), 1), scale


def _enlarge(logits: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Bring logits of a window to the frame, in the model's own two steps: bool (h, w)."""
    x0, y0, x1, y1 = window
    width, height = x1 - x0, y1 - y0
    scale = SIDE / max(height, width)
    square = cv2.resize(logits, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    used = square[: int(height * scale + 0.5), : int(width * scale + 0.5)]
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = cv2.resize(used, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    return mask
