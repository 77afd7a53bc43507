"""Where samples come from: each data set in its authors' layout, and what is refused early."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoints.training.shards import ShardWriter
from media import InputError
from tests.trackers.training.data.scenes import encode, misplaced, scene
from trackers.training.data import (
    Batches,
    DataConfig,
    SourceConfig,
    find_sources,
    open_sources,
)
from trackers.training.data.packing import pack
from trackers.training.data.sources import Tracks

FRAMES = 24


def box_in(frame: int) -> tuple[int, int, int, int]:
    return 10 + 2 * frame, 30, 24, 18


def write_frames(folder: Path, name: str, numbers: range, absent: set[int] = frozenset()) -> None:
    folder.mkdir(parents=True)
    for frame, number in enumerate(numbers):
        image = scene(None if frame in absent else box_in(frame), frame)
        (folder / name.format(number)).write_bytes(encode(image, "png"))


def write_boxes(path: Path, *, empty: set[int] = frozenset()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(0, 0, 0, 0) if i in empty else box_in(i) for i in range(FRAMES)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def lasot(root: Path) -> None:
    folder = root / "cat" / "cat-2"  # not in the list of test sequences
    write_frames(folder / "img", "{:08d}.png", range(1, FRAMES + 1), {5, 6})
    write_boxes(folder / "groundtruth.txt")
    (folder / "full_occlusion.txt").write_text(",".join("1" if i == 5 else "0" for i in range(24)))
    (folder / "out_of_view.txt").write_text(",".join("1" if i == 6 else "0" for i in range(24)))


def got10k(root: Path) -> None:
    folder = root / "train" / "GOT-10k_Train_000001"
    write_frames(folder, "{:08d}.png", range(1, FRAMES + 1), {5, 6})
    (root / "train" / "list.txt").write_text("GOT-10k_Train_000001\n")
    write_boxes(folder / "groundtruth.txt")
    cover = ["0" if i in (5, 6) else "8" for i in range(FRAMES)]
    (folder / "cover.label").write_text("\n".join(cover))


def trackingnet(root: Path) -> None:
    write_frames(root / "TRAIN_0" / "frames" / "abc_0", "{}.png", range(FRAMES), {5, 6})
    write_boxes(root / "TRAIN_0" / "anno" / "abc_0.txt", empty={5, 6})


def imagenet_vid(root: Path) -> None:
    video = Path("VID", "train", "ILSVRC2015_VID_train_0000", "ILSVRC2015_train_00000000")
    write_frames(root / "Data" / video, "{:06d}.PNG", range(FRAMES), {5, 6})
    (root / "Annotations" / video).mkdir(parents=True)
    for i in range(FRAMES):
        x, y, w, h = box_in(i)
        thing = (
            f"<object><trackid>0</trackid><bndbox><xmax>{x + w}</xmax><xmin>{x}</xmin>"
            f"<ymax>{y + h}</ymax><ymin>{y}</ymin></bndbox></object>"
        )
        text = f"<annotation>{'' if i in (5, 6) else thing}</annotation>"
        (root / "Annotations" / video / f"{i:06d}.xml").write_text(text)


LAYOUTS = {
    "lasot": lasot,
    "got10k": got10k,
    "trackingnet": trackingnet,
    "imagenet_vid": imagenet_vid,
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_data_sets_of_videos(kind: str, tmp_path: Path) -> None:
    LAYOUTS[kind](tmp_path / "data")
    packed = tmp_path / "packed"
    found = pack(tmp_path / "data", packed, kind=kind)
    assert (found.pictures, found.boxes, found.left_out) == (24, 22, [])
    opened = [(kind, tmp_path / "data"), ("tracks", packed)]  # as it lies, and packed
    for each_kind, path in opened:
        config = DataConfig((SourceConfig(each_kind, str(path)),), template_size=32, search_size=96)
        (source,) = open_sources(config)
        assert len(source) == 1 and source.is_video
        assert np.flatnonzero(~source.info(0).visible).tolist() == [5, 6]
        assert source.image(0, 3).shape == (96, 128, 3)
        batch = next(iter(Batches(config, seed=0, batch_size=16)))
        errors = misplaced(batch)
        assert len(errors) > 8 and np.median(errors) < 2.5


def coco(root: Path) -> None:
    (root / "train2017").mkdir(parents=True)
    images, annotations = [], []
    for i in range(4):
        buffer = io.BytesIO()
        Image.fromarray(scene(box_in(i), i)).save(buffer, "jpeg", quality=95, subsampling=0)
        (root / "train2017" / f"{i:012d}.jpg").write_bytes(buffer.getvalue())
        images.append({"id": i, "file_name": f"{i:012d}.jpg"})
        annotations.append({"image_id": i, "bbox": box_in(i), "iscrowd": 0})
        annotations.append({"image_id": i, "bbox": [0, 0, 90, 90], "iscrowd": 1})
    (root / "annotations").mkdir()
    found = json.dumps({"images": images, "annotations": annotations})
    (root / "annotations" / "instances_train2017.json").write_text(found)


def test_coco_as_it_lies_and_packed(tmp_path: Path) -> None:
    coco(tmp_path / "data")
    found = pack(tmp_path / "data", tmp_path / "packed", kind="coco")
    assert (found.pictures, found.boxes) == (4, 4)
    for kind, path in (("coco", tmp_path / "data"), ("stills", tmp_path / "packed")):
        config = DataConfig((SourceConfig(kind, str(path)),), template_size=32, search_size=96)
        (source,) = open_sources(config)
        assert len(source) == 4 and not source.is_video
        errors = misplaced(next(iter(Batches(config, seed=0, batch_size=16))))
        assert len(errors) > 8 and np.median(errors) < 2.5
    # Small JPEG files are packed as they are.
    first = (tmp_path / "data" / "train2017" / f"{0:012d}.jpg").read_bytes()
    assert (tmp_path / "packed" / "shard_00.bin").read_bytes().startswith(first)


def test_held_out_parts_share_nothing(tracks: Path, stills: Path) -> None:
    for kind, path in (("tracks", tracks), ("stills", stills)):
        sizes = {}
        for split in (None, "train", "val"):
            try:
                sizes[split] = len(open_sources(of(kind, path, split=split))[0])
            except InputError as error:  # so few that none is held out
                assert "split val, holds no" in str(error)
                sizes[split] = 0
        assert sizes["train"] + sizes["val"] == sizes[None] and sizes["train"] > sizes["val"]


def test_parts_of_a_clip_are_held_out_together(tmp_path: Path) -> None:
    picture, objects = encode(scene(box_in(0))), [{"id": 1, "box": box_in(0)}]
    with ShardWriter(tmp_path) as writer:
        for clip, part, frame in product(range(40), range(2), range(FRAMES)):
            place = {"source": f"{clip}.mp4", "video": f"{clip}_{part}", "frame": frame}
            writer.add(picture, (96, 128), {"objects": objects, "partial": True, **place})
    found = {}
    for split in ("train", "val"):
        (source,) = open_sources(of("clips", tmp_path, split=split))
        assert isinstance(source, Tracks)
        found[split] = {row.source for row in source.rows}
    assert found["train"] and found["val"] and found["train"].isdisjoint(found["val"])
    assert found["train"] | found["val"] == {f"{clip}.mp4" for clip in range(40)}


def of(kind: str, path: Path, **options: object) -> DataConfig:
    return DataConfig((SourceConfig(kind, str(path), **options),))  # type: ignore[arg-type]


def test_small_objects_can_be_left_out(stills: Path, tracks: Path) -> None:
    everything, large = (open_sources(of("stills", stills, min_side=side))[0] for side in (0, 20))
    assert 0 < len(large) < len(everything) == 40
    assert min(large.info(i).boxes_xywh[0, 2:].min() for i in range(len(large))) >= 20
    with pytest.raises(InputError, match="holds no track of 20 frames or more"):
        open_sources(of("tracks", tracks, min_side=16))  # all are 15 high


def test_what_is_refused_at_once(tmp_path: Path, stills: Path) -> None:
    with pytest.raises(InputError, match="Nothing is known of data of the kind 'lassot'"):
        open_sources(of("lassot", tmp_path))
    with pytest.raises(InputError, match=r"There is no folder .*nowhere"):
        open_sources(of("lasot", tmp_path / "nowhere"))
    with pytest.raises(InputError, match="have no split 'test'; there are train, val"):
        open_sources(of("stills", stills, split="test"))
    with pytest.raises(InputError, match="No sequences can be chosen from"):
        open_sources(of("stills", stills, sequences="list.txt"))
    with pytest.raises(InputError, match="min_side is for packed shards and coco, not for lasot"):
        open_sources(of("lasot", tmp_path, min_side=5))
    with pytest.raises(InputError, match="leaves nothing to draw from"):
        open_sources(of("stills", stills, emphasis={"*": 0}))
    got10k(tmp_path)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "list.txt").write_text("a\n")
    with pytest.raises(InputError, match="Nobody but its server knows the boxes of GOT-10k"):
        open_sources(of("got10k", tmp_path, split="test"))
    truth = tmp_path / "train" / "GOT-10k_Train_000001" / "groundtruth.txt"
    truth.write_text("400,30,24,18\n" * FRAMES)
    with pytest.raises(InputError, match=r"lies outside of its frame, 128 x 96; frames and boxes"):
        open_sources(of("got10k", tmp_path))
    frame = tmp_path / "train" / "GOT-10k_Train_000001" / "00000001.png"
    frame.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"00000001.png is damaged"):
        open_sources(of("got10k", tmp_path))


def test_a_first_sequence_that_never_shows_its_object_is_no_fault(tmp_path: Path) -> None:
    lasot(tmp_path)
    hidden = shutil.copytree(tmp_path / "cat" / "cat-2", tmp_path / "ant" / "ant-2")
    (hidden / "full_occlusion.txt").write_text(",".join("1" * FRAMES))
    (source,) = open_sources(of("lasot", tmp_path))
    assert len(source) == 2 and source.info(0).visible.sum() == 0
    shutil.rmtree(tmp_path / "cat")
    with pytest.raises(InputError, match="ant-2 never shows its object"):
        open_sources(of("lasot", tmp_path))


def test_sequences_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    got10k(tmp_path)
    (tmp_path / "train" / "list.txt").write_text("GOT-10k_Train_000001\nshort\nmissing\n")
    short = tmp_path / "train" / "short"
    write_frames(short, "{:08d}.png", range(1, 10))
    (short / "groundtruth.txt").write_text("10,30,24,18\n" * 9)
    (short / "cover.label").write_text("8\n" * 9)
    config = DataConfig((SourceConfig("got10k", str(tmp_path)),), template_size=32, search_size=64)
    batches = Batches(config, seed=0, batch_size=8)
    assert all(len(batch) == 8 for batch in islice(batches, 3))
    (sentence,) = batches.skipped  # one that is too short is no fault
    assert "missing" in sentence
    config = replace(config, sources=(replace(config.sources[0], sequences=str(tmp_path / "few")),))
    (tmp_path / "few").write_text("short\n")
    with pytest.raises(InputError, match="200 draws from the training data led to no sample"):
        next(iter(Batches(config, seed=0, batch_size=8)))


def test_a_list_of_sequences_chooses(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_frames(tmp_path / name / "img", "{:04d}.png", range(FRAMES))
        write_boxes(tmp_path / name / "groundtruth.txt")
    (tmp_path / "list.txt").write_text("b\n")
    assert len(open_sources(of("folder", tmp_path))[0]) == 2  # not split: all of it
    chosen = open_sources(of("folder", tmp_path, sequences=str(tmp_path / "list.txt")))[0]
    assert len(chosen) == 1 and str(chosen.picture(0, 3)).endswith("b/img/0003.png")


def test_the_tracks_at_hand(shared: Callable[[str], Path], tmp_path: Path) -> None:
    found = pack(shared("data/train/tracks"), tmp_path / "packed", kind="tracks", limit=2, every=3)
    assert found.pictures > 40 and not found.left_out
    (source,) = open_sources(of("tracks", tmp_path / "packed"))
    assert len(source) >= 1 and source.info(0).visible.sum() > 20


def test_a_folder_alone_says_what_it_holds(stills: Path, tracks: Path, tmp_path: Path) -> None:
    assert find_sources("got10k=x") == [("got10k", "x")]
    assert find_sources(str(stills)) == [("stills", str(stills))]  # by its shards
    assert find_sources(str(tracks)) == [("tracks", str(tracks))]
    for place, kind in (("clips", tracks), ("LaSOT-packed", tracks), ("my pictures", stills)):
        (tmp_path / "packed").mkdir(exist_ok=True)
        (tmp_path / "packed" / place).symlink_to(kind)
    found = dict((Path(path).name, kind) for kind, path in find_sources(str(tmp_path / "packed")))
    assert found == {"clips": "clips", "LaSOT-packed": "tracks", "my pictures": "stills"}
    for name in ("LaSOT", "GOT-10k", "TrackingNet", "ImageNet_VID", "coco", "photographs"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    assert find_sources(str(tmp_path / "sets" / "GOT-10k"))[0][0] == "got10k"
    kinds = [kind for kind, _ in find_sources(str(tmp_path / "sets"))]
    assert kinds == ["got10k", "imagenet_vid", "lasot", "trackingnet", "coco"]


@pytest.mark.parametrize("text", ["nowhere", "stills=", "photographs"])
def test_another_folder_does_not(text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    with pytest.raises(InputError, match="--data takes KIND=PATH such as stills=DIR, not") as told:
        find_sources(text)
    assert ("there is no folder" in str(told.value)) == (text != "photographs")
