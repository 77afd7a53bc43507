"""How much time does token clustering save? SAM ViT-B's image encoder, plain and at four settings.

    python -m benchmarks.hourglass --repeats 5 --threads 2

Random weights: what is computed does not depend on them, only how long tokens are (and so what
they mean) does. Says nothing about the quality of masks. The settings take turns, so that other
work on the machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from segment_anything import build_sam_vit_b
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from media.device import resolve_device
from segmenters.hourglass import HourglassConfig, apply_to_sam_encoder

SETTINGS = [  # the command line of Expedit-SAM, the two presets, and about as far as it goes
    HourglassConfig(6, 100),
    HourglassConfig(6, 81),
    HourglassConfig(3, 81),
    HourglassConfig(2, 49),
]


def seconds(encoder: nn.Module, image: torch.Tensor) -> float:
    began = time.perf_counter()
    encoder(image)[0, 0, 0, 0].item()  # waits for a GPU to be done
    return time.perf_counter() - began


def gigaflops(encoder: nn.Module, image: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        encoder(image)
    return counter.get_total_flops() / 1e9


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)

    plain = build_sam_vit_b().image_encoder.to(device).eval()
    image = torch.randn(1, 3, plain.img_size, plain.img_size, device=device)
    runs = {"plain": plain}
    for config in SETTINGS:
        name = f"{config.location}, {config.clusters_per_window}"
        runs[name] = apply_to_sam_encoder(plain, config)

    work = {name: gigaflops(encoder, image) for name, encoder in runs.items()}  # warms up, too
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, encoder in runs.items():
            times[name].append(seconds(encoder, image))

    print(
        "| location, clusters per window | GFLOP | median, s | times as fast |\n|---|---|---|---|"
    )
    for name in runs:
        middle = median(times[name])
        ratio = median(times["plain"]) / middle
        print(f"| {name} | {work[name]:.0f} | {middle:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
