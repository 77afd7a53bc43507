"""The sequence of the tracking golden: a textured patch that moves, in integers, so bit-exact."""

from __future__ import annotations

import numpy as np

HEIGHT, WIDTH, BOX_WIDTH, BOX_HEIGHT = 240, 320, 48, 36


def box_xywh(t: int) -> tuple[int, int, int, int]:
    return 70 + 9 * t, 60 + 5 * t, BOX_WIDTH, BOX_HEIGHT


def frame(t: int) -> np.ndarray:
    """(240, 320, 3) RGB uint8."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    red = (x * 3 + y * 2) % 181 + 20
    green = (x * y // 16) % 151 + 30
    blue = ((x - 160) ** 2 + (y - 120) ** 2) // 64 % 127 + 40
    image = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    left, top, width, height = box_xywh(t)
    y, x = np.mgrid[0:height, 0:width]
    check = (x // 6 + y // 6) % 2
    patch = np.stack([check * 200 + 40, 255 - check * 180, (x * 5) % 256], axis=-1)
    image[top : top + height, left : left + width] = patch.astype(np.uint8)
    return image
