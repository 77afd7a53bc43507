"""E2FGVI run over a clip by the published protocol (upstream's test.py): the yardstick."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from PIL import Image

from inpainting.base import Frame, FrameSource, Mask, MaskSource, check_clip, check_mask
from inpainting.compositing import grow
from inpainting.e2fgvi import E2FGVI, PAD_TO, Size
from media import InputError


@dataclass(frozen=True)
class Window:
    """Frames that the network sees together."""

    local: range  # consecutive frames, all of them painted
    references: tuple[int, ...]  # others, which only help


def select_windows(
    length: int, *, step: int = 10, num_ref: int = -1, neighbor_stride: int = 5
) -> list[Window]:
    """The windows of the published protocol for a clip of `length` frames, in order.

    Args:
        length: how many frames there are.
        step: every how many frames a reference frame is taken.
        num_ref: about how many of them each window gets, the nearest in time; -1 = all, whose
            number grows with the clip, and the time and memory a window takes with it.
        neighbor_stride: every how many frames a window starts; it reaches as far both ways.
    """
    windows = []
    for centre in range(0, length, neighbor_stride):
        stop = min(length, centre + neighbor_stride + 1)
        local = range(max(0, centre - neighbor_stride), stop)
        if num_ref == -1:
            candidates, most = range(0, length, step), length
        else:
            # Upstream counts up to and including `length`, and fails where that frame is taken.
            reach = step * (num_ref // 2)
            candidates = range(max(0, centre - reach), min(length, centre + reach + 1), step)
            most = num_ref + 1
        references = [index for index in candidates if index not in local]
        windows.append(Window(local, tuple(references[:most])))
    return windows


@dataclass(frozen=True)
class _Shot:
    frame: Frame
    image: Frame  # the frame at the size the model works at
    hole: Mask  # at the image's size


class PublishedInpainter:
    """Runs the network by the published protocol (upstream's test.py).

    Each frame is painted by up to three overlapping windows and is the running mean of them, later
    ones weighing more. Windows without a hole are skipped, which changes nothing.
    """

    def __init__(
        self,
        network: E2FGVI,
        *,
        weights: str = "",
        device: torch.device | str = "cpu",
        dilate: int | None = None,
        step: int = 10,
        num_ref: int = -1,
        neighbor_stride: int = 5,
        resolution: int | None = None,
    ) -> None:
        """Set up.

        Args:
            network: with its weights.
            weights: which they are, for the record.
            device: where to compute.
            dilate: frame pixels to grow the masks by; None = as published: by a diamond that
                reaches 4 pixels, at the model's size.
            step, num_ref, neighbor_stride: see `select_windows`.
            resolution: longer side in pixels to scale larger frames down to first (upstream's
                `--set_size`); None = their own size. E2FGVI has a size of its own.

        Raises:
            InputError: An option is out of its range.
        """
        check_options(
            dilate=(dilate, 0), step=(step, 1), num_ref=(num_ref, -1),
            neighbor_stride=(neighbor_stride, 1), resolution=(resolution, 1),
        )  # fmt: skip
        self.notes: list[str] = []
        self.weights = weights
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        self._dilate, self._resolution = dilate, resolution
        self._select = partial(
            select_windows, step=step, num_ref=num_ref, neighbor_stride=neighbor_stride
        )

    def inpaint(
        self, frames: FrameSource, masks: MaskSource, *, start: int = 0, stop: int | None = None
    ) -> Iterator[Frame]:
        """See `Inpainter.inpaint`. The frames of one window are held at a time.

        Pixels outside the grown masks, and frames without a mask, come back bit for bit. E2FGVI
        (not HQ) paints at 432x240 whatever the frames' size; its fill is then scaled to theirs.
        """
        return self._run(frames, masks, check_clip(frames, masks, start, stop))

    def _run(self, frames: FrameSource, masks: MaskSource, span: range) -> Iterator[Frame]:
        self.notes = []
        shots: dict[int, _Shot] = {}
        blends: dict[int, np.ndarray] = {}
        done = span.start
        for window in self._select(len(frames)):
            for index in range(done, min(window.local.start, span.stop)):
                yield _finish(shots[index], blends.pop(index)) if index in blends else frames[index]
                done = index + 1
            wanted = [i for i in window.local if i in span and np.asarray(masks[i], bool).any()]
            if not wanted:
                continue
            order = (*window.local, *window.references)
            shots = {i: shots.get(i) or self._read(frames, masks, i) for i in order}
            pictures = self._paint([shots[i] for i in order], len(window.local))
            for index, picture in zip(window.local, pictures, strict=True):
                if index not in wanted:
                    continue
                shot = shots[index]
                painted = np.where(shot.hole[..., None], picture, shot.image).astype(np.float32)
                before = blends.get(index, painted)
                blends[index] = 0.5 * before + 0.5 * painted
        for index in range(done, span.stop):
            yield _finish(shots[index], blends.pop(index)) if index in blends else frames[index]

    def _read(self, frames: FrameSource, masks: MaskSource, index: int) -> _Shot:
        frame, mask = frames[index], np.asarray(masks[index], bool)
        check_mask(mask, frame, index)
        size = self._network.size or scaled_down(mask.shape, self._resolution)
        if self._dilate is not None:
            mask = grow(mask, self._dilate)
        hole = resize_mask(mask, size)
        if self._dilate is None:
            cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
            hole = cv2.dilate(hole.astype(np.uint8), cross, iterations=4).astype(bool)
        if size != frame.shape[:2] and not self.notes:
            self.notes.append(
                f"E2FGVI paints at {size[1]}x{size[0]} pixels, so the fill has less detail than "
                "the frames"
                + ("; E2FGVI-HQ works at their own size." if self._network.size else ".")
            )
        return _Shot(frame, resize(frame, size), hole)

    def _paint(self, shots: Sequence[_Shot], num_local: int) -> np.ndarray:
        """What the network paints, all over the local frames: uint8 (l, h, w, 3)."""
        check_visible(bool(shot.hole.all()) for shot in shots)
        height, width = shots[0].hole.shape
        # Mirrored with the border pixel repeated, below and on the right.
        below, right = (
            (0, 0 if self._network.size else -length % multiple)
            for length, multiple in zip((height, width), PAD_TO, strict=True)
        )
        images = np.pad([s.image for s in shots], ((0, 0), below, right, (0, 0)), "symmetric")
        holes = np.pad([s.hole for s in shots], ((0, 0), below, right), "symmetric")
        try:
            with torch.inference_mode():
                pictures = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
                masked = pictures.float() / 255 * 2 - 1
                masked *= ~torch.from_numpy(holes).to(self._device)[:, None]
                result, _ = self._network(masked[None], num_local, paint_references=False)
                result = (result[..., :height, :width].permute(0, 2, 3, 1) + 1) / 2 * 255
                return result.byte().cpu().numpy()  # truncated, as published
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{len(shots)} frames of {width}x{height} pixels at a time do not fit into the "
                f"memory of {self._device}; scale the clip down, or limit num_ref."
            ) from error


def check_options(**options: tuple[int | None, int]) -> None:
    """Raise InputError unless each value, where one is given, reaches its least one."""
    for name, (value, least) in options.items():
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; give a whole number from {least} up.")


def check_visible(covered: Iterable[bool]) -> None:
    """Raise InputError if all the frames that the network would see are covered altogether."""
    if all(covered):
        raise InputError(
            "Some masks, and those of all frames near them, cover the whole frame, so there is "
            "nothing to paint from; give masks that cover the object only."
        )


def scaled_down(size: Size, longest: int | None) -> Size:
    """A size whose longer side is `longest` where it was more than that."""
    if longest is None or max(size) <= longest:
        return size
    height, width = (max(round(length * longest / max(size)), 1) for length in size)
    return height, width


def _finish(shot: _Shot, blend: np.ndarray) -> Frame:
    """The frame with what was painted, scaled to its size where the model's differs."""
    picture = blend.astype(np.uint8)  # truncated, as published
    size = shot.frame.shape[:2]
    if picture.shape == shot.frame.shape:
        return picture
    hole = resize_mask(shot.hole, size)
    return np.where(hole[..., None], resize(picture, size), shot.frame)


def resize(image: Frame, size: Size) -> Frame:
    """Bicubic as Pillow does it: upstream's filter."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def resize_mask(mask: Mask, size: Size) -> Mask:
    """The nearest pixel, as Pillow finds it."""
    if mask.shape == size:
        return mask
    picture = Image.fromarray(mask.astype(np.uint8))
    return np.array(picture.resize(size[::-1], Image.Resampling.NEAREST)).astype(bool)
