"""Boxes: the only place that converts between formats. Arrays and tensors alike, last axis 4.

xyxy is x0 y0 x1 y1 (x1, y1 exclusive), xywh is left, top, width, height, cxcywh is centre, width,
height; all in the same unit, pixels or shares of a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

Boxes = TypeVar("Boxes", np.ndarray, torch.Tensor)


def _split(boxes: Boxes) -> tuple[Boxes, Boxes, Boxes, Boxes]:
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _join(*columns: Boxes) -> Boxes:
    if isinstance(columns[0], torch.Tensor):
        return torch.stack(columns, dim=-1)
    return np.stack(columns, axis=-1)


def xyxy_to_xywh(boxes: Boxes) -> Boxes:
    """Convert (..., 4) x0 y0 x1 y1 to left, top, width, height."""
    x0, y0, x1, y1 = _split(boxes)
    return _join(x0, y0, x1 - x0, y1 - y0)


def xywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Convert (..., 4) left, top, width, height to x0 y0 x1 y1."""
    x, y, w, h = _split(boxes)
    return _join(x, y, x + w, y + h)


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    """Convert (..., 4) x0 y0 x1 y1 to centre x, centre y, width, height."""
    x0, y0, x1, y1 = _split(boxes)
    return _join((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Convert (..., 4) centre x, centre y, width, height to x0 y0 x1 y1."""
    cx, cy, w, h = _split(boxes)
    return _join(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)


def xywh_to_cxcywh(boxes: Boxes) -> Boxes:
    """Convert (..., 4) left, top, width, height to centre x, centre y, width, height."""
    x, y, w, h = _split(boxes)
    return _join(x + w / 2, y + h / 2, w, h)


def cxcywh_to_xywh(boxes: Boxes) -> Boxes:
    """Convert (..., 4) centre x, centre y, width, height to left, top, width, height."""
    cx, cy, w, h = _split(boxes)
    return _join(cx - w / 2, cy - h / 2, w, h)


def box_iou(first: Boxes, second: Boxes) -> Boxes:
    """Intersection over union, pair by pair.

    Args:
        first: (..., 4) x0 y0 x1 y1.
        second: the same shape, or one that broadcasts with it.

    Returns:
        (...) in [0, 1]; 0 where both boxes are empty. A box turned inside out counts as empty.
    """
    ax0, ay0, ax1, ay1 = _split(first)
    bx0, by0, bx1, by1 = _split(second)
    if isinstance(first, torch.Tensor):
        least, most = torch.minimum, torch.maximum
    else:
        least, most = np.minimum, np.maximum

    def area(x0: Boxes, y0: Boxes, x1: Boxes, y1: Boxes) -> Boxes:
        return (x1 - x0).clip(min=0) * (y1 - y0).clip(min=0)

    overlap = area(most(ax0, bx0), most(ay0, by0), least(ax1, bx1), least(ay1, by1))
    union = area(ax0, ay0, ax1, ay1) + area(bx0, by0, bx1, by1) - overlap
    return overlap / union.clip(min=1e-12)


def clip_xywh(
    box_xywh: Sequence[float], size: tuple[int, int], margin: float = 10.0
) -> tuple[float, float, float, float]:
    """Keep a tracked box in the frame and at least `margin` wide and high.

    Kept from upstream: a box narrower than the margin grows to the right and down only, so its
    centre moves; a box turned inside out becomes margin x margin at its left top corner.
    Source: MCG-NJU/MixFormerV2 @ 10414383, the tracker's `clip_box`.

    Args:
        box_xywh: left, top, width, height in pixels.
        size: (height, width) of the frame.
        margin: least side in pixels, and how much of the box stays inside the frame.

    Returns:
        left, top, width, height in pixels.
    """
    height, width = size
    x, y, w, h = box_xywh
    x0, x1 = min(max(0.0, x), width - margin), min(max(margin, x + w), float(width))
    y0, y1 = min(max(0.0, y), height - margin), min(max(margin, y + h), float(height))
    return x0, y0, max(margin, x1 - x0), max(margin, y1 - y0)
