"""The square crop a tracker looks at, and the way back: one object for tracking and training."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

# Means and deviations of ImageNet's RGB values in [0, 1]; every tracker here was trained with them.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SquareCrop:
    """A square window of the frame around a box, resized to `size` x `size` pixels.

    Source: MCG-NJU/MixFormerV2 @ 10414383, `sample_target` and the tracker's box mapping (the same
    in STARK, OSTrack and GRM). Three oddities are kept, because published weights and numbers
    depend on them: the corner is rounded half to even; the right and bottom padding is one pixel
    too wide as soon as the window touches the border, so that the last real column or row is black;
    the way back starts at the box's own centre and knows nothing of the rounding.
    """

    center: tuple[float, float]  # x, y of the box's centre in frame pixels, not rounded
    left: int  # frame pixels; negative when the window begins outside of the frame
    top: int
    side: int  # of the window, frame pixels
    size: int  # of the resized crop, pixels

    @classmethod
    def around(cls, box_xywh: Sequence[float], factor: float, size: int) -> SquareCrop:
        """Plan the crop around a box.

        Args:
            box_xywh: left, top, width, height in frame pixels; width and height are positive.
            factor: side of the window in multiples of the geometric mean of width and height.
            size: side of the resized crop in pixels.
        """
        x, y, w, h = (float(value) for value in box_xywh)
        side = math.ceil(math.sqrt(w * h) * factor)
        left = round(x + 0.5 * w - 0.5 * side)  # Python's round: half to even, as upstream
        top = round(y + 0.5 * h - 0.5 * side)
        return cls((x + 0.5 * w, y + 0.5 * h), left, top, side, size)

    @property
    def scale(self) -> float:
        """Crop pixels per frame pixel (upstream's `resize_factor`)."""
        return self.size / self.side

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """Cut the window out of the frame, black where it reaches outside, not yet resized.

        Args:
            frame: (h, w, 3) uint8.

        Returns:
            (side, side, 3) uint8; a view of the frame when the window lies inside of it.
        """
        height, width = frame.shape[:2]
        # The + 1 is upstream's extra pixel of padding.
        pad_left = max(0, -self.left)
        pad_right = max(0, self.left + self.side - width + 1)
        pad_top = max(0, -self.top)
        pad_bottom = max(0, self.top + self.side - height + 1)
        inner = frame[
            self.top + pad_top : max(0, self.top + self.side - pad_bottom),
            self.left + pad_left : max(0, self.left + self.side - pad_right),
        ]
        if inner.shape[:2] == (self.side, self.side):
            return inner
        window = np.zeros((self.side, self.side, *frame.shape[2:]), frame.dtype)
        rows, columns = inner.shape[:2]
        window[pad_top : pad_top + rows, pad_left : pad_left + columns] = inner
        return window

    def extract(self, frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Cut and resize: (h, w, 3) uint8 to (size, size, 3) uint8, in `out` if it is given."""
        import cv2  # here, so that training, which has its own images, can do without OpenCV

        side = (self.size, self.size)
        return cv2.resize(self.cut(frame), side, dst=out, interpolation=cv2.INTER_LINEAR)

    def to_frame(self, box_cxcywh: np.ndarray | torch.Tensor) -> tuple[float, float, float, float]:
        """Map a predicted box from the crop to the frame.

        Args:
            box_cxcywh: (4,) float32 centre x, centre y, width, height as shares of the crop.

        Returns:
            left, top, width, height in frame pixels, not clipped.
        """
        cx, cy, w, h = (box_cxcywh * self.size / self.scale).tolist()
        half = 0.5 * self.size / self.scale
        cx, cy = cx + (self.center[0] - half), cy + (self.center[1] - half)
        return cx - 0.5 * w, cy - 0.5 * h, w, h

    def to_crop(self, box_xywh: Sequence[float]) -> tuple[float, float, float, float]:
        """Map a box from the frame into the crop, as training labels are made.

        Kept from upstream: labels put the middle of the crop at (size - 1) / 2 pixels and
        `to_frame` puts it at size / 2, so that going to the crop and back moves a box by half a
        crop pixel to the left and up.

        Args:
            box_xywh: left, top, width, height in frame pixels.

        Returns:
            left, top, width, height as shares of the crop.
        """
        x, y, w, h = (float(value) for value in box_xywh)
        middle = (self.size - 1) / 2
        cx = middle + (x + 0.5 * w - self.center[0]) * self.scale
        cy = middle + (y + 0.5 * h - self.center[1]) * self.scale
        w, h = w * self.scale, h * self.scale
        return (cx - 0.5 * w) / self.size, (cy - 0.5 * h) / self.size, w / self.size, h / self.size


def to_tensor(images: Sequence[np.ndarray], device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalise crops for a network.

    Args:
        images: n crops of one size, (size, size, 3) RGB uint8.
        device: where the tensor shall live.

    Returns:
        (n, 3, size, size) float32, ImageNet mean 0 and deviation 1.
    """
    pixels = torch.from_numpy(np.stack(images)).to(device)
    return normalize_(pixels.permute(0, 3, 1, 2).float())


def normalize_(images: torch.Tensor) -> torch.Tensor:
    """Turn (n, 3, h, w) grey levels 0 .. 255 into ImageNet mean 0 and deviation 1, in place."""
    mean, std = _statistics(images.device)
    return images.div_(255.0).sub_(mean).div_(std)


@functools.cache
def _statistics(device: torch.device) -> list[torch.Tensor]:
    with torch.inference_mode(False):  # training uses them as well
        return [torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _STD)]


class CropBuffer:
    """Room for the crops of a frame, kept for the next; on the way to a GPU in pinned memory.

    Args:
        size: side of the crops in pixels.
        device: where the network wants them.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._size = size
        self._device = device
        self._pixels = self._images = torch.empty(0)

    def fill(self, frame: np.ndarray, windows: Sequence[SquareCrop]) -> torch.Tensor:
        """Cut windows out of a frame: as `extract` and `to_tensor`, without new memory.

        Returns:
            (n, 3, size, size) float32, until the next call.
        """
        n = len(windows)
        if n > len(self._pixels):
            shape = (n, self._size, self._size, 3)
            pinned = self._device.type == "cuda"
            self._pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
            self._images = torch.empty(shape, device=self._device).permute(0, 3, 1, 2)
        for window, pixels in zip(windows, self._pixels.numpy(), strict=False):
            window.extract(frame, out=pixels)
        pixels = self._pixels[:n].to(self._device, non_blocking=True)
        return normalize_(self._images[:n].copy_(pixels.permute(0, 3, 1, 2)))
