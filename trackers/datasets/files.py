"""The text files and pictures that data sets are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from media import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
SPLITS = Path(__file__).parent / "splits"


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without empty ones at the end."""
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is missing or is not a text file.") from error


def read_names(path: Path) -> list[str]:
    """One name per line; empty lines and those that begin with # are left out."""
    lines = [line.strip() for line in read_lines(path)]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise InputError(f"{path} names no sequence; write one name per line.")
    return names


def read_boxes(path: Path) -> np.ndarray:
    """One box per line, its four numbers separated by commas, tabs or spaces; nan is allowed.

    Returns:
        float64 (n, 4), in the order of the file.

    Raises:
        InputError: the file is missing, or a line is not four numbers.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = [float(value) for value in re.split(r"[,;\s]+", line.strip(" ,;\t"))]
        except ValueError:
            row = []
        if len(row) != 4:
            raise InputError(
                f"Line {number} of {path} is not a box of four numbers: {line[:60]!r}."
            )
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 4)


def read_numbers(path: Path) -> np.ndarray:
    """All numbers of a file, whatever separates them: float64 (n,)."""
    try:
        return np.array(re.split(r"[,\s]+", " ".join(read_lines(path)).strip(" ,")), np.float64)
    except ValueError as error:
        raise InputError(f"{path} does not hold numbers only.") from error


def list_frames(folder: Path) -> tuple[Path, ...]:
    """The pictures of a folder by the numbers in their names: 2 before 10.

    Raises:
        InputError: the folder is missing.
    """
    if not folder.is_dir():
        raise InputError(f"The folder {folder} is missing.")
    frames = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    ]
    return tuple(sorted(frames, key=lambda path: natural(path.stem)))


def frames_between(frames: Iterable[Path], first: int, last: int) -> tuple[Path, ...]:
    """Those of the pictures named by a number whose number is `first`, `last` or between them."""
    return tuple(f for f in frames if f.stem.isdigit() and first <= int(f.stem) <= last)


def natural(text: str) -> list[str | int]:
    """A key to sort by that reads digits as numbers."""
    # The pieces alternate between text and digits, so that like is only compared with like.
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))]


def folders_with(root: Path, file: str) -> list[str]:
    """Names of the folders in `root` that hold a file matching the pattern, in natural order."""
    return sorted({path.parent.name for path in root.glob(f"*/{file}")}, key=natural)


def read_frame(path: Path) -> np.ndarray:
    """Decode as the published evaluations do, with OpenCV: (h, w, 3) RGB uint8."""
    import cv2  # here, so that `import trackers.datasets` is light

    # imread itself cannot open names beyond ASCII on every system, nor archives.
    data = path.read_bytes() if path.is_file() else b""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        raise InputError(f"The frame {path} is missing or damaged.")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
