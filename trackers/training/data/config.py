"""What a training run sees: which pictures, which frames of them, and how they are changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from checkpoints.training.recipes import (
    Count,
    Natural,
    NotNegative,
    Positive,
    Range,
    Share,
    check_ranges,
)
from media import InputError

Sampler = Literal["causal", "trident_pro"]
Pipeline = Literal["loader", "device"]


@dataclass(frozen=True)
class SourceConfig:
    """One place that samples come from.

    Attributes:
        kind: stills, tracks or clips for packed shards (of clips, regions followed by flow), coco,
            or a name of `list_datasets()`.
        path: its folder.
        weight: how often it is drawn, in proportion to the other sources.
        split: a split of the data set, None for train (or all, if it has none); of shards train,
            val (a twentieth of the videos or pictures, always the same ones), or None for all.
        sequences: a text file that names the sequences of the data set to use, one per line.
        emphasis: how often an item is drawn whose name (of a track: of its video) matches a pattern
            such as `foda_*`, in proportion to one that matches none; the first match counts.
        min_side: objects narrower or lower than this, in pixels, are not used; tracks by the median
            of their frames (packed shards and coco).
    """

    kind: str
    path: str
    weight: Positive = 1.0
    split: str | None = None
    sequences: str | None = None
    emphasis: Mapping[str, NotNegative] = field(default_factory=dict)
    min_side: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Deformation:
    """Stronger changes than the papers', for few or still pictures; every default is none.

    Attributes:
        stretch: deviation of the logarithm by which a crop becomes wider and lower, or the reverse.
        turn: largest rotation, in degrees.
        contrast: crops get a contrast between 1 - contrast and 1 + contrast about middle grey.
        saturation: the same for the strength of colours.
        blur: share of crops that are blurred, along each axis by its own amount, as motion does.
        blur_sigma: largest deviation of the blur, in crop pixels; at most 3.
        erase: share of search crops in which a rectangle is grey, as behind a post.
    """

    stretch: NotNegative = 0.0
    turn: Annotated[float, Range(least=0, most=90)] = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    blur: Share = 0.0
    blur_sigma: Annotated[float, Range(least=0, most=3)] = 2.0
    erase: Share = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DataConfig:
    """Samples of a training run; the defaults are those of MixFormerV2-S.

    Source: MixFormerV2 paper, section 4.1, and MCG-NJU/MixFormerV2 @ 10414383. GRM's are one
    template, search factor 4, size 256, jitter 3 and .25.

    Attributes:
        sources: where samples come from.
        sampler: causal for boxes; trident_pro, with samples that hold no target, for scores.
        max_gap: largest distance in frames from the first template to the other two pictures.
        templates: 2, or 1 for a tracker without an online template.
        template_factor: side of the template crop in multiples of the object's; search_factor too.
        template_size: side of the template crop in pixels; search_size too.
        template_center_jitter: the crop's centre moves by up to half of this times the object's
            side; template_scale_jitter is the deviation of the logarithm of width and of height.
        grayscale: share of samples without colour.
        flip: share of samples mirrored as a whole.
        crop_flip: share of crops mirrored, each by itself.
        brightness: crops get between 1 - brightness and 1 + brightness times as bright.
        positive_share: share of trident_pro's samples that hold the target.
        deformation: stronger changes.
        pipeline: loader cuts crops in worker processes; device cuts them where the network runs.
        workers: processes that prepare batches; 0 for none.
        resident_gb: the device pipeline keeps packed shards decoded on the device if together they
            take no more than this.
    """

    sources: tuple[SourceConfig, ...]
    sampler: Sampler = "causal"
    max_gap: Count = 200
    templates: Annotated[int, Range(least=1, most=2)] = 2
    template_factor: Positive = 2.0
    search_factor: Positive = 4.5
    template_size: Count = 112
    search_size: Count = 224
    template_center_jitter: NotNegative = 0.0
    template_scale_jitter: NotNegative = 0.0
    search_center_jitter: NotNegative = 4.5
    search_scale_jitter: NotNegative = 0.5
    grayscale: Share = 0.05
    flip: Share = 0.5
    crop_flip: Share = 0.5
    brightness: Share = 0.2
    positive_share: Share = 0.5
    deformation: Deformation = field(default_factory=Deformation)
    pipeline: Pipeline = "loader"
    workers: Natural = 0
    resident_gb: NotNegative = 60.0

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError("The training data name no source: give at least one.")
        if self.sampler not in get_args(Sampler) or self.pipeline not in get_args(Pipeline):
            raise InputError(
                f"There is no sampler {self.sampler!r} or no pipeline {self.pipeline!r}; there are "
                f"{', '.join(get_args(Sampler))} and {', '.join(get_args(Pipeline))}."
            )
        check_ranges(self)
