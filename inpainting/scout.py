"""Looks ahead over a clip: where shots begin, where the holes are, and which frames help which."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from inpainting.base import Frame, FrameSource, Mask, MaskSource, check_mask
from inpainting.compositing import hole_of
from inpainting.published import Window
from inpainting.view import Box, Size, bounding_box
from media.cuts import CutDetector

CELLS = (36, 64)  # of the coarse map of what a mask covers
REACH = 100  # frames before and after its own that a window may take a reference from


@dataclass(frozen=True)
class Sight:
    """What is remembered of a frame that was looked at."""

    box: Box | None  # of its hole
    covered: np.ndarray  # bool, the cells that the hole touches
    everything: bool  # the hole is the whole frame


class Scout:
    """Reads frames once, in order, ahead of the work, and remembers next to nothing of them."""

    def __init__(
        self, frames: FrameSource, masks: MaskSource, *, dilate: int | None, first: int
    ) -> None:
        """Stand before frame `first`. `dilate` = pixels to grow masks by; None = by their size."""
        self.sights: dict[int, Sight] = {}
        self.cuts: list[int] = []  # frames with which a shot begins
        self.size: Size = (0, 0)  # of the frames
        self._frames, self._masks, self._dilate = frames, masks, dilate
        self._first = self._next = first
        self._detector = CutDetector()

    def look_to(self, stop: int) -> None:
        """Look at the frames up to `stop`, exclusive."""
        for index in range(self._next, min(stop, len(self._frames))):
            frame, hole, _ = self.read(index)
            if self._detector.is_cut(frame):
                self.cuts.append(index)
            self.size = hole.shape
            share = cv2.resize(hole.astype(np.float32), CELLS[::-1], interpolation=cv2.INTER_AREA)
            self.sights[index] = Sight(bounding_box(hole), share > 0, bool(hole.all()))
            self._next = index + 1

    def forget(self, stop: int) -> None:
        """The frames before `stop` are done with."""
        for index in [i for i in self.sights if i < stop]:
            del self.sights[index]

    def read(self, index: int) -> tuple[Frame, Mask, int]:
        """A frame, its hole, and by how many pixels the mask was grown into that."""
        frame, mask = self._frames[index], np.asarray(self._masks[index], bool)
        check_mask(mask, frame, index)
        return frame, *hole_of(mask, self._dilate)

    def windows(
        self,
        centres: range,
        *,
        stride: int,
        step: int,
        num_ref: int,
        once: bool,
    ) -> Iterator[Window]:
        """The windows of a part of the clip, in order; they and their references stay in one shot.

        Args:
            centres: the part of the clip they belong to.
            stride: every how many frames a window starts; it reaches as far both ways.
            step: every how many frames one may serve as a reference.
            num_ref: how many of those at most, the most useful ones; -1 = all of the shot.
            once: windows lie side by side instead of overlapping.
        """
        apart = 2 * stride + 1 if once else stride
        starts = {i for i in centres if i % apart == 0} | {i for i in self.cuts if i in centres}
        for start in sorted(starts):
            shot = self._shot(start)
            if once:
                local = range(start, min(start // apart * apart + apart, shot.stop))
            else:
                local = range(max(start - stride, shot.start), min(start + stride + 1, shot.stop))
            yield Window(local, self._references(local, shot, step, num_ref))

    def _shot(self, index: int) -> range:
        """The frames looked at that belong to the shot of this one."""
        place = bisect_right(self.cuts, index)
        edges = [self._first, *self.cuts, self._next]
        return range(edges[place], edges[place + 1])

    def _references(self, local: range, shot: range, step: int, num_ref: int) -> tuple[int, ...]:
        """The frames that help most: they show what the local frames hide, and are near.

        Things are looked for at the same place: the motion of the camera is left out of account.
        """
        if num_ref == -1:
            return tuple(i for i in shot if i % step == 0 and i not in local)
        reach = range(max(local.start - REACH, shot.start), min(local.stop + REACH, shot.stop))
        left = [i for i in reach if i % step == 0 and i not in local]
        hidden = np.any([self.sights[i].covered for i in local], axis=0)
        times_seen: np.ndarray = np.zeros(int(hidden.sum()))
        chosen: list[int] = []
        while left and len(chosen) < num_ref:
            # What is new counts twice as much as what was seen once before, and so on.
            new = 0.5**times_seen
            use = {}
            for i in left:
                shown = float((~self.sights[i].covered[hidden] * new).mean()) if len(new) else 0.0
                use[i] = shown - 0.5 * max(local.start - i, i - local.stop + 1) / REACH
            best = max(left, key=use.__getitem__)
            chosen.append(best)
            left.remove(best)
            times_seen += ~self.sights[best].covered[hidden]
        return tuple(sorted(chosen))
