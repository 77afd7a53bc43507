"""What a run says about itself: a CSV of figures, TensorBoard where there is one, and pictures."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trackers.training.data import Batch, draw_batch
from trackers.training.saving import write

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


def write_sheet(batch: Batch, path: Path) -> None:
    """Draw samples of a batch, for a person to check."""
    picture = draw_batch(batch)
    write(path, lambda part: picture.save(part, format="PNG"))
