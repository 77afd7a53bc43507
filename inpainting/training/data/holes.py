"""Holes that move through a clip: free forms, and the shapes of objects.

The free forms and their motion are those E2FGVI is trained with (MCG-NKU/E2FGVI @ 709cbe3, there
drawn with matplotlib), but that places are rounded in the end and not in every frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from checkpoints.training.pictures import decode
from inpainting.training.data.clips import Clip
from inpainting.training.data.config import HoleConfig

_CURVE = 12  # points by which a piece of a curve is drawn
_HEIGHT = 240  # of the frames that speeds are meant for


def free_form(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw a closed smooth curve, filled.

    Args:
        rng: of all chance.
        size: (height, width) to which it is stretched with a margin.

    Returns:
        bool (h, w), no larger than `size`: the shape in its bounding box.
    """
    pieces = int(rng.integers(6, 9))
    ratio = float(rng.choice((0.6, 0.7, 0.8)))
    points = 3 * pieces + 1
    angles = np.linspace(0, 2 * np.pi, points)
    radius = 2 * ratio * rng.random(points) + 1 - ratio
    radius[-1] = radius[0]
    corners = np.stack((np.cos(angles), np.sin(angles)), axis=1) * radius[:, None]
    t = np.linspace(0, 1, _CURVE, endpoint=False)[:, None]
    curve = np.concatenate(
        [
            (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
            for a, b, c, d in (corners[i : i + 4] for i in range(0, points - 1, 3))
        ]
    )
    low, high = corners.min(axis=0) * 1.1, corners.max(axis=0) * 1.1
    height, width = size
    scaled = (curve - low) / (high - low) * (width - 1, height - 1)
    picture = Image.new("1", (width, height))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in scaled.tolist()], fill=1)
    return _cut_out(np.asarray(picture))


def _cut_out(shape: np.ndarray) -> np.ndarray:
    ys, xs = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    return shape[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def walk(
    rng: np.random.Generator,
    shape: tuple[int, int],
    frame: tuple[int, int],
    steps: int,
    config: HoleConfig,
) -> np.ndarray:
    """Where a shape is in each of `steps` frames: its velocity changes a little all the time.

    Args:
        rng: of all chance.
        shape: (height, width) of what moves.
        frame: (height, width) of where it moves; at least as large.
        steps: how many frames.
        config: whether and how fast.

    Returns:
        int (steps, 2): y, x of the shape's upper left corner; all of it is in the frame.
    """
    most = np.array(frame) - shape
    place = rng.random(2) * most
    if rng.random() < config.still:
        return np.tile(np.round(place).astype(int), (steps, 1))
    scale = frame[0] / _HEIGHT
    speed, angle = rng.uniform(*config.speed), rng.uniform(0, 2 * np.pi)
    places = np.empty((steps, 2))
    for index in range(steps):
        places[index] = place
        place = place + scale * speed * np.array((np.sin(angle), np.cos(angle)))
        if ((place < 0) | (place > most)).any():  # at the border it turns
            place = np.clip(place, 0, most)
            speed, angle = abs(rng.normal(0, 1.5)), rng.uniform(0, 2 * np.pi)
        speed += rng.normal(0, config.acceleration)
        angle += rng.normal(0, 0.25)
    return np.round(places).astype(int)


def draw_holes(
    rng: np.random.Generator,
    times: Sequence[int],
    size: tuple[int, int],
    config: HoleConfig,
    objects: Sequence[Clip] = (),
) -> np.ndarray:
    """One shape on its way, at some frames of a clip.

    Args:
        rng: of all chance.
        times: numbers of the frames.
        size: (height, width) of the frames.
        config: what kind of holes.
        objects: sequences of masks, for shapes of objects.

    Returns:
        bool (t, h, w).

    Raises:
        InputError: a mask is damaged.
    """
    low, high = config.sides
    sides = [int(rng.integers(max(2, round(s * low)), max(3, round(s * high)))) for s in size]
    if objects and rng.random() < config.objects:
        shapes = _object(rng, times, sides, objects[int(rng.integers(len(objects)))])
    else:
        shapes = [free_form(rng, (sides[0], sides[1]))] * len(times)
    height, width = shapes[0].shape
    places = walk(rng, (height, width), size, max(times) + 1, config)
    holes = np.zeros((len(times), *size), bool)
    for hole, shape, time in zip(holes, shapes, times, strict=True):
        y, x = places[time]
        hole[y : y + height, x : x + width] = shape
    return holes


def _object(
    rng: np.random.Generator, times: Sequence[int], sides: Sequence[int], clip: Clip
) -> list[np.ndarray]:
    """An object's masks from a frame drawn by chance on, forth and back if the clip is short.

    All are cut to the box that holds them, and fitted into `sides` without changing proportions.
    """
    first, count = int(rng.integers(len(clip.frames))), len(clip.frames)
    found: dict[int, np.ndarray] = {}
    order = []
    for time in times:
        step = (first + time) % max(2 * count - 2, 1)
        index = min(step, 2 * count - 2 - step) if count > 1 else 0
        if index not in found:
            picture = decode(clip.encoded(index), clip.describe(index))
            found[index] = np.asarray(picture).max(axis=2) > 0
        order.append(index)
    whole: np.ndarray = np.logical_or.reduce(list(found.values()))
    if not whole.any():
        return [free_form(rng, (sides[0], sides[1]))] * len(times)
    ys, xs = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
    scale = min(sides[0] / (box[3] - box[1]), sides[1] / (box[2] - box[0]))
    size = (max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale)))
    shapes = {
        index: np.asarray(
            Image.fromarray(mask).resize(size, Image.Resampling.NEAREST, box=box), dtype=bool
        )
        for index, mask in found.items()
    }
    return [shapes[index] for index in order]
