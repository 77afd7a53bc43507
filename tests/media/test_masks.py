"""Masks come back as they were saved, and other people's are understood."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media import InputError
from media.masks import MaskFolder, decode_rle, encode_rle, load_mask, save_mask


def blob(height: int = 40, width: int = 61) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (x - 30) ** 2 + (2 * y - 40) ** 2 < 400


def test_saved_masks_come_back(tmp_path: Path) -> None:
    for mask in (blob(), np.zeros((1, 1), bool), np.ones((3, 700), bool)):
        save_mask(tmp_path / "mask.png", mask)
        found = load_mask(tmp_path / "mask.png", size=mask.shape)
        assert found.dtype == bool and np.array_equal(found, mask)


def test_saved_masks_are_black_and_white_pictures(tmp_path: Path) -> None:
    save_mask(tmp_path / "mask.png", blob())
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), blob() * np.uint8(255))
    assert [p.name for p in tmp_path.iterdir()] == ["mask.png"]


def test_other_peoples_masks(tmp_path: Path) -> None:
    mask = blob()
    grey = mask * np.uint8(200)
    palette = Image.fromarray(mask * np.uint8(9))
    palette.putpalette([0, 0, 0, *[64, 0, 0] * 255])  # as DAVIS: object 9 is a dark red
    cut_out = np.dstack([np.full((*mask.shape, 3), 7, np.uint8), mask * np.uint8(255)])
    pictures = {
        "grey.png": Image.fromarray(grey),
        "rgb.png": Image.fromarray(np.dstack([grey, 0 * grey, 0 * grey])),
        "opaque.png": Image.fromarray(np.dstack([grey, grey, grey, 0 * grey + 255])),
        "deep.png": Image.fromarray(mask * np.uint16(60000)),
        "ones.png": Image.fromarray(mask.astype(np.uint8)),
        "bits.png": Image.fromarray(mask),
        "palette.png": palette,
        "cut_out.png": Image.fromarray(cut_out),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        assert np.array_equal(load_mask(tmp_path / name), mask), name
    Image.fromarray(grey).save(tmp_path / "lossy.jpg", quality=90)
    assert (load_mask(tmp_path / "lossy.jpg") ^ mask).mean() < 0.02


def test_what_is_no_mask(tmp_path: Path) -> None:
    save_mask(tmp_path / "mask.png", blob())
    with pytest.raises(InputError, match=r"mask.png is 61x40 and the video 144x96"):
        load_mask(tmp_path / "mask.png", size=(96, 144))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read"):
        load_mask(tmp_path / "text.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "mask.png").read_bytes()[:80])
    with pytest.raises(InputError, match="cannot be read"):
        load_mask(tmp_path / "half.png")
    with pytest.raises(InputError, match="does not exist"):
        load_mask(tmp_path / "missing.png")


def test_run_lengths() -> None:
    for mask in (blob(), np.zeros((5, 7), bool), np.ones((5, 7), bool)):
        stored = json.loads(json.dumps(encode_rle(mask)))
        assert stored["size"] == list(mask.shape)
        found = decode_rle(stored)
        assert found.dtype == bool and np.array_equal(found, mask)
    # COCO's uncompressed form counts down the columns: 2 off, 3 on, 1 off.
    expected = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert np.array_equal(decode_rle({"size": [2, 3], "counts": [2, 3, 1]}), expected)
    for wrong in ({}, {"size": [2, 3]}, {"size": [2, 3], "counts": None}):
        with pytest.raises(InputError, match="run lengths"):
            decode_rle(wrong)


def test_folder(tmp_path: Path) -> None:
    masks = MaskFolder(tmp_path / "a" / "masks", size=(40, 61), length=5)
    assert len(masks) == 5
    assert not masks[3].any() and masks[3].shape == (40, 61), "not written yet"
    masks.write(3, blob())
    masks.write(1, np.zeros((40, 61), bool))
    assert np.array_equal(masks[3], blob()) and not masks[1].any()
    assert [p.name for p in masks.files()] == ["00001.png", "00003.png"]
    for index in (5, -1):
        with pytest.raises(IndexError):
            masks[index]
    with pytest.raises(ValueError, match="expected a mask of"):
        masks.write(0, np.zeros((41, 60), bool))


def test_folder_without_size_and_length(tmp_path: Path) -> None:
    masks = MaskFolder(tmp_path / "masks")
    assert len(masks) == 0
    with pytest.raises(ValueError, match="no mask yet"):
        masks[0]
    masks.write(7, blob())
    again = MaskFolder(tmp_path / "masks")
    assert len(again) == 8 and np.array_equal(again[7], blob())
    assert again[2].shape == (40, 61) and not again[2].any()
