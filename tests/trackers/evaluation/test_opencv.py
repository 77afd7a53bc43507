"""OpenCV's trackers behind our interface."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checkpoints import WeightsRecord
from media import InputError
from trackers.datasets import Dataset
from trackers.evaluation.opencv import OpenCvTracker, build_baseline, list_baselines


def test_names() -> None:
    assert list_baselines() == ["opencv:CSRT", "opencv:KCF", "opencv:Nano"]
    with pytest.raises(InputError, match="There is no opencv:MOSSE; there are opencv:CSRT"):
        build_baseline("opencv:MOSSE")


@pytest.mark.parametrize("name", ["opencv:CSRT", "opencv:KCF"])
def test_follows_the_square(name: str, dataset: Dataset) -> None:
    sequence = dataset["a"]
    tracker = build_baseline(name)
    frame = sequence[0]
    before = frame.copy()
    tracker.initialize(frame, [20, 30, 50, 54])
    for i in range(1, len(sequence)):
        found = tracker.track(sequence[i])
    assert not found.lost and np.isnan(found.score)
    assert found.box == pytest.approx([30, 30, 60, 54], abs=4)
    assert np.array_equal(frame, before)
    tracker.correct(sequence[0], [20, 30, 50, 54])
    assert tracker.track(sequence[0]).box == pytest.approx([20, 30, 50, 54], abs=4)


def test_lost_keeps_the_last_box() -> None:
    class Blind:
        def init(self, frame: np.ndarray, box_xywh: tuple[int, ...]) -> None:
            assert box_xywh == (20, 30, 31, 24)  # whole pixels

        def update(self, frame: np.ndarray) -> tuple[bool, tuple[int, ...]]:
            return False, (0, 0, 0, 0)

    frame = np.zeros((90, 120, 3), np.uint8)
    tracker = OpenCvTracker(Blind, WeightsRecord("none", "none"))
    with pytest.raises(RuntimeError, match="has to come first"):
        tracker.track(frame)
    tracker.initialize(frame, [20.25, 30, 51, 54])
    found = tracker.track(frame)
    assert found.lost and found.box.tolist() == [20.25, 30, 51, 54]


def test_kcf_never_gives_up(dataset: Dataset) -> None:
    tracker = build_baseline("opencv:KCF")
    tracker.initialize(dataset["a"][0], [20, 30, 50, 54])
    noise = np.random.default_rng(1).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    assert not any(tracker.track(noise).lost for _ in range(3))


def test_boxes_beyond_the_frame_are_cut(dataset: Dataset) -> None:
    tracker = build_baseline("opencv:KCF")
    tracker.initialize(dataset["a"][0], [-8, -5, 30, 40.4])
    assert tracker.track(dataset["a"][0]).box.shape == (4,)
    with pytest.raises(InputError, match="no area"):
        tracker.initialize(dataset["a"][0], [5, 5, 5, 9])


def test_nano_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = r"one \*backbone\*.onnx and one \*head\*.onnx in .*; name another folder"
    with pytest.raises(InputError, match=sentence):
        build_baseline("opencv:Nano", folder=tmp_path)
    monkeypatch.setenv("MIXCUT_BASELINES", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="elsewhere"):
        build_baseline("opencv:Nano")


def test_nano_follows_the_square(
    dataset: Dataset, shared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXCUT_BASELINES", os.fspath(shared("weights/baselines")))
    tracker = build_baseline("opencv:Nano")
    assert "nanotrack_backbone" in tracker.weights.name and len(tracker.weights.sha256) == 12
    tracker.initialize(dataset["b"][0], [20, 30, 50, 54])
    for i in range(1, 4):
        found = tracker.track(dataset["b"][i])
    assert 0 < found.score <= 1
    assert found.box == pytest.approx([26, 30, 56, 54], abs=12)
