"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a name to write to, PATH.part; at the end of the block the file is renamed to PATH.

    An older file of that name is replaced. When the block fails, what was written is removed and
    the older file stays.

    Args:
        path: the file to make; its folder exists.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Lend an empty folder, PATH.part; at the end of the block it takes the place of PATH.

    When the block fails, the new folder is removed and the older one stays.

    Args:
        path: the folder to make; the one it lies in exists.
    """
    part = path.with_name(path.name + ".part")
    _remove(part)
    part.mkdir()
    try:
        yield part
        _remove(path)
        part.rename(path)
    except BaseException:
        _remove(part)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
