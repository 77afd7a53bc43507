"""Researchers copy `trackers media checkpoints` into their own tree: that has to be enough."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

SCRIPT = """
import sys
import numpy as np
import trackers
assert not {"cv2", "av", "gradio"} & set(sys.modules), "import trackers is not light"
tracker = trackers.build_tracker("mixformerv2_small", device="cpu", weights=None)
frame = np.random.RandomState(0).randint(0, 256, (120, 160, 3)).astype(np.uint8)
tracker.initialize(frame, [60, 40, 100, 80])
track = tracker.track(frame)
assert track.box.shape == (4,) and 0 <= track.score <= 1
print(trackers.__file__, tracker.weights.name)
"""


def test_copied_alone_it_imports_and_runs(tmp_path: Path) -> None:
    leave = shutil.ignore_patterns("__pycache__", "*.pt*", "*.tar", "*.onnx", "*.mp4")
    for package in ("trackers", "media", "checkpoints"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=leave)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "MIXCUT_CHECKPOINTS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(tmp_path / "trackers" / "__init__.py"),
        "mixformerv2_small_seed",
    ]
