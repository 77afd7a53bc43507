"""OTB-100 (Wu et al., TPAMI 2015), also known as OTB-2015."""

from __future__ import annotations

from pathlib import Path

from media import InputError
from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import frames_between, list_frames, natural, read_boxes

# First and last frame, counted from 1, where the ground truth covers a part only.
_RANGES = {
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
}
# Frames left out at the beginning, boxes and all, as in the evaluations of the STARK family.
_SKIPPED = {"Tiger1": 5}


@register("otb100")
class Otb100(Dataset):
    """A video with two objects is two sequences: Jogging_1, Jogging_2, Skating2_1, ...

    Human4 is Human4_2 alone: the file of its first object is empty.
    """

    title = "OTB-100"
    layout = "NAME/img/0001.jpg with NAME/groundtruth_rect.txt"
    scoring = "otb"

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return sorted(self._files(), key=natural)

    def _files(self) -> dict[str, Path]:
        """Ground truth by the sequence's name."""
        files = {}
        for path in self.root.glob("*/groundtruth_rect*.txt"):
            number = path.stem.removeprefix("groundtruth_rect").lstrip(".")
            if path.stat().st_size > 4:  # a file of line ends only is an empty one
                files[path.parent.name + (f"_{number}" if number else "")] = path
        return files

    def __getitem__(self, name: str) -> Sequence:
        path = self._files().get(name)
        if path is None:
            raise InputError(f"There is no groundtruth_rect.txt for {name} in {self.root}.")
        frames, boxes = list_frames(path.parent / "img"), read_boxes(path)
        if len(frames) != len(boxes) and name in _RANGES:
            frames = frames_between(frames, *_RANGES[name])
        skip = _SKIPPED.get(name, 0)
        return Sequence(name, frames[skip:], boxes[skip:])
