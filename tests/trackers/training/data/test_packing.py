"""From videos and pictures to shards, with labels of people or of optical flow."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from checkpoints.training.pictures import decode
from checkpoints.training.shards import read_shards
from media import InputError
from media.video import VideoWriter
from tests.trackers.training.data.scenes import encode, red_box, scene
from trackers.boxes import box_iou, xywh_to_xyxy
from trackers.training.data import DataConfig, SourceConfig, open_sources
from trackers.training.data.following import follow_regions
from trackers.training.data.packing import pack, read_tracks


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, size=frames[0].shape[:2], fps=Fraction(25), crf=5) as writer:
        for frame in frames:
            writer.write(frame)


def box_in(frame: int) -> tuple[int, int, int, int]:
    return 10 + 2 * frame, 30, 24, 18


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A video of 24 frames with an object 1 that is absent in frame 5, and an object 2 in 7."""
    frames = [scene(None if i == 5 else box_in(i), 3) for i in range(24)]
    write_video(tmp_path / "videos" / "one" / "video.mp4", frames)
    rows = []
    for i in range(24):
        objects = [{"id": 1, "box": box_in(i)}] if i != 5 else []
        objects += [{"id": 2, "box": [1, 2, 3, 4]}] if i == 7 else []
        rows.append(json.dumps({"frame": i, "objects": objects}))
    (tmp_path / "videos" / "one" / "tracks.jsonl").write_text("\n".join(rows))
    return tmp_path / "videos"


@pytest.mark.parametrize("encoding", ["webp", "jpeg"])
def test_labelled_videos(encoding, labelled: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    seen: list[int] = []
    found = pack(
        labelled, packed, kind="tracks", short_side=48, encoding=encoding, report=seen.append
    )
    assert (found.pictures, found.boxes, found.left_out) == (24, 24, []) and seen[-1] == 24
    rows = list(read_shards(packed))
    assert [row.frame for row in rows] == list(range(24)) and {row.video for row in rows} == {"one"}
    assert [len(row.objects) for row in rows] == [1] * 5 + [0, 1, 2] + [1] * 16
    assert rows[0].encoded()[:4] == (b"RIFF" if encoding == "webp" else b"\xff\xd8\xff\xe0")
    for row in (rows[0], rows[20]):
        image = decode(row.encoded(), "it")
        assert image.shape == (48, 64, 3) and row.size == (48, 64)  # half as large, boxes too
        assert red_box(image.astype(float)) == pytest.approx(
            xywh_to_xyxy(np.array(row.objects[0].box_xywh)), abs=1.1
        )
    (source,) = open_sources(DataConfig((SourceConfig("tracks", str(packed)),)))
    assert len(source) == 1  # object 2 shows too seldom
    assert source.info(0).absent_frames.tolist() == [5]


def test_every_so_many_frames(labelled: Path, tmp_path: Path) -> None:
    assert pack(labelled, tmp_path / "packed", kind="tracks", every=5).pictures == 5
    assert [row.frame for row in read_shards(tmp_path / "packed")] == [0, 5, 10, 15, 20]


def test_what_is_damaged_is_left_out_and_said(labelled: Path, tmp_path: Path) -> None:
    broken = labelled / "two"
    broken.mkdir()
    (broken / "video.mp4").write_bytes(b"no video")
    (broken / "tracks.jsonl").write_text("")
    outside = {"frame": 2, "objects": [{"id": 1, "box": [400, 30, 24, 18]}]}
    tracks = labelled / "one" / "tracks.jsonl"
    tracks.write_text(tracks.read_text() + "\n" + json.dumps(outside))
    found = pack(labelled, tmp_path / "packed", kind="tracks")
    assert found.pictures == 23 and len(found.left_out) == 2
    damaged, foreign = sorted(found.left_out, key=lambda sentence: "box" in sentence)
    assert "video.mp4 is not a video that can be read" in damaged
    assert "one one 2: the box (400.0, 30.0, 24.0, 18.0) is empty or outside" in foreign
    tracks.write_text('{"frame": 0, "objects": [{"box": [1, 2, 3, 4]}]}')
    with pytest.raises(InputError, match=r"Line 1 of .* does not list the objects of a frame"):
        read_tracks(tracks)


def test_a_damaged_picture_of_a_data_set_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "a" / "img"
    folder.mkdir(parents=True)
    for i in range(4):
        (folder / f"{i}.png").write_bytes(encode(scene(box_in(i), i)) if i != 2 else b"x")
    (folder.parent / "groundtruth.txt").write_text(
        "".join("{},{},{},{}\n".format(*box_in(i)) for i in range(4))
    )
    found = pack(tmp_path / "data", tmp_path / "packed", kind="folder")
    assert found.pictures == 3 and "a 2 is damaged" in found.left_out[0]


def test_what_cannot_be_packed(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    for kind, sentence in (
        ("films", "Nothing is known of data of the kind 'films'; there are tracks, clips, coco"),
        ("clips", r"holds no videos \(.mp4"),
        ("folder", "holds no sequence"),
        ("coco", "does not hold COCO's split"),
    ):
        with pytest.raises(InputError, match=sentence):
            pack(labelled, out, kind=kind)
    with pytest.raises(InputError, match=r"holds no NAME/tracks.jsonl"):
        pack(tmp_path / "nowhere", out, kind="tracks")
    with pytest.raises(InputError, match="every is at least 1"):
        pack(labelled, out, kind="tracks", every=0)
    for few in ({"limit": -1}, {"limit": 0}, {"shard_bytes": 0}):
        with pytest.raises(InputError, match="The limit and the size of a shard are at least 1"):
            pack(labelled, out, kind="tracks", **few)  # type: ignore[arg-type]
    (labelled / "one" / "tracks.jsonl").write_text("")
    with pytest.raises(InputError, match="holds nothing that can be packed as tracks"):
        pack(labelled, out, kind="tracks")
    assert not out.exists()
    out.mkdir()
    with pytest.raises(InputError, match="holds nothing that can be packed as tracks"):
        pack(labelled, out, kind="tracks")
    assert out.is_dir() and not list(out.iterdir())  # it was there before


# ------------------------------------------------------------------------- labels of optical flow


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """A texture that flow can follow."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(values, (0, 0), 2).astype(np.float32)
    return ((smooth - smooth.mean()) * 4 + 128).clip(0, 255).astype(np.uint8)


def test_regions_follow_the_picture() -> None:
    wide = noise(200, 400, 0)
    frames = [wide[10 + i : 130 + i, 3 * i : 3 * i + 160] for i in range(40)]
    tracks = follow_regions(frames, np.random.default_rng(0))
    assert len(tracks) >= 2
    for track in tracks:
        assert track.shape == (40, 4)
        n = int(np.isfinite(track[:, 0]).sum())
        assert n >= 20 and np.isfinite(track[:n]).all()
        steps = np.arange(n)[:, None]
        truth = track[0] + np.hstack([-3 * steps, -steps, 0 * steps, 0 * steps])
        assert box_iou(xywh_to_xyxy(track[:n]), xywh_to_xyxy(truth)).min() > 0.85


def test_a_region_grows_with_its_object() -> None:
    still = noise(120, 160, 0)
    frames = []
    for i in range(30):
        matrix = cv2.getRotationMatrix2D((80, 60), 0, 1.01**i)
        frames.append(cv2.warpAffine(still, matrix, (160, 120), borderMode=cv2.BORDER_REFLECT))
    grown = []
    for track in follow_regions(frames, np.random.default_rng(0)):
        n = int(np.isfinite(track[:, 0]).sum())
        grown.append((track[n - 1, 2] / track[0, 2]) / 1.01 ** (n - 1))
    assert grown and np.abs(np.array(grown) - 1).max() < 0.05


def test_regions_end_where_they_are_covered_or_cut_away() -> None:
    wide = noise(130, 400, 0)
    frames = [wide[:120, 3 * i : 3 * i + 160] for i in range(40)]
    cut_away = [*frames[:25], *[noise(120, 160, 9)] * 4]
    for track in follow_regions(cut_away, np.random.default_rng(0)):
        assert np.isnan(track[25:]).all()
    assert follow_regions(frames[:10], np.random.default_rng(0)) == []  # too few
    # What does not move, and what has no texture, teaches nothing.
    assert follow_regions(frames[:1] * 20, np.random.default_rng(0)) == []
    plain = [np.full((120, 160, 3), 90, np.uint8)] * 20
    assert follow_regions(plain, np.random.default_rng(0)) == []


def test_unlabelled_clips(tmp_path: Path) -> None:
    wide = noise(130, 500, 0)
    frames = [np.ascontiguousarray(wide[:120, 3 * i : 3 * i + 160]) for i in range(30)]
    write_video(tmp_path / "clips" / "pan.mp4", frames)
    found = pack(tmp_path / "clips", tmp_path / "packed", kind="clips")
    assert found.pictures == 30 and found.boxes >= 30 and not found.left_out
    (source,) = open_sources(DataConfig((SourceConfig("clips", str(tmp_path / "packed")),)))
    info = source.info(0)
    # Where a region could not be followed, it may still be.
    assert len(info.absent_frames) == 0 and all(r.partial for r in read_shards(tmp_path / "packed"))
    frames_seen = info.visible_frames
    steps = np.diff(info.boxes_xywh[frames_seen, 0])
    assert abs(np.median(steps) + 3) < 0.3
    again = pack(tmp_path / "clips", tmp_path / "again", kind="clips")
    assert again.boxes == found.boxes
