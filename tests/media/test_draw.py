"""Drawings are where they should be, and the frame they are drawn on is left alone."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from media import InputError
from media.draw import PALETTE, draw_box, draw_mask, parse_color

FRAME = np.full((240, 320, 3), 90, np.uint8)
RED = "#ff0000"


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != FRAME).any(axis=2)


def is_red(picture: np.ndarray) -> np.ndarray:
    return (picture == (255, 0, 0)).all(axis=2)


def test_box_lies_on_its_edges() -> None:
    picture = draw_box(FRAME, (50, 60, 200, 180), color=RED)
    assert (FRAME == 90).all(), "the frame itself is not written into"
    red = is_red(picture)
    for x, y in ((50, 100), (199, 100), (120, 60), (120, 179)):  # x1 and y1 are exclusive
        assert red[y, x]
    y, x = np.nonzero(changed(picture))
    assert 46 <= x.min() and x.max() <= 203 and 56 <= y.min() and y.max() <= 183
    assert not changed(picture)[65:175, 55:195].any(), "empty inside"


def test_box_moves_by_parts_of_a_pixel() -> None:
    whole = draw_box(FRAME, (50, 60, 200, 180), color=RED)
    moved = draw_box(FRAME, (50.5, 60, 200.5, 180), color=RED)
    assert not np.array_equal(whole, moved)
    assert np.abs(whole.astype(int) - moved).sum() < 0.5 * np.abs(whole.astype(int) - 90).sum()


@pytest.mark.parametrize(
    "box",
    [
        (-100, -50, 100, 100),
        (250, 200, 1e12, 1e12),
        (-1e300, 100, 1e300, 140),
        (100, 100, 100, 100),
        (120, 100, 80, 60),
    ],
)
def test_boxes_partly_outside_or_degenerate(box: tuple[float, ...]) -> None:
    picture = draw_box(FRAME, box, color=RED, label="thing", score=0.5)
    assert picture.shape == FRAME.shape and changed(picture).any()


@pytest.mark.parametrize("box", [None, (float("nan"),) * 4, (400, 10, 500, 60), (-90, -90, -5, -5)])
def test_lost_or_outside_draws_nothing(box: tuple[float, ...] | None) -> None:
    picture = draw_box(FRAME, box, color=RED, label="thing")
    assert np.array_equal(picture, FRAME) and picture is not FRAME


def test_label_stays_inside_and_grows_with_the_frame() -> None:
    heights = []
    for scale in (2, 6):
        frame = np.full((240 * scale, 320 * scale, 3), 90, np.uint8)
        box = tuple(scale * side for side in (100, 100, 180, 180))
        bare = draw_box(frame, box, color=RED)
        labelled = draw_box(frame, box, color=RED, label="thing", score=0.87)
        y, _ = np.nonzero((bare != labelled).any(axis=2))
        assert y.max() <= 103 * scale, "it stands on the box"
        heights.append(np.ptp(y) + 1)
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.35)
    for box in ((-20, -20, 60, 60), (290, 2, 400, 60), (300, 200, 400, 300)):
        labelled = draw_box(FRAME, box, color=RED, label="a long name")
        assert is_red(labelled).sum() > is_red(draw_box(FRAME, box, color=RED)).sum() + 500


def test_label_text_can_be_read() -> None:
    """Black ink on bright colours, white on dark ones; the score has two digits or is left out."""
    for color, ink in (("#ffff00", 0), ("#000080", 255)):
        bare = draw_box(FRAME, (100, 100, 200, 200), color=color)
        labelled = draw_box(FRAME, (100, 100, 200, 200), color=color, label="HHH")
        new = labelled[(bare != labelled).any(axis=2)]
        assert (new == ink).all(axis=1).sum() > 30
    with_nan = draw_box(FRAME, (9, 99, 99, 199), color=RED, label="a", score=float("nan"))
    assert np.array_equal(with_nan, draw_box(FRAME, (9, 99, 99, 199), color=RED, label="a"))
    scored = draw_box(FRAME, (9, 99, 99, 199), color=RED, score=0.123)
    assert np.array_equal(scored, draw_box(FRAME, (9, 99, 99, 199), color=RED, label="0.12"))


def test_mask_is_tinted_inside_only() -> None:
    mask = np.zeros((240, 320), bool)
    mask[80:160, 100:200] = True
    mask[110:130, 140:160] = False  # a hole
    picture = draw_mask(FRAME, mask, color=RED, opacity=0.5, outline=False)
    assert np.array_equal(changed(picture), mask)
    assert np.abs(picture[90, 110].astype(int) - (172, 45, 45)).max() <= 1
    outlined = draw_mask(FRAME, mask, color=RED)
    assert is_red(outlined)[80, 150] and is_red(outlined)[120, 139], "also around the hole"
    assert not changed(outlined)[70].any()
    assert (FRAME == 90).all()
    assert np.array_equal(draw_mask(FRAME, np.zeros_like(mask), color=RED), FRAME)
    full = draw_mask(FRAME, np.ones_like(mask), color=RED, opacity=1.0, outline=False)
    assert is_red(full).all()


def test_colors() -> None:
    assert parse_color("#0a10FF") == (10, 16, 255)
    assert parse_color((1, 2, 3)) == (1, 2, 3)
    for wrong in ("red", "#12345", "#1234567", (1, 2), (1, 2, 300)):
        with pytest.raises(InputError, match="is not a colour"):
            parse_color(wrong)


def test_palette_is_well_separated() -> None:
    """CIE76 distances: 2.3 is just noticeable, 100 is black to white."""
    rgb = np.array([[parse_color(color) for color in PALETTE]], np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(lab, 2))
    assert nearest > 25
