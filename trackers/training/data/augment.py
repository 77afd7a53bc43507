"""How the pictures of a sample are cut and changed: plans only, no pixel is touched here.

Source: MCG-NJU/MixFormerV2 @ 10414383, the training transforms and `STARKProcessing`. Deviations
are `Deformation`, which upstream has not, and that colours change after the crop instead of before,
which is the same up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trackers.crops import SquareCrop
from trackers.training.data.config import DataConfig, Deformation
from trackers.training.data.sampling import Pick, Shot, Unusable

_LUMA = np.array([0.299, 0.587, 0.114])
_PATCH = 16  # pixels, of the networks


@dataclass(frozen=True)
class View:
    """One crop: where it is cut from its picture and what then happens to it.

    Attributes:
        crop: where; in the mirrored picture if `mirrored`.
        mirrored: the picture is read from right to left.
        warp: (2, 2): the crop shows at p what lay at warp (p - c) + c, c its middle, x before y.
        flipped: the crop is mirrored once more.
        color: (3, 3) and (3,): RGB in [0, 255] becomes matrix @ RGB + offset, clipped.
        blur: deviations in crop pixels along x and y, 0 for none.
        erased: x0, y0, x1, y1 in crop pixels of what is grey; nothing if empty.
    """

    crop: SquareCrop
    mirrored: bool = False
    warp: np.ndarray | None = None
    flipped: bool = False
    color: tuple[np.ndarray, np.ndarray] | None = None
    blur: tuple[float, float] = (0.0, 0.0)
    erased: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class Plan:
    """A sample without its pixels.

    Attributes:
        template: what is made of its first picture; `online` of the second, `search` of the third.
        box_xywh: the object in the search crop, left, top, width, height as shares of its side.
        label: 1 if it is the template's, else 0.
    """

    template: View
    online: View
    search: View
    box_xywh: tuple[float, float, float, float]
    label: float


def plan(
    pick: Pick,
    sizes: Sequence[tuple[int, int]],
    config: DataConfig,
    rng: np.random.Generator,
    *,
    training: bool = True,
) -> Plan:
    """Decide on crops, mirroring and colours.

    Args:
        pick: the three pictures.
        sizes: (height, width) of each.
        config: factors, sizes, jitter and so on.
        rng: the only source of chance.
        training: False leaves out what upstream leaves out in validation: brightness, the second
            mirroring, and every deformation. Jitter, joint mirroring and greyscale stay.

    Raises:
        Unusable: a crop would show nothing but padding, or has no side.
    """
    grey = rng.random() < config.grayscale
    mirrored = bool(rng.random() < config.flip)
    views, boxes = [], []
    for shot, size, role in zip(
        (pick.template, pick.online, pick.search),
        sizes,
        ("template", "online", "search"),
        strict=True,
    ):
        box = _box_of(shot, size)
        if mirrored:
            box[0] = size[1] - 1 - (box[0] + box[2])  # the - 1 is upstream's
        view, where = _view(box, size, role, grey, mirrored, config, rng, training)
        views.append(view)
        boxes.append(where)
    return Plan(views[0], views[1], views[2], boxes[2], pick.label)


def _box_of(shot: Shot, size: tuple[int, int]) -> np.ndarray:
    if shot.box_xywh is not None:
        return np.array(shot.box_xywh, np.float64)
    height, width = size
    w, h = width / 8, height / 8
    return np.array([int(width / 2 - w / 2), int(height / 2 - h / 2), int(w), int(h)], np.float64)


def jitter(
    box_xywh: np.ndarray, center: float, scale: float, rng: np.random.Generator
) -> np.ndarray:
    """Move and resize a box at random.

    Args:
        box_xywh: (4,) left, top, width, height in pixels.
        center: it moves along each axis by up to half of this times the root of its new area.
        scale: deviation of the logarithms of its new width and height, in units of the old ones.
        rng: the only source of chance.

    Returns:
        (4,) left, top, width, height.
    """
    size = box_xywh[2:] * np.exp(rng.standard_normal(2) * scale)
    middle = box_xywh[:2] + 0.5 * box_xywh[2:]
    middle = middle + math.sqrt(size.prod()) * center * (rng.random(2) - 0.5)
    return np.concatenate([middle - 0.5 * size, size])


def _view(
    box: np.ndarray,
    size: tuple[int, int],
    role: str,
    grey: bool,
    mirrored: bool,
    config: DataConfig,
    rng: np.random.Generator,
    training: bool,
) -> tuple[View, tuple[float, float, float, float]]:
    if not (np.isfinite(box).all() and (box[2:] > 0).all()):
        raise Unusable
    if role == "search":
        center, scale = config.search_center_jitter, config.search_scale_jitter
        factor, side = config.search_factor, config.search_size
    else:
        center, scale = config.template_center_jitter, config.template_scale_jitter
        factor, side = config.template_factor, config.template_size
    crop = SquareCrop.around(jitter(box, center, scale, rng).tolist(), factor, side)
    if crop.side < 1 or not shows_something(crop, size):
        raise Unusable
    matrix, offset = np.eye(3), np.zeros(3)
    if grey:
        matrix = np.tile(_LUMA, (3, 1))
    where = crop.to_crop(box.tolist())
    if not training:
        return View(crop, mirrored, color=(matrix, offset) if grey else None), where
    matrix = matrix * (1 + config.brightness * (2 * rng.random() - 1))
    flipped = bool(rng.random() < config.crop_flip)
    deformation = config.deformation
    warp = None
    if deformation.stretch or deformation.turn:
        warp = _warp(deformation, rng)
        where = _warped(where, warp, side)
        if not _is_seen(where):  # turned out of the crop
            raise Unusable
    if flipped:
        where = (1 - where[0] - where[2], *where[1:])
    if deformation.contrast or deformation.saturation:
        matrix, offset = _recolor(matrix, deformation, rng)
    blur = (0.0, 0.0)
    if deformation.blur and rng.random() < deformation.blur:
        blur = (rng.random() * deformation.blur_sigma, rng.random() * deformation.blur_sigma)
    erased = (0, 0, 0, 0)
    if role == "search" and deformation.erase and rng.random() < deformation.erase:
        erased = _erase(side, rng)
    return View(crop, mirrored, warp, flipped, (matrix, offset), blur, erased), where


def shows_something(crop: SquareCrop, size: tuple[int, int]) -> bool:
    """Whether a crop holds more than padding, as upstream judges: at one pixel of each patch.

    Args:
        crop: the crop.
        size: (height, width) of its picture.
    """
    # Upstream resizes a mask of the padding like the picture and looks at every 16th pixel, which
    # counts as padding as soon as padding is mixed into it.
    grid = np.arange(0, crop.size, _PATCH)
    at = np.clip((grid + 0.5) * (crop.side / crop.size) - 0.5, 0, crop.side - 1)
    low, high = np.floor(at), np.ceil(at)
    return all(
        # - 2: the last row and column of a picture count as padding, see SquareCrop
        bool(((start + low >= 0) & (start + high <= length - 2)).any())
        for start, length in ((crop.left, size[1]), (crop.top, size[0]))
    )


def _warp(deformation: Deformation, rng: np.random.Generator) -> np.ndarray:
    stretch = math.exp(0.5 * deformation.stretch * rng.standard_normal())
    turn = math.radians(deformation.turn) * (2 * rng.random() - 1)
    cos, sin = math.cos(turn), math.sin(turn)
    return np.diag([stretch, 1 / stretch]) @ np.array([[cos, -sin], [sin, cos]])


def _warped(
    box_xywh: tuple[float, float, float, float], warp: np.ndarray, side: int
) -> tuple[float, float, float, float]:
    """Where a box is after the warp: round the ellipse in it, for things seldom have corners."""
    x, y, w, h = box_xywh
    back = np.linalg.inv(warp)
    middle = (side - 1) / 2 / side
    cx, cy = back @ (x + w / 2 - middle, y + h / 2 - middle) + middle
    w, h = np.hypot(back[0, 0] * w, back[0, 1] * h), np.hypot(back[1, 0] * w, back[1, 1] * h)
    return float(cx - w / 2), float(cy - h / 2), float(w), float(h)


def _is_seen(box_xywh: tuple[float, float, float, float]) -> bool:
    """Whether the middle of a box, in shares of the crop, is in the crop, as jitter leaves it."""
    x, y, w, h = box_xywh
    return 0 <= x + w / 2 <= 1 and 0 <= y + h / 2 <= 1


def _recolor(
    matrix: np.ndarray, deformation: Deformation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    contrast = 1 + deformation.contrast * (2 * rng.random() - 1)
    saturation = 1 + deformation.saturation * (2 * rng.random() - 1)
    colors = saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1))
    return contrast * colors @ matrix, np.full(3, 127.5 * (1 - contrast))


def _erase(side: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A rectangle a tenth to a third of the crop wide and high."""
    w, h = (side * (0.1 + 0.23 * rng.random(2))).astype(int).tolist()
    x, y = (rng.random(2) * (side - w, side - h)).astype(int).tolist()
    return x, y, x + w, y + h
