from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segmenters import Candidate, Prompt
from segmenters.cleanup import choose_candidate, clean_mask, mask_box


def draw(picture: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in picture.split()])


# What it shows, arguments, before, after.
PICTURES = [
    ("a solid block stays", {}, "...... .####. .####. ......", "...... .####. .####. ......"),
    ("empty stays empty", {}, "... ...", "... ..."),
    ("full stays full", {}, "### ###", "### ###"),
    (
        "a hole within the share is filled",  # 1 <= 0.1 * 19
        {"max_hole": 0.1},
        ".....# ####.. ##.#.. ####.. ####.. ####..",
        "...... ####.. ####.. ####.. ####.. ####..",
    ),
    (
        "a hole above the share stays",  # 1 > 0.05 * 19
        {"max_hole": 0.05},
        "####.. ##.#.. ####.. ####.. ####..",
        "####.. ##.#.. ####.. ####.. ####..",
    ),
    ("the default fills no hole of a small object", {}, "### #.# ###", "### #.# ###"),
    (
        "a bay open to the edge is no hole",
        {"max_hole": 1.0},
        "##.## ##.## #####",
        "##.## ##.## #####",
    ),
    (
        "a diagonal line keeps the background out",
        {"max_hole": 1.0},
        ".#... #.#.. .#... .....",
        ".#... ###.. .#... .....",
    ),
    (
        "an island below the share is dropped",  # 1 < 0.1 * 12
        {},
        "####.. ####.. ####.# ......",
        "####.. ####.. ####.. ......",
    ),
    (
        "an island above the share stays",  # 2 >= 0.1 * 12
        {},
        "####.# ####.# ####.. ......",
        "####.# ####.# ####.. ......",
    ),
    (
        "touching at a corner is one part",
        {"min_island": 1.0},
        "##... ##... ..#.. .....",
        "##... ##... ..#.. .....",
    ),
    (
        "with 1 only the largest part is left",
        {"min_island": 1.0},
        "##.### ##.### ......",
        "...### ...### ......",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "before", "after"),
    [row[1:] for row in PICTURES],
    ids=[row[0] for row in PICTURES],
)
def test_clean_mask(arguments: dict[str, Any], before: str, after: str) -> None:
    mask = draw(before)
    original = mask.copy()
    cleaned = clean_mask(mask, **arguments)
    assert cleaned.dtype == bool
    assert cleaned.tolist() == draw(after).tolist()
    assert (mask == original).all() and not np.shares_memory(mask, cleaned)


@pytest.mark.parametrize(
    ("picture", "box"),
    [
        ("..... .##.. ..#.. .....", [1, 1, 3, 3]),
        ("....# ..... #....", [0, 0, 5, 3]),
        ("# .", [0, 0, 1, 1]),
        ("... ...", None),
    ],
)
def test_mask_box(picture: str, box: list[int] | None) -> None:
    found = mask_box(draw(picture))
    if box is None:
        assert found is None
    else:
        assert found is not None and found.dtype == np.float32 and found.tolist() == box


def test_mask_box_takes_a_view() -> None:
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:7] = True
    found = mask_box(mask[::2, 1:].T)  # rows 2, 4 of columns 3..6, turned
    assert found is not None and found.tolist() == [1, 2, 3, 6]


# ----------------------------------------------------------------------------------- choosing

SMALL = "##... ##... ..... ....."
MIDDLE = "##### ##### ..... ....."
LARGE = "##### ##### ##### #####"
EMPTY = "..... ..... ..... ....."


@pytest.mark.parametrize(
    ("offers", "box", "previous", "chosen"),
    [
        # alone: the best score, and among near ones the largest
        ([(0.9, SMALL), (0.8, MIDDLE), (0.7, LARGE)], None, None, SMALL),
        ([(0.9, SMALL), (0.88, MIDDLE), (0.7, LARGE)], None, None, MIDDLE),
        ([(0.9, SMALL), (0.88, LARGE), (0.875, MIDDLE)], None, None, LARGE),
        ([(0.9, SMALL)], None, None, SMALL),
        # the box: small 0.9 + 4/20, middle 0.8 + 10/20, large 0.7 + 1
        ([(0.9, SMALL), (0.8, MIDDLE), (0.7, LARGE)], [0, 0, 5, 4], None, LARGE),
        ([(0.9, LARGE), (0.8, MIDDLE), (0.7, SMALL)], [0, 0, 2, 2], None, SMALL),
        # the frame before: small 0.9 + 4/10, middle 0.8 + 1, large 0.7 + 10/20
        ([(0.9, SMALL), (0.8, MIDDLE), (0.7, LARGE)], None, MIDDLE, MIDDLE),
        # both: small 0.9 + 0.2 + 0.4, middle 0.8 + 0.5 + 1, large 0.7 + 1 + 0.5
        ([(0.9, SMALL), (0.8, MIDDLE), (0.7, LARGE)], [0, 0, 5, 4], MIDDLE, MIDDLE),
        # nothing to agree with: the score decides
        ([(0.9, SMALL), (0.8, MIDDLE)], [3, 2, 5, 4], EMPTY, SMALL),
        ([(0.9, EMPTY), (0.5, SMALL)], [0, 0, 2, 2], EMPTY, SMALL),
        ([(0.9, EMPTY), (0.8, EMPTY)], [0, 0, 2, 2], EMPTY, EMPTY),
    ],
)
def test_choose_candidate(
    offers: list[tuple[float, str]], box: list[float] | None, previous: str | None, chosen: str
) -> None:
    logits = np.zeros((256, 256), np.float32)
    best = choose_candidate(
        [Candidate(draw(picture), score, logits) for score, picture in offers],
        box=None if box is None else np.array(box, np.float32),
        previous=None if previous is None else draw(previous),
    )
    assert best.mask.tolist() == draw(chosen).tolist()


def test_a_mask_that_a_point_contradicts_is_not_chosen() -> None:
    def square(side: int, score: float) -> Candidate:
        mask = np.zeros((40, 40), bool)
        mask[:side, :side] = True
        return Candidate(mask=mask, score=score, logits=np.zeros((256, 256), np.float32))

    both = [square(30, 0.99), square(10, 0.7)]
    points = np.array([[5, 5], [20, 20]], np.float32)
    box = np.array([0, 0, 30, 30], np.float32)
    off = Prompt(points=points, labels=np.array([1, 0]), box=box)
    on = Prompt(points=points, labels=np.array([1, 1]), box=box)
    assert choose_candidate(both, prompt=off, box=box).mask.sum() == 100
    assert choose_candidate(both, prompt=on, box=box).mask.sum() == 900
    assert choose_candidate(both[:1], prompt=off).mask.sum() == 900  # there is no better one
