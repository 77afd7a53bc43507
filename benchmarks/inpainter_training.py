"""What has an inpainter learnt? A run against its own start and against plain fills.

    python -m benchmarks.inpainter_training RUN

RUN is the folder of `python -m inpainting train`. All paint the same held-out samples with the same
holes, those the run was validated with; PSNR is of frames of 8 bits, over the frame and inside the
holes alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from checkpoints.training.processes import Place
from checkpoints.training.recipes import read
from checkpoints.training.saving import read_weights, weights_in
from inpainting.training.config import Recipe
from inpainting.training.data import Batch
from inpainting.training.networks import build_generator
from inpainting.training.validation import HeldOut
from media.device import resolve_device


def mean_colour(batch: Batch) -> Tensor:
    """The mean of what each frame shows."""
    truth, holes = batch.truth[:, : batch.num_local], batch.holes[:, : batch.num_local]
    shown = (truth * (1 - holes)).sum(dim=(3, 4), keepdim=True)
    return (shown / (1 - holes).sum(dim=(3, 4), keepdim=True).clamp(min=1)).expand_as(truth)


def telea(batch: Batch) -> Tensor:
    """Each frame by itself, by Telea's method."""
    frames = ((batch.masked[:, : batch.num_local] + 1) / 2 * 255).round().byte().cpu()
    holes = batch.holes[:, : batch.num_local, 0].byte().cpu()
    painted = torch.stack(
        [
            torch.from_numpy(
                cv2.inpaint(
                    np.ascontiguousarray(frame.permute(1, 2, 0).numpy()),
                    hole.numpy(),
                    3,
                    cv2.INPAINT_TELEA,
                )
            ).permute(2, 0, 1)
            for frame, hole in zip(frames.flatten(0, 1), holes.flatten(0, 1), strict=True)
        ]
    )
    found = painted.float().view(batch.truth[:, : batch.num_local].shape)
    return (found / 255 * 2 - 1).to(batch.truth.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    described = json.loads((given.run / "recipe.json").read_text(encoding="utf-8"))
    recipe = read(Recipe, described, "recipe")
    place = Place(0, 1, resolve_device(given.device))
    held_out = HeldOut(recipe, place)
    torch.manual_seed(recipe.engine.seed)
    network = build_generator(recipe).to(place.device)

    rows: list[tuple[str, Callable[[], dict[str, float]]]] = [
        ("mean colour of the frame", lambda: held_out.measure(mean_colour)),
        ("Telea, frame by frame", lambda: held_out.measure(telea)),
        ("the network before training", lambda: held_out(network)),
    ]
    weights = weights_in(given.run)
    if weights.exists():
        rows.append(("the network after training", lambda: held_out(network)))
    print("| | PSNR, dB | PSNR inside the holes, dB |\n|---|---|---|")
    for name, measure in rows:
        if "after" in name:
            network.load_state_dict(read_weights(weights))
        found = measure()
        print(f"| {name} | {found['held_out_psnr']:.2f} | {found['held_out_hole_psnr']:.2f} |")


if __name__ == "__main__":
    main()
