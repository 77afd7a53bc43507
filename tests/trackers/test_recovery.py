"""Looking for a lost object, with a script in place of the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from trackers.crops import SquareCrop
from trackers.recovery import Box, Palette, Recovery, Sweep, Verdict
from trackers.search import Sight

SIZE = 240, 320
BOX: Box = (60.0, 80.0, 30.0, 40.0)
RED, BLUE = (200, 30, 30), (30, 30, 200)


def scene(seed: int = 0) -> np.ndarray:
    """A background with structure, another one for each seed, and nothing red in it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    coarse[..., 0] //= 8
    return coarse.repeat(40, axis=0).repeat(40, axis=1)


def showing(box_xywh: Box | None, color: tuple[int, int, int] = RED, seed: int = 0) -> np.ndarray:
    frame = scene(seed)
    if box_xywh is not None:
        x, y, w, h = (round(value) for value in box_xywh)
        frame[y : y + h, x : x + w] = color
    return frame


def sight(window: SquareCrop, box_xywh: Box, *, sure: bool) -> Sight:
    edges = np.zeros((4, 96), np.float32)
    edges[:, : 8 if sure else 80] = 1 / (8 if sure else 80)
    return Sight(window, box_xywh, 0.98 if sure else 0.05, edges.ravel())


class Network:
    """Sees red things that lie in the middle parts of a window."""

    def __init__(self, recovery: Recovery) -> None:
        self.recovery = recovery
        self.next: Box = BOX
        self.looked = 0

    def see(self, frame: np.ndarray, windows: Sequence[SquareCrop]) -> list[Sight]:
        self.looked += len(windows)
        return [self._see(frame, window) for window in windows]

    def _see(self, frame: np.ndarray, window: SquareCrop) -> Sight:
        rows, columns = np.nonzero((frame[..., 0] == 200) & (frame[..., 1] == 30))
        if len(rows):
            x, y = float(columns.min()), float(rows.min())
            w, h = float(columns.max()) + 1 - x, float(rows.max()) + 1 - y
            away = max(abs(x + w / 2 - window.center[0]), abs(y + h / 2 - window.center[1]))
            if away < 0.35 * window.side:
                return sight(window, (x, y, w, h), sure=True)
        cx, cy = window.center
        return sight(window, (cx - 40, cy - 5, 80.0, 10.0), sure=False)

    def track(
        self, frame: np.ndarray, way_back: Callable[[Box], float] = lambda box: 0.9
    ) -> Verdict:
        window = SquareCrop.around(self.next, 4.5, 224)
        (seen,) = self.see(frame, [window])
        verdict = self.recovery.judge(
            frame, seen, lambda windows: self.see(frame, windows), way_back
        )
        self.next = verdict.box_xywh
        return verdict


@pytest.fixture
def network() -> Network:
    return Network(Recovery(showing(BOX), BOX, factor=4.5, side=224))


def lose(network: Network) -> int:
    """Take the object away; returns after how many frames that is noticed."""
    for i in range(1, 30):
        if network.track(showing(None)).lost:
            return i
    raise AssertionError("not noticed")


def test_an_object_in_sight_costs_one_look_per_frame(network: Network) -> None:
    for i in range(10):
        verdict = network.track(showing((60 + 2 * i, 80, 30, 40)))
        assert not verdict.lost and verdict.probability > 0.9
        assert verdict.box_xywh == (60 + 2 * i, 80, 30, 40)
    assert network.looked == 10


def test_its_absence_is_noticed_and_the_box_kept(network: Network) -> None:
    network.track(showing((64, 80, 30, 40)))
    assert lose(network) <= 15
    assert network.recovery.trusted_xywh == (64, 80, 30, 40)


@pytest.mark.parametrize("box", [(10, 10, 30, 40), (270, 180, 36, 48), (60, 80, 30, 40)])
def test_it_is_found_again_anywhere_in_the_frame(network: Network, box: Box) -> None:
    lose(network)
    for _ in range(40):
        assert network.track(showing(None)).lost
    found = [not network.track(showing(box)).lost for _ in range(20)]
    assert any(found) and network.next == box == network.recovery.trusted_xywh


def test_the_looks_at_a_frame_are_bounded(network: Network) -> None:
    lose(network)
    before, most = network.looked, 0
    for _ in range(30):
        start = network.looked
        network.track(showing(None))
        most = max(most, network.looked - start)
    assert most <= 12 and network.looked - before <= 30 * 5


def test_a_double_of_other_colours_is_not_taken(network: Network) -> None:
    lose(network)
    network._see = lambda frame, window: sight(window, BOX, sure=True)  # type: ignore[method-assign]
    for _ in range(30):
        assert network.track(showing(BOX, BLUE)).lost


def test_what_does_not_lead_back_is_not_taken(network: Network) -> None:
    lose(network)
    for _ in range(30):
        verdict = network.track(showing((200, 150, 60, 20)), way_back=lambda box: 0.0)
        likely = verdict.probability
    assert network.track(showing((200, 150, 60, 20)), way_back=lambda box: 0.9).probability > likely


def test_lights_that_go_on_are_no_loss(network: Network) -> None:
    """The network goes on seeing it, while every colour has changed, the scene's as well."""

    def lit(strength: float) -> np.ndarray:
        frame = showing(BOX).astype(float)
        return (frame * (1 - strength) + frame[..., ::-1] * strength).astype(np.uint8)

    palette = network.recovery._palette
    assert palette.compare(lit(1), BOX) < 0.1 and palette.change_of_light(lit(1)) < 0.6
    assert palette.change_of_light(showing(BOX)) == pytest.approx(1)
    network._see = lambda frame, window: sight(window, BOX, sure=True)  # type: ignore[method-assign]
    for i in range(40):
        verdict = network.track(lit(min(1.0, i / 8)))
        assert not verdict.lost
    assert verdict.probability > 0.9  # the new colours have been learnt


def test_a_new_shot_does_not_inherit_the_box(network: Network) -> None:
    network.track(showing(BOX))
    assert network.track(showing(None, seed=1)).lost
    assert network.looked > 3  # all over the frame, at once


def test_a_new_shot_with_the_object_elsewhere(network: Network) -> None:
    network.track(showing(BOX))
    elsewhere: Box = (250, 20, 30, 40)
    verdicts = [network.track(showing(elsewhere, seed=1)) for _ in range(12)]
    assert verdicts[0].lost and not verdicts[-1].lost
    assert verdicts[-1].box_xywh == elsewhere


# --------------------------------------------------------------------------------------- the parts


def covered(sweep: Sweep, box: Box, sets: int) -> np.ndarray:
    """Pixels that have been in the middle 60 % of a window."""
    seen = np.zeros(SIZE, bool)
    for _ in range(sets * sweep.every):
        for place, factor in sweep.boxes(box, 4.5, SIZE):
            window = SquareCrop.around(place, factor, 224)
            reach = 0.3 * window.side
            (x, y), (h, w) = window.center, SIZE
            seen[
                max(0, int(y - reach)) : min(h, int(y + reach)),
                max(0, int(x - reach)) : min(w, int(x + reach)),
            ] = True
    return seen


@pytest.mark.parametrize("side", [12, 30, 80, 200])
def test_a_sweep_gets_around_the_frame(side: int) -> None:
    box: Box = (100.0, 100.0, float(side), float(side))
    windows = math.ceil(320 / (2.7 * side)) * math.ceil(240 / (2.7 * side))
    sets = math.ceil(windows / 10) * 4
    assert covered(Sweep(), box, sets).mean() > 0.97


def test_a_sweep_begins_where_the_object_was_last_seen() -> None:
    box: Box = (250.0, 30.0, 12.0, 12.0)
    seen = covered(Sweep(), box, 1)
    assert seen[36, 256] and not seen[200, 40]


def test_a_sweep_rests_between_sets_and_begins_anew_when_told() -> None:
    sweep = Sweep(every=3, limit=10)
    counts = [len(sweep.boxes(BOX, 4.5, SIZE)) for _ in range(7)]
    assert [count > 0 for count in counts] == [True, False, False, True, False, False, True]
    assert max(counts) <= 10
    sweep.start()
    assert sweep.boxes(BOX, 4.5, SIZE) == Sweep().boxes(BOX, 4.5, SIZE)


def test_palette_knows_the_colours_it_was_given_and_learns_new_ones() -> None:
    palette = Palette(showing(BOX), BOX)
    assert palette.compare(showing(BOX), BOX) == pytest.approx(1)
    blue = showing(BOX, BLUE)
    assert palette.compare(blue, BOX) < 0.1
    for _ in range(60):
        palette.learn(blue, BOX)
    assert palette.compare(blue, BOX) > 0.9
    assert palette.compare(showing(BOX), BOX) == pytest.approx(1)


@pytest.mark.parametrize("box", [(-50, -50, 40, 40), (310, 230, 40, 40), (100, 100, 0.2, 0.2)])
def test_palette_takes_boxes_at_the_border(box: Box) -> None:
    assert 0 <= Palette(showing(BOX), BOX).compare(scene(), box) <= 1


@pytest.mark.parametrize("box", [(10, 10, 30, 40), (270, 180, 36, 48), (60, 80, 30, 40)])
def test_one_look_at_a_whole_frame_finds_it_wherever_it_is(network: Network, box: Box) -> None:
    lose(network)
    trusted = network.recovery.trusted_xywh
    frame = showing(box)
    found = network.recovery.find(frame, lambda windows: network.see(frame, windows), lambda _: 0.9)
    assert found.box_xywh == box and not found.lost and found.probability > 0.9
    assert network.recovery.trusted_xywh == trusted and network.recovery.presence.lost


@pytest.mark.parametrize("color", [None, BLUE])
def test_one_look_at_a_whole_frame_proposes_nothing_else(
    network: Network, color: tuple[int, int, int] | None
) -> None:
    frame = showing(None) if color is None else showing((200, 100, 30, 40), color)
    found = network.recovery.find(frame, lambda windows: network.see(frame, windows), lambda _: 0.0)
    assert found.lost and found.probability < 0.3


def test_of_doubles_the_one_that_leads_back_is_taken(network: Network) -> None:
    double, own = (20.0, 20.0, 30.0, 40.0), (260.0, 180.0, 30.0, 40.0)

    def see(windows: Sequence[SquareCrop]) -> list[Sight]:
        places = [min((double, own), key=lambda b: abs(b[0] - w.center[0])) for w in windows]
        return [sight(w, place, sure=True) for w, place in zip(windows, places, strict=True)]

    frame = showing(double) | showing(own)
    found = network.recovery.find(frame, see, lambda box: 0.9 if box == own else 0.1)
    assert found.box_xywh == own
