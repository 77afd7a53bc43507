"""Where in the frames a network looks, at which size, and how its pictures get back into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from inpainting.base import Frame, Mask

Size = tuple[int, int]

CONTEXT = 64  # pixels round the holes that a network sees at least


class Box(NamedTuple):
    """A part of a picture, of a map of features or of a grid; `y1` and `x1` are exclusive."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def size(self) -> Size:
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def corner(self) -> Size:
        return self.y0, self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def grown(self, by: int | Size, within: Size) -> Box:
        """Larger by so much on each side, but not larger than the whole."""
        y, x = by if isinstance(by, tuple) else (by, by)
        return Box(
            max(self.y0 - y, 0), max(self.x0 - x, 0),
            min(self.y1 + y, within[0]), min(self.x1 + x, within[1]),
        )  # fmt: skip

    def seen_from(self, corner: Size) -> Box:
        """The same part in a picture that starts at `corner`."""
        y, x = corner
        return Box(self.y0 - y, self.x0 - x, self.y1 - y, self.x1 - x)


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds them all."""
    y0, x0, y1, x1 = zip(*boxes, strict=True)
    return Box(min(y0), min(x0), max(y1), max(x1))


def bounding_box(mask: Mask) -> Box | None:
    """The smallest box that holds a mask; None for an empty one."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1) if len(ys) else None


@dataclass(frozen=True)
class View:
    """A part of the frames, scaled to what a network works at."""

    part: Box  # of the frames
    inner: Size  # the size it is scaled to
    outer: Size  # the network's: beyond the inner part it sees a mirror of it

    @property
    def scale(self) -> Size | tuple[float, float]:
        """Network pixels per pixel of the frame, y x."""
        (height, width), (h, w) = self.part.size, self.inner
        return h / height, w / width

    def show(self, frame: Frame, hole: Mask) -> tuple[Frame, Mask]:
        """The view of a frame and of its hole, uint8 and bool of the outer size.

        A pixel of the view that the hole touches belongs to it.
        """
        image, mask = frame[self.part.slices], hole[self.part.slices]
        if self.inner != self.part.size:
            size = self.inner[::-1]
            image = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 1e-3
        below, right = ((0, o - i) for o, i in zip(self.outer, self.inner, strict=True))
        return (
            np.pad(image, (below, right, (0, 0)), "symmetric"),
            np.pad(mask, (below, right), "symmetric"),
        )

    def look_up(self, box: Box) -> Box:
        """The part of the network's picture that a part of the frame is taken from."""
        if self.inner == self.part.size:
            return box.seen_from(self.part.corner)
        (sy, sx), seen = self.scale, box.seen_from(self.part.corner)
        loose = Box(
            int(seen.y0 * sy), int(seen.x0 * sx), int(seen.y1 * sy) + 1, int(seen.x1 * sx) + 1
        )
        return loose.grown(2, self.inner)  # cubic interpolation looks so far about

    def give_back(self, picture: Frame, box: Box) -> Frame:
        """This part of the frame, from the part `look_up(box)` of the network's picture."""
        if self.inner == self.part.size:
            return picture
        corner, (sy, sx) = self.look_up(box).corner, self.scale
        seen = box.seen_from(self.part.corner)
        matrix = np.array([
            [sx, 0, (seen.x0 + 0.5) * sx - 0.5 - corner[1]],
            [0, sy, (seen.y0 + 0.5) * sy - 0.5 - corner[0]],
        ])  # fmt: skip
        return cv2.warpAffine(
            picture, matrix, box.size[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip


def around(hole: Box, frame: Size) -> Box:
    """A hole with half its size, at least 64 pixels, on each side, as far as the frame goes."""
    height, width = hole.size
    return hole.grown((max(CONTEXT, height // 2), max(CONTEXT, width // 2)), frame)


def view_of(
    wanted: Box | None, frame: Size, *, longest: int | None, pad_to: Size, fixed: Size | None
) -> View:
    """A view of a part of the frame, and of as much more as makes the network's size full.

    Args:
        wanted: the part; None = the whole frame.
        frame: its size.
        longest: pixels the longer side may have for the network, before it is padded; None = any.
        pad_to: the network's sizes are multiples of this.
        fixed: the only size of a network that has just one.
    """
    if wanted is None and fixed:  # the one case in which pictures are stretched: as published
        return View(Box(0, 0, *frame), fixed, fixed)
    wanted = wanted or Box(0, 0, *frame)
    scale = min(1.0, longest / max(wanted.size)) if longest else 1.0
    if fixed:
        scale = min(1.0, *(f / w for f, w in zip(fixed, wanted.size, strict=True)))
        scale = max(scale, min(f / w for f, w in zip(fixed, frame, strict=True)))
        outer = fixed
    else:
        height, width = (max(round(length * scale), 1) for length in wanted.size)
        outer = (-(-height // pad_to[0]) * pad_to[0], -(-width // pad_to[1]) * pad_to[1])
    spans, inner = [], []
    for start, stop, length, pixels in (
        (wanted.y0, wanted.y1, frame[0], outer[0]),
        (wanted.x0, wanted.x1, frame[1], outer[1]),
    ):
        extent = min(max(round(pixels / scale), stop - start), length)
        begin = min(max((start + stop - extent) // 2, 0), length - extent)
        spans.append((begin, begin + extent))
        inner.append(min(max(round(extent * scale), 1), pixels))
    (y0, y1), (x0, x1) = spans
    return View(Box(y0, x0, y1, x1), (inner[0], inner[1]), outer)
