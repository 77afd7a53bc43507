"""Every object of a frame, for picking one by pointing at it.

As segment-anything's automatic mask generator does it: a grid of points, each a prompt; answers
that the model is not sure of are dropped, and of those that mean the same the best is kept. What is
done otherwise saves time, which on a CPU is almost all the decoder's: points go from coarse to
fine, one that lies on an object found before is not asked again, filters work on small logits, and
only masks that stay are brought to the size of the frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.utils.amg import (
    batched_mask_to_box,
    build_point_grid,
    calculate_stability_score,
)
from torchvision.ops import nms

from segmenters.base import Embedding, Prompt, Segmenter
from segmenters.cleanup import clean_mask, mask_box
from segmenters.sam import DECODER_BATCH

SAME = 0.7  # boxes that overlap more mean the same object
# A mask of up to this share of the frame spares the points that lie on it; a larger one may be the
# whole scene with all that is in it. With a limit of 0.1 a meadow took 129 prompts and not 12.
COVERED = 0.9
STABILITY_OFFSET = 1.0  # of the threshold, in logits


@dataclass(frozen=True, eq=False)
class FoundObject:
    """One of the objects of a frame.

    Attributes:
        mask: Bool (h, w) at frame size.
        box: Float32 (4,), x0 y0 x1 y1 in pixels, round the mask.
        score: The model's own guess of the mask's IoU with the object, about [0, 1].
        stability: IoU in [0, 1] of what is surely and what is perhaps the object.
    """

    mask: np.ndarray
    box: np.ndarray
    score: float
    stability: float


def find_objects(
    segmenter: Segmenter,
    embedding: Embedding,
    *,
    points_per_side: int = 16,
    min_score: float = 0.88,
    min_stability: float = 0.9,
    min_area: float = 0.0005,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[FoundObject]:
    """Find all objects of a frame.

    Args:
        segmenter: What encoded the frame.
        embedding: Of the frame.
        points_per_side: Of the grid.
        min_score: Least score of a mask.
        min_stability: Least stability of a mask.
        min_area: Least area of a mask as a share of the frame.
        seconds: Stop asking after that time; what was found until then lies all over the frame.
        progress: Called with (points done, points in all) after every few points.
        cancelled: Asked just as often; True ends the search early.

    Returns:
        The objects, the largest first, so that the one drawn last is on top.
    """
    height, width = embedding.size
    points = _coarse_to_fine(points_per_side)
    scale = 256 / max(embedding.size)
    rows, columns = max(round(height * scale), 1), max(round(width * scale), 1)
    batch = DECODER_BATCH.get(segmenter.device.type, 64)
    deadline = None if seconds is None else time.monotonic() + seconds

    covered = np.zeros((rows, columns), bool)
    kept: list[tuple[np.ndarray, float, float]] = []  # logits, score, stability
    done = 0
    while done < len(points) and not cancelled():
        if deadline is not None and time.monotonic() > deadline:
            break
        asked: list[Prompt] = []
        while done < len(points) and len(asked) < batch:
            x, y = points[done]
            done += 1
            if not covered[int(y * rows), int(x * columns)]:
                asked.append(Prompt(points=np.array([[x * width, y * height]], np.float32)))
        for logits, scores in segmenter.predict_logits(embedding, asked):
            inside = torch.as_tensor(logits[:, :rows, :columns])
            stable = calculate_stability_score(inside, 0.0, STABILITY_OFFSET).numpy()
            areas = (inside > 0).float().mean(dim=(1, 2)).numpy()
            good = (scores >= min_score) & (stable >= min_stability) & (areas >= min_area)
            for index in np.flatnonzero(good):
                kept.append((logits[index], float(scores[index]), float(stable[index])))
                if areas[index] <= COVERED:
                    covered |= logits[index, :rows, :columns] > 0
        if progress is not None:
            progress(done, len(points))
    return _distinct(segmenter, kept, embedding.size, (rows, columns))


def _coarse_to_fine(side: int) -> np.ndarray:
    """Points of a grid, float (side * side, 2), x y in [0, 1]; any first part of them is even."""
    row, column = np.divmod(np.arange(side * side), side)
    both = row | column
    stride = np.where(both > 0, both & (~both + 1), side)  # the largest power of two in both
    return build_point_grid(side)[np.argsort(-stride, kind="stable")]


def _distinct(
    segmenter: Segmenter,
    kept: list[tuple[np.ndarray, float, float]],
    size: tuple[int, int],
    used: tuple[int, int],
) -> list[FoundObject]:
    if not kept:
        return []
    rows, columns = used
    small = torch.as_tensor(np.stack([logits[:rows, :columns] for logits, _, _ in kept])) > 0
    boxes = batched_mask_to_box(small).float()
    boxes[:, 2:] += 1  # its ends are inside
    best = nms(boxes, torch.tensor([score for _, score, _ in kept]), SAME)
    objects = []
    for index in best.tolist():
        logits, score, stability = kept[index]
        mask = clean_mask(segmenter.enlarge(logits[None], size)[0])
        box = mask_box(mask)
        if box is not None:
            objects.append(FoundObject(mask, box, score, stability))
    return sorted(objects, key=lambda found: -int(found.mask.sum()))
