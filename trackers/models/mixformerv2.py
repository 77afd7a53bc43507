"""MixFormerV2: a transformer without convolutions that reads a box from four tokens.

To be read downwards: backbone, heads, network, tracker, presets. The blocks are in layers.py,
because MixViT (mixvit.py) has the same.
Paper: Cui et al., "MixFormerV2: Efficient Fully Transformer Tracking", NeurIPS 2023
(arXiv 2305.15896). Upstream: MCG-NJU/MixFormerV2 @ 10414383, whose checkpoints load unchanged.

    crops             tokens                                  four of them, after the last block
    template  -> [ template | online template | search | l r t b ] -> box head   -> edges of the box
    online    /    see each other            see everything        -> score head -> target or not

Templates never look at the search frame. What they contribute to a search frame is therefore the
same until a template changes, and a tracker encodes them once: `encode_templates`, then `search`
for each frame, with two fifths less work than the full forward, which training needs and which
upstream's tracker runs as well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from checkpoints import WeightsRecord
from trackers.base import Mode, StateDict, Track, register
from trackers.boxes import box_iou, clip_xywh, xywh_to_xyxy, xyxy_to_cxcywh
from trackers.crop_tracker import CropTracker
from trackers.crops import SquareCrop, to_tensor
from trackers.models.layers import (
    KeysValues,
    MixedBlock,
    PatchEmbed,
    cache_tokens,
    fixed_positions,
    mlp_ratio,
    transformer_sizes,
)
from trackers.recovery import Box, Recovery, Verdict
from trackers.search import Cache, Sight
from trackers.templates import OnlineTemplates

_log = logging.getLogger(__name__)

# ------------------------------------------------------------------------------------------ parts


class Backbone(nn.Module):
    """Patches and positions of all crops, the four prediction tokens, and the blocks.

    There is no normalization after the last block: the heads read raw tokens.
    """

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
        # The tables are constants, yet upstream keeps them in its checkpoints, as parameters.
        self.pos_embed_s = fixed_positions(search_size, dim)
        self.pos_embed_t = fixed_positions(template_size, dim)
        self.reg_tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 4, dim), std=0.02))
        self.pos_embed_reg = nn.Parameter(torch.zeros(1, 4, dim))
        self.patch_embed = PatchEmbed(dim)
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        blocks = nn.ModuleList(MixedBlock(dim, heads, int(dim * mlp_ratio), rate) for rate in rates)
        self.blocks = cast("Sequence[MixedBlock]", blocks)

    def template_tokens(self, template: torch.Tensor) -> torch.Tensor:
        """(b, 3, z, z) to (b, z * z / 256, dim)."""
        return self.patch_embed(template) + self.pos_embed_t

    def search_tokens(self, search: torch.Tensor) -> torch.Tensor:
        """(b, 3, x, x) to (b, x * x / 256 + 4, dim), the prediction tokens l, r, t, b last."""
        prediction = (self.reg_tokens + self.pos_embed_reg).expand(search.shape[0], -1, -1)
        return torch.cat([self.patch_embed(search) + self.pos_embed_s, prediction], dim=1)


class BoxHead(nn.Module):
    """One MLP for the four tokens: where along the crop does the left, right, top, bottom lie.

    The logits pass a LayerNorm over the bins before the softmax (eps 1e-5, also of the hidden one).
    """

    def __init__(self, dim: int, feat_sz: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU()),
            nn.Sequential(nn.Linear(dim, feat_sz), nn.LayerNorm(feat_sz)),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(b, 4, dim) to (b, 4, feat_sz) logits."""
        return self.layers(tokens)


class ScoreHead(nn.Module):
    """Is that the target? One logit per token, and their mean."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU()), nn.Linear(dim, 1)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(b, 4, dim) to (b,) logits."""
        return self.layers(tokens).mean(dim=(1, 2))


# ---------------------------------------------------------------------------------------- network


@dataclass(frozen=True)
class MixFormerV2Output:
    """What the network says about a batch of b search crops."""

    boxes_cxcywh: torch.Tensor  # (b, 1, 4) shares of the crop; width and height may be negative
    scores: torch.Tensor | None  # (b,) logits, None for a network without score head
    probabilities: torch.Tensor  # (b, 4, feat_sz) over the bins, for left, right, top, bottom
    edge_logits: torch.Tensor  # (b, 4, feat_sz) what the softmax is taken of
    # Tokens after each block, [template | online | search | l r t b]. On the cached path without
    # the templates, and after the last block the four prediction tokens only.
    features: list[torch.Tensor]


class MixFormerV2(nn.Module):
    """The network: template crops and a search crop in, box and score out.

    Args:
        search_size: side of the search crop in pixels, a multiple of 16.
        template_size: side of the template crops in pixels, a multiple of 16.
        dim: channels of a token.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden channels of a block's MLP in multiples of `dim`.
        feat_sz: bins an edge's position is spread over.
        score_head: whether the network also says if the crop shows the target.
        drop_path: stochastic depth of the last block in training, rising to it from 0.
        removed_blocks: blocks that distillation is about to remove (paper, section 3.3): they are
            frozen, and `set_removal_coefficient` fades them out.
        kept_hidden: hidden channels that distillation is about to leave of each other block's MLP,
            the first ones; the rest is frozen and faded out likewise. None: all stay.
    """

    def __init__(
        self,
        *,
        search_size: int = 288,
        template_size: int = 128,
        dim: int = 768,
        depth: int = 8,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        feat_sz: int = 96,
        score_head: bool = True,
        drop_path: float = 0.1,
        removed_blocks: Sequence[int] = (),
        kept_hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.search_size = search_size
        self.template_size = template_size
        self.feat_sz = feat_sz
        self.backbone = Backbone(
            search_size=search_size,
            template_size=template_size,
            dim=dim,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            drop_path=drop_path,
        )
        self.box_head = BoxHead(dim, feat_sz)
        self.score_head = ScoreHead(dim) if score_head else None
        self.kept_hidden = kept_hidden
        self.removed_blocks = tuple(removed_blocks)
        for index in self.removed_blocks:
            self.backbone.blocks[index].requires_grad_(False)

    def set_removal_coefficient(self, coefficient: float) -> None:
        """Weigh what is to be removed: 1 as ever, 0 as if it were gone.

        That is the residual branches of `removed_blocks`, and what the hidden channels behind
        `kept_hidden` add in the other blocks.
        """
        shared = self.backbone.reg_tokens.new_tensor(coefficient)
        for index, block in enumerate(self.backbone.blocks):
            if index in self.removed_blocks:
                block.coefficient = shared
            elif self.kept_hidden is not None:
                block.mlp.fade(self.kept_hidden, shared)

    def forward(
        self, template: torch.Tensor, online_template: torch.Tensor, search: torch.Tensor
    ) -> MixFormerV2Output:
        """Run templates and search crop together, as in training.

        Args:
            template: (b, 3, z, z), z = `template_size`, normalized as by `crops.to_tensor`.
            online_template: (b, 3, z, z).
            search: (b, 3, x, x), x = `search_size`.
        """
        templates = [self.backbone.template_tokens(t) for t in (template, online_template)]
        x = torch.cat([*templates, self.backbone.search_tokens(search)], dim=1)
        features = []
        for block in self.backbone.blocks:
            x = block(x, 2 * templates[0].shape[1])
            features.append(x)
        return self._predict(features)

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

    def search(self, search: torch.Tensor, cache: Sequence[KeysValues]) -> MixFormerV2Output:
        """Find the target of encoded templates in (b, 3, x, x) search crops; inference only.

        The same result as `forward`: the last block is worked out for the four prediction tokens
        alone, because nobody reads the others.
        """
        x = self.backbone.search_tokens(search)
        features = []
        for i, (block, context) in enumerate(zip(self.backbone.blocks, cache, strict=True), 1):
            x, _ = block.cached(x, context, 4 if i == len(cache) else x.shape[1])
            features.append(x)
        return self._predict(features)

    def _predict(self, features: list[torch.Tensor]) -> MixFormerV2Output:
        tokens = features[-1][:, -4:]
        logits = self.box_head(tokens)
        probabilities = logits.softmax(dim=-1)
        # Bin k stands for the position k / feat_sz, without half a bin: 1.0 is out of reach.
        bins = torch.arange(self.feat_sz, device=logits.device) / self.feat_sz
        # Not as a matrix product, which autocast would round to 8 bits.
        left, right, top, bottom = (probabilities * bins.to(logits)).sum(dim=-1).unbind(-1)
        boxes = xyxy_to_cxcywh(torch.stack([left, top, right, bottom], dim=-1))
        scores = self.score_head(tokens) if self.score_head is not None else None
        return MixFormerV2Output(boxes[:, None], scores, probabilities, logits, features)


# ---------------------------------------------------------------------------------------- tracker


class MixFormerV2Tracker(CropTracker):
    """Follows one object. See `trackers.base.Tracker` for what every tracker does.

    Args:
        network: in eval mode; without a score head scores are nan and nothing is renewed or lost.
        weights: which weights it holds.
        mode: "benchmark" is the published protocol: scores are the score head's, nothing is lost.
            "robust" is for real videos: the online template is renewed more often, scores are the
            calibrated probability that the box is right (presence.py), and an object can be lost,
            which shows the last trusted box, and be found again anywhere in the frame
            (recovery.py). A new shot begins with a search of the whole frame.
        search_factor: side of the search window in multiples of the object's mean side.
        update_interval: frames between two updates of the online templates; None: 200 in benchmark
            mode, as published for most data sets, and 25 in robust mode, as in upstream's demo.
        online_size: how many online templates are kept.
    """

    network: MixFormerV2
    templates: OnlineTemplates[np.ndarray]
    recovery: Recovery | None  # in robust mode
    _shown: tuple[SquareCrop, np.ndarray, Box]  # where the user showed the object, and its box

    def __init__(
        self,
        network: MixFormerV2,
        *,
        weights: WeightsRecord,
        mode: Mode = "robust",
        search_factor: float = 4.5,
        update_interval: int | None = None,
        online_size: int = 1,
    ) -> None:
        super().__init__(network, weights=weights, mode=mode, search_factor=search_factor)
        if mode == "robust" and network.score_head is None:
            _log.warning(
                "The weights %s have no score head: nothing is ever called lost.", weights.name
            )
        self.update_interval = update_interval or (25 if mode == "robust" else 200)
        self.online_size = online_size

    def _begin(self, frame: np.ndarray) -> None:
        self._first = self._template_crop(frame)
        self.templates = OnlineTemplates(
            self._first, interval=self.update_interval, size=self.online_size
        )
        self._encode()
        self._watch(frame)

    def _look(self, crops: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Box, score, and the 4 x feat_sz probabilities of the edges, left right top bottom."""
        output = self.network.search(crops, cache)
        boxes, edges = output.boxes_cxcywh[:, 0], output.probabilities.flatten(1)
        if output.scores is None:
            scores = torch.full_like(boxes[:, :1], math.nan)
        else:
            scores = output.scores[:, None].sigmoid()
        return torch.cat([boxes, scores, edges], dim=1)

    def _conclude(self, frame: np.ndarray, sights: Sequence[Sight]) -> Track:
        (sight,) = self._clipped(frame, sights)
        if self.recovery is None:
            verdict = Verdict(sight.box_xywh, sight.score, lost=False)
        else:
            verdict = self.recovery.judge(frame, sight, *self._senses(frame))
        self._box_xywh = seen_xywh = verdict.box_xywh
        if self.recovery is not None and verdict.lost:
            # That teaches nothing, and what was learnt is needed to find the object again.
            seen_xywh = self.recovery.trusted_xywh
        elif self.templates.step(sight.score, lambda: self._template_crop(frame)):
            self._encode()
        box = xywh_to_xyxy(np.array(seen_xywh, np.float32))
        return Track(box, verdict.probability, verdict.lost)

    def find(self, frame: np.ndarray) -> Track:
        """See `CropTracker.find`; only robust mode can, with a score head."""
        self._check(frame)
        if self.recovery is None:
            return super().find(frame)
        verdict = self.recovery.find(frame, *self._senses(frame))
        box = xywh_to_xyxy(np.array(verdict.box_xywh, np.float32))
        return Track(box, verdict.probability, verdict.lost)

    def _senses(
        self, frame: np.ndarray
    ) -> tuple[Callable[[Sequence[SquareCrop]], list[Sight]], Callable[[Box], float]]:
        """What `Recovery` asks of a frame: what windows show, and whether a box leads back."""
        return (
            lambda windows: self._clipped(frame, self._search(frame, windows)),
            lambda box_xywh: self._way_back(frame, box_xywh),
        )

    def _clipped(self, frame: np.ndarray, sights: Sequence[Sight]) -> list[Sight]:
        size = self._check(frame)
        return [replace(sight, box_xywh=clip_xywh(sight.box_xywh, size)) for sight in sights]

    @torch.inference_mode()
    def _way_back(self, frame: np.ndarray, box_xywh: Box) -> float:
        """IoU of the box the user gave, and what is found there with `box_xywh` as template."""
        window, shown, given_xywh = self._shown
        template = SquareCrop.around(box_xywh, self.template_factor, self.network.template_size)
        with self._searcher.kernels:
            crops = to_tensor([template.extract(frame)], self.device)
            cache = self.network.encode_templates(crops[None])
            numbers = self._look(to_tensor([shown], self.device), cache)[0].cpu().numpy()
        return float(box_iou(*xywh_to_xyxy(np.array([window.to_frame(numbers[:4]), given_xywh]))))

    def _renew(self, frame: np.ndarray) -> None:
        # The first template stays; the new one is the online template.
        self.templates.correct(self._template_crop(frame))
        self._encode()
        self._watch(frame)

    def _watch(self, frame: np.ndarray) -> None:
        """Begin to judge whether the object is in sight, now that the user has shown it."""
        self.recovery = None
        if self.mode == "robust" and self.network.score_head is not None:
            (window,) = self._windows()
            self._shown = window, window.extract(frame), self._box_xywh
            box_xywh = clip_xywh(self._box_xywh, self._check(frame))
            self.recovery = Recovery(frame, box_xywh, factor=self.search_factor, side=window.size)

    @torch.inference_mode()
    def _encode(self) -> None:
        crops = to_tensor([self._first, *self.templates.online], self.device)
        with self._searcher.kernels:
            self._cache = self.network.encode_templates(crops[None])


# ---------------------------------------------------------------------------- presets and weights


def sizes(state: StateDict) -> dict[str, Any]:
    """Arguments of `MixFormerV2` that weights tell, so that runs of any recipe can be followed."""
    return {
        **transformer_sizes(state, "pos_embed_s", "pos_embed_t"),
        "mlp_ratio": mlp_ratio(state),
        "feat_sz": state["box_head.layers.1.0.weight"].shape[0],
        "score_head": any(key.startswith("score_head.") for key in state),
    }


@register(
    "mixformerv2_small",
    tracker=partial(MixFormerV2Tracker, search_factor=4.5),
    checkpoints=("mixformerv2_small", "mixformerv2_small_seed"),
    sizes=sizes,
)
def mixformerv2_small(**overrides: Any) -> MixFormerV2:
    """As wide as the base model, but four blocks with a narrow MLP, and smaller crops."""
    return MixFormerV2(
        **{"search_size": 224, "template_size": 112, "depth": 4, "mlp_ratio": 1.0} | overrides
    )


@register(
    "mixformerv2_base",
    tracker=partial(MixFormerV2Tracker, search_factor=5.0),
    checkpoints=("mixformerv2_base",),
    sizes=sizes,
)
def mixformerv2_base(**overrides: Any) -> MixFormerV2:
    """Eight blocks, 288 pixel search crops."""
    return MixFormerV2(**overrides)


@register("mixformerv2_student12")
def mixformerv2_student12(**overrides: Any) -> MixFormerV2:
    """What dense-to-sparse distillation trains: all twelve blocks of ViT-B (paper, section 3.2)."""
    return MixFormerV2(**{"depth": 12, "feat_sz": 72, "score_head": False} | overrides)


@register("mixformerv2_student8")
def mixformerv2_student8(**overrides: Any) -> MixFormerV2:
    """What deep-to-shallow distillation leaves of it (paper, section 3.3)."""
    return MixFormerV2(**{"feat_sz": 72, "score_head": False} | overrides)
