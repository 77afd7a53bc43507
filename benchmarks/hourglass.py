"""How long does it take to see a frame? SAM's encoders, plain and on fewer tokens; a second click.

    python -m benchmarks.hourglass --threads 2
    python -m benchmarks.hourglass --device cuda

SAM's encoders have random weights: what is computed does not depend on them, only how long tokens
are (and so what they mean) does. Says nothing about the quality of masks; for that there are
`python -m segmenters benchmark` and `python -m benchmarks.token_clustering`. The ways take turns,
so that other work on the machine slows all of them alike. MobileSAM has its real weights.

On a CPU: SAM ViT-B, with upstream's attention and with ours, and MobileSAM. On a GPU also ViT-H, in
float32, in bfloat16, and clustered in bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np
import torch
from segment_anything import build_sam_vit_b, build_sam_vit_h
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from checkpoints import WeightsRecord
from media.device import resolve_device
from segmenters import Prompt, build_segmenter
from segmenters.attention import fuse_attention
from segmenters.benchmark import with_encoder
from segmenters.cache import CachedSegmenter
from segmenters.hourglass import PRESETS, HourglassConfig, apply_to_sam_encoder
from segmenters.sam import SamSegmenter

SETTINGS = [  # the command line of Expedit-SAM, the two presets, and about as far as it goes
    HourglassConfig(6, 100),
    HourglassConfig(6, 81),
    HourglassConfig(3, 81),
    HourglassConfig(2, 49),
]
FRAME = np.random.default_rng(0).integers(0, 256, (480, 854, 3), np.uint8)
RANDOM = WeightsRecord("random", "")


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each way to do something, after one run that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: median(taken) for name, taken in times.items()}


def encoding(model: SamSegmenter) -> Callable[[], object]:
    return lambda: model.encode(FRAME).features[0, 0, 0, 0].item()  # waits for a GPU to be done


def gigaflops(configs: Mapping[str, HourglassConfig | None]) -> dict[str, float]:
    """Of SAM ViT-B's image encoder for 1024x1024 pixels, counted without computing anything."""
    work = {}
    with FakeTensorMode():
        encoder = build_sam_vit_b().image_encoder.eval()
        image = torch.empty(1, 3, encoder.img_size, encoder.img_size)
        for name, config in configs.items():
            shorter = encoder if config is None else apply_to_sam_encoder(encoder, config)
            with FlopCounterMode(display=False) as counter:
                shorter(image)
            work[name] = counter.get_total_flops() / 1e9
    return work


def vit_b(device: torch.device, repeats: int) -> None:
    network = build_sam_vit_b()
    upstream = SamSegmenter(network, RANDOM, device)
    fused = copy.deepcopy(network.image_encoder)
    fuse_attention(fused)
    configs: dict[str, HourglassConfig | None] = {
        "plain, upstream's attention": None,
        "plain": None,
    }
    models = {"plain, upstream's attention": upstream, "plain": with_encoder(upstream, fused)}
    for config in SETTINGS:
        name = f"{config.location}, {config.clusters_per_window}"
        configs[name] = config
        models[name] = with_encoder(upstream, apply_to_sam_encoder(fused, config))
    work = gigaflops(configs)
    times = in_turns({name: encoding(model) for name, model in models.items()}, repeats)
    print("\nSAM ViT-B, a frame of 854x480 enlarged to 1024x1024:\n")
    print("| location, clusters per window | GFLOP | median, s | times as fast |")
    print("|---|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {work[name]:.0f} | {taken:.3f} | {times['plain'] / taken:.2f} |")


def vit_h(device: torch.device, repeats: int) -> None:
    network = build_sam_vit_h()
    fuse_attention(network.image_encoder)
    plain = SamSegmenter(network, RANDOM, device)
    half = SamSegmenter(copy.deepcopy(network), RANDOM, device, torch.bfloat16)
    models = {"float32": plain, "bfloat16": half}
    for name, config in PRESETS["sam_vit_h"].items():
        clustered = apply_to_sam_encoder(half.network.image_encoder, config)
        setting = f"{config.location}, {config.clusters_per_window}"
        models[f"bfloat16, {name} ({setting})"] = with_encoder(half, clustered)
    times = in_turns({name: encoding(model) for name, model in models.items()}, repeats)
    print("\nSAM ViT-H:\n\n| encoder | median, ms | times as fast |\n|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {1000 * taken:.1f} | {times['float32'] / taken:.2f} |")


def mobile_sam(device: torch.device, repeats: int) -> None:
    plain = build_segmenter("mobile_sam", device=str(device))
    half = build_segmenter("mobile_sam", device=str(device), precision="bfloat16")
    assert isinstance(plain, SamSegmenter) and isinstance(half, SamSegmenter)
    click = [Prompt(points=np.array([[400.0, 200.0]]))]
    cached = CachedSegmenter(plain)
    cached.encode(FRAME)
    ways = {
        "see a frame": encoding(plain),
        "see a frame in bfloat16": encoding(half),
        "a second click on it": lambda: cached.predict(cached.encode(FRAME), click),
    }
    print("\nMobileSAM, 854x480:\n\n| | median, ms |\n|---|---|")
    for name, taken in in_turns(ways, repeats).items():
        print(f"| {name} | {1000 * taken:.0f} |")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    mobile_sam(device, 3 * args.repeats)
    vit_b(device, args.repeats)
    if device.type == "cuda":
        vit_h(device, args.repeats)


if __name__ == "__main__":
    main()
