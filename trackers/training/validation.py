"""How good is it? On held-out pairs and by tracking sequences, while it trains and at the end."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from checkpoints.training.processes import Place
from media import InputError
from trackers.boxes import box_iou
from trackers.training.config import Recipe, read
from trackers.training.data import PACKED, Batches, DataConfig, SourceConfig, open_sources
from trackers.training.losses import target_corners
from trackers.training.objectives import answer, corners

if TYPE_CHECKING:
    from trackers.datasets import Dataset, Sequence

_log = logging.getLogger(__name__)
_SEED = 2026  # of the pairs: the same ones for every run with the same data


def held_out_data(recipe: Recipe) -> DataConfig | None:
    """The data of the recipe, but of what is never trained on; None if there is nothing."""
    chosen = []
    for source in recipe.data.sources:
        if source.kind in recipe.validation.sources:
            changes = {"weight": 1.0, **recipe.validation.sources[source.kind]}
            merged = {**asdict(source), **changes}
            chosen.append(read(SourceConfig, merged, f"validation.sources.{source.kind}"))
        elif not recipe.validation.sources and source.kind in PACKED and source.split == "train":
            chosen.append(replace(source, split="val"))
    return replace(recipe.data, sources=tuple(chosen)) if chosen else None


def _what_there_is(data: DataConfig) -> DataConfig | None:
    """Without sources of so few videos that none of them is held out: nobody asked for these."""
    found = []
    for source in data.sources:
        try:
            open_sources(replace(data, sources=(source,)))
            found.append(source)
        except InputError as error:
            _log.warning("Nothing is held out of %s: %s", source.path, error)
    return replace(data, sources=tuple(found)) if found else None


class HeldOut:
    """Pairs that are not trained on, always the same ones.

    Args:
        recipe: its data and validation.
        place: each process takes its share.
    """

    def __init__(self, recipe: Recipe, place: Place) -> None:
        self._place, self._bf16 = place, recipe.engine.bf16
        data = held_out_data(recipe) if recipe.validation.samples else None
        if data is not None and not recipe.validation.sources:
            data = _what_there_is(data)
        self.batches, self._steps = None, 0
        if data is None:
            if recipe.validation.samples and place.leads:
                _log.warning("Nothing is held out: validation.sources says what should be.")
            return
        batch = min(recipe.schedule.batch_size, recipe.validation.samples)
        batch -= batch % place.world
        self._steps = max(1, recipe.validation.samples // max(1, batch))
        self.batches = Batches(
            data,
            seed=_SEED,
            batch_size=max(batch, place.world),
            rank=place.rank,
            world=place.world,
            device=place.device,
            training=False,
        )

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Mean IoU and share of IoU above one half, of pairs with a target; accuracy of the score.

        Nothing if there are no pairs.
        """
        if self.batches is None:
            return {}
        was_training = network.training
        network.eval()
        sums = torch.zeros(5, dtype=torch.float64)  # on the CPU: Apple's GPUs have no float64
        for _, batch in zip(range(self._steps), self.batches, strict=False):
            with torch.autocast(self._place.device.type, torch.bfloat16, enabled=self._bf16):
                found: Any = answer(network, batch)
            iou = box_iou(corners(found), target_corners(batch.boxes_xywh))
            shown = batch.labels > 0
            right = torch.zeros_like(shown)
            if getattr(found, "scores", None) is not None:
                right = (found.scores > 0) == shown
            sums += torch.stack(
                [
                    (iou * shown).sum(),
                    ((iou > 0.5) & shown).sum(),
                    shown.sum(),
                    right.sum(),
                    torch.tensor(float(len(batch)), device=iou.device),
                ]
            ).cpu()
        network.train(was_training)
        iou, half, shown, right, total = self._place.mean(sums).tolist()
        figures = {
            "held_out_iou": iou / max(shown, 1e-9),
            "held_out_iou50": half / max(shown, 1e-9),
        }
        if getattr(network, "score_head", None) is not None:
            figures["held_out_score"] = right / total
        return figures


def parse_sequences(text: str) -> tuple[str, Path]:
    """Kind and folder of sequences, given as KIND=PATH, or as the path of a folder of them."""
    kind, equals, path = text.partition("=")
    return (kind, Path(path)) if equals else ("folder", Path(text))


def open_sequences(kind: str, root: Path) -> Dataset:
    """A data set to follow: its `val` part if there is one, else what results are published on.

    Raises:
        InputError: it cannot be opened, nobody but a server knows its boxes, or OpenCV, which reads
            frames, is not there.
    """
    from trackers.datasets import dataset_class, open_dataset

    try:
        import cv2  # noqa: F401
    except ImportError:
        raise InputError(
            "Following sequences takes OpenCV: pip install opencv-contrib-python-headless."
        ) from None
    data = open_dataset(kind, root, split="val" if "val" in dataset_class(kind).splits else None)
    if data.hidden:
        raise InputError(
            f"Only the server of {data.title} knows the boxes of its {data.split} split, so that "
            "nothing can be measured on it here: evaluate on another data set."
        )
    return data


def follow_all(
    network: nn.Module, recipe: Recipe, data: Dataset, frames: int | None = None
) -> dict[str, dict[str, float]]:
    """Track the sequences of a data set with the network, by the published protocol.

    One that cannot be read is named and left out.

    Args:
        network: goes to eval mode and stays there.
        recipe: its crop factors.
        data: see `open_sequences`.
        frames: how many of each sequence; None: all.

    Returns:
        Per sequence, and for "mean", what `trackers.evaluation` reports on such a data set.

    Raises:
        InputError: none of them can be read.
    """
    # Late: evaluation reads frames with OpenCV, which training does without.
    from checkpoints import WeightsRecord
    from trackers.evaluation.metrics import columns, score
    from trackers.evaluation.run import follow
    from trackers.models.grm import GRM, GRMTracker
    from trackers.models.mixformerv2 import MixFormerV2Tracker
    from trackers.models.mixvit import MixViT, MixViTTracker

    make: Any = MixFormerV2Tracker
    if isinstance(network, (GRM, MixViT)):
        make = GRMTracker if isinstance(network, GRM) else MixViTTracker
    network.eval()
    tracker = make(
        network,
        weights=WeightsRecord.of_tensors(network.state_dict()),
        mode="benchmark",
        search_factor=recipe.data.search_factor,
    )
    tracker.template_factor = recipe.data.template_factor
    table = {}
    for name in data.names:
        try:
            sequence = _first_frames(data[name], frames)
            boxes, _ = follow(tracker, sequence)
        except (InputError, OSError) as error:
            _log.warning("The sequence %s is left out: %s", name, error)
            continue
        table[name] = columns(score(boxes, sequence, data.scoring), data.scoring)
    if not table:
        raise InputError(f"None of the sequences of {data.title} in {data.root} can be tracked.")
    titles = next(iter(table.values()))
    table["mean"] = {t: float(np.mean([row[t] for row in table.values()])) for t in titles}
    return table


def _first_frames(sequence: Sequence, frames: int | None) -> Sequence:
    if frames is None:
        return sequence
    return replace(
        sequence,
        frames=sequence.frames[:frames],
        boxes_xywh=sequence.boxes_xywh[:frames],
        shown=None if sequence.shown is None else sequence.shown[:frames],
    )


def follow_sequences(
    network: nn.Module, recipe: Recipe, root: Path, kind: str = "folder", frames: int | None = None
) -> dict[str, dict[str, float]]:
    """`follow_all` of what `open_sequences` finds there."""
    return follow_all(network, recipe, open_sequences(kind, root), frames)
