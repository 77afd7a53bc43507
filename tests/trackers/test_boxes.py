"""Formats go there and back; overlaps and clipping by arithmetic in the comments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trackers import boxes

XYXY = np.array([[10.0, 20.0, 50.0, 100.0], [-5.5, 0.0, 5.5, 3.0]])


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_formats_go_there_and_back(make) -> None:
    xyxy = make(XYXY.tolist())
    assert boxes.xyxy_to_xywh(xyxy).tolist() == [[10, 20, 40, 80], [-5.5, 0, 11, 3]]
    assert boxes.xyxy_to_cxcywh(xyxy).tolist() == [[30, 60, 40, 80], [0, 1.5, 11, 3]]
    assert boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(xyxy)).tolist() == XYXY.tolist()
    assert boxes.cxcywh_to_xyxy(boxes.xyxy_to_cxcywh(xyxy)).tolist() == XYXY.tolist()
    xywh = boxes.xyxy_to_xywh(xyxy)
    assert boxes.cxcywh_to_xywh(boxes.xywh_to_cxcywh(xywh)).tolist() == xywh.tolist()


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 15, 10], 50 / 150),
        ([0, 0, 10, 10], [2, 2, 4, 7], 10 / 100),  # inside
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # touching
        ([0, 0, 10, 10], [20, 20, 30, 30], 0.0),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0.0),  # no area at all
        ([10, 0, 0, 10], [0, 0, 10, 10], 0.0),  # inside out
    ],
)
def test_iou(make, first: list[float], second: list[float], iou: float) -> None:
    found = boxes.box_iou(make([first], dtype=float), make([second], dtype=float))
    assert found.tolist() == pytest.approx([iou])


def test_clip_is_upstreams(golden, check) -> None:
    case = golden("boxmap")
    clipped = [boxes.clip_xywh(box, (240, 320)) for box in case["clip_in"]]
    check("boxmap clip", clipped, case["clip_out_240x320_margin10"], 0.0)
    clipped = [boxes.clip_xywh(box, (240, 320)) for box in case["mapped_xywh"]]
    check("boxmap clip", clipped, case["clipped_xywh_240x320_margin10"], 0.0)
