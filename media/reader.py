"""Reading a video by frame number, whatever it is stored as."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Protocol
from weakref import WeakSet

import numpy as np

from media.color import Frame
from media.errors import InputError
from media.film import Film
from media.info import Budget, VideoInfo
from media.pictures import Pictures, is_picture

_CACHE_BYTES = 64 << 20
_BACKWARDS_BYTES = 192 << 20
_open_readers: WeakSet[VideoReader] = WeakSet()  # so that no writer replaces what is being read
_open_readers_lock = Lock()


class Cursor(Protocol):
    """A reading position with a file handle of its own; sequential reads are cheap.

    `read` gives frame `number`, counted from 0.
    """

    def read(self, number: int) -> Frame: ...
    def close(self) -> None: ...


class Source(Protocol):
    """What a kind of video has to offer: `media.film.Film`, `media.pictures.Pictures`.

    Attributes:
        damaged: numbers of frames that could not be decoded, as far as they have been read.
        pts, durations: int64 (n,), of the frames in the order of showing, in the time base.

    `group_start` says at which frame decoding has to begin for `number`, `cursor` opens the file
    once more.
    """

    info: VideoInfo
    damaged: set[int]

    @property
    def pts(self) -> np.ndarray: ...
    @property
    def durations(self) -> np.ndarray: ...
    def group_start(self, number: int) -> int: ...
    def cursor(self) -> Cursor: ...


class VideoReader:
    """The frames of a video file, a folder of pictures, or a GIF.

    `reader[17]` is exactly frame 17 in the order of showing, with variable frame rates, edit lists
    and B-frames too. Iterators are independent of each other and of `reader[i]`; none holds more
    than a few frames. For one thread; a context manager.

    Args:
        path: A file or folder on this machine.
        budget: How large a video is accepted.
        fps: Frame rate of a folder of pictures (25 if None); not for videos, which have their own.

    Raises:
        InputError: the video cannot be used; says why in one sentence.
    """

    def __init__(
        self, path: str | Path, *, budget: Budget | None = None, fps: Fraction | None = None
    ) -> None:
        self._source = _find_source(path, budget or Budget(), fps)
        self._cursor: Cursor | None = None
        self._recent: OrderedDict[int, Frame] = OrderedDict()
        with _open_readers_lock:
            _open_readers.add(self)

    @property
    def info(self) -> VideoInfo:
        """Size, frame rate, length and so on."""
        return self._source.info

    @property
    def pts(self) -> np.ndarray:
        """int64 (n,): when each frame is shown, in units of `info.time_base`."""
        return self._source.pts

    @property
    def durations(self) -> np.ndarray:
        """int64 (n,): how long each frame is shown, in units of `info.time_base`."""
        return self._source.durations

    @property
    def damaged(self) -> frozenset[int]:
        """Frames found damaged so far; the frame before was given in their place."""
        return frozenset(self._source.damaged)

    @property
    def notes(self) -> tuple[str, ...]:
        """`info.notes` and what came up while reading; sentences for the user."""
        count = len(self.damaged)
        if not count:
            return self.info.notes
        frames = "1 frame is" if count == 1 else f"{count} frames are"
        return (*self.info.notes, f"{frames} damaged; the frame before is shown in place.")

    def __len__(self) -> int:
        return self.info.frame_count

    def __getitem__(self, index: int) -> Frame:
        """Frame `index` (from the end if negative): uint8 (h, w, 3) RGB; not to be written into."""
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"frame {index} of a video of {len(self)} frames")
        if number in self._recent:
            self._recent.move_to_end(number)
            return self._recent[number]
        if self._cursor is None:
            self._cursor = self._source.cursor()
        frame = self._cursor.read(number)
        self._recent[number] = frame
        while len(self._recent) > max(2, _CACHE_BYTES // max(frame.nbytes, 1)):
            self._recent.popitem(last=False)
        return frame

    def frames(
        self, start: int = 0, stop: int | None = None, *, backwards: bool = False
    ) -> Iterator[Frame]:
        """Frames `start` to `stop` (not included), in order or from the last to the first.

        Memory stays constant both ways: backwards, a group of pictures is decoded at a time, in
        parts if it is long.

        Yields:
            uint8 (h, w, 3) RGB; not to be written into.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        with closing(self._source.cursor()) as cursor:
            if not backwards:
                yield from map(cursor.read, range(start, stop))
                return
            height, width = self.info.size
            most = max(2, _BACKWARDS_BYTES // (3 * height * width))
            while stop > start:
                first = max(start, stop - most, self._source.group_start(stop - 1))
                part = [cursor.read(number) for number in range(first, stop)]
                while part:
                    yield part.pop()
                stop = first

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def close(self) -> None:
        """Close the file and forget cached frames; harmless when done twice."""
        if self._cursor is not None:
            self._cursor.close()
        self._cursor = None
        self._recent.clear()
        with _open_readers_lock:
            _open_readers.discard(self)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_video(
    path: str | Path, *, budget: Budget | None = None, fps: Fraction | None = None
) -> VideoReader:
    """Open a video file, a folder of pictures, or a GIF; see `VideoReader`."""
    return VideoReader(path, budget=budget, fps=fps)


def is_being_read(path: Path) -> bool:
    """Whether a reader that is still open reads this very file."""
    with _open_readers_lock:
        paths = [reader.info.path for reader in _open_readers]
    return path.exists() and any(p.exists() and p.samefile(path) for p in paths)


def _find_source(path: str | Path, budget: Budget, fps: Fraction | None) -> Source:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # two letters or more: not "C:/"
        raise InputError(f"{path} is an address: download the video and give the file.")
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name.")
    if path.is_dir():
        return Pictures(path, budget, fps)
    if not path.is_file():
        raise InputError(f"{path} is not a file that can be read as a video.")
    try:
        if is_picture(path):
            return Pictures(path, budget, fps)
    except OSError as error:
        raise InputError(f"{path.name} may not be read: check its permissions.") from error
    if fps is not None:
        raise InputError(f"A frame rate can be given for pictures only; {path.name} has its own.")
    return Film(path, budget)
