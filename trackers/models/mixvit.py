"""MixViT: a plain vision transformer that mixes template and search, and a head that maps corners.

To be read downwards: backbone, head, network, tracker, presets, official files. Its blocks are in
layers.py, because MixFormerV2, which was distilled from it, has the same.
Paper: Cui et al., "MixFormer: End-to-End Tracking with Iterative Mixed Attention", CVPR 2022 and
TPAMI 2024 (arXiv 2302.02814). Upstream: MCG-NJU/MixFormer @ f4e759b, and MCG-NJU/MixFormerV2
@ 10414383, where it is the teacher.

    crops             tokens                               search tokens, as a map
    template  -> [ template | online template | search ] -> corner head -> top left, bottom right
    online    /    see each other            sees all

As in MixFormerV2 a tracker encodes the templates once: `encode_templates`, then `search`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from checkpoints import WeightsRecord
from trackers.base import Mode, StateDict, register
from trackers.boxes import xyxy_to_cxcywh
from trackers.crop_tracker import CropTracker
from trackers.crops import to_tensor
from trackers.models.layers import (
    KeysValues,
    MixedBlock,
    PatchEmbed,
    attend_as_upstream,
    cache_tokens,
    conv_norm_relu,
    fixed_positions,
    mlp_ratio,
    transformer_sizes,
)
from trackers.search import Cache

# ------------------------------------------------------------------------------------------ parts


class Backbone(nn.Module):
    """Patches and positions of all crops, and the blocks. The head reads raw tokens."""

    def __init__(
        self,
        *,
        search_size: int,
        template_size: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        # A classifier's parts, which no frame ever meets: upstream's files hold them.
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, 197, dim), requires_grad=False)
        self.pos_embed_s = fixed_positions(search_size, dim)
        self.pos_embed_t = fixed_positions(template_size, dim)
        self.patch_embed = PatchEmbed(dim)
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        blocks = nn.ModuleList(MixedBlock(dim, heads, int(dim * mlp_ratio), rate) for rate in rates)
        self.blocks = cast("Sequence[MixedBlock]", blocks)
        for block in self.blocks:
            block.attn.attend = attend_as_upstream
        self.norm = nn.LayerNorm(dim, eps=1e-6).requires_grad_(False)  # unused as well
        self.head = nn.Linear(dim, 1000).requires_grad_(False)  # unused as well

    def template_tokens(self, template: torch.Tensor) -> torch.Tensor:
        """(b, 3, z, z) to (b, z * z / 256, dim)."""
        return self.patch_embed(template) + self.pos_embed_t

    def search_tokens(self, search: torch.Tensor) -> torch.Tensor:
        """(b, 3, x, x) to (b, x * x / 256, dim)."""
        return self.patch_embed(search) + self.pos_embed_s


class CornerHead(nn.Module):
    """Where is the top left corner, where the bottom right? A map for each, four times as fine.

    Each is a pyramid of its own: as the maps grow, what the coarser ones say is added to the finer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        c1, c2, c3, c4 = 384, 192, 96, 48
        for corner in ("tl", "br"):  # upstream's names: all parts side by side
            parts = {
                "conv1": conv_norm_relu(dim, c1),
                "conv2": conv_norm_relu(c1, c2),
                "conv3": conv_norm_relu(c2, c3),
                "conv4": conv_norm_relu(c3, c4),
                "conv5": nn.Conv2d(c4, 1, 1),
                "adjust1": conv_norm_relu(dim, c2),
                "adjust2": conv_norm_relu(dim, c3),
                "adjust3": nn.Sequential(
                    conv_norm_relu(c2, c3), conv_norm_relu(c3, c4), conv_norm_relu(c4, 1)
                ),
                "adjust4": nn.Sequential(conv_norm_relu(c3, c4), conv_norm_relu(c4, 1)),
            }
            for name, part in parts.items():
                self.add_module(f"{name}_{corner}", part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, dim, n, n) to (b, 2, 4 n, 4 n) logits, top left before bottom right."""
        return torch.cat([self._map(x, "tl"), self._map(x, "br")], dim=1)

    def _map(self, x: torch.Tensor, corner: str) -> torch.Tensor:
        def run(name: str, x: torch.Tensor) -> torch.Tensor:
            return self.get_submodule(f"{name}_{corner}")(x)

        def grow(x: torch.Tensor, factor: int) -> torch.Tensor:
            return F.interpolate(x, scale_factor=factor, mode="nearest")

        half = run("conv2", run("conv1", x))
        third = run("conv3", grow(run("adjust1", x), 2) + grow(half, 2))
        fourth = run("conv4", grow(run("adjust2", x), 4) + grow(third, 2))
        coarse = grow(run("adjust3", half), 4) + grow(run("adjust4", third), 2)
        return run("conv5", fourth) + coarse


# ---------------------------------------------------------------------------------------- network


@dataclass(frozen=True)
class MixViTOutput:
    """What the network says about a batch of b search crops; f = search_size / 4."""

    boxes_cxcywh: torch.Tensor  # (b, 1, 4) shares of the crop; width and height may be negative
    corner_probabilities: torch.Tensor  # (b, 2, f, f) top left, bottom right; each map sums to 1
    corner_logits: torch.Tensor  # (b, 2, f, f) what the softmax is taken of


class MixViT(nn.Module):
    """The network: template crops and a search crop in, box out. It has no idea of confidence.

    Args:
        search_size: side of the search crop in pixels, a multiple of 16.
        template_size: side of the template crops in pixels, a multiple of 16.
        dim: channels of a token.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden channels of a block's MLP in multiples of `dim`.
        drop_path: stochastic depth of the last block in training, rising to it from 0.
    """

    def __init__(
        self,
        *,
        search_size: int = 288,
        template_size: int = 128,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
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
            mlp_ratio=mlp_ratio,
            drop_path=drop_path,
        )
        self.box_head = CornerHead(dim)

    def forward(
        self, template: torch.Tensor, online_template: torch.Tensor, search: torch.Tensor
    ) -> MixViTOutput:
        """Run templates and search crop together, as in training.

        Args:
            template: (b, 3, z, z), z = `template_size`, normalized as by `crops.to_tensor`.
            online_template: (b, 3, z, z).
            search: (b, 3, x, x), x = `search_size`.
        """
        templates = [self.backbone.template_tokens(t) for t in (template, online_template)]
        x = torch.cat([*templates, self.backbone.search_tokens(search)], dim=1)
        n = 2 * templates[0].shape[1]
        for block in self.backbone.blocks:
            x = block(x, n)
        return self._predict(x[:, n:])

    def encode_templates(self, templates: torch.Tensor) -> list[KeysValues]:
        """Encode the template and any number of online templates for `search`.

        Args:
            templates: (b, n, 3, z, z), the template first.

        Returns:
            Keys and values of the n templates' tokens, one pair per block.
        """
        b, n = templates.shape[:2]
        tokens = self.backbone.template_tokens(templates.flatten(0, 1))
        return cache_tokens(self.backbone.blocks, tokens.unflatten(0, (b, n)).flatten(1, 2))

    def search(self, search: torch.Tensor, cache: Sequence[KeysValues]) -> MixViTOutput:
        """Find the target of encoded templates in (b, 3, x, x) search crops: as `forward`."""
        x = self.backbone.search_tokens(search)
        for block, context in zip(self.backbone.blocks, cache, strict=True):
            x, _ = block.cached(x, context, x.shape[1])
        return self._predict(x)

    def _predict(self, tokens: torch.Tensor) -> MixViTOutput:
        grid = self.search_size // PatchEmbed.patch
        logits = self.box_head(tokens.transpose(1, 2).unflatten(2, (grid, grid)))
        probabilities = logits.flatten(2).softmax(dim=-1).view_as(logits)
        # Row or column k stands for the position k / f, without half a bin: 1.0 is out of reach.
        bins = torch.arange(4 * grid, device=logits.device) / (4 * grid)
        # Not as matrix products, which autocast would round to 8 bits.
        x = (probabilities.sum(dim=2) * bins.to(logits)).sum(dim=-1)  # (b, 2) of both corners
        y = (probabilities.sum(dim=3) * bins.to(logits)).sum(dim=-1)
        boxes = xyxy_to_cxcywh(torch.stack([x, y], dim=-1).flatten(1))
        return MixViTOutput(boxes[:, None], probabilities, logits)


# ---------------------------------------------------------------------------------------- tracker


class MixViTTracker(CropTracker):
    """Follows one object. See `trackers.base.Tracker` for what every tracker does.

    Upstream's online tracker renews its second template by a score, from a branch with operators
    of its own (PrRoI pooling) that is not here. Without it this is upstream's offline tracker: both
    templates show the first frame, scores are nan, and an object is never called lost. A correction
    becomes the second template.

    Args:
        network: in eval mode.
        weights: which weights it holds.
        mode: makes no difference, because there is nothing to judge a loss by.
        search_factor: side of the search window in multiples of the object's mean side. 4.5 is
            upstream's test setting; published for LaSOT are 5.05 (base) and 4.55 (large_384).
    """

    network: MixViT

    def __init__(
        self,
        network: MixViT,
        *,
        weights: WeightsRecord,
        mode: Mode = "robust",
        search_factor: float = 4.5,
    ) -> None:
        super().__init__(network, weights=weights, mode=mode, search_factor=search_factor)

    def _begin(self, frame: np.ndarray) -> None:
        self._first = self._template_crop(frame)
        self._encode(self._first)

    def _look(self, crops: torch.Tensor, cache: Cache) -> torch.Tensor:
        boxes = self.network.search(crops, cache).boxes_cxcywh[:, 0]
        return torch.cat([boxes, torch.full_like(boxes[:, :1], math.nan)], dim=1)

    def _renew(self, frame: np.ndarray) -> None:
        self._encode(self._template_crop(frame))  # the first template stays

    @torch.inference_mode()
    def _encode(self, online: np.ndarray) -> None:
        crops = to_tensor([self._first, online], self.device)
        with self._searcher.kernels:
            self._cache = self.network.encode_templates(crops[None])


# ---------------------------------------------------------------------------- presets and weights


def from_official(state: StateDict) -> StateDict:
    """Mend the two ways in which official files differ from the network.

    They carry the score branch of the online tracker, which is left out, and their BatchNorms were
    frozen ones that did not count batches: a counter of 0 changes nothing.
    """
    kept = {key: value for key, value in state.items() if not key.startswith("score_branch.")}
    counters = [
        f"{key.removesuffix('running_var')}num_batches_tracked"
        for key in kept
        if key.endswith(".running_var")
    ]
    return dict.fromkeys(counters, torch.tensor(0)) | kept


def sizes(state: StateDict) -> dict[str, Any]:
    """Arguments of `MixViT` that weights tell, so that runs of any recipe can be followed."""
    tables = transformer_sizes(state, "pos_embed_s", "pos_embed_t")
    return {**tables, "mlp_ratio": mlp_ratio(state)}


@register(
    "mixvit_base",
    tracker=MixViTTracker,
    checkpoints=("mixvit_base",),
    from_official=from_official,
    sizes=sizes,
)
def mixvit_base(**overrides: Any) -> MixViT:
    """ViT-B, 288 pixel search crops."""
    return MixViT(**overrides)


@register("mixvit_large", tracker=MixViTTracker, from_official=from_official, sizes=sizes)
def mixvit_large(**overrides: Any) -> MixViT:
    """ViT-L, 288 pixel search crops: the large teacher as configured with MixFormerV2."""
    return MixViT(**{"dim": 1024, "depth": 24, "heads": 16} | overrides)


@register(
    "mixvit_large_384",
    tracker=MixViTTracker,
    checkpoints=("mixvit_large_384",),
    from_official=from_official,
    sizes=sizes,
)
def mixvit_large_384(**overrides: Any) -> MixViT:
    """ViT-L, 384 pixel search crops: as published."""
    large = {"search_size": 384, "template_size": 192, "dim": 1024, "depth": 24, "heads": 16}
    return MixViT(**large | overrides)
