"""Parts that more than one tracker is built from: a vision transformer's, and mixed attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# Keys and values of one block's template tokens, each (b, heads, tokens, dim / heads).
KeysValues = tuple[torch.Tensor, torch.Tensor]

# --------------------------------------------------------------------------- positions and patches


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


def fixed_positions(size: int, dim: int) -> nn.Parameter:
    """The table for a crop of `size` pixels: a constant, yet upstream keeps it in checkpoints."""
    table = sincos_position_table(size // PatchEmbed.patch, dim)
    return nn.Parameter(table, requires_grad=False)


class PatchEmbed(nn.Module):
    """Cut images into patches of 16 x 16 pixels: (b, 3, h, w) to (b, h * w / 256, dim)."""

    patch = 16

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=self.patch, stride=self.patch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)


def conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    """A 3 x 3 convolution with bias, BatchNorm and ReLU, as the convolutional heads stack them."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
    )


# ------------------------------------------------------------------------------------------ blocks


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them, token by token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        # MixFormerV2 may be about to lose all hidden units but the first: see `fade`.
        self._kept, self._coefficient = hidden, torch.ones(())

    def fade(self, kept: int, coefficient: torch.Tensor) -> None:
        """Weigh what hidden units behind the first `kept` add, and freeze those units.

        Args:
            kept: how many stay as they are.
            coefficient: () 1 as ever, 0 as if cut off.
        """
        self._kept, self._coefficient = kept, coefficient

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.fc1.weight.dtype)  # which may be the half of that of x, see AttentionHeads
        k, weight1, bias1, weight2 = self._kept, self.fc1.weight, self.fc1.bias, self.fc2.weight
        if k == len(bias1):
            return self.fc2(F.gelu(self.fc1(x)))
        kept = F.linear(F.gelu(F.linear(x, weight1[:k], bias1[:k])), weight2[:, :k], self.fc2.bias)
        hidden = F.gelu(F.linear(x, weight1[k:].detach(), bias1[k:].detach()))
        return kept + self._coefficient * F.linear(hidden, weight2[:, k:].detach())


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


class AttentionHeads(nn.Module):
    """The projections around an attention; a subclass says which token sees which.

    Their weights, and those of `Mlp` and `PatchEmbed`, may have been cast to half the precision of
    everything else: what comes in is cast likewise.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, parts * dim) to (parts, b, heads, n, dim / heads)."""
        return x.unflatten(-1, (-1, self.heads, self.qkv.in_features // self.heads)).permute(
            2, 0, 3, 1, 4
        )

    def _join_heads(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x.transpose(1, 2).flatten(2))


# ------------------------------------------------------------------- mixed attention of MixFormer


def attend_as_upstream(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of (b, heads, n, dim / heads) each, on the CPU in float32 spelled out.

    It is the order of sums of the published figures. Networks whose answers are sharp show the
    difference: of MixViT-L the probabilities of edges are within 8e-7 of upstream's so, and within
    4e-6 with PyTorch's fused attention, which serves everywhere else.
    """
    if q.device.type != "cpu" or q.dtype != torch.float32:
        return F.scaled_dot_product_attention(q, k, v)
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v


class MixedAttention(AttentionHeads):
    """Attention in which template tokens see templates only and all others see everything."""

    attend: Callable[..., torch.Tensor] = staticmethod(F.scaled_dot_product_attention)

    def forward(self, x: torch.Tensor, templates: int) -> torch.Tensor:
        """Mix (b, n, dim) tokens, of which the first `templates` belong to templates."""
        q, k, v = self._split_heads(self.qkv(x.to(self.qkv.weight.dtype)))
        t = templates
        mixed = [
            self.attend(q[:, :, :t], k[:, :, :t], v[:, :, :t]),
            self.attend(q[:, :, t:], k, v),
        ]
        return self._join_heads(torch.cat(mixed, dim=2))

    def cached(
        self, x: torch.Tensor, context: KeysValues | None, queries: int
    ) -> tuple[torch.Tensor, KeysValues]:
        """Let the last `queries` of the (b, n, dim) tokens see `context` and all n tokens.

        Returns:
            The (b, queries, dim) result, and the keys and values of the n tokens themselves.
        """
        dim = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        x = x.to(weight.dtype)
        (q,) = self._split_heads(F.linear(x[:, -queries:], weight[:dim], bias[:dim]))
        own_k, own_v = k, v = self._split_heads(F.linear(x, weight[dim:], bias[dim:]))
        if context is not None:
            k, v = torch.cat([context[0], own_k], dim=2), torch.cat([context[1], own_v], dim=2)
        return self._join_heads(self.attend(q, k, v)), (own_k, own_v)


class MixedBlock(nn.Module):
    """A transformer block, normalized first. LayerNorm eps 1e-6, unlike the heads."""

    def __init__(self, dim: int, heads: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MixedAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)
        # () of both residual branches; MixFormerV2 fades it to 0 in a block that is to be removed.
        # A tensor, because torch.compile would compile anew for every number. None: a block stays.
        self.coefficient: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, templates: int) -> torch.Tensor:
        """(b, n, dim) to the same; the first `templates` tokens see only each other."""
        x = x + self._weigh(self.drop_path(self.attn(self.norm1(x), templates)))
        return x + self._weigh(self.drop_path(self.mlp(self.norm2(x))))

    def cached(
        self, x: torch.Tensor, context: KeysValues | None, queries: int
    ) -> tuple[torch.Tensor, KeysValues]:
        """As `forward` in inference, for the last `queries` tokens; see `MixedAttention.cached`."""
        attended, own = self.attn.cached(self.norm1(x), context, queries)
        x = x[:, -queries:] + self._weigh(attended)
        return x + self._weigh(self.mlp(self.norm2(x))), own

    def _weigh(self, branch: torch.Tensor) -> torch.Tensor:
        return branch if self.coefficient is None else branch * self.coefficient


def cache_tokens(blocks: Iterable[Any], x: torch.Tensor) -> list[KeysValues]:
    """Keys and values of (b, n, dim) tokens in every `MixedBlock`, attending to each other only."""
    cache = []
    for block in blocks:
        x, keys_values = block.cached(x, None, x.shape[1])
        cache.append(keys_values)
    return cache


# ------------------------------------------------------------------------------ sizes of weights


def transformer_sizes(
    state: Mapping[str, torch.Tensor], search_table: str, template_table: str
) -> dict[str, int]:
    """Arguments of a network that the shapes of its tensors tell.

    Heads leave no trace: each is taken to have 64 channels, as in all of ViT.

    Args:
        state: its weights, with the official keys.
        search_table: what the positions of the search crop are called.
        template_table: the same of the template crop.

    Raises:
        KeyError: there is no such table.
    """
    rows = [state[f"backbone.{table}"].shape[1] for table in (search_table, template_table)]
    search_size, template_size = (PatchEmbed.patch * math.isqrt(n) for n in rows)
    dim = state[f"backbone.{search_table}"].shape[-1]
    blocks = {key.split(".")[2] for key in state if key.startswith("backbone.blocks.")}
    return {
        "search_size": search_size,
        "template_size": template_size,
        "dim": dim,
        "heads": max(1, dim // 64),
        "depth": len(blocks),
    }


def mlp_ratio(state: Mapping[str, torch.Tensor]) -> float:
    """Hidden channels of a transformer's first MLP in multiples of its own."""
    hidden, dim = state["backbone.blocks.0.mlp.fc1.weight"].shape
    return hidden / dim
