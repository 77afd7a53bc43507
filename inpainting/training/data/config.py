"""What a training run sees: which clips, which of their frames, and where the holes are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from checkpoints.training.recipes import Natural, NotNegative, Range, Share, check_ranges
from media import InputError

_Part = Annotated[float, Range(above=0, most=1)]
_Side = Annotated[int, Range(least=16)]


@dataclass(frozen=True)
class HoleConfig:
    """The holes; the defaults are E2FGVI's (MCG-NKU/E2FGVI @ 709cbe3).

    Attributes:
        still: share of samples whose hole stays where it is.
        speed: smallest and largest speed at the start, in pixels per frame at a height of 240.
        acceleration: deviation of the change of the speed from frame to frame, in the same unit.
        sides: smallest and largest share of the frame's height, and of its width, that a shape is
            stretched to.
        objects: share of holes with the shape of objects, if there are folders of such masks.
    """

    still: Share = 0.5
    speed: tuple[NotNegative, NotNegative] = (1.0, 3.0)
    acceleration: NotNegative = 1.5
    sides: tuple[_Part, _Part] = (1 / 3, 1.0)
    objects: Share = 0.5

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.sides[0] > self.sides[1] or self.speed[0] > self.speed[1]:
            raise InputError("sides and speed are the smallest and the largest, in this order.")


@dataclass(frozen=True)
class DataConfig:
    """Samples of a training run; the defaults are E2FGVI's.

    Attributes:
        clips: folders, each of packed shards or of folders of frames, however deep.
        objects: folders of folders of masks, such as those of DAVIS; what is not black is the
            object.
        size: (height, width) of the samples, one that the network works at.
        local: consecutive frames of a sample.
        references: other frames of the clip, at any distance.
        flip: share of samples that are mirrored.
        crop: smallest share of the largest part of a frame with the samples' proportions that is
            cut out and resized; None: the whole frame, squeezed, as published.
        reverse: share of samples that run backwards in time.
        holes: where it has to paint.
        workers: processes that prepare batches; 0: none.
    """

    clips: tuple[str, ...]
    objects: tuple[str, ...] = ()
    size: tuple[_Side, _Side] = (240, 432)
    local: Annotated[int, Range(least=2)] = 5
    references: Natural = 3
    flip: Share = 0.5
    crop: _Part | None = None
    reverse: Share = 0.0
    holes: HoleConfig = field(default_factory=HoleConfig)
    workers: Natural = 0

    def __post_init__(self) -> None:
        if not self.clips:
            raise InputError("There is nothing to train on: name folders of clips with --data.")
        check_ranges(self)

    @property
    def frames(self) -> int:
        """Of a sample."""
        return self.local + self.references
