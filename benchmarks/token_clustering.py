"""Token clustering on trained weights: what does it cost, and what does it save?

    python -m benchmarks.token_clustering segmenter VOS --step 10
    python -m benchmarks.token_clustering tracker TRACKING VOS --frames 150

SAM's own weights lie behind Meta's file host; `python -m segmenters benchmark` is for those who
have them. Here the two networks are clustered whose weights everyone has: the third stage of
MobileSAM's encoder (six blocks in windows of 14x14, on 64x64 tokens, as SAM's windowed blocks are),
and the search crop of MixFormerV2 (14x14 tokens). The plain alternative is as many averages over a
regular grid, and bilinear enlargement.

VOS and TRACKING are folders of sequences: NAME/JPEGImages and NAME/Annotations as in DAVIS, and
NAME/img and NAME/groundtruth.txt as in OTB.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from segmenters import Prompt, build_segmenter
from segmenters.benchmark import (
    Sample,
    as_markdown,
    as_table,
    compare,
    run_on_averages,
    with_encoder,
)
from segmenters.cleanup import mask_box
from segmenters.evaluation import find_clips
from segmenters.hourglass import HourglassConfig, resize_bias_table, run_on_clusters
from segmenters.mobile_sam import Attention, Block, Stage, TinyViT
from segmenters.sam import SamSegmenter
from trackers.base import build_tracker
from trackers.crop_tracker import CropTracker
from trackers.datasets.base import Sequence as Sequence_
from trackers.datasets.folder import Folder
from trackers.evaluation.metrics import Scores, mean_scores, score
from trackers.evaluation.run import follow
from trackers.models.layers import KeysValues
from trackers.models.mixformerv2 import MixFormerV2, MixFormerV2Output

# -------------------------------------------------------------------------------------- MobileSAM

STAGE, WINDOW = 2, 14
# Temperatures tried from 0.003 to 0.1 and 0.0003 to 0.03: these did best.
MOBILE_SAM = [HourglassConfig(1, n, temperature=0.03) for n in (121, 100, 81, 64)]
MIXFORMER = [HourglassConfig(at, n, temperature=0.01) for at, n in ((1, 100), (1, 49), (2, 49))]


class SmallerBlock(nn.Module):
    """A block of TinyViT on maps (b, h, w, c) that smaller windows divide, with its weights."""

    def __init__(self, block: Block, side: int) -> None:
        super().__init__()
        self.block = copy.copy(block)
        self.block._modules = {**block._modules, "attn": smaller_attention(block.attn, side)}
        self.block.window = side

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def smaller_attention(attention: Attention, side: int) -> Attention:
    """The same attention for windows of `side`; its biases by distance are interpolated."""
    heads, channels = attention.heads, attention.proj.out_features
    smaller = Attention(channels, heads, side)
    state = {**attention.state_dict(), "attention_biases": torch.zeros(heads, side * side)}
    smaller.load_state_dict(state)
    quadrant = attention.attention_biases.view(heads, WINDOW, WINDOW)
    down = torch.cat([quadrant.flip(1)[:, :-1], quadrant], 1)  # for distances -13 to 13
    table = torch.cat([down.flip(2)[:, :, :-1], down], 2).flatten(1).T
    resized = resize_bias_table(table, side).T.view(heads, 2 * side - 1, 2 * side - 1)
    with torch.no_grad():
        smaller.attention_biases.copy_(resized[:, side - 1 :, side - 1 :].flatten(1))
    return smaller.eval()


class SmallerStage(nn.Module):
    """The third stage on fewer tokens from its block `config.location` on."""

    def __init__(self, stage: Stage, config: HourglassConfig, *, pooled: bool) -> None:
        super().__init__()
        self.first = stage.blocks[: config.location]
        self.rest = nn.ModuleList(
            SmallerBlock(cast(Block, block), config.side)
            for block in list(stage.blocks)[config.location :]
        )
        self.downsample, self.config = stage.downsample, config
        self.run = run_on_averages if pooled else run_on_clusters

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        x = self.run(x, self.rest, WINDOW, self.config)
        return self.downsample(x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))


def smaller_encoder(encoder: TinyViT, config: HourglassConfig, *, pooled: bool) -> TinyViT:
    twin = copy.copy(encoder)
    stages = list(encoder.layers)
    stages[STAGE] = SmallerStage(cast(Stage, stages[STAGE]), config, pooled=pooled)
    twin._modules = {**encoder._modules, "layers": nn.Sequential(*stages)}
    return twin.eval()


def read_samples(root: Path, step: int) -> list[Sample]:
    """Every `step`-th frame of annotated sequences, each prompted with the true box."""
    samples = []
    for clip in find_clips(root):
        for index in range(0, len(clip), step):
            for object_id in clip.objects:
                truth = clip.truth(index, object_id)[0]
                box = mask_box(truth)
                if box is not None:
                    samples.append(Sample(clip.frame(index), [Prompt(box=box)], [truth]))
    return samples


def segmenter(root: Path, step: int) -> str:
    """Masks of true boxes against those of the plain model and against the true masks."""
    plain = cast(SamSegmenter, build_segmenter("mobile_sam", device="cpu"))
    half = cast(SamSegmenter, build_segmenter("mobile_sam", device="cpu", precision="bfloat16"))
    models = {"plain": plain, "plain, bfloat16": half}
    for config in MOBILE_SAM:
        setting = f"{config.location}, {config.clusters_per_window}"
        for pooled in (False, True):
            shorter = smaller_encoder(plain.network.image_encoder, config, pooled=pooled)
            way = "pooled" if pooled else "clustered"
            models[f"{way} {setting}"] = with_encoder(plain, shorter)
    return as_markdown(as_table(compare(models, tqdm(read_samples(root, step)))))


# ---------------------------------------------------------------------------------- MixFormerV2-S


def search_fewer(
    network: MixFormerV2,
    config: HourglassConfig,
    search: Tensor,
    cache: Sequence[KeysValues],
) -> MixFormerV2Output:
    """As `MixFormerV2.search`, with fewer search tokens from block `config.location` on.

    Nothing is reconstructed: the heads read the four prediction tokens alone. Without iterations,
    clusters are averages over a regular grid.
    """
    x = network.backbone.search_tokens(search)
    side = math.isqrt(x.shape[1] - 4)
    features = []
    for i, (block, context) in enumerate(zip(network.backbone.blocks, cache, strict=True)):
        if i == config.location:
            clusters = config.cluster(x[:, :-4].unflatten(1, (side, side))).flatten(1, 2)
            x = torch.cat([clusters, x[:, -4:]], dim=1)
        x, _ = block.cached(x, context, 4 if i == len(cache) - 1 else x.shape[1])
        features.append(x)
    return network._predict(features)


def tracker(roots: Sequence[Path], frames: int) -> str:
    """AUC over sequences (their first `frames` frames), and the time of the network alone."""
    sequences = [
        Sequence_(s.name, s.frames[:frames], s.boxes_xywh[:frames])
        for root in roots
        for s in (Folder(root, "all")[name] for name in Folder(root, "all").find_names())
    ]
    runs: dict[str, HourglassConfig | None] = {"plain": None}
    for config in MIXFORMER:
        setting = f"{config.location}, {config.clusters_per_window}"
        runs[f"clustered {setting}"] = config
        runs[f"pooled {setting}"] = replace(config, iterations=0)
    trackers = {}
    for name, fewer in runs.items():
        trackers[name] = build_tracker("mixformerv2_small", device="cpu", mode="benchmark")
        if fewer is not None:
            network = cast(CropTracker, trackers[name]).network
            network.search = partial(search_fewer, network, fewer)
    scores: dict[str, list[Scores]] = {name: [] for name in runs}
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in runs}
    for sequence in tqdm(sequences):
        for name, each in trackers.items():  # taking turns
            boxes, took = follow(each, sequence)
            scores[name].append(score(boxes, sequence, "folder"))
            seconds[name].append(took[1:])
    lines = [
        "| search tokens | AUC | precision | ms per frame | times as fast |",
        "|---|---|---|---|---|",
    ]
    times = {name: float(np.median(np.concatenate(took))) for name, took in seconds.items()}
    for name in runs:
        mean = mean_scores(scores[name])
        lines.append(
            f"| {name} | {100 * mean.auc:.1f} | {100 * mean.precision_20:.1f} "
            f"| {1000 * times[name]:.0f} | {times['plain'] / times[name]:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_subparsers(dest="what", required=True)
    masks = chosen.add_parser("segmenter")
    masks.add_argument("root", type=Path)
    masks.add_argument("--step", type=int, default=10, help="every which frame")
    boxes = chosen.add_parser("tracker")
    boxes.add_argument("roots", type=Path, nargs="+")
    boxes.add_argument("--frames", type=int, default=150, help="at most, of each sequence")
    args = parser.parse_args()
    with torch.inference_mode():
        if args.what == "segmenter":
            print(segmenter(args.root, args.step), end="")
        else:
            print(tracker(args.roots, args.frames), end="")


if __name__ == "__main__":
    main()
