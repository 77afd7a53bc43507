"""A zip file or an LMDB reads like the folder it was made of."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from media import InputError
from trackers.datasets import open_dataset
from trackers.datasets.archives import ArchivePath, as_folder
from trackers.datasets.coco import open_coco

Write = Callable[[str, str], Path]
Draw = Callable[[str, Iterable[int]], None]


def put_into_zip(folder: Path, place: Path) -> Path:
    """With entries for the folders too, as most programs write them."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    return place


def put_into_lmdb(folder: Path, place: Path) -> Path:
    lmdb = pytest.importorskip("lmdb")
    place.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(place), map_size=1 << 24) as database, database.begin(write=True) as writing:
        for path in folder.rglob("*"):
            if path.is_file():
                writing.put(path.relative_to(folder).as_posix().encode(), path.read_bytes())
    return place


KINDS = {"zip": put_into_zip, "lmdb": put_into_lmdb}


@pytest.fixture(params=KINDS)
def put(request: pytest.FixtureRequest) -> Callable[[Path, Path], Path]:
    return KINDS[request.param]


def test_it_offers_what_the_folder_does(tmp_path: Path, write: Write, put) -> None:
    for name in ("a/b/1.txt", "a/b/2.txt", "a/b.txt", "a/c/d/3.txt", "a0.txt", "e.txt"):
        write(f"tree/{name}", name)
    folder, archive = tmp_path / "tree", as_folder(put(tmp_path / "tree", tmp_path / "packed"))
    assert isinstance(archive, ArchivePath)
    for pattern in ("*", "*/*", "a/*.txt", "*/*/1.txt", "**/*.txt", "a/c/d/*", "a/b/2.txt", "x/*"):
        expected = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
        found = sorted(path.relative_to(archive).as_posix() for path in archive.glob(pattern))
        assert found == expected, pattern
    for inside in ("a", "a/b", "a/b/1.txt", "a/c", "nothing", "a/b/1", "e.txt"):
        ours, theirs = archive / inside, folder / inside
        assert (ours.is_dir(), ours.is_file()) == (theirs.is_dir(), theirs.is_file()), inside
        assert (ours.name, ours.stem, ours.suffix) == (theirs.name, theirs.stem, theirs.suffix)
    assert sorted(path.name for path in archive.iterdir()) == ["a", "a0.txt", "e.txt"]
    assert (archive / "a/b.txt").read_text(encoding="utf-8") == "a/b.txt"
    assert (archive / "a/b/1.txt").parent == archive / "a/b"
    with pytest.raises(FileNotFoundError):
        (archive / "a/b").read_bytes()
    # To a worker process it goes without the open file.
    assert pickle.loads(pickle.dumps(archive / "e.txt")).read_bytes() == b"e.txt"


def test_data_sets_in_archives(tmp_path: Path, write: Write, draw: Draw, put) -> None:
    name = "GOT-10k_Train_000001"
    write("got/train/list.txt", name + "\n")
    draw(f"got/train/{name}/{{:08d}}.jpg", range(1, 4))
    write(f"got/train/{name}/groundtruth.txt", "1,2,3,4\n" * 3)
    write(f"got/train/{name}/cover.label", "8\n0\n3\n")
    write(f"got/train/{name}/meta_info.ini", "[METAINFO]\nresolution: (16, 12)\n")
    plain = open_dataset("got10k", tmp_path / "got", split="train")[name]
    packed = open_dataset("got10k", put(tmp_path / "got", tmp_path / "packed"), split="train")[name]
    assert packed.visible.tolist() == [True, False, True] and packed.size == (12, 16)
    assert (packed.boxes_xywh == plain.boxes_xywh).all()
    assert all((packed[i] == plain[i]).all() for i in range(3))

    draw("coco/images/train2017/{}.jpg", [3])
    found = {
        "images": [{"id": 1, "file_name": "3.jpg"}],
        "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
    }
    write("coco/annotations/instances_train2017.json", json.dumps(found))
    coco = open_coco(put(tmp_path / "coco", tmp_path / "packed_coco"), "train2017")
    expected = (tmp_path / "coco/images/train2017/3.jpg").read_bytes()
    assert coco.files[0].read_bytes() == expected and coco.boxes_xywh.shape == (1, 4)


def test_files_as_they_are_downloaded(tmp_path: Path, write: Write, draw: Draw) -> None:
    """LaSOT has a zip file per class, TrackingNet one per sequence, COCO one per split."""
    draw("lasot/airplane/airplane-2/img/{:08d}.jpg", [1])
    for file, text in (("groundtruth", "1,2,3,4"), ("full_occlusion", "0"), ("out_of_view", "0")):
        write(f"lasot/airplane/airplane-2/{file}.txt", text)
    put_into_zip(tmp_path / "lasot", tmp_path / "lasot" / "airplane.zip")
    shutil.rmtree(tmp_path / "lasot" / "airplane")
    lasot = open_dataset("lasot", tmp_path / "lasot", split="train")
    assert lasot.names == ("airplane-2",)
    assert lasot["airplane-2"][0].shape == (12, 16, 3)

    write("net/TRAIN_0/anno/abc_0.txt", "1,2,3,4\n5,6,7,8\n")
    draw("frames/{}.jpg", [0, 1])
    put_into_zip(tmp_path / "frames", tmp_path / "net" / "TRAIN_0" / "zips" / "abc_0.zip")
    net = open_dataset("trackingnet", tmp_path / "net", split="train")
    assert net["abc_0"][1][0, 0].tolist() == [10, 0, 0]

    draw("pictures/train2017/{}.jpg", [3])
    found = {
        "images": [{"id": 1, "file_name": "3.jpg"}],
        "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
    }
    write("labels/annotations/instances_train2017.json", json.dumps(found))
    put_into_zip(tmp_path / "pictures", tmp_path / "coco" / "train2017.zip")
    put_into_zip(tmp_path / "labels", tmp_path / "coco" / "annotations_trainval2017.zip")
    assert len(open_coco(tmp_path / "coco", "train2017").files[0].read_bytes()) > 100


def test_trackingnet_as_lmdb(tmp_path: Path, write: Write, draw: Draw) -> None:
    write("chunk/anno/abc_0.txt", "1,2,3,4\n5,6,7,8\n")
    draw("chunk/frames/abc_0/{}.jpg", [0, 1])
    put_into_lmdb(tmp_path / "chunk", tmp_path / "net" / "TRAIN_4_lmdb")
    net = open_dataset("trackingnet", tmp_path / "net", split="train")
    assert net.names == ("abc_0",) and net["abc_0"][1][0, 0].tolist() == [10, 0, 0]


def test_damage_is_said(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("tree/x/img/{}.png", [1])
    write("tree/x/groundtruth.txt", "1,2,3,4\n")
    place = put_into_zip(tmp_path / "tree", tmp_path / "tree.zip")
    data = bytearray(place.read_bytes())
    start = data.index(b"\x89PNG")
    data[start + 20 : start + 40] = bytes(20)
    place.write_bytes(data)
    sequence = open_dataset("folder", place)["x"]
    assert sequence.boxes_xywh.shape == (1, 4)
    with pytest.raises(OSError, match="damaged in its archive"):
        sequence.frames[0].read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data.mdb").write_bytes(b"not a database")
    with pytest.raises(InputError, match="cannot be opened"):
        open_dataset("folder", tmp_path / "folder")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system starts processes otherwise")
def test_a_forked_process_reads_on(tmp_path: Path, write: Write, put) -> None:
    write("tree/a.txt", "hello")
    archive = as_folder(put(tmp_path / "tree", tmp_path / "packed"))
    assert (archive / "a.txt").read_bytes() == b"hello"
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        assert pool.submit((archive / "a.txt").read_bytes).result(timeout=120) == b"hello"
    assert (archive / "a.txt").read_bytes() == b"hello"
