"""Samples per second of the training data, by both pipelines, and where the time goes.

python -m benchmarks.training_data stills=/data/stills tracks=/data/tracks
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from media.device import resolve_device
from trackers.training.data import Batches, DataConfig, SourceConfig, batches, preparing
from trackers.training.data.config import Pipeline

# What is timed: where it is called from, and in what part of a batch's making it is.
PARTS = {
    "draw and plan": [(preparing, "pick"), (preparing, "plan")],
    "decode": [(preparing, "decode")],
    "cut": [(preparing, "cut"), (batches, "cut_batch")],
    "colours": [(batches, "finish")],
}


@contextmanager
def timed(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds spent in each of `PARTS`."""
    spent: dict[str, float] = defaultdict(float)
    replaced = []

    def wrap(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                found = function(*arguments, **options)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                return found
            finally:
                spent[part] += time.perf_counter() - start

        return run

    for part, places in PARTS.items():
        for module, name in places:
            replaced.append((module, name, getattr(module, name)))
            setattr(module, name, wrap(part, getattr(module, name)))
    try:
        yield spent
    finally:
        for module, name, function in replaced:
            setattr(module, name, function)


def measure(config: DataConfig, device: torch.device, batch: int, seconds: float) -> str:
    """A row of the table."""
    found = iter(Batches(config, seed=0, batch_size=batch, device=device))
    next(found)
    with timed(device) as spent:
        start, busy, samples = time.perf_counter(), time.process_time(), 0
        while (taken := time.perf_counter() - start) < seconds:
            samples += len(next(found))
    busy = time.process_time() - busy  # of this process; says more than the clock on a busy machine
    rest = taken - sum(spent.values())
    split = ", ".join(f"{part} {s / taken:.0%}" for part, s in [*spent.items(), ("rest", rest)])
    row = f"{samples / taken:.0f} | {samples / busy:.0f} | {split}"
    return row if not config.workers else f"{samples / taken:.0f} | | in the workers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", metavar="KIND=FOLDER")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    device = resolve_device(given.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    pairs = [each.split("=", 1) for each in given.sources]
    sources = tuple(SourceConfig(kind, path, min_side=8) for kind, path in pairs)
    print(
        "| sources | pipeline | samples/s | per CPU second | time split |\n|---|---|---:|---:|---|"
    )
    runs: list[tuple[Pipeline, float]] = [("loader", 0.0), ("device", 0.0), ("device", 40.0)]
    for pipeline, resident in runs:
        config = DataConfig(sources, pipeline=pipeline, resident_gb=resident, workers=given.workers)
        name = pipeline if not resident else "device, pictures kept there"
        row = measure(config, device, given.batch, given.seconds)
        print(f"| {' + '.join(each.kind for each in sources)} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
