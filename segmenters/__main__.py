"""Masks from a command line, and how good they are: list | evaluate | benchmark."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm import tqdm

from media import InputError
from media.command_line import run_program
from segmenters.base import Precision

if TYPE_CHECKING:
    from segmenters.evaluation import Clip, Scores


def list_() -> int:
    """Show the segmenters that the other commands know."""
    from segmenters import list_segmenters

    print("\n".join(list_segmenters()))
    return 0


def evaluate(
    root: Path,
    *,
    segmenter: str = "mobile_sam",
    prompt: Literal["box", "point"] = "box",
    boxes: Path | None = None,
    masks: Path | None = None,
    alone: bool = False,
    region: Literal["auto", "always", "never"] = "auto",
    embeddings: Path | None = None,
    sequence: list[str] | None = None,
    out: Path | None = None,
    weights: Path | None = None,
    device: str = "auto",
) -> int:
    """Score masks against annotated sequences: DAVIS's J and F, and how steady they are.

    Without --boxes or --masks each frame is prompted with its own true box or point. Masks from
    boxes are made steady from frame to frame, those from points are not. The first and the last
    frame do not count, as in DAVIS's semi-supervised task.

    Args:
        root: Folder with JPEGImages/NAME and Annotations/NAME (as DAVIS), or NAME/JPEGImages.
        segmenter: Which segmenter; see the command list.
        prompt: What each frame is prompted with: the box round the true mask, or its deepest point.
        boxes: Prompt with a tracker's boxes: BOXES/NAME.txt, as trackers evaluate writes them, or
            BOXES/NAME/tracks.csv, as demo does.
        masks: Score masks that are there already: MASKS/NAME/00000.png and so on.
        alone: Leave each frame to itself, and take the candidate with the best score as it is.
        region: Whether to encode a window round the object in place of the frame; auto does if the
            object is small.
        embeddings: Folder to keep what frames look like to the model, so that the next evaluation
            takes a tenth of the time. A frame takes 4 MiB.
        sequence: Which sequence, in place of all.
        out: Folder to write the masks to.
        weights: A file with weights, in place of the best on this machine.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    from segmenters import Prompt, Segmenter, build_segmenter
    from segmenters.cache import CachedSegmenter
    from segmenters.evaluation import (
        Scores,
        cut_out_alone,
        cut_out_steadily,
        find_clips,
        read_boxes,
        read_masks,
        score,
        true_prompts,
    )
    from segmenters.steady import Steadier

    if boxes is not None and masks is not None:
        raise InputError("Give --boxes to make masks from, or --masks that are made, not both.")
    clips = find_clips(root, sequence or ())
    model: Segmenter | None = None
    if masks is None:
        model = build_segmenter(
            segmenter, device=device, weights=None if weights is None else str(weights)
        )
        if embeddings is not None:
            model = CachedSegmenter(model, memory=0, folder=embeddings, disk=2**40)

    def cut_out(clip: Clip, object_id: int) -> Iterator[np.ndarray]:
        if model is None:
            assert masks is not None
            return read_masks(masks, clip, object_id)
        if boxes is not None:
            places = read_boxes(boxes, clip, object_id)
            prompts = [None if box is None else Prompt(box=box) for box in places]
        else:
            prompts = list(true_prompts(clip, object_id, prompt))
            places = [None if own is None else own.box for own in prompts]
        if alone or (boxes is None and prompt == "point"):
            return cut_out_alone(model, clip, prompts)
        tracked, steadier = boxes is not None, Steadier()
        return cut_out_steadily(
            model, clip, places, steadier=steadier, tracked=tracked, region=region
        )

    rows: dict[str, Scores] = {}
    for clip in clips:
        for object_id in clip.objects:
            name = clip.name if len(clip.objects) == 1 else f"{clip.name} {object_id}"
            made: Iterable[np.ndarray] = tqdm(
                cut_out(clip, object_id), total=len(clip), desc=name, unit="frame", leave=False
            )
            if out is not None:
                made = _kept(made, out / name.replace(" ", "_"))
            rows[name] = score(clip, object_id, made)
    if len(rows) > 1:
        rows["mean"] = Scores.over(list(rows.values()))
    print(_as_table(rows))
    return 0


def _kept(masks: Iterable[np.ndarray], folder: Path) -> Iterator[np.ndarray]:
    from media.masks import MaskFolder

    target = MaskFolder(folder)
    for index, mask in enumerate(masks):
        target.write(index, mask)
        yield mask


def _as_table(rows: dict[str, Scores]) -> str:
    width = max(map(len, rows))
    titles = ("J&F", "J", "recall", "decay", "F", "recall", "decay", "steady")
    lines = [" " * width + "".join(f"{title:>8s}" for title in titles)]
    for name, s in rows.items():
        j, f = s.region, s.boundary
        values = (s.both, j.mean, j.recall, j.decay, f.mean, f.recall, f.decay, s.steadiness)
        lines.append(f"{name:{width}s}" + "".join(f"{value:8.3f}" for value in values))
    return "\n".join(lines)


def benchmark(
    pictures: Path,
    *,
    segmenter: Literal["sam_vit_b", "sam_vit_l", "sam_vit_h"] = "sam_vit_b",
    setting: list[str] | None = None,
    points: int = 4,
    boxes: Path | None = None,
    masks: Path | None = None,
    limit: int | None = None,
    out: Path | None = None,
    weights: Path | None = None,
    precision: Precision = "float32",
    device: str = "auto",
) -> int:
    """Measure what token clustering does to SAM's masks, and how much time it saves.

    The plain image encoder, the clustered one, and averages over a regular grid at the same number
    of tokens take turns over a folder of pictures. What counts is the best mask of each prompt. A
    prompt to which the plain model has no sure answer does not, unless the true masks are given.

    Args:
        pictures: Folder with photographs.
        segmenter: Which SAM.
        setting: First block on clusters and clusters per window, as in 6,81, in place of the
            presets.
        points: Points per side of the regular grid of prompts.
        boxes: Prompt with the boxes of a CSV file instead: picture,x0,y0,x1,y1.
        masks: Folder with the true mask of each picture, NAME.png; the prompt is the box round it,
            and the masks are compared with it, too.
        limit: How many pictures are looked at, spread evenly over the folder.
        out: File for the table, .md or .csv.
        weights: A file with weights, in place of the official one.
        precision: What the image encoder multiplies in.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    from segmenters import benchmark as bench
    from segmenters.base import build_segmenter
    from segmenters.hourglass import PRESETS
    from segmenters.sam import SamSegmenter

    if boxes is not None and masks is not None:
        raise InputError("Give --boxes or --masks to prompt with, not both.")
    if points < 1 or (limit is not None and limit < 1):
        raise InputError("--points and --limit must be 1 or more.")
    bench.check_out(out)
    configs = [bench.read_setting(text) for text in setting or ()]
    files = bench.find_pictures(pictures)
    if limit is not None:
        files = files[:: -(-len(files) // limit)]
    prompts = None if boxes is None else bench.read_boxes(boxes)
    model = build_segmenter(
        segmenter,
        device=device,
        weights=None if weights is None else str(weights),
        precision=precision,
    )
    assert isinstance(model, SamSegmenter)
    models = bench.fewer_tokens(model, configs or list(PRESETS[segmenter].values()))
    with tqdm(files, unit="picture", leave=False) as shown:
        samples = bench.read_samples(shown, points=points, boxes=prompts, masks=masks)
        table = bench.as_table(bench.compare(models, samples))
    if out is not None:
        bench.save_table(table, out)
    print(bench.as_markdown(table), end="")
    return 0


COMMANDS = (list_, evaluate, benchmark)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 ok, 1 failed (missing weights), 2 bad input."""
    return run_program("python -m segmenters", __doc__ or "", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
