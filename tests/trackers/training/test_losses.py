"""Losses and their gradients are the official ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trackers.boxes import box_iou, cxcywh_to_xyxy
from trackers.training import losses

EDGES = "lrtb"


def tensor(values: np.ndarray, **options) -> torch.Tensor:
    return torch.from_numpy(values).requires_grad_(options.get("grad", False))


def boxes(case: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    leaf = tensor(case["pred_boxes_cxcywh"], grad=True)
    return leaf, cxcywh_to_xyxy(leaf[:, 0]), losses.target_corners(tensor(case["gt_boxes_xywh"]))


def logits(case: dict) -> torch.Tensor:
    return torch.stack([tensor(case[f"student_logit_{e}"]) for e in EDGES], 1).requires_grad_()


def test_stage1_and_its_gradients(golden, check) -> None:
    case = golden("loss_stage1")
    leaf, predicted, wanted = boxes(case)
    maps = torch.stack([tensor(case[f"teacher_prob_{c}"]) for c in ("tl", "br")], 1)
    marginals = losses.corner_marginals(maps.unflatten(2, (72, 72)))
    for i, edge in enumerate(EDGES):
        check("loss_stage1 marginals", marginals[:, i], case[f"marg_{edge}"], 2e-6)
    student = logits(case)
    ciou = losses.ciou_losses(predicted, wanted).mean()
    l1 = losses.l1_losses(predicted, wanted).mean()
    kl = losses.edge_kls(student, marginals).mean()
    check("loss_stage1 ciou", ciou.detach(), case["out_ciou"], 2e-6)
    check("loss_stage1 l1", l1.detach(), case["out_l1"], 2e-6)
    check("loss_stage1 kl", kl.detach(), case["out_kl"], 2e-6)
    iou = box_iou(predicted.detach(), wanted).mean()
    check("loss_stage1 iou", iou, case["out_mean_iou"], 2e-6)
    taught = cxcywh_to_xyxy(tensor(case["teacher_boxes_cxcywh"])[:, 0])
    check("loss_stage1 iou", box_iou(taught, wanted).mean(), case["out_mean_iou_teacher"], 2e-6)
    assert case["weights_ciou_l1_kl"].tolist() == [2, 5, 5]
    total = 2 * ciou + 5 * l1 + 5 * kl
    check("loss_stage1 total", total.detach(), case["out_total"], 2e-6)
    total.backward()
    check("loss_stage1 gradient of boxes", leaf.grad, case["grad_pred_boxes"], 1e-5)
    for i, edge in enumerate(EDGES):
        found = student.grad[:, i]
        check("loss_stage1 gradient of logits", found, case[f"grad_logit_{edge}"], 1e-6)


def test_stage2(golden, check) -> None:
    case = golden("loss_stage2")
    _, predicted, wanted = boxes(case)
    teacher = torch.stack([tensor(case[f"teacher_prob_{e}"]) for e in EDGES], 1)
    kl = losses.edge_kls(logits(case), teacher).mean()
    check("loss_stage2 kl", kl.detach(), case["out_kl"], 2e-6)
    features = [list(tensor(case[f"{who}_feats"])) for who in ("student", "teacher")]
    removal = losses.feature_mses(*features, [(2, 2), (5, 5), (8, 8), (11, 11)]).mean()
    finetune = losses.feature_mses(*features, [(1, 2), (3, 5), (5, 8), (7, 11)]).mean()
    check("loss_stage2 features, removal", removal, case["out_feat_mse_remove"], 2e-6)
    check("loss_stage2 features, finetuning", finetune, case["out_feat_mse_finetune"], 2e-6)
    ciou = losses.ciou_losses(predicted, wanted).mean()
    l1 = losses.l1_losses(predicted, wanted).mean()
    check("loss_stage2 ciou", ciou.detach(), case["out_ciou"], 2e-6)
    check("loss_stage2 l1", l1.detach(), case["out_l1"], 2e-6)
    total = (2 * ciou + 5 * l1 + 5 * kl + 0.2 * removal).detach()
    check("loss_stage2 total", total, case["out_total"], 5e-6)


def test_score_and_ciou_case_by_case(golden, check) -> None:
    case = golden("loss_score_ciou")
    found = losses.score_bces(tensor(case["score_logits"]), tensor(case["score_labels"])).mean()
    check("loss_score", found, case["out_score_loss"], 2e-6)
    check("loss_score", found, case["out_score_total"], 2e-6)  # boxes count for nothing here
    pairs = tensor(case["ciou_boxes1_xyxy"]), tensor(case["ciou_boxes2_xyxy"])
    overlaps = box_iou(*pairs)
    check("ciou iou of equal boxes", overlaps[0], case["ciou_iou_each"][0], 2e-5)
    check("ciou iou each", overlaps[1:], case["ciou_iou_each"][1:], 2e-6)
    each = losses.ciou_losses(*pairs)
    # The first pair are equal boxes: 0 for us, 1.8e-5 where upstream's box was rounded once more.
    check("ciou of equal boxes", each[0], case["ciou_loss_each"][0], 2e-5)
    check("ciou each", each[1:], case["ciou_loss_each"][1:], 2e-6)
    check("ciou mean", each.mean(), case["ciou_loss_mean"], 2e-6)


def test_grm(golden, check) -> None:
    case = golden("losses", "grm")
    gt = tensor(case["gt_xywh"])
    heatmap = losses.center_heatmaps(gt, 16)
    check("grm heat map", heatmap, case["heatmap"], 2e-6)
    focal = losses.focal_losses(tensor(case["score"]), heatmap).mean()
    predicted, wanted = cxcywh_to_xyxy(tensor(case["pred_cxcywh"])), losses.target_corners(gt)
    giou = losses.giou_losses(predicted, wanted).mean()
    l1 = losses.l1_losses(predicted, wanted).mean()
    check("grm focal", focal, case["focal"], 1e-4)
    check("grm giou", giou, case["giou"], 2e-6)
    check("grm iou", box_iou(predicted, wanted), case["iou"], 2e-6)
    check("grm l1", l1, case["l1"], 2e-6)
    check("grm total", 2 * giou + 5 * l1 + focal, case["total"], 1e-4)


def test_a_map_without_a_centre_has_a_focal_loss_too() -> None:
    scores = torch.full((1, 1, 4, 4), 0.5)
    found = losses.focal_losses(scores, torch.zeros_like(scores))
    assert found == pytest.approx(16 * 0.25 * np.log(2), rel=1e-6)


def test_distributions_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        losses.edge_kls(torch.zeros(2, 4, 96), torch.ones(2, 4, 72) / 72)


@pytest.mark.parametrize("losses_of", [losses.ciou_losses, losses.giou_losses])
def test_a_box_of_any_shape_has_a_gradient(losses_of) -> None:
    """Flat, a point, turned inside out, equal to the truth: a network may predict all of them."""
    predicted = torch.tensor(
        [
            [0.2, 0.3, 0.6, 0.3],
            [0.2, 0.3, 0.2, 0.7],
            [0.5, 0.5, 0.5, 0.5],
            [0.6, 0.7, 0.2, 0.3],
            [0.25, 0.25, 0.75, 0.75],
        ],
        requires_grad=True,
    )
    found = losses_of(predicted, torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(5, 4))
    assert ((found >= 0) & (found <= 2)).all() and found[4] == 0
    found.sum().backward()
    assert predicted.grad.isfinite().all()
