"""Odd picture sizes through codecs that keep colour at half size and so have only even ones.

4:2:0 cannot be cropped to an odd size either (its cropping counts in steps of two pixels). Hence an
edge pixel is repeated and the true size noted in the file; reading the file here takes it off.
"""

from __future__ import annotations

import re

import numpy as np

_TAG = "shown size {}x{}"


def pad_to_even(frame: np.ndarray) -> np.ndarray:
    """Repeat the last row or column of (h, w, channels) where h or w is odd."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return frame


def size_tag(size: tuple[int, int]) -> str:
    """The note of a true (height, width) that goes into the file's comment."""
    return _TAG.format(size[1], size[0])


def true_size(stored: tuple[int, int], comment: str) -> tuple[int, int]:
    """The (height, width) to show of a stored one, given the file's comment."""
    found = re.fullmatch(_TAG.format(r"(\d+)", r"(\d+)"), comment)
    if found:
        width, height = int(found[1]), int(found[2])
        if (height + height % 2, width + width % 2) == stored:
            return height, width
    return stored
