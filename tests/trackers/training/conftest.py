"""Small networks, pictures to train on, and a machine on which little is installed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.bare import bare
from trackers.training import Recipe, build_recipe, read_values

__all__ = ["bare"]

TINY = {"search_size": 64, "template_size": 32, "dim": 32, "heads": 2}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed shard of 40 noisy pictures, each with a bright square."""
    folder = tmp_path_factory.mktemp("stills")
    random = np.random.default_rng(0)
    rows, content = [], b""
    for _ in range(40):
        pixels = random.integers(0, 120, (96, 120, 3), dtype=np.uint8)
        w, h = random.integers(16, 40, 2)
        x, y = random.integers(0, 120 - w), random.integers(0, 96 - h)
        pixels[y : y + h, x : x + w] = random.integers(150, 255, 3, dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "WEBP", quality=80)
        box = [int(v) for v in (x, y, w, h)]
        row = {"off": len(content), "len": len(file.getvalue()), "w": 120, "h": 96}
        rows.append(row | {"objects": [{"box": box}], "video": None, "frame": None})
        content += file.getvalue()
    (folder / "shard_00.bin").write_bytes(content)
    (folder / "shard_00.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def make(stills: Path) -> Callable[..., Recipe]:
    """Build a recipe at a size for tests: make("score", **{"schedule.epochs": 1})."""

    def build(name: str, **changes: Any) -> Recipe:
        small = {
            **{f"network.options.{key}": value for key, value in TINY.items()},
            "init.vit": None,
            "init.weights": None,
            "schedule.batch_size": 4,
            "schedule.samples_per_epoch": 20,
            "schedule.epochs": 4,
            "engine.log_every": 1,
            "engine.compile": False,
            "engine.bf16": False,
            "engine.save_every_epochs": 1,
            "data.workers": 0,
            "data.pipeline": "loader",
            "validation.samples": 0,
        }
        overrides = [f"{key}={json.dumps(value)}" for key, value in (small | changes).items()]
        return build_recipe(read_values(name), [("stills", str(stills))], overrides)

    return build


@pytest.fixture
def losses_of() -> Callable[[Path], list[float]]:
    """The total loss of every step that a run has logged."""

    def read(out: Path) -> list[float]:
        import csv

        with (out / "log.csv").open(newline="") as file:
            return [float(row["total"]) for row in csv.DictReader(file) if row["total"]]

    return read
