"""What robust mode adds to a tracker: it knows when its object is gone, and looks for it.

in sight ──── presence falls, or a new shot begins ────► lost
    ▲                                                      │ each frame: where it was guessed last
    └──── the same box is found likely some times ◄────────┘ each third: places all over the frame
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from media.cuts import CutDetector
from trackers.crops import SquareCrop
from trackers.presence import Presence, edge_entropy, likeness, presence
from trackers.search import Sight

Box = tuple[float, float, float, float]  # left, top, width, height in frame pixels

_SPACING = 0.6  # of windows, in multiples of their side
_PHASES = (
    (0.3, 0.3),
    (0.7, 0.7),
    (0.3, 0.7),
    (0.7, 0.3),
)  # where they lie in the spacing, in turns
_ZOOMS = (1.0, 1.0, 1.6)  # size of the windows, in turns: the object may have grown
_SURE = 0.4  # the presence from which a frame teaches colours: also new ones, in another light
_DOUBTFUL = 0.3  # the presence below which a box is not worth a check
_LEARNING = 0.05  # share of a new palette
_EVERYWHERE = 200  # windows at a time when a whole frame is searched at once
_FINALISTS = 3  # of them that are looked at twice


class Sweep:
    """The windows in which a lost object is looked for, a bounded number in every few frames.

    Those around the place where it was seen last come first, then rings around these, until the
    whole frame has been looked at; then it begins anew. From set to set the windows lie elsewhere,
    because a network sees best what is near the middle of its window, and have another size.

    Args:
        every: frames from one set of windows to the next.
        limit: of windows in a set.
    """

    def __init__(self, every: int = 3, limit: int = 10) -> None:
        self.every = every
        self.limit = limit
        self.start()

    def start(self) -> None:
        """Begin anew, with the next frame."""
        self._frames = 0
        self._looked = 0  # into so many windows

    def boxes(self, box_xywh: Box, factor: float, size: tuple[int, int]) -> list[tuple[Box, float]]:
        """Where to look in the next frame.

        Args:
            box_xywh: the object when it was last seen.
            factor: side of a search window in multiples of the object's mean side.
            size: (height, width) of the frame.

        Returns:
            For each window a box in its middle, with the object's sides, and its factor; nothing in
            frames between two sets.
        """
        turn, between = divmod(self._frames, self.every)
        self._frames += 1
        if between:
            return []
        x, y, w, h = box_xywh
        factor *= _ZOOMS[turn % len(_ZOOMS)]
        step = _SPACING * factor * math.sqrt(w * h)
        (rows, dy), (columns, dx) = (
            (math.ceil(length / step), phase)
            for length, phase in zip(size, _PHASES[turn % len(_PHASES)], strict=True)
        )
        height, width = size
        centers = [
            ((i + dx) * width / columns, (j + dy) * height / rows)
            for j in range(rows)
            for i in range(columns)
        ]
        centers.sort(key=lambda c: math.hypot(c[0] - x - w / 2, c[1] - y - h / 2))
        count = min(self.limit, len(centers))
        chosen = [centers[(self._looked + i) % len(centers)] for i in range(count)]
        self._looked += count
        return [((cx - w / 2, cy - h / 2, w, h), factor) for cx, cy in chosen]


class Palette:
    """The colours of an object, as the user gave it and as it was of late, and of its frames."""

    def __init__(self, frame: np.ndarray, box_xywh: Box) -> None:
        self._given = self._late = _histogram(frame, box_xywh)
        self._scene = _histogram(frame)

    def learn(self, frame: np.ndarray, box_xywh: Box) -> None:
        """Take a little of the colours of a box that is right."""
        self._late = (1 - _LEARNING) * self._late + _LEARNING * _histogram(frame, box_xywh)
        self._scene = (1 - _LEARNING) * self._scene + _LEARNING * _histogram(frame)

    def compare(self, frame: np.ndarray, box_xywh: Box) -> float:
        """How alike the colours of a box are, 0 to 1 (Bhattacharyya coefficient)."""
        other = _histogram(frame, box_xywh)
        return max(_coefficient(mine, other) for mine in (self._given, self._late))

    def change_of_light(self, frame: np.ndarray) -> float:
        """How alike the colours of the whole frame are: little when lights go on or off."""
        return _coefficient(self._scene, _histogram(frame))


def _coefficient(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.sqrt(first * second).sum())


def _histogram(frame: np.ndarray, box_xywh: Box | None = None) -> np.ndarray:
    import cv2

    if box_xywh is not None:
        height, width = frame.shape[:2]
        x, y, w, h = box_xywh
        x0, x1 = _span(x, x + w, width)
        y0, y1 = _span(y, y + h, height)
        frame = frame[y0:y1, x0:x1]
    patch = cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(patch, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1], None, [12, 6], [0, 180, 0, 256])
    return counts / counts.sum()


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """In whole pixels, inside of the frame, at least two of them."""
    first = min(max(round(low), 0), length - 2)
    return first, max(min(round(high), length), first + 2)


@dataclass(frozen=True)
class Verdict:
    """What became of the object in a frame."""

    box_xywh: Box  # around which to look next
    probability: float  # that it is right
    lost: bool


class Recovery:
    """Follows the presence of one object.

    Args:
        frame: (h, w, 3) RGB uint8, in which the user has shown the object.
        box_xywh: where.
        factor: side of a search window in multiples of the object's mean side.
        side: of a search crop in pixels.
    """

    def __init__(self, frame: np.ndarray, box_xywh: Box, *, factor: float, side: int) -> None:
        self.presence = Presence()
        self.trusted_xywh = box_xywh  # where it was last seen
        self._palette = Palette(frame, box_xywh)
        self._sweep = Sweep()
        self._factor = factor
        self._side = side
        self._cuts = CutDetector()
        self._cuts.is_cut(frame)

    def judge(
        self,
        frame: np.ndarray,
        sight: Sight,
        search: Callable[[Sequence[SquareCrop]], list[Sight]],
        way_back: Callable[[Box], float],
    ) -> Verdict:
        """Decide whether the object is in sight, and look for it elsewhere if it is not.

        Args:
            frame: the next frame, (h, w, 3) RGB uint8.
            sight: what the tracker saw where it expected the object; with the (4 * F) probabilities
                of the edges in `more`, its box clipped to the frame.
            search: looks into other windows of this frame, and clips what it finds.
            way_back: see `presence.likeness`, for a box in this frame.
        """
        was_lost = self.presence.lost
        # In sight, an object may change its colours as much as all that is around it.
        light = 1.0 if was_lost else self._palette.change_of_light(frame)
        found = self._weigh(frame, sight, light)
        if self._cuts.is_cut(frame):
            self.presence.lose()
            was_lost = False
            found = self._weigh(frame, sight)
        elif not was_lost:
            self.presence.update(found.probability)
        if not self.presence.lost:
            if found.probability > 0.5:
                self.trusted_xywh = found.sight.box_xywh
            if found.probability > _SURE:
                self._palette.learn(frame, found.sight.box_xywh)
            return Verdict(found.sight.box_xywh, found.probability, False)
        if not was_lost:
            self._sweep.start()
        windows = self._elsewhere(frame, self._sweep)
        if windows:
            best = max((self._weigh(frame, other) for other in search(windows)), key=_probability)
            found = max(found, self._look_again(frame, best, search), key=_probability)
        return self._check(found, way_back)

    def find(
        self,
        frame: np.ndarray,
        search: Callable[[Sequence[SquareCrop]], list[Sight]],
        way_back: Callable[[Box], float],
    ) -> Verdict:
        """Look for the object all over one frame, as `judge` does in the course of many.

        Nothing is learnt. Places far from where the object was last seen are left out where a frame
        has more than 600 windows: an object of 20 pixels in Full HD.

        Args: as for `judge`.
        """
        sweep = Sweep(every=1, limit=_EVERYWHERE)
        found: list[_Found] = []
        for _ in _ZOOMS:
            sights = search(self._elsewhere(frame, sweep))
            found += (self._weigh(frame, sight) for sight in sights)
        best: list[_Found] = []
        for other in sorted(found, key=_probability, reverse=True):
            if len(best) < _FINALISTS and all(not _overlap(other, known) for known in best):
                best.append(other)
        again = [self._look_again(frame, other, search) for other in best]
        likely = [self._compare(other, way_back) for other in again]
        probability = max(likely)
        box = again[likely.index(probability)].sight.box_xywh
        return Verdict(box, probability, probability < self.presence.high)

    def _weigh(self, frame: np.ndarray, sight: Sight, light: float = 1.0) -> _Found:
        entropy = edge_entropy(sight.more.reshape(4, -1))
        color = min(1.0, self._palette.compare(frame, sight.box_xywh) / max(light, 1e-6))
        return _Found(sight, entropy, color, presence(sight.score, entropy, color))

    def _elsewhere(self, frame: np.ndarray, sweep: Sweep) -> list[SquareCrop]:
        height, width = frame.shape[:2]
        places = sweep.boxes(self.trusted_xywh, self._factor, (height, width))
        return [SquareCrop.around(box, factor, self._side) for box, factor in places]

    def _look_again(
        self,
        frame: np.ndarray,
        found: _Found,
        search: Callable[[Sequence[SquareCrop]], list[Sight]],
    ) -> _Found:
        """As at any object that is followed: in the middle of its window."""
        (sight,) = search([SquareCrop.around(found.sight.box_xywh, self._factor, self._side)])
        return self._weigh(frame, sight)

    @staticmethod
    def _compare(found: _Found, way_back: Callable[[Box], float]) -> float:
        back = way_back(found.sight.box_xywh)
        return likeness(found.sight.score, found.entropy, found.color, back)

    def _check(self, found: _Found, way_back: Callable[[Box], float]) -> Verdict:
        box, probability = found.sight.box_xywh, found.probability
        if probability < _DOUBTFUL:
            # A guess, whose sides mean nothing: the next look is there, at what has the old ones.
            self.presence.check(0.0)
            _, _, w, h = self.trusted_xywh
            middle = box[0] + box[2] / 2, box[1] + box[3] / 2
            return Verdict((middle[0] - w / 2, middle[1] - h / 2, w, h), probability, True)
        probability = self._compare(found, way_back)
        if self.presence.check(probability):
            self.trusted_xywh = box
        return Verdict(box, probability, self.presence.lost)


@dataclass(frozen=True)
class _Found:
    sight: Sight
    entropy: float
    color: float
    probability: float


def _probability(found: _Found) -> float:
    return found.probability


def _overlap(first: _Found, second: _Found) -> bool:
    """Whether the middle of one lies in the other."""
    (x0, y0, w0, h0), (x, y, w, h) = first.sight.box_xywh, second.sight.box_xywh
    return abs(x0 + w0 / 2 - x - w / 2) < w / 2 and abs(y0 + h0 / 2 - y - h / 2) < h / 2
