"""Weights by formula: parity tests without anybody's checkpoint.

The golden numbers beside this file were made by the official code of each model, with every float
entry of its state dict replaced by a fixed function of the entry's name. A module of ours with the
same keys gets the same numbers, and has to give the same output.

    from tests.golden.formula import fill_
    fill_(network, scale=0.05, skip=lambda key: key.endswith("pos_embed_s"))
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

# Hand-written norms (a frozen BatchNorm, SAM's LayerNorm2d) whose weight is a gain like nn's.
_NORM_CLASSES = {"FrozenBatchNorm2d", "LayerNorm2d", "LayerNorm", "BatchNorm2d"}
_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


def formula_tensor(
    name: str, shape: Sequence[int], scale: float = 0.02, *, is_norm_weight: bool = False
) -> np.ndarray:
    """Float32 values for the state-dict entry `name`: standard normal, seeded by the name.

    The gain of a normalization is 1 + value, a running variance 1 + |value|.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    value = np.asarray(random.standard_normal(tuple(shape))).astype(np.float32) * np.float32(scale)
    if name.endswith("running_var"):
        value = np.abs(value) + np.float32(1)
    elif is_norm_weight:
        value = np.float32(1) + value
    return np.asarray(value, dtype=np.float32)


def fill_(
    module: nn.Module,
    scale: float = 0.02,
    *,
    skip: Callable[[str], bool] = lambda key: False,
    prefix: str = "",
) -> nn.Module:
    """Overwrite the module's float parameters and buffers by the formula, and return the module.

    Args:
        module: any module; integer buffers stay as they are.
        scale: each golden folder's README says which.
        skip: keys to leave alone, such as fixed tables of positions.
        prefix: put before each key where the checkpoint of the golden run had one.
    """
    gains = {
        f"{name}.weight" if name else "weight"
        for name, part in module.named_modules()
        if isinstance(part, _NORMS) or type(part).__name__ in _NORM_CLASSES
    }
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not skip(key):
                value = formula_tensor(
                    prefix + key, tensor.shape, scale, is_norm_weight=key in gains
                )
                tensor.copy_(torch.from_numpy(value).reshape(tensor.shape))
    return module


def formula_input(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal float32 input from RandomState(seed)."""
    values = np.random.RandomState(seed).standard_normal(tuple(shape))
    return torch.from_numpy(values.astype(np.float32))
