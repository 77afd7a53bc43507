"""What E2FGVI's fast mode saves, and whether memory stays flat as clips get longer.

    python -m benchmarks.inpainting speed --out DIR     # fast against reference, 60 frames
    python -m benchmarks.inpainting measures            # one window, each measure in turn
    python -m benchmarks.inpainting flops
    python -m benchmarks.inpainting memory --out DIR    # peak RSS at 60, 300 and 1500 frames

Weights are drawn by a formula, those of the propagation smaller by a third: with larger ones it
multiplies any difference by itself from frame to frame, in float32 as published too, and no two
ways of computing would agree. A textured ball rolls over a textured ground; nothing is read.

Each arm runs in a process of its own, with one thread. What it has cost is CPU seconds, and memory
the peak of its resident set less what it had before it painted. Arms that have written their result
into DIR are not run again, so that the work can be done in pieces (`--only NAME`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from inpainting import Inpainter, build_inpainter, build_network
from inpainting.e2fgvi import E2FGVI, load_weights
from inpainting.e2fgvi_fast import KERNELS, FastE2FGVI, quicken
from inpainting.fast import FastInpainter
from inpainting.published import PublishedInpainter, Window, select_windows
from inpainting.view import bounding_box
from media.command_line import run_program
from media.files import replacing

ROOT = Path(__file__).parent.parent
EQUAL = {"crop": False, "match": False, "num_ref": -1}  # the options that differ from reference

# ---------------------------------------------------------------------------- weights and clip


def weights(name: str) -> dict[str, Tensor]:
    """A state dict by formula: the same everywhere."""
    state = build_network(name).state_dict()
    for key, value in state.items():
        if not value.is_floating_point() or key.endswith((".mean", ".std")):
            continue
        random = np.random.default_rng(zlib.crc32(key.encode()))
        drawn = torch.from_numpy(random.uniform(-1.7, 1.7, tuple(value.shape)).astype(np.float32))
        fan_in = value[0].numel() if value.ndim > 1 else 2500
        gain = 0.5 if key.startswith("decoder") else 1.4
        gain *= 0.7 if key.startswith("feat_prop_module") else 1.0
        centre = 1.0 if ".norm" in key and key.endswith("weight") else 0.0
        state[key] = centre + drawn * (gain / fan_in**0.5)
    return state


class Clip:
    """Frames or masks of a ball that rolls to and fro, drawn when asked for."""

    def __init__(self, count: int, size: tuple[int, int], *, masks: bool, every: int = 1) -> None:
        height, width = size
        random = np.random.default_rng(0)
        noise = random.uniform(0, 255, (height // 8 + 2, width // 4 + 2, 3)).astype(np.float32)
        self._ground = cv2.resize(noise, (2 * width, height), interpolation=cv2.INTER_CUBIC)
        self._ground = self._ground.clip(0, 255).astype(np.uint8)
        self._count, self._size, self._masks, self._every = count, size, masks, every

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < self._count:
            raise IndexError(index)
        height, width = self._size
        x = width // 2 + int(0.3 * width * np.sin(index / 15))
        ball = np.zeros(self._size, np.uint8)
        cv2.circle(ball, (x, height // 2), height // 5, 1, -1)
        if self._masks:
            return ball.astype(bool) if index % self._every == 0 else np.zeros(self._size, bool)
        pan = width // 2 + int(0.4 * width * np.sin(index / 40))
        frame = self._ground[:, pan : pan + width].copy()
        frame[ball > 0] = self._ground[::-1, :width][ball > 0] // 2
        return frame


# ---------------------------------------------------------------------------- what an arm does


def _status(key: str) -> int:
    """A line of what Linux says of this process, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split(f"{key}:")[1].split()[0])


def memory_now() -> int:
    """The resident set, in bytes; from here on the peak is measured anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


WAYS: dict[str, dict[str, Any]] = {
    "fast": {**EQUAL, "precision": "float32"},
    "fast, bfloat16": {**EQUAL, "precision": "bfloat16"},
    "fast, one prediction a frame": {**EQUAL, "once": True, "precision": "float32"},
    "fast, as it comes, float32": {"precision": "float32"},
    "fast, as it comes, bfloat16": {"precision": "bfloat16"},
}


def build(way: str, name: str) -> Inpainter:
    """An inpainter with drawn weights, but for propagation, which has its own."""
    if name == "propagation":
        return build_inpainter(name, device="cpu", dilate=0)
    network, _ = load_weights(name, weights(name))
    if way == "reference":
        return PublishedInpainter(network, dilate=0)
    return FastInpainter(network, dilate=0, **WAYS[way])


def arm(
    *,
    out: Path,
    way: str,
    name: str = "e2fgvi_hq",
    frames: int = 60,
    size: str = "432x240",
    every: int = 1,
) -> int:
    """Paint a clip in one way and write down what that took; the other commands call it.

    Args:
        out: The file for the figures; the last 60 frames go beside it.
        way: Which way of painting.
        name: Which network.
        frames: How many frames.
        size: WIDTHxHEIGHT.
        every: Only each so many-th frame has a hole.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    width, height = map(int, size.split("x"))
    clip = Clip(frames, (height, width), masks=False)
    holes = Clip(frames, (height, width), masks=True, every=every)
    inpainter = build(way, name)
    # Filled now, so that keeping frames takes no memory while it is watched.
    painted = np.ones((min(frames, 60), height, width, 3), np.uint8)
    before = memory_now()
    began, clock = time.process_time(), time.perf_counter()
    for index, frame in enumerate(inpainter.inpaint(clip, holes)):
        painted[index % len(painted)] = frame
    result = {
        "way": way, "name": name, "frames": frames, "size": size, "every": every,
        "cpu_s": time.process_time() - began, "wall_s": time.perf_counter() - clock,
        "peak_mb": (_status("VmHWM") - before) / 1e6,
    }  # fmt: skip
    np.savez_compressed(out.with_suffix(".npz"), frames=np.roll(painted, -frames, axis=0))
    with replacing(out) as part:
        part.write_text(json.dumps(result), encoding="utf-8")
    return 0


def run_arm(folder: Path, **options: object) -> dict[str, Any]:
    """What `arm` measures, in a process of its own unless it was measured before."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "_".join(str(value) for value in options.values())
    out = folder / f"{''.join(c if c.isalnum() else '_' for c in name)}.json"
    if not out.exists():
        flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "benchmarks.inpainting", "arm", "--out", str(out), *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    result["painted"] = out.with_suffix(".npz")
    return result


# ---------------------------------------------------------------------------- commands


def speed(*, out: Path, only: str | None = None, frames: int = 60, size: str = "432x240") -> int:
    """Fast against reference.

    Args:
        out: Folder for figures and frames; what lies there is not measured again.
        only: Measure just this way, and print nothing.
        frames: How many frames.
        size: WIDTHxHEIGHT.
    """
    if only is not None:
        run_arm(out, way=only, frames=frames, size=size)
        return 0
    print(f"E2FGVI-HQ, {frames} frames of {size}, a hole in each, one thread\n")
    print("| way | CPU s | times faster | peak, MB | of reference's | largest difference, grey "
          "levels | mean in the holes |\n|---|---|---|---|---|---|---|")  # fmt: skip
    width, height = map(int, size.split("x"))
    clip = Clip(frames, (height, width), masks=True)
    holes = np.stack([clip[index] for index in range(frames)])
    first = run_arm(out, way="reference", frames=frames, size=size)
    reference = np.load(first["painted"])["frames"].astype(int)
    for way in WAYS:
        found = run_arm(out, way=way, frames=frames, size=size)
        off = np.abs(np.load(found["painted"])["frames"] - reference)
        print(f"| {way} | {found['cpu_s']:.1f} | {first['cpu_s'] / found['cpu_s']:.2f} "
              f"| {found['peak_mb']:.0f} | {found['peak_mb'] / first['peak_mb']:.2f} "
              f"| {off.max()} | {off[holes].mean():.4f} |")  # fmt: skip
    return 0


def memory(*, out: Path, only: str | None = None) -> int:
    """Peak RSS of clips of 60, 300 and 1500 frames.

    Args:
        out: Folder for figures and frames; what lies there is not measured again.
        only: Measure just this many frames of this network, NAME:FRAMES, and print nothing.
    """
    kinds = {
        "e2fgvi_hq": ("fast, as it comes, float32", "216x120", 50),
        "e2fgvi_hq_small": ("fast, as it comes, float32", "216x120", 100),
        "propagation": ("propagation", "432x240", 50),
    }
    if only is None:
        print("| inpainter | size | a hole in | frames | peak, MB | CPU s |")
        print("|---|---|---|---|---|---|")
    for name, (way, size, every) in kinds.items():
        for frames in (60, 300, 1500):
            if only not in (None, f"{name}:{frames}"):
                continue
            found = run_arm(out, way=way, name=name, frames=frames, size=size, every=every)
            if only is None:
                print(f"| {name} | {size} | every {every}. frame | {frames} "
                      f"| {found['peak_mb']:.0f} | {found['cpu_s']:.1f} |")  # fmt: skip
    return 0


def measures(*, size: str = "432x240", repeat: int = 2) -> int:
    """One window in the middle of a clip, with each measure added to the ones before.

    Args:
        size: WIDTHxHEIGHT.
        repeat: Take the least of so many runs.
    """
    torch.set_num_threads(1)
    width, height = map(int, size.split("x"))
    network = load_weights("e2fgvi_hq", weights("e2fgvi_hq"))[0].eval().requires_grad_(False)
    clip, holes = (Clip(60, (height, width), masks=masks) for masks in (False, True))
    before, window = select_windows(60)[4:6]

    def picture(index: int) -> Tensor:
        image = torch.from_numpy(clip[index]).permute(2, 0, 1).float() / 255 * 2 - 1
        return image * ~torch.from_numpy(holes[index])

    def paint(runner: FastE2FGVI, some: Window, known: bool) -> None:
        boxes = {i: box for i in some.local if (box := bounding_box(holes[i]))}
        if not known:
            runner.forget()
        runner.paint(picture, some.local, some.references, boxes)

    def published(network: E2FGVI) -> None:
        order = (*window.local, *window.references)
        frames = torch.stack([picture(index) for index in order])[None]
        with torch.inference_mode():
            network(frames, len(window.local), paint_references=False)

    def seconds(prepare: Callable[[], object], run: Callable[[], object]) -> float:
        found = []
        for _ in range(repeat):
            prepare()
            began = time.process_time()
            run()
            found.append(time.process_time() - began)
        return min(found)

    print(f"A window of {len(window.local)} + {len(window.references)} frames of {size}\n")
    print("| measure | CPU s | times faster | than the row above |\n|---|---|---|---|")
    taken: list[float] = []

    def row(title: str, found: float) -> None:
        taken.append(found)
        ratio = taken[max(len(taken) - 2, 0)] / found
        print(f"| {title} | {found:.1f} | {taken[0] / found:.2f} | {ratio:.2f} |", flush=True)

    row("reference", seconds(lambda: None, lambda: published(network)))
    for count, title in enumerate(KERNELS, 1):
        quick = quicken(network, list(KERNELS)[:count])
        row(f"+ {title}", seconds(lambda: None, partial(published, quick)))
    whole, runner = FastE2FGVI(network, partial=False), FastE2FGVI(network)
    row("+ last block for local frames only", seconds(
        lambda: None, lambda: paint(whole, window, known=False)))  # fmt: skip
    row("+ only what the holes depend on", seconds(
        lambda: None, lambda: paint(runner, window, known=False)))  # fmt: skip
    row("+ what the window before has in common", seconds(
        lambda: paint(runner, before, known=False), lambda: paint(runner, window, known=True)
    ))  # fmt: skip
    half = FastE2FGVI(network, precision=torch.bfloat16)
    row("+ bfloat16", seconds(
        lambda: paint(half, before, known=False), lambda: paint(half, window, known=True)
    ))  # fmt: skip
    return 0


def flops(*, frames: int = 60, size: str = "432x240") -> int:
    """GFLOP of a clip, a multiplication and an addition as two, counted without computing.

    Args:
        frames: How many frames, with a hole in each.
        size: WIDTHxHEIGHT.
    """
    width, height = map(int, size.split("x"))
    with torch.device("meta"):
        network = build_network("e2fgvi_hq").eval().requires_grad_(False)
    assert isinstance(network, E2FGVI)
    holes = Clip(frames, (height, width), masks=True)
    everything = FastE2FGVI(network, device="meta", partial=False)
    fast = FastE2FGVI(network, device="meta")
    windows = select_windows(frames)
    # The counter does not know the deformable convolution: its product, once each way and step.
    by_hand = sum(2 * (len(w.local) - 1) for w in windows)
    by_hand *= 2 * (height // 4) * (width // 4) * 128 * 256 * 9

    def published(window: Window) -> None:
        count = len(window.local) + len(window.references)
        images = torch.empty(1, count, 3, height, width, device="meta")
        network(images, len(window.local), paint_references=False)

    def paint(runner: FastE2FGVI, window: Window) -> None:
        boxes = {i: box for i in window.local if (box := bounding_box(holes[i]))}
        image = torch.empty(3, height, width, device="meta")
        runner.paint(lambda index: image, window.local, window.references, boxes)

    print("| way | GFLOP | times less |\n|---|---|---|")
    first = 0.0
    for title, run in (
        ("reference, local frames decoded only", published),
        ("+ kernels, last block for local frames, what windows share", partial(paint, everything)),
        ("+ only what the holes depend on", partial(paint, fast)),
    ):
        # Tensors without content know no autocast.
        with (
            FlopCounterMode(display=False) as counter,
            torch.inference_mode(),
            patch.object(torch, "autocast", lambda *args, **options: nullcontext()),
        ):
            for window in windows:
                run(window)
        total = (counter.get_total_flops() + by_hand) / 1e9
        first = first or total
        print(f"| {title} | {total:.0f} | {first / total:.2f} |", flush=True)
    return 0


COMMANDS = (speed, measures, flops, memory, arm)


if __name__ == "__main__":
    sys.exit(run_program("python -m benchmarks.inpainting", __doc__, COMMANDS))
