"""Plain fills that a trained network is compared with, and the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import inpainter_training
from inpainting.training import Recipe, train
from inpainting.training.data import Batch
from tests.inpainting.training.conftest import clips, make

__all__ = ["clips", "make"]


def test_plain_fills() -> None:
    truth = torch.full((1, 3, 3, 20, 30), 0.5)
    truth[:, 1] = -0.5
    truth[..., :10] += 0.25
    holes = torch.zeros(1, 3, 1, 20, 30)
    holes[..., 5:15, 15:25] = 1
    batch = Batch(truth, holes, 2)
    mean = inpainter_training.mean_colour(batch)
    assert mean.shape == (1, 2, 3, 20, 30)
    # A third of the frame is brighter by a quarter, and a sixth of it is hidden.
    assert mean[0, 0].unique().item() == pytest.approx(0.5 + 0.25 * 0.4)
    filled = inpainter_training.telea(batch)
    assert (filled - truth[:, :2]).abs().max() < 0.02  # all round the hole is one colour


def test_the_table(
    make: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    recipe = make("tiny", **{"validation.samples": 2, "schedule.steps": 1})
    summary = train(recipe, tmp_path, device="cpu")
    monkeypatch.setattr("sys.argv", ["inpainter_training", str(tmp_path), "--device", "cpu"])
    inpainter_training.main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == [
        "mean colour of the frame",
        "Telea, frame by frame",
        "the network before training",
        "the network after training",
    ]
    figures = summary["figures"]
    assert float(rows[-1][1]) == pytest.approx(figures["held_out_psnr"], abs=0.006)
    assert float(rows[-1][2]) == pytest.approx(figures["held_out_hole_psnr"], abs=0.006)
