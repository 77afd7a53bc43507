"""One-pass evaluation: start on the first frame's box, follow to the end, write it down."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field, replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints import CheckpointError
from media import InputError
from media.device import resolve_device, use_threads
from trackers.base import Mode, Tracker, build_tracker, noted_factors
from trackers.boxes import xywh_to_xyxy, xyxy_to_xywh
from trackers.datasets import Dataset, Sequence
from trackers.evaluation.opencv import PREFIX, build_baseline
from trackers.evaluation.results import Results
from trackers.evaluation.tuned import tuned_options

logger = logging.getLogger(__name__)
Report = Callable[[int, int], None]  # sequences done, of how many


@dataclass(frozen=True)
class Contestant:
    """A tracker to be evaluated; travels to the processes that run it.

    Attributes:
        name: one of `list_trackers()` or `list_baselines()`.
        device: see `build_tracker`; not for OpenCV's trackers, which run on the CPU.
        weights: a file, or None for the best on this machine.
        mode: see `build_tracker`.
        options: further options of `build_tracker` that are not its own defaults.
        baselines: the folder of NanoTrack's files.
    """

    name: str
    device: str = "auto"
    weights: str | None = None
    mode: Mode = "benchmark"
    options: dict[str, float] = field(default_factory=dict)
    baselines: str | None = None

    def tuned_for(self, dataset: str) -> Contestant:
        """The same with the published options for a data set, where none is given.

        A search factor that is noted in the weights is kept: they have seen no other.
        """
        options = tuned_options(self.name, dataset)
        if options and "search_factor" in noted_factors(self.name, self.weights):
            options.pop("search_factor", None)
        return replace(self, options=options | self.options)

    def build(self) -> Tracker:
        """Build it. Raises InputError and CheckpointError as `build_tracker`."""
        if not self.name.startswith(PREFIX):
            return build_tracker(
                self.name,
                device=self.device,
                weights=self.weights,
                mode=self.mode,
                **self.options,  # type: ignore[arg-type]
            )
        if self.options or self.weights is not None:
            raise InputError(f"{self.name} takes neither options nor weights.")
        return build_baseline(self.name, folder=self.baselines)

    def settings(self, tracker: Tracker) -> dict[str, Any]:
        """What its results depend on."""
        weights = tracker.weights
        return {
            "tracker": self.name,
            "weights": f"{Path(weights.name).name} (sha256 {weights.sha256})",
            "mode": None if self.name.startswith(PREFIX) else self.mode,
            "options": self.options,
        }


@dataclass(frozen=True)
class Outcome:
    """What became of the sequences of a data set."""

    done: list[str]  # now
    kept: list[str]  # from an earlier run
    failed: dict[str, str]  # and why, in one sentence


def follow(tracker: Tracker, sequence: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Let a tracker follow the object of a sequence from its first box.

    Returns:
        float64 (n, 4) left, top, width, height, the first as given; and float64 (n,) seconds spent
        in the tracker, reading of the frames left out.

    Raises:
        InputError: a frame cannot be read or the first box cannot be used.
    """
    first = sequence.boxes_xywh[0]
    boxes, seconds = [first], []
    for i in range(len(sequence)):
        frame = sequence[i]
        began = time.perf_counter()
        try:
            if i == 0:
                tracker.initialize(frame, xywh_to_xyxy(first))
            else:
                boxes.append(xyxy_to_xywh(tracker.track(frame).box.astype(np.float64)))
        except InputError as error:
            raise InputError(f"Frame {i} of {sequence.name}: {error}") from error
        seconds.append(time.perf_counter() - began)
        if not np.isfinite(boxes[-1]).all():
            raise InputError(f"The tracker gave no numbers for frame {i} of {sequence.name}.")
    return np.stack(boxes), np.array(seconds)


def evaluate(
    dataset: Dataset,
    contestant: Contestant,
    results: Results,
    *,
    processes: int = 1,
    threads: int | None = None,
    overwrite: bool = False,
    report: Report = lambda done, total: None,
) -> Outcome:
    """Run a tracker over all sequences that have no result yet.

    A sequence that fails is listed and the others go on; the next run tries it again.

    Args:
        dataset: which sequences.
        contestant: which tracker.
        results: where to keep what it finds.
        processes: how many run at a time; with several GPUs they take turns.
        threads: of the CPU for each process; None: several processes share them evenly.
        overwrite: do all of them anew, also when made with other settings.
        report: called after each sequence.

    Raises:
        InputError: the tracker cannot be built, or there are results with other settings.
        checkpoints.CheckpointError: it has no weights.
    """
    if processes < 1:
        raise InputError(f"At least one process is needed, not {processes}.")
    use_threads(threads)
    tracker = contestant.build()  # here too: what is wrong with it is found before any work
    results.claim(contestant.settings(tracker), overwrite=overwrite)
    kept = [name for name in dataset.names if results.has(name)]
    finished = set(kept)
    todo = [name for name in dataset.names if name not in finished]
    reasons: dict[str, str | None] = {}
    if processes == 1 or len(todo) < 2:
        outcomes = ((name, attempt(tracker, dataset, name, results)) for name in todo)
    else:
        del tracker
        processes = min(processes, len(todo))
        outcomes = _in_processes(contestant, dataset, todo, results, processes, threads)
    report(len(kept), len(dataset))
    with closing(outcomes):
        for count, (name, reason) in enumerate(outcomes, len(kept) + 1):
            reasons[name] = reason
            report(count, len(dataset))
    ordered = [(name, reasons[name]) for name in todo]
    done = [name for name, reason in ordered if reason is None]
    return Outcome(done, kept, {name: reason for name, reason in ordered if reason is not None})


def attempt(tracker: Tracker, dataset: Dataset, name: str, results: Results) -> str | None:
    """Do one sequence. Returns why it failed, or None."""
    try:
        boxes, seconds = follow(tracker, dataset[name])
        results.write(name, boxes, seconds)
    except (InputError, CheckpointError) as error:
        return str(error)
    except Exception as error:  # one sequence's trouble shall not end a run of hours
        logger.debug("sequence %s", name, exc_info=True)
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return f"{type(error).__name__} in {name}: {first_line}"
    return None


# ------------------------------------------------------------------------------ several processes

_tracker: Tracker  # of a worker process


def _in_processes(
    contestant: Contestant,
    dataset: Dataset,
    todo: list[str],
    results: Results,
    processes: int,
    threads: int | None,
) -> Generator[tuple[str, str | None], None, None]:
    # spawn: CUDA and OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    devices: SimpleQueue[str] = context.SimpleQueue()
    for device in _spread(contestant.device, processes):
        devices.put(device)
    threads = threads or max(1, (os.cpu_count() or 1) // processes)
    pool = ProcessPoolExecutor(processes, context, _start_worker, (contestant, devices, threads))
    try:
        futures = {pool.submit(_attempt, dataset, name, results): name for name in todo}
        for future in as_completed(futures):
            name = futures[future]
            try:
                reason = future.result()
            except BrokenProcessPool:
                reason = (
                    f"The process died before {name} was done, perhaps for want of memory; try "
                    "again with fewer processes."
                )
            yield name, reason
    finally:
        pool.shutdown(cancel_futures=True)


def _spread(device: str, processes: int) -> list[str]:
    target = resolve_device(device)
    if target.type == "cuda" and target.index is None:
        return [f"cuda:{i % torch.cuda.device_count()}" for i in range(processes)]
    return [str(target)] * processes


def _start_worker(contestant: Contestant, devices: SimpleQueue[str], threads: int) -> None:
    global _tracker
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the sequence at hand too
    use_threads(threads)
    _tracker = replace(contestant, device=devices.get()).build()


def _attempt(dataset: Dataset, name: str, results: Results) -> str | None:
    return attempt(_tracker, dataset, name, results)
