"""The tiny chain hands its weights on from stage to stage, and differences are judged soberly."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import distillation
from checkpoints.training.saving import write_weights
from checkpoints.training.shards import ShardWriter
from trackers.base import build_network

SMALL = {"dim": 32, "heads": 2, "mlp_ratio": 1.0}
KEPT = 8  # of 32 hidden units: as the tiny chain, a quarter


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """The tiny chain, tinier still: 32 channels, two steps a stage; and pictures to train on."""
    stages = copy.deepcopy(distillation.TINY_STAGES)
    stages[1]["init.weights"] = str(tmp_path / "start.safetensors")
    stages[5]["network.options.kept_hidden"] = stages[6]["init.kept_hidden"] = KEPT
    steps = {"schedule.batch_size": 2, "schedule.samples_per_epoch": 2, "validation.samples": 4}
    monkeypatch.setattr(distillation, "TINY_STAGES", stages)
    monkeypatch.setattr(distillation, "TINY_EPOCHS", (2,) * 7)
    monkeypatch.setattr(distillation, "WIDTH", SMALL)
    monkeypatch.setattr(distillation, "ON_A_CPU", distillation.ON_A_CPU | steps)
    network = build_network("mixformerv2_small", **SMALL)
    write_weights(network.state_dict(), tmp_path / "start.safetensors")
    random = np.random.default_rng(0)
    with ShardWriter(tmp_path / "stills") as writer:
        for _ in range(40):
            picture = random.integers(0, 255, (96, 120, 3), dtype=np.uint8)
            record = {"video": None, "frame": None, "objects": [{"box": [40, 30, 30, 24]}]}
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            writer.add(file.getvalue(), (96, 120), record)
    return [("stills", str(tmp_path / "stills"))]


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """One sequence of a square that moves."""
    folder = tmp_path / "sequences" / "square"
    (folder / "img").mkdir(parents=True)
    boxes = [(20 + 4 * frame, 30, 24, 24) for frame in range(4)]
    for number, (x, y, w, h) in enumerate(boxes):
        picture = np.zeros((96, 120, 3), np.uint8)
        picture[y : y + h, x : x + w] = 200
        Image.fromarray(picture).save(folder / "img" / f"{number:04d}.jpg")
    text = "".join(",".join(map(str, box)) + "\n" for box in boxes)
    (folder / "groundtruth.txt").write_text(text)
    return folder.parent


def test_the_tiny_chain_runs_to_its_end(small, sequences, tmp_path: Path, capsys) -> None:
    def chain() -> None:
        distillation.chain(small, tmp_path, "cpu", True, 1, 2, 1.0, sequences, frames=3)

    chain()
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ")[:2] for line in lines if line.startswith(("| taught", "| control"))]
    assert [name for branch, name in rows if branch == "| taught"] == list(distillation.CHAIN)
    assert [name for branch, name in rows if branch == "| control"] == list(distillation.CHAIN[1:6])
    assert sum(line.startswith("| sequences AUC") for line in lines) == 3
    # Both branches start alike; only what the first teacher knows differs.
    stage = distillation.CHAIN[1]
    taught, control = (
        json.loads((tmp_path / "42" / branch / stage / "recipe.json").read_text())
        for branch in ("taught", "control")
    )
    assert control["teacher"].pop("weights") is None and taught["teacher"].pop("weights")
    assert taught == control
    # What has been done is not done again.
    chain()
    assert capsys.readouterr().out.splitlines() == lines


def test_a_gain_below_the_deviation_is_none(capsys) -> None:
    before = [{"large": 0.1, "small": 0.1}, {"large": 0.2, "small": 0.2}]
    after = [{"large": 0.5, "small": 0.15}, {"large": 0.6, "small": 0.25}]
    distillation.compare(before, after, "a", "b")
    large, small = capsys.readouterr().out.splitlines()[2:]
    assert large.endswith("| +0.400 | yes |") and small.endswith("| +0.050 | no: none |")
