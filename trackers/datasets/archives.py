"""A zip file or an LMDB, used like the folder that is in it.

Readers of data sets take a `Path`; `ArchivePath` is the part of it that they use. An LMDB holds the
files of a folder by their paths, b"train/list.txt", as in the `*_lmdb` folders of the STARK family.
"""

from __future__ import annotations

import errno
import os
import zipfile
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, cast

from media import InputError


class _Archive(ABC):
    """Files by their paths, in order; each process opens it for itself, when it first reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_once, (type(self), self.path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Archive) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def _handle(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                if self._opened is not None:
                    self._close(self._opened[1])  # in this process alone; LMDB insists on it
                self._opened = os.getpid(), self._open()
            except Exception as error:  # lmdb has exceptions of its own
                raise InputError(f"{self.path} cannot be opened: {error}.") from error
        return self._opened[1]

    @abstractmethod
    def _open(self) -> Any:
        """What `_handle` keeps; any exception says that it cannot be opened."""

    def _close(self, handle: Any) -> None:  # noqa: B027  (most need nothing here)
        """What a forked process does with the handle of its parent, apart from forgetting it."""

    @abstractmethod
    def at_least(self, key: str) -> str | None:
        """The first path that does not come before `key`."""

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """The file, None if there is none of that path."""


class _Zip(_Archive):
    def _open(self) -> tuple[zipfile.ZipFile, list[str]]:
        file = zipfile.ZipFile(self.path)
        return file, sorted(name for name in file.namelist() if not name.endswith("/"))

    def at_least(self, key: str) -> str | None:
        names = self._handle()[1]
        i = bisect_left(names, key)
        return names[i] if i < len(names) else None

    def read(self, key: str) -> bytes | None:
        try:
            return cast(bytes, self._handle()[0].read(key))
        except KeyError:
            return None


class _Lmdb(_Archive):
    def _open(self) -> Any:
        import lmdb  # only where somebody has one

        # Without a lock, for data sets often lie where nobody may write.
        return lmdb.open(str(self.path), readonly=True, lock=False, readahead=False)

    def _close(self, handle: Any) -> None:
        handle.close()

    def at_least(self, key: str) -> str | None:
        with self._handle().begin() as transaction:
            cursor = transaction.cursor()
            # An empty key is not allowed in LMDB.
            found = cursor.set_range(key.encode()) if key else cursor.first()
            return cursor.key().decode() if found else None

    def read(self, key: str) -> bytes | None:
        with self._handle().begin() as transaction:
            found = transaction.get(key.encode())
            return None if found is None else bytes(found)


@dataclass(frozen=True)
class ArchivePath:
    """A file or folder in an archive; what it offers is as in `pathlib.Path`."""

    archive: _Archive
    inside: PurePosixPath = field(default_factory=PurePosixPath)

    @property
    def name(self) -> str:
        return self.inside.name or self.archive.path.name

    @property
    def stem(self) -> str:
        return self.inside.stem or self.archive.path.stem

    @property
    def suffix(self) -> str:
        return self.inside.suffix

    @property
    def parent(self) -> ArchivePath:
        return ArchivePath(self.archive, self.inside.parent)

    def __str__(self) -> str:
        return str(self.archive.path / self.inside)

    def __truediv__(self, part: str) -> ArchivePath:
        return ArchivePath(self.archive, self.inside / part)

    def resolve(self) -> ArchivePath:
        return self

    def relative_to(self, other: ArchivePath) -> PurePosixPath:
        return self.inside.relative_to(other.inside)

    @property
    def _prefix(self) -> str:
        return "" if self.inside == PurePosixPath() else f"{self.inside}/"

    def is_file(self) -> bool:
        return self.archive.at_least(str(self.inside)) == str(self.inside)

    def is_dir(self) -> bool:
        return (self.archive.at_least(self._prefix) or "\0").startswith(self._prefix)

    def iterdir(self) -> Iterator[ArchivePath]:
        found = self.archive.at_least(self._prefix)
        while found is not None and found.startswith(self._prefix):
            child, below, _ = found[len(self._prefix) :].partition("/")
            yield self / child
            # Past the file, or past all that is below the folder: "0" comes after "/".
            found = self.archive.at_least(f"{self._prefix}{child}" + ("0" if below else "\0"))

    def glob(self, pattern: str) -> Iterator[ArchivePath]:
        head, _, rest = pattern.partition("/")
        if head == "**":
            yield from self.glob(rest)
            children, rest = list(self.iterdir()), pattern
        elif any(mark in head for mark in "*?["):
            children = [child for child in self.iterdir() if fnmatch(child.name, head)]
        else:
            children = [self / head]
        for child in children:
            if not rest:
                if child.is_file() or child.is_dir():
                    yield child
            elif child.is_dir():
                yield from child.glob(rest)

    def read_bytes(self) -> bytes:
        try:
            found = self.archive.read(str(self.inside))
        except InputError:
            raise
        except Exception as error:  # zipfile, zlib and lmdb have exceptions of their own
            raise OSError(errno.EIO, f"damaged in its archive: {error}", str(self)) from error
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "not in the archive", str(self))
        return found

    def read_text(self, encoding: str) -> str:
        return self.read_bytes().decode(encoding)


def as_folder(path: str | Path) -> Path:
    """The folder at a path, or what the zip file or LMDB there holds, behind the same interface.

    Raises:
        InputError: there is none of these.
    """
    path = Path(path)
    # Readers of data sets use no more of a Path than ArchivePath has, which the tests go through.
    if path.is_file() and zipfile.is_zipfile(path):
        return cast(Path, ArchivePath(_open_once(_Zip, path)))
    if (path / "data.mdb").is_file():
        return cast(Path, ArchivePath(_open_once(_Lmdb, path)))
    if not path.is_dir():
        raise InputError(f"There is no folder {path}, nor a zip file or an LMDB.")
    return path


def inside(folder: Path, name: str) -> Path:
    """`folder / name`; if that is missing and `name.zip` is there, what that holds as `name`."""
    place, zipped = folder / name, folder / f"{name}.zip"
    return as_folder(zipped) / name if zipped.is_file() and not place.is_dir() else place


@lru_cache(maxsize=128)
def _open_once(kind: type[_Archive], path: Path) -> _Archive:
    return kind(path)
