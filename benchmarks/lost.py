"""Does a tracker notice that its object is gone, and find it again when it is back?

    python -m benchmarks.lost --data DIR

DIR holds tracking/NAME and vos/NAME: `img` or `JPEGImages` with `groundtruth.txt`. Four clips are
made of them in which the object is away for 40 to 90 frames, in another shot or in the same one,
and the tracker follows it through each. Then it follows the objects of all sequences as they are,
in both modes: how often does it call an object lost that it has in its box (IoU above 0.5), and
what does robust mode change in the area under the success curve?
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from trackers import Track, Tracker, build_tracker
from trackers.boxes import box_iou, xywh_to_xyxy
from trackers.datasets import Sequence
from trackers.datasets.folder import Folder

RIGHT = 0.5  # IoU above which a box counts as right


@dataclass(frozen=True)
class Clip:
    """Frames in which the object is away for a while."""

    name: str
    frames: list[np.ndarray]  # RGB uint8, all of one size
    boxes: np.ndarray  # (n, 4) x0 y0 x1 y1; nan while the object is away


def away(clip: Clip) -> tuple[int, int]:
    """First frame without the object, and first with it again."""
    gone = np.flatnonzero(np.isnan(clip.boxes[:, 0]))
    return int(gone[0]), int(gone[-1]) + 1


# ----------------------------------------------------------------------------------- the four clips


def in_another_shot(a: Sequence, leave: int, stop: int, b: Sequence, others: range) -> Clip:
    """Frames of `a`, then some of `b` made as large, then `a` goes on where it was left."""
    height, width = a[0].shape[:2]
    between = [cv2.resize(b[i], (width, height), interpolation=cv2.INTER_AREA) for i in others]
    boxes = xywh_to_xyxy(a.boxes_xywh)
    gap = np.full((len(others), 4), np.nan)
    return Clip(
        f"{a.name}, cut to {b.name}, and back",
        [*(a[i] for i in range(leave)), *between, *(a[i] for i in range(leave, stop))],
        np.concatenate([boxes[:leave], gap, boxes[leave:stop]]),
    )


def erased(a: Sequence, gone: range) -> Clip:
    """The object of a camera that stands still is replaced by what is seen there otherwise."""
    frames, boxes = [a[i] for i in range(len(a))], xywh_to_xyxy(a.boxes_xywh)
    background = np.median(frames[::3], axis=0).astype(np.uint8)
    for i in gone:
        x0, y0, x1, y1 = _around(boxes[i], 0.25, frames[i].shape[:2])
        frames[i] = frames[i].copy()
        frames[i][y0:y1, x0:x1] = background[y0:y1, x0:x1]
        boxes[i] = np.nan
    return Clip(f"{a.name}, erased in the same shot", frames, boxes)


def hidden(a: Sequence, behind: np.ndarray, order: list[int], gone: range) -> Clip:
    """A panel slides in front of the object, stays with it, and slides on."""
    frames, boxes = [a[i].copy() for i in order], xywh_to_xyxy(a.boxes_xywh)[order]
    slide = 6  # frames that coming and going take, in which the object counts as seen
    for i in range(gone.start - slide, gone.stop + slide):
        height, width = frames[i].shape[:2]
        x0, y0, x1, y1 = _around(boxes[i], 0.15, (height, width))
        side = x1 - x0
        if i < gone.start:
            x0 = x0 - round((gone.start - i) / slide * side)
        elif i >= gone.stop:
            x0 = x0 + round((i - gone.stop + 1) / slide * side)
        panel = cv2.resize(behind, (side, y1 - y0), interpolation=cv2.INTER_AREA)
        left, right = max(0, x0), min(width, x0 + side)
        if left < right:
            frames[i][y0:y1, left:right] = panel[:, left - x0 : right - x0]
        if i in gone:
            boxes[i] = np.nan
    return Clip(f"{a.name}, hidden in the same shot", frames, boxes)


def _around(box: np.ndarray, margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box with a margin in multiples of its sides, in whole pixels of the frame."""
    grow = margin * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    x0, y0, x1, y1 = np.clip(np.rint(box + grow), 0, [size[1], size[0]] * 2).astype(int).tolist()
    return x0, y0, x1, y1


def make_clips(sequence: Callable[[str], Sequence]) -> list[Clip]:
    """The four clips, from the sequences of these names."""
    there_and_back = [*range(40), *range(39, -1, -1), *range(40)]
    return [
        in_another_shot(
            sequence("otb_DragonBaby"), 56, 113, sequence("otb_Crossing"), range(30, 75)
        ),
        in_another_shot(sequence("tld_jumping"), 60, 140, sequence("tld_david"), range(300, 390)),
        erased(sequence("otb_Crossing"), range(40, 85)),
        hidden(
            sequence("car-shadow"),
            sequence("bmx-trees")[0][40:440, 40:340],
            there_and_back,
            range(26, 66),
        ),
    ]


# ------------------------------------------------------------------------------------- measurements


def follow(tracker: Tracker, frames: list[np.ndarray] | Sequence, box: np.ndarray) -> list[Track]:
    """Where the tracker sees the object in each frame; the first is as given."""
    tracker.initialize(frames[0], box)
    given = Track(box=box.astype(np.float32), score=1.0)
    return [given, *(tracker.track(frames[i]) for i in range(1, len(frames)))]


def overlaps(tracks: list[Track], boxes: np.ndarray) -> np.ndarray:
    """IoU per frame, nan where there is nothing to be right about."""
    return box_iou(np.stack([track.box for track in tracks]).astype(np.float64), boxes)


def judge(clip: Clip, tracks: list[Track]) -> str:
    """A row of the first table."""
    leave, back = away(clip)
    lost = np.array([track.lost for track in tracks])
    iou = np.nan_to_num(overlaps(tracks, clip.boxes))
    declared = next((i - leave for i in range(leave, back) if lost[i]), None)
    found = next((i - back for i in range(back, len(lost)) if not lost[i] and iou[i] > RIGHT), None)
    claimed = 0 if declared is None else int((~lost[leave + declared : back]).sum())
    rest = slice(back, None)
    after = (iou[rest] * ~lost[rest]).mean()
    never = "never"
    return (
        f"| {clip.name} | {back - leave} | {never if declared is None else declared} | {claimed} "
        f"| {never if found is None else found} | {(iou[:leave] * ~lost[:leave]).mean():.2f} "
        f"| {after:.2f} |"
    )


def area(iou: np.ndarray) -> float:
    """Under the success curve: 21 thresholds, frames with the object only."""
    seen = iou[np.isfinite(iou)]
    return float(np.mean([(seen > threshold).mean() for threshold in np.arange(21) / 20]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tracker", default="mixformerv2_small")
    parser.add_argument("--weights", help="default: the best on this machine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    trackers = {
        mode: build_tracker(args.tracker, device=args.device, weights=args.weights, mode=mode)
        for mode in ("benchmark", "robust")
    }
    folders = [Folder(args.data / part, "test") for part in ("tracking", "vos")]
    sequences = {name: folder[name] for folder in folders for name in folder.names}

    print(
        "| clip | frames away | declared lost after | frames claimed after that while away "
        "| found again after | IoU before | IoU after |\n|---|---|---|---|---|---|---|"
    )
    for clip in make_clips(sequences.__getitem__):
        print(judge(clip, follow(trackers["robust"], clip.frames, clip.boxes[0])), flush=True)

    print(
        "\n| sequence | frames | AUC, benchmark | AUC, robust | right frames "
        "| of these called lost | other frames | of these called lost |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    rows = []
    for name, sequence in sequences.items():
        boxes = xywh_to_xyxy(sequence.boxes_xywh)
        plain = overlaps(follow(trackers["benchmark"], sequence, boxes[0]), boxes)
        tracks = follow(trackers["robust"], sequence, boxes[0])
        iou, lost = overlaps(tracks, boxes), np.array([track.lost for track in tracks])
        right = iou > RIGHT
        counts = [right.sum(), (lost & right).sum(), (~right).sum(), (lost & ~right).sum()]
        rows.append([len(boxes), area(plain), area(iou), *counts])
        print(_row(name, rows[-1]), flush=True)
    table = np.array(rows)
    sums = [table[:, 0].sum(), *table[:, 1:3].mean(axis=0), *table[:, 3:].sum(axis=0)]
    print(_row("all", sums))
    print(f"\nFalse alarms: {100 * sums[4] / sums[3]:.2f} % of the right frames.")


def _row(name: str, values: list[float]) -> str:
    frames, plain, robust, *counts = values
    shown = " | ".join(f"{count:.0f}" for count in counts)
    return f"| {name} | {frames:.0f} | {100 * plain:.1f} | {100 * robust:.1f} | {shown} |"


if __name__ == "__main__":
    main()
