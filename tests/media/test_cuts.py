"""Cuts are found at once and from both sides; flashes, pans and fades are none."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

import checkpoints
from media.cuts import CutDetector
from media.video import VideoReader

SIZE = 240, 320


def scenery(seed: int, width: int = SIZE[1]) -> np.ndarray:
    """A smooth random picture, each with its own colours, (240, width, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, width // 27, 3)) * random.uniform(0.3, 1, 3)
    smooth = cv2.resize(coarse.astype(np.float32), (width, SIZE[0]), interpolation=cv2.INTER_CUBIC)
    return smooth.clip(0, 255).astype(np.uint8)


def noisy(picture: np.ndarray, count: int) -> list[np.ndarray]:
    """Some frames of a camera that stands still."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 4, (count, *picture.shape))
    return list((picture + noise).clip(0, 255).astype(np.uint8))


def cuts(frames: Sequence[np.ndarray]) -> list[int]:
    detector = CutDetector()
    return [i for i, frame in enumerate(frames) if detector.is_cut(frame)]


def test_cuts_are_found_at_their_first_frame_from_both_sides() -> None:
    frames = [frame for seed in range(6) for frame in noisy(scenery(seed), 3)]
    assert cuts(frames) == [3, 6, 9, 12, 15]
    assert cuts(frames[::-1]) == [3, 6, 9, 12, 15]


def test_cuts_in_black_and_white() -> None:
    lights = (1.0, 0.5, 0.9, 0.4)
    grey = [cv2.cvtColor(scenery(i), cv2.COLOR_RGB2GRAY) * light for i, light in enumerate(lights)]
    frames = [np.stack([picture.astype(np.uint8)] * 3, axis=2) for picture in grey for _ in "abc"]
    assert cuts(frames) == [3, 6, 9]


def test_shots_of_one_frame_count() -> None:
    assert cuts([scenery(seed) for seed in range(5)]) == [1, 2, 3, 4]


@pytest.mark.parametrize("lit", [(1.0, 90), (1.8, 0), (2.2, 40), (0.4, 0), (1.0, 255), (0, 0)])
def test_a_flash_is_no_cut(lit: tuple[float, float]) -> None:
    """Nor are lights that go out, nor the way back from either."""
    for seed in range(5):
        frames = noisy(scenery(seed), 7)
        for i in (3, 4):
            frames[i] = (frames[i] * lit[0] + lit[1]).clip(0, 255).astype(np.uint8)
        assert cuts(frames) == []


def test_a_cut_behind_black_frames_counts_where_the_picture_returns() -> None:
    black = [np.zeros((*SIZE, 3), np.uint8)] * 3
    assert cuts([*noisy(scenery(0), 2), *black, *noisy(scenery(0), 2)]) == []
    assert cuts([*noisy(scenery(0), 2), *black, *noisy(scenery(1), 2)]) == [5]


@pytest.mark.parametrize("speed", [10, 30, 50])  # pixels per frame, of 320
def test_a_fast_pan_is_no_cut(speed: int) -> None:
    wide = scenery(1, width=2160)
    frames = [wide[:, x : x + SIZE[1]].copy() for x in range(0, 2160 - SIZE[1], speed)]
    assert len(frames) > 30 and cuts(frames) == []


def test_a_real_film() -> None:
    """Five cuts between shots of cyclists; the film itself moves fast."""
    film = checkpoints.find("sample_bikes")
    if film is None:
        pytest.skip("needs a clip: python -m checkpoints fetch sample_bikes")
    with VideoReader(film) as reader:
        frames = [frame[::2, ::2].copy() for frame in reader.frames(0, len(reader))]
    assert cuts(frames) == [30, 76, 137, 187, 242]
    assert cuts(frames[::-1]) == [len(frames) - i for i in (242, 187, 137, 76, 30)]


def test_a_frame_is_left_alone_and_may_be_of_any_size() -> None:
    detector, frame = CutDetector(), scenery(0)
    frame.setflags(write=False)
    assert not detector.is_cut(frame)
    assert not detector.is_cut(cv2.resize(frame, (77, 41), interpolation=cv2.INTER_AREA))
    assert detector.is_cut(scenery(3)[:50, :60])
