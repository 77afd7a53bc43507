"""Two ways to the same pixels, and OpenCV as the third opinion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tests.trackers.training.data.scenes import to_pixels
from trackers.crops import SquareCrop
from trackers.training.data.augment import View
from trackers.training.data.pixels import cut, cut_batch, extract, finish, looks, places


def picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Noise is the worst case: neighbours differ as much as they can."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


BOXES = [
    (60, 40, 30, 20),
    (-5, -4, 20, 16),
    (140, 80, 20, 20),
    (3.3, 70.6, 11.5, 9.2),
    (80, 50, 2, 3),
]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("factor", "size"), [(2.0, 112), (4.5, 224), (5.0, 96)])
def test_extract_is_opencvs_within_one_grey_level(box, factor: float, size: int) -> None:
    frame = picture(0, (100, 160))
    crop = SquareCrop.around(box, factor, size)
    theirs = crop.extract(frame).astype(int)
    ours = extract(crop, frame).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.3  # rounding; the same pixels, not merely similar ones


def random_view(rng: np.random.Generator, size: tuple[int, int], warped: bool) -> View:
    box = (*(rng.uniform(-20, size[1], 2)), *rng.uniform(3, 60, 2))
    warp = None
    if warped:
        warp = np.eye(2) + rng.uniform(-0.3, 0.3, (2, 2))
    crop = SquareCrop.around(box, rng.uniform(1, 5), 64)
    return View(crop, rng.random() < 0.5, warp, rng.random() < 0.5)


@pytest.mark.parametrize("warped", [False, True])
def test_a_batch_is_cut_as_its_pictures_one_by_one(warped: bool) -> None:
    rng = np.random.default_rng(3)
    sizes = [(int(a), int(b)) for a, b in rng.integers(24, 90, (40, 2))]
    frames = [picture(i, size) for i, size in enumerate(sizes)]
    views = [random_view(rng, size, warped) for size in sizes]
    bases = np.cumsum([0, *(h * w for h, w in sizes)])[:-1]
    pixels = torch.from_numpy(np.concatenate([frame.reshape(-1, 3) for frame in frames]))
    where = {"base": torch.from_numpy(bases), **places(views, sizes)}
    together = cut_batch(pixels, where, 64)
    alone = torch.stack([cut(view, frame) for view, frame in zip(views, frames, strict=True)])
    assert together.shape == alone.shape == (40, 3, 64, 64)
    assert (together - alone.float()).abs().max() <= 1
    assert together.max() > 200 and together.equal(together.round())


def test_mirrored_and_flipped() -> None:
    frame = picture(0, (100, 160))
    crop = SquareCrop.around((60, 40, 30, 20), 2.0, 64)
    seen = np.ascontiguousarray(frame[:, ::-1])
    assert cut(View(crop, mirrored=True), frame).equal(cut(View(crop), seen))
    assert cut(View(crop, flipped=True), frame).equal(cut(View(crop), frame).flip(2))


def test_huge_windows_are_not_made() -> None:
    frame = picture(0, (40, 60))
    crop = SquareCrop.around((0, 0, 60, 40), 400.0, 64)  # 19,596 pixels wide: 1.1 GB
    found = cut(View(crop), frame)
    assert found.shape == (3, 64, 64) and found.max() <= 255


def test_a_warp_is_opencvs() -> None:
    frame = cv2.GaussianBlur(picture(0, (200, 240)), (0, 0), 3)
    crop = SquareCrop.around((90, 70, 40, 40), 2.0, 80)  # a side of 80: no resizing
    angle = np.radians(20)
    warp = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = cut(View(crop, warp=warp), frame).permute(1, 2, 0).numpy().astype(int)
    window, middle = crop.cut(frame), np.array([39.5, 39.5])
    matrix = np.column_stack([warp, middle - warp @ middle])
    theirs = cv2.warpAffine(window, matrix, (80, 80), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    inner = slice(16, 64)  # towards the corners ours looks beyond the window, OpenCV cannot
    assert np.abs(found - theirs)[inner, inner].max() <= 4  # OpenCV's places are 1/32 pixel exact


def test_colors_blur_and_erasure() -> None:
    crops = torch.from_numpy(cv2.GaussianBlur(picture(0, (48, 48)), (0, 0), 1)).permute(2, 0, 1)
    crop = SquareCrop.around((0, 0, 48, 48), 1.0, 48)
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    views = [
        View(crop),
        View(crop, color=(1.7 * np.eye(3), np.zeros(3))),
        View(crop, color=(grey, np.full(3, 20.0))),
        View(crop, blur=(1.5, 0.0)),
        View(crop, blur=(0.7, 2.0)),
        View(crop, erased=(10, 20, 30, 25)),
    ]
    found = to_pixels(finish(crops[None].expand(6, -1, -1, -1), looks(views)))
    image = crops.permute(1, 2, 0).numpy().astype(np.float32)
    assert np.abs(found[0] - image).max() < 1e-3
    assert np.abs(found[1] - (1.7 * image).clip(0, 255)).max() < 1e-3
    assert np.abs(found[2] - (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) + 20)[..., None]).max() < 1e-2
    for k, (x, y) in ((3, (1.5, 1e-6)), (4, (0.7, 2.0))):
        theirs = cv2.GaussianBlur(
            image, (13, 13), sigmaX=x, sigmaY=y, borderType=cv2.BORDER_REPLICATE
        )
        assert np.abs(found[k] - theirs).max() < 0.05
    mean = np.array([0.485, 0.456, 0.406]) * 255
    assert np.abs(found[5][20:25, 10:30] - mean).max() < 1e-3
    outside = np.ones((48, 48), bool)
    outside[20:25, 10:30] = False
    assert np.abs(found[5] - image)[outside].max() < 1e-3
