from __future__ import annotations

import cv2
import numpy as np
import pytest

from inpainting.view import Box, Size, View, around, bounding_box, union, view_of
from tests.inpainting.conftest import psnr, texture


def place(holes: Box | None, frame: Size, longest: int | None = 432, fixed: Size | None = None):  # type: ignore[no-untyped-def]
    wanted = holes and around(holes, frame)
    return view_of(wanted, frame, longest=longest, pad_to=(60, 108), fixed=fixed)


def test_boxes() -> None:
    box = Box(2, 3, 10, 20)
    assert box.size == (8, 17)
    assert box.grown((5, 100), (12, 40)) == (0, 0, 12, 40)
    assert box.seen_from((1, 1)) == (1, 2, 9, 19)
    assert union([box, Box(0, 5, 4, 30)]) == (0, 3, 10, 30)
    mask = np.zeros((9, 9), bool)
    assert bounding_box(mask) is None
    mask[2, 3] = mask[5, 4] = True
    assert bounding_box(mask) == (2, 3, 6, 5)


def test_a_small_hole_is_seen_at_full_size_with_as_much_round_it_as_fits() -> None:
    view = place(Box(500, 900, 540, 950), (1080, 1920))
    assert view.part.size == view.inner == view.outer == (180, 216)
    assert view.part.y0 <= 500 - 64 and view.part.y1 >= 540 + 64


def test_a_large_hole_is_seen_smaller() -> None:
    view = place(Box(0, 100, 1080, 900), (1080, 1920))
    assert view.outer[0] % 60 == 0 and view.outer[1] % 108 == 0
    assert max(view.inner) <= 432 + 107
    assert view.part.y0 == 0 and view.part.y1 == 1080
    assert view.part.x0 == 0 and view.part.x1 >= 1300
    assert view.scale[0] == pytest.approx(view.scale[1], rel=0.01)
    smaller = place(Box(0, 100, 1080, 900), (1080, 1920), longest=216)
    assert max(smaller.inner) < max(view.inner)


def test_a_frame_that_is_smaller_than_the_network_is_seen_whole() -> None:
    view = place(Box(10, 10, 20, 20), (40, 50))
    assert view == View(Box(0, 0, 40, 50), (40, 50), (60, 108))


@pytest.mark.parametrize("frame", [(240, 432), (100, 200), (1080, 1920), (600, 200)])
def test_the_network_of_one_size_gets_it_without_stretching(frame: Size) -> None:
    hole = Box(frame[0] // 2, 50, frame[0] // 2 + 30, 90)
    view = place(hole, frame, fixed=(240, 432))
    assert view.outer == (240, 432)
    assert view.inner[0] == 240 or view.inner[1] == 432 or view.inner == view.part.size
    assert view.scale[0] == pytest.approx(view.scale[1], rel=0.02)
    assert view.part.y0 <= hole.y0 and view.part.y1 >= hole.y1


def test_the_whole_frame() -> None:
    assert place(None, (100, 200), None) == View(Box(0, 0, 100, 200), (100, 200), (120, 216))
    assert place(None, (480, 864), 432).inner == (240, 432)
    assert place(None, (100, 200), fixed=(240, 432)).inner == (240, 432)


def test_shows_a_mirror_beyond_the_border() -> None:
    frame = texture(40, 50).astype(np.uint8)
    hole = np.zeros((40, 50), bool)
    hole[30:, 45:] = True
    image, mask = place(Box(30, 45, 40, 50), (40, 50)).show(frame, hole)
    assert image.shape == (60, 108, 3) and mask.shape == (60, 108)
    np.testing.assert_array_equal(image[:40, :50], frame)
    np.testing.assert_array_equal(image[40:60, :50], frame[:19:-1])
    np.testing.assert_array_equal(image[:40, 50:100], frame[:, ::-1])
    np.testing.assert_array_equal(mask[40:50, 45:50], True)
    assert mask[:30, :45].sum() == 0


def test_what_is_seen_smaller_goes_back_to_where_it_was() -> None:
    """A smooth picture survives the way to the network and back; nothing is shifted."""
    frame = cv2.GaussianBlur(texture(500, 900, 3), (0, 0), 8).round().astype(np.uint8)
    view = place(Box(100, 200, 400, 700), (500, 900))
    assert view.scale[0] < 0.6
    image, _ = view.show(frame, np.zeros((500, 900), bool))
    box = Box(93, 191, 407, 705)
    seen = view.look_up(box)
    back = view.give_back(np.ascontiguousarray(image[seen.slices]), box)
    assert back.shape == (*box.size, 3)
    here = psnr(back, frame[box.slices])
    moved = psnr(back[:-1], frame[box.slices][1:])
    assert here > 45 and here > moved + 3


def test_a_pixel_that_the_hole_touches_belongs_to_it() -> None:
    view = place(Box(0, 0, 500, 900), (500, 900))
    hole = np.zeros((500, 900), bool)
    hole[250, 450] = True
    _, mask = view.show(np.zeros((500, 900, 3), np.uint8), hole)
    assert 1 <= mask.sum() <= 4
