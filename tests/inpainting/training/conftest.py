"""Clips to train on, small networks, and a machine on which little is installed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inpainting.training import Recipe, build_recipe, read_values
from tests.bare import bare
from tests.inpainting.conftest import texture

__all__ = ["bare"]

# A network and samples at which a step takes a fraction of a second.
TINY: dict[str, Any] = {
    "network.width": {
        "encoder": 8, "features": 8, "dim": 16, "hidden": 2, "blocks": 1, "groups": 2,
    },
    "network.discriminator": [4, 4, 4, 4, 4, 4],
    "init.flow": None,
    "losses.flow": 0.0,
    "optimizer.flow_lr": 0.0,
    "data.local": 2,
    "data.references": 1,
    "data.workers": 0,
    "schedule.batch_size": 2,
    "schedule.steps": 4,
    "schedule.warmup_steps": 0,
    "validation.samples": 0,
    "engine.bf16": False,
    "engine.log_every": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six folders of eight frames: a reddish texture that pans, each its own way."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(6):
        folder = root / f"clip{number}"
        folder.mkdir()
        canvas = texture(72 + 16, 108 + 32, seed=number) * 0.5 + (110, 40, 10)
        canvas = canvas.round().astype(np.uint8)
        for t in range(8):
            y, x = (2 * t, 4 * t) if number % 2 else (2 * (7 - t), 0)
            frame = Image.fromarray(canvas[y : y + 72, x : x + 108])
            frame.save(folder / f"{t:03d}.jpg", quality=95)
    return root


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence of masks: a bar that grows."""
    root = tmp_path_factory.mktemp("objects")
    (root / "bar").mkdir()
    for t in range(4):
        mask = np.zeros((40, 60), np.uint8)
        mask[10:20, 20 : 30 + 5 * t] = 255
        Image.fromarray(mask).save(root / "bar" / f"{t}.png")
    return root


@pytest.fixture
def make(clips: Path) -> Callable[..., Recipe]:
    """Build a recipe at a size for tests: make("tiny", **{"schedule.steps": 3})."""

    def build(name: str, **changes: Any) -> Recipe:
        small = {**TINY, "data.size": [56, 100], **changes}
        overrides = [f"{key}={json.dumps(value)}" for key, value in small.items()]
        return build_recipe(read_values(name), [str(clips)], [], overrides)

    return build


@pytest.fixture
def figures_of() -> Callable[[Path, str], list[float]]:
    """What a run has logged of one figure, in order."""

    def read(out: Path, name: str) -> list[float]:
        with (out / "log.csv").open(newline="") as file:
            return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]

    return read
