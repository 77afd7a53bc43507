"""LaSOT (Fan et al., CVPR 2019) and its extension of 150 sequences, LaSOText (IJCV 2021)."""

from __future__ import annotations

from pathlib import Path

from media import InputError
from trackers.datasets.archives import as_folder, inside
from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import (
    SPLITS,
    list_frames,
    natural,
    read_boxes,
    read_names,
    read_numbers,
)


class _LasotLike(Dataset):
    layout = "CLASS/CLASS-N/img/*.jpg with CLASS/CLASS-N/groundtruth.txt"
    scoring = "lasot"

    def _on_disk(self) -> list[str]:
        zips = [as_folder(path) for path in self.root.glob("*.zip")]
        truths = [path for root in (self.root, *zips) for path in root.glob("*/*/groundtruth.txt")]
        return sorted({path.parent.name for path in truths}, key=natural)

    def __getitem__(self, name: str) -> Sequence:
        # A class may still be the zip file that it is downloaded as.
        folder = inside(self.root, name.rpartition("-")[0]) / name
        frames, boxes = list_frames(folder / "img"), read_boxes(folder / "groundtruth.txt")
        occluded = read_numbers(folder / "full_occlusion.txt")
        outside = read_numbers(folder / "out_of_view.txt")
        if len(occluded) != len(outside):
            raise InputError(
                f"The sequence {name} has {len(occluded)} labels in full_occlusion.txt but "
                f"{len(outside)} in out_of_view.txt."
            )
        return Sequence(name, frames, boxes, shown=(occluded == 0) & (outside == 0))


@register("lasot")
class Lasot(_LasotLike):
    """The split is the data set's own file if it lies in the folder, else the list kept here."""

    title = "LaSOT"
    splits = ("test", "train")

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        if self.split == "test":
            return read_names(self._list("testing_set.txt") or SPLITS / "lasot_test.txt")
        own = self._list("training_set.txt")
        if own:
            return read_names(own)
        test = set(read_names(SPLITS / "lasot_test.txt"))
        return [name for name in self._on_disk() if name not in test]

    def _list(self, file: str) -> Path | None:
        path = self.root / file
        return path if path.is_file() else None


@register("lasot_ext")
class LasotExt(_LasotLike):
    """All of it is for testing."""

    title = "LaSOText"

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return self._on_disk()
