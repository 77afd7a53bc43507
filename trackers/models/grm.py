"""GRM: in every layer, each search token decides anew whether it meets the template.

To be read downwards: attention, backbone, head, network, tracker, presets.
Paper: Gao et al., "Generalized Relation Modeling for Transformer Tracking", CVPR 2023
(arXiv 2303.16580). Upstream: Little-Podi/GRM @ 466ceb7, whose checkpoints load unchanged.

    crops         tokens                                    search tokens, as a map
    template -> [ template | search alone | search mixed ] -> centre head -> score, size, offset
    search   /

    template, search alone   see their own kind, and the mixed tokens
    search mixed             see everything

With all tokens mixed this is a one-stream tracker, with none the template and the search crop never
meet. No token is dropped, and all attention is worked out: the division is there for accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from checkpoints import WeightsRecord
from trackers.base import Mode, StateDict, register
from trackers.crop_tracker import CropTracker
from trackers.crops import to_tensor
from trackers.models.layers import (
    AttentionHeads,
    DropPath,
    Mlp,
    PatchEmbed,
    conv_norm_relu,
    transformer_sizes,
)
from trackers.search import Cache

# ------------------------------------------------------------------------------------------ parts


class Division(NamedTuple):
    """What one layer decides about the search tokens."""

    keep: torch.Tensor  # (b, s) probability that the token stays alone
    mixed: torch.Tensor  # (b, s) 1.0 where it meets the template, else 0.0


def who_sees_whom(mixed: torch.Tensor, templates: int) -> torch.Tensor:
    """All see all, but the template and the search tokens that stay alone do not see each other.

    Args:
        mixed: (b, s), see `Division`.
        templates: number of template tokens, which come first.

    Returns:
        (b, n, n) with n = templates + s: 1.0 where the row's token sees the column's, else 0.0.
    """
    alone = F.pad(1 - mixed, (templates, 0))
    template = torch.zeros_like(alone)
    template[:, :templates] = 1
    return 1 - template[:, :, None] * alone[:, None] - alone[:, :, None] * template[:, None]


def masked_softmax(logits: torch.Tensor, allowed: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """A softmax over the allowed keys, with upstream's epsilons.

    Kept from upstream: the largest logit is looked for among forbidden keys too, and each key gets
    a share of `eps`. Should a forbidden key lead all allowed ones by more than about 14, the result
    fades towards the mean over all keys. That is why this is not a boolean attention mask.

    Args:
        logits: (b, heads, n, n).
        allowed: (b, n, n), see `who_sees_whom`.

    Returns:
        (b, heads, n, n) float32, rows sum to 1.
    """
    logits = logits.float()
    weights = (logits - logits.amax(dim=-1, keepdim=True)).exp() * allowed[:, None]
    return (weights + eps / logits.shape[-1]) / (weights.sum(dim=-1, keepdim=True) + eps)


class DividingAttention(AttentionHeads):
    """Attention that divides the search tokens first; without a predictor all tokens see all."""

    def __init__(self, dim: int, heads: int, *, divide: bool) -> None:
        super().__init__(dim, heads)
        self.divide_predict = (
            nn.Sequential(
                nn.Linear(2 * dim, 384),
                nn.GELU(),
                nn.Linear(384, 192),
                nn.GELU(),
                nn.Linear(192, 2),
            )
            if divide
            else None
        )

    def forward(
        self, x: torch.Tensor, templates: int, threshold: float
    ) -> tuple[torch.Tensor, Division | None]:
        """Mix (b, n, dim) normalized tokens, of which the first `templates` are the template's."""
        x = x.to(self.qkv.weight.dtype)
        q, k, v = self._split_heads(self.qkv(x))
        if self.divide_predict is None:
            return self._join_heads(F.scaled_dot_product_attention(q, k, v)), None
        division = self._divide(self.divide_predict, x, templates, threshold)
        allowed = who_sees_whom(division.mixed, templates)
        attention = masked_softmax(q @ k.mT / math.sqrt(q.shape[-1]), allowed)
        return self._join_heads(attention.to(v) @ v), division

    def _divide(
        self, predict: nn.Module, x: torch.Tensor, templates: int, threshold: float
    ) -> Division:
        target = x[:, :templates].amax(dim=1, keepdim=True)  # channel by channel
        search = x[:, templates:]
        logits = predict(torch.cat([search, target.expand_as(search)], dim=-1))
        keep = logits.softmax(dim=-1)[..., 0]
        if self.training:
            # Nothing but the loss of the box teaches the predictor. So the decision is drawn with
            # its probability, and gradients pass it as if it had not been rounded (Jang et al.,
            # "Categorical Reparameterization with Gumbel-Softmax", 2017); temperature 1.
            drawn = F.gumbel_softmax(logits.float().log_softmax(dim=-1), hard=True)
            return Division(keep, drawn[..., 1].to(x.dtype))
        mixed = keep < threshold if threshold else logits[..., 1] > logits[..., 0]
        return Division(keep, mixed.to(x.dtype))


class Block(nn.Module):
    """A transformer block, normalized first. LayerNorm eps 1e-6."""

    def __init__(self, dim: int, heads: int, drop_path: float, *, divide: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DividingAttention(dim, heads, divide=divide)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: torch.Tensor, templates: int, threshold: float
    ) -> tuple[torch.Tensor, Division | None]:
        """(b, n, dim) to the same, and how the search tokens were divided."""
        attended, division = self.attn(self.norm1(x), templates, threshold)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x))), division


class Backbone(nn.Module):
    """Patches and learnt positions of both crops, the blocks, and a normalization after them."""

    def __init__(
        self,
        *,
        search_size: int,
        template_size: int,
        dim: int,
        depth: int,
        heads: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        # What is left of the classifier it began as, which no frame ever meets: upstream's files
        # hold it.
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, 197, dim), requires_grad=False)
        self.pos_embed_x = self._learnt_positions(search_size, dim)
        self.pos_embed_z = self._learnt_positions(template_size, dim)
        self.patch_embed = PatchEmbed(dim)
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        blocks = nn.ModuleList(
            Block(dim, heads, rate, divide=i > 0) for i, rate in enumerate(rates)
        )
        self.blocks = cast("Sequence[Block]", blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    @staticmethod
    def _learnt_positions(size: int, dim: int) -> nn.Parameter:
        table = torch.empty(1, (size // PatchEmbed.patch) ** 2, dim)
        return nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def forward(
        self, template: torch.Tensor, search: torch.Tensor, threshold: float
    ) -> tuple[torch.Tensor, list[Division]]:
        """(b, 3, z, z) and (b, 3, x, x) crops to (b, x * x / 256, dim) search tokens."""
        z = self.patch_embed(template) + self.pos_embed_z
        x = torch.cat([z, self.patch_embed(search) + self.pos_embed_x], dim=1)
        divisions = []
        for block in self.blocks:
            x, division = block(x, z.shape[1], threshold)
            if division is not None:
                divisions.append(division)
        return self.norm(x)[:, z.shape[1] :], divisions


class CenterHead(nn.Module):
    """Where is the centre, how large is the object, and where in its cell does the centre lie?"""

    def __init__(self, dim: int) -> None:
        super().__init__()
        channels = (dim, 256, 128, 64, 32)
        for branch, outputs in (("ctr", 1), ("offset", 2), ("size", 2)):  # upstream's names
            for i in range(1, 5):
                self.add_module(f"conv{i}_{branch}", conv_norm_relu(channels[i - 1], channels[i]))
            self.add_module(f"conv5_{branch}", nn.Conv2d(channels[-1], outputs, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(b, dim, f, f) to scores (b, 1, f, f), sizes (b, 2, f, f) and offsets (b, 2, f, f)."""

        def run(branch: str) -> torch.Tensor:
            y = x
            for i in range(1, 6):
                y = self.get_submodule(f"conv{i}_{branch}")(y)
            return y

        # Kept from upstream: the size is bounded like the score; the offset is not bounded at all.
        score, size = (run(branch).sigmoid().clamp(1e-4, 1 - 1e-4) for branch in ("ctr", "size"))
        return score, size, run("offset")


def decode(
    response: torch.Tensor, size_map: torch.Tensor, offset_map: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the box at the highest response.

    Args:
        response: (b, 1, f, f), the scores, weighted or not.
        size_map: (b, 2, f, f) width and height as shares of the crop.
        offset_map: (b, 2, f, f) x and y in cells, from the cell's left top corner.

    Returns:
        (b, 4) centre x, centre y, width, height as shares of the crop, and (b,) index of the cell
        in row-major order.
    """
    side = response.shape[-1]
    index = response.flatten(1).argmax(dim=1)

    def there(maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(2).gather(2, index[:, None, None].expand(-1, 2, 1))[..., 0]

    cell = torch.stack([index % side, index // side], dim=-1)
    return torch.cat([(cell + there(offset_map)) / side, there(size_map)], dim=-1), index


# ---------------------------------------------------------------------------------------- network


@dataclass(frozen=True)
class GRMOutput:
    """What the network says about a batch of b search crops; f = search_size / 16, s = f * f."""

    score_map: torch.Tensor  # (b, 1, f, f) in (0, 1): is the object's centre in this cell?
    size_map: torch.Tensor  # (b, 2, f, f) in (0, 1) width, height as shares of the crop
    offset_map: torch.Tensor  # (b, 2, f, f) x, y of the centre in the cell, in cells
    box_cxcywh: torch.Tensor  # (b, 1, 4) shares of the crop, read at the highest score
    # Of the search tokens, in all layers but the first. The decisions are numbers, not booleans, so
    # that training can hand a straight-through estimate on.
    decisions: torch.Tensor  # (b, layers - 1, s) 1.0 where the token meets the template, else 0.0
    keep_probabilities: torch.Tensor  # (b, layers - 1, s) that the token stays alone


class GRM(nn.Module):
    """The network: a template crop and a search crop in, maps and box out.

    In training mode the division is drawn, with the predicted probabilities.

    Args:
        search_size: side of the search crop in pixels, a multiple of 16.
        template_size: side of the template crop in pixels, a multiple of 16.
        dim: channels of a token.
        depth: number of blocks, at least two: the first one does not divide.
        heads: attention heads.
        drop_path: stochastic depth of the last block in training, rising to it from 0.
    """

    def __init__(
        self,
        *,
        search_size: int = 256,
        template_size: int = 128,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.search_size = search_size
        self.template_size = template_size
        self.backbone = Backbone(
            search_size=search_size,
            template_size=template_size,
            dim=dim,
            depth=depth,
            heads=heads,
            drop_path=drop_path,
        )
        self.box_head = CenterHead(dim)

    def forward(
        self, template: torch.Tensor, search: torch.Tensor, threshold: float = 0.0
    ) -> GRMOutput:
        """Find the template's object in the search crop.

        Args:
            template: (b, 3, z, z), z = `template_size`, normalized as by `crops.to_tensor`.
            search: (b, 3, x, x), x = `search_size`.
            threshold: a search token meets the template when its probability of staying alone is
                below this; 0: when that is the less likely of the two. Training does not use it.
        """
        tokens, divisions = self.backbone(template, search, threshold)
        grid = self.search_size // PatchEmbed.patch
        score, size, offset = self.box_head(tokens.mT.unflatten(2, (grid, grid)))
        boxes, _ = decode(score, size, offset)
        keep, mixed = (torch.stack(part, dim=1) for part in zip(*divisions, strict=True))
        return GRMOutput(score, size, offset, boxes[:, None], mixed, keep)


# ---------------------------------------------------------------------------------------- tracker


def hann_window(side: int) -> torch.Tensor:
    """(side, side) float32: 1 in the middle, falling towards the borders but not to 0."""
    line = torch.hann_window(side + 2, periodic=False)[1:-1]
    return line[:, None] * line


class GRMTracker(CropTracker):
    """Follows one object. See `trackers.base.Tracker` for what every tracker does.

    The template is that of the first frame, or of the last correction: there is room for one, and
    it is encoded with every frame, because it meets search tokens from the first block on. `score`
    is the centre score at the box. It says which cell is best, and nobody has trained or examined
    it to say that the object is gone: so an object is never called lost.

    Args:
        network: in eval mode.
        weights: which weights it holds.
        mode: makes no difference.
        search_factor: side of the search window in multiples of the object's mean side.
        threshold: see `GRM.forward`. Published with grm_base are 0.4 for LaSOT and AVisT, 0.6 for
            NfS, 0.55 for UAV123; with grm_large, and on all other data sets, 0.
    """

    network: GRM

    def __init__(
        self,
        network: GRM,
        *,
        weights: WeightsRecord,
        mode: Mode = "robust",
        search_factor: float = 4.0,
        threshold: float = 0.0,
    ) -> None:
        super().__init__(network, weights=weights, mode=mode, search_factor=search_factor)
        self.threshold = threshold
        self._window = hann_window(network.search_size // PatchEmbed.patch).to(self.device)

    def _look(self, crops: torch.Tensor, cache: Cache) -> torch.Tensor:
        ((template,),) = cache
        output = self.network(template, crops, self.threshold)
        # The window prefers what moved little. Size and offset are read as they are.
        boxes, cells = decode(self._window * output.score_map, output.size_map, output.offset_map)
        scores = output.score_map.flatten(1).gather(1, cells[:, None])
        return torch.cat([boxes, scores], dim=1)

    def _begin(self, frame: np.ndarray) -> None:
        self._cache = [(to_tensor([self._template_crop(frame)], self.device),)]

    def _renew(self, frame: np.ndarray) -> None:
        self._begin(frame)


# ---------------------------------------------------------------------------- presets and weights


def sizes(state: StateDict) -> dict[str, Any]:
    """Arguments of `GRM` that weights tell, so that runs of any recipe can be followed."""
    return dict(transformer_sizes(state, "pos_embed_x", "pos_embed_z"))


@register("grm_base", tracker=GRMTracker, checkpoints=("grm_base",), sizes=sizes)
def grm_base(**overrides: Any) -> GRM:
    """ViT-B, 256 pixel search crops of four times the object."""
    return GRM(**overrides)


@register(
    "grm_large",
    tracker=partial(GRMTracker, search_factor=5.0),
    checkpoints=("grm_large",),
    sizes=sizes,
)
def grm_large(**overrides: Any) -> GRM:
    """ViT-L, 320 pixel search crops of five times the object (upstream's GRM-L320)."""
    return GRM(**{"search_size": 320, "dim": 1024, "depth": 24, "heads": 16} | overrides)
