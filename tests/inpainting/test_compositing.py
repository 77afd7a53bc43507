from __future__ import annotations

import numpy as np
import pytest

from inpainting.compositing import diffuse, dilation_for, feather, grow, hole_of, meet
from tests.inpainting.conftest import texture


def box(size: tuple[int, int], y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_dilation_follows_the_largest_part() -> None:
    mask = box((400, 600), 100, 100, 250, 300)  # diagonal 250: 2 % are 5
    assert dilation_for(mask) == 7
    assert dilation_for(mask | box((400, 600), 380, 580, 390, 590)) == 7
    assert dilation_for(np.zeros((40, 60), bool)) == 0


def test_grow_covers_a_disc() -> None:
    grown = grow(box((21, 21), 10, 10, 11, 11), 4)
    ys, xs = np.nonzero(grown)
    assert grown[10, 6] and grown[6, 10] and not grown[6, 6]
    assert np.hypot(ys - 10, xs - 10).max() <= 4.5
    assert not grow(np.zeros((5, 5), bool), 3).any()
    corner = grow(box((21, 21), 0, 0, 3, 3), 4)  # as if the frame went on
    assert corner[4, 4] and corner[6, 1] and not corner[7:].any() and not corner[:, 7:].any()
    mask = box((400, 600), 100, 100, 250, 300)
    hole, pixels = hole_of(mask)
    assert pixels == dilation_for(mask) and np.array_equal(hole, grow(mask, pixels))
    assert np.array_equal(hole_of(mask, 3)[0], grow(mask, 3))


def test_feather_lies_inside_the_hole() -> None:
    hole = box((60, 60), 20, 20, 40, 40)
    opacity = feather(hole, 4)
    assert (opacity[~hole] == 0).all()
    assert (opacity[hole] > 0).all()
    assert opacity[20, 30] == pytest.approx(0.2, abs=0.05)
    assert (opacity[24:36, 24:36] == 1).all()
    np.testing.assert_array_equal(feather(hole, 0), hole.astype(np.float32))


def test_feather_knows_no_border_at_the_edge_of_the_image() -> None:
    opacity = feather(box((40, 40), 0, 0, 20, 40), 4)
    assert (opacity[:15] == 1).all()
    assert (feather(np.ones((8, 8), bool), 4) == 1).all()


def test_diffuse_spans_a_plane_exactly() -> None:
    """A plane solves Laplace's equation."""
    ys, xs = np.mgrid[:90, :130].astype(np.float32)
    plane = np.stack((xs * 0.5 + ys, 40 - ys), axis=-1)
    known = ~box((90, 130), 20, 30, 70, 100)
    filled = diffuse(np.where(known[..., None], plane, -999), known)
    np.testing.assert_array_equal(filled[known], plane[known])
    assert np.abs(filled - plane).max() < 1.0


def test_diffuse_stays_within_what_is_known() -> None:
    random = np.random.default_rng(0)
    values = random.uniform(-3, 5, (37, 53, 2)).astype(np.float32)
    known = random.random((37, 53)) < 0.05
    filled = diffuse(np.where(known[..., None], values, 1e6), known)
    assert filled.min() >= values[known].min() - 1e-4
    assert filled.max() <= values[known].max() + 1e-4
    assert (diffuse(values, np.zeros((37, 53), bool)) == 0).all()


def test_meet_takes_over_the_light_of_the_picture_but_not_of_other_things() -> None:
    image = texture(60, 80).clip(40, 200)
    hole = np.zeros((60, 80), bool)
    hole[20:40, 25:50] = True
    fill = image - 12
    fill[:, 60:] = 0  # there the picture shows something that the fill knows nothing of
    found = meet(image, fill, hole)
    assert np.abs(found - image)[hole].max() < 1
    np.testing.assert_array_equal(meet(image, image, hole), image)
    everything = np.ones((60, 80), bool)
    np.testing.assert_array_equal(meet(image, fill, everything), fill)
