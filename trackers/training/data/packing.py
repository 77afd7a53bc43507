"""From data sets and videos to packed shards, which a bare training machine reads."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from checkpoints.training.pictures import decode
from checkpoints.training.shards import Labelled, ShardWriter, four_numbers, is_inside
from media import InputError
from trackers.datasets import list_datasets
from trackers.training.data.following import follow_regions
from trackers.training.data.sources import open_labelled

Encoding = Literal["webp", "jpeg"]

_AT_ONCE = 64  # pictures that are encoded together
_FOLLOWED = 96  # frames of a clip through which regions are followed
_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


@dataclass
class Outcome:
    """What came of packing: how many pictures and boxes, and a sentence for each thing left out."""

    pictures: int = 0
    boxes: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """What to pack: see `pack`."""

    source: Path
    split: str | None = None
    short_side: int = 320
    every: int = 1
    limit: int | None = None
    outcome: Outcome = field(default_factory=Outcome)


@dataclass(frozen=True)
class Loose:
    """A picture with its labels, not packed yet.

    Attributes:
        image: (h, w, 3) RGB uint8, or the file it came in.
        objects: what is in it.
        record: `source`, and `video`, `frame` and `partial` as in shards.py.
    """

    image: np.ndarray | bytes
    objects: list[Labelled]
    record: dict[str, object]


# ------------------------------------------------------------------------------------- what is read


def _dataset(kind: str, job: Job) -> Iterator[Loose]:
    dataset = open_labelled(kind, job.source, job.split)
    for name in islice(dataset.names, job.limit):
        try:
            sequence = dataset[name]
        except (InputError, OSError) as error:
            job.outcome.left_out.append(str(error))
            continue
        for i in range(0, len(sequence), job.every):
            shown = [Labelled(four_numbers(sequence.boxes_xywh[i]), 1)]
            record = {"source": dataset.title, "video": f"{kind}_{name}", "frame": i}
            try:
                data = sequence.frames[i].read_bytes()
            except OSError as error:
                job.outcome.left_out.append(f"{sequence.frames[i]}: {error.strerror}.")
                continue
            yield Loose(data, shown if sequence.visible[i] else [], record)


def _coco(job: Job) -> Iterator[Loose]:
    from trackers.datasets.coco import open_coco

    coco = open_coco(job.source, job.split or "train2017")
    for image in islice(range(0, len(coco.files), job.every), job.limit):
        objects = [Labelled(four_numbers(box)) for box in coco.boxes_xywh[coco.images == image]]
        try:
            data = coco.files[image].read_bytes()
        except OSError as error:
            job.outcome.left_out.append(f"{coco.files[image]}: {error.strerror}.")
            continue
        yield Loose(data, objects, {"source": "COCO", "video": None, "frame": None})


def _tracks(job: Job) -> Iterator[Loose]:
    folders = sorted(path.parent for path in job.source.glob("*/tracks.jsonl"))
    if not folders:
        raise InputError(f"{job.source} holds no NAME/tracks.jsonl with NAME/video.mp4.")
    for folder in folders[: job.limit]:
        objects = read_tracks(folder / "tracks.jsonl")
        for i, image in _frames(folder / "video.mp4", job):
            record = {"source": folder.name, "video": folder.name, "frame": i}
            yield Loose(image, objects.get(i, []), record)


def read_tracks(path: Path) -> dict[int, list[Labelled]]:
    """Objects by frame. A line is {"frame": 0, "objects": [{"id": 1, "box": [x, y, w, h]}]}.

    Raises:
        InputError: the file is missing, or a line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    objects: dict[int, list[Labelled]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            found = [Labelled(four_numbers(each["box"]), each["id"]) for each in row["objects"]]
            objects.setdefault(int(row["frame"]), []).extend(found)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"Line {number} of {path} does not list the objects of a frame: {error!r}."
            ) from error
    return objects


def _clips(job: Job) -> Iterator[Loose]:
    if not job.source.is_dir():
        raise InputError(f"There is no folder {job.source}; give the one that holds videos.")
    videos = sorted(path for path in job.source.iterdir() if path.suffix.lower() in _VIDEOS)
    if not videos:
        raise InputError(f"{job.source} holds no videos ({', '.join(_VIDEOS)}).")
    for video in videos[: job.limit]:
        rng = np.random.default_rng(zlib.crc32(os.fsencode(video.name)))
        frames = _frames(video, job)
        while part := list(islice(frames, _FOLLOWED)):
            numbers = [number for number, _ in part]
            images = [_shrink(image, job.short_side) for _, image in part]
            tracks = follow_regions(images, rng)
            name = f"{video.stem}_{numbers[0]:06d}"
            for k in range(len(part) if tracks else 0):
                objects = [
                    Labelled(four_numbers(track[k]), i)
                    for i, track in enumerate(tracks, 1)
                    if np.isfinite(track[k]).all()
                ]
                record = {"source": video.name, "video": name, "frame": numbers[k], "partial": True}
                yield Loose(images[k], objects, record)


def _frames(video: Path, job: Job) -> Iterator[tuple[int, np.ndarray]]:
    """Numbers and pictures of a video's frames; they end where it cannot be read any further."""
    from media.video import open_video  # needs PyAV, which a training machine may lack

    try:
        with open_video(video) as reader:
            for number, frame in enumerate(reader.frames()):
                if number % job.every == 0:
                    yield number, frame
    except InputError as error:
        job.outcome.left_out.append(str(error))


_READERS: dict[str, Callable[[Job], Iterator[Loose]]] = {
    "tracks": _tracks,
    "clips": _clips,
    "coco": _coco,
}


# ---------------------------------------------------------------------------------- what is written


def _shrink(image: np.ndarray, short_side: int) -> np.ndarray:
    """To a shorter side of `short_side`; smaller pictures stay as they are."""
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return image
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _encode(
    each: Loose, short_side: int, encoding: Encoding, quality: int
) -> tuple[bytes, tuple[int, int], list[Labelled]]:
    """The picture's file, its (height, width), and the labels in its pixels."""
    file = each.image if isinstance(each.image, bytes) else None
    known = (each.record[key] for key in ("source", "video", "frame"))
    what = " ".join(str(value) for value in known if value is not None)
    # Decoded even if it stays as it is, so that a damaged one is found now.
    pixels = each.image if isinstance(each.image, np.ndarray) else decode(each.image, what)
    height, width = pixels.shape[:2]
    for labelled in each.objects:
        if not is_inside(labelled.box_xywh, (height, width)):
            raise InputError(f"{what}: the box {labelled.box_xywh} is empty or outside.")
    small = _shrink(pixels, short_side)
    if small is pixels and file is not None and file.startswith(b"\xff\xd8\xff"):
        return file, (height, width), each.objects
    along, down = small.shape[1] / width, small.shape[0] / height
    factors = np.array([along, down, along, down])
    objects = [replace(o, box_xywh=four_numbers(o.box_xywh * factors)) for o in each.objects]
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, encoding.upper(), quality=quality)
    return buffer.getvalue(), (small.shape[0], small.shape[1]), objects


def _as_json(labelled: Labelled) -> dict[str, object]:
    box = [round(value, 2) for value in labelled.box_xywh]
    return {"box": box} if labelled.id is None else {"id": labelled.id, "box": box}


def pack(
    source: Path,
    out: Path,
    *,
    kind: str,
    split: str | None = None,
    short_side: int = 320,
    every: int = 1,
    limit: int | None = None,
    encoding: Encoding = "webp",
    quality: int = 85,
    shard_bytes: int = 26 << 20,
    report: Callable[[int], None] = lambda pictures: None,
) -> Outcome:
    """Pack a data set. What cannot be read is left out, and said in the outcome.

    Args:
        source: its folder.
        out: folder for the shards, without any yet.
        kind: tracks (NAME/video.mp4 with NAME/tracks.jsonl), clips (videos without labels, in which
            regions are followed by optical flow), coco, or a name of `list_datasets()`.
        split: of the data set; None for train, or all of it if it is not split.
        short_side: pictures are shrunk to this shorter side, never enlarged; JPEG files that are
            small enough stay as they are.
        every: one frame in so many is kept.
        limit: most videos (of coco: pictures) that are packed.
        encoding: of the pictures.
        quality: of the encoding, 1 to 100.
        shard_bytes: largest size of a shard.
        report: called with the number of pictures so far.

    Raises:
        InputError: the source cannot be used, or nothing in it can be packed.
    """
    if every < 1 or short_side < 16 or not 1 <= quality <= 100:
        raise InputError("every is at least 1, the short side 16, and quality is 1 to 100.")
    if shard_bytes < 1 or (limit is not None and limit < 1):
        raise InputError("The limit and the size of a shard are at least 1.")
    if kind not in _READERS and kind not in list_datasets():
        known = ", ".join([*_READERS, *list_datasets()])
        raise InputError(f"Nothing is known of data of the kind {kind!r}; there are {known}.")
    job = Job(source, split, short_side, every, limit)
    outcome = job.outcome
    loose = _READERS[kind](job) if kind in _READERS else _dataset(kind, job)

    def encode(each: Loose) -> tuple[bytes, tuple[int, int], list[Labelled]] | InputError:
        try:
            return _encode(each, short_side, encoding, quality)
        except InputError as error:
            return error

    with ShardWriter(out, most_bytes=shard_bytes) as writer, ThreadPoolExecutor() as pool:
        while batch := list(islice(loose, _AT_ONCE)):
            for each, done in zip(batch, pool.map(encode, batch), strict=True):
                if isinstance(done, InputError):
                    outcome.left_out.append(str(done))
                    continue
                data, size, objects = done
                record = {**each.record, "objects": [_as_json(o) for o in objects]}
                writer.add(data, size, record)
                outcome.boxes += len(objects)
            outcome.pictures = writer.pictures
            report(outcome.pictures)
        if not outcome.boxes:
            why = f" {outcome.left_out[0]}" if outcome.left_out else ""
            raise InputError(f"{source} holds nothing that can be packed as {kind}.{why}")
    return outcome
