"""TrackingNet (Mueller et al., ECCV 2018). Only its server knows the boxes of the test split."""

from __future__ import annotations

from pathlib import Path

from media import InputError
from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import list_frames, natural, read_boxes


@register("trackingnet")
class TrackingNet(Dataset):
    """The training sequences lie in up to twelve chunks, of which any may be missing."""

    title = "TrackingNet"
    layout = "TEST/frames/NAME/0.jpg, 1.jpg, ... with TEST/anno/NAME.txt"
    scoring = "otb"
    splits = ("test", "train")
    hidden_split = "test"

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        found = [path.stem for chunk in self._chunks() for path in chunk.glob("anno/*.txt")]
        return sorted(found, key=natural)

    def _chunks(self) -> list[Path]:
        names = ["TEST"] if self.split == "test" else [f"TRAIN_{i}" for i in range(12)]
        return [self.root / name for name in names]

    def __getitem__(self, name: str) -> Sequence:
        for chunk in self._chunks():
            boxes = chunk / "anno" / f"{name}.txt"
            if boxes.is_file():
                frames = list_frames(chunk / "frames" / name)
                return Sequence(name, frames, read_boxes(boxes), hidden=self.hidden)
        raise InputError(f"There is no file anno/{name}.txt in {self.root}.")
