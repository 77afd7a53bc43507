"""UAV123 (Mueller et al., ECCV 2016): 123 sequences cut from 91 videos."""

from __future__ import annotations

from functools import cache

from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import SPLITS, frames_between, list_frames, read_boxes, read_names


@cache
def _clips() -> dict[str, tuple[str, int, int]]:
    """Folder, first and last frame of each sequence, as in the data set's configSeqs.m."""
    rows = [row.split() for row in read_names(SPLITS / "uav123.txt")]
    return {name: (folder, int(first), int(last)) for name, folder, first, last in rows}


@register("uav123")
class Uav123(Dataset):
    """Boxes are nan where the object is out of sight."""

    title = "UAV123"
    layout = "data_seq/UAV123/VIDEO/000001.jpg with anno/UAV123/NAME.txt"
    scoring = "uav"

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return list(_clips())

    def __getitem__(self, name: str) -> Sequence:
        folder, first, last = _clips()[name]
        frames = list_frames(self.root / "data_seq" / "UAV123" / folder)
        boxes = read_boxes(self.root / "anno" / "UAV123" / f"{name}.txt")
        return Sequence(name, frames_between(frames, first, last), boxes)
