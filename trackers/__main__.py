"""Follow objects, and measure how well.

list | track | explain | evaluate | report | vot | pack | train | export
"""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from media import InputError
from media.command_line import run_program
from media.device import use_threads
from media.files import replacing
from trackers.base import Mode, build_tracker, list_trackers

if TYPE_CHECKING:
    from tqdm import tqdm

    from trackers.datasets import Dataset
    from trackers.evaluation.report import TrackerReport
    from trackers.evaluation.results import Results

_REASONS = 10  # why sequences failed, that are told one by one


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _show(bar: tqdm, done: int, total: int) -> None:
    bar.update(done - bar.n)


def _parse_box(text: str) -> list[float]:
    try:
        x0, y0, x1, y1 = (float(value) for value in text.split(","))
    except ValueError:
        raise InputError(f"The box {text!r} is not four numbers x0,y0,x1,y1.") from None
    return [x0, y0, x1, y1]


def list_() -> int:
    """Show the trackers, OpenCV's baselines, recipes and data sets that the other commands know."""
    from trackers.datasets import dataset_class, list_datasets
    from trackers.evaluation.opencv import list_baselines
    from trackers.training import list_recipes
    from trackers.training.data import LAYOUTS

    print("Trackers:", ", ".join(list_trackers()))
    print("Baselines:", ", ".join(list_baselines()))
    print("Recipes:", ", ".join(list_recipes()))
    print("Data sets:")
    for name in list_datasets():
        found = dataset_class(name)
        splits = "" if found.splits == ("all",) else f"  (--split {' | '.join(found.splits)})"
        print(f"  {name:12s} {found.title}: {found.layout}{splits}")
    print("Besides, to train on (shards are what the command pack writes):")
    for name, layout in LAYOUTS.items():
        print(f"  {name:12s} {layout}")
    return 0


def track(
    source: Path,
    *,
    box: str,
    out: Path | None = None,
    tracker: str = "mixformerv2_small",
    weights: Path | None = None,
    mode: Mode = "robust",
    device: str = "auto",
    threads: int | None = None,
    fast: bool = False,
    baselines: Path | None = None,
) -> int:
    """Follow one object through a video and write its boxes as CSV.

    Args:
        source: A video, a GIF or a folder of pictures.
        box: Where the object is in the first frame: x0,y0,x1,y1 in pixels.
        out: The CSV file to write; without it, the boxes are printed.
        tracker: Which tracker; see the command list.
        weights: A file with weights, in place of the best on this machine.
        mode: robust says when the object is lost; benchmark follows the published protocol.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: How many threads of the CPU to compute with, in place of what PyTorch chooses.
        fast: Compute in bfloat16, and on a GPU with fewer launches: boxes differ a little.
        baselines: Folder with NanoTrack's two .onnx files, for opencv:Nano.
    """
    from tqdm import tqdm

    from media.video import open_video
    from trackers.evaluation.run import Contestant

    corners = _parse_box(box)
    if out is not None and out.is_dir():
        raise InputError(f"{out} is a folder: give the name of a file in it.")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)  # now, and not after minutes of work
    use_threads(threads)
    contestant = Contestant(
        tracker,
        device=device,
        weights=None if weights is None else str(weights),
        mode=mode,
        options={"fast": True} if fast else {},
        baselines=None if baselines is None else str(baselines),
    )
    rows: list[list[object]] = [["frame", "x0", "y0", "x1", "y1", "score", "lost"]]
    with open_video(source) as video:
        follower = contestant.build()
        for i, frame in enumerate(tqdm(video.frames(), total=len(video), unit="frame")):
            if i == 0:
                follower.initialize(frame, corners)
                rows.append([0, *corners, 1.0, 0])
                continue
            found = follower.track(frame)
            where = [round(value, 2) for value in found.box.tolist()]
            rows.append([i, *where, round(found.score, 4), int(found.lost)])
        for note in video.notes:
            _say(note)
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return 0
    with replacing(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    print(out)
    return 0


def explain(
    source: Path,
    *,
    box: str,
    out: Path,
    start: int = 0,
    frames: int | None = None,
    every: int = 1,
    block: int | None = None,
    tracker: str = "mixformerv2_small",
    weights: Path | None = None,
    mode: Mode = "benchmark",
    device: str = "auto",
) -> int:
    """Draw what MixFormerV2 attends to and where it sees the edges, frame by frame.

    A picture shows the frame, the crop that is searched with the distributions of the four edges
    along its sides, what share of its attention each of the four prediction tokens gives to each
    part of the crop (mean over the heads), and what the four together give to the templates.

    Args:
        source: A video, a GIF or a folder of pictures.
        box: Where the object is in the frame --start: x0,y0,x1,y1 in pixels.
        out: A film to write (.mp4), or a new folder for one PNG per frame.
        start: The frame to begin with, counted from 0.
        frames: How many frames to follow from there; all, if left out.
        every: Draw each so-manieth of them; all are followed.
        block: Whose attention, counted from 0; the last block's, if left out.
        tracker: mixformerv2_small or mixformerv2_base.
        weights: A file with weights, in place of the best on this machine.
        mode: benchmark follows the published protocol; robust is what videos are followed with. Its
            searches of the whole frame are not drawn, only that around the last box.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    from tqdm import tqdm

    from media.video import open_video
    from trackers.explain import build_explainable, write_pictures
    from trackers.explain import explain as draw

    corners = _parse_box(box)
    follower = build_explainable(tracker, device=device, weights=weights, mode=mode)
    with open_video(source) as video:
        stop = len(video) if frames is None else min(len(video), start + frames)
        if every < 1 or start < 0 or stop - start < 2:
            raise InputError(
                f"There is nothing to draw from frame {start} of {len(video)}: --start is at least "
                "0, --frames 2 and --every 1, and a frame has to follow the one with the box."
            )
        shown = tqdm(video.frames(start, stop), total=stop - start, unit="frame")
        pictures = draw(follower, shown, corners, first=start, every=every, block=block)
        write_pictures(pictures, out, fps=video.info.fps / every)
    print(out)
    return 0


def evaluate(
    dataset: str,
    root: Path,
    *,
    out: Path,
    tracker: list[str],
    label: str | None = None,
    split: str | None = None,
    sequences: Path | None = None,
    processes: int = 1,
    overwrite: bool = False,
    weights: Path | None = None,
    mode: Mode = "benchmark",
    device: str = "auto",
    threads: int | None = None,
    search_factor: float | None = None,
    update_interval: int | None = None,
    online_size: int | None = None,
    threshold: float | None = None,
    baselines: Path | None = None,
) -> int:
    """Run trackers over a data set and score them; going on where an earlier run stopped.

    For the data sets of the papers a tracker takes the options its published results were made
    with, unless others are given. A split that only a server can score ends in a .zip file for it.

    Args:
        dataset: Its name; see the command list.
        root: The folder of the data set, as its authors lay it out.
        out: Folder for results: OUT/LABEL/DATASET_SPLIT/SEQUENCE.txt
        tracker: Which tracker.
        label: What to call the results of a single tracker, in place of its name.
        split: Which part of the data set, in place of the one results are published on.
        sequences: A text file that names the sequences to use, one per line.
        processes: How many sequences at a time; with several GPUs they take turns.
        overwrite: Do all sequences anew.
        weights: A file with weights, in place of the best on this machine.
        mode: benchmark follows the published protocol; robust is what videos are followed with.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: How many threads of the CPU each process computes with.
        search_factor: Side of the search window in multiples of the object's (MixFormer).
        update_interval: Frames between two updates of the online template (MixFormer).
        online_size: How many online templates are kept (MixFormer).
        threshold: Under which a search token may meet the template (GRM).
        baselines: Folder with NanoTrack's two .onnx files, for opencv:Nano.
    """
    from tqdm import tqdm

    from trackers.datasets import open_dataset
    from trackers.evaluation.results import Results, write_submission
    from trackers.evaluation.run import Contestant
    from trackers.evaluation.run import evaluate as run

    if label is not None and len(tracker) > 1:
        raise InputError("A label names the results of one tracker; evaluate them one by one.")
    data = open_dataset(dataset, root, split=split, sequences=sequences)
    given = _given(search_factor, update_interval, online_size, threshold)
    failures = 0
    everything = []
    for name in tracker:
        contestant = Contestant(
            name,
            device=device,
            weights=None if weights is None else str(weights),
            mode=mode,
            options=given,
            baselines=None if baselines is None else str(baselines),
        ).tuned_for(dataset)
        results = Results(out, label or name, data)
        with tqdm(total=len(data), desc=results.label, unit="sequence") as bar:
            outcome = run(
                data,
                contestant,
                results,
                processes=processes,
                threads=threads,
                overwrite=overwrite,
                report=partial(_show, bar),
            )
        reasons = list(outcome.failed.values())
        for reason in reasons[:_REASONS]:
            _say(f"{results.label}: {reason}")
        if len(reasons) > _REASONS:
            _say(f"{results.label}: and {len(reasons) - _REASONS} more.")
        failures += len(outcome.failed)
        everything.append(results)
        if data.hidden:
            archive = write_submission(results, data.find_names())
            done = f"upload {archive} to the server" if archive else "no archive before all is done"
            print(f"{results.label}: {done} of {data.title}.")
    if not data.hidden:
        _print_scores(data, [r for r in everything if any(map(r.has, data.names))])
    if failures:
        _say(f"{failures} sequences failed; the same command tries them again.")
    return 1 if failures else 0


def report(
    dataset: str,
    root: Path,
    *,
    results: Path,
    out: Path,
    label: list[str] | None = None,
    split: str | None = None,
    sequences: Path | None = None,
) -> int:
    """Score results and compare trackers: a table, success and precision plots, an HTML page.

    Args:
        dataset: Its name; see the command list.
        root: The folder of the data set, as its authors lay it out.
        results: The folder that evaluate wrote to.
        out: Folder for report.html, success.png and precision.png.
        label: Which results to compare, in place of all in the folder.
        split: Which part of the data set, in place of the one results are published on.
        sequences: A text file that names the sequences to use, one per line.
    """
    from trackers.datasets import open_dataset
    from trackers.evaluation.report import write_report
    from trackers.evaluation.results import Results, labels_in

    data = open_dataset(dataset, root, split=split, sequences=sequences)
    labels = label or labels_in(results, data)
    if not labels:
        raise InputError(f"There are no results for {data.title}, {data.split}, in {results}.")
    reports = _print_scores(data, [Results(results, name, data) for name in labels])
    print(write_report(reports, data, out))
    return 0


def vot(
    *,
    tracker: str = "mixformerv2_small",
    weights: Path | None = None,
    mode: Mode = "benchmark",
    device: str = "auto",
    search_factor: float | None = None,
    update_interval: int | None = None,
    online_size: int | None = None,
    threshold: float | None = None,
    baselines: Path | None = None,
) -> int:
    """Serve a tracker to the VOT toolkit, which starts this command by itself.

    docs/evaluation.md has the description of the tracker that the toolkit needs for it.

    Args:
        tracker: Which tracker; see the command list.
        weights: A file with weights, in place of the best on this machine.
        mode: benchmark follows the published protocol; robust is what videos are followed with.
        device: auto, cpu, cuda, cuda:1 or mps.
        search_factor: Side of the search window in multiples of the object's (MixFormer).
        update_interval: Frames between two updates of the online template (MixFormer).
        online_size: How many online templates are kept (MixFormer).
        threshold: Under which a search token may meet the template (GRM).
        baselines: Folder with NanoTrack's two .onnx files, for opencv:Nano.
    """
    from trackers.evaluation.run import Contestant
    from trackers.evaluation.vot import serve

    options = _given(search_factor, update_interval, online_size, threshold)
    serve(
        Contestant(
            tracker,
            device=device,
            weights=None if weights is None else str(weights),
            mode=mode,
            options=options,
            baselines=None if baselines is None else str(baselines),
        )
    )
    return 0


def _given(
    search_factor: float | None,
    update_interval: int | None,
    online_size: int | None,
    threshold: float | None,
) -> dict[str, float]:
    """The options of `build_tracker` that are not left out."""
    options = {
        "search_factor": search_factor,
        "update_interval": update_interval,
        "online_size": online_size,
        "threshold": threshold,
    }
    return {name: value for name, value in options.items() if value is not None}


def _print_scores(data: Dataset, everything: Sequence[Results]) -> list[TrackerReport]:
    from trackers.evaluation.report import as_text, score_results, summary

    reports = score_results(data, everything)
    if reports:
        print(as_text(summary(reports, data.scoring)))
    for found in reports:
        if found.missing:
            _say(f"{found.label} is not scored on {len(found.missing)} sequences.")
    return reports


def pack(
    source: Path,
    *,
    kind: str,
    out: Path,
    split: str | None = None,
    short_side: int = 320,
    every: int = 1,
    limit: int | None = None,
    encoding: Literal["webp", "jpeg"] = "webp",
    quality: int = 85,
    shard_mb: int = 26,
) -> int:
    """Pack a data set or videos into shards for training.

    They are read without OpenCV, PyAV or the data set's own layout. In videos without labels,
    regions are followed by optical flow, forwards and back as a check.

    Args:
        source: Its folder, or for data sets a zip file or an LMDB.
        kind: tracks (NAME/video.mp4 with NAME/tracks.jsonl), clips (videos without labels), coco,
            or a data set of the command list.
        out: Folder for the shards.
        split: Which part of the data set, in place of train.
        short_side: Pictures are shrunk to this shorter side, never enlarged.
        every: One frame in so many is kept.
        limit: Most videos, or photographs, that are packed.
        encoding: Of the pictures; JPEG files that need no shrinking stay as they are.
        quality: Of the encoding, 1 to 100.
        shard_mb: Largest size of a shard, in MB.
    """
    from tqdm import tqdm

    from trackers.training.data.packing import pack as run

    with tqdm(unit=" pictures", delay=1) as bar:
        outcome = run(
            source,
            out,
            kind=kind,
            split=split,
            short_side=short_side,
            every=every,
            limit=limit,
            encoding=encoding,
            quality=quality,
            shard_bytes=shard_mb << 20,
            report=lambda pictures: _show(bar, pictures, 0),
        )
    for reason in outcome.left_out:
        _say(f"Left out: {reason}")
    print(f"{outcome.pictures} pictures with {outcome.boxes} boxes are in {out}.")
    return 0


def train(
    recipe: str,
    *,
    data: list[str] | None = None,
    override: list[str] | None = None,
    out: Path | None = None,
    minutes: float | None = None,
    evaluate: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    print_config: bool = False,
) -> int:
    """Train a tracker by a recipe, or go on where the same command stopped.

    With several GPUs: torchrun --nproc-per-node=8 -m trackers train ...

    Args:
        recipe: Its name (see the command list), or a .yaml or .json file of your own.
        data: KIND=PATH of a data source, as stills=DIR or lasot=DIR; or a folder of shards, one
            that is called like a kind, or one of such folders. The recipe says how each is used.
        override: A setting of the recipe to change, as schedule.epochs=5
        out: Folder for weights, log and the state to go on from. Needed to train.
        minutes: Squeeze the schedule into so many minutes.
        evaluate: Folder of sequences to track at the end, or KIND=PATH of a data set: its val part
            if it has one.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: How many threads of the CPU to compute with, in place of what PyTorch chooses.
        print_config: Print the recipe with all that it leaves unsaid, as JSON, and do nothing.
    """
    import json
    import os

    from checkpoints.training.saving import weights_in
    from trackers.training import load_recipe
    from trackers.training import train as run
    from trackers.training.data import find_sources
    from trackers.training.validation import parse_sequences

    places = [place for text in data or [] for place in find_sources(text)]
    if print_config:
        loaded = load_recipe(recipe, places or None, override or [])
        print(json.dumps(loaded.as_values(), indent=1))
        return 0
    if not places:
        raise InputError("Training needs data: give at least one --data KIND=PATH (see list).")
    use_threads(threads)
    loaded = load_recipe(recipe, places, override or [])
    if out is None:
        raise InputError("Training needs a folder for its results: give --out DIR.")
    sequences = None if evaluate is None else parse_sequences(evaluate)
    for part in ("checkpoints.training", "trackers.training"):
        logging.getLogger(part).setLevel(logging.INFO)
    summary = run(loaded, out, device=device, minutes=minutes, evaluate=sequences)
    if int(os.environ.get("RANK", "0")):
        return 0  # of several processes, the first one speaks
    for name, figures in summary.get("sequences", {}).items():
        print(f"{name:24s}", "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    print(f"{weights_in(out)} after {summary['steps']} steps.")
    return 0


def export(tracker: str, *, out: Path, weights: Path | None = None) -> int:
    """Write a tracker's network as two ONNX files, one for its templates and one for a frame.

    The files are run before they get their names, and have to find what PyTorch finds.

    Args:
        tracker: Which tracker; see the command list.
        out: Folder for TRACKER_template.onnx and TRACKER_search.onnx
        weights: A file with weights, in place of the best on this machine.
    """
    from trackers.onnx_export import export as run

    exported = run(build_tracker(tracker, device="cpu", weights=weights), tracker, out)
    worst = max(exported.differences.values())
    print(f"{exported.template}\n{exported.search}")
    print(f"ONNX Runtime's numbers are PyTorch's within {worst:.0e}.")
    return 0


COMMANDS = (list_, track, explain, evaluate, report, vot, pack, train, export)
STOPPED = {
    "evaluate": "Stopped; the same command goes on with the sequences that are not done.",
    "pack": "Stopped; nothing is packed.",
    "train": "Stopped; the same command goes on from the last state it has saved.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 ok, 1 failed (a sequence, missing weights), 2 bad input."""
    return run_program("python -m trackers", __doc__, COMMANDS, argv, stopped=STOPPED)


if __name__ == "__main__":
    sys.exit(main())
