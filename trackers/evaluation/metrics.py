"""How good a track is: success, precision and average overlap, by the protocols of the field.

Boxes are left, top, width, height in pixels; all shares are in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np

from media import InputError
from trackers.datasets import Sequence
from trackers.datasets.base import Scoring

PIXELS = np.arange(51.0)  # thresholds of the centre error
SHARES = PIXELS / 100  # thresholds of the normalised centre error


@dataclass(frozen=True)
class Protocol:
    """What the evaluations of the field do differently.

    Frames in which the object cannot be seen are called invalid.
    """

    bins: int = 21  # thresholds of the overlap from 0 to 1
    invalid_error: float = math.inf  # centre error given to invalid frames ...
    invalid_share: float = -1.0  # ... and the normalised one; -1 counts as a hit
    unseen_is_miss: bool = False  # frames labelled as occluded or out of view miss in both
    valid_only: bool = False  # invalid frames do not count
    pooled: bool = False  # without the first frame, all frames of all sequences in one pot


# Sources: visionml/pytracking, analysis/extract_results.py, as kept in MCG-NJU/MixFormerV2 @
# 10414383, for the OTB family; got-10k/toolkit 0.1.3, experiments/got10k.py, for GOT-10k. In the
# OTB family invalid frames count: they miss every overlap, but those of UAV123 hit every centre
# error, and outside of LaSOT they hit every normalised one. Odd, and kept: published numbers do it.
PROTOCOLS: dict[Scoring, Protocol] = {
    "otb": Protocol(),
    "lasot": Protocol(unseen_is_miss=True),
    "uav": Protocol(invalid_error=-1.0),
    "got10k": Protocol(bins=101, valid_only=True, pooled=True),
    "folder": Protocol(valid_only=True),  # nobody can be right where there is nothing
}


@dataclass(frozen=True)
class Scores:
    """Of one sequence, or the mean over several."""

    success: np.ndarray  # (bins,) share of frames with an overlap above 0 ... 1
    precision: np.ndarray  # (51,) share of frames with a centre error of at most 0 ... 50 pixels
    normalized: np.ndarray  # (51,) the same for 0 ... 0.5 of the object's width and height
    overlap: float  # mean over the frames that count
    weight: float  # in a mean over sequences

    @property
    def auc(self) -> float:
        """Area under the success curve; SUC, AUC or S in papers."""
        return float(self.success.mean())

    def success_at(self, overlap: float) -> float:
        """Share of frames with an overlap above 0.5 or 0.75: OP50, OP75, SR.5, SR.75."""
        return float(self.success[round(overlap * (len(self.success) - 1))])

    @property
    def precision_20(self) -> float:
        """Share of frames with a centre error of at most 20 pixels: P."""
        return float(self.precision[20])

    @property
    def normalized_20(self) -> float:
        """Share of frames with a centre error of at most 0.2 of the object's size: P norm."""
        return float(self.normalized[20])


# Columns of a table: title and how to read it from scores.
_OTB_COLUMNS = {
    "AUC": lambda s: s.auc,
    "OP50": lambda s: s.success_at(0.5),
    "OP75": lambda s: s.success_at(0.75),
    "P": lambda s: s.precision_20,
    "PNorm": lambda s: s.normalized_20,
}
_GOT10K_COLUMNS = {
    "AO": lambda s: s.overlap,
    "SR.5": lambda s: s.success_at(0.5),
    "SR.75": lambda s: s.success_at(0.75),
}


def columns(scores: Scores, scoring: Scoring) -> dict[str, float]:
    """What papers report on such a data set, in [0, 1], by the title of the column."""
    chosen = _GOT10K_COLUMNS if PROTOCOLS[scoring].pooled else _OTB_COLUMNS
    return {title: read(scores) for title, read in chosen.items()}


def overlap(first: np.ndarray, second: np.ndarray, last_pixel: float = 1.0) -> np.ndarray:
    """Intersection over union of (n, 4) boxes, pair by pair, nan where both are empty.

    The tools of the OTB family take x + w - 1 for the last pixel and add 1 again; so does this,
    because the rounding of that decides about overlaps that lie on a threshold. `last_pixel` is 0
    for those that do not.
    """
    lower = np.maximum(first[:, :2], second[:, :2])
    ends = [boxes[:, :2] + boxes[:, 2:] - last_pixel for boxes in (first, second)]
    shared = (np.minimum(*ends) - lower + last_pixel).clip(min=0).prod(axis=1)
    return shared / (first[:, 2:].prod(axis=1) + second[:, 2:].prod(axis=1) - shared)


def centre_error(first: np.ndarray, second: np.ndarray, unit: np.ndarray | float) -> np.ndarray:
    """Distance of the centres of (n, 4) boxes; `unit` divides x and y: 1, or (n, 2) sizes."""
    centres = [boxes[:, :2] + 0.5 * (boxes[:, 2:] - 1.0) for boxes in (first, second)]
    return np.sqrt(((centres[0] / unit - centres[1] / unit) ** 2).sum(axis=1))


def score(predicted: np.ndarray, sequence: Sequence, scoring: Scoring) -> Scores:
    """Compare a result with the ground truth of its sequence.

    The first box counts as the ground truth; a box without area repeats the one before it; rows
    beyond the last frame are ignored.

    Args:
        predicted: float (n, 4) left, top, width, height.
        sequence: with a box for every frame.
        scoring: a key of `PROTOCOLS`.

    Raises:
        InputError: there are fewer rows than frames, or a row is no box.
    """
    protocol, truth = PROTOCOLS[scoring], sequence.boxes_xywh
    if len(predicted) < len(truth):
        raise InputError(
            f"The result for {sequence.name} has {len(predicted)} boxes for {len(truth)} frames."
        )
    boxes = predicted[: len(truth)].astype(np.float64)
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < 0).any():
        raise InputError(f"The result for {sequence.name} holds boxes that are none.")
    if protocol.pooled:
        return _score_pooled(boxes, sequence, protocol)

    for i in range(1, len(boxes)):
        if (boxes[i, 2:] == 0).any() and not np.isnan(truth[i]).any():
            boxes[i] = boxes[i - 1]
    boxes[0] = truth[0]
    invalid = ~sequence.visible
    with np.errstate(divide="ignore", invalid="ignore"):
        overlaps = np.where(invalid, -1.0, overlap(boxes, truth))
        errors = np.where(invalid, protocol.invalid_error, centre_error(boxes, truth, 1.0))
        shares = centre_error(boxes, truth, truth[:, 2:])
    shares = np.where(invalid, protocol.invalid_share, shares)
    if protocol.unseen_is_miss and sequence.shown is not None:
        errors[~sequence.shown] = shares[~sequence.shown] = math.inf
    if protocol.valid_only:
        overlaps, errors, shares = (values[~invalid] for values in (overlaps, errors, shares))
    # The mean overlap is over valid frames in any case.
    mean = float(overlaps[overlaps >= 0].mean())
    return _scores(overlaps, errors, shares, protocol.bins, mean, 1.0)


def _score_pooled(boxes: np.ndarray, sequence: Sequence, protocol: Protocol) -> Scores:
    """As the GOT-10k toolkit does: boxes cut to the frame, the frame the user gave left out."""
    truth, counts = sequence.boxes_xywh[1:], sequence.visible[1:]
    boxes = boxes[1:]
    if sequence.size is not None:
        boxes, truth = _inside(boxes, sequence.size), _inside(truth, sequence.size)
    boxes, truth = boxes[counts], truth[counts]
    with np.errstate(divide="ignore", invalid="ignore"):
        overlaps = np.nan_to_num(overlap(boxes, truth, last_pixel=0.0))
        shares = centre_error(boxes, truth, truth[:, 2:])
    errors = centre_error(boxes, truth, 1.0)
    mean = float(overlaps.mean()) if len(overlaps) else 0.0
    return _scores(overlaps, errors, shares, protocol.bins, mean, float(len(overlaps)))


def _inside(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    bound = np.array(size[::-1], np.float64)
    corner = boxes[:, :2].clip(0, bound)
    return np.concatenate([corner, boxes[:, 2:].clip(0, bound - corner)], axis=1)


def _scores(
    overlaps: np.ndarray,
    errors: np.ndarray,
    shares: np.ndarray,
    bins: int,
    mean: float,
    weight: float,
) -> Scores:
    thresholds = np.linspace(0, 1, bins)

    def share_of(hits: np.ndarray) -> np.ndarray:
        return hits.sum(axis=0) / max(1, len(hits))

    return Scores(
        success=share_of(overlaps[:, None] > thresholds),
        precision=share_of(errors[:, None] <= PIXELS),
        normalized=share_of(shares[:, None] <= SHARES),
        overlap=mean,
        weight=weight,
    )


def mean_scores(scores: Series[Scores]) -> Scores:
    """Mean over sequences: each counts alike, or in GOT-10k by its frames."""
    weights = np.array([s.weight for s in scores])
    total = weights.sum()
    shares = weights / total if total else weights

    def mean(values: Series[np.ndarray] | Series[float]) -> np.ndarray:
        return np.tensordot(shares, np.stack(values), axes=1)

    return Scores(
        success=mean([s.success for s in scores]),
        precision=mean([s.precision for s in scores]),
        normalized=mean([s.normalized for s in scores]),
        overlap=float(mean([s.overlap for s in scores])),
        weight=float(total),
    )
