"""The real models on real footage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import checkpoints
from demo.project import ObjectPrompt, Settings
from demo.run import run
from media.masks import MaskFolder, load_mask
from media.video import open_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def weights() -> None:
    missing = [name for name in ("mobile_sam", "spynet") if checkpoints.find(name) is None]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"needs weights: python -m checkpoints fetch {' '.join(missing)}")


def first_box(sequence: Path) -> tuple[float, float, float, float]:
    line = (sequence / "groundtruth.txt").read_text().splitlines()[0]
    x, y, w, h = (float(v) for v in line.replace("\t", ",").split(","))
    return x, y, x + w, y + h


@pytest.mark.parametrize(("name", "least"), [("car-shadow", 0.85), ("dog", 0.75)])
def test_masks_of_a_labelled_sequence(
    shared: Callable[[str], Path], tmp_path: Path, name: str, least: float
) -> None:
    """A box on the first frame gives masks that agree with those drawn by people."""
    sequence = shared(f"data/eval/vos/{name}")
    prompt = ObjectPrompt(id=1, name=name, color="#ff8800", box=first_box(sequence))
    run(sequence / "JPEGImages", tmp_path, [prompt], Settings(do="segment", end=20, trim=True))
    with open_video(sequence / "JPEGImages") as reader:
        ours = MaskFolder(tmp_path / "masks", size=reader.info.size)
    truth = [load_mask(p) for p in sorted((sequence / "Annotations").glob("*.png"))[:20]]
    overlaps = [(ours[i] & t).sum() / (ours[i] | t).sum() for i, t in enumerate(truth)]
    assert np.mean(overlaps) > least, overlaps
    assert len(json.loads((tmp_path / "tracks.json").read_text())["frames"]) == 20


def test_a_car_is_gone(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """Where the car was there is something else, and away from it nothing has changed."""
    sequence = shared("data/eval/vos/car-shadow")
    prompt = ObjectPrompt(id=1, name="car", color="#ff8800", box=first_box(sequence))
    run(sequence / "JPEGImages", tmp_path, [prompt], Settings(do="remove", end=12, trim=True))
    with (
        open_video(sequence / "JPEGImages") as before,
        open_video(tmp_path / "removed.mp4") as after,
    ):
        truth = [load_mask(p) for p in sorted((sequence / "Annotations").glob("*.png"))[:12]]
        for index in (0, 6, 11):
            change = np.abs(before[index].astype(int) - after[index].astype(int)).mean(axis=2)
            assert change[truth[index]].mean() > 25
            height = len(change)
            assert change[: height // 8].mean() < 4, "the sky is only compressed anew"
