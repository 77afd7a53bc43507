"""NfS, Need for Speed (Galoogahi et al., ICCV 2017), at 30 or 240 frames a second."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from media import InputError
from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import list_frames, natural, read_lines


@register("nfs")
class Nfs(Dataset):
    """The frame rate is the split: results are published on 30 frames a second."""

    title = "NfS"
    layout = "NAME/30/NAME/00001.jpg with NAME/30/NAME.txt"
    scoring = "otb"
    splits = ("30", "240")

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return sorted((path.stem for path in self.root.glob(f"*/{self.split}/*.txt")), key=natural)

    def __getitem__(self, name: str) -> Sequence:
        folder = self.root / name / self.split
        frames, boxes = list_frames(folder / name), _read_vatic(folder / f"{name}.txt")
        # Kept from the GOT-10k toolkit's reader: some files of the 30 Hz version label all 240,
        # and some have one line more or less than there are frames.
        if frames and abs(len(boxes) / len(frames) - 8) < 1:
            boxes = boxes[::8]
        if abs(len(boxes) - len(frames)) == 1:
            n = min(len(boxes), len(frames))
            frames, boxes = frames[:n], boxes[:n]
        return Sequence(name, frames, boxes)


def _read_vatic(path: Path) -> np.ndarray:
    """Lines of the VATIC tool, `id x0 y0 x1 y1 frame ...`, to float64 (n, 4) x y w h."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            x0, y0, x1, y1 = (float(value) for value in re.split(r"\s+", line.strip())[1:5])
        except ValueError:
            raise InputError(
                f"Line {number} of {path} is not `id x0 y0 x1 y1 frame ...`: {line[:60]!r}."
            ) from None
        rows.append([x0, y0, x1 - x0, y1 - y0])
    return np.array(rows, np.float64).reshape(-1, 4)
