"""Crops are upstream's to the last grey value, and the way back undoes the way in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.trackers.every_tracker import padding_mask
from trackers.crops import SquareCrop, to_tensor

# The exact doubles behind the golden file's float32 copy: x, y, w, h.
BOXES = [
    (120, 90, 60, 40),
    (-10, -8, 50, 36),
    (290, 210, 50, 50),
    (300.3, 100.7, 17.5, 60.25),
    (5.5, 200.5, 33.3, 21.7),
    (159.6, 119.4, 3.2, 2.9),
]
SETTINGS = {"z128": (2.0, 128), "x224": (4.5, 224), "x288": (5.0, 288)}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.RandomState(1).randint(0, 256, (240, 320, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("i", range(len(BOXES)))
def test_crop_is_upstreams(golden, check, image: np.ndarray, name: str, i: int) -> None:
    case = golden("crops")
    factor, size = SETTINGS[name]
    crop = SquareCrop.around(BOXES[i], factor, size)
    assert crop.side == case[f"{name}_crop_side"][i]
    assert crop.scale == case[f"{name}_resize_factor"][i]

    raw = crop.cut(image).astype(np.int64)
    flat = raw.ravel()
    checksum = ((flat * np.arange(flat.size)) % 9973).sum() % 1_000_003
    check("crops raw", [*raw.shape[:2], flat.sum(), checksum], case[f"{name}_raw_checksum_{i}"], 0)

    out = crop.extract(image)
    assert out.shape == (size, size, 3) and out.dtype == np.uint8
    check("crops resized", out[::8, ::8], case[f"{name}_sub8"][i], 0)
    check("crops resized (mean, std)", [out.mean(), out.std()], case[f"{name}_meanstd"][i], 1e-5)
    if name == "z128":
        check("crops resized", out, case[f"z128_full_{i}"], 0)
    mask = padding_mask(crop, image)[::4, ::4]
    assert (np.packbits(mask.ravel()) == case[f"{name}_attmask_sub4_packbits"][i]).all()
    assert (np.float32(BOXES[i]) == case["boxes"][i]).all()


def test_normalization_is_upstreams(golden, check, image: np.ndarray) -> None:
    tensor = to_tensor([SquareCrop.around(BOXES[0], 2.0, 128).extract(image)])
    assert tensor.shape == (1, 3, 128, 128) and tensor.dtype == torch.float32
    check("crops normalized", tensor[:, :, ::16, ::16], golden("crops")["preproc_z128_0_sub16"], 0)


def test_boxes_map_to_the_frame_as_upstream(golden, check) -> None:
    case = golden("boxmap")
    factor, size = float(case["search_factor"]), int(case["search_size"])
    crops = [SquareCrop.around(previous, factor, size) for previous in case["prev_boxes"]]
    check("boxmap resize factor", [c.scale for c in crops], case["resize_factor"], 1e-6)
    found = [
        crop.to_frame(predicted) for crop, predicted in zip(crops, case["pred_cxcywh"], strict=True)
    ]
    check("boxmap to frame", found, case["mapped_xywh"], 1e-4)


def test_boxes_map_into_the_crop_as_upstream(golden, check) -> None:
    case = golden("boxmap")
    size = int(case["train_crop_size"])
    found = []
    for around, truth, scale in zip(
        case["train_box_extract"].astype(float),
        case["train_box_gt"].astype(float),
        case["train_resize_factor"],
        strict=True,
    ):
        center = (around[0] + 0.5 * around[2], around[1] + 0.5 * around[3])
        found.append(SquareCrop(center, 0, 0, size / scale, size).to_crop(truth))
    check("boxmap to crop", found, case["train_box_in_crop_xywh"], 1e-6)


def test_to_the_crop_and_back_moves_by_half_a_crop_pixel() -> None:
    crop = SquareCrop.around((101.3, 55.9, 37.0, 61.0), 4.5, 224)
    box = (95.25, 60.5, 40.0, 52.0)
    x, y, w, h = crop.to_crop(box)
    back = crop.to_frame(np.array([x + w / 2, y + h / 2, w, h]))
    half = 0.5 / crop.scale
    assert back == pytest.approx((box[0] - half, box[1] - half, box[2], box[3]), abs=1e-9)


@pytest.mark.parametrize("x", [-60.0, -3.0, 100.0, 310.0, 400.0])
@pytest.mark.parametrize("y", [-60.0, 90.0, 238.5, 400.0])
def test_windows_beyond_the_frame_are_black_there(x: float, y: float) -> None:
    frame = np.full((240, 320, 3), 200, np.uint8)
    crop = SquareCrop.around((x, y, 20, 12), 2.0, 32)
    window = crop.cut(frame)
    rows = crop.top + np.arange(crop.side)
    columns = crop.left + np.arange(crop.side)
    # A window that reaches the last row or column sees it black: upstream's extra pixel of padding.
    last_row = 240 if rows[-1] < 239 else 239
    last_column = 320 if columns[-1] < 319 else 319
    inside = ((rows >= 0) & (rows < last_row))[:, None] & (columns >= 0) & (columns < last_column)
    assert (window[..., 0] == np.where(inside, 200, 0)).all()
    assert crop.extract(frame).shape == (32, 32, 3)


def test_inner_window_is_a_view_and_the_frame_stays_as_it_is(image: np.ndarray) -> None:
    before = image.copy()
    crop = SquareCrop.around((120, 90, 60, 40), 2.0, 128)
    assert np.shares_memory(crop.cut(image), image)
    crop.extract(image)
    assert (image == before).all()


def test_corner_is_rounded_half_to_even() -> None:
    # side = ceil(2 * 10) = 20, corner at 20.5 - 10 = 10.5 and 21.5 - 10 = 11.5
    assert SquareCrop.around((15.5, 16.5, 10, 10), 2.0, 32).left == 10
    assert SquareCrop.around((15.5, 16.5, 10, 10), 2.0, 32).top == 12
    assert SquareCrop.around((0, 0, 3, 3), 1.01, 32).side == math.ceil(3.03)
