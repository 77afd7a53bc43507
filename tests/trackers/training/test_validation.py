"""What is followed at the end of a run has boxes that are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media import InputError
from trackers.training import train
from trackers.training.validation import open_sequences


def write_frames(folder: Path) -> None:
    folder.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((80, 100, 3), 60, np.uint8)).save(folder / f"{i}.jpg")


def test_a_hidden_split_is_refused_before_any_step(make, tmp_path) -> None:
    write_frames(tmp_path / "TEST" / "frames" / "a")
    (tmp_path / "TEST" / "anno").mkdir()
    (tmp_path / "TEST" / "anno" / "a.txt").write_text("20,20,30,30\n")
    recipe = make("continue_small")
    with pytest.raises(InputError, match="Only the server of TrackingNet knows the boxes"):
        train(recipe, tmp_path / "run", device="cpu", evaluate=("trackingnet", tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_validation_part_goes_before_the_test(tmp_path) -> None:
    for split, boxes in (("test", 1), ("val", 3)):
        folder = tmp_path / split / split
        write_frames(folder)
        (tmp_path / split / "list.txt").write_text(f"{split}\n")
        (folder / "groundtruth.txt").write_text("20,20,30,30\n" * boxes)
        (folder / "cover.label").write_text("8\n" * boxes)
    data = open_sequences("got10k", tmp_path)
    assert data.names == ("val",) and data["val"].visible.all()


def test_without_opencv_nothing_is_followed(make, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="takes OpenCV"):
        train(make("continue_small"), tmp_path / "run", device="cpu", evaluate=("folder", tmp_path))
    assert not (tmp_path / "run").exists()
