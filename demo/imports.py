"""Tracks and masks that were made before, here or with another program, in place of our own.

Read are the formats that `demo/exports.py` writes. Whatever cannot be made sense of is refused with
a sentence that names the file and the line.
"""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from demo.exports import CSV_HEADER
from demo.project import Box, ObjectPrompt, TrackPoint, Tracks, object_color, object_name
from demo.zips import open_archive
from media import InputError
from media.masks import decode_rle, load_mask
from segmenters.cleanup import mask_box

Rows = Iterator[tuple[int, int, TrackPoint]]  # frame, object, point
Place = Path | zipfile.Path
MAX_MEMBER = 2**28  # bytes of one file in a zip

# What Python says to data of another kind than was expected.
ODD = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


class _Unlike(ValueError):
    """A file is not like those of its format; says how, in words for the user."""


@contextmanager
def _expected(form: str) -> Iterator[None]:
    try:
        yield
    except ODD as error:
        raise _Unlike(form) from error


# ------------------------------------------------------------------------------- folders and zips


def open_zip(path: Path) -> zipfile.Path:
    """The folder of a zip that has what was packed: its top, or the only folder there is in it.

    Nothing is unpacked: files are read when they are asked for.

    Raises:
        InputError: it is no zip, lists too many files, or has one of more than `MAX_MEMBER`.
    """
    try:
        archive = open_archive(path)
    except (OSError, zipfile.BadZipFile, *ODD) as error:
        raise InputError(f"{path} cannot be read as a zip: {error}.") from error
    if any(member.file_size > MAX_MEMBER for member in archive.infolist()):
        raise InputError(f"{path} holds a file of more than {MAX_MEMBER >> 20} MB.")
    place = zipfile.Path(archive)
    while True:
        folders = _folders(place)
        masks = [folder for folder in folders if folder.name == "masks"]  # as we pack them
        if not masks and (_files(place) or len(folders) != 1):
            return place
        place = (masks or folders)[0]


def _files(place: Place, suffixes: Sequence[str] = ()) -> list[Any]:
    """The files in a folder by name, without the hidden ones; with `suffixes` only such."""
    files = (file for file in place.iterdir() if file.is_file() and file.name[0] != ".")
    wanted = (f for f in files if not suffixes or f.name.lower().endswith(tuple(suffixes)))
    return sorted(wanted, key=lambda file: file.name)


def _folders(place: Place) -> list[Any]:
    folders = (folder for folder in place.iterdir() if folder.is_dir())
    visible = (folder for folder in folders if not folder.name.startswith((".", "__")))
    return sorted(visible, key=lambda folder: folder.name)


# ----------------------------------------------------------------------------------------- tracks


def holds_masks(path: Path) -> bool:
    """Whether a file is one of masks (COCO, or a zip of pictures), and not one of tracks."""
    if path.suffix.lower() == ".zip":
        folder = open_zip(path)
        return any(_pictures(place) for place in (folder, *_folders(folder)))
    if path.suffix.lower() != ".json":
        return False
    try:
        return "annotations" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *ODD):
        return False  # reading it as tracks will say what is wrong


def read_tracks(path: Path, size: tuple[int, int], frame_count: int) -> Tracks:
    """Read boxes from tracks.json, tracks.csv, a MOT file, or OTB or VOT files.

    Args:
        path: the file; for OTB and VOT also a folder with a file `object_<id>.txt` per object, or a
            zip of one.
        size: (height, width) of the video.
        frame_count: frames that the video has.

    Raises:
        InputError: the file is in none of these formats, or does not fit the video.
    """
    zipped = path.suffix.lower() == ".zip"
    if path.is_dir() or zipped:
        files = _files(open_zip(path) if zipped else path, (".txt",))
        if not files:
            raise InputError(f"{path} holds no .txt file with boxes.")
        parts = [_read_lines(file, _object_of(file, k)) for k, file in enumerate(files, start=1)]
        rows: Rows = (row for part in parts for row in part)
    else:
        suffix = path.suffix.lower()
        read = {".json": _read_json, ".csv": _read_csv}.get(suffix, _read_text)
        rows = read(path)
    tracks = Tracks()
    try:
        for frame, object_id, point in rows:
            _check(point, size, frame, frame_count)
            tracks.put(frame, object_id, point)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a file of tracks: it is not text.") from error
    except _Unlike as error:
        raise InputError(f"{path} is not a file of tracks: {error}.") from error
    if not any(not p.lost for points in tracks.points.values() for p in points.values()):
        raise InputError(f"{path} has no box of this video.")
    return tracks


def _check(point: TrackPoint, size: tuple[int, int], frame: int, frame_count: int) -> None:
    if not 0 <= frame < frame_count:
        raise _Unlike(f"frame {frame} does not exist; the video has {frame_count} frames")
    if point.box is None:
        return
    x0, y0, x1, y1 = point.box
    height, width = size
    if not all(map(math.isfinite, point.box)) or x1 <= x0 or y1 <= y0:
        raise _Unlike(f"the box of frame {frame} has no area")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise _Unlike(f"the box of frame {frame} lies outside the {width} x {height} pixels")


def read_tracks_json(path: Path) -> Tracks:
    """Read back what `write_tracks_json` wrote."""
    tracks = Tracks()
    for frame, object_id, point in _read_json(path):
        tracks.put(frame, object_id, point)
    return tracks


def _read_json(path: Path) -> Rows:
    with _expected("it has no “frames” with “index” and “objects” of “id” and “box”"):
        for frame in json.loads(path.read_text(encoding="utf-8"))["frames"]:
            for item in frame["objects"]:
                score = math.nan if item.get("score") is None else float(item["score"])
                box = None if item["box"] is None else _box(item["box"])
                yield int(frame["index"]), int(item["id"]), TrackPoint(box=box, score=score)


def _read_csv(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        needed = {"frame", "object", *CSV_HEADER[3:7]}
        if missing := needed - set(rows.fieldnames or ()):
            raise _Unlike(f"it has no column {', '.join(sorted(missing))}")
        for row in rows:
            with _expected(f"line {rows.line_num} has no number where there should be one"):
                corners = [row[name] for name in CSV_HEADER[3:7]]
                box = _box(corners) if all(corners) else None
                score = float(row.get("score") or math.nan)
                frame, object_id = int(row["frame"]), int(row["object"])
            yield frame, object_id, TrackPoint(box=box, score=score)


def _read_text(path: Path) -> Rows:
    """A MOT file has seven columns or more; a file of one object has four, or VOT's lone number."""
    lines = path.read_text("utf-8").splitlines()
    if len(next((line for line in lines if line.strip()), "").replace(",", " ").split()) < 7:
        yield from _read_lines(path, 1)
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with _expected(f"line {number} is not frame,id,left,top,width,height,score"):
                frame, object_id, x, y, w, h, score = _numbers(line)[:7]
                place = int(frame) - 1, int(object_id)
            yield *place, TrackPoint((x, y, x + w, y + h), score)


def _read_lines(path: Place, object_id: int) -> Rows:
    for frame, line in enumerate(path.read_text("utf-8").splitlines()):
        with _expected(f"line {frame + 1} of {path.name} is not left,top,width,height"):
            numbers = _numbers(line)
            if len(numbers) not in (1, 4):
                raise ValueError
        if len(numbers) == 1 or not all(map(math.isfinite, numbers)) or not all(numbers[2:]):
            yield frame, object_id, TrackPoint(box=None, score=math.nan)
        else:
            x, y, w, h = numbers
            yield frame, object_id, TrackPoint(box=(x, y, x + w, y + h), score=math.nan)


def _object_of(file: Place, number: int) -> int:
    last = PurePath(file.name).stem.rpartition("_")[2]
    return int(last) if last.isdecimal() and int(last) > 0 else number


def _numbers(line: str) -> list[float]:
    return [float(value) for value in line.replace(",", " ").split()]


def _box(values: Any) -> Box:
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1


def read_names(path: Path) -> dict[int, str]:
    """What the objects of a file are called, by number, where it says so: our JSON, and COCO."""
    with suppress(InputError, OSError, *ODD):
        place: Place = path
        if path.suffix.lower() == ".zip":
            place = zipfile.Path(open_archive(path)) / "tracks.json"
        if place.name.lower().endswith(".json"):
            data = json.loads(place.read_text(encoding="utf-8"))
            entries = data["categories"] if "categories" in data else data["objects"]
            return {int(entry["id"]): str(entry["name"]) for entry in entries}
    return {}


def prompts_of(tracks: Tracks, names: Mapping[int, str] | None = None) -> list[ObjectPrompt]:
    """The objects of imported tracks, each with its first box as its prompt."""
    names = names or {}
    first: dict[int, tuple[int, Box]] = {}
    for frame in sorted(tracks.points):
        for object_id, point in tracks.points[frame].items():
            if point.box is not None:
                first.setdefault(object_id, (frame, point.box))
    return [
        ObjectPrompt(
            id=number,
            name=names.get(number, "").strip() or object_name(number),
            color=object_color(number),
            frame=frame,
            box=box,
        )
        for number, (frame, box) in sorted(first.items())
    ]


# ------------------------------------------------------------------------------------------ masks


class Masks(Protocol):
    """One object's masks, by frame."""

    def __getitem__(self, index: int) -> np.ndarray:
        """bool (h, w); empty where there is none."""
        ...


@dataclass(frozen=True)
class _Lazy:
    """Masks that are read or decoded when they are asked for."""

    size: tuple[int, int]
    loaders: Mapping[int, Callable[[], np.ndarray]]

    def __getitem__(self, index: int) -> np.ndarray:
        load = self.loaders.get(index)
        return np.zeros(self.size, bool) if load is None else load()


def read_masks(path: Path, size: tuple[int, int], frame_count: int) -> dict[int, Masks]:
    """Read masks per object from a folder of pictures or a COCO file.

    A folder, or a zip of one, holds a picture per frame, called by the frame's number from 0, or as
    many as the video has frames; or a folder of that kind per object.

    Raises:
        InputError: there is nothing that fits the video.
    """
    if not path.exists():
        raise InputError(f"There are no masks at {path}: check the name.")
    zipped = path.suffix.lower() == ".zip"
    if not path.is_dir() and not zipped:
        return _read_coco(path, size)
    place = open_zip(path) if zipped else path
    folders = [folder for folder in _folders(place) if _pictures(folder)]
    found = {_object_of(p, k): p for k, p in enumerate(folders, start=1)} or {1: place}
    return {number: _read_pictures(p, size, frame_count) for number, p in found.items()}


def _pictures(folder: Place) -> list[Any]:
    return _files(folder, (".png", ".bmp", ".gif"))


def _read_pictures(folder: Place, size: tuple[int, int], frame_count: int) -> Masks:
    files = _pictures(folder)
    names = [PurePath(file.name).stem for file in files]
    if files and all(name.isdecimal() for name in names):
        numbers = [int(name) for name in names]
        # Counted from 1, as some programs do.
        shift = int(min(numbers) == 1 and max(numbers) == frame_count)
        numbers = [number - shift for number in numbers]
    else:
        numbers = list(range(len(files)))
        if len(files) != frame_count:
            raise InputError(
                f"{folder} holds {len(files)} pictures and the video {frame_count} frames; call "
                "each mask by the number of its frame, from 00000.png."
            )
    if max(numbers) >= frame_count:
        raise InputError(
            f"{folder} has a mask of frame {max(numbers)}, but the video has {frame_count} frames."
        )
    loaders = (partial(load_mask, file, size=size) for file in files)
    return _Lazy(size, dict(zip(numbers, loaders, strict=True)))


def _read_coco(path: Path, size: tuple[int, int]) -> dict[int, Masks]:
    found: dict[int, dict[int, Callable[[], np.ndarray]]] = {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        frames = {
            image["id"]: int(image.get("frame_index", order))
            for order, image in enumerate(data["images"])
        }
        for annotation in data["annotations"]:
            rle = annotation["segmentation"]
            if tuple(rle["size"]) != tuple(size):
                raise InputError(
                    f"The masks in {path.name} are {rle['size'][1]}x{rle['size'][0]} and the video "
                    f"{size[1]}x{size[0]}: they have to be of one size."
                )
            loaders = found.setdefault(int(annotation["category_id"]), {})
            loaders[frames[annotation["image_id"]]] = partial(decode_rle, rle)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except InputError:
        raise
    except ODD as error:
        raise InputError(
            f"{path} is not a COCO file with run-length masks: it has no “images” with “id”, and "
            "“annotations” with “image_id”, “category_id” and a “segmentation” of “size” and "
            "“counts”."
        ) from error
    if not found:
        raise InputError(f"{path} holds no mask.")
    return {number: _Lazy(size, loaders) for number, loaders in sorted(found.items())}


def tracks_of(masks: Mapping[int, Masks], span: range) -> Tracks:
    """The boxes around imported masks; an object is lost where its mask is empty."""
    tracks = Tracks()
    for index in span:
        for number, source in masks.items():
            box = mask_box(source[index])
            point = TrackPoint(None if box is None else _box(box), math.nan)
            tracks.put(index, number, point)
    return tracks
