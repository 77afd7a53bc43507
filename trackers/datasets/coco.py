"""COCO (Lin et al., ECCV 2014): photographs with boxes round their objects, for training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from media import InputError
from trackers.datasets.archives import as_folder, inside


@dataclass(frozen=True)
class Coco:
    """Photographs and the objects in them, crowds left out.

    Attributes:
        files: (m) pictures.
        boxes_xywh: float64 (n, 4) left, top, width, height in pixels, one per object.
        images: int64 (n,): in which of the pictures each object is.
    """

    files: tuple[Path, ...]
    boxes_xywh: np.ndarray
    images: np.ndarray


def open_coco(root: Path, split: str) -> Coco:
    """Read the instances of a split.

    Args:
        root: holds annotations/instances_SPLIT.json and SPLIT/*.jpg or images/SPLIT/*.jpg, or the
            zip files annotations_trainval2017.zip and SPLIT.zip; or is an LMDB or zip of these.
        split: train2017, val2017 and so on.

    Raises:
        InputError: a file or folder is missing or is something else.
    """
    root = as_folder(root)
    places = [root / "images" / split, inside(root, split)]
    folder = next((each for each in places if each.is_dir()), None)
    path = root / "annotations" / f"instances_{split}.json"
    zipped = root / "annotations_trainval2017.zip"
    if not path.is_file() and zipped.is_file():
        path = as_folder(zipped) / "annotations" / path.name
    if folder is None or not path.is_file():
        raise InputError(
            f"{root} does not hold COCO's split {split}: annotations/instances_{split}.json with "
            f"{split}/*.jpg or images/{split}/*.jpg is expected."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        numbers = {image["id"]: i for i, image in enumerate(found["images"])}
        files = tuple(folder / image["file_name"] for image in found["images"])
        objects = [
            (numbers[each["image_id"]], each["bbox"])
            for each in found["annotations"]
            if not each.get("iscrowd", 0) and min(each["bbox"][2:]) > 0
        ]
        boxes = np.array([box for _, box in objects], np.float64).reshape(-1, 4)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a COCO file of instances: {error!r}.") from error
    if not objects:
        raise InputError(f"{path} names no object.")
    return Coco(files, boxes, np.array([image for image, _ in objects], np.int64))
