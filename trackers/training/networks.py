"""The networks of a run with their first weights: the one that is trained, and its teacher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import checkpoints
from checkpoints.training.saving import find_weights, read_weights
from media import InputError
from trackers.base import build_network
from trackers.models.grm import GRM
from trackers.training.config import (
    InitConfig,
    OptimizerConfig,
    Recipe,
    TeacherConfig,
)
from trackers.training.distill import (
    from_vit,
    with_fewer_hidden,
    without_blocks,
)

_log = logging.getLogger(__name__)


def build_student(recipe: Recipe) -> nn.Module:
    """The network to train, on the CPU, with its first weights and its frozen parts frozen.

    Raises:
        InputError: a file does not fit.
    """
    torch.manual_seed(recipe.engine.seed)
    network = build_network(recipe.network.name, **recipe.network.options)
    if recipe.init.scheme == "trunc_normal":
        _draw_weights(network)
    elif isinstance(network, GRM):
        _draw_new_parts(network)
    if recipe.init.vit is not None:
        name = recipe.init.vit
        state = checkpoints.load_state_dict(find_weights(name))
        found = from_vit(state, network.state_dict(), name=name)
        network.load_state_dict(found, strict=False)
    if recipe.init.weights is not None:
        _load_weights(network, recipe.init)
    if not recipe.losses.score and getattr(network, "score_head", None) is not None:
        network.score_head.requires_grad_(False)
    _freeze(network, recipe.optimizer)
    return network


def _draw_weights(network: nn.Module) -> None:
    """As timm and the papers do where a transformer starts from scratch."""
    for part in network.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    if isinstance(network, GRM):
        _draw_new_parts(network)


def _draw_new_parts(network: GRM) -> None:
    """What a plain transformer does not bring. Source: Little-Podi/GRM @ 466ceb7."""
    for name, part in network.named_modules():
        if isinstance(part, nn.Linear) and "divide_predict" in name:
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
    for parameter in network.box_head.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def _load_weights(network: nn.Module, init: InitConfig) -> None:
    assert init.weights is not None
    state: Mapping[str, torch.Tensor] = read_weights(find_weights(init.weights))
    state = {key: value for key, value in state.items() if not key.startswith(init.unused)}
    if init.removed_blocks:
        state = without_blocks(state, init.removed_blocks)
    if init.kept_hidden is not None:
        state = with_fewer_hidden(state, init.kept_hidden)
    wanted = network.state_dict()
    # Fixed tables are made anew for the network's own crops when the file has others, or none.
    tables = ("backbone.pos_embed_s", "backbone.pos_embed_t")
    state = {
        key: value
        for key, value in state.items()
        if key not in tables or value.shape == wanted[key].shape
    }
    missing = [k for k in wanted if k not in state and not k.startswith((*init.new, *tables))]
    surplus = [k for k in state if k not in wanted]
    shaped = [k for k in state if k in wanted and state[k].shape != wanted[k].shape]
    for keys, what in (
        (missing, "lacks"),
        (surplus, "has more than the network:"),
        (shaped, "has another shape of"),
    ):
        if keys:
            raise InputError(
                f"The weights {init.weights} do not fit: the file {what} {keys[0]!r}"
                f"{f' and {len(keys) - 1} others' if len(keys) > 1 else ''}."
            )
    network.load_state_dict(state, strict=False)


def _freeze(network: nn.Module, config: OptimizerConfig) -> None:
    if not config.train_only:
        return
    for name, parameter in network.named_parameters():
        if not any(part in name for part in config.train_only):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in network.parameters()):
        raise InputError(f"No parameter is called {' or '.join(config.train_only)}: none to train.")


def build_teacher(config: TeacherConfig, student: Any) -> nn.Module:
    """The teacher, on the CPU, frozen and in eval mode.

    Raises:
        InputError: its weights do not fit, or it cannot be compared with the student.
    """
    options = dict(config.options)
    if not config.resize:
        options |= {"search_size": student.search_size, "template_size": student.template_size}
    if config.name.startswith("mixformerv2"):
        options["feat_sz"] = student.feat_sz
    torch.manual_seed(0)
    teacher = build_network(config.name, **options)
    if config.weights is None:
        _log.warning("The teacher %s has random weights.", config.name)
    else:
        _load_weights(teacher, InitConfig(config.weights))
    return teacher.requires_grad_(False).eval()


def parameter_groups(network: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """AdamW's groups: the learning rate of head and backbone, with and without decay.

    Each carries its `name` and the `base_lr` that the schedule multiplies.
    """

    def is_head(name: str) -> bool:
        return "backbone" not in name or any(part in name for part in config.head_names)

    def decays(name: str, parameter: nn.Parameter) -> bool:
        tokens = name.endswith(("reg_tokens", "pos_embed_reg", "pos_embed_x", "pos_embed_z"))
        return not config.matrices_only or (parameter.dim() > 1 and not tokens)

    groups = []
    trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    choices: tuple[tuple[str, float, Callable[[str], bool]], ...] = (
        ("head", config.lr, is_head),
        ("backbone", config.backbone_lr, lambda name: not is_head(name)),
    )
    for group, lr, belongs in choices:
        for decay in (True, False):
            chosen = [p for n, p in trained if belongs(n) and decays(n, p) == decay]
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "name": group,
                        "lr": lr,
                        "base_lr": lr,
                        "weight_decay": config.weight_decay if decay else 0.0,
                    }
                )
    return groups
