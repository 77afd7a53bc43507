"""What one batch costs: the student's answer, compared with the truth and with the teacher's.

The networks differ in what they are given and in what they answer; the loop knows nothing of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from media import InputError
from trackers.boxes import box_iou, cxcywh_to_xyxy
from trackers.models.grm import GRM, GRMOutput
from trackers.models.mixformerv2 import MixFormerV2Output
from trackers.models.mixvit import MixViTOutput
from trackers.training import losses
from trackers.training.config import LossConfig, TeacherConfig
from trackers.training.data import Batch

Features = Sequence[torch.Tensor]


def answer(network: nn.Module, batch: Batch) -> Any:
    """Run a network on a batch, in the way it wants it."""
    if isinstance(network, GRM):
        return network(batch.template, batch.search)
    return network(batch.template, batch.online_template, batch.search)


@dataclass
class Lesson:
    """What a teacher says about a batch."""

    edges: torch.Tensor  # (b, 4, f) probabilities of left, right, top, bottom
    features: Features  # tokens after each block; none from a MixViT


class Teacher:
    """A frozen network, and how to ask it.

    Args:
        network: in eval mode, where batches are.
        config: its `resize`.

    Raises:
        InputError: it says nothing about edges.
    """

    def __init__(self, network: Any, config: TeacherConfig) -> None:
        if isinstance(network, GRM):
            raise InputError(f"{config.name} says nothing about edges: it cannot be a teacher.")
        self.network = network
        self._resize = config.resize

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Lesson:
        """Ask it, in whatever precision is set around."""
        if self._resize:
            batch = self._enlarged(batch)
        found = answer(self.network, batch)
        if isinstance(found, MixViTOutput):
            return Lesson(losses.corner_marginals(found.corner_probabilities.float()), [])
        return Lesson(found.probabilities, found.features)

    def _enlarged(self, batch: Batch) -> Batch:
        def resize(images: torch.Tensor, size: int) -> torch.Tensor:
            # Kept from upstream, where it is commented out: corners aligned.
            return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=True)

        z, x = self.network.template_size, self.network.search_size
        return Batch(
            resize(batch.template, z),
            resize(batch.online_template, z),
            resize(batch.search, x),
            batch.boxes_xywh,
            batch.labels,
        )


class Objective(nn.Module):
    """The student and its losses in one module, which is what DDP and torch.compile wrap.

    Args:
        network: the student.
        config: how much each loss counts.
    """

    def __init__(self, network: nn.Module, config: LossConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def forward(self, batch: Batch, lesson: Lesson | None) -> dict[str, torch.Tensor]:
        """Losses, each the mean over the batch, unweighted, and their weighted sum as `total`.

        Boxes count in samples that show the target; the score and features in all.
        """
        found = answer(self.network, batch)
        parts = self._parts(found, batch, lesson)
        weights = vars(self.config)
        means = {name: values.mean() for name, values in parts.items()}
        total = torch.stack([weights[name] * mean for name, mean in means.items()]).sum()
        with torch.no_grad():
            truth = losses.target_corners(batch.boxes_xywh)
            means["iou"] = (box_iou(corners(found), truth) * batch.labels).mean()
        return means | {"total": total}

    def _parts(self, found: Any, batch: Batch, lesson: Lesson | None) -> dict[str, torch.Tensor]:
        """(b,) of each loss that counts."""
        config, shown = self.config, batch.labels
        predicted, truth = corners(found), losses.target_corners(batch.boxes_xywh)
        # Where no target is shown both boxes are made the same harmless one: no loss, no gradient,
        # and no nan from the box of nowhere that the sample carries.
        harmless = truth.new_tensor([0.25, 0.25, 0.75, 0.75])
        predicted, truth = (
            boxes.where(shown[:, None] > 0, harmless) for boxes in (predicted, truth)
        )
        parts = {}
        box_losses = {
            "l1": losses.l1_losses,
            "ciou": losses.ciou_losses,
            "giou": losses.giou_losses,
        }
        for name, function in box_losses.items():
            if vars(config)[name]:
                parts[name] = function(predicted, truth)
        if config.edges:
            assert lesson is not None
            parts["edges"] = losses.edge_kls(found.edge_logits, lesson.edges) * shown
        if config.features:
            assert lesson is not None
            pairs = config.feature_pairs
            parts["features"] = losses.feature_mses(found.features, lesson.features, pairs)
        if config.score:
            parts["score"] = losses.score_bces(found.scores, batch.labels)
        if config.focal:
            heatmaps = losses.center_heatmaps(batch.boxes_xywh, found.score_map.shape[-1])
            parts["focal"] = losses.focal_losses(found.score_map, heatmaps) * shown
        return parts


def corners(found: MixFormerV2Output | MixViTOutput | GRMOutput) -> torch.Tensor:
    """The predicted boxes: (b, 4) float32 x0 y0 x1 y1 as shares of the crop."""
    boxes = found.box_cxcywh if isinstance(found, GRMOutput) else found.boxes_cxcywh
    return cxcywh_to_xyxy(boxes[:, 0].float())


def check_comparable(student: Any, teacher: Any, config: LossConfig, names: str) -> None:
    """Raise InputError unless the teacher can teach what the losses ask for."""
    if config.edges:
        if not hasattr(student, "feat_sz"):
            raise InputError("The loss edges is for MixFormerV2, which has distributions of edges.")
        bins = getattr(teacher, "feat_sz", teacher.search_size // 4)
        if bins != student.feat_sz:
            raise InputError(
                f"{names}: the student spreads an edge over {student.feat_sz} bins and the teacher "
                f"over {bins}; set network.options.feat_sz to {bins}."
            )
    if config.features:
        if not hasattr(teacher, "feat_sz"):
            raise InputError("The loss features needs a MixFormerV2 as teacher.")
        depths = [len(net.backbone.blocks) for net in (student, teacher)]
        for pair in config.feature_pairs:
            if not all(0 <= block < depth for block, depth in zip(pair, depths, strict=True)):
                raise InputError(f"{names}: there are no blocks {list(pair)} to compare.")
        dims = [net.backbone.reg_tokens.shape[-1] for net in (student, teacher)]
        if dims[0] != dims[1] or student.search_size != teacher.search_size:
            raise InputError(f"{names}: tokens can be compared when widths and crops are equal.")
