"""ImageNet VID (Russakovsky et al., IJCV 2015): the objects of the detection challenge's videos."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from media import InputError
from trackers.datasets.base import Dataset, Sequence, register
from trackers.datasets.files import list_frames, natural


@register("imagenet_vid")
class ImageNetVid(Dataset):
    """A sequence is one object of a video, VIDEO/ID, from its first frame to its last.

    "Occluded" in its labels means in part, so that such frames count. To open the data set means to
    read an XML file per frame, of which the training split has 1.1 million: pack it once.
    """

    title = "ImageNet VID"
    layout = "Annotations/VID/SPLIT/.../VIDEO/000000.xml with Data/VID/SPLIT/.../VIDEO/000000.JPEG"
    scoring = "folder"
    splits = ("val", "train")

    def find_names(self) -> list[str]:
        """See `Dataset.find_names`."""
        return list(self._boxes)

    def __getitem__(self, name: str) -> Sequence:
        first, boxes = self._boxes[name]
        video = self.root / "Data" / "VID" / self.split / name.rpartition("/")[0]
        return Sequence(name, list_frames(video)[first : first + len(boxes)], boxes)

    @cached_property
    def _boxes(self) -> dict[str, tuple[int, np.ndarray]]:
        """First frame and boxes (n, 4) of each object, nan where it is absent."""
        root = self.root / "Annotations" / "VID" / self.split
        videos = {path.parent for path in root.glob("**/000000.xml")}
        found: dict[str, tuple[int, np.ndarray]] = {}
        for video in sorted(videos, key=lambda path: natural(str(path))):
            objects: dict[str, dict[int, list[float]]] = {}
            for frame, path in enumerate(sorted(video.glob("*.xml"), key=str)):
                for number, box in _read_xml(path):
                    objects.setdefault(number, {})[frame] = box
            for number in sorted(objects, key=natural):
                rows = objects[number]
                first, last = min(rows), max(rows)
                boxes = np.full((last + 1 - first, 4), np.nan)
                boxes[[frame - first for frame in rows]] = list(rows.values())
                found[f"{video.relative_to(root).as_posix()}/{number}"] = first, boxes
        return found


def _read_xml(path: Path) -> list[tuple[str, list[float]]]:
    """Each object's number in its video, and its box, left, top, width, height."""
    objects = []
    try:
        # The files are the user's own; nothing from the network is parsed here.
        for each in ElementTree.fromstring(path.read_bytes()).iter("object"):  # noqa: S314
            number, box = each.findtext("trackid"), each.find("bndbox")
            if number is None or box is None:
                raise ValueError("an object without trackid or bndbox")
            x0, y0, x1, y1 = (float(box.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax"))
            objects.append((number, [x0, y0, x1 - x0, y1 - y0]))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path} is not an annotation of ImageNet VID: {error}.") from error
    return objects
