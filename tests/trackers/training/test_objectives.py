"""What counts in a batch, and what a teacher is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from media import InputError
from trackers import build_network
from trackers.training.config import LossConfig, TeacherConfig
from trackers.training.data import Batch
from trackers.training.losses import corner_marginals
from trackers.training.networks import build_teacher
from trackers.training.objectives import Objective, Teacher, check_comparable

SMALL = {"search_size": 64, "template_size": 32, "dim": 32, "heads": 2}


def batch_of(labels: list[float]) -> Batch:
    n = len(labels)
    generator = torch.Generator().manual_seed(0)
    crops = [torch.randn(n, 3, side, side, generator=generator) for side in (32, 32, 64)]
    boxes = torch.tensor([0.2, 0.3, 0.4, 0.3]).repeat(n, 1)
    return Batch(crops[0], crops[1], crops[2], boxes, torch.tensor(labels))


def student(**options) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network("mixformerv2_small", **SMALL | {"depth": 2} | options).eval()


def test_a_crop_without_the_target_teaches_the_score_alone() -> None:
    config = LossConfig(l1=5.0, ciou=2.0, giou=1.0, score=1.0)
    objective = Objective(student(), config)
    batch = batch_of([1.0, 0.0, 1.0, 0.0])
    nowhere = torch.tensor([[3.0, 3.0, 0.0, 0.0]])
    elsewhere = replace(batch, boxes_xywh=torch.cat([batch.boxes_xywh[:3], nowhere]))
    first, second = objective(batch, None), objective(elsewhere, None)
    assert {key: value.item() for key, value in first.items()} == {
        key: value.item() for key, value in second.items()
    }
    half = objective(batch_of([1.0, 1.0, 1.0, 1.0]), None)
    assert 0 < first["l1"] < half["l1"]
    second["total"].backward()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


def test_the_total_is_the_weighted_sum() -> None:
    teacher = build_network("mixformerv2_small", **SMALL, depth=2).eval()
    lesson = Teacher(teacher, TeacherConfig("mixformerv2_small", None))(batch_of([1.0, 1.0]))
    weights = {"l1": 5.0, "ciou": 2.0, "edges": 5.0, "features": 0.2, "score": 0.5}
    config = LossConfig(**weights, feature_pairs=((0, 0), (1, 1)))
    found = Objective(student(), config)(batch_of([1.0, 1.0]), lesson)
    assert found["total"].item() == pytest.approx(
        sum(weight * found[name].item() for name, weight in weights.items()), rel=1e-6
    )
    alike = Objective(teacher, config)(batch_of([1.0, 1.0]), lesson)
    assert alike["features"] == 0 and alike["edges"].item() == pytest.approx(0, abs=1e-6)


def test_a_mixvit_teaches_by_the_marginals_of_its_maps() -> None:
    teacher = build_network("mixvit_base", **SMALL, depth=1).eval()
    batch = batch_of([1.0])
    lesson = Teacher(teacher, TeacherConfig("mixvit_base", None))(batch)
    found = teacher(batch.template, batch.online_template, batch.search)
    assert torch.equal(lesson.edges, corner_marginals(found.corner_probabilities))
    assert lesson.edges.shape == (1, 4, 16)


def test_a_larger_teacher_looks_at_enlarged_crops() -> None:
    """So a teacher with 96 pixel crops has 24 bins for a student with 64 pixel crops."""
    options = {"search_size": 96, "template_size": 48, "dim": 32, "heads": 2, "depth": 1}
    config = TeacherConfig("mixvit_base", None, options, resize=True)
    small = student(feat_sz=24)
    teacher = build_teacher(config, small)
    check_comparable(small, teacher, LossConfig(edges=5.0), "x")
    assert Teacher(teacher, config)(batch_of([1.0])).edges.shape == (1, 4, 24)
    assert build_teacher(replace(config, options={}, resize=False), small).search_size == 64


@pytest.mark.parametrize(
    ("options", "losses", "sentence"),
    [
        ({"feat_sz": 24}, LossConfig(edges=1.0), "over 24 bins and the teacher over 96"),
        ({}, LossConfig(features=1.0, feature_pairs=((0, 5),)), r"no blocks \[0, 5\]"),
        ({"dim": 64}, LossConfig(features=1.0, feature_pairs=((0, 0),)), "widths and crops"),
    ],
)
def test_what_cannot_be_compared_is_refused(options, losses: LossConfig, sentence: str) -> None:
    teacher = build_network("mixformerv2_small", **SMALL, depth=2)
    with pytest.raises(InputError, match=sentence):
        check_comparable(student(**options), teacher, losses, "student and teacher")
    with pytest.raises(InputError, match="cannot be a teacher"):
        Teacher(build_network("grm_base", **SMALL, depth=2), TeacherConfig("grm_base", None))
