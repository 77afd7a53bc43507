"""Labels from nothing: regions of a clip, followed by optical flow as far as it can be trusted.

A step is that of Kalal et al., "Forward-backward error" (ICPR 2010), on dense flow: points of the
region go to the next frame and back, those that do not come home are left out, and the others'
medians move and scale the box. Where they do not agree, or look different, the track ends. It is
kept as far as the way back, with the flow of the other direction, leads to where it began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trackers.boxes import box_iou, xywh_to_xyxy

_CANDIDATES = 150  # random boxes, of which the best become tracks
_GRID = 10  # points along each side of a box
_HOME = 1.0  # pixels from its start that a point may come home to
_SHARE = 0.5  # of the points that have to come home
_ALIKE = 0.7  # least correlation of the points' brightness from one frame to the next
_SPREAD = 0.05  # of the box's side: how far points may be from where its motion takes them
_RETURN = 0.6  # IoU with the first box that the way back has to reach
_SMALLEST = 12.0  # pixels
_TEXTURE = 4.0  # grey levels between neighbours, on average; less shows no motion
_STILL = 0.1  # of its side that a region has to move; less teaches no more than a still


@dataclass(frozen=True)
class _Clip:
    """n frames: (h, w) grey levels, and between them n - 1 flows (h, w, 2) there and back."""

    grey: Sequence[np.ndarray]
    there: Sequence[np.ndarray]
    back: Sequence[np.ndarray]

    def reversed(self, n: int) -> _Clip:
        """The first n frames, from the last to the first."""
        return _Clip(self.grey[:n][::-1], self.back[: n - 1][::-1], self.there[: n - 1][::-1])


def follow_regions(
    frames: Sequence[np.ndarray], rng: np.random.Generator, *, most: int = 6, fewest: int = 20
) -> list[np.ndarray]:
    """Follow regions that begin in the first frame.

    Args:
        frames: n of one size, (h, w, 3) RGB uint8.
        rng: where the candidates come from.
        most: regions.
        fewest: frames through which a region has to be followed.

    Returns:
        for each region float64 (n, 4) left, top, width, height, nan after its end.
    """
    from media.flow import dense_flow  # needs OpenCV, which a training machine may lack

    if len(frames) < fewest:
        return []
    clip = _Clip(
        [frame.mean(axis=2).astype(np.float16) for frame in frames],
        [dense_flow(a, b).astype(np.float16) for a, b in pairwise(frames)],
        [dense_flow(b, a).astype(np.float16) for a, b in pairwise(frames)],
    )
    tracks: list[np.ndarray] = []
    for seed in _seeds(clip, rng):
        if any(box_iou(*(xywh_to_xyxy(np.stack([seed, t[0]])))) > 0.2 for t in tracks):
            continue
        track = _follow(seed, clip)
        n = _trusted(track, clip, fewest)
        moved = np.linalg.norm(np.diff(_centers(track[[0, n - 1]]), axis=0))
        if n >= fewest and moved > _STILL * np.sqrt(seed[2] * seed[3]):
            tracks.append(np.concatenate([track[:n], np.full((len(frames) - n, 4), np.nan)]))
        if len(tracks) == most:
            break
    return tracks


def _centers(boxes_xywh: np.ndarray) -> np.ndarray:
    return boxes_xywh[:, :2] + boxes_xywh[:, 2:] / 2


def _seeds(clip: _Clip, rng: np.random.Generator) -> list[np.ndarray]:
    """Boxes with texture, first those that move otherwise than what is round them."""
    grey, flow = clip.grey[0].astype(np.float32), clip.there[0].astype(np.float32)
    height, width = grey.shape
    steps = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    found: list[tuple[float, np.ndarray]] = []
    for _ in range(_CANDIDATES):
        side = min(height, width) * np.exp(rng.uniform(np.log(0.1), np.log(0.5)))
        aspect = np.exp(rng.uniform(-0.7, 0.7) / 2)
        w, h = min(side * aspect, 0.8 * width), min(side / aspect, 0.8 * height)
        x, y = rng.random() * (width - w), rng.random() * (height - h)
        box = np.array([x, y, w, h])
        texture = float(_inside(steps, box).mean())
        if min(w, h) < _SMALLEST or texture < _TEXTURE:
            continue
        around = np.array([x - w / 2, y - h / 2, 2 * w, 2 * h])
        motion = [np.median(_inside(flow, b).reshape(-1, 2), axis=0) for b in (box, around)]
        found.append((float(np.linalg.norm(motion[0] - motion[1])), box))
    return [box for _, box in sorted(found, key=lambda each: -each[0])]


def _inside(image: np.ndarray, box_xywh: np.ndarray) -> np.ndarray:
    x, y, w, h = box_xywh
    rows = slice(max(0, int(y)), max(1, int(y + h)))
    return image[rows, max(0, int(x)) : max(1, int(x + w))]


def _follow(box: np.ndarray, clip: _Clip) -> np.ndarray:
    """(m, 4): the box in the frames up to the first step that cannot be trusted."""
    track = [box]
    for pair in zip(pairwise(clip.grey), clip.there, clip.back, strict=True):
        found = _step(track[-1], *pair)
        if found is None:
            break
        track.append(found)
    return np.stack(track)


def _trusted(track: np.ndarray, clip: _Clip, fewest: int) -> int:
    """How many frames of the track the way back confirms."""
    n = len(track)
    while n >= fewest:
        home = _follow(track[n - 1], clip.reversed(n))
        if len(home) == n and box_iou(*xywh_to_xyxy(np.stack([home[-1], track[0]]))) >= _RETURN:
            return n
        n = n * 3 // 4
    return n


def _step(
    box: np.ndarray,
    grey: tuple[np.ndarray, np.ndarray],
    forward: np.ndarray,
    backward: np.ndarray,
) -> np.ndarray | None:
    """The box in the next frame; None where it is not certain."""
    height, width = forward.shape[:2]
    x, y, w, h = box
    grid = (np.arange(_GRID) + 0.5) / _GRID
    points = np.stack(np.meshgrid(x + w * grid, y + h * grid), axis=-1).reshape(-1, 2)
    points = points[((points >= 0) & (points <= (width - 1, height - 1))).all(axis=1)]
    if len(points) < _SHARE * _GRID**2:
        return None
    moved = points + _sample(forward, points)
    home = np.linalg.norm(moved + _sample(backward, moved) - points, axis=1) < _HOME
    if home.mean() < _SHARE:
        return None
    points, moved = points[home], moved[home]
    seen = np.stack([_sample(grey[0], points), _sample(grey[1], moved)])
    if (seen.std(axis=1) < 1).any() or np.corrcoef(seen)[0, 1] < _ALIKE:
        return None
    before, after = np.median(points, axis=0), np.median(moved, axis=0)
    lengths = np.linalg.norm(points - before, axis=1)
    far = lengths > 0.2 * min(w, h)
    if not far.any():
        return None
    scale = float(np.median(np.linalg.norm(moved - after, axis=1)[far] / lengths[far]))
    apart = np.linalg.norm(moved - after - scale * (points - before), axis=1)
    if not 0.9 < scale < 1.1 or np.median(apart) > _SPREAD * np.sqrt(w * h):
        return None
    center = after + scale * (np.array([x + w / 2, y + h / 2]) - before)
    size = scale * box[2:]
    return np.concatenate([center - size / 2, size]) if size.min() >= _SMALLEST else None


def _sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """What is at the pixels nearest to points (n, 2); beyond the edge as at the edge."""
    x, y = np.rint(points).astype(int).T
    found = image[y.clip(0, len(image) - 1), x.clip(0, image.shape[1] - 1)]
    return found.astype(np.float64)
