"""Pictures in which one can see where the object is: it alone is red."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from trackers.crops import normalize_
from trackers.training.data import Batch

SIZE = (96, 128)  # height, width


def scene(box_xywh: tuple[int, int, int, int] | None, seed: int = 0) -> np.ndarray:
    """A blurred blue and green pattern with a red rectangle: (96, 128, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 160, (12, 16, 3)).astype(np.uint8)
    small[..., 0] = 0
    image = np.array(Image.fromarray(small).resize(SIZE[::-1], Image.Resampling.BILINEAR))
    if box_xywh is not None:
        x, y, w, h = box_xywh
        image[max(0, y) : y + h, max(0, x) : x + w] = (255, 0, 0)
    return image


def encode(image: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def to_pixels(tensor: torch.Tensor) -> np.ndarray:
    """(n, 3, s, s) normalised to float (n, s, s, 3) in [0, 255]."""
    black, white = (normalize_(torch.full((1, 3, 1, 1), value)) for value in (0.0, 255.0))
    return ((tensor - black) / (white - black) * 255).permute(0, 2, 3, 1).numpy()


def red_box(image: np.ndarray) -> np.ndarray | None:
    """x0 y0 x1 y1 of what is red in (s, s, 3), None if there is next to nothing."""
    red = image[..., 0] - image[..., 1:].max(axis=2) > 60
    if red.sum() < 12:
        return None
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def misplaced(batch: Batch) -> list[float]:
    """By how many pixels boxes miss the red rectangles, one number for each crop that has one."""
    size = batch.search.shape[-1]
    found = []
    for image, box in zip(to_pixels(batch.search), batch.boxes_xywh.numpy(), strict=True):
        seen = red_box(image)
        if seen is not None:
            x, y, w, h = box * size
            # What is outside of the crop cannot be seen.
            expected = np.clip([x, y, x + w, y + h], 0, size)
            found.append(float(np.abs(seen - expected).max()))
    return found
