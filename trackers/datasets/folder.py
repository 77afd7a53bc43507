"""Any folder of sequences of your own, and OTB-like data sets that need no reader."""

from __future__ import annotations

import collections.abc
from pathlib import Path

from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import folders_with, list_frames, read_boxes


@register("folder")
class Folder(Dataset):
    """One folder per sequence; frames in which the object is absent are not scored."""

    title = "your sequences"
    layout = "NAME/img/*.jpg or NAME/JPEGImages/*.jpg with NAME/groundtruth.txt (x,y,w,h per frame)"
    scoring = "folder"

    def __init__(
        self, root: Path, split: str, names: collections.abc.Sequence[str] | None = None
    ) -> None:
        self.title = root.resolve().name
        super().__init__(root, split, names)

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return folders_with(self.root, "groundtruth.txt")

    def __getitem__(self, name: str) -> Sequence:
        folder = self.root / name
        places = [folder / "img", folder / "JPEGImages"]  # the latter as in DAVIS
        frames = next((place for place in places if place.is_dir()), places[0])
        return Sequence(name, list_frames(frames), read_boxes(folder / "groundtruth.txt"))
