"""Does memory stay flat as videos get longer? Peak RSS of `track` on clips of different lengths.

    python -m benchmarks.memory --seconds 10 600

Writes synthetic 1280x720 clips at 10 frames per second (a textured square moving over a textured
background), follows the square in a process of its own per clip, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from media.video import VideoWriter

ROOT = Path(__file__).parent.parent
HEIGHT, WIDTH, FPS, SIDE = 720, 1280, 10, 120


def write_clip(path: Path, seconds: int) -> None:
    rng = np.random.default_rng(0)
    background = rng.integers(80, 140, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    background = background.repeat(8, axis=0).repeat(8, axis=1)
    thing = rng.integers(0, 255, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    thing = thing.repeat(8, axis=0).repeat(8, axis=1)
    with VideoWriter(path, size=(HEIGHT, WIDTH), fps=Fraction(FPS)) as writer:
        for index in range(seconds * FPS):
            x, y = position(index)
            frame = background.copy()
            frame[y : y + SIDE, x : x + SIDE] = thing
            writer.write(frame)


def position(index: int) -> tuple[int, int]:
    """Top-left corner of the square: a slow ellipse."""
    angle = index / 40
    return int(580 + 400 * np.cos(angle)), int(300 + 200 * np.sin(angle))


def measure(seconds: int, folder: Path, do: str) -> tuple[int, float, float]:
    """Frames, peak RSS in MB and wall seconds of one run."""
    clip = folder / f"{seconds}s.mp4"
    write_clip(clip, seconds)
    x, y = position(0)
    out = folder / f"{seconds}s"
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "demo", do, str(clip), "--out", str(out),
         "--box", f"{x},{y},{x + SIDE},{y + SIDE}"],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - began
    summary = json.loads((out / "run.json").read_text())
    return summary["source"]["frames"], summary["peak_rss_mb"], wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 600])
    parser.add_argument("--do", default="track", choices=("track", "segment", "remove"))
    args = parser.parse_args()
    print("| clip | frames | peak RSS, MB | wall, s | frames/s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in args.seconds:
            frames, peak, wall = measure(seconds, Path(folder), args.do)
            print(f"| {seconds} s, {WIDTH}x{HEIGHT} | {frames} | {peak} | {wall:.0f} "
                  f"| {frames / wall:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
