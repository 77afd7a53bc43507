"""Look for objects in windows of a frame: one object or many, in one run of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trackers.crops import CropBuffer, SquareCrop
from trackers.fast import FrameBuffer, Recording
from trackers.packed import PackedLinears, packing_available

# What a network keeps of the templates of b objects: tuples of tensors whose first axis is b. It is
# never changed, only replaced. How many there are in a tuple is up to the network.
Cache = Sequence[Any]

# Runs a network on (b, 3, x, x) search crops and the caches of b templates. Returns (b, 5 + k)
# numbers: a box as cx cy w h in shares of the crop, a score in [0, 1] or nan, and k more.
Look = Callable[[torch.Tensor, Cache], torch.Tensor]


@dataclass(frozen=True)
class Sight:
    """What the network sees in one window of the frame."""

    window: SquareCrop
    box_xywh: tuple[float, float, float, float]  # in frame pixels, not clipped
    score: float  # in [0, 1]; nan for a network without one
    more: np.ndarray  # float32 (k,): what else the tracker's `_look` returns


class Searcher:
    """Runs the network on all windows at once, and reads what it says in one copy.

    Args:
        size: side of the search crops in pixels.
        device: where the network lives.
        record: cut out crops on the device and record the network's runs; see fast.py.
        exact: see `PackedLinears`.
    """

    def __init__(
        self, size: int, device: torch.device, *, record: bool = False, exact: bool = False
    ) -> None:
        self._device = device
        self._buffer = FrameBuffer(device) if record else CropBuffer(size, device)
        self._recordings: dict[object, tuple[Recording, Cache]] | None = {} if record else None
        packed = device.type == "cpu" and packing_available()
        # The context in which the network is to be run.
        self.kernels: AbstractContextManager[Any] = (
            PackedLinears(exact=exact) if packed else nullcontext()
        )
        # By the shapes of a cache: those that were last searched together, as one batch.
        self._joined: dict[object, tuple[list[Cache], Cache]] = {}

    @torch.inference_mode()
    def __call__(
        self, look: Look, frame: np.ndarray, asked: Sequence[tuple[Cache, SquareCrop]]
    ) -> list[Sight]:
        """Look for the object of each cache in its window.

        Those whose caches have the same shapes (as many online templates) share a run.

        Args:
            look: runs the network; always the same for one searcher.
            frame: (h, w, 3) uint8.
            asked: cache and window, all windows with one `size`.

        Returns:
            One for each that is asked, in their order.
        """
        groups: dict[object, list[int]] = {}
        for i, (cache, _) in enumerate(asked):
            groups.setdefault(_shapes(cache), []).append(i)
        sights: dict[int, Sight] = {}
        for members in groups.values():
            windows = [asked[i][1] for i in members]
            crops = self._buffer.fill(frame, windows)
            cache = self._join([asked[i][0] for i in members])
            with self.kernels:
                numbers = self._run(look, crops, cache).cpu().numpy()
            for i, window, row in zip(members, windows, numbers, strict=True):
                sights[i] = Sight(window, window.to_frame(row[:4]), float(row[4]), row[5:].copy())
        return [sights[i] for i in range(len(asked))]

    def _join(self, caches: list[Cache]) -> Cache:
        """One batch of them, copied only when one has changed since the last time."""
        first = caches[0]
        if len(caches) == 1:
            return first
        if all(cache is first for cache in caches):
            return [tuple(t.expand(len(caches), *t.shape[1:]) for t in group) for group in first]
        parts, joined = self._joined.get(_shapes(first), ([], []))
        if len(parts) != len(caches) or any(a is not b for a, b in zip(parts, caches, strict=True)):
            joined = [
                tuple(torch.cat(tensors) for tensors in zip(*groups, strict=True))
                for groups in zip(*caches, strict=True)
            ]
            self._joined[_shapes(first)] = caches, joined
        return joined

    def _run(self, look: Look, crops: torch.Tensor, cache: Cache) -> torch.Tensor:
        if self._recordings is None:
            return look(crops, cache)
        flat = [tensor for group in cache for tensor in group]
        width = len(cache[0])

        def run(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
            crops, *flat = inputs
            groups = [tuple(flat[i : i + width]) for i in range(0, len(flat), width)]
            return look(crops, groups)

        key = len(crops), _shapes(cache)
        if key not in self._recordings:
            self._recordings[key] = Recording(run, [crops, *flat]), cache
        recording, last = self._recordings[key]
        self._recordings[key] = recording, cache
        return recording([crops, *([None] * len(flat) if cache is last else flat)])


def _shapes(cache: Cache) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in cache[0])  # all groups are alike
