"""Does a mask help the tracker whose box it was made from?

    python -m benchmarks.feedback FOLDER [FOLDER ...] [--every 10] [--cache DIR]

FOLDER holds NAME/img or NAME/JPEGImages with NAME/groundtruth.txt. MixFormerV2-S follows each
object in robust mode, MobileSAM makes a mask of its box in every tenth frame, and where the mask is
sure (score of .9 and more) and fits the track (IoU of the boxes .5 and more), the box round it goes
back to the tracker, or not. Mean IoU of its own boxes with the true ones; 0 where it is lost.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from segmenters import Prompt, Segmenter, build_segmenter
from segmenters.cache import CachedSegmenter
from segmenters.cleanup import box_iou, choose_candidate, clean_mask, mask_box
from segmenters.region import answer, choose_window, is_within
from segmenters.steady import boxes_to_ask
from trackers import build_tracker
from trackers.boxes import xywh_to_xyxy
from trackers.crop_tracker import CropTracker
from trackers.datasets import Sequence
from trackers.datasets.folder import Folder

Way = Literal["alone", "placed", "corrected"]
TITLES: dict[Way, str] = {
    "alone": "the tracker alone",
    "placed": "the tracker goes on from the mask's box",
    "corrected": "and learns from it, as from a user's correction",
}
SURE = 0.9  # score of a mask
FITTING = 0.5  # IoU of its box with the tracked one


def box_of_mask(segmenter: Segmenter, frame: np.ndarray, tracked: np.ndarray) -> np.ndarray | None:
    """The box round the mask of a tracked one, both x0 y0 x1 y1; None if it is in doubt."""
    size = frame.shape[:2]
    if not is_within(tracked, size):
        return None
    asked, _ = boxes_to_ask(tracked, size)
    (candidates,) = answer(segmenter, frame, [(Prompt(asked), choose_window(asked, size))])
    best = choose_candidate(candidates, box=asked)
    found = mask_box(clean_mask(best.mask))
    return found if best.score >= SURE and box_iou(found, tracked) >= FITTING else None


def follow(
    sequence: Sequence, tracker: CropTracker, segmenter: Segmenter, way: Way, every: int
) -> tuple[float, int]:
    """Mean IoU of the tracker's own boxes with the true ones, and how many boxes went back."""
    truth = xywh_to_xyxy(sequence.boxes_xywh)
    overlaps, told = [], 0
    for index in range(len(sequence)):
        frame = sequence[index]
        if index == 0:
            tracker.initialize(frame, truth[0])
            continue
        track = tracker.track(frame)
        if way != "alone" and index % every == 0 and not track.lost:
            box = box_of_mask(segmenter, frame, track.box)
            if box is not None:
                told += 1
                if way == "corrected":
                    tracker.correct(frame, box)
                else:
                    tracker._place(box, frame.shape[:2])
        if sequence.visible[index]:
            overlaps.append(0.0 if track.lost else box_iou(track.box, truth[index]))
    return float(np.mean(overlaps)), told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=10, help="frames from one mask to the next")
    parser.add_argument("--way", choices=list(TITLES), action="append", help="in place of all")
    parser.add_argument("--cache", type=Path, help="folder to keep what frames look like in")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    model = CachedSegmenter(
        build_segmenter("mobile_sam", device=args.device), folder=args.cache, disk=2**40
    )
    datasets = [Folder(folder, "all") for folder in args.folder]
    sequences = [dataset[name] for dataset in datasets for name in dataset.names]
    print(f"| | mean | boxes back | {' | '.join(s.name for s in sequences)} |")
    print("|---|" + "--:|" * (2 + len(sequences)))
    for way in args.way or TITLES:
        rows = []
        for sequence in tqdm(sequences, desc=way, unit="sequence", leave=False):
            tracker = build_tracker("mixformerv2_small", device=args.device)
            assert isinstance(tracker, CropTracker)
            rows.append(follow(sequence, tracker, model, way, args.every))
        overlaps, told = zip(*rows, strict=True)
        values = [f"{np.mean(overlaps):.3f}", str(sum(told)), *(f"{iou:.3f}" for iou in overlaps)]
        print(f"| {TITLES[way]} | {' | '.join(values)} |", flush=True)


if __name__ == "__main__":
    main()
