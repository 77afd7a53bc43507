"""What is done to a sample's pictures: jitter, mirroring and colours, by upstream's formulas."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from trackers.crops import SquareCrop
from trackers.training.data import DataConfig, Deformation, SourceConfig
from trackers.training.data.augment import Plan, jitter, plan, shows_something
from trackers.training.data.sampling import Pick, Shot, Unusable

SOURCE = (SourceConfig("stills", "nowhere"),)
BOX = np.array([200.0, 120.0, 60.0, 40.0])
SIZE = (360, 640)


def shot(box: np.ndarray | None = BOX) -> Shot:
    return Shot(0, 0, 0, box)


def planned(seed: int, *, training: bool = True, pick: Pick | None = None, **options) -> Plan:
    config = DataConfig(sources=SOURCE, **options)
    pick = pick or Pick(shot(), shot(), shot())
    return plan(pick, [SIZE] * 3, config, np.random.default_rng(seed), training=training)


def test_jitter_is_upstreams() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([jitter(BOX, 4.5, 0.5, rng) for _ in range(20000)])
    logs = np.log(boxes[:, 2:] / BOX[2:])
    assert abs(logs.mean(axis=0)).max() < 0.015 and abs(logs.std(axis=0) - 0.5).max() < 0.01
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.03  # width and height by themselves
    centers = boxes[:, :2] + boxes[:, 2:] / 2 - (BOX[:2] + BOX[2:] / 2)
    steps = centers / np.sqrt(boxes[:, 2:].prod(axis=1, keepdims=True)) / 4.5
    assert steps.min() > -0.5 and steps.max() < 0.5
    assert abs(steps.mean(axis=0)).max() < 0.01
    assert abs(steps.std(axis=0) - 1 / math.sqrt(12)).max() < 0.01
    assert jitter(BOX, 0, 0, rng).tolist() == BOX.tolist()


def test_a_plan_is_a_function_of_its_arguments() -> None:
    strong = Deformation(0.2, 20, 0.3, 0.3, 0.5, 2, 0.5)
    first, second = (planned(7, deformation=strong) for _ in range(2))
    assert repr(first) == repr(second) != repr(planned(8, deformation=strong))


def test_shares() -> None:
    plans = [planned(seed, grayscale=0.2) for seed in range(1500)]
    assert abs(np.mean([p.template.mirrored for p in plans]) - 0.5) < 0.04
    for each in plans:  # jointly
        assert each.template.mirrored == each.online.mirrored == each.search.mirrored
    grey = [view_is_grey(p.search) for p in plans]
    assert grey == [view_is_grey(p.template) for p in plans]
    assert abs(np.mean(grey) - 0.2) < 0.03
    flips = np.array([[p.template.flipped, p.online.flipped, p.search.flipped] for p in plans])
    assert abs(flips.mean(axis=0) - 0.5).max() < 0.04  # each by itself
    assert abs(np.corrcoef(flips.T) - np.eye(3)).max() < 0.08
    bright = np.array([p.search.color[0].sum() / 3 for p in plans if p.search.color])
    assert 0.8 <= bright.min() < 0.81 and 1.19 < bright.max() <= 1.2
    assert all(p.template.crop.center == (230, 140) for p in plans if not p.template.mirrored)


def view_is_grey(view) -> bool:
    return bool(np.ptp(view.color[0], axis=0).max() == 0)


def test_validation_leaves_out_what_upstream_does() -> None:
    strong = Deformation(0.2, 20, 0.3, 0.3, 1, 2, 1)
    plans = [planned(s, training=False, deformation=strong, grayscale=0.3) for s in range(200)]
    for view in (view for p in plans for view in (p.template, p.online, p.search)):
        assert not view.flipped and view.warp is None and not any(view.blur + view.erased)
        assert view.color is None or view_is_grey(view)
    assert len({p.search.crop.side for p in plans}) > 20  # jitter stays
    assert 0.1 < np.mean([p.search.color is not None for p in plans]) < 0.5
    assert 0.4 < np.mean([p.search.mirrored for p in plans]) < 0.6


def test_boxes_follow_both_mirrorings() -> None:
    still = {"search_center_jitter": 0.0, "search_scale_jitter": 0.0, "flip": 1.0}
    upright = planned(0, **{**still, "flip": 0.0, "crop_flip": 0.0})
    expected = SquareCrop.around(BOX.tolist(), 4.5, 224).to_crop(BOX.tolist())
    assert upright.box_xywh == pytest.approx(expected)
    both = planned(0, **still, crop_flip=1.0)
    # Mirroring the picture sends x to W - 1 - x, corners alike: one pixel less than by area.
    mirrored = (SIZE[1] - 1 - 260, 120, 60, 40)
    crop = SquareCrop.around(mirrored, 4.5, 224)
    assert both.search.crop == crop and both.search.mirrored and both.search.flipped
    x, y, w, h = crop.to_crop(mirrored)
    assert both.box_xywh == pytest.approx((1 - x - w, y, w, h))


def test_the_stand_in_for_an_absent_object() -> None:
    config = DataConfig(sources=SOURCE, flip=0, search_center_jitter=0, search_scale_jitter=0)
    pick = Pick(shot(), shot(), shot(None), 0.0)
    found = plan(pick, [SIZE, SIZE, (361, 643)], config, np.random.default_rng(0))
    # int(643 / 2 - 643 / 16) = 281, int(361 / 2 - 361 / 16) = 157, int(643 / 8), int(361 / 8)
    assert found.search.crop == SquareCrop.around((281, 157, 80, 45), 4.5, 224)
    assert found.label == 0


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (np.nan,) * 4, (5, 5, -3, 4)])
def test_absent_objects_are_drawn_anew(box: tuple[float, ...]) -> None:
    for place in range(3):
        shots = [shot(), shot(), shot()]
        shots[place] = shot(np.array(box, float))
        with pytest.raises(Unusable):
            planned(0, pick=Pick(*shots))


def test_crops_of_padding_are_drawn_anew() -> None:
    """As upstream's code does it, with a mask that is resized and looked at every 16 pixels."""
    rng = np.random.default_rng(0)
    agreed = empty = 0
    for _ in range(400):
        size = (int(rng.integers(20, 60)), int(rng.integers(20, 60)))
        box = (*(rng.uniform(-60, 100, 2)), *rng.uniform(4, 30, 2))
        crop = SquareCrop.around(box, 4.0, int(rng.choice([64, 112, 224])))
        padding = (crop.cut(np.full((*size, 3), 255, np.uint8))[..., 0] == 0).astype(np.float64)
        resized = cv2.resize(padding, (crop.size, crop.size)).astype(bool)
        expected = not resized[::16, ::16].all()
        agreed += shows_something(crop, size) == expected
        empty += not expected
    assert agreed == 400 and empty > 50


def test_deformations_have_their_ranges() -> None:
    strong = Deformation(0.3, 20, 0.4, 0.4, 0.6, 2.0, 0.7)
    # Without jitter nothing can be turned out of the crop.
    plans = [planned(s, deformation=strong, search_center_jitter=0.0) for s in range(600)]
    views = [view for p in plans for view in (p.template, p.online, p.search)]
    turns, stretches = [], []
    for view in views:
        assert view.warp is not None and np.linalg.det(view.warp) == pytest.approx(1)
        stretches.append(math.log(np.hypot(*view.warp[0]) / np.hypot(*view.warp[1])))
        turns.append(math.degrees(math.atan2(view.warp[1, 0], view.warp[1, 1])))
    assert max(map(abs, turns)) <= 20 and max(turns) > 18 and min(turns) < -18
    assert abs(np.std(stretches) - 0.3) < 0.02
    blurred = [view for view in views if any(view.blur)]
    assert abs(len(blurred) / len(views) - 0.6) < 0.05
    assert max(max(view.blur) for view in blurred) <= 2
    assert not any(any(p.template.erased + p.online.erased) for p in plans)
    erased = [p.search.erased for p in plans if any(p.search.erased)]
    assert abs(len(erased) / 600 - 0.7) < 0.06
    for x0, y0, x1, y1 in erased:
        assert 0 <= x0 < x1 <= 224 and 0 <= y0 < y1 <= 224 and 20 <= x1 - x0 <= 75
    with pytest.raises(ValueError, match="turn is at least 0"):
        Deformation(turn=-1)


def test_objects_stay_in_the_crop() -> None:
    strong = Deformation(stretch=0.4, turn=45)
    middles, outside = [], 0
    for seed in range(600):
        try:
            x, y, w, h = planned(seed, deformation=strong).box_xywh
            middles.append((x + w / 2, y + h / 2))
        except Unusable:
            outside += 1
    assert np.min(middles) >= 0 and np.max(middles) <= 1
    assert 30 < outside < 300  # those that a turn would have moved out of sight
