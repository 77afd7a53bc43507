"""Results on disk, in the format of the OTB family, and archives for the servers that score.

    FOLDER/LABEL/DATASET_SPLIT/NAME.txt         left, top, width, height per frame, whole numbers
    FOLDER/LABEL/DATASET_SPLIT/NAME_time.txt    seconds per frame, the first for the start
    FOLDER/LABEL/DATASET_SPLIT/settings.json    what they were made with

Results of other people's trackers can be put beside ours: only NAME.txt is needed.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from media import InputError
from media.files import replacing
from trackers.datasets import Dataset
from trackers.datasets.files import read_boxes, read_numbers

_SETTINGS = "settings.json"


class Results:
    """What one tracker found on one data set.

    Args:
        folder: of all results.
        label: what the tracker is called; a folder of that name is made.
        dataset: for its name and split.
    """

    def __init__(self, folder: str | Path, label: str, dataset: Dataset) -> None:
        self.label = label
        self.path = Path(folder) / file_name(label) / f"{dataset.key}_{dataset.split}"

    def has(self, name: str) -> bool:
        """Whether the sequence is done; files get their name only when they are complete."""
        return self._boxes(name).is_file()

    def _boxes(self, name: str) -> Path:
        return self.path / f"{name}.txt"

    def _times(self, name: str) -> Path:
        return self.path / f"{name}_time.txt"

    def write(self, name: str, boxes_xywh: np.ndarray, seconds: np.ndarray) -> None:
        """Keep a result.

        Boxes are truncated to whole pixels: the evaluations of the STARK family do, and the
        published numbers of MixFormerV2 and GRM are those of truncated boxes.

        Args:
            name: of the sequence.
            boxes_xywh: (n, 4) left, top, width, height.
            seconds: (n,).
        """
        self.path.mkdir(parents=True, exist_ok=True)
        _save(self._times(name), seconds[:, None], "%.8f")
        # A side of 10 has become 9.99999 where a tracker gives x1 = x0 + 10 in single precision.
        _save(self._boxes(name), boxes_xywh.round(3).astype(np.int64), "%d")

    def boxes(self, name: str) -> np.ndarray:
        """float64 (n, 4) left, top, width, height; separated by tabs, commas or spaces."""
        return read_boxes(self._boxes(name))

    def seconds(self, name: str) -> np.ndarray | None:
        """float64 (n,), None where nobody measured."""
        path = self._times(name)
        return read_numbers(path) if path.is_file() else None

    def claim(self, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Say what results in this folder are made with, or see that it is the same as before.

        Raises:
            InputError: there are results made with other settings.
        """
        path = self.path / _SETTINGS
        if overwrite and self.path.is_dir():
            for old in self.path.glob("*.txt"):
                old.unlink()
        elif path.is_file() and (before := _read_settings(path)) != settings:
            changed = [key for key in settings if before.get(key) != settings[key]]
            raise InputError(
                f"{self.path} holds results made with another {' and '.join(changed) or 'setting'};"
                " name these with --label, or replace those with --overwrite."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return {}


def _save(path: Path, table: np.ndarray, form: str) -> None:
    with replacing(path) as part:
        np.savetxt(part, table, fmt=form, delimiter="\t")


def file_name(label: str) -> str:
    """A label as the name of a folder on any system."""
    return re.sub(r"[^\w.+-]+", "_", label)


def labels_in(folder: str | Path, dataset: Dataset) -> list[str]:
    """The trackers with results for this data set, of one sequence at least, sorted."""
    found = Path(folder).glob(f"*/{dataset.key}_{dataset.split}/")
    return sorted(path.parent.name for path in found if any(path.glob("*.txt")))


def write_submission(results: Results, names: Iterable[str]) -> Path | None:
    """Write the archive that the server of GOT-10k or TrackingNet takes.

    Args:
        results: of a split that only the server can score.
        names: the sequences of the split.

    Returns:
        The archive, beside the results; None if a sequence is missing, which no server accepts.
    """
    names = list(names)
    if not all(results.has(name) for name in names):
        return None
    got10k = results.path.name.startswith("got10k")
    path = results.path.with_suffix(".zip")
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            rows = results.boxes(name).astype(np.int64).tolist()
            text = "".join(",".join(map(str, row)) + "\n" for row in rows)
            archive.writestr(f"{name}/{name}_001.txt" if got10k else f"{name}.txt", text)
            seconds = results.seconds(name)
            if got10k and seconds is not None:
                lines = "".join(f"{value:.8f}\n" for value in seconds)
                archive.writestr(f"{name}/{name}_time.txt", lines)
    return path
