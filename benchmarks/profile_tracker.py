"""Where does a tracker's time go? Speed against depth, MLP ratio, input size and kind of head.

    python -m benchmarks.profile_tracker --threads 1 --out docs/profile.png

The measurement that led from MixViT to MixFormerV2 (arXiv 2305.15896, section 3.3), with this
project's networks: one search crop, templates encoded beforehand, ViT-B width, random weights (what
is computed does not depend on them). From MixViT-B's 12 blocks, MLP ratio 4 and 288 pixels one
thing changes at a time. The settings of a curve take turns, so that other work on the machine slows
all of them alike; with one thread its own processor time is taken, which counts little of that.

Three kinds of heads: MixFormerV2's on its four tokens; MixViT's pyramid of convolutions that maps
corners; and the same with MixFormer's score module behind it, which looks at the found region with
attention. The latter is not part of the project, so it is rebuilt here, with `roi_align` for
upstream's PrRoI pooling, which has operators of its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import roi_align

from media.device import resolve_device
from trackers.boxes import cxcywh_to_xyxy
from trackers.models.mixformerv2 import MixFormerV2
from trackers.models.mixvit import MixViT
from trackers.search import Searcher

DIM = 768
TOKENS, CORNERS, CORNERS_AND_SCORE = "four tokens", "corner maps", "corner maps + score module"


@dataclass(frozen=True)
class Setting:
    """What is measured; MixViT-B with other heads, unless told otherwise."""

    depth: int = 12
    mlp_ratio: float = 4.0
    search_size: int = 288
    heads: str = TOKENS

    @property
    def template_size(self) -> int:
        """In the proportion of 128 to 288, rounded to whole patches."""
        return round(self.search_size * 128 / 288 / 16) * 16


class ScoreModule(nn.Module):
    """MixFormer's (arXiv 2203.11082, section 3.3): a token sees the region, then the template."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, DIM))
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(DIM, 12, batch_first=True) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(2))
        self.mlp = nn.Sequential(
            nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, 1)
        )

    def forward(
        self, features: torch.Tensor, boxes: torch.Tensor, template: torch.Tensor
    ) -> torch.Tensor:
        """(1, dim, n, n) features, (1, 4) corners as shares of the crop, (1, m, dim) tokens."""
        region = roi_align(features, [boxes * features.shape[-1]], output_size=4)
        x = self.token
        for seen, attention, norm in zip(
            (region.flatten(2).transpose(1, 2), template), self.attentions, self.norms, strict=True
        ):
            x = norm(x + attention(x, seen, seen, need_weights=False)[0])
        return self.mlp(x)


def build(setting: Setting, device: torch.device) -> tuple[Callable[[], float], float]:
    """Prepare a setting.

    Returns:
        A function that searches one crop and waits for the result, and the GFLOP it takes.
    """
    sizes: dict[str, Any] = {
        "search_size": setting.search_size,
        "template_size": setting.template_size,
    }
    network: MixFormerV2 | MixViT
    if setting.heads == TOKENS:
        network = MixFormerV2(depth=setting.depth, mlp_ratio=setting.mlp_ratio, **sizes)
    elif setting.mlp_ratio == 4:
        network = MixViT(depth=setting.depth, **sizes)
    else:
        raise ValueError("MixViT's MLP ratio is 4")
    network.requires_grad_(False).eval().to(device)
    side = setting.template_size
    with torch.inference_mode():
        cache = network.encode_templates(torch.randn(1, 2, 3, side, side, device=device))
    crop = torch.randn(1, 3, setting.search_size, setting.search_size, device=device)
    module = ScoreModule().requires_grad_(False).eval().to(device)
    grid = setting.search_size // 16
    features = torch.randn(1, DIM, grid, grid, device=device)  # as large as the real ones
    template = torch.randn(1, (side // 16) ** 2, DIM, device=device)

    @torch.inference_mode()
    def step() -> float:
        found = network.search(crop, cache).boxes_cxcywh[:, 0]
        if setting.heads == CORNERS_AND_SCORE:
            found = module(features, cxcywh_to_xyxy(found), template)
        return found.flatten()[0].item()  # waits for a GPU to be done

    with FlopCounterMode(display=False) as counter:
        step()
    kernels = Searcher(setting.search_size, device).kernels  # those that trackers run with

    def fast_step() -> float:
        with kernels:
            return step()

    return fast_step, counter.get_total_flops() / 1e9


def seconds(step: Callable[[], float], device: torch.device) -> float:
    single = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if single else time.perf_counter
    began = clock()
    step()
    return clock() - began


def measure(
    settings: list[Setting], device: torch.device, repeats: int
) -> dict[Setting, tuple[float, float]]:
    """Median seconds per search, and GFLOP, of settings that take turns."""
    built = {setting: build(setting, device) for setting in settings}
    times: dict[Setting, list[float]] = {setting: [] for setting in settings}
    for round_ in range(repeats + 1):
        for setting, (step, _) in built.items():
            spent = seconds(step, device)
            if round_:  # the first one warms up
                times[setting].append(spent)
    return {setting: (median(times[setting]), work) for setting, (_, work) in built.items()}


Figures = dict[Setting, tuple[float, float]]
PANELS: dict[
    str, tuple[str, tuple[Any, ...], tuple[str, ...]]
] = {  # what a panel varies: title, name in Setting, values, kinds of heads
    "blocks": ("depth", (2, 4, 8, 12), (TOKENS, CORNERS_AND_SCORE)),
    "MLP ratio": ("mlp_ratio", (1.0, 2.0, 3.0, 4.0), (TOKENS,)),
    "search crop, pixels": ("search_size", (192, 240, 288, 384), (TOKENS, CORNERS_AND_SCORE)),
}
HEADS = (TOKENS, CORNERS, CORNERS_AND_SCORE)
DEPTHS = (12, 4)  # with which heads are compared
SMALL = Setting(depth=4, mlp_ratio=1.0, search_size=224)  # MixFormerV2-S


def draw(curves: dict[str, Figures], heads: Figures, path: Path, title: str) -> None:
    from matplotlib.figure import Figure  # late: it takes a second

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, 4)
    for panel, (label, (name, values, kinds)) in zip(axes, PANELS.items(), strict=False):
        for kind in kinds:
            rates = [
                1 / curves[label][replace(Setting(heads=kind), **{name: v})][0] for v in values
            ]
            panel.plot(values, rates, marker="o", label=kind)
        panel.set(xlabel=label, xticks=values, ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    axes[0].set_ylabel("crops a second")
    width = 0.8 / len(DEPTHS)
    for i, depth in enumerate(DEPTHS):
        times = [1000 * heads[Setting(depth=depth, heads=kind)][0] for kind in HEADS]
        axes[3].bar(
            [x + i * width for x in range(len(HEADS))], times, width, label=f"{depth} blocks"
        )
    axes[3].set_xticks([x + width / 2 for x in range(len(HEADS))], ["tokens", "corners", "+ score"])
    axes[3].set(xlabel="heads", ylabel="milliseconds", ylim=(0, 1.35 * axes[3].get_ylim()[1]))
    axes[3].legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=100)


def _differences(one: Setting, other: Setting) -> list[tuple[str, Any, Any]]:
    rows = [(f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(Setting)]
    return [(name.replace("_", " "), old, new) for name, old, new in rows if old != new]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="PNG for the curves")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)

    curves: dict[str, Figures] = {}
    for label, (name, values, kinds) in PANELS.items():
        settings = [replace(Setting(heads=k), **{name: v}) for k in kinds for v in values]
        curves[label] = measure(settings, device, args.repeats)
    heads = measure(
        [Setting(depth=depth, heads=kind) for depth in DEPTHS for kind in HEADS] + [SMALL],
        device,
        args.repeats,
    )

    print("| varied | blocks | MLP ratio | crop | heads | GFLOP | median, ms | crops/s |")
    print("|---|---|---|---|---|---|---|---|")
    for label, figures in {**curves, "heads": heads}.items():
        for setting, (spent, work) in figures.items():
            print(
                f"| {label} | {setting.depth} | {setting.mlp_ratio:g} | {setting.search_size} | "
                f"{setting.heads} | {work:.1f} | {1000 * spent:.0f} | {1 / spent:.1f} |"
            )
    print("\n| change | times as fast |\n|---|---|")
    corners = Setting(heads=CORNERS_AND_SCORE)
    for figures, slow, fast in (
        (curves["blocks"], Setting(), Setting(depth=4)),
        (curves["MLP ratio"], Setting(), Setting(mlp_ratio=1.0)),
        (curves["search crop, pixels"], Setting(), Setting(search_size=192)),
        (heads, corners, Setting()),
        (heads, replace(corners, depth=4), Setting(depth=4)),
        (heads, corners, SMALL),
    ):
        changed = [f"{name} {old} -> {new}" for name, old, new in _differences(slow, fast)]
        behind = f", at {fast.depth} blocks" if slow.depth == fast.depth else ""
        print(f"| {', '.join(changed)}{behind} | {figures[slow][0] / figures[fast][0]:.2f} |")
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU with {torch.get_num_threads()} thread(s)"
    )
    if args.out:
        draw(curves, heads, args.out, f"ViT-B width, one crop at a time, {where}")


if __name__ == "__main__":
    main()
