from __future__ import annotations

import cv2
import numpy as np
import pytest

from media.flow import dense_flow, warp


def texture(size: tuple[int, int] = (120, 160)) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)


def test_flow_points_to_where_things_went() -> None:
    frame = texture()
    flow = dense_flow(frame, np.roll(frame, (3, 5), (0, 1)))  # 3 down, 5 to the right
    assert flow.shape == (120, 160, 2) and flow.dtype == np.float32
    assert np.median(flow, axis=(0, 1)) == pytest.approx([5, 3], abs=0.05)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_warping_undoes_the_motion(dtype: type) -> None:
    frame = texture()
    moved = np.roll(frame, (3, 5), (0, 1))
    back = warp(moved.astype(dtype), dense_flow(frame, moved))
    assert back.dtype == dtype and back.shape == frame.shape
    inside = np.s_[20:-20, 20:-20]
    assert np.abs(back[inside].astype(float) - frame[inside]).mean() < 0.1
    assert np.abs(moved[inside].astype(float) - frame[inside]).mean() > 10


def test_what_comes_from_outside_is_that_at_the_edge() -> None:
    column = np.arange(4, dtype=np.float32)[None].repeat(2, axis=0)
    flow = np.zeros((2, 4, 2), np.float32)
    flow[..., 0] = 2
    assert warp(column, flow).tolist() == [[2, 3, 3, 3]] * 2


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (15, 15)])
def test_frames_too_small_to_tell_stand_still(size: tuple[int, int]) -> None:
    frame = texture(size)
    assert not dense_flow(frame, frame[::-1]).any()
