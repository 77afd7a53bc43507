"""A sliding window over a clip: frames are read once, in order, and only what is needed is kept.

The window holds frames (`Shot`) and the motion between neighbours (`Step`). Both depend on the
clip alone, never on where the window happens to stand, so that a clip painted in parts finds the
same pixels as one painted at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from inpainting.base import Frame, FrameSource, Mask, MaskSource, check_mask
from inpainting.compositing import SOFT_EDGE, grow, hole_of
from media import InputError
from media.cuts import CutDetector

BESIDE = 4  # pixels round the hole, and twice what the mask was grown by, that are seen with doubt
BY_THE_OBJECT, HIDDEN = 100, 200

Region = tuple[int, int, int, int]
"""y0, x0, y1, x1 in full-frame pixels, y1 and x1 exclusive."""


def sample(image: np.ndarray, points: np.ndarray, *, cubic: bool = False) -> np.ndarray:
    """Look up an image at sub-pixel points, without resampling anything else.

    Args:
        image: (h, w) or (h, w, c), uint8 or float32.
        points: float32 (n, 2), x y; (0, 0) is the centre of the first pixel. Points outside get the
            nearest border pixel.
        cubic: cubic instead of linear, for colours: keeps detail.

    Returns:
        (n,) or (n, c), the image's dtype.
    """
    count, width = len(points), 512  # remap takes no side longer than 32767
    if count == 0:
        return np.zeros((0, *image.shape[2:]), image.dtype)
    rows = -(-count // width)
    grid: np.ndarray = np.zeros((2, rows * width), np.float32)
    grid[:, :count] = points.T
    xs, ys = grid.reshape(2, rows, width)
    method = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    found = cv2.remap(image, xs, ys, method, borderMode=cv2.BORDER_REPLICATE)
    return found.reshape(rows * width, *image.shape[2:])[:count]


@dataclass
class Shot:
    """One frame: whole until it has been painted, then only the part its neighbours look at."""

    index: int
    pixels: Frame
    hole: Mask
    grown: int = 0  # pixels by which the mask was grown into this hole
    corner: tuple[int, int] = (0, 0)  # x, y of the kept part in the frame
    beside: int = BESIDE  # pixels round the hole that are seen with doubt, and twice `grown` more

    def __post_init__(self) -> None:
        # Cubic sampling touches pixels up to two away, linear sampling of this map up to one.
        touched = cv2.dilate(self.hole.astype(np.uint8), np.ones((3, 3), np.uint8))
        beside = grow(self.hole, self.beside + 2 * self.grown)
        self.obstacles = touched * np.uint8(HIDDEN - BY_THE_OBJECT) + beside * np.uint8(
            BY_THE_OBJECT
        )

    @property
    def feather(self) -> int:
        """Pixels inside the hole's border over which the fill sets in; the object lies deeper."""
        return max(self.grown - SOFT_EDGE, 0) // 2

    def keep(self, region: Region) -> None:
        """Forget what lies outside the region."""
        y0, x0, y1, x1 = region
        self.pixels = self.pixels[y0:y1, x0:x1].copy()
        self.hole = self.hole[y0:y1, x0:x1].copy()
        self.obstacles = self.obstacles[y0:y1, x0:x1].copy()
        self.corner = (x0, y0)

    def view(self, points: np.ndarray) -> np.ndarray:
        """What the frame shows at points (n, 2), full-frame x y.

        Returns:
            uint8 (n,): 0 = the open background; up to BY_THE_OBJECT = next to the hole, where a
            contact shadow or motion blur may lie; above = the hole, or outside what is kept.
        """
        local = points - np.array(self.corner, np.float32)
        limit = np.array(self.hole.shape[::-1], np.float32) - 1
        inside = ((local >= 0) & (local <= limit)).all(axis=1)
        return np.where(inside, sample(self.obstacles, local), HIDDEN).astype(np.uint8)

    def colours(self, points: np.ndarray) -> np.ndarray:
        """Colours at points (n, 2), full-frame x y: float32 (n, 3)."""
        local = points - np.array(self.corner, np.float32)
        return sample(self.pixels, local, cubic=True).astype(np.float32)


@dataclass
class Layer:
    """One motion between frame i and frame i + 1, known everywhere on a step's region.

    Each way it is float32 (h, w, 3): the motion x, y, and by how much what is seen there moves
    otherwise (0 where nothing is known), all in full-frame pixels.
    """

    forward: np.ndarray  # i to i + 1
    backward: np.ndarray  # i + 1 to i


@dataclass
class Step:
    """How things move between frame i and frame i + 1, on a region round both holes."""

    region: Region
    back: Layer  # the background
    front: Layer | None = None  # what moves by itself, in front of it, if there is such a thing

    @property
    def cell(self) -> float:
        """Full-frame pixels per pixel of the flow."""
        return (self.region[3] - self.region[1]) / self.back.forward.shape[1]

    def move(
        self, points: np.ndarray, direction: int, layer: Layer
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Follow points to the neighbouring frame.

        Args:
            points: float32 (n, 2), full-frame x y, in frame i (direction 1) or i + 1 (-1).
            direction: 1 or -1.
            layer: with which motion: `back` or `front`.

        Returns:
            The points in the other frame; by how many full-frame pixels the way back misses the
            start, float32 (n,); and by how many what is seen there moves otherwise, float32 (n,).
        """
        there, back = (layer.forward, layer.backward)[::direction]
        shift = self._look_up(there, points)[:, :2]
        ends = points + shift
        found = self._look_up(back, ends)
        return ends, np.linalg.norm(shift + found[:, :2], axis=1), found[:, 2]

    def strangeness(self, points: np.ndarray, direction: int) -> np.ndarray:
        """By how much what is seen at points of the neighbouring frame moves otherwise than the
        background, float32 (n,), full-frame pixels."""
        return self._look_up((self.back.backward, self.back.forward)[::direction][0], points)[:, 2]

    def _look_up(self, flow: np.ndarray, points: np.ndarray) -> np.ndarray:
        y0, x0, y1, x1 = self.region
        size = np.array([x1 - x0, y1 - y0], np.float32)
        scale = np.array(flow.shape[1::-1], np.float32) / size
        return sample(flow, (points - np.array([x0, y0], np.float32) + 0.5) * scale - 0.5)


Measure = Callable[[Shot, Shot, Region], Step]


class Window:
    """Frames `past` back and as far ahead as asked for, of one clip."""

    def __init__(
        self,
        frames: FrameSource,
        masks: MaskSource,
        measure: Measure,
        *,
        dilate: int | None,
        first: int,
        beside: int = BESIDE,
    ) -> None:
        """Stand before frame `first`; nothing is read yet.

        Args:
            frames, masks: the clip.
            measure: finds the motion between two neighbours on a region.
            dilate: pixels to grow masks by; None = by the object's size.
            first: the first frame that will be needed.
            beside: see `Shot`.
        """
        self.shots: dict[int, Shot] = {}
        self.steps: dict[int, Step] = {}
        self._frames, self._masks, self._measure = frames, masks, measure
        self._dilate, self._beside = dilate, beside
        self._next = first
        self._cuts = CutDetector()
        self.size = (0, 0)  # height, width of the frames, once one was read

    def read_to(self, stop: int) -> None:
        """Read the frames up to `stop` (exclusive) and measure the motion between them.

        There is none where a new shot begins, so nothing is ever carried across.
        """
        for index in range(self._next, min(stop, len(self._frames))):
            shot = self._read(index)
            before = self.shots.get(index - 1)
            cut = self._cuts.is_cut(shot.pixels)
            if before is not None and not cut and (before.hole.any() or shot.hole.any()):
                region = surroundings(before.hole | shot.hole)
                self.steps[index - 1] = self._measure(before, shot, region)
            self.shots[index] = shot
            self._next = index + 1

    def release(self, index: int, *, past: int) -> None:
        """Frame `index` is done: keep only what later frames may look at."""
        shot = self.shots[index]
        steps = [self.steps[i] for i in (index - 1, index) if i in self.steps]
        regions = [step.region for step in steps]
        if regions:
            ys0, xs0, ys1, xs1 = zip(*regions, strict=True)
            shot.keep((min(ys0), min(xs0), max(ys1), max(xs1)))
        else:
            shot.keep((0, 0, 1, 1))
        for old in [i for i in self.shots if i <= index - past]:
            del self.shots[old]
            self.steps.pop(old - 1, None)

    def nearest_view(self, index: int) -> Shot:
        """The frame nearest in time, wherever it is, that shows anything.

        Raises:
            InputError: There is none.
        """
        for other in sorted(range(len(self._masks)), key=lambda i: abs(i - index)):
            if not np.asarray(self._masks[other], bool).all():
                shot = self._read(other)
                if not shot.hole.all():
                    return shot
        raise InputError(
            "Every mask covers its whole frame, so there is nothing to paint from; give masks that "
            "cover the object only."
        )

    def _read(self, index: int) -> Shot:
        frame, mask = self._frames[index], np.asarray(self._masks[index], bool)
        check_mask(mask, frame, index)
        self.size = mask.shape
        return Shot(index, frame, *hole_of(mask, self._dilate), beside=self._beside)


def surroundings(hole: Mask) -> Region:
    """The hole's bounding box with half its size, at least 64 pixels, on every side."""
    ys, xs = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    margin_y, margin_x = max(64, len(ys) // 2), max(64, len(xs) // 2)
    return (
        max(int(ys[0]) - margin_y, 0),
        max(int(xs[0]) - margin_x, 0),
        min(int(ys[-1]) + 1 + margin_y, hole.shape[0]),
        min(int(xs[-1]) + 1 + margin_x, hole.shape[1]),
    )
