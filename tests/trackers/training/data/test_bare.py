"""Batches are made with torch, torchvision, numpy, Pillow and safetensors alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

CODE = """
import importlib.util, sys
for name in ("cv2", "av", "timm", "lmdb", "yaml", "matplotlib", "tqdm", "imageio", "scipy"):
    assert importlib.util.find_spec(name) is None, name
from trackers.training.data import Batches, DataConfig, SourceConfig, draw_batch

for pipeline in ("loader", "device"):
    sources = tuple(SourceConfig(*source.split("=")) for source in sys.argv[1:])
    config = DataConfig(sources, template_size=32, search_size=64, pipeline=pipeline, workers=1)
    batch = next(iter(Batches(config, seed=0, batch_size=4)))
    draw_batch(batch)
    print(*batch.search.shape)
"""


def test_batches_need_nothing_else(bare: Callable[..., str], stills: Path, tracks: Path) -> None:
    assert bare(CODE, f"stills={stills}", f"tracks={tracks}") == "4 3 64 64\n" * 2
