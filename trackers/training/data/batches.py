"""Batches without end, the same ones for one process as for several, and after a resume."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
import torch

from checkpoints.training.streaming import stream
from media import InputError
from media.device import resolve_device
from trackers.training.data.config import DataConfig
from trackers.training.data.decoding import decode_on
from trackers.training.data.pixels import cut_batch, finish
from trackers.training.data.preparing import Carried, Prepared, Preparer
from trackers.training.data.resident import plan_residence
from trackers.training.data.sources import Packed, open_sources

_log = logging.getLogger(__name__)
_HOST_BYTES = 1e9  # decoded pictures that are kept when the device is the CPU, at most


@dataclass
class Batch:
    """b samples for a network.

    Attributes:
        template: (b, 3, z, z) float32, normalised.
        online_template: the same; with one template, `template` itself.
        search: (b, 3, x, x) float32, normalised.
        boxes_xywh: (b, 4) float32: left, top, width, height as shares of the search crop, as
            `SquareCrop.to_crop` gives them; may reach out of the crop.
        labels: (b,) float32: 1 if the search crop holds the target, else 0.
    """

    template: torch.Tensor
    online_template: torch.Tensor
    search: torch.Tensor
    boxes_xywh: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on the device."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """The batches of a run, one per step.

    Sample k of step s is a function of (config, seed, s, k) alone, so that n processes with a share
    of the batch each see what one would, and a run that begins at `start_step` what an unbroken one
    sees from there. A file that cannot be used is left out, logged once, and counted in `skipped`.

    Args:
        config: what to draw and how.
        seed: of all chance.
        batch_size: samples per step, of all processes together.
        rank: number of this process, of `world`.
        world: how many processes share a batch; `batch_size` is a multiple of it.
        device: where batches end up; the device pipeline works there.
        start_step: number of the first batch.
        training: False leaves out the changes that validation does not make.

    Raises:
        InputError: the data cannot be used; says why in one sentence.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        device: str | torch.device = "cpu",
        start_step: int = 0,
        training: bool = True,
    ) -> None:
        if batch_size % world:
            raise InputError(f"A batch of {batch_size} cannot be shared by {world} processes.")
        self.device = resolve_device(device)
        self.sources = open_sources(config)
        self.skipped: Counter[str] = Counter()
        self._config, self._start = config, start_step
        weights = np.cumsum([source.weight for source in config.sources])
        carried: Carried = "crops"
        resident, self._pixels = None, None
        if config.pipeline == "device":
            host = self.device.type == "cpu"
            most = min(config.resident_gb * 1e9, _HOST_BYTES if host else np.inf)
            resident = plan_residence(self.sources, most)
            # Workers decode what a GPU cannot; nvJPEG decodes JPEG.
            carried = "files" if self.device.type == "cuda" else "pixels"
            if resident is not None:
                carried = "nothing"
                packed = cast("list[Packed]", self.sources)
                self._pixels = resident.load(packed, self.device)
        share = batch_size // world
        self._preparer = Preparer(
            self.sources,
            weights / weights[-1],
            config,
            seed=seed,
            numbers=range(rank * share, (rank + 1) * share),
            training=training,
            carried=carried,
            resident=resident,
        )

    def __iter__(self) -> Iterator[Batch]:
        made = stream(
            self._preparer,
            start=self._start,
            workers=self._config.workers,
            pin_memory=self.device.type == "cuda",
        )
        for prepared in made:
            yield self._complete(prepared)

    def _complete(self, prepared: Prepared) -> Batch:
        pixels, bases = self._pixels, None
        if prepared.pictures:
            pixels, bases = decode_on(self.device, prepared.pictures, prepared.problems)
        for problem in prepared.problems:
            if problem not in self.skipped:
                _log.warning("%s It is left out.", problem)
            self.skipped[problem] += 1
        prepared = prepared.to(self.device)
        made = {}
        for role, tensors in prepared.roles.items():
            if "crops" in tensors:
                crops = tensors["crops"]
            else:
                assert pixels is not None
                if bases is not None:
                    tensors["base"] = bases[tensors["picture"]]
                size = self._config.search_size if role == "search" else self._config.template_size
                crops = cut_batch(pixels, tensors, size)
            made[role] = finish(crops, tensors)
        return Batch(
            made["template"],
            made.get("online", made["template"]),
            made["search"],
            prepared.boxes_xywh,
            prepared.labels,
        )
