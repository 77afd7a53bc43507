"""A project as one zip, to go on with it elsewhere: how it is packed, and how one is opened.

    project.json     what was pointed at, and the settings
    source.mp4       the video
    marks/*.png      masks that were painted, chosen or picked
    tracks.json, tracks.csv, masks/    what the last run has made, for other programs

Nothing in it says where it was made. Whoever opens one may have had it from anybody: of all that it
holds only files of these names are looked at, none is called on disk as it likes, and what is in
them is checked like anything that comes from the page.
"""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from checkpoints import CheckpointError
from demo.editing import MAX_NAME, MAX_THINGS, Document, History, Thing
from demo.imports import ODD
from demo.project import ADJUSTABLE, Settings, Task
from demo.sessions import Session
from demo.zips import open_archive
from media import InputError
from media.draw import parse_color
from media.masks import load_mask

RECORD = "project.json"
VERSION = 1
MAX_RECORD = 2**24  # bytes
MAX_MARKS = 2000  # key frames of all objects together
_CHUNK = 2**20
_SOURCE = re.compile(r"source([.][a-z0-9]{1,5})?")
_MARK = re.compile(r"marks/[0-9a-f]{32}[.]png")
_IMPORTED = re.compile(r"[0-9a-f]{32}([.][a-z0-9]{1,5})?")


# ---------------------------------------------------------------------------------------- packing


class _Stream(io.RawIOBase):
    """Where a zip is written to; what has come so far is taken away now and then."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def pack(session: Session) -> Iterator[bytes]:
    """A session's project as a zip, piece by piece."""
    record = {
        "mixcut": VERSION, "name": session.name, "source": session.source.name,
        "frame": session.frame_index, "document": session.document.to_json(),
        "settings": {name: getattr(session.settings, name) for name in ADJUSTABLE},
    }  # fmt: skip
    folder, shelf = session.folder, session.shelf
    own = [session.source, *(folder / "marks" / name for name in _marks(session.document))]
    if session.document.imported:
        own.append(folder / session.document.imported)
    made = [shelf / "tracks.json", shelf / "tracks.csv", *sorted(shelf.glob("masks/**/*.png"))]
    inside = [(path, path.relative_to(folder)) for path in own]
    inside += [(path, path.relative_to(shelf)) for path in made if path.is_file()]
    stream = _Stream()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(RECORD, json.dumps(record, indent=1))
        for path, name in inside:
            entry = zipfile.ZipInfo.from_file(path, name)
            with path.open("rb") as file, archive.open(entry, "w") as target:
                while piece := file.read(_CHUNK):
                    target.write(piece)
                    yield stream.take()
    yield stream.take()


def _marks(document: Document) -> list[str]:
    """The pictures that key frames are in."""
    marks = (mark for thing in document.things for mark in thing.marks.values())
    return sorted({mark.mask for mark in marks if mark.mask})


# ---------------------------------------------------------------------------------------- opening


def holds_project(path: Path) -> bool:
    """Whether a file is a zip of a project, and not some other one or none."""
    if path.suffix.lower() != ".zip":
        return False
    try:
        with open_archive(path) as archive:
            return RECORD in archive.namelist()
    except (OSError, zipfile.BadZipFile, *ODD):
        return False


@dataclass(frozen=True)
class Bundle:
    """What has been taken out of a zip."""

    name: str
    source: Path
    record: Mapping[str, Any]


def unpack(path: Path, folder: Path, max_bytes: int) -> Bundle:
    """Take the video, and what was pointed at, out of a zip into a session's new folder.

    Args:
        max_bytes: of all files together.

    Raises:
        InputError: it is damaged, too large, or not what `pack` makes.
    """
    try:
        with open_archive(path) as archive:
            if archive.getinfo(RECORD).file_size > MAX_RECORD:
                raise InputError(f"{path.name} holds more than a project can have.")
            record = json.loads(archive.read(RECORD))
            if record["mixcut"] != VERSION:
                raise InputError(f"{path.name} was made by another version of MixCut.")
            document = Document.from_json(record["document"])
            marks = [f"marks/{name}" for name in _marks(document)]
            wanted = [(record["source"], _SOURCE), *((mark, _MARK) for mark in marks)]
            if document.imported:
                wanted.append((document.imported, _IMPORTED))
            if not all(form.fullmatch(inside) for inside, form in wanted):
                raise _no_project(path.name)
            if sum(archive.getinfo(inside).file_size for inside, _ in wanted) > max_bytes:
                raise InputError(
                    f"{path.name} holds more than the {max_bytes >> 20} MB that are taken here."
                )
            for inside, _ in wanted:
                place = folder / inside
                place.parent.mkdir(mode=0o700, exist_ok=True)
                with archive.open(inside) as packed, place.open("wb") as target:
                    shutil.copyfileobj(packed, target, _CHUNK)
            name = " ".join(record["name"].split())[:255]
            return Bundle(name, folder / record["source"], record)
    except InputError:
        raise
    # RuntimeError: locked, or packed in a way that zipfile does not know.
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, *ODD) as error:
        raise _no_project(path.name) from error


def _no_project(name: str) -> InputError:
    return InputError(f"{name} is not a project that MixCut has packed, or it is damaged.")


def adopt(session: Session, bundle: Bundle) -> None:
    """Let a new session with the video of a bundle have what was pointed at, and the settings.

    Models and devices that are not here stay as they are by default.

    Raises:
        InputError: something does not fit the video, or is nothing that the page would have made.
    """
    try:
        document = Document.from_json(bundle.record["document"])
        _check(document, session)
        settings = _settings(bundle.record["settings"])
        frame = int(bundle.record["frame"])
    except InputError:
        raise
    except ODD as error:
        raise _no_project("This file") from error
    session.history = History(document)
    session.seek(frame)
    for name, value in settings.items():
        with suppress(InputError, CheckpointError):
            session.adjust(**{name: value})
    session.save()


def _check(document: Document, session: Session) -> None:
    """Raise InputError, or another of `ODD`, if the page would not have made this."""
    things, size, count = document.things, session.info.size, session.frame_count
    numbers = [thing.id for thing in things]
    stop = count if document.stop is None else document.stop
    fits = (
        len(things) <= MAX_THINGS
        and all(type(number) is int and number > 0 for number in numbers)
        and len(set(numbers)) == len(numbers)
        and sum(len(thing.marks) for thing in things) <= MAX_MARKS
        and document.active in (numbers or (0,))
        and type(document.start) is type(stop) is int
        and 0 <= document.start < stop <= count
        and all(_thing_fits(thing) for thing in things)
    )
    if not fits:
        raise ValueError
    folder = session.folder / "marks"
    for thing in things:
        for frame, mark in thing.marks.items():
            for said in (mark, replace(mark, mask="", choice=None)):
                if said is mark or said.points or said.box:
                    thing.marked(frame, said).prompt(folder).check(size, count)
    for name in _marks(document):
        if not load_mask(folder / name, size=size).any():
            raise ValueError
    if document.imported:
        session.read_import(session.folder / document.imported)


def _thing_fits(thing: Thing) -> bool:
    parse_color(str(thing.color))  # refuses what is none
    return (
        isinstance(thing.name, str)
        and 0 < len(thing.name) <= MAX_NAME
        and thing.do in get_args(Task)
        and type(thing.shown) is bool
        and all(
            (mark.choice is None or type(mark.choice) is int)
            and all(label in (0, 1) for _, _, label in mark.points)
            and all(math.isfinite(v) for place in (*mark.points, mark.box or ()) for v in place)
            for mark in thing.marks.values()
        )
    )


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that are there, each of its own type."""
    kinds, found = get_type_hints(Settings), dict[str, Any]()
    for name in (name for name in ADJUSTABLE if name in record):
        value = record[name]
        if name == "exports":
            value = tuple(map(str, value))
        elif kinds[name] is float:
            value = float(value)
        elif type(value) is bool is not kinds[name] or not isinstance(value, kinds[name]):
            raise TypeError
        found[name] = value
    return found
