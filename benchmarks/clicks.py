"""What a click costs: the first on a frame, another on it, and every object at once.

    python -m benchmarks.clicks FRAME [--segmenter mobile_sam] [--rounds 5]

FRAME is a picture. A click lies in its middle; times are medians in milliseconds, on the wall and
of the processor (all cores together), so that a busy machine can be told from a slow one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from segmenters import Prompt, build_segmenter
from segmenters.cache import CachedSegmenter
from segmenters.everything import find_objects


def measure(action: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median milliseconds on the wall and of the processor."""
    times = []
    for _ in range(rounds):
        wall, processor = time.perf_counter(), time.process_time()
        action()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = 1000 * np.median(times, axis=0)
    return float(wall), float(processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frame", type=Path)
    parser.add_argument("--segmenter", default="mobile_sam")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    frame = np.ascontiguousarray(iio.imread(arguments.frame)[..., :3])
    height, width = frame.shape[:2]
    model = build_segmenter(arguments.segmenter, device=arguments.device)
    click = [Prompt(points=np.array([[width / 2, height / 2]]))]
    boxes = [Prompt(box=np.array([x, 0, x + width / 8, height])) for x in range(0, width // 2, 64)]

    with tempfile.TemporaryDirectory() as folder:
        kept = CachedSegmenter(model, folder=Path(folder))
        embedding = kept.encode(frame)
        stored = CachedSegmenter(model, memory=0, folder=Path(folder))
        rows = {
            "first click": lambda: model.predict(model.encode(frame), click),
            "another click": lambda: kept.predict(kept.encode(frame), click),
            "another click, from disk": lambda: stored.predict(stored.encode(frame), click),
            f"{len(boxes)} boxes, one call": lambda: model.predict(embedding, boxes),
            f"{len(boxes)} boxes, one by one": lambda: [
                model.predict(embedding, [box]) for box in boxes
            ],
            "every object": lambda: find_objects(model, embedding),
        }
        print(f"{width}x{height}, {arguments.segmenter} on {model.device}")
        print("| | ms | processor ms |\n|---|--:|--:|")
        for name, action in rows.items():
            wall, processor = measure(action, arguments.rounds)
            print(f"| {name} | {wall:.0f} | {processor:.0f} |")


if __name__ == "__main__":
    main()
