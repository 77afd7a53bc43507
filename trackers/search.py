"""Look for objects in windows of a frame: one object or many, in one run of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from trackers.crops import SquareCrop, to_tensor

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


@dataclass
class Searcher:
    """Runs the network on all windows at once, and reads what it says in one copy.

    Args:
        device: where the network lives.
    """

    device: torch.device
    # By the shapes of a cache: those that were last searched together, and the same as one batch.
    _joined: dict[tuple[torch.Size, ...], tuple[list[Cache], Cache]] = field(default_factory=dict)

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
        groups: dict[tuple[torch.Size, ...], list[int]] = {}
        for i, (cache, _) in enumerate(asked):
            groups.setdefault(_shapes(cache), []).append(i)
        sights: dict[int, Sight] = {}
        for members in groups.values():
            windows = [asked[i][1] for i in members]
            crops = to_tensor([window.extract(frame) for window in windows], self.device)
            numbers = look(crops, self._join([asked[i][0] for i in members])).cpu().numpy()
            for i, window, row in zip(members, windows, numbers, strict=True):
                sights[i] = Sight(window, window.to_frame(row[:4]), float(row[4]), row[5:])
        return [sights[i] for i in range(len(asked))]

    def _join(self, caches: list[Cache]) -> Cache:
        """One batch of them, copied only when one has changed since the last time."""
        first = caches[0]
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


def _shapes(cache: Cache) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in cache[0])  # all groups are alike
