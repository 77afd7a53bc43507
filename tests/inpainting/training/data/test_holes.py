"""Holes have a shape, move through the frames, and never leave them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inpainting.training.data.clips import picture_folders
from inpainting.training.data.config import HoleConfig
from inpainting.training.data.holes import draw_holes, free_form, walk

SIZE = (60, 108)


def centre(hole: np.ndarray) -> np.ndarray:
    return np.argwhere(hole).mean(axis=0)


@pytest.mark.parametrize("seed", range(20))
def test_a_free_form_fills_its_box(seed: int) -> None:
    shape = free_form(np.random.default_rng(seed), (40, 70))
    assert shape.dtype == bool
    height, width = shape.shape
    assert 20 <= height <= 40 and 35 <= width <= 70  # a curve stays inside of its corners
    for side in (shape[0], shape[-1], shape[:, 0], shape[:, -1]):
        assert side.any()
    assert 0.15 < shape.mean() < 0.95


def test_shapes_differ_and_chance_is_the_seeds() -> None:
    shapes = [free_form(np.random.default_rng(seed), (40, 70)) for seed in (0, 0, 1)]
    assert np.array_equal(shapes[0], shapes[1])
    assert shapes[0].shape != shapes[2].shape or not np.array_equal(shapes[0], shapes[2])


def test_a_walk_stays_inside_and_moves() -> None:
    moving = HoleConfig(still=0.0)
    for seed in range(20):
        places = walk(np.random.default_rng(seed), (30, 40), SIZE, 200, moving)
        assert (places >= 0).all() and (places <= np.array(SIZE) - (30, 40)).all()
        assert len(np.unique(places, axis=0)) > 10
        assert np.abs(np.diff(places, axis=0)).max() < 20  # no leaps
    places = walk(np.random.default_rng(0), (30, 40), SIZE, 9, replace(moving, still=1.0))
    assert (places == places[0]).all()
    assert (walk(np.random.default_rng(0), SIZE, SIZE, 9, moving) == 0).all()  # no room


def test_half_of_the_holes_stand_still() -> None:
    still = 0
    for seed in range(200):
        holes = draw_holes(np.random.default_rng(seed), range(4), SIZE, HoleConfig(speed=(3, 3)))
        assert holes.shape == (4, *SIZE) and holes.dtype == bool and holes.any(axis=(1, 2)).all()
        assert len({int(hole.sum()) for hole in holes}) == 1  # the same shape
        still += bool((holes == holes[0]).all())
    assert 75 <= still <= 125


def test_a_frame_has_its_hole_whichever_others_are_asked_for() -> None:
    def at(*times: int) -> np.ndarray:
        config = HoleConfig(still=0.0)
        return draw_holes(np.random.default_rng(4), times, SIZE, config)

    few, many = at(3, 0, 9), at(*range(10))
    for hole, time in zip(few, (3, 0, 9), strict=True):
        np.testing.assert_array_equal(hole, many[time])


def test_objects_keep_their_proportions_and_their_motion(objects: Path) -> None:
    clips = picture_folders(objects)
    config = HoleConfig(objects=1.0, still=1.0, sides=(0.5, 0.6))
    holes = draw_holes(np.random.default_rng(0), range(6), SIZE, config, clips)
    sizes = []
    for hole in holes:
        ys, xs = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert hole[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1].all()  # a bar
        sizes.append(len(xs) / len(ys))
    # The bars are 10 high and 10, 15, 20, 25 wide, there and back.
    assert sorted({round(size, 1) for size in sizes}) == pytest.approx(
        [1.0, 1.5, 2.0, 2.5], abs=0.2
    )
    steps = np.abs(np.diff(sizes))
    assert (steps > 0.3).all() and (steps < 0.7).all()


def test_empty_masks_make_free_forms(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "nothing").mkdir()
    Image.new("L", (20, 20)).save(tmp_path / "nothing" / "0.png")
    config = HoleConfig(objects=1.0)
    clips = picture_folders(tmp_path)
    assert draw_holes(np.random.default_rng(0), range(3), SIZE, config, clips).any()
