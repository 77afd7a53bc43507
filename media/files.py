"""Files that appear complete or not at all."""

from __future__ import annotations

import os
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
