"""Parts of a plain vision transformer that more than one tracker is built from."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def sincos_position_table(grid: int, dim: int) -> torch.Tensor:
    """Fixed 2-D sine-cosine positions of a square grid, the column before the row.

    Source: MCG-NJU/MixFormerV2 @ 10414383, after MAE. In numpy and float32 throughout as there: the
    sines of torch differ in the last bit.

    Args:
        grid: positions per side.
        dim: channels, a multiple of four.

    Returns:
        (1, grid * grid, dim) float32 in row-major order, each row sin(x), cos(x), sin(y), cos(y).
    """
    quarter = dim // 4
    omega = 1.0 / 10000 ** (np.arange(quarter, dtype=np.float32) / quarter)
    angles = np.outer(np.arange(grid, dtype=np.float32), omega)
    line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (grid, dim / 2)
    columns, rows = np.tile(line, (grid, 1)), np.repeat(line, grid, axis=0)
    return torch.from_numpy(np.concatenate([columns, rows], axis=1)[None])


class PatchEmbed(nn.Module):
    """Cut images into patches of 16 x 16 pixels: (b, 3, h, w) to (b, h * w / 256, dim)."""

    patch = 16

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=self.patch, stride=self.patch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them, token by token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth as in timm: in training, leave a residual branch out for whole samples."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(keep) / keep
