"""How fast are the trackers? Cached against full forwards, a whole video, many objects, other ways.

    python -m benchmarks.tracker --baselines FOLDER            all sections, on the CPU
    python -m benchmarks.tracker --only video --device cuda

cached   a frame with encoded templates against the published way, a full forward with templates;
         the same kernels for both (B with random weights, if there are no others: what is
         computed does not depend on them)
video    from the file to the last box, decoding and cropping included, against OpenCV's trackers
objects  eight objects in one run of the network, and one after the other
ways     of computing one search step on the CPU: PyTorch's layers as they come, packed (what
         trackers use), bfloat16, ONNX Runtime, OpenVINO if it is installed
split    where the time of a frame goes, as trackers come and with fast=True; B and S

What is compared takes turns, so that other work on the machine slows all of it alike; medians.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import checkpoints
from media.device import resolve_device
from media.video import open_video
from trackers import MultiTracker, build_network, build_tracker
from trackers.crop_tracker import CropTracker
from trackers.crops import to_tensor
from trackers.evaluation.opencv import build_baseline
from trackers.onnx_export import export

SMALL, BASE = "mixformerv2_small", "mixformerv2_base"
SAMPLE, BOX = "sample_bunny", (240, 255, 520, 565)  # 1280x720; the rabbit in the first frame
OBJECTS = 8
Way = Callable[[], Any]


def build(name: str, **options: Any) -> CropTracker:
    """A tracker with the weights that are here, or random ones."""
    if checkpoints.find(name) is None and name != SMALL:
        torch.manual_seed(0)
        options["weights"] = build_network(name).state_dict()
    tracker = build_tracker(name, mode="benchmark", **options)
    assert isinstance(tracker, CropTracker)
    return tracker


def take_turns(ways: Mapping[str, Way], rounds: int) -> dict[str, float]:
    """Median seconds of each way, warmed up."""
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - began)
    return {name: median(found) for name, found in times.items()}


def gigaflops(way: Way) -> float:
    with FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops() / 1e9


def table(*titles: str) -> None:
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


# --------------------------------------------------------------------------------------- sections


@torch.inference_mode()
def cached(args: argparse.Namespace, frames: Sequence[np.ndarray]) -> None:
    table("network", "threads", "full forward, ms", "cached, ms", "times as fast",
          "GFLOP", "ratio of GFLOP", "boxes differ by, px of the crop")  # fmt: skip
    for name in (SMALL, BASE):
        tracker = build(name, device=args.device)
        tracker.initialize(frames[0], args.box)
        network, kernels = tracker.network, tracker._searcher.kernels
        template = to_tensor([tracker._template_crop(frames[0])], tracker.device)
        search = to_tensor([tracker._windows()[0].extract(frames[1])], tracker.device)

        def full(network: Any = network, z: Any = template, x: Any = search) -> torch.Tensor:
            return network(z, z, x).boxes_cxcywh.cpu()

        def step(network: Any = network, x: Any = search, c: Any = tracker._cache) -> torch.Tensor:
            return network.search(x, c).boxes_cxcywh.cpu()

        work = gigaflops(full), gigaflops(step)
        for threads in sorted({1, args.threads}):
            set_threads(threads)
            with kernels:
                times = take_turns({"full": full, "step": step}, args.rounds)
                apart = (full() - step()).abs().max().item() * network.search_size
            row(name, threads, f"{1e3 * times['full']:.1f}", f"{1e3 * times['step']:.1f}",
                f"{times['full'] / times['step']:.2f}", f"{work[0]:.1f}, {work[1]:.1f}",
                f"{work[0] / work[1]:.2f}", f"{apart:.0e}")  # fmt: skip


def video(args: argparse.Namespace, frames: Sequence[np.ndarray]) -> None:
    set_threads(args.threads)
    trackers: dict[str, Any] = {
        f"{SMALL}, robust mode": build_tracker(SMALL, device=args.device),
        f"{SMALL}, benchmark mode": build(SMALL, device=args.device),
    }
    if args.device != "cpu":
        trackers[f"{SMALL}, fast"] = build(SMALL, device=args.device, fast=True)
        trackers[BASE] = build(BASE, device=args.device)
        trackers[f"{BASE}, fast"] = build(BASE, device=args.device, fast=True)
    trackers |= {f"opencv:{name}": build_baseline(f"opencv:{name}") for name in ("CSRT", "KCF")}
    if args.baselines:
        trackers["opencv:Nano"] = build_baseline("opencv:Nano", folder=args.baselines)
    counts: dict[str, int] = {}

    def follow(name: str) -> None:
        with open_video(args.video) as film:
            for i, frame in enumerate(film.frames()):
                if i == 0:
                    trackers[name].initialize(frame, args.box)
                else:
                    trackers[name].track(frame)
            counts[name] = i + 1

    def decode() -> None:
        with open_video(args.video) as film:
            counts["decoding alone"] = sum(1 for _ in film.frames())

    ways: dict[str, Way] = {name: partial(follow, name) for name in trackers}
    times = take_turns({"decoding alone": decode} | ways, min(3, args.rounds))
    height, width = frames[0].shape[:2]
    table(f"{width}x{height}, {counts['decoding alone']} frames, threads: {args.threads}", "fps")
    for name, seconds in times.items():
        row(name, f"{counts[name] / seconds:.1f}")


def objects(args: argparse.Namespace, frames: Sequence[np.ndarray]) -> None:
    table("network", "threads", f"{OBJECTS} one after the other, ms per frame", "batched, ms",
          "times as fast", "boxes differ by, px")  # fmt: skip
    names = (SMALL,) if args.device == "cpu" else (SMALL, BASE)
    for name in names:
        for fast in (False,) if args.device == "cpu" else (False, True):
            tracker = build(name, device=args.device, fast=fast)
            together = MultiTracker(tracker)
            alone = [tracker.another() for _ in range(OBJECTS)]
            for i, one in enumerate(alone):
                x, y = 140 * i, 60 * i
                together.add(i, frames[0], (x, y, x + 100, y + 120))
                one.initialize(frames[0], (x, y, x + 100, y + 120))
            for threads in sorted({1, args.threads}) if args.device == "cpu" else [args.threads]:
                set_threads(threads)

                def one_by_one(alone: Any = alone) -> list[Any]:
                    return [one.track(frames[1]) for one in alone]

                def batched(together: Any = together) -> Any:
                    return together.track(frames[1])

                times = take_turns({"alone": one_by_one, "batched": batched}, args.rounds)
                pairs = zip(one_by_one(), batched().values(), strict=True)
                apart = max(float(np.abs(a.box - b.box).max()) for a, b in pairs)
                row(f"{name}{', fast' if fast else ''}", threads, f"{1e3 * times['alone']:.0f}",
                    f"{1e3 * times['batched']:.0f}", f"{times['alone'] / times['batched']:.2f}",
                    f"{apart:.0e}")  # fmt: skip


@torch.inference_mode()
def ways(args: argparse.Namespace, frames: Sequence[np.ndarray]) -> None:
    tracker, fast = build(SMALL, device="cpu"), build(SMALL, device="cpu", fast=True)
    for one in (tracker, fast):
        one.initialize(frames[0], args.box)
    search = to_tensor([tracker._windows()[0].extract(frames[1])])
    with tempfile.TemporaryDirectory() as folder:
        files = export(build(SMALL, device="cpu"), SMALL, Path(folder))
        graph = files.search.read_bytes()
    keys, values = (torch.stack(part).numpy() for part in zip(*tracker._cache, strict=True))
    feed = {"search": search.numpy(), "keys": keys, "values": values}

    def torch_way(one: CropTracker, kernels: Any) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            with kernels:
                return one.network.search(search, one._cache).boxes_cxcywh[:, 0].numpy()

        return run

    table("MixFormerV2-S, one search step", "threads", "ms", "box differs by, px of the crop")
    for threads in sorted({1, args.threads}):
        set_threads(threads)
        runs = {
            "PyTorch, linear layers as they come": torch_way(tracker, nullcontext()),
            "PyTorch, packed linear layers (used)": torch_way(tracker, tracker._searcher.kernels),
            "PyTorch, bfloat16 (fast=True)": torch_way(fast, nullcontext()),
        } | onnx_ways(graph, feed, threads)  # fmt: skip
        times = take_turns(runs, 3 * args.rounds)
        exact = runs["PyTorch, linear layers as they come"]()
        for name, run in runs.items():
            apart = float(np.abs(run() - exact).max()) * tracker.network.search_size
            row(name, threads, f"{1e3 * times[name]:.1f}", f"{apart:.0e}")


def onnx_ways(
    graph: bytes, feed: dict[str, np.ndarray], threads: int
) -> dict[str, Callable[[], np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found = {"ONNX Runtime": lambda: session.run(["boxes_cxcywh"], feed)[0]}
    try:
        import openvino
    except ImportError:
        return found

    def infer(request: Any) -> np.ndarray:
        return request.infer(feed)["boxes_cxcywh"]

    core = openvino.Core()
    for hint in ("f32", "bf16"):
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
        model = core.compile_model(core.read_model(graph), "CPU", settings)
        found[f"OpenVINO, {hint}"] = partial(infer, model.create_infer_request())
    return found


@torch.inference_mode()
def split(args: argparse.Namespace, frames: Sequence[np.ndarray]) -> None:
    device, threads = resolve_device(args.device), args.threads
    set_threads(threads)

    def finished(result: Any) -> Any:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return result

    table(f"ms per frame on {device}, threads: {threads}", "crop", "forward", "numbers back",
          "a whole frame", "fps without decoding")  # fmt: skip
    for name in (SMALL, BASE):
        for fast in (False, True):
            tracker = build(name, device=device, fast=fast)
            tracker.initialize(frames[0], args.box)
            searcher, windows = tracker._searcher, tracker._windows()
            crops = searcher._buffer.fill(frames[1], windows)
            with searcher.kernels:
                numbers = searcher._run(tracker._look, crops, tracker._cache)

                def crop(s: Any = searcher, w: Any = windows) -> Any:
                    return finished(s._buffer.fill(frames[1], w))

                def forward(s: Any = searcher, t: Any = tracker, c: Any = crops) -> Any:
                    return finished(s._run(t._look, c, t._cache))

                def copy(n: Any = numbers) -> np.ndarray:
                    return n.cpu().numpy()

                steps: dict[str, Way] = {
                    "crop": crop,
                    "forward": forward,
                    "copy": copy,
                    "all": partial(tracker.track, frames[1]),
                }
                times = take_turns(steps, 3 * args.rounds)
            row(f"{name}{', fast' if fast else ''}", *(f"{1e3 * s:.2f}" for s in times.values()),
                f"{1 / times['all']:.1f}")  # fmt: skip


SECTIONS = {run.__name__: run for run in (cached, video, objects, ways, split)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=SECTIONS, action="append", help="may be repeated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--video", type=Path, help=f"default: the checkpoint {SAMPLE}")
    parser.add_argument("--box", default=",".join(map(str, BOX)), help="in its first frame")
    parser.add_argument("--baselines", type=Path, help="folder of NanoTrack's files")
    args = parser.parse_args()
    args.box = [float(value) for value in args.box.split(",")]
    args.video = args.video or checkpoints.path(SAMPLE)
    with open_video(args.video) as film:
        frames = list(film.frames(0, 2))
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    for name in args.only or SECTIONS:
        SECTIONS[name](args, frames)


if __name__ == "__main__":
    main()
