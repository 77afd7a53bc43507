"""The networks of a run with their first weights: the one that is trained, its judge, its teacher.

All chance is that of torch's global generator; a run seeds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

import checkpoints
from checkpoints.training.saving import find_weights, read_weights
from inpainting.base import build_network
from inpainting.e2fgvi import E2FGVI, FlowLevel, Width
from inpainting.spynet import SPyNet, load_basicvsr
from inpainting.training.config import InitConfig, NetworkConfig, Recipe
from inpainting.training.discriminator import Discriminator
from media import InputError


def build_generator(recipe: Recipe) -> E2FGVI:
    """The network to train, on the CPU, with its first weights.

    Raises:
        InputError: there is no such network, or a file does not fit.
        checkpoints.CheckpointError: a file is missing or damaged.
    """
    network = _outline(recipe.network)
    _draw_weights(network, recipe.init)
    for part in network.feat_prop_module.deform_align.values():
        # At the start it follows the flow exactly.
        for parameter in part.conv_offset[-1].parameters():  # type: ignore[index, union-attr]
            nn.init.zeros_(parameter)
    if recipe.init.flow is not None:
        network.update_spynet.load_state_dict(load_flow(recipe.init.flow).state_dict())
    if recipe.init.weights is not None:
        _fill(network, recipe.init.weights, f"a network {recipe.network.name}")
    return network


def build_discriminator(recipe: Recipe) -> Discriminator:
    """The judge, on the CPU, with its first weights. Raises as `build_generator`."""
    network = Discriminator(recipe.network.discriminator)
    _draw_weights(network, recipe.init)
    if recipe.init.discriminator is not None:
        _fill(network, recipe.init.discriminator, "a discriminator")
    return network


def _outline(config: NetworkConfig) -> E2FGVI:
    changes: dict[str, Width] = {}
    if config.width is not None:
        try:
            changes["width"] = Width(**config.width)
        except TypeError as error:
            raise InputError(f"network.width does not fit: {error}.") from None
    return cast(E2FGVI, build_network(config.name, **changes))


def _draw_weights(network: nn.Module, config: InitConfig) -> None:
    """Draw convolutions and linear layers, without bias, but for those that find the flow.

    As published, the layers that pool windows are drawn as well, though upstream sets them to the
    mean first; deformable convolutions and norms keep their own start.
    """
    for name, part in network.named_modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.Linear)) and "update_spynet" not in name:
            weight = getattr(part, "weight_orig", part.weight)  # under a spectral norm
            if config.scheme == "published" or part.weight.shape[0] == 3:  # starts with grey
                nn.init.normal_(weight, std=0.02)
            else:
                nn.init.kaiming_normal_(weight, a=0.2)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _fill(network: nn.Module, name: str, what: str) -> None:
    try:
        network.load_state_dict(read_weights(find_weights(name)))
    except RuntimeError as error:
        if isinstance(error, checkpoints.CheckpointError):
            raise
        detail = str(error).splitlines()[-1].strip()
        raise InputError(f"{name} does not hold the weights of {what}: {detail}") from None


def load_flow(name: str) -> SPyNet:
    """A SPyNet with the keys that E2FGVI has, from BasicVSR's file or one of SPyNet's own.

    Args:
        name: a file, or the name of a checkpoint.

    Raises:
        InputError: the file holds no SPyNet.
        checkpoints.CheckpointError: it is missing or damaged.
    """
    state: Mapping[str, Tensor] = checkpoints.load_state_dict(find_weights(name))
    network = SPyNet(FlowLevel)
    try:
        if any(key.startswith("spynet.") for key in state):
            plain = load_basicvsr(state).state_dict()
            # There a level counts convolutions and ReLUs, here convolutions alone.
            state = {
                re.sub(r"(basic_module\.\d+\.basic_module)\.(\d+)", _conv, key): tensor
                for key, tensor in plain.items()
            }
        constants = {key: getattr(network, key) for key in ("mean", "std")}
        network.load_state_dict({**constants, **state})
    except RuntimeError as error:
        raise InputError(
            f"{name} does not hold the weights of a SPyNet: {str(error).splitlines()[-1].strip()}"
        ) from None
    return network


def _conv(match: re.Match[str]) -> str:
    return f"{match[1]}.{int(match[2]) // 2}.conv"


def build_teacher(recipe: Recipe) -> SPyNet | None:
    """The frozen flow that the loss `flow` compares with, if it counts."""
    if not recipe.losses.flow or recipe.init.flow is None:
        return None
    return load_flow(recipe.init.flow).eval().requires_grad_(False)


def parameter_groups(network: E2FGVI, lr: float, flow_lr: float) -> list[dict[str, Any]]:
    """The parameters for Adam.

    Args:
        network: whose flow is frozen if it is not trained.
        lr: of all but the flow.
        flow_lr: of the flow, as a multiple of `lr`; 0: it is not trained.
    """
    network.update_spynet.requires_grad_(flow_lr > 0)
    flow = list(network.update_spynet.parameters())
    own = {id(parameter) for parameter in flow}
    rest = [p for p in network.parameters() if id(p) not in own]
    groups = [{"params": rest, "lr": lr, "base_lr": lr, "name": "network"}]
    if flow_lr:
        groups.append({"params": flow, "lr": lr * flow_lr, "base_lr": lr * flow_lr, "name": "flow"})
    return groups
