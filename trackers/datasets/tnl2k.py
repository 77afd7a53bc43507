"""TNL2K (Wang et al., CVPR 2021); its sentences in language.txt are not read."""

from __future__ import annotations

from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import folders_with, list_frames, read_boxes


@register("tnl2k")
class Tnl2k(Dataset):
    """Give the folder of the 700 test sequences."""

    title = "TNL2K"
    layout = "NAME/imgs/*.jpg or *.png with NAME/groundtruth.txt"
    scoring = "otb"

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return folders_with(self.root, "groundtruth.txt")

    def __getitem__(self, name: str) -> Sequence:
        folder = self.root / name
        return Sequence(name, list_frames(folder / "imgs"), read_boxes(folder / "groundtruth.txt"))
