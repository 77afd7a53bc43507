"""What a run says about itself: a CSV of figures, TensorBoard where there is one, and pictures."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from checkpoints.training.processes import Place
from checkpoints.training.saving import write

_log = logging.getLogger(__name__)


class Record:
    """Rows of figures by step, in OUT/log.csv and OUT/tensorboard.

    Args:
        out: the run's folder.
        step: rows of this step and later ones are dropped: the run goes on from here.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._file = out / "log.csv"
        self._rows: list[dict[str, str]] = []
        if self._file.exists():
            with self._file.open(newline="", encoding="utf-8") as file:
                self._rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _log.info("There is no TensorBoard here; figures go to %s alone.", self._file)
        else:
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Write a row; columns may come and go."""
        shown = {name: f"{value:.6g}" for name, value in figures.items()}
        self._rows.append({"step": str(step), **shown})
        columns = list(dict.fromkeys(key for row in self._rows for key in row))

        def save(part: Path) -> None:
            with part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(self._rows)

        write(self._file, save)
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Let TensorBoard write what it holds."""
        if self._board is not None:
            self._board.close()


class Meter:
    """Means over the steps between two lines of the log."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps, self._waited, self._seconds, self._skipped = 0, 0.0, 0.0, 0

    def add(
        self, parts: Mapping[str, torch.Tensor], waited: float, seconds: float, usable: bool
    ) -> None:
        """Count a step; `waited` of its `seconds` went by without a batch."""
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self._waited += waited
        self._seconds += seconds
        self._skipped += not usable

    def share(self) -> None:
        """Let every process hold the mean of all, so that what one saves stands for all."""
        if self._sums:
            means = self._place.mean(torch.stack(list(self._sums.values())).float())
            self._sums = dict(zip(self._sums, means, strict=True))

    def state(self) -> dict[str, Any]:
        """What has been counted since the last line, for going on from here."""
        counts = (self._steps, self._waited, self._seconds, self._skipped)
        return {"sums": self._sums, "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set what `state` has returned."""
        device = self._place.device
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._steps, self._waited, self._seconds, self._skipped = state["counts"]

    def take(self, batch_size: int) -> dict[str, float]:
        """The means, of all processes, and start anew."""
        names, values = list(self._sums), list(self._sums.values())
        means = self._place.mean(torch.stack(values).float() / self._steps).tolist()
        figures = dict(zip(names, means, strict=True))
        figures["samples_per_second"] = self._steps * batch_size / self._seconds
        figures["waiting_for_data"] = self._waited / self._seconds
        if self._skipped:
            figures["steps_without_gradients"] = float(self._skipped)
        if self._place.device.type == "cuda":
            figures["gpu_gb"] = torch.cuda.max_memory_allocated(self._place.device) / 1e9
        self._reset()
        return figures
