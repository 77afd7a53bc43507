"""From a large network to a small one: which weights go where.

Three ways, which may be combined:
- a trained network hands its weights on to one with fewer blocks (`without_blocks`), as upstream's
  finetuning does after the removed blocks have been faded out;
- hidden units of the blocks' MLPs are put in order of importance (`order_hidden_units`), so that
  the unimportant ones can be faded out as the blocks are (`MixFormerV2.kept_hidden`), and then cut
  off (`with_fewer_hidden`);
- a plain vision transformer becomes the backbone (`from_vit`).

The teacher's side of the losses is in objectives.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from media import InputError

State = Mapping[str, torch.Tensor]

_BLOCK = re.compile(r"^(.*blocks\.)(\d+)(\..*)$")
# Fixed tables, which a network makes by itself for its own size of crops.
_TABLES = ("backbone.pos_embed_s", "backbone.pos_embed_t")


# ---------------------------------------------------------------------------------- fewer blocks


def remapped_keys(keys: Iterable[str], removed: Sequence[int]) -> dict[str, str]:
    """Where the weights of a network come from whose blocks have been removed.

    Source: MCG-NJU/MixFormerV2 @ 10414383, loading of the finetuning stage: the blocks left move
    up in order, and the fixed tables of positions are made anew. Nothing happens if `removed` is
    empty.

    Args:
        keys: of the deep network's state dict.
        removed: indices of blocks.

    Returns:
        New key to old key, in the order of the old ones.
    """
    if not removed:
        return {key: key for key in keys}
    moved = {}
    for key in keys:
        match = _BLOCK.match(key)
        if match is None:
            if key not in _TABLES:
                moved[key] = key
        elif (old := int(match[2])) not in removed:
            new = old - sum(index < old for index in removed)
            moved[f"{match[1]}{new}{match[3]}"] = key
    return moved


def without_blocks(state: State, removed: Sequence[int]) -> dict[str, torch.Tensor]:
    """A state dict with the blocks of `removed` left out; see `remapped_keys`."""
    return {new: state[old] for new, old in remapped_keys(state, removed).items()}


# ------------------------------------------------------------------------------ fewer hidden units


def hidden_importance(mlp: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """How much each hidden unit of an `Mlp` adds to the residual stream.

    It takes tokens to know: of the bundled small tracker without training, half of the units chosen
    by this keep 0.634 of 0.684 mean IoU (64 held-out pairs); chosen by chance 0.351, and by the
    norms of their weights only 0.103.

    Args:
        mlp: see `trackers.models.layers.Mlp`.
        tokens: (..., dim) that entered it.

    Returns:
        (hidden,) float32 mean square of what the unit adds; it may be averaged over batches.
    """
    fc1, fc2 = mlp.fc1, mlp.fc2
    assert isinstance(fc1, nn.Linear) and isinstance(fc2, nn.Linear)
    with torch.no_grad():
        active = nn.functional.gelu(nn.functional.linear(tokens, fc1.weight, fc1.bias))
        return active.float().square().flatten(0, -2).mean(dim=0) * fc2.weight.square().sum(dim=0)


def importance_on(network: nn.Module, run: Callable[[], object]) -> dict[int, torch.Tensor]:
    """`hidden_importance` in every block of a network, on the tokens that `run()` sends through."""
    found = {}
    blocks: Any = network.get_submodule("backbone.blocks")
    was_training = network.training
    network.eval()

    def note(index: int, mlp: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found[index] = hidden_importance(mlp, inputs[0])

    hooks = [
        block.mlp.register_forward_pre_hook(partial(note, index))
        for index, block in enumerate(blocks)
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)
    return found


def order_hidden_units(state: State, importance: Mapping[int, torch.Tensor]) -> State:
    """Put hidden units in order of importance, the most important first: the same function.

    Args:
        state: of a network with `Mlp` blocks.
        importance: block to (hidden,) values.
    """
    ordered = dict(state)
    for block, values in importance.items():
        order = values.argsort(descending=True, stable=True)
        prefix = f"backbone.blocks.{block}.mlp."
        for key in ("fc1.weight", "fc1.bias"):
            ordered[prefix + key] = state[prefix + key][order]
        ordered[prefix + "fc2.weight"] = state[prefix + "fc2.weight"][:, order]
    return ordered


def with_fewer_hidden(state: State, kept: int) -> dict[str, torch.Tensor]:
    """A state dict whose MLPs keep their first `kept` hidden units only."""
    cut = dict(state)
    for key, tensor in state.items():
        if key.endswith(("mlp.fc1.weight", "mlp.fc1.bias")):
            cut[key] = tensor[:kept].clone()
        elif key.endswith("mlp.fc2.weight"):
            cut[key] = tensor[:, :kept].clone()
    return cut


# ------------------------------------------------------------------------ from a vision transformer

_TIMM_HEAD = ("head.", "fc_norm.", "norm.", "pos_embed", "cls_token", "mask_token", "decoder_")
_VIT_KEY = re.compile(
    r"^(patch_embed\.proj|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12]))\.(weight|bias)$"
)


def from_vit(state: State, wanted: State, *, name: str) -> dict[str, torch.Tensor]:
    """Backbone weights of a tracker out of a plain vision transformer's, strictly checked.

    Understands the files of MAE (facebookresearch/mae) and of timm, with or without an encoder
    prefix. What a tracker has no use for is left out: class token, classifier, the last norm, MAE's
    decoder; and the positions of the classifier's grid, except for GRM, whose own begin as those,
    resized (Little-Podi/GRM @ 466ceb7).

    Args:
        state: of the vision transformer.
        wanted: state dict of the tracker's network; what the file has no counterpart for (heads,
            prediction tokens, GRM's predictors) is not asked for.
        name: of the file, for messages.

    Returns:
        State dict entries with the network's keys.

    Raises:
        InputError: blocks are missing, shapes differ, or there are weights nobody knows.
    """
    plain = {re.sub(r"^(module|encoder|model|backbone)\.", "", key): t for key, t in state.items()}
    surplus = [k for k in plain if not _VIT_KEY.match(k) and not k.startswith(_TIMM_HEAD)]
    if surplus:
        raise InputError(
            f"{name} is not a plain vision transformer: it holds {surplus[0]!r}, which has no "
            "place in the backbone."
        )
    needed = [k.removeprefix("backbone.") for k in wanted if k.startswith("backbone.")]
    found = {}
    for key in filter(_VIT_KEY.match, needed):
        if key not in plain:
            raise InputError(f"{name} lacks {key!r}: it is not as deep as the network.")
        if plain[key].shape != wanted[f"backbone.{key}"].shape:
            raise InputError(
                f"{name} does not fit: {key} is {tuple(plain[key].shape)}, "
                f"but the network needs {tuple(wanted[f'backbone.{key}'].shape)}."
            )
        found[f"backbone.{key}"] = plain[key]
    for key in ("backbone.pos_embed_x", "backbone.pos_embed_z"):
        if key in wanted and "pos_embed" in plain:
            found[key] = _resized_positions(plain["pos_embed"], wanted[key].shape[1])
    if extra := [k for k in plain if _VIT_KEY.match(k) and f"backbone.{k}" not in found]:
        raise InputError(f"{name} is deeper than the network: nobody would use its {extra[0]!r}.")
    return found


def _resized_positions(table: torch.Tensor, tokens: int) -> torch.Tensor:
    """A square grid's (1, n, dim) positions, those of class tokens before them, for `tokens`."""
    side, wanted = math.isqrt(table.shape[1]), math.isqrt(tokens)
    grid = table[:, -side * side :].mT.unflatten(2, (side, side)).float()
    return F.interpolate(grid, size=(wanted, wanted), mode="bicubic").flatten(2).mT.contiguous()
