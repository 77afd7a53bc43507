"""Dense optical flow by DIS (https://arxiv.org/abs/1603.03590), and moving pictures along it."""

from __future__ import annotations

import cv2
import numpy as np

_SMALLEST = 16  # pixels of the shorter side; DIS needs room for its patches


def dense_flow(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where the pixels of a frame are in another one.

    Args:
        frame: RGB uint8 (h, w, 3).
        other: RGB uint8 (h, w, 3).

    Returns:
        Float32 (h, w, 2): what is at (x, y) in `frame` is at (x, y) + flow[y, x] in `other`, in
        pixels; zero where the frames are too small to tell.
    """
    if min(frame.shape[:2]) < _SMALLEST:
        return np.zeros((*frame.shape[:2], 2), np.float32)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (frame, other)]
    # A new one each time, because it is not safe to share between threads.
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(*grey, None)  # type: ignore[call-overload]


def warp(other: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Fetch each pixel of a frame from the place in the other one to which its flow points.

    Args:
        other: Float32 or uint8 (h, w) or (h, w, c): a picture, a mask, logits.
        flow: Float32 (h, w, 2), `dense_flow(frame, other)`.

    Returns:
        The same type and shape as `other`, between pixels bilinear, beyond the edge as at the edge.
    """
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return cv2.remap(other, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
