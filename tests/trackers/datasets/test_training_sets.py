"""Data sets that are for training only: COCO and ImageNet VID, as their authors lay them out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from media import InputError
from trackers.datasets import open_dataset
from trackers.datasets.coco import open_coco

Write = Callable[[str, str], Path]
Draw = Callable[[str, Iterable[int]], None]


def instances() -> dict[str, list[dict[str, object]]]:
    def one(image: int, box: list[float], crowd: int = 0) -> dict[str, object]:
        return {"image_id": image, "bbox": box, "iscrowd": crowd, "category_id": 1}

    return {
        "images": [{"id": 30, "file_name": "2.jpg"}, {"id": 7, "file_name": "1.jpg"}],
        "annotations": [
            one(7, [1, 2, 3, 4]),
            one(30, [0, 0, 16, 12], crowd=1),
            one(30, [5, 6, 7.5, 5]),
            one(30, [5, 6, 0, 5]),
        ],
    }


@pytest.mark.parametrize("place", ["train2017", "images/train2017"])
def test_coco(place: str, tmp_path: Path, write: Write, draw: Draw) -> None:
    draw(place + "/{}.jpg", [1, 2])
    write("annotations/instances_train2017.json", json.dumps(instances()))
    coco = open_coco(tmp_path, "train2017")
    assert [path.name for path in coco.files] == ["2.jpg", "1.jpg"]
    assert coco.files[0].is_file() and coco.files[0].parent == tmp_path / place
    # Crowds and boxes without an area are left out.
    assert coco.boxes_xywh.tolist() == [[1, 2, 3, 4], [5, 6, 7.5, 5]]
    assert coco.images.tolist() == [1, 0]


def test_what_is_not_coco(tmp_path: Path, write: Write, draw: Draw) -> None:
    with pytest.raises(InputError, match=r"There is no folder .*nowhere, nor a zip file"):
        open_coco(tmp_path / "nowhere", "train2017")
    with pytest.raises(InputError, match=r"does not hold COCO's split val2017: annotations/inst"):
        open_coco(tmp_path, "val2017")
    draw("train2017/{}.jpg", [1])
    write("annotations/instances_train2017.json", '{"images": [{"id": 1}]}')
    with pytest.raises(InputError, match="is not a COCO file of instances"):
        open_coco(tmp_path, "train2017")
    write("annotations/instances_train2017.json", '{"images": [], "annotations": []}')
    with pytest.raises(InputError, match="names no object"):
        open_coco(tmp_path, "train2017")


def xml(objects: Iterable[tuple[int, tuple[int, int, int, int]]]) -> str:
    """An annotation with (trackid, (xmin, ymin, xmax, ymax)) each."""
    text = "".join(
        f"<object><trackid>{number}</trackid><name>n02</name><bndbox><xmax>{box[2]}</xmax>"
        f"<xmin>{box[0]}</xmin><ymax>{box[3]}</ymax><ymin>{box[1]}</ymin></bndbox>"
        "<occluded>1</occluded><generated>0</generated></object>"
        for number, box in objects
    )
    return f"<annotation><size><width>16</width><height>12</height></size>{text}</annotation>"


def test_imagenet_vid(tmp_path: Path, write: Write, draw: Draw) -> None:
    video = "ILSVRC2015_VID_train_0000/ILSVRC2015_train_00139005"
    draw(f"Data/VID/train/{video}/{{:06d}}.JPEG", range(5))
    seen = [[0], [0, 1], [1], [0, 1], []]
    for frame, numbers in enumerate(seen):
        objects = [(n, (1 + frame, 2, 5 + frame + n, 8)) for n in numbers]
        write(f"Annotations/VID/train/{video}/{frame:06d}.xml", xml(objects))
    dataset = open_dataset("imagenet_vid", tmp_path, split="train")
    assert dataset.names == (f"{video}/0", f"{video}/1")
    first, second = dataset[f"{video}/0"], dataset[f"{video}/1"]
    assert first.visible.tolist() == [True, True, False, True]
    assert second.visible.tolist() == [True, True, True]
    assert [path.stem for path in second.frames] == ["000001", "000002", "000003"]
    assert second.boxes_xywh[0].tolist() == [2, 2, 5, 6] and np.isnan(first.boxes_xywh[2]).all()
    assert second[0][0, 0].tolist() == [10, 0, 0]
    # The split val has one folder less.
    write("Annotations/VID/val/ILSVRC2015_val_00000000/000000.xml", xml([(3, (1, 2, 3, 4))]))
    draw("Data/VID/val/ILSVRC2015_val_00000000/{:06d}.JPEG", [0])
    assert open_dataset("imagenet_vid", tmp_path).names == ("ILSVRC2015_val_00000000/3",)
    write(f"Annotations/VID/train/{video}/000002.xml", "<annotation><object/></annotation>")
    with pytest.raises(InputError, match=r"000002.xml is not an annotation .*without trackid"):
        open_dataset("imagenet_vid", tmp_path, split="train")
