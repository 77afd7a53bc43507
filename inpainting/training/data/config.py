"""What a training run sees: which clips, which of their frames, and where the holes are."""

from __future__ import annotations

from dataclasses import dataclass, field

from media import InputError


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

    still: float = 0.5
    speed: tuple[float, float] = (1.0, 3.0)
    acceleration: float = 1.5
    sides: tuple[float, float] = (1 / 3, 1.0)
    objects: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.still <= 1 and 0 <= self.objects <= 1):
            raise InputError("still and objects are shares between 0 and 1.")
        if not 0 < self.sides[0] <= self.sides[1] <= 1 or not 0 <= self.speed[0] <= self.speed[1]:
            raise InputError("sides are two shares above 0, and speed two numbers, in order.")


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
    size: tuple[int, int] = (240, 432)
    local: int = 5
    references: int = 3
    flip: float = 0.5
    crop: float | None = None
    reverse: float = 0.0
    holes: HoleConfig = field(default_factory=HoleConfig)
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.clips:
            raise InputError("There is nothing to train on: name folders of clips with --data.")
        if self.local < 2 or self.references < 0:
            raise InputError("A sample has at least 2 local frames, and 0 or more references.")
        if min(self.size) < 16:
            raise InputError(f"Samples of {self.size[1]}x{self.size[0]} pixels are too small.")
        if not (0 <= self.flip <= 1 and 0 <= self.reverse <= 1):
            raise InputError("flip and reverse are shares between 0 and 1.")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InputError("crop is a share above 0, up to 1, or null.")

    @property
    def frames(self) -> int:
        """Of a sample."""
        return self.local + self.references
