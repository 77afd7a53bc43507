"""E2FGVI run over clips of any length and any size, with much less work than as published.

The network looks at the holes and what is round them, scaled down to what it was trained for, and
its fill goes back into the full frame. References are few and chosen, shots are kept apart, and
what windows share is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from inpainting.base import Frame, FrameSource, Mask, MaskSource, check_clip
from inpainting.compositing import SOFT_EDGE, feather, meet
from inpainting.e2fgvi import E2FGVI, PAD_TO
from inpainting.e2fgvi_fast import FastE2FGVI
from inpainting.published import Window, check_options, check_visible
from inpainting.scout import REACH, Scout
from inpainting.view import Box, View, around, bounding_box, union, view_of
from media import InputError
from media.device import multiplies_bfloat16

BLOCK = 8  # windows among which views are shared
RING = 8  # pixels round a hole that are painted as well, to compare colours there
LONGEST, LEAST = (
    432,
    108,
)  # network pixels of a view's longer side: as trained; when memory is short


@dataclass(frozen=True)
class _Shot:
    frame: Frame
    hole: Mask
    grown: int  # pixels by which the mask was grown into the hole
    box: Box  # the hole and the ring round it


class FastInpainter:
    """Runs the network over the parts of a clip that matter.

    It equals `PublishedInpainter` up to rounding with `crop` and `match` off, `num_ref` -1,
    `precision` "float32" and a given `dilate`.

    A view is shared by windows in a row, at most eight, as long as the holes do not move so far
    that a common view would cost much more, or would have to be scaled down much more, than one of
    half of them: then each half gets its own. So what was computed for a frame can be used
    again by the next window nearly always, and fast objects are not seen from afar. It depends on
    the clip alone, not on where in it the painting starts.
    """

    def __init__(
        self,
        network: E2FGVI,
        *,
        weights: str = "",
        device: torch.device | str = "cpu",
        dilate: int | None = None,
        resolution: int | None = None,
        step: int = 10,
        num_ref: int = 6,
        neighbor_stride: int = 5,
        once: bool = False,
        crop: bool = True,
        match: bool = True,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        """Set up.

        Args:
            network: with its weights; it is copied.
            weights: which they are, for the record.
            device: where to compute.
            dilate: frame pixels to grow the masks by; None = 2 % of the object's diagonal and 2.
            resolution: pixels of the longer side of what the network works at; None = 432, as it
                was trained for. E2FGVI, which has one size only, keeps to it.
            step: every how many frames one may serve as a reference.
            num_ref: how many references a window has at most, out of 100 frames on each side; those
                that show what the window hides come first. -1 = all of the shot, as published:
                then time and memory grow with its length.
            neighbor_stride: every how many frames a window starts; it reaches as far both ways.
            once: paint each frame in one window only, instead of in up to three whose mean it is:
                half the time, less steady.
            crop: look at the holes and what is round them; False = at the whole frame, at its own
                size unless `resolution` is given.
            match: shift the fill's colours so that they meet the picture's round the hole.
            precision: what the large layers multiply in; "auto" = bfloat16 where the device has
                instructions for it.

        Raises:
            InputError: An option is out of its range.
        """
        check_options(
            dilate=(dilate, 0), step=(step, 1), num_ref=(num_ref, -1),
            neighbor_stride=(neighbor_stride, 1), resolution=(resolution, 1),
        )  # fmt: skip
        self.notes: list[str] = []
        self.weights = weights
        device = torch.device(device)
        if precision == "auto":
            precision = "bfloat16" if multiplies_bfloat16(device) else "float32"
        if precision not in ("float32", "bfloat16"):
            raise InputError(f"There is no precision {precision!r}; choose float32 or bfloat16.")
        self._network = FastE2FGVI(network, device=device, precision=getattr(torch, precision))
        self._dilate, self._crop, self._match = dilate, crop, match
        self._wanted = (LONGEST if crop else None) if resolution is None else resolution
        self._longest = self._wanted  # less in a run that found memory short
        self._stride, self._step, self._num_ref, self._once = neighbor_stride, step, num_ref, once

    def inpaint(
        self, frames: FrameSource, masks: MaskSource, *, start: int = 0, stop: int | None = None
    ) -> Iterator[Frame]:
        """See `Inpainter.inpaint`. Of whole frames, those of one window that have a hole are held.

        Frames are read twice, once 140 frames ahead, and those that serve as references more often.
        Pixels outside the grown masks, and frames without a mask, come back bit for bit.
        """
        return self._run(frames, masks, check_clip(frames, masks, start, stop))

    def _run(self, frames: FrameSource, masks: MaskSource, span: range) -> Iterator[Frame]:
        self.notes, self._longest = [], self._wanted
        apart = 2 * self._stride + 1 if self._once else self._stride
        block = BLOCK * apart
        begin = max(span.start - self._stride, 0) // block * block
        first = max(begin - self._stride - REACH, 0)
        scout = Scout(frames, masks, dilate=self._dilate, first=first)
        painter = _Painter(self._network, scout, self._match, self.notes)
        done = span.start
        for centre in range(begin, span.stop + self._stride, block):
            scout.look_to(
                len(frames) if self._num_ref == -1 else centre + block + self._stride + REACH
            )
            windows = scout.windows(
                range(centre, min(centre + block, len(frames))), stride=self._stride,
                step=self._step, num_ref=self._num_ref, once=self._once,
            )  # fmt: skip
            holes = [w for w in windows if any(scout.sights[i].box for i in w.local)]
            for group in _by_shot(holes, scout.cuts):
                for some in self._share(group, scout):
                    for window in some:
                        for index in range(done, min(window.local.start, span.stop)):
                            yield painter.finish(index, frames)
                            done = index + 1
                        wanted = [i for i in window.local if i in span and scout.sights[i].box]
                        if wanted:
                            self._paint(painter, window, wanted, some, scout)
            through = min(centre + block - self._stride, span.stop)  # no later window reaches them
            for index in range(done, through):
                yield painter.finish(index, frames)
            done = max(done, through)
            if self._num_ref != -1:
                scout.forget(centre + block - self._stride - REACH)
        for index in range(done, span.stop):
            yield painter.finish(index, frames)

    def _share(self, windows: list[Window], scout: Scout) -> list[list[Window]]:
        """Windows in a row, parted into those that share a view."""
        if len(windows) < 2 or not self._crop:
            return [windows]
        middle = len(windows) // 2
        halves = [windows[:middle], windows[middle:]]
        whole, *parts = (self._view(some, scout) for some in (windows, *halves))
        costs = [view.outer[0] * view.outer[1] for view in (whole, *parts)]
        scales = [min(view.scale) for view in (whole, *parts)]
        if costs[0] <= 1.3 * max(costs[1:]) and scales[0] >= 0.8 * max(scales[1:]):
            return [windows]
        return [some for half in halves for some in self._share(half, scout)]

    def _view(self, windows: Sequence[Window], scout: Scout) -> View:
        holes = (scout.sights[i].box for window in windows for i in window.local)
        wanted = [around(hole, scout.size) for hole in holes if hole]
        return view_of(
            union(wanted) if self._crop else None, scout.size,
            longest=self._longest, pad_to=PAD_TO, fixed=self._network.size,
        )  # fmt: skip

    def _paint(
        self, painter: _Painter, window: Window, wanted: list[int], group: list[Window],
        scout: Scout,
    ) -> None:  # fmt: skip
        """Paint a window; where the memory does not suffice, at half the size from here on."""
        while True:
            view = self._view(group, scout)
            try:
                painter.paint(window, wanted, view)
                return
            except torch.OutOfMemoryError as error:
                self._network.forget()  # its tensors first of all
                longest = max(view.inner) // 2
                if self._network.size or longest < LEAST:
                    raise InputError(
                        f"{len(window.local) + len(window.references)} frames of "
                        f"{view.outer[1]}x{view.outer[0]} pixels at a time do not fit into the "
                        "memory; set num_ref or neighbor_stride lower."
                    ) from error
                self._longest = longest
                self.notes.append(
                    f"The memory did not suffice, so from frame {wanted[0]} on the network works "
                    f"at {longest} pixels, half as many as before, and its fill is softer."
                )


def _by_shot(windows: Sequence[Window], cuts: Sequence[int]) -> list[list[Window]]:
    """Windows in a row, parted where a new shot begins."""
    groups: list[list[Window]] = []
    for window in windows:
        if groups and not any(groups[-1][-1].local.start < cut <= window.local.start
                              for cut in cuts):  # fmt: skip
            groups[-1].append(window)
        else:
            groups.append([window])
    return groups


class _Painter:
    """Feeds windows to the network, blends what it paints and puts that into the frames."""

    def __init__(self, network: FastE2FGVI, scout: Scout, match: bool, notes: list[str]) -> None:
        self._network, self._scout, self._match, self._notes = network, scout, match, notes
        self._view: View | None = None
        self._shots: dict[int, _Shot] = {}
        self._blends: dict[int, np.ndarray] = {}
        network.forget()

    def paint(self, window: Window, wanted: Sequence[int], view: View) -> None:
        """Paint the holes of some of a window's local frames."""
        if view != self._view:
            self._network.forget()
            self._view = view
        order = (*window.local, *window.references)
        check_visible(self._scout.sights[i].everything for i in order)
        for index in wanted:
            if index not in self._shots:
                frame, hole, grown = self._scout.read(index)
                box = bounding_box(hole)
                assert box is not None
                ring = RING if self._match else 0
                self._shots[index] = _Shot(frame, hole, grown, box.grown(ring, hole.shape))
        self._note_scale(view)
        boxes = {index: self._shots[index].box for index in wanted}
        painted = self._network.paint(
            self._picture, window.local, window.references,
            {index: view.look_up(box) for index, box in boxes.items()},
        )  # fmt: skip
        for index, values in painted.items():
            # Truncated, as published.
            picture = ((values + 1) / 2 * 255).permute(1, 2, 0).byte().cpu().numpy()
            fill = view.give_back(np.ascontiguousarray(picture), boxes[index]).astype(np.float32)
            self._blends[index] = 0.5 * self._blends.get(index, fill) + 0.5 * fill

    def _picture(self, index: int) -> Tensor:
        """A frame as the network sees it: float32 (3, h, w) in [-1, 1], grey where a hole is."""
        assert self._view is not None
        shot = self._shots.get(index)
        frame, hole = (shot.frame, shot.hole) if shot else self._scout.read(index)[:2]
        image, mask = self._view.show(frame, hole)
        picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
        return (picture / 255 * 2 - 1) * ~torch.from_numpy(np.ascontiguousarray(mask))

    def _note_scale(self, view: View) -> None:
        if min(view.scale) < 0.95 and not self._notes:
            self._notes.append(
                f"The fill was painted at {100 * min(view.scale):.0f} % of the frames' size, so it "
                "has less detail than they have."
            )

    def finish(self, index: int, frames: FrameSource) -> Frame:
        """The frame, and nothing of it is kept."""
        shot = self._shots.pop(index, None)
        if shot is None:
            return frames[index]
        fill = self._blends.pop(index).astype(np.uint8).astype(np.float32)  # truncated likewise
        here = shot.box.slices
        part, hole = shot.frame[here].astype(np.float32), shot.hole[here]
        if self._match:
            fill = meet(part, fill, hole)
        opacity = feather(shot.hole, max(shot.grown - SOFT_EDGE, 0) // 2)[here][..., None]
        mixed = np.clip(np.rint(part + opacity * (fill - part)), 0, 255).astype(np.uint8)
        frame = shot.frame.copy()
        frame[here] = np.where(hole[..., None], mixed, shot.frame[here])
        return frame
