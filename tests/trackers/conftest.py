"""Golden numbers of the trackers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def golden() -> Callable[..., dict[str, np.ndarray]]:
    """Read a golden file by its name."""

    def read(name: str, folder: str = "mixformerv2") -> dict[str, np.ndarray]:
        with np.load(GOLDEN / folder / f"{name}.npz") as file:
            return dict(file)

    return read
