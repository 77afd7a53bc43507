"""Weights, and small clips whose truth is known."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import checkpoints
from inpainting import build_network
from inpainting.e2fgvi import E2FGVI, load_weights
from inpainting.spynet import SPyNet, load_basicvsr
from tests.golden.formula import formula_tensor


@pytest.fixture(scope="session")
def spynet() -> SPyNet:
    """The flow with its real weights."""
    path = checkpoints.find("spynet")
    if path is None:
        message = "needs SPyNet's weights: python -m checkpoints fetch spynet"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return load_basicvsr(checkpoints.load_state_dict(path))


class Still(SPyNet):
    """A flow network that sees no motion: exact and quick where the camera stands still."""

    def forward(
        self, reference: torch.Tensor, support: torch.Tensor, *, levels: int = 6
    ) -> torch.Tensor:
        return torch.zeros_like(reference[:, :2])


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A colourful texture with detail at several scales, float32 (height, width, 3) in [0, 255]."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell, share in ((32, 70.0), (12, 45.0), (4, 20.0)):
        noise = random.standard_normal((3, height // cell + 2, width // cell + 2))
        fine = torch.nn.functional.interpolate(
            torch.from_numpy(noise)[None], scale_factor=cell, mode="bicubic"
        )[0, :, :height, :width]
        total += share * fine.permute(1, 2, 0).numpy().astype(np.float32)
    return np.clip(total + 128, 0, 255)


@dataclass
class Clip:
    """Frames with holes of noise over a known truth; records what is asked of it."""

    truth: list[np.ndarray]
    holes: list[np.ndarray]
    asked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(5)
        self.frames = [frame.copy() for frame in self.truth]
        for frame, hole in zip(self.frames, self.holes, strict=True):
            frame[hole] = random.integers(0, 256, (int(hole.sum()), 3))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        self.asked.append(index)
        return self.frames[index]


def moving_hole(
    count: int, size: tuple[int, int] = (80, 112), pan: tuple[int, int] = (0, 0), speed: int = 6
) -> Clip:
    """A texture that pans by whole pixels (dx, dy) per frame under a box that runs across it."""
    height, width = size
    dx, dy = pan
    canvas = texture(height + count * abs(dy), width + count * abs(dx))
    truth, holes = [], []
    for i in range(count):
        x, y = abs(dx) * i, abs(dy) * i
        truth.append(canvas[y : y + height, x : x + width].round().astype(np.uint8))
        hole = np.zeros(size, bool)
        left = 10 + speed * i % (width - 46)
        hole[height // 3 : height // 3 + 24, left : left + 22] = True
        holes.append(hole)
    return Clip(truth, holes)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal to noise ratio in dB, for values up to 255."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@functools.cache
def _formula(name: str, shape: tuple[int, ...], scale: float) -> torch.Tensor:
    norm = "norm" in name and name.endswith("weight")
    return torch.from_numpy(formula_tensor(name, shape, scale, is_norm_weight=norm))


def _fanin(name: str, shape: tuple[int, ...]) -> float:
    """The golden run's scale: by fan-in for weights, so that the values keep their size."""
    if not name.endswith(".weight") or len(shape) < 2:
        return 0.02
    gain = 1.35 if "basic_module" in name else 0.5 if name.startswith("decoder.") else 1.4
    return gain / float(np.sqrt(np.prod(shape[1:])))


def fanin_state(name: str, scale: float | None = None) -> dict[str, torch.Tensor]:
    """A state dict by formula, every scale by the rule above or the same; constants stay."""
    state = build_network(name).state_dict()
    for key, value in state.items():
        if value.is_floating_point() and key not in ("update_spynet.mean", "update_spynet.std"):
            shape = tuple(value.shape)
            state[key] = _formula(key, shape, scale or _fanin(key, shape))
    return state


@pytest.fixture(scope="session")
def small() -> E2FGVI:
    """The small network with weights that a clip does not shake.

    Those of the golden runs multiply differences of rounding by 1e5 in eleven frames, in upstream's
    code as well; smaller ones in the propagation let two ways of computing agree.
    """
    state = {
        key: value * 0.7 if key.startswith("feat_prop_module") else value
        for key, value in fanin_state("e2fgvi_hq_small").items()
    }
    network, _ = load_weights("e2fgvi_hq_small", state)
    return network.eval().requires_grad_(False)
