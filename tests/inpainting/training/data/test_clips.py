"""Clips are found in folders of frames and in packed shards, and some are held out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoints.training.shards import ShardWriter
from inpainting.training.data.clips import Clip, choose, find_clips, find_masks
from media import InputError


def encoded(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), shade, np.uint8)).save(file, "WEBP", lossless=True)
    return file.getvalue()


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    folder = tmp_path / "packed"
    with ShardWriter(folder) as writer:
        for video, source in (("a_000000", "a.mp4"), ("a_000096", "a.mp4"), ("b_000000", "b.mp4")):
            for frame in (2, 0, 1):  # written in any order
                record = {"video": video, "frame": frame, "objects": [], "source": source}
                writer.add(encoded(40 * frame), (24, 32), record)
    return folder


def test_folders_of_frames_however_deep(clips: Path, tmp_path: Path) -> None:
    deep = tmp_path / "set"
    (deep / "JPEGImages" / "480p").mkdir(parents=True)
    (deep / "JPEGImages" / "480p" / "one").symlink_to(clips / "clip0")
    (deep / "JPEGImages" / "two").mkdir()
    (deep / "Annotations" / "two").mkdir(parents=True)
    for t in range(4):
        for kind in ("JPEGImages", "Annotations"):
            (deep / kind / "two" / f"{t}.png").write_bytes(b"")
    assert [clip.name for clip in find_clips([clips], least=3)] == [
        f"{clips.name}/clip{i}" for i in range(6)
    ]
    found = find_clips([deep], least=3)  # links are followed, annotations are no frames
    assert [clip.name for clip in found] == ["set/JPEGImages/480p/one", "set/JPEGImages/two"]
    assert [len(clip.frames) for clip in found] == [8, 4]


def test_packed_clips_come_in_order(packed: Path) -> None:
    clips = find_clips([packed], least=3)
    assert [(clip.name, clip.group) for clip in clips] == [
        ("a_000000", "a.mp4"),
        ("a_000096", "a.mp4"),
        ("b_000000", "b.mp4"),
    ]
    assert [clips[0].encoded(i) for i in range(3)] == [encoded(40 * i) for i in range(3)]


def test_what_holds_no_clip_is_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no clip of at least 4 frames"):
        find_clips([packed], least=4)
    with pytest.raises(InputError, match="There is no folder"):
        find_clips([tmp_path / "nowhere"], least=1)


def test_parts_of_a_video_are_held_out_together() -> None:
    clips = [Clip(f"{i}_{part}", f"{i}.mp4", []) for i in range(41) for part in range(2)]
    train, held_out = choose(clips, "train"), choose(clips, "val")
    assert sorted(map(id, [*train, *held_out])) == sorted(map(id, clips))
    assert len(held_out) == 2 * 3  # a twentieth, rounded up
    assert not {clip.group for clip in train} & {clip.group for clip in held_out}
    assert choose(clips[::-1], "val") == held_out[::-1]
    with pytest.raises(InputError, match="One video is too little"):
        choose(clips[:2], "train")


def test_what_is_gone_is_named(clips: Path) -> None:
    clip = Clip("x", "x", [clips / "gone.jpg"])
    with pytest.raises(InputError, match=r"gone.jpg cannot be read: No such file"):
        clip.encoded(0)


def test_masks_are_told_from_the_frames_beside_them(tmp_path: Path) -> None:
    for name in ("JPEGImages/a", "Annotations/a", "Annotations/b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.png").write_bytes(b"")
    found = find_masks([tmp_path / "set"])
    assert [clip.name for clip in found] == ["set/Annotations/a", "set/Annotations/b"]
    assert len(find_masks([tmp_path / "set" / "Annotations", tmp_path / "set"])) == 4
    with pytest.raises(InputError, match="holds no masks"):
        find_masks([tmp_path / "none"])
