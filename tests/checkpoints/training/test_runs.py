"""What every run keeps: the average of its weights, and its figures."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

from checkpoints.training.records import Record
from checkpoints.training.runs import Average


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_average_follows_the_weights() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = Average(network, 0.5)
    torch.nn.init.ones_(network.weight)
    found = []
    for _ in range(3):
        average.update(network)
        found.append(average.state["weight"].item())
    assert found == pytest.approx([1 - 2 / 11, 1 - 2 / 11 * 3 / 12, 1 - 2 / 11 * 3 / 12 * 4 / 13])


def test_without_tensorboard_there_is_the_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level("INFO"):
        record = Record(tmp_path, 0)
    record.add(1, {"total": 2.0})
    record.add(2, {"other": 3.0})
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2"]
    assert "figures go to" in caplog.text


def test_a_record_goes_on_from_its_step(tmp_path: Path) -> None:
    record = Record(tmp_path, 0)
    for step in (1, 2, 3):
        record.add(step, {"total": step})
    record.close()
    again = Record(tmp_path, 2)
    again.add(3, {"total": 30.0})
    again.close()
    assert [(row["step"], row["total"]) for row in rows(tmp_path)] == [
        ("1", "1"),
        ("2", "2"),
        ("3", "30"),
    ]
