"""A folder of tiny sequences: a textured square slides over noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trackers.datasets import Dataset, open_dataset


@pytest.fixture
def sequences(tmp_path: Path) -> Callable[..., Path]:
    """sequences(a=8, b=5): folders a and b with so many frames; returns their parent."""
    root = tmp_path / "data"

    def make(**frames: int) -> Path:
        noise = np.random.default_rng(0)
        background = noise.integers(0, 90, (90, 120, 3)).astype(np.uint8)
        square = noise.integers(120, 255, (24, 30, 3)).astype(np.uint8)
        for name, count in frames.items():
            (root / name / "img").mkdir(parents=True)
            for i in range(count):
                picture = background.copy()
                picture[30:54, 20 + 2 * i : 50 + 2 * i] = square
                Image.fromarray(picture).save(root / name / "img" / f"{i + 1:04d}.png")
            boxes = [f"{20 + 2 * i},30,30,24\n" for i in range(count)]
            (root / name / "groundtruth.txt").write_text("".join(boxes))
        return root

    return make


@pytest.fixture
def dataset(sequences: Callable[..., Path]) -> Dataset:
    return open_dataset("folder", sequences(a=6, b=4))
