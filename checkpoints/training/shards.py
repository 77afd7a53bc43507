"""Packed shards: encoded pictures end to end in one file, and one line of JSON about each.

`NAME.bin` holds WebP or JPEG files, one after the other. A line of `NAME.jsonl` describes one:
`off` and `len` (bytes), `w` and `h` (pixels), `objects` (each a `box` = x, y, w, h in pixels and,
if it is the same thing as in other frames, an `id`), `video` and `frame` where the picture is one
of a video, `source` for people. An object that a frame of its video does not list is absent there,
or, if the line says `partial`, possibly just not labelled. A video may be spread over shards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from media import InputError


@dataclass(frozen=True, slots=True)  # there may be millions
class Labelled:
    """One object in one picture: `id` is None where it is not known from other frames."""

    box_xywh: tuple[float, float, float, float]
    id: int | str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a shard.

    Attributes:
        file: the .bin file.
        offset: where its bytes begin, and `length` how many there are.
        size: (height, width) in pixels.
        objects: what is labelled in it.
        video: of which video it is a frame, if any; `frame` is its number there.
        partial: objects of the video that are not listed may be in it nevertheless.
        source: what it was taken from, if that is known.
    """

    file: Path
    offset: int
    length: int
    size: tuple[int, int]
    objects: tuple[Labelled, ...]
    video: str | None = None
    frame: int | None = None
    partial: bool = False
    source: str | None = None

    def encoded(self) -> bytes:
        """The bytes of the picture. Raises InputError if the file is gone or shorter."""
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.length)
        except OSError as error:
            raise InputError(f"The shard {self.file} cannot be read: {error.strerror}.") from error
        if len(data) != self.length:
            raise InputError(f"The shard {self.file} ends too early; pack or copy it anew.")
        return data


def read_shards(folder: Path) -> Iterator[Row]:
    """All pictures of a folder of shards, in the order of their names and lines.

    Raises:
        InputError: there is no shard, a line is not as described above, or a box lies outside.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the one that holds packed shards.")
    indices = sorted(folder.glob("*.jsonl"))
    if not indices:
        raise InputError(f"{folder} holds no packed shards: NAME.bin with NAME.jsonl is expected.")
    for index in indices:
        data = index.with_suffix(".bin")
        if not data.is_file():
            raise InputError(f"{index} describes {data.name}, which is not beside it.")
        end = data.stat().st_size
        with index.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = _read_row(data, json.loads(line.decode()))
                except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
                    raise InputError(
                        f"Line {number} of {index} does not describe a picture: {error!r}."
                    ) from error
                if row.offset < 0 or row.length < 1 or row.offset + row.length > end:
                    raise InputError(
                        f"Line {number} of {index} points beyond the end of {data.name}, which is "
                        "incomplete; pack or copy it anew."
                    )
                for labelled in row.objects:
                    if not is_inside(labelled.box_xywh, row.size):
                        raise InputError(
                            f"Line {number} of {index} has a box {list(labelled.box_xywh)} that is "
                            f"empty or outside of its picture, {row.size[1]} x {row.size[0]}."
                        )
                yield row


def _read_row(file: Path, record: Any) -> Row:
    if not isinstance(record, dict):
        raise TypeError("it is no JSON object")
    video = record.get("video")
    if not isinstance(video, (str, type(None))):
        raise TypeError("its video is no name")
    return Row(
        file=file,
        offset=int(record["off"]),
        length=int(record["len"]),
        size=(int(record["h"]), int(record["w"])),
        objects=tuple(
            Labelled(four_numbers(each["box"]), _identity(each.get("id")))
            for each in record["objects"]
        ),
        video=video,
        frame=None if video is None else int(record["frame"]),
        partial=bool(record.get("partial", False)),
        source=record.get("source"),
    )


def _identity(value: Any) -> int | str | None:
    if not isinstance(value, (int, str, type(None))):
        raise TypeError("an id is neither a number nor a name")
    return value


def four_numbers(box: Iterable[float]) -> tuple[float, float, float, float]:
    """A box as plain numbers. Raises ValueError if it is not four of them."""
    x, y, w, h = (float(value) for value in box)
    return x, y, w, h


def is_inside(box_xywh: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a box has an area and some of it lies in a picture of (height, width)."""
    x, y, w, h = box_xywh
    return (
        all(math.isfinite(value) for value in box_xywh)
        and w > 0
        and h > 0
        and min(x + w, size[1]) > max(x, 0)
        and min(y + h, size[0]) > max(y, 0)
    )


class ShardWriter:
    """Writes shards NAME_00, NAME_01, ... of at most `most_bytes` each; a context manager.

    Nothing is left if an exception ends the writing, and no folder that was not there before.

    Args:
        folder: where to; made if need be.
        name: what the files begin with.
        most_bytes: size at which the next shard begins.

    Raises:
        InputError: the folder already holds shards of that name.
    """

    def __init__(self, folder: Path, name: str = "shard", most_bytes: int = 26 << 20) -> None:
        if any(folder.glob(f"{name}_*.jsonl")):
            raise InputError(f"{folder} already holds packed shards; give an empty folder.")
        self._new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._most = folder, name, most_bytes
        self._done: list[Path] = []
        self._lines: list[str] = []
        self._data = bytearray()
        self.pictures = 0

    def add(self, encoded: bytes, size: tuple[int, int], record: Mapping[str, Any]) -> None:
        """Append one picture of (height, width) and what is known of it."""
        if self._data and len(self._data) + len(encoded) > self._most:
            self._flush()
        place = {"w": size[1], "h": size[0], "off": len(self._data), "len": len(encoded)}
        self._lines.append(json.dumps({**record, **place}))
        self._data += encoded
        self.pictures += 1

    def _flush(self) -> None:
        if not self._lines:
            return
        stem = f"{self._name}_{len(self._done) // 2:02d}"
        for suffix, content in (
            (".bin", bytes(self._data)),
            (".jsonl", "".join(line + "\n" for line in self._lines).encode()),
        ):
            part = self._folder / f"{stem}{suffix}.part"
            part.write_bytes(content)
            self._done.append(part)
        self._lines, self._data = [], bytearray()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush()
        for part in self._done:
            if kind is None:
                part.replace(part.with_suffix(""))
            else:
                part.unlink()
        if kind is not None and self._new:
            self._folder.rmdir()
