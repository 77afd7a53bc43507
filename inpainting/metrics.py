"""How close a painted clip comes to the true one, and how steady it is.

All take RGB uint8 frames; a method never marks its own work: the motion that steadiness is judged
by is that of the true frames.
"""

from __future__ import annotations

import cv2
import numpy as np

from inpainting.base import Frame
from media.flow import dense_flow, warp

SSIM_WINDOW = 65  # pixels; the field's evaluation of video inpainting (STTN, E2FGVI) uses this one


def psnr(frame: Frame, truth: Frame) -> float:
    """Peak signal to noise ratio of two uint8 frames (h, w, 3) in dB; equal frames have 100."""
    error = np.mean((frame.astype(np.float64) - truth) ** 2)
    return float(min(10 * np.log10(255**2 / error), 100.0)) if error else 100.0


def ssim(frame: Frame, truth: Frame, *, window: int = SSIM_WINDOW) -> float:
    """Structural similarity, the mean over pixels and channels.

    Wang et al., "Image Quality Assessment", 2004, with a square window of equal weights; the same
    as scikit-image's `structural_similarity(..., win_size=window, channel_axis=2, data_range=255)`.

    Args:
        frame: uint8 (h, w, 3).
        truth: the same shape.
        window: side of the window in pixels, odd; smaller frames take the largest that fits.
    """
    side = min(window, *((size - 1) // 2 * 2 + 1 for size in truth.shape[:2]))

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.blur(image, (side, side), borderType=cv2.BORDER_REFLECT_101)

    x, y = frame.astype(np.float64), truth.astype(np.float64)
    mx, my = mean(x), mean(y)
    unbiased = side**2 / max(side**2 - 1, 1)
    vx, vy = unbiased * (mean(x * x) - mx * mx), unbiased * (mean(y * y) - my * my)
    vxy = unbiased * (mean(x * y) - mx * my)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    edge = side // 2  # windows that reach beyond the frame do not count
    return float(values[edge : len(y) - edge, edge : y.shape[1] - edge].mean())


class WarpingError:
    """Flow warping error (Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018).

    The mean squared difference, in [0, 1], of a frame and the next one brought back along the
    motion of the true frames, where both see the same thing: forward and backward motion agree
    (Sundaram et al., 2010). Give it frames one by one, in order.
    """

    def __init__(self) -> None:
        self._before: tuple[Frame, Frame] | None = None
        self._errors: list[float] = []

    def add(self, frame: Frame, truth: Frame) -> None:
        """Take note of the next painted frame and the true one, uint8 (h, w, 3)."""
        if self._before is not None:
            painted, true = self._before
            there, back = dense_flow(true, truth), dense_flow(truth, true)
            again = warp(back, there)
            miss = ((there + again) ** 2).sum(axis=-1)
            size = (there**2).sum(axis=-1) + (again**2).sum(axis=-1)
            visible = miss < 0.01 * size + 0.5
            moved = warp(frame.astype(np.float32), there)
            error = ((painted - moved) / 255) ** 2
            if visible.any():
                self._errors.append(float(error[visible].mean()))
        self._before = (frame, truth)

    def mean(self) -> float:
        """Over all pairs so far; nan before the second frame."""
        return float(np.mean(self._errors)) if self._errors else float("nan")
