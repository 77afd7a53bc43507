"""Several objects at once are followed as each would be alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoints
from checkpoints import WeightsRecord
from media import InputError
from tests.trackers.every_tracker import random_frame, refuses_wrong_use
from trackers import MultiTracker, Track, Tracker, base, build_network, build_tracker, list_trackers
from trackers.evaluation.opencv import build_baseline

SEED = Path(checkpoints.__file__).parent / "mixformerv2_small_seed.safetensors"
TINY = {"depth": 2, "dim": 48, "heads": 3, "search_size": 64, "template_size": 32}
BOXES = {3: (20, 40, 60, 80), 7: (300, 10, 350, 50), 1: (150, 60, 190, 110), 4: (90, 5, 120, 70)}


def tiny(name: str, **options: object) -> Tracker:
    torch.manual_seed(0)
    network = build_network(name, **TINY).eval().requires_grad_(False)
    tracker = base._registry[name].tracker
    assert tracker is not None
    return tracker(network, weights=WeightsRecord("random", ""), **options)


def moving_frames(count: int) -> list[np.ndarray]:
    """A patch of noise per box, each on its own way over noise that is weaker."""
    random = np.random.RandomState(0)
    background = random.randint(100, 140, (120, 400, 3)).astype(np.uint8)
    patches = {i: random.randint(0, 256, (40, 40, 3)).astype(np.uint8) for i in BOXES}
    frames = []
    for t in range(count):
        frame = background.copy()
        for i, (x, y, _, _) in BOXES.items():
            left, top = x + (t if i % 2 else -t), y + t % 5
            frame[top : top + 40, max(0, left) : left + 40] = patches[i][:, max(0, -left) :]
        frames.append(frame)
    return frames


def assert_same(found: dict[int, Track], wanted: dict[int, Track], pixels: float) -> None:
    assert found.keys() == wanted.keys()
    for i, track in wanted.items():
        assert np.abs(found[i].box - track.box).max() <= pixels
        assert found[i].score == pytest.approx(track.score, abs=1e-5, nan_ok=True)
        assert found[i].lost == track.lost


@pytest.mark.parametrize("name", list_trackers())
def test_each_object_is_followed_as_if_it_were_alone(name: str) -> None:
    """Through objects that come and go, corrections, and different numbers of templates."""
    frames = moving_frames(12)
    options = {"update_interval": 2, "online_size": 3} if "v2" in name else {}
    together = MultiTracker(tiny(name, **options))
    alone: dict[int, Tracker] = {}

    def add(i: int, frame: np.ndarray) -> None:
        together.add(i, frame, BOXES[i])
        alone[i] = tiny(name, **options)
        alone[i].initialize(frame, BOXES[i])

    add(3, frames[0])
    add(7, frames[0])
    moved = 0.0
    for t, frame in enumerate(frames[1:], 1):
        if t == 4:
            add(1, frames[3])
        if t == 6:
            add(4, frames[5])
            together.correct(7, frames[5], BOXES[7])
            alone[7].correct(frames[5], BOXES[7])
        if t == 9:
            together.remove(3)
            del alone[3]
        found = together.track(frame)
        assert_same(found, {i: tracker.track(frame) for i, tracker in alone.items()}, 1e-3)
        moved += sum(float(np.abs(track.box - BOXES[i]).max()) for i, track in found.items())
    assert together.ids == [7, 1, 4] and moved > 100


def test_bundled_weights_follow_several_as_one() -> None:
    frames = moving_frames(6)
    together = MultiTracker(build_tracker("mixformerv2_small", device="cpu", weights=SEED))
    alone = {}
    for i, box in BOXES.items():
        together.add(i, frames[0], box)
        alone[i] = build_tracker("mixformerv2_small", device="cpu", weights=SEED)
        alone[i].initialize(frames[0], box)
    for frame in frames[1:]:
        found = together.track(frame)
        assert_same(found, {i: tracker.track(frame) for i, tracker in alone.items()}, 1e-3)
    assert found[1].score > 0.5


def test_the_network_runs_once_per_number_of_templates(monkeypatch) -> None:
    tracker = tiny("mixformerv2_small", mode="benchmark", update_interval=3, online_size=2)
    together, frames = MultiTracker(tracker), moving_frames(9)
    together.add(1, frames[0], BOXES[1])
    together.add(3, frames[0], BOXES[3])
    batches: list[int] = []
    search = tracker.network.search
    monkeypatch.setattr(
        tracker.network,
        "search",
        lambda crops, cache: [batches.append(len(crops)), search(crops, cache)][1],
    )
    for frame in frames[1:5]:  # after the third, both have two online templates
        together.track(frame)
    assert batches == [2, 2, 2, 2]
    together.add(7, frames[4], BOXES[7])  # which has one
    together.track(frames[5])
    assert batches[4:] == [2, 1]


def test_windows_of_one_object_are_searched_together() -> None:
    tracker, frame = tiny("mixformerv2_small"), random_frame()
    tracker.initialize(frame, BOXES[3])
    first = tracker._windows()[0]
    tracker._place(BOXES[7], (120, 400))
    second = tracker._windows()[0]
    both = tracker._search(frame, [first, second])
    assert [sight.window for sight in both] == [first, second]
    for sight in both:
        (alone,) = tracker._search(frame, [sight.window])
        assert sight.box_xywh == pytest.approx(alone.box_xywh, abs=1e-3)
        assert sight.more.shape == (4 * 96,) and sight.more.sum() == pytest.approx(4, abs=1e-4)
        np.testing.assert_allclose(sight.more, alone.more, atol=1e-6)


def test_no_objects_no_tracks() -> None:
    assert MultiTracker(tiny("grm_base")).track(random_frame()) == {}


def test_wrong_use_is_told_in_a_sentence() -> None:
    together, frame = MultiTracker(tiny("mixformerv2_small")), random_frame()
    with pytest.raises(InputError, match="no area"):
        together.add(1, frame, [20, 40, 20, 80])
    assert together.ids == []
    together.add(1, frame, BOXES[1])
    with pytest.raises(InputError, match="300 x 120 pixels but the first was 400 x 120"):
        together.track(random_frame(width=300))
    with pytest.raises(KeyError):
        together.remove(2)
    with pytest.raises(InputError, match="OpenCvTracker follows one object at a time"):
        MultiTracker(build_baseline("opencv:KCF"))
    refuses_wrong_use(tiny("mixformerv2_small").another())


@pytest.mark.parametrize("name", list_trackers())
def test_an_object_is_looked_for_all_over_a_frame(name: str) -> None:
    """Where the tracker can tell whether it is there; as if it were alone, and nothing changes."""
    frames = moving_frames(3)
    together = MultiTracker(tiny(name))
    for i, box in BOXES.items():
        together.add(i, frames[0], box)
    before = together._objects[3]._box_xywh
    if "v2" not in name:
        with pytest.raises(InputError, match="click on it instead"):
            together.find(3, frames[1])
        return
    found = together.find(3, frames[1])
    alone = tiny(name)
    alone.initialize(frames[0], BOXES[3])
    assert_same({3: found}, {3: alone.find(frames[1])}, pixels=0.1)  # type: ignore[attr-defined]
    assert 0 <= found.score <= 1 and together._objects[3]._box_xywh == before
