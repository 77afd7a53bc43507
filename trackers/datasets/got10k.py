"""GOT-10k (Huang et al., TPAMI 2019). Only its server knows the boxes of the test split."""

from __future__ import annotations

import re
from pathlib import Path

from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import list_frames, read_boxes, read_lines, read_names, read_numbers


@register("got10k")
class Got10k(Dataset):
    """A frame of `val` or `train` counts where some of the object can be seen (cover > 0)."""

    title = "GOT-10k"
    layout = "SPLIT/list.txt with SPLIT/NAME/*.jpg, groundtruth.txt, and cover.label but for test"
    scoring = "got10k"
    splits = ("test", "val", "train")
    hidden_split = "test"

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return read_names(self.root / self.split / "list.txt")

    def __getitem__(self, name: str) -> Sequence:
        folder = self.root / self.split / name
        frames, boxes = list_frames(folder), read_boxes(folder / "groundtruth.txt")
        if self.hidden:
            return Sequence(name, frames, boxes, hidden=True)
        shown = read_numbers(folder / "cover.label") > 0
        return Sequence(name, frames, boxes, shown, _resolution(folder / "meta_info.ini"))


def _resolution(path: Path) -> tuple[int, int] | None:
    """(height, width) from the line `resolution: (1920, 1080)`, if there is one."""
    if not path.is_file():
        return None
    found = re.search(r"resolution:\s*\((\d+),\s*(\d+)\)", "\n".join(read_lines(path)))
    return (int(found[2]), int(found[1])) if found else None
