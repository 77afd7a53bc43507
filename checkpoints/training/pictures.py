"""Encoded pictures to pixels, with Pillow alone."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from media import InputError


def decode(encoded: bytes, what: str) -> np.ndarray:
    """Decode a JPEG, WebP, PNG or what else Pillow knows: (h, w, 3) RGB uint8.

    Raises:
        InputError: it is damaged; `what` says which picture that is.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.array(image.convert("RGB"))
    except Exception as error:  # on damaged data Pillow raises almost anything
        raise InputError(f"{what[:1].upper()}{what[1:]} is damaged.") from error


def size_of(encoded: bytes, what: str) -> tuple[int, int]:
    """(height, width) of an encoded picture, from its head alone. Raises InputError as `decode`."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.height, image.width
    except Exception as error:
        raise InputError(f"{what[:1].upper()}{what[1:]} is damaged.") from error
