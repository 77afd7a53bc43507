"""Where samples come from: folders of frames and packed shards, as one list of clips."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from checkpoints.training.shards import Row, read_shards
from media import InputError

Split = Literal["train", "val"]

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_MASKS = ("annotations", "masks", "mask")  # names of folders beside the frames
_HELD_OUT = 20  # one clip in so many is for validation


@dataclass(frozen=True)
class Clip:
    """Frames of one video, in order.

    Attributes:
        name: for messages.
        group: clips of the same group come from the same video.
        frames: pictures, as files or as rows of shards.
    """

    name: str
    group: str
    frames: Sequence[Path | Row]

    def encoded(self, index: int) -> bytes:
        """The picture's file. Raises InputError if it cannot be read."""
        frame = self.frames[index]
        if isinstance(frame, Row):
            return frame.encoded()
        try:
            return frame.read_bytes()
        except OSError as error:
            raise InputError(f"The picture {frame} cannot be read: {error.strerror}.") from error

    def describe(self, index: int) -> str:
        """The picture in words, for messages."""
        frame = self.frames[index]
        if isinstance(frame, Row):
            return f"the picture at byte {frame.offset} of {frame.file}"
        return f"the picture {frame}"


def find_clips(folders: Iterable[str | Path], *, least: int) -> list[Clip]:
    """All clips of `least` frames or more in folders of frames and in packed shards.

    A folder with NAME.jsonl files holds shards (`python -m trackers pack DIR --kind clips`); in any
    other, each folder in it that holds pictures is a clip, but for masks and annotations.

    Raises:
        InputError: a folder is missing or holds no such clip.
    """
    clips: list[Clip] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; name one that holds clips.")
        packed = any(folder.glob("*.jsonl"))
        found = _packed(folder) if packed else picture_folders(folder, without=_MASKS)
        usable = [clip for clip in found if len(clip.frames) >= least]
        if not usable:
            raise InputError(
                f"{folder} holds no clip of at least {least} frames; give folders of frames, or "
                "clips packed by `python -m trackers pack DIR --kind clips`."
            )
        clips += usable
    return clips


def _packed(folder: Path) -> list[Clip]:
    videos: dict[str, list[Row]] = {}
    for row in read_shards(folder):
        if row.video is not None:
            videos.setdefault(row.video, []).append(row)
    clips = []
    for name, rows in videos.items():
        rows.sort(key=lambda row: row.frame or 0)
        clips.append(Clip(name, rows[0].source or name, rows))
    return clips


def picture_folders(folder: Path, *, without: Sequence[str] = ()) -> list[Clip]:
    """The folder itself and all below it that hold pictures, always in the same order.

    Args:
        folder: where to look.
        without: names of folders, in lower case, that are left out with all in them.
    """
    clips = []
    for place, below, files in os.walk(folder, followlinks=True):
        below[:] = sorted(name for name in below if name.lower() not in without)
        pictures = sorted(name for name in files if name.lower().endswith(_PICTURES))
        if pictures:
            name = str(Path(place).relative_to(folder.parent))
            clips.append(Clip(name, name, [Path(place) / picture for picture in pictures]))
    return sorted(clips, key=lambda clip: clip.name)


def find_masks(folders: Iterable[str | Path]) -> list[Clip]:
    """All sequences of masks: folders of pictures, those called Annotations or masks if any are.

    Raises:
        InputError: a folder holds no pictures.
    """
    masks: list[Clip] = []
    for folder in map(Path, folders):
        found = picture_folders(folder)
        if not found:
            raise InputError(f"{folder} holds no masks; name a folder of folders of mask pictures.")
        named = [clip for clip in found if {*Path(clip.name.lower()).parts} & {*_MASKS}]
        masks += named or found
    return masks


def choose(clips: Sequence[Clip], split: Split) -> list[Clip]:
    """The clips for training, or the others: a twentieth of the videos, rounded up.

    Which videos these are depends on their names alone.

    Raises:
        InputError: there is only one video.
    """
    videos = sorted({clip.group for clip in clips}, key=lambda name: zlib.crc32(name.encode()))
    held_out = set(videos[: math.ceil(len(videos) / _HELD_OUT)])
    if len(held_out) == len(videos):
        raise InputError(
            "One video is too little to train on and to hold out for validation; give more clips, "
            "or set validation.samples=0."
        )
    return [clip for clip in clips if (clip.group in held_out) == (split == "val")]
