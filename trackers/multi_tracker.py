"""Follow several objects of one video, with one network and one run of it per frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from media import InputError
from trackers.base import Track, Tracker
from trackers.crop_tracker import CropTracker


class MultiTracker:
    """Several objects in one batched forward, each as if it were followed alone.

        objects = MultiTracker(build_tracker("mixformerv2_small"))
        objects.add(1, frame, box)
        objects.track(next_frame)[1].box

    Args:
        tracker: its network and settings serve all objects; it follows none itself.

    Raises:
        InputError: it is not one of `build_tracker`'s.
    """

    def __init__(self, tracker: Tracker) -> None:
        if not isinstance(tracker, CropTracker):
            raise InputError(f"{type(tracker).__name__} follows one object at a time.")
        self.weights = tracker.weights
        self._tracker = tracker.another()
        self._objects: dict[int, CropTracker] = {}

    @property
    def ids(self) -> list[int]:
        """The objects that are followed."""
        return list(self._objects)

    def add(self, id: int, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """Follow one more object, or the one called so anew; see `Tracker.initialize`."""
        tracker = self._tracker.another()
        tracker.initialize(frame, box)
        self._objects[id] = tracker

    def correct(self, id: int, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """Take the user's word for where an object is; see `Tracker.correct`."""
        self._objects[id].correct(frame, box)

    def find(self, id: int, frame: np.ndarray) -> Track:
        """Look for an object all over a frame; see `CropTracker.find`."""
        return self._objects[id].find(frame)

    def remove(self, id: int) -> None:
        """Follow this object no more. Raises KeyError if it is not followed."""
        del self._objects[id]

    def track(self, frame: np.ndarray) -> dict[int, Track]:
        """Find all objects in the next frame; see `Tracker.track`."""
        for tracker in self._objects.values():
            tracker._check(frame)
        places = {id: tracker._windows() for id, tracker in self._objects.items()}
        asked = [
            (self._objects[id]._cache, window)
            for id, windows in places.items()
            for window in windows
        ]
        sights = iter(self._tracker._searcher(self._tracker._look, frame, asked))
        return {
            id: self._objects[id]._conclude(frame, [next(sights) for _ in windows])
            for id, windows in places.items()
        }
