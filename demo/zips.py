"""Zips from outside, which may claim anything about themselves."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

MAX_DIRECTORY = 2**24  # bytes of a zip's list of files, some 300,000 of them


class _Guarded(io.FileIO):
    """A file of which nobody reads very much at once, such as a zip's endless list of files."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise zipfile.BadZipFile("it lists too many files")
        return super().read(size)


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip whose list of files is of a reasonable length.

    Raises:
        OSError, zipfile.BadZipFile, ValueError, ...: it is none, it is damaged, or lists too much.
    """
    with _Guarded(path) as file:
        zipfile.ZipFile(file).close()
    return zipfile.ZipFile(path)
