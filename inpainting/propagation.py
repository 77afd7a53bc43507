"""Object removal by carrying real pixels into the hole along the motion of the background.

Read downwards: the motion between two frames, completed inside the hole; the way of a hole's pixels
through time until a frame shows them; how far that is to be trusted; what no frame shows; the
inpainter that joins them.

The way of working follows flow-guided video completion (Xu et al., "Deep Flow-Guided Video
Inpainting", CVPR 2019; Gao et al., "Flow-edge Guided Video Completion", ECCV 2020); the code is
ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import checkpoints
from checkpoints import WeightsRecord
from inpainting.base import Frame, FrameSource, Mask, MaskSource, check_clip, register
from inpainting.compositing import diffuse, feather, grow
from inpainting.spynet import SPyNet, load_basicvsr
from inpainting.windows import (
    BESIDE,
    BY_THE_OBJECT,
    Layer,
    Region,
    Shot,
    Step,
    Window,
    sample,
    surroundings,
)
from media import InputError
from media.device import resolve_device

log = logging.getLogger(__name__)

FLOW_PIXELS = 432 * 240  # the flow's resolution: a larger region is scaled down to this area
OWN_MOTION = 1.0  # flow pixels per frame beside the camera's from which a thing moves by itself
BESIDE_COST = 6.0  # doubt of what is seen right beside the object
LIMBS = 3.0  # flow pixels per frame by which parts of a moving thing may move beside its whole
PROOF = 8  # frames for which what comes into view is watched, to tell how it moves
SHADOW = 40  # pixels round the hole in which its shadow is looked for
RING = 8  # pixels outside the hole that are followed as well, to compare colours there


# ---------------------------------------------------------------------------- motion


class Motion:
    """Flow between neighbouring frames, both ways, completed inside the holes."""

    def __init__(
        self, network: SPyNet, device: torch.device, *, resolution: int | None = None
    ) -> None:
        """Set up; `resolution` = most pixels of the flow's longer side, None = `FLOW_PIXELS`."""
        # Convolutions this wide take a quarter less time with their channels last.
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device, self._resolution = device, resolution

    def __call__(self, first: Shot, second: Shot, region: Region) -> Step:
        """Measure the motion on a region of two whole frames. What the holes show has no say."""
        y0, x0, y1, x1 = region
        height, width = y1 - y0, x1 - x0
        if self._resolution is None:
            scale = min(1.0, float(np.sqrt(FLOW_PIXELS / (height * width))))
        else:
            scale = min(1.0, self._resolution / max(height, width))
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        images, holes = zip(
            *(_shrink(s.pixels[y0:y1, x0:x1], s.hole[y0:y1, x0:x1], size) for s in (first, second)),
            strict=True,
        )
        there, back = self._flow(*images)
        to_full = np.array([width / size[1], height / size[0], width / size[1]], np.float32)
        hidden = (holes[0] | _seen_at(holes[1], there), holes[1] | _seen_at(holes[0], back))
        background = [complete(flow, h) for flow, h in zip((there, back), hidden, strict=True)]
        front = [
            passing(flow, h, still)
            for flow, h, still in zip((there, back), hidden, background, strict=True)
        ]
        return Step(
            region,
            Layer(background[0] * to_full, background[1] * to_full),
            None
            if front[0] is None or front[1] is None
            else Layer(front[0] * to_full, front[1] * to_full),
        )

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """float32 (2, h, w, 2): first to second and second to first."""
        both = torch.from_numpy(np.stack((first, second))).permute(0, 3, 1, 2)
        both = both.to(self._device).float() / 255
        with torch.inference_mode():
            flow = self._network(both, both.flip(0))
        return np.ascontiguousarray(flow.permute(0, 2, 3, 1).cpu().numpy())


def _shrink(image: Frame, hole: Mask, size: tuple[int, int]) -> tuple[np.ndarray, Mask]:
    """The image at the flow's size, its hole filled smoothly so that it has no edges of its own."""
    shape = (size[1], size[0])
    weight = (~hole).astype(np.float32)
    share = cv2.resize(weight, shape, interpolation=cv2.INTER_AREA)
    small = cv2.resize(image * weight[..., None], shape, interpolation=cv2.INTER_AREA)
    known = share > 0.5
    small = small.reshape(*size, 3) / np.maximum(share, 1e-6)[..., None]
    return diffuse(small.astype(np.float32), known), share < 0.999


def _seen_at(hole: Mask, flow: np.ndarray) -> Mask:
    """Where the flow leads into the other frame's hole: nothing was there to compare with."""
    return _warp(hole.astype(np.float32), flow) > 0


def _warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    height, width = flow.shape[:2]
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        image, xs + flow[..., 0], ys + flow[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def complete(flow: np.ndarray, hole: Mask) -> np.ndarray:
    """The background's motion everywhere, in the hole and behind whatever passes in front.

    The camera's motion (a homography fitted to the known flow) carries the large part, zoom and
    rotation included. What it does not explain of the background, parallax above all, is spread
    over hole and foreground like a soap film. Flow that departs further from the camera's belongs
    to something that moves by itself, a shadow or a passer-by, and has no say.

    Args:
        flow: float32 (h, w, 2), x y, in its own pixels.
        hole: bool (h, w): where the flow is not known.

    Returns:
        float32 (h, w, 3): the motion, and how far the flow departs from it (0 in the hole).
    """
    # The network looks about; next to the hole it has seen its fill.
    known = ~grow(hole, 3)
    camera = camera_motion(flow, known)
    if camera is None:
        background = diffuse(flow, known)
    else:
        rest = flow - camera
        steady = known & (np.linalg.norm(rest, axis=-1) < OWN_MOTION)
        film = diffuse(np.where(steady[..., None], rest, 0), steady, rounds=6)
        background = camera + cv2.blur(film, (5, 5))
    departure = np.linalg.norm(flow - background, axis=-1) * known
    # Neighbours are judged alike, or noise would pepper the fill.
    return np.dstack((background, cv2.blur(departure, (5, 5))))


def passing(flow: np.ndarray, hole: Mask, background: np.ndarray) -> np.ndarray | None:
    """The motion, everywhere, of what moves by itself: an affine one and a film over the rest.

    Args:
        flow: float32 (h, w, 2), x y, in its own pixels.
        hole: bool (h, w): where the flow is not known.
        background: `complete(flow, hole)`.

    Returns:
        float32 (h, w, 3): the motion, and how far the flow departs from it (0 in the hole); None
        where nothing moves by itself.
    """
    known = ~grow(hole, 3)
    away = np.linalg.norm(flow - background[..., :2], axis=-1)
    moves = (known & (away > OWN_MOTION)).astype(np.uint8)
    moves = cv2.morphologyEx(moves, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(bool)
    if moves.sum() < 100:
        return None
    whole = _affine_motion(flow, moves)
    rest = flow - whole
    limbs = moves & (np.linalg.norm(rest, axis=-1) < LIMBS)
    motion = whole + cv2.blur(diffuse(np.where(limbs[..., None], rest, 0), limbs, rounds=6), (5, 5))
    departure = np.linalg.norm(flow - motion, axis=-1) * known
    return np.dstack((motion, cv2.blur(departure, (5, 5)))).astype(np.float32)


def _affine_motion(flow: np.ndarray, known: Mask) -> np.ndarray:
    """The affine motion that most of the known flow agrees on, float32 (h, w, 2); 0 = none."""
    ys, xs = np.nonzero(known)
    pick = slice(None, None, max(len(ys) // 2000, 1))
    start = np.stack((xs, ys), axis=1)[pick].astype(np.float32)
    end = start + flow[ys, xs][pick]
    matrix, agree = cv2.estimateAffine2D(start, end, ransacReprojThreshold=1.0, maxIters=300)
    if matrix is None or agree.mean() < 0.3:
        return np.zeros_like(flow)
    height, width = known.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    return (grid @ (matrix[:, :2] - np.eye(2)).T + matrix[:, 2]).astype(np.float32)


def camera_motion(flow: np.ndarray, known: Mask) -> np.ndarray | None:
    """The flow of a homography fitted to the known flow: float32 (h, w, 2).

    None where too little agrees on one.
    """
    height, width = known.shape
    ys, xs = np.nonzero(known)
    if len(ys) < 64:
        return None
    pick = slice(None, None, max(len(ys) // 3000, 1))
    start = np.stack((xs, ys), axis=1)[pick].astype(np.float32)
    end = start + flow[ys, xs][pick]
    matrix, agree = cv2.findHomography(start, end, cv2.RANSAC, 0.5, maxIters=500)
    if matrix is None or agree.mean() < 0.3:
        return None
    gx, gy = np.meshgrid(np.arange(width), np.arange(height))
    grid = np.stack((gx, gy), axis=-1).astype(np.float32)
    moved = cv2.perspectiveTransform(grid.reshape(-1, 1, 2), matrix).reshape(height, width, 2)
    return (moved - grid).astype(np.float32)


# ---------------------------------------------------------------------------- following


@dataclass
class Stage:
    """Points on their way through time, arrived in one more frame."""

    step: Step
    shot: Shot
    active: np.ndarray  # int (m,): which of the points are still under way
    starts: np.ndarray  # float32 (m, 2), x y: where they were in the frame before
    ends: np.ndarray  # float32 (m, 2), x y: where they are now
    costs: np.ndarray  # float32 (m,): variance of the place so far, flow pixels squared
    strangeness: np.ndarray  # float32 (m,): by how much what is seen there moves otherwise
    go_on: np.ndarray  # bool (m,): who goes on from here; for the caller to narrow


def travel(
    window: Window, index: int, points: np.ndarray, direction: int, reach: int, *, front: bool
) -> Iterator[Stage]:
    """Move points (n, 2), x y of frame `index`, from frame to frame, along one of the layers."""
    active, places = np.arange(len(points)), points
    costs: np.ndarray = np.zeros(len(points), np.float32)
    height, width = window.size
    limit = np.array([width, height], np.float32) - 0.5
    for distance in range(reach):
        here = index + direction * distance
        step = window.steps.get(min(here, here + direction))
        shot = window.shots.get(here + direction)
        layer = None if step is None else step.front if front else step.back
        if step is None or layer is None or shot is None or not len(active):
            return
        ends, drift, strangeness = step.move(places, direction, layer)
        costs = costs + 0.05 + np.minimum(drift / step.cell, 3.0) ** 2
        inside = np.asarray(((ends >= -0.5) & (ends <= limit)).all(axis=1))
        stage = Stage(step, shot, active, places, ends, costs, strangeness, inside)
        yield stage
        go_on = stage.go_on
        active, places, costs = active[go_on], ends[go_on], costs[go_on]


@dataclass
class Finds:
    """What following n pixels along one layer in one direction of time found."""

    colours: np.ndarray  # float32 (n, 3)
    doubt: np.ndarray  # float32 (n,): variance of the place found, flow pixels squared; inf = none
    proof: np.ndarray  # float32 (n,): from -1, seen that this layer is not there, to 1, that it is


def follow(window: Window, index: int, points: np.ndarray, direction: int, reach: int) -> Finds:
    """Follow points of the background outwards in time, each until a frame shows it in the open.

    What is seen right beside the object (its contact shadow, its blur) is taken only where the open
    view never comes.

    Only places are carried from frame to frame; a colour is sampled once, in the frame that shows
    it, so that detail is not blurred however far it comes.

    Args:
        window: frames and steps.
        index: the frame the points belong to.
        points: float32 (n, 2), x y.
        direction: 1 = later frames, -1 = earlier ones.
        reach: how many frames to go at most.
    """
    colours = np.zeros((len(points), 3), np.float32)
    doubt = np.full(len(points), np.inf, np.float32)
    for stage in travel(window, index, points, direction, reach, front=False):
        way = np.linalg.norm(stage.ends - stage.starts, axis=1)
        view = stage.shot.view(stage.ends)
        # What moves otherwise than the background is something that passes in front of it.
        still = stage.strangeness < 0.7 * stage.step.cell + 0.05 * way
        seen, open_ = (view <= BY_THE_OBJECT) & still, view == 0
        total = stage.costs + np.where(open_, 0, BESIDE_COST)
        better = seen & (total < doubt[stage.active])
        colours[stage.active[better]] = stage.shot.colours(stage.ends[better])
        doubt[stage.active[better]] = total[better]
        stage.go_on &= ~(seen & open_)
    return Finds(colours, doubt, np.zeros(len(points), np.float32))


def follow_front(
    window: Window, index: int, points: np.ndarray, direction: int, reach: int
) -> Finds:
    """Follow points of what moves by itself, each until a frame shows it in the open.

    A thing may rest for a moment beside the background or move like it. So what comes into view is
    watched for some frames: it belongs to the layer if on the whole it moves rather with it than
    with the background.

    Args and Returns: as `follow`.
    """
    colours = np.zeros((len(points), 3), np.float32)
    doubt = np.full(len(points), np.inf, np.float32)
    balance = np.zeros(len(points), np.float32)
    watched = np.zeros(len(points), int)
    for stage in travel(window, index, points, direction, reach, front=True):
        active, cell = stage.active, stage.step.cell
        open_ = stage.shot.view(stage.ends) == 0
        new = open_ & np.isinf(doubt[active])
        colours[active[new]] = stage.shot.colours(stage.ends[new])
        odd = np.minimum(stage.strangeness / cell, 3.0)
        doubt[active[new]] = (stage.costs + 0.3 * odd**2)[new]
        away = stage.step.strangeness(stage.ends, direction) / cell
        balance[active] += np.where(open_, np.clip(away - odd, -1, 1), 0)
        watched[active] += np.isfinite(doubt[active])
        stage.go_on &= watched[active] < PROOF
    there = balance > 1
    proof = np.where(there, np.exp(-doubt / 8), -np.exp(-doubt / 8))
    return Finds(colours, np.where(there, doubt, np.inf), proof)


# ---------------------------------------------------------------------------- trust


FEATURES = 7
SHARP_WEIGHTS = np.array([
    [1.167, -0.269, 0.613, -0.114, -1.219, 0.458, 1.516],
    [-0.193, -0.203, 0.0, 0.0, -0.377, 0.618, 0.829],
])  # fmt: skip
"""Of the features of a find in the background and in front of it, in the order of `weigh`.

Fitted so that `mix` comes closest to the truth (least squares, with a small penalty on the weights)
in 14 clips of other scenes than those of the evaluation, under moving and still holes drawn at
random. In none of them was a thing in front found in both directions of time, hence the two zeros.
"""
MEAN_WEIGHTS = np.array([
    [1.41, -0.53, 0.41, 0.11, -1.18, 0.70, 1.32],
    [-0.12, -0.23, 0.0, 0.0, -0.31, 0.70, 0.98],
])  # fmt: skip
"""The same for a mean of the finds: half way from those above to a fit that begins with them.

It goes through the whole of `mix`, its blur included, to the least logarithm of each frame's mean
squared error, in 20 clips of other scenes, under moving holes shaped like objects.
"""


@dataclass
class Evidence:
    """Four finds for each of n pixels of a hole, and what speaks for each."""

    places: np.ndarray  # int (n, 2), x y of the region
    colours: np.ndarray  # float32 (n, 5, 3): background later, earlier, front later, earlier, film
    features: np.ndarray  # float32 (n, 4, FEATURES); see `weigh`
    found: np.ndarray  # bool (n, 4)


def weigh(
    image: Frame, hole: Mask, places: np.ndarray, back: Sequence[Finds], front: Sequence[Finds],
    *, exact: bool,
) -> Evidence:  # fmt: skip
    """Compare what was found with the picture round the hole and with each other.

    The features of a find: a constant; the doubt about its place; how far it differs from what the
    other direction of time found, and whether that found anything; by how much what was found the
    same way outside the hole misses the picture there; how deep the pixel lies in the hole; and
    whether the pixels about were seen to belong to its layer.

    Args:
        image: uint8 (h, w, 3).
        hole: bool (h, w).
        places: int (n, 2), x y: the hole's pixels and a ring round it.
        back: what was found in later and in earlier frames, of the background.
        front: the same of what moves by itself.
        exact: the hole ends where the picture is to be believed. It does not where a mask was grown
            round an object, whose shadow and blur lie about it: then they are no evidence.

    Returns:
        The evidence about the places inside the hole. Colours are shifted so that they meet the
        picture at the hole's border without a step.
    """
    shape = hole.shape
    at = (places[:, 1], places[:, 0])
    inner = hole[at]
    truth = image[at].astype(np.float32)
    film = diffuse(np.where(hole[..., None], 0, image).astype(np.float32), ~hole)
    depth = cv2.distanceTransform(np.pad(hole, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)
    depth = np.log1p(depth[1:-1, 1:-1][at])
    shifted, misses = zip(
        *(_meet(truth, f, inner, at, shape) for f in (*back, *front)), strict=True
    )
    # Outside the hole the layer is the one whose colours fit; inside, the one that was seen.
    fits = [np.minimum(*(_miss(truth, f) for f in pair)) for pair in (back, front)]
    with np.errstate(invalid="ignore"):  # where neither layer has anything to compare
        outside = np.nan_to_num(np.clip((fits[0] - fits[1]) / 20, -1, 1)) * exact
    vote = np.where(inner, front[0].proof + front[1].proof + _agreement(front), outside)
    vote = _spread(vote, vote != 0, at, shape, 5.0)
    features: list[np.ndarray] = []
    for pair, sign in ((back, -1), (front, 1)):
        both = np.isfinite(pair[0].doubt) & np.isfinite(pair[1].doubt)
        gap = np.abs(pair[0].colours - pair[1].colours).mean(axis=1)
        gap = _spread(np.minimum(gap, 60), both, at, shape, 2.0) * both / 20
        for finds in pair:
            doubt = np.log1p(np.minimum(finds.doubt, 200))
            miss = np.log1p(np.maximum(misses[len(features)], 0)) * exact
            features.append(
                np.stack((np.ones_like(gap), doubt, gap, both, miss, depth, sign * vote), axis=1)
            )
    return Evidence(
        places[inner],
        np.stack((*shifted, film[at]), axis=1)[inner],
        np.stack(features, axis=1)[inner].astype(np.float32),
        np.stack([np.isfinite(f.doubt) for f in (*back, *front)], axis=1)[inner],
    )


def _miss(truth: np.ndarray, finds: Finds) -> np.ndarray:
    return np.where(np.isfinite(finds.doubt), np.abs(truth - finds.colours).mean(axis=1), np.inf)


def _agreement(pair: Sequence[Finds]) -> np.ndarray:
    """From 1, both directions found the same, to -1, different colours; 0 = not both found any."""
    both = np.isfinite(pair[0].doubt) & np.isfinite(pair[1].doubt)
    gap = np.abs(pair[0].colours - pair[1].colours).mean(axis=1)
    return np.where(both, np.clip(1 - gap / 20, -1, 1), 0)


def _meet(
    truth: np.ndarray, finds: Finds, inner: np.ndarray, at: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Colours without a step at the hole's border, and how far they missed the picture there.

    A difference beyond 30 is no change of light but another surface, and is not spread.
    """
    ring = ~inner & np.isfinite(finds.doubt)
    if not ring.any():
        return finds.colours, np.full(len(truth), 20.0, np.float32)
    difference = truth - finds.colours
    size = np.abs(difference)
    difference = np.where(size.max(axis=1, keepdims=True) < 30, difference, 0)
    # Half the size is enough for what is smooth.
    half = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
    values: np.ndarray = np.zeros((*half, 4), np.float32)
    known = np.zeros(half, bool)
    ys, xs = at[0][ring] // 2, at[1][ring] // 2
    values[ys, xs, :3] = difference[ring]
    values[ys, xs, 3] = size[ring].mean(axis=1)
    known[ys, xs] = True
    spread = cv2.resize(diffuse(values, known), (2 * half[1], 2 * half[0]))[at]
    return finds.colours + spread[:, :3], spread[:, 3]


def _spread(
    values: np.ndarray, known: np.ndarray, at: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int], sigma: float,
) -> np.ndarray:  # fmt: skip
    """The mean of the known values about each pixel, float32 (n,); 0 where there are none."""
    grid: np.ndarray = np.zeros((*shape, 2), np.float32)
    grid[at[0], at[1], 0] = np.where(known, values, 0)
    grid[at[0], at[1], 1] = known
    grid = cv2.GaussianBlur(grid, (0, 0), sigma)[at]
    return grid[:, 0] / np.maximum(grid[:, 1], 1e-6)


def mix(evidence: Evidence, *, sharp: bool, weights: np.ndarray | None = None) -> np.ndarray:
    """One colour for each pixel for which anything was found; the others get the film's.

    Args:
        evidence: about n pixels.
        sharp: show what is most probably there. Otherwise the result is the colour to be expected,
            the mean of finds and film by how probable each is: closest to the truth on the average,
            but soft where little is certain.
        weights: float (2, FEATURES), of background and front; None = those fitted.

    Returns:
        float32 (n, 3).
    """
    if weights is None:
        weights = SHARP_WEIGHTS if sharp else MEAN_WEIGHTS
    scores = (evidence.features * np.repeat(weights, 2, axis=0)).sum(axis=-1)
    scores = np.where(evidence.found, scores, -np.inf)
    film = np.zeros_like(scores[:, :1])  # the score that the others are measured against
    if sharp:
        # Where finds disagree the best one wins the more clearly: a mean would be a ghost of both.
        gap = evidence.features[..., 2].max(axis=1, keepdims=True)
        scores = scores * (4 + 8 * gap)
        film = np.where(evidence.found.any(axis=1, keepdims=True), -np.inf, film)
    scores = np.concatenate((scores, film), axis=1)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    if not sharp:  # neighbours are much alike, and each is judged by noisy measures
        xs, ys = evidence.places.T - evidence.places.min(axis=0)[:, None]
        grid: np.ndarray = np.zeros((ys.max() + 1, xs.max() + 1, 5), np.float32)
        grid[ys, xs] = odds / odds.sum(axis=1, keepdims=True)
        odds = cv2.GaussianBlur(grid, (0, 0), 4)[ys, xs] * np.isfinite(scores)
    shares = odds / odds.sum(axis=1, keepdims=True)
    return (shares[..., None] * evidence.colours).sum(axis=1)


# ---------------------------------------------------------------------------- never seen


@dataclass
class Origin:
    """A picture that invented pixels of other frames were taken from."""

    image: Frame
    corner: tuple[int, int]


class Canvas:
    """One frame being painted, on the region round its hole. Places are x y of that region."""

    def __init__(self, shot: Shot, region: Region) -> None:
        y0, x0, y1, x1 = region
        self.index = shot.index
        self.region = region
        self.corner = (x0, y0)
        self.hole = shot.hole[y0:y1, x0:x1]
        self.image = shot.pixels[y0:y1, x0:x1].copy()
        self.missing = self.hole.copy()  # not painted yet
        # Where invented pixels come from; -1 = from this canvas itself.
        self._origins: list[Origin] = []
        self._origin = np.full(self.hole.shape, -1, np.int16)
        self._place = np.zeros((*self.hole.shape, 2), np.float32)
        self._self = Origin(self.image, self.corner)

    def widen(self, more: Mask) -> None:
        """Add to the hole, before anything is painted."""
        self.hole = self.hole | more
        self.missing = self.hole.copy()

    def paint(self, places: np.ndarray, colours: np.ndarray) -> None:
        """Paint places (n, 2) int with colours (n, 3)."""
        xs, ys = places.T
        self.image[ys, xs] = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
        self.missing[ys, xs] = False

    def carry_from(self, other: Canvas, step: Step, direction: int) -> None:
        """Paint what is missing with what a neighbouring canvas shows there.

        Args:
            other: the canvas of the frame before (direction -1) or after (1).
            step: the motion between the two.
            direction: from this canvas to the other.
        """
        ys, xs = np.nonzero(self.missing)
        places = np.stack((xs, ys), axis=1)
        ends, drift, _ = step.move((places + self.corner).astype(np.float32), direction, step.back)
        ends = ends - np.array(other.corner, np.float32)
        near = np.rint(ends).astype(int)
        height, width = other.hole.shape
        usable = ((near >= 0) & (near < [width, height])).all(axis=1) & (drift < 2 * step.cell)
        near = np.clip(near, 0, [width - 1, height - 1])
        at = (near[:, 1], near[:, 0])
        # Cubic sampling reaches two pixels further; none of them may be missing there as well.
        blank = cv2.dilate(other.missing.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        usable &= other.hole[at] & ~blank[at]
        places, ends, near = places[usable], ends[usable], near[usable]
        numbers = other._origin[near[:, 1], near[:, 0]]
        for number in np.unique(numbers):
            some = numbers == number
            if number < 0:
                origin, found = other._self, ends[some]
            else:  # as far beside the known place as we are beside the pixel it belongs to
                origin = other._origins[number]
                at = (near[some, 1], near[some, 0])
                found = other._place[at] + ends[some] - near[some]
            self.paint(places[some], sample(origin.image, found, cubic=True))
            xs, ys = places[some].T
            self._origin[ys, xs] = len(self._origins)
            self._place[ys, xs] = found
            self._origins.append(origin)

    def take(self, shot: Shot) -> None:
        """Paint what another frame shows at the very same place."""
        ys, xs = np.nonzero(self.missing & ~shot.hole)
        self.paint(np.stack((xs, ys), axis=1), shot.pixels[ys, xs])

    def invent(self, generator: Generator | None, *, sharp: bool) -> None:
        """Paint what is missing out of nothing but this picture; for `sharp` see `mix`."""
        if not self.missing.any():
            return
        if generator is not None:
            picture = generator(self.image, self.missing, sharp=sharp)
        else:
            hole = self.missing.astype(np.uint8)
            picture = cv2.inpaint(self.image, hole, 5, cv2.INPAINT_TELEA)
        ys, xs = np.nonzero(self.missing)
        self.paint(np.stack((xs, ys), axis=1), picture[ys, xs])


class Generator:
    """MI-GAN (Sargsyan et al., ICCV 2023) as the ONNX pipeline its authors publish."""

    def __init__(self, path: Path, device: torch.device) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # A plan of what lies where would be made, and its memory be kept, for each size of picture.
        options.enable_mem_pattern = False
        self._run = onnxruntime.RunOptions()
        self._run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        wanted.append("CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)

    def __call__(self, image: Frame, hole: Mask, *, sharp: bool = True) -> Frame:
        """A picture whose hole is filled; it may differ a little outside the hole as well.

        What is invented is right in its kind but not in its place. Unless it shall be `sharp`, it
        is shown half through a smooth fill, which is closer to the truth than either by itself.
        """
        # The pipeline lets what the hole showed shine through near its border, and thin holes are
        # nothing but border: give it a smooth fill to start from.
        start = diffuse(np.where(hole[..., None], 0, image).astype(np.float32), ~hole)
        picture = np.clip(np.rint(start), 0, 255).astype(np.uint8)
        known = np.where(hole, 0, 255).astype(np.uint8)  # the model's masks are the other way round
        feeds = {"image": picture.transpose(2, 0, 1)[None], "mask": known[None, None]}
        (result,) = self._session.run(None, feeds, self._run)
        invented = np.ascontiguousarray(result[0].transpose(1, 2, 0))
        return invented if sharp else cv2.addWeighted(invented, 0.5, picture, 0.5, 0)


# ---------------------------------------------------------------------------- the inpainter


def search(window: Window, canvas: Canvas, reach: int, *, exact: bool) -> Evidence:
    """Look for what a frame's hole hides, up to `reach` frames away; for `exact` see `weigh`."""
    ys, xs = np.nonzero(grow(canvas.hole, RING))
    places = np.stack((xs, ys), axis=1)
    points = (places + canvas.corner).astype(np.float32)
    back, front = (
        [look(window, canvas.index, points, direction, reach) for direction in (1, -1)]
        for look in (follow, follow_front)
    )
    return weigh(canvas.image, canvas.hole, places, back, front, exact=exact)


def shadow_beside(window: Window, canvas: Canvas, reach: int) -> Mask:
    """Where the picture beside the hole is darker than what other frames show in the open there.

    It has to touch the hole: what is cast elsewhere belongs to something else.

    Returns:
        bool (h, w) of the canvas.
    """
    ys, xs = np.nonzero(grow(canvas.hole, SHADOW) & ~canvas.hole)
    points = (np.stack((xs, ys), axis=1) + canvas.corner).astype(np.float32)
    later, earlier = (follow(window, canvas.index, points, way, reach) for way in (1, -1))
    nearer = (later.doubt <= earlier.doubt)[:, None]
    lit = np.where(nearer, later.colours, earlier.colours).mean(axis=1)
    sure = np.minimum(later.doubt, earlier.doubt) < BESIDE_COST
    light: np.ndarray = np.zeros((*canvas.hole.shape, 2), np.float32)
    light[ys, xs, 0] = np.where(sure, lit, 0)
    light[ys, xs, 1] = np.where(sure, canvas.image[ys, xs].mean(axis=1), 0)
    light = cv2.blur(light, (5, 5))  # what is dark by a pixel is texture that was not met exactly
    dark = (light[..., 1] < 0.85 * light[..., 0]) & (light[..., 0] - light[..., 1] > 8)
    spots = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    # Unsure pixels between hole and shadow must not part them.
    _, parts = cv2.connectedComponents(spots | grow(canvas.hole, BESIDE).astype(np.uint8))
    return grow((spots > 0) & np.isin(parts, np.unique(parts[canvas.hole])), 2) & ~canvas.hole


class PropagationInpainter:
    """Carries real pixels into the hole and invents only what no frame shows.

    At any time it holds at most `reach + block` whole frames, and of the `reach` frames before them
    the part round the hole; for frames beyond 1080p `reach` shrinks so that they stay within
    `memory` bytes. The number of frames of the clip plays no part.
    """

    def __init__(
        self,
        network: SPyNet,
        generator: Generator | None = None,
        *,
        weights: str = "",
        device: torch.device | str = "cpu",
        dilate: int | None = None,
        reach: int = 40,
        block: int = 8,
        memory: int = 600_000_000,
        sharp: bool | None = None,
        shadow: bool = False,
        resolution: int | None = None,
    ) -> None:
        """Set up; see `build_inpainter` for device and dilate.

        Args:
            network: the optical flow.
            generator: invents what no frame shows; None = Telea's method.
            weights: what the two run on, for the record.
            reach: how many frames to look back and ahead for the background.
            block: how many frames are painted at a time; the frame that invents is chosen in them.
            memory: bytes the whole frames held may take.
            sharp: see `mix` and `Generator`; None = where masks were grown, to cover an object for
                the eye. A mask that was not is taken to end exactly where the picture is to be
                believed.
            shadow: also paint over the shadow beside the object, where other frames show the same
                place brighter. Then pixels up to 42 from the masks may change.
            resolution: pixels of the longer side of the flow, at which a larger region round the
                holes is worked on; None = as many pixels as 432x240 has.
        """
        if resolution is not None and resolution < 1:
            raise InputError(f"resolution is {resolution}; give a whole number from 1 up.")
        if dilate is not None and dilate < 0:
            raise InputError(f"dilate is {dilate}; give a number of pixels from 0 up.")
        self.notes: list[str] = []
        self.weights = weights
        self._motion = Motion(network, torch.device(device), resolution=resolution)
        self._generator = generator
        self._dilate, self._reach, self._block, self._memory = dilate, reach, block, memory
        self._sharp, self._shadow = sharp, shadow

    def inpaint(
        self, frames: FrameSource, masks: MaskSource, *, start: int = 0, stop: int | None = None
    ) -> Iterator[Frame]:
        """See `Inpainter.inpaint`. Frames are read once, in order, from `reach` before `start` on.

        Pixels outside the grown masks, and frames without a mask, come back bit for bit.
        """
        return self._run(frames, masks, check_clip(frames, masks, start, stop))

    def _run(self, frames: FrameSource, masks: MaskSource, span: range) -> Iterator[Frame]:
        self.notes = []
        start, stop = span.start, span.stop
        if start == stop:
            return
        tally = _Tally()
        frame_bytes = 3 * max(np.asarray(masks[start]).size, 1)  # a mask costs less to look at
        reach = max(2, min(self._reach, self._memory // frame_bytes))
        first = max(start - reach, 0)
        window = Window(
            frames, masks, self._motion, dilate=self._dilate, first=first,
            beside=SHADOW // 2 if self._shadow else BESIDE,
        )  # fmt: skip
        for index in range(first, start):  # what lies before only lends its pixels
            window.read_to(index + 2)
            window.release(index, past=reach)
        before: Canvas | None = None
        for begin in range(start, stop, self._block):
            end = min(begin + self._block, stop)
            window.read_to(end + 1)  # the motion out of a frame is measured before it is cut down
            if any(window.shots[i].hole.any() for i in range(begin, end)):
                window.read_to(end + reach)
            canvases = [self._propagate(window, i, reach) for i in range(begin, end)]
            tally.count(canvases)
            self._complete([before, *canvases], window)
            for index, canvas in zip(range(begin, end), canvases, strict=True):
                yield _compose(window.shots[index], canvas)
                window.release(index, past=reach)
            before = canvases[-1]
        self.notes = tally.notes(self._generator is not None)

    def _propagate(self, window: Window, index: int, reach: int) -> Canvas | None:
        """The frame with everything painted that some other frame shows; None without a hole."""
        shot = window.shots[index]
        if not shot.hole.any():
            return None
        canvas = Canvas(shot, surroundings(shot.hole))
        if self._shadow:
            canvas.widen(shadow_beside(window, canvas, reach))
        evidence = search(window, canvas, reach, exact=shot.grown == 0)
        found = evidence.found.any(axis=1)
        canvas.paint(evidence.places[found], mix(evidence, sharp=self._takes_sides(shot))[found])
        return canvas

    def _takes_sides(self, shot: Shot) -> bool:
        return shot.grown > 0 if self._sharp is None else self._sharp

    def _complete(self, canvases: list[Canvas | None], window: Window) -> None:
        """Invent what is still missing on as few frames as possible and carry it to the others.

        The first canvas belongs to the block before and is complete. What it shows comes first;
        then the last frame of the block, which has seen most of what the hole moved over, invents.
        """
        carry(canvases, window, 0)
        last = len(canvases) - 1
        for number in [last, *range(1, last)]:
            canvas = canvases[number]
            if canvas is None or not canvas.missing.any():
                continue
            if canvas.missing.all():  # the hole is the whole frame, and so were its neighbours'
                canvas.take(window.nearest_view(canvas.index))
            canvas.invent(
                self._generator if _matters(canvas) else None,
                sharp=self._takes_sides(window.shots[canvas.index]),
            )
            carry(canvases, window, number)


def carry(canvases: list[Canvas | None], window: Window, number: int) -> None:
    """Carry what one canvas shows to its neighbours, and on from there, both ways."""
    for direction in (1, -1):
        end = len(canvases) if direction == 1 else 0
        for target in range(number + direction, end, direction):
            source, canvas = canvases[target - direction], canvases[target]
            if source is None or canvas is None:
                break
            step = window.steps.get(min(source.index, canvas.index))
            if step is None:
                break
            canvas.carry_from(source, step, -direction)


def _matters(canvas: Canvas) -> bool:
    """Whether so much is missing that it is worth a run of the generator."""
    missing = int(canvas.missing.sum())
    return missing > max(64, 0.01 * float(canvas.hole.sum()))


def _compose(shot: Shot, canvas: Canvas | None) -> Frame:
    """The frame with its hole painted; every other pixel as it was."""
    if canvas is None:
        return shot.pixels
    y0, x0, y1, x1 = canvas.region
    opacity = feather(canvas.hole, shot.feather)[..., None]
    part = shot.pixels[y0:y1, x0:x1]
    mixed = np.rint(part + opacity * (canvas.image.astype(np.float32) - part))
    frame = shot.pixels.copy()
    frame[y0:y1, x0:x1] = np.where(canvas.hole[..., None], mixed.astype(np.uint8), part)
    return frame


class _Tally:
    """How much of the removed area had to be invented."""

    def __init__(self) -> None:
        self.removed = self.invented = 0

    def count(self, canvases: list[Canvas | None]) -> None:
        for canvas in canvases:
            if canvas is not None:
                self.removed += int(canvas.hole.sum())
                self.invented += int(canvas.missing.sum())

    def notes(self, generated: bool) -> list[str]:
        if not self.invented:
            return []
        percent = 100 * self.invented / self.removed
        amount = f"{percent:.0f} %" if percent >= 1 else "Less than 1 %"
        notes = [f"{amount} of the removed area was never visible and was invented."]
        if not generated:
            notes.append(
                "The invented part is only a smooth fill; `python -m checkpoints fetch migan` gets "
                "the model that paints it properly."
            )
        return notes


@register("propagation", weights=partial(checkpoints.path, "spynet"))
def build_propagation(
    *,
    device: str = "auto",
    weights: str | Path | None = None,
    dilate: int | None = None,
    **options: Any,
) -> PropagationInpainter:
    """Build the inpainter with the weights in the checkpoints folder.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        weights: SPyNet inside a BasicVSR file; None = the checkpoint `spynet`.
        dilate: pixels to grow the masks by; None = 2 % of the object's diagonal and 2 more.
        options: `reach`, `block`, `memory`, `sharp`, `shadow`, `resolution` of
            `PropagationInpainter`.

    Raises:
        checkpoints.CheckpointError: The flow's weights are missing or damaged.
    """
    place = resolve_device(device)
    path = checkpoints.path("spynet") if weights is None else Path(weights)
    record = WeightsRecord.of_file("spynet" if weights is None else str(weights), path)
    network = load_basicvsr(checkpoints.load_state_dict(path))
    migan = checkpoints.find("migan")
    generator = Generator(migan, place) if migan else None
    if generator is None:
        log.info("No MI-GAN checkpoint: what no frame shows will be filled by Telea's method.")
    used = f"{record}, {WeightsRecord.of_file('migan', migan)}" if migan else str(record)
    return PropagationInpainter(
        network, generator, weights=used, device=place, dilate=dilate, **options
    )
