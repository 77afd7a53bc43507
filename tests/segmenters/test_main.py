"""The command line: what it prints, what it writes, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segmenters
from media.masks import load_mask, save_mask
from segmenters.__main__ import main
from segmenters.sam import SamSegmenter

COUNT = 4


def truth(index: int) -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    mask[10:30, 10 + 3 * index : 34 + 3 * index] = True
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for name in ("one", "two"):
        frames, masks = tmp_path / "data/JPEGImages" / name, tmp_path / "data/Annotations" / name
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        for index in range(COUNT):
            Image.fromarray(np.roll(noise, 3 * index, axis=1)).save(frames / f"{index:05d}.png")
            save_mask(masks / f"{index:05d}.png", truth(index))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def small_models(small: SamSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenters, "build_segmenter", lambda *a, **k: small)


def values(line: str) -> list[float]:
    return [float(value) for value in line.split()[1:]]


def test_masks_that_are_made_are_scored(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(root), "--masks", str(root / "Annotations")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["J&F", "J", "recall", "decay", "F", "recall", "decay", "steady"]
    assert [line.split()[0] for line in lines[1:]] == ["one", "two", "mean"]
    assert values(lines[3])[:7] == [1, 1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize(
    "options", [[], ["--alone"], ["--prompt", "point"], ["--boxes", "BOXES"]], ids=str
)
def test_masks_are_made_scored_and_kept(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes/one.txt").write_text("10,10,24,20\n" * (COUNT - 1) + "nan,nan,nan,nan\n")
    options = [str(tmp_path / "boxes") if option == "BOXES" else option for option in options]
    kept = ["--embeddings", str(tmp_path / "seen"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(root), "--sequence", "one", *kept, *options]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("one") and len(values(line)) == 8
    made = sorted((tmp_path / "out/one").iterdir())
    assert len(made) == COUNT and load_mask(made[0]).shape == (48, 64)
    if "--boxes" in options:
        assert not load_mask(made[-1]).any()  # lost
    assert list((tmp_path / "seen").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masks", "here", "--boxes", "there"], "Give --boxes to make masks from, or --masks"),
        (["--sequence", "three"], "There is no sequence three"),
        (["--boxes", "nowhere"], "There are no boxes of one"),
        (["--masks", "nowhere"], "There are no masks of one"),
        (["--prompt", "wish"], "there is no 'wish'"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    root: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["evaluate", str(root), *options]) == 2
    error = capsys.readouterr().err
    assert "Error: " in error and message in error and "Traceback" not in error


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == segmenters.list_segmenters()
