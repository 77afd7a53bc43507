"""What the tests of every tracker need: frames, and what a tracker has to refuse in a sentence."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from media import InputError
from trackers import Tracker
from trackers.crops import SquareCrop


def random_frame(seed: int = 0, height: int = 120, width: int = 400) -> np.ndarray:
    """Noise that nobody may write into."""
    frame = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    frame.flags.writeable = False
    return frame


def refuses_wrong_use(tracker: Tracker) -> None:
    """Frames before there is a box, of another size, and boxes that hold nothing."""
    frame = random_frame()
    with pytest.raises(RuntimeError, match="initialize"):
        tracker.track(frame)
    tracker.initialize(frame, [20, 40, 60, 80])
    with pytest.raises(InputError, match="300 x 120 pixels but the first was 400 x 120"):
        tracker.track(random_frame(width=300))
    with pytest.raises(InputError, match="no area"):
        tracker.initialize(frame, [20, 40, 20, 80])
    with pytest.raises(InputError, match="outside"):
        tracker.correct(frame, [500, 40, 520, 80])


def padding_mask(crop: SquareCrop, frame: np.ndarray) -> np.ndarray:
    """Where the crop shows nothing of the frame, or padding is mixed in: bool (size, size)."""
    padded = 1.0 - crop.cut(np.ones_like(frame))[..., 0]
    return cv2.resize(padded, (crop.size, crop.size)) > 0
