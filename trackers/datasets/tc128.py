"""Temple-Color 128 (Liang et al., TIP 2015)."""

from __future__ import annotations

from media import InputError
from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import (
    folders_with,
    frames_between,
    list_frames,
    read_boxes,
    read_numbers,
)


@register("tc128")
class Tc128(Dataset):
    """NAME_frames.txt says which frames belong to the sequence."""

    title = "TC128"
    layout = "NAME/img/0001.jpg with NAME/NAME_gt.txt and NAME/NAME_frames.txt"
    scoring = "otb"

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return folders_with(self.root, "*_gt.txt")

    def __getitem__(self, name: str) -> Sequence:
        folder = self.root / name
        span = read_numbers(folder / f"{name}_frames.txt")
        if len(span) != 2:
            raise InputError(f"{folder / name}_frames.txt is not a first and a last frame number.")
        frames = frames_between(list_frames(folder / "img"), int(span[0]), int(span[1]))
        return Sequence(name, frames, read_boxes(folder / f"{name}_gt.txt"))
