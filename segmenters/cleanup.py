"""From candidates to one tidy mask: choosing among them, filling pinholes, dropping islands."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from segmenters.base import Candidate, Prompt

TIE = 0.03


def mask_box(mask: np.ndarray) -> np.ndarray | None:
    """Return the box around a bool (h, w) mask, or None when it is empty.

    Returns:
        Float32 (4,), x0 y0 x1 y1 in pixels, x1 and y1 exclusive.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if not width:
        return None
    return np.array([x, y, x + width, y + height], np.float32)


def clean_mask(mask: np.ndarray, *, max_hole: float = 0.003, min_island: float = 0.1) -> np.ndarray:
    """Drop islands and fill pinholes.

    By default, for what somebody points at in one frame. Masks of a film lose only specks (see
    `segmenters.steady`): most holes are true, and so are many islands, such as what comes out from
    behind a tree (docs/benchmarks.md).

    Args:
        mask: Bool (h, w), True on the object.
        max_hole: Holes up to this share of the mask's area are filled. A larger one may well be
            there: between spokes, under a bent arm.
        min_island: Parts smaller than this share of the largest one are dropped. A larger one may
            well belong: the object behind a lamp post. With 1 only the largest part is left.

    Returns:
        A new bool (h, w) mask; an empty one stays empty.
    """
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = areas >= min_island * areas[1:].max(initial=0)
    keep[0] = False  # the background
    mask = keep[parts]
    if not max_hole:
        return mask  # as for each frame of a film: time counts

    # 4-connected, so that the background does not enter by a diagonal line of the object.
    _, gaps, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    fill = stats[:, cv2.CC_STAT_AREA] <= max_hole * mask.sum()
    for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        fill[edge] = False
    fill[0] = False  # the object
    return mask | fill[gaps]


def _mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def box_iou(a: np.ndarray | None, b: np.ndarray) -> float:
    """Intersection over union in [0, 1] of two boxes, x0 y0 x1 y1; 0 where there is none."""
    if a is None:
        return 0.0
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap))


def choose_candidate(
    candidates: Sequence[Candidate],
    *,
    prompt: Prompt | None = None,
    box: np.ndarray | None = None,
    previous: np.ndarray | None = None,
) -> Candidate:
    """Choose the mask that is most likely the whole object that was meant.

    Each candidate has its score, plus the IoU of its own box with `box`, plus its IoU with
    `previous`; among those within 0.03 of the best the largest wins, because people follow whole
    objects, and the model's score cannot tell so close calls apart.
    `python -m benchmarks.steady parts` measures what that is worth.

    Args:
        candidates: The answer to one prompt.
        prompt: That prompt: only masks with the fewest of its points on the wrong side count.
        box: Float (4,), x0 y0 x1 y1 in pixels: drawn round the object. Not for a tracked box: it is
            too often wrong (docs/benchmarks.md).
        previous: Bool (h, w) mask of the object in the frame before.
    """
    if prompt is not None and prompt.points is not None:
        wrong = [_contradictions(candidate.mask, prompt) for candidate in candidates]
        candidates = [c for c, n in zip(candidates, wrong, strict=True) if n == min(wrong)]
    merits = np.array([candidate.score for candidate in candidates])
    if box is not None:
        merits += [box_iou(mask_box(candidate.mask), box) for candidate in candidates]
    if previous is not None:
        merits += [_mask_iou(candidate.mask, previous) for candidate in candidates]
    near = [c for c, merit in zip(candidates, merits, strict=True) if merit >= merits.max() - TIE]
    return max(near, key=lambda candidate: candidate.mask.sum())


def _contradictions(mask: np.ndarray, prompt: Prompt) -> int:
    """How many of a prompt's points lie on the wrong side of a mask's edge."""
    assert prompt.points is not None
    height, width = mask.shape
    x, y = np.floor(prompt.points).astype(int).T
    inside = mask[y.clip(0, height - 1), x.clip(0, width - 1)]
    labels = np.ones(len(x)) if prompt.labels is None else prompt.labels
    return int((inside != (labels > 0)).sum())
