"""Which frames become a sample: two samplers, each a pure function of its arguments.

Source: MCG-NJU/MixFormerV2 @ 10414383, the training sampler's modes "causal" and "trident_pro".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trackers.training.data.config import DataConfig
from trackers.training.data.sources import Source

_TRIES = 100  # draws from one video before it is given up


class Unusable(Exception):
    """What was drawn makes no sample; draw again. Not an error of anybody."""


@dataclass(frozen=True)
class Shot:
    """One picture of a sample.

    Attributes:
        source: position in the list of sources; `item` in that source, `frame` in that item.
        box_xywh: (4,) the object, in pixels; None where it is absent and a box in the middle of the
            picture stands in, an eighth as wide and high.
    """

    source: int
    item: int
    frame: int
    box_xywh: np.ndarray | None


@dataclass(frozen=True)
class Pick:
    """Three pictures and whether the last one holds the target of the first (1) or not (0)."""

    template: Shot
    online: Shot
    search: Shot
    label: float = 1.0


def pick(
    sources: Sequence[Source], chances: np.ndarray, config: DataConfig, rng: np.random.Generator
) -> Pick:
    """Draw the frames of one sample.

    Args:
        sources: where from.
        chances: (len(sources),) cumulative, up to 1.
        config: its sampler, max_gap and positive_share.
        rng: the only source of chance.

    Raises:
        Unusable: this draw led to nothing.
        InputError: the labels of what was drawn cannot be read.
    """
    first, item = _choose(sources, chances, rng)
    source = sources[first]

    def shot(frame: int) -> Shot:
        return Shot(first, item, frame, source.info(item).boxes_xywh[frame])

    if not source.is_video:
        picture = shot(0)
        if config.sampler == "causal" or rng.random() < config.positive_share:
            return Pick(picture, picture, picture)
        return Pick(picture, picture, _other(sources, chances, (first, item), rng), 0.0)

    info = source.info(item)
    if not info.is_enough:
        raise Unusable
    frames = info.visible_frames
    if config.sampler == "causal":
        later, earlier, search = causal(frames, len(info.visible), config.max_gap, rng)
        # The first template is the later one, as upstream.
        return Pick(shot(later), shot(earlier), shot(search))
    template, online, search = trident_pro(frames, len(info.visible), config.max_gap, rng)
    if rng.random() < config.positive_share:
        return Pick(shot(template), shot(online), shot(search))
    if len(info.absent_frames):
        nothing = Shot(first, item, int(rng.choice(info.absent_frames)), None)
    else:
        nothing = _other(sources, chances, (first, item), rng)
    return Pick(shot(template), shot(online), nothing, 0.0)


def causal(
    visible: np.ndarray, length: int, max_gap: int, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Draw a base frame, one before it and one after it, all visible.

    Args:
        visible: ascending numbers of the frames in which the object is visible.
        length: of the video, in frames.
        max_gap: largest distance to the base frame; it grows by 5 with every failure.
        rng: the only source of chance.

    Returns:
        base, earlier and later frame.

    Raises:
        Unusable: there are no such frames.
    """
    for gap in range(max_gap, max_gap + 5 * _TRIES, 5):
        base = _between(visible, 1, length - 1, rng)
        earlier = None if base is None else _between(visible, base - gap, base, rng)
        later = None if base is None else _between(visible, base + 1, base + gap, rng)
        if base is not None and earlier is not None and later is not None:
            return base, earlier, later
    raise Unusable


def trident_pro(
    visible: np.ndarray, length: int, max_gap: int, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Draw a template, an online template on the template's side of the search frame, and that.

    Args:
        visible: ascending numbers of the frames in which the object is visible.
        length: of the video, in frames.
        max_gap: the online template is less than this away from the search frame; it may be a frame
            in which the object is absent.
        rng: the only source of chance.

    Returns:
        template, online template and search frame.

    Raises:
        Unusable: there are no such frames.
    """
    if not len(visible):
        raise Unusable
    template, search = (int(frame) for frame in rng.choice(visible, 2))
    if template >= search:
        low, high = search, min(search + max_gap, length)
    else:
        low, high = max(search - max_gap, 0), search
    return template, int(rng.integers(low, high)), search


def _between(visible: np.ndarray, low: int, high: int, rng: np.random.Generator) -> int | None:
    """A visible frame of [low, high), None if there is none."""
    first, last = np.searchsorted(visible, (low, high))
    return int(visible[rng.integers(first, last)]) if first < last else None


def _choose(
    sources: Sequence[Source], chances: np.ndarray, rng: np.random.Generator
) -> tuple[int, int]:
    number = int(np.searchsorted(chances, rng.random(), side="right"))
    return number, sources[number].choose(rng)


def _other(
    sources: Sequence[Source],
    chances: np.ndarray,
    target: tuple[int, int],
    rng: np.random.Generator,
) -> Shot:
    """Any object anywhere, with its own box; upstream does not rule out that it is the target."""
    number, item = _choose(sources, chances, rng)
    source = sources[number]
    if number == target[0] and source.group(item) == source.group(target[1]):
        raise Unusable
    boxes = source.info(item).boxes_xywh
    frame = int(rng.integers(len(boxes)))
    return Shot(number, item, frame, boxes[frame])
