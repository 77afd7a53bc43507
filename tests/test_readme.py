"""The README's promises: the steps under its two main commands and its examples work."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import checkpoints
from media.video import VideoWriter, open_video

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


def steps(target: str) -> list[str]:
    """The commands `make TARGET` would run once everything is installed."""
    plan = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/.ready", "-o", ".venv/.ready-dev",
         "-o", ".venv/bin/python", target],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return plan.stdout.strip().splitlines()


def test_the_two_main_commands_come_first() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]


def test_every_command_is_of_a_known_kind() -> None:
    known = ("make ", "python -m demo ", "python -m checkpoints ", "python -m trackers ")
    assert all(command.startswith(known) for command in COMMANDS), COMMANDS


def test_prompts_example_is_valid(tmp_path: Path) -> None:
    from demo.prompts import load_prompts

    (example,) = re.findall(r"```json\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "p.json").write_text(example)
    assert [o.name for o in load_prompts(tmp_path / "p.json")] == ["dog", "ball"]


def test_make_test_runs_the_whole_suite() -> None:
    assert steps("test") == [
        ".venv/bin/python -m checkpoints fetch --default sample_bunny",
        ".venv/bin/python -m pytest",
    ]


def test_make_demo_step_by_step(tmp_path: Path) -> None:
    """Every step of `make demo` after installing; the results go to a temporary folder."""
    plan = steps("demo")
    assert len(plan) == 2
    for step in plan:
        words = shlex.split(step.replace("output/sample", str(tmp_path / "out")))
        assert words[0] == ".venv/bin/python"
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    for name in ("tracked.mp4", "segmented.mp4", "removed.mp4"):
        assert str(tmp_path / "out" / name) in done.stdout
        with open_video(tmp_path / "out" / name) as reader:
            assert len(reader) == 15
            assert reader.info.size == (272, 640)
            assert reader.info.has_audio
    summary = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "mixformerv2" in summary["weights"]["tracker"]
    tracks = json.loads((tmp_path / "out" / "tracks.json").read_text())
    assert len(tracks["frames"]) == 15


def test_the_stages_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [n for n in ("mobile_sam", "spynet", "migan") if not checkpoints.find(n)]
    if missing:
        pytest.skip(f"needs weights: python -m checkpoints fetch {' '.join(missing)}")
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    frame = np.full((320, 360, 3), 90, np.uint8)
    frame[60:280, 120:240] = (220, 40, 40)
    with VideoWriter("clip.mp4", size=(320, 360), fps=Fraction(25)) as writer:
        for _ in range(3):
            writer.write(frame)
    exec(example, {})  # as a reader would run it
    with open_video("removed.mp4") as video:
        assert len(video) == 3
        assert video[1][100:240, 140:220, 0].mean() < 130  # the red thing is gone


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m trackers")])
def test_tracker_commands_run(command: str) -> None:
    subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=ROOT, check=True)
