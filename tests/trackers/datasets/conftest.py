"""Miniature data sets, laid out as their authors do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """write(path, text) below the test's folder."""

    def put(path: str, text: str) -> Path:
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        return place

    return put


@pytest.fixture
def draw(tmp_path: Path) -> Callable[[str, Iterable[int]], None]:
    """draw("x/img/{:04d}.png", numbers): pictures whose red is ten times their number."""

    def put(pattern: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            place = tmp_path / pattern.format(number)
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((12, 16, 3), np.uint8)
            pixels[..., 0] = 10 * number % 256
            Image.fromarray(pixels).save(place, quality=100, subsampling=0)

    return put
