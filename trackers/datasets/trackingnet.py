"""TrackingNet (Mueller et al., ECCV 2018). Only its server knows the boxes of the test split."""

from __future__ import annotations

from pathlib import Path

from media import InputError
from trackers.datasets.archives import as_folder
from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import list_frames, natural, read_boxes


@register("trackingnet")
class TrackingNet(Dataset):
    """The training sequences lie in up to twelve chunks, of which any may be missing.

    Frames are read from frames/NAME/ or, where that is missing, from zips/NAME.zip.
    """

    title = "TrackingNet"
    layout = "TEST, TRAIN_0 ... TRAIN_11, each with frames/NAME/0.jpg, 1.jpg, ... and anno/NAME.txt"
    scoring = "otb"
    splits = ("test", "train")
    hidden_split = "test"

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        found = [path.stem for chunk in self._chunks() for path in chunk.glob("anno/*.txt")]
        return sorted(found, key=natural)

    def _chunks(self) -> list[Path]:
        names = ["TEST"] if self.split == "test" else [f"TRAIN_{i}" for i in range(12)]
        packed = [self.root / f"{name}_lmdb" for name in names]  # as the STARK family keeps them
        return [self.root / name for name in names] + [
            as_folder(path) for path in packed if path.is_dir()
        ]

    def __getitem__(self, name: str) -> Sequence:
        for chunk in self._chunks():
            boxes = chunk / "anno" / f"{name}.txt"
            if boxes.is_file():
                frames = chunk / "frames" / name
                zipped = chunk / "zips" / f"{name}.zip"  # as it is downloaded
                if not frames.is_dir() and zipped.is_file():
                    frames = as_folder(zipped)
                return Sequence(name, list_frames(frames), read_boxes(boxes), hidden=self.hidden)
        raise InputError(f"There is no file anno/{name}.txt in {self.root}.")
