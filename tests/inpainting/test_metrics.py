from __future__ import annotations

import numpy as np
import pytest

from inpainting.metrics import WarpingError, psnr, ssim
from tests.inpainting.conftest import texture


def noisy(frame: np.ndarray, amount: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, amount, frame.shape)
    return np.clip(frame + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(("window", "size"), [(7, (40, 60)), (65, (80, 97)), (65, (40, 90))])
def test_psnr_and_ssim_are_those_of_scikit_image(window: int, size: tuple[int, int]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    truth = texture(*size).round().astype(np.uint8)
    for amount in (3, 30):
        frame = noisy(truth, amount)
        expected = metrics.peak_signal_noise_ratio(truth, frame, data_range=255)
        assert psnr(frame, truth) == pytest.approx(expected, abs=1e-9)
        side = min(window, (min(size) - 1) // 2 * 2 + 1)
        expected = metrics.structural_similarity(
            truth, frame, win_size=side, channel_axis=2, data_range=255
        )
        assert ssim(frame, truth, window=window) == pytest.approx(expected, abs=1e-9)
    assert psnr(truth, truth) == 100
    assert ssim(truth, truth) == pytest.approx(1)


def pan(count: int, step: int) -> list[np.ndarray]:
    canvas = texture(72, 120 + step * count).round().astype(np.uint8)
    return [np.ascontiguousarray(canvas[:, step * i : step * i + 112]) for i in range(count)]


def error(frames: list[np.ndarray], truth: list[np.ndarray]) -> float:
    meter = WarpingError()
    for frame, true in zip(frames, truth, strict=True):
        meter.add(frame, true)
    return meter.mean()


def test_what_moves_with_the_truth_is_steady_and_what_flickers_is_not() -> None:
    truth = pan(4, 3)
    own = error(truth, truth)
    assert own < 2e-4
    flicker = [f.copy() for f in truth]
    for index, frame in enumerate(flicker):
        frame[20:50, 40:80] = 60 if index % 2 else 200
    share, jump = 30 * 40 / (72 * 112), ((200 - 60) / 255) ** 2
    assert error(flicker, truth) == pytest.approx(share * jump, rel=0.35)
    # Painted wrongly but moving along with the true frames: not what this measure is for.
    steady = [255 - f for f in truth]
    assert error(steady, truth) == pytest.approx(own, rel=0.01)


def test_one_frame_says_nothing_about_steadiness() -> None:
    assert np.isnan(error(pan(1, 0), pan(1, 0)))
    black = [np.zeros((40, 40, 3), np.uint8)] * 2
    assert error(black, black) == 0
