"""What every tracker of ours does around its network: one object, followed from crop to crop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from checkpoints import WeightsRecord
from trackers.base import Mode, Track, check_box, check_frame
from trackers.boxes import xyxy_to_xywh
from trackers.crops import SquareCrop


class CropTracker(ABC):
    """Keeps the object's box, checks what it is given, and cuts crops out of frames.

    A subclass says what a new template means to it (`_begin`, `_renew`) and how a frame is
    searched (`track`). See `trackers.base.Tracker` for what users may expect.

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

    def __init__(
        self, network: nn.Module, *, weights: WeightsRecord, mode: Mode, search_factor: float
    ) -> None:
        self.network = network
        self.weights = weights
        self.mode = mode
        self.search_factor = search_factor
        self.device = next(network.parameters()).device

    def initialize(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """See `Tracker.initialize`."""
        check_frame(frame)
        height, width = frame.shape[:2]
        self._place(box, (height, width))
        self._size = height, width
        self._begin(frame)

    @abstractmethod
    def track(self, frame: np.ndarray) -> Track:
        """See `Tracker.track`."""

    def correct(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """See `Tracker.correct`."""
        self._place(box, self._check(frame))
        self._renew(frame)

    @abstractmethod
    def _begin(self, frame: np.ndarray) -> None:
        """Take the object in its box on `frame` as the first template."""

    @abstractmethod
    def _renew(self, frame: np.ndarray) -> None:
        """Learn from the object in its box on `frame`, where the user has put it."""

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

    def _search_crop(self) -> SquareCrop:
        """Where on the next frame the object is looked for."""
        return SquareCrop.around(self._box_xywh, self.search_factor, self.network.search_size)
