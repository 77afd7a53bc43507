"""Folders of pictures, single pictures and GIF animations, read through imageio like a film."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

from media.color import Frame
from media.errors import InputError
from media.info import Budget, VideoInfo

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_DEFAULT_FPS = Fraction(25)
_FASTEST = 240
_SHORTEST_MS, _UNSET_MS = 20, 100  # browsers show what asks for less than 20 ms for 100 ms


def is_picture(path: Path) -> bool:
    """Whether the file's content (not its name) is that of a picture or GIF."""
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


class Pictures:
    """Pictures behind the surface that `media.reader.VideoReader` reads from.

    Transparency is dropped, 16-bit grey becomes 8-bit, the EXIF orientation is applied.

    Args:
        path: A folder (its pictures in natural order: 2 before 10), a picture, or a GIF.
        budget: What is accepted.
        fps: Frame rate of pictures that carry none; None is 25.

    Raises:
        InputError: there are no pictures, they cannot be read, are too large, or differ in size.
    """

    def __init__(self, path: Path, budget: Budget, fps: Fraction | None = None) -> None:
        if fps is not None and not 0 < fps <= _FASTEST:
            raise InputError(
                f"A frame rate of {float(fps):g} is not possible: give 1 to {_FASTEST}."
            )
        self.damaged: set[int] = set()
        files = [path] if path.is_file() else _pictures_in(path)
        sizes = [_stored_size(file) for file in files]
        for file, size in zip(files, sizes, strict=True):
            _require_size(file, size, files[0], sizes[0])
        height, width = sizes[0]
        budget.check_frame(files[0].name, height, width)
        budget.check_length(path.name, len(files), height * width)

        opened = _open(files[0])
        images = _attempt(files[0], lambda: opened.properties(index=...).n_images) or 1
        self.animated = path.is_file() and images > 1
        if self.animated:
            budget.check_length(path.name, images, height * width)
            self.frames = [(path, k) for k in range(images)]
            self.durations = np.array([_milliseconds(opened, k) for k in range(images)])
            time_base = Fraction(1, 1000)
        else:
            self.frames = [(file, 0) for file in files]
            self.durations = np.ones(len(files), dtype=np.int64)
            time_base = 1 / (fps or _DEFAULT_FPS)
        opened.close()

        cursor = PictureCursor(self)
        first = cursor.decode(0)
        cursor.close()
        self.pts = np.cumsum(self.durations) - self.durations
        total = int(self.durations.sum()) * time_base
        budget.check_length(path.name, len(self.pts), height * width, float(total))
        self.info = VideoInfo(
            path=path,
            size=(first.shape[0], first.shape[1]),
            frame_count=len(self.pts),
            fps=(len(self.pts) / total).limit_denominator(100_000),
            time_base=time_base,
            duration=float(total),
            codec=files[0].suffix.lower().lstrip("."),
            bit_depth=8 * first.itemsize,
            notes=()
            if fps or self.animated or len(files) == 1
            else (f"Pictures carry no frame rate: {_DEFAULT_FPS} a second are assumed.",),
        )

    def group_start(self, number: int) -> int:
        """The frame from which decoding has to begin to get frame `number`."""
        return 0 if self.animated else number  # a GIF frame builds on those before it

    def cursor(self) -> PictureCursor:
        """An independent reading position."""
        return PictureCursor(self)


class PictureCursor:
    """One reading position; holds at most one file open."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._path: Path | None = None
        self._opened: Any = None

    def decode(self, number: int) -> np.ndarray:
        """Picture `number` upright: uint8 (h, w, 3), or uint16 (h, w) where it is 16-bit grey."""
        path, image = self._pictures.frames[number]
        if path != self._path:
            self.close()
            self._opened, self._path = _open(path), path
        deep = self._opened.properties(index=image).dtype == np.uint16
        mode = None if deep else "RGB"
        return _attempt(path, lambda: self._opened.read(index=image, mode=mode, rotate=True))

    def read(self, number: int) -> Frame:
        """Frame `number`."""
        picture = self.decode(number)
        if picture.dtype == np.uint16:
            picture = np.repeat((picture >> 8).astype(np.uint8)[..., None], 3, axis=2)
        path, (first, _) = self._pictures.frames[number][0], self._pictures.frames[0]
        _require_size(path, picture.shape[:2], first, self._pictures.info.size)
        return np.ascontiguousarray(picture)

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        if self._opened is not None:
            self._opened.close()
        self._path = self._opened = None


def _pictures_in(folder: Path) -> list[Path]:
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not files:
        raise InputError(
            f"{folder.name or folder} holds no pictures: give a video file or a folder with "
            f"{', '.join(SUFFIXES[:-1])} files."
        )
    return sorted(files, key=_natural)


def _natural(file: Path) -> list[str | int]:
    # The pieces alternate between text and digits, so that like is only compared with like.
    pieces = re.split(r"(\d+)", file.name.lower())
    return [int(piece) if k % 2 else piece for k, piece in enumerate(pieces)]


def _stored_size(file: Path) -> tuple[int, int]:
    opened = _open(file)
    height, width = opened.properties(index=0).shape[:2]
    opened.close()
    return height, width


def _require_size(
    file: Path, size: tuple[int, ...], first: Path, expected: tuple[int, ...]
) -> None:
    if size != expected:
        raise InputError(
            f"Pictures of one folder must be of one size: {file.name} is {size[1]}x{size[0]} "
            f"and {first.name} is {expected[1]}x{expected[0]}."
        )


def _milliseconds(opened: Any, image: int) -> int:
    asked = round(opened.metadata(index=image).get("duration", 0))
    return asked if asked >= _SHORTEST_MS else _UNSET_MS


def _open(file: Path) -> Any:
    return _attempt(file, lambda: iio.imopen(file.resolve(), "r", plugin="pillow"))


def _attempt(file: Path, action: Any) -> Any:
    try:
        return action()
    except Exception as error:  # on damaged data Pillow raises almost anything
        raise InputError(f"{file.name} cannot be read as a picture: it is damaged.") from error
