"""What every tracker of ours does around its network: one object, followed from crop to crop.

A frame takes three steps, so that several objects can share the second one (multi_tracker.py):
`_windows` says where to look, `_search` runs the network, `_conclude` decides what that means.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from checkpoints import WeightsRecord
from media import InputError
from trackers.base import Mode, Track, check_box, check_frame
from trackers.boxes import clip_xywh, xywh_to_xyxy, xyxy_to_xywh
from trackers.crops import SquareCrop
from trackers.search import Cache, Searcher, Sight

if TYPE_CHECKING:
    from typing_extensions import Self


class CropTracker(ABC):
    """Keeps the object's box, checks what it is given, and cuts crops out of frames.

    A subclass says what a new template means to it (`_begin`, `_renew`), how its network is run
    (`_look`), and, if the best guess is not all there is to say, what that means (`_conclude`). See
    `trackers.base.Tracker` for what users may expect.

    Args:
        network: in eval mode, with the sides of its crops as `search_size` and `template_size`.
        weights: which weights it holds.
        mode: "robust" for real videos, "benchmark" for the published protocol.
        search_factor: side of the search window in multiples of the object's mean side.
    """

    template_factor = 2.0

    network: Any  # a subclass says which
    _size: tuple[int, int] | None = None  # (height, width) of the frames, once there is one
    _box_xywh: tuple[float, float, float, float]
    _cache: Cache  # of the templates in use, for one object

    def __init__(
        self, network: nn.Module, *, weights: WeightsRecord, mode: Mode, search_factor: float
    ) -> None:
        self.network = network
        self.weights = weights
        self.mode = mode
        self.search_factor = search_factor
        self.device = next(network.parameters()).device
        side: Any = network.search_size
        self._searcher = Searcher(side, self.device, exact=mode == "benchmark")

    def another(self) -> Self:
        """A tracker for another object, with the same network and settings, to be initialized."""
        new = copy.copy(self)
        new._size = None
        return new

    def accelerate(self, *, record: bool | None = None) -> None:
        """Trade accuracy for speed, before there is an object: see `build_tracker`'s `fast`.

        Args:
            record: see `Searcher`; None: on a GPU.
        """
        for part in self.network.backbone.modules():  # not the heads: they need the digits
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.to(torch.bfloat16)
        record = self.device.type == "cuda" if record is None else record
        self._searcher = Searcher(self.network.search_size, self.device, record=record)

    def initialize(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """See `Tracker.initialize`."""
        check_frame(frame)
        height, width = frame.shape[:2]
        self._place(box, (height, width))
        self._size = height, width
        self._begin(frame)

    def track(self, frame: np.ndarray) -> Track:
        """See `Tracker.track`."""
        self._check(frame)
        return self._conclude(frame, self._search(frame, self._windows()))

    def correct(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """See `Tracker.correct`."""
        self._place(box, self._check(frame))
        self._renew(frame)

    def find(self, frame: np.ndarray) -> Track:
        """Look for the object all over a frame, wherever it was before; nothing is learnt.

        Returns:
            The likeliest place and how likely it is; `lost` if that is not likely enough.

        Raises:
            InputError: this tracker cannot tell whether its object is there.
        """
        raise InputError("This tracker cannot look for a lost object; click on it instead.")

    @abstractmethod
    def _begin(self, frame: np.ndarray) -> None:
        """Take the object in its box on `frame` as the first template."""

    @abstractmethod
    def _renew(self, frame: np.ndarray) -> None:
        """Learn from the object in its box on `frame`, where the user has put it."""

    @abstractmethod
    def _look(self, crops: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Run the network; see `trackers.search.Look`. Depends on no object's state."""

    def _windows(self) -> list[SquareCrop]:
        """Where on the next frame the object is looked for: once, or in several places."""
        return [SquareCrop.around(self._box_xywh, self.search_factor, self.network.search_size)]

    def _search(self, frame: np.ndarray, windows: Sequence[SquareCrop]) -> list[Sight]:
        """Look for the object in windows of a frame, all in one run; also a second time."""
        return self._searcher(self._look, frame, [(self._cache, window) for window in windows])

    def _conclude(self, frame: np.ndarray, sights: Sequence[Sight]) -> Track:
        """Decide where the object is, after what was seen in each of `_windows`."""
        (sight,) = sights
        self._box_xywh = clip_xywh(sight.box_xywh, self._check(frame))
        return Track(xywh_to_xyxy(np.array(self._box_xywh, np.float32)), sight.score)

    def _place(self, box: Sequence[float] | np.ndarray, size: tuple[int, int]) -> None:
        x, y, w, h = xyxy_to_xywh(check_box(box, size)).tolist()
        self._box_xywh = x, y, w, h

    def _check(self, frame: np.ndarray) -> tuple[int, int]:
        if self._size is None:
            raise RuntimeError("initialize(frame, box) has to come first")
        check_frame(frame, self._size)
        return self._size

    def _template_crop(self, frame: np.ndarray) -> np.ndarray:
        """The object in its box, as the network takes templates: uint8 (z, z, 3)."""
        side = self.network.template_size
        return SquareCrop.around(self._box_xywh, self.template_factor, side).extract(frame)
