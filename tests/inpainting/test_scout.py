from __future__ import annotations

import numpy as np

from inpainting.published import Window, select_windows
from inpainting.scout import Scout
from tests.inpainting.conftest import Clip, moving_hole, texture


def scout(clip: Clip, stop: int | None = None, first: int = 0) -> Scout:
    found = Scout(clip, clip.holes, dilate=0, first=first)
    found.look_to(len(clip) if stop is None else stop)
    return found


def windows(found: Scout, count: int, **options: int) -> list[Window]:
    chosen = {"stride": 5, "step": 10, "num_ref": -1, "once": False, **options}
    return list(found.windows(range(count), **chosen))  # type: ignore[arg-type]


def joined(*lengths: int) -> Clip:
    """Shots of other textures, one after another, with a hole that runs across each."""
    truth, holes = [], []
    for seed, length in enumerate(lengths):
        part = moving_hole(length, (72, 112))
        truth += [np.roll(texture(72, 112, seed + 7).astype(np.uint8), i, 1) for i in range(length)]
        holes += part.holes
    return Clip(truth, holes)


def test_without_a_cut_the_windows_can_be_those_of_the_published_protocol() -> None:
    clip = moving_hole(33)
    assert windows(scout(clip), 33) == select_windows(33)


def test_shots_are_kept_apart() -> None:
    clip = joined(12, 3, 14)
    found = scout(clip)
    assert found.cuts == [12, 15]
    for once in (False, True):
        some = windows(found, 29, once=once)
        assert {i for window in some for i in window.local} == set(range(29))
        for window in some:
            frames = (*window.local, *window.references)
            assert len({(i >= 12) + (i >= 15) for i in frames}) == 1
    assert sum(len(w.local) for w in windows(found, 29, once=True)) == 29


def test_frames_are_read_once_and_only_so_far() -> None:
    clip = moving_hole(20)
    found = scout(clip, 5)
    found.look_to(9)
    assert clip.asked == list(range(9))
    found.forget(4)
    assert sorted(found.sights) == [4, 5, 6, 7, 8]


def test_references_are_few_near_and_show_what_is_hidden() -> None:
    clip = moving_hole(200, (72, 112))
    still = np.zeros((72, 112), bool)
    still[20:50, 20:50] = True
    clip.holes = [still & (i not in (40, 130)) for i in range(200)]
    found = scout(clip)
    window = windows(found, 101, num_ref=4)[20]
    assert window.local == range(95, 106)
    # Two frames show it; the others are as near as they come.
    assert window.references == (40, 90, 110, 130)
    clip.holes = [still] * 200
    window = windows(scout(clip), 101, num_ref=4)[20]
    assert window.references == (80, 90, 110, 120)


def test_a_start_in_the_middle_finds_the_same_windows() -> None:
    clip = joined(12, 3, 14, 20)
    late, whole = scout(clip, first=10), scout(clip)
    options = {"stride": 5, "step": 10, "num_ref": 2, "once": False}
    found = [list(some.windows(range(20, 49), **options)) for some in (late, whole)]  # type: ignore[arg-type]
    assert len(found[0]) > 5 and found[0] == found[1]
