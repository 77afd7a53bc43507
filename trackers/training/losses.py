"""What a prediction is worth: boxes, distributions over edges, features, scores and heat maps.

To be read downwards: boxes, distributions, features, scores, heat maps.
Sources: MCG-NJU/MixFormerV2 @ 10414383 (paper, section 3) and Little-Podi/GRM @ 466ceb7, whose
numbers these functions meet. All are computed in float32, also under autocast, and give one number
per sample, of which the papers take the mean: so a sample may count less, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from trackers.boxes import xywh_to_xyxy

# ------------------------------------------------------------------------------------------- boxes


def target_corners(boxes_xywh: torch.Tensor) -> torch.Tensor:
    """(b, 4) shares of the crop to x0 y0 x1 y1, cut off at the crop's border as upstream."""
    return xywh_to_xyxy(boxes_xywh.float()).clamp(0.0, 1.0)


def l1_losses(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of (b, 4) x0 y0 x1 y1: (b,)."""
    return (predicted.float() - wanted.float()).abs().mean(dim=-1)


def _areas(
    first: torch.Tensor, second: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Overlap and union of (b, 4) corners, and width and height of what encloses both.

    A predicted box may be turned inside out: its area is then counted as upstream does, with the
    sign its sides give it, so that the gradient leads back.
    """
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = first.unbind(-1), second.unbind(-1)
    overlap = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0) * (
        torch.minimum(ay1, by1) - torch.maximum(ay0, by0)
    ).clamp(min=0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - overlap
    width = torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)
    height = torch.maximum(ay1, by1) - torch.minimum(ay0, by0)
    return overlap, union, width, height


def ciou_losses(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """1 - complete IoU (Zheng et al. 2020): overlap, distance of centres, and aspect ratio.

    Kept from upstream: no epsilons in the overlap; the aspect term counts where the IoU is above
    one half only,
    and no gradient passes its weight; the measure is clamped to [-1, 1].

    Args:
        predicted: (b, 4) x0 y0 x1 y1.
        wanted: (b, 4) x0 y0 x1 y1.

    Returns:
        (b,) in [0, 2].
    """
    predicted, wanted = predicted.float(), wanted.float()
    overlap, union, width, height = _areas(predicted, wanted)
    iou = overlap / union
    centers = (predicted[..., :2] + predicted[..., 2:] - wanted[..., :2] - wanted[..., 2:]) / 2
    distance = centers.square().sum(-1) / (width.square() + height.square())

    def slope(corners: torch.Tensor) -> torch.Tensor:
        width, height = corners[..., 2] - corners[..., 0], corners[..., 3] - corners[..., 1]
        # Ours alone: a flat box, as half precision gives, would have a gradient of nan.
        return torch.atan(width / height.where(height != 0, 1e-12))

    aspect = 4 / math.pi**2 * (slope(wanted) - slope(predicted)).square()
    with torch.no_grad():
        # Ours alone: two equal boxes would make this 0 / 0.
        alpha = (iou > 0.5).float() * aspect / (1 - iou + aspect).clamp(min=1e-12)
    return 1 - (iou - distance - alpha * aspect).clamp(-1.0, 1.0)


def giou_losses(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """1 - generalised IoU (Rezatofighi et al. 2019) of (b, 4) x0 y0 x1 y1: (b,) in [0, 2].

    A box turned inside out counts as empty; upstream leaves the whole batch out then.
    """
    predicted, wanted = predicted.float(), wanted.float()
    both = torch.stack([predicted, wanted])
    overlap = (
        (
            torch.minimum(predicted[:, 2:], wanted[:, 2:])
            - torch.maximum(predicted[:, :2], wanted[:, :2])
        )
        .clamp(min=0)
        .prod(dim=-1)
    )
    areas = (both[..., 2:] - both[..., :2]).clamp(min=0).prod(dim=-1)
    union = areas.sum(dim=0) - overlap
    corners = both.unflatten(-1, (2, 2))  # which box, batch, which corner, x or y
    enclosing = (corners.amax(dim=(0, 2)) - corners.amin(dim=(0, 2))).prod(dim=-1)
    return 1 - (overlap / union - (enclosing - union) / enclosing)


# ----------------------------------------------------------------------------------- distributions


def corner_marginals(probabilities: torch.Tensor) -> torch.Tensor:
    """What a teacher's corner maps say about each edge.

    Args:
        probabilities: (b, 2, f, f) top left, bottom right; rows are y.

    Returns:
        (b, 4, f) in the order of MixFormerV2's tokens: left, right, top, bottom.
    """
    columns, rows = probabilities.sum(dim=2), probabilities.sum(dim=3)  # (b, 2, f) over x, over y
    return torch.stack([columns[:, 0], columns[:, 1], rows[:, 0], rows[:, 1]], dim=1)


def edge_kls(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of the distributions over bins, mean over the edges.

    Args:
        logits: (b, 4, f) the student's.
        teacher: (b, 4, f) probabilities; where they are 0 a bin adds nothing.

    Returns:
        (b,)

    Raises:
        ValueError: the two have different numbers of bins; distributions are never interpolated.
    """
    if logits.shape != teacher.shape:
        raise ValueError(f"student {tuple(logits.shape)} and teacher {tuple(teacher.shape)} differ")
    pointwise = F.kl_div(logits.float().log_softmax(-1), teacher.float(), reduction="none")
    return pointwise.sum(dim=-1).mean(dim=-1)


# ------------------------------------------------------------------------------- features, scores


def feature_mses(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    pairs: Sequence[tuple[int, int]],
) -> torch.Tensor:
    """Mean squared difference of tokens after pairs of blocks.

    Args:
        student: per block (b, n, dim), all tokens, as `MixFormerV2Output.features`.
        teacher: likewise.
        pairs: (block of the student, block of the teacher).

    Returns:
        (b,)
    """
    parts = [(student[s].float() - teacher[t].float()).square().mean((1, 2)) for s, t in pairs]
    return torch.stack(parts).mean(dim=0)


def score_bces(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of (b,) logits with labels in {0, 1}: does the crop show the target?"""
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")


# --------------------------------------------------------------------------------------- heat maps


def gaussian_radii(heights: torch.Tensor, widths: torch.Tensor, overlap: float) -> torch.Tensor:
    """How far corners may be off, in whole cells, for boxes that still overlap by `overlap`.

    Kept from CornerNet by way of CenterNet and GRM: all three cases divide by 2 in place of 2 a.
    """
    total, area = heights + widths, heights * widths
    cases = (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    )
    roots = [(b + (b.square() - 4 * a * c).sqrt()) / 2 for a, b, c in cases]
    return torch.stack(roots).amin(dim=0).clamp(min=0).floor()


def center_heatmaps(boxes_xywh: torch.Tensor, side: int) -> torch.Tensor:
    """A Gaussian around the cell of each box's centre, 1.0 in that cell.

    Args:
        boxes_xywh: (b, 4) shares of the crop.
        side: cells per side of the crop.

    Returns:
        (b, 1, side, side) float32 in [0, 1].
    """
    x, y, w, h = boxes_xywh.float()[:, :, None, None].unbind(1)  # (b, 1, 1) each
    radius = gaussian_radii((h * side).ceil(), (w * side).ceil(), overlap=0.7)
    line = torch.arange(side, device=boxes_xywh.device)
    across = (line[None, None, :] - ((x + w / 2) * side).round()).abs()
    down = (line[None, :, None] - ((y + h / 2) * side).round()).abs()
    bump = torch.exp(-(across.square() + down.square()) / (2 * ((2 * radius + 1) / 6).square()))
    near = (across <= radius) & (down <= radius) & (bump >= torch.finfo(torch.float32).eps)
    return (bump * near)[:, None]


def focal_losses(scores: torch.Tensor, heatmaps: torch.Tensor) -> torch.Tensor:
    """CenterNet's focal loss, alpha 2 and beta 4, per cell that holds a centre.

    Args:
        scores: (b, 1, f, f) in (0, 1).
        heatmaps: (b, 1, f, f) see `center_heatmaps`; cells of exactly 1 hold a centre.

    Returns:
        (b,)
    """
    scores = scores.float()
    positive = heatmaps.eq(1).float()
    hit = scores.clamp(min=1e-12).log() * (1 - scores).square() * positive
    miss = (1 - scores).clamp(min=1e-12).log() * scores.square() * (1 - heatmaps) ** 4
    miss = miss * (1 - positive)
    return -(hit + miss).sum(dim=(1, 2, 3)) / positive.sum(dim=(1, 2, 3)).clamp(min=1)
