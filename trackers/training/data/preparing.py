"""From a step's number to its samples: drawn, read and planned, on the CPU, in any process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from checkpoints.training.pictures import decode, size_of
from media import InputError
from trackers.training.data.augment import Plan, View, plan
from trackers.training.data.config import DataConfig
from trackers.training.data.pixels import cut, looks, places
from trackers.training.data.resident import Resident
from trackers.training.data.sampling import Shot, Unusable, pick
from trackers.training.data.sources import Source

# What the batch carries: crops made here; pictures for the device to cut; or, where the device
# holds all pictures, nothing but places in them. "files" are JPEGs for the device to decode.
Carried = Literal["crops", "pixels", "files", "nothing"]
_TRIES = 200  # draws for one sample, after which the data are held to be unusable
_JPEG = b"\xff\xd8\xff"


@dataclass
class Prepared:
    """A batch that lacks what is computed on the device.

    Attributes:
        roles: for template, online (if there are two templates) and search what `finish` needs, and
            crops (b, 3, size, size) uint8 or what `cut_batch` needs, with the number of the picture
            in `picture` (b,) in place of `base` if the batch carries pictures.
        pictures: those: `files` (bytes,) uint8 end to end, `lengths` (j,) bytes of each, `pixels`
            (m, 3) uint8 of those that are decoded already, and `sizes` of all, files first.
        boxes_xywh: (b, 4) float32.
        labels: (b,) float32.
        problems: a sentence for each file that could not be used.
    """

    roles: dict[str, dict[str, torch.Tensor]]
    pictures: dict[str, torch.Tensor]
    boxes_xywh: torch.Tensor
    labels: torch.Tensor
    problems: list[str]

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Prepared:
        return Prepared(
            {role: {k: change(v) for k, v in found.items()} for role, found in self.roles.items()},
            {k: change(v) for k, v in self.pictures.items()},
            change(self.boxes_xywh),
            change(self.labels),
            self.problems,
        )

    def pin_memory(self) -> Prepared:
        """What the loader calls so that copies to a GPU do not wait."""
        return self._each(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> Prepared:
        """The same on the device, pictures left where they are: `decode_on` takes them there."""
        bare = replace(self, pictures={})
        moved = bare._each(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, pictures=self.pictures)


class Preparer(Dataset[Prepared]):
    """Item s is this process's part of the batch of step s: a pure function of the arguments.

    Args:
        sources: where samples come from; `chances` (n,) of each, cumulative.
        config: how they are drawn and changed.
        seed: of all chance.
        numbers: which samples of each step's batch.
        training: whether crops are changed as in training, or as in validation.
        carried: what the batches carry.
        resident: the pictures on the device, if that holds all.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        chances: np.ndarray,
        config: DataConfig,
        *,
        seed: int,
        numbers: range,
        training: bool,
        carried: Carried,
        resident: Resident | None,
    ) -> None:
        self._sources, self._chances, self._config = sources, chances, config
        self._seed, self._numbers, self._training = seed, numbers, training
        self._carried, self._resident = carried, resident

    def __getitem__(self, step: int) -> Prepared:
        """Prepare step `step`. Raises InputError if no draw leads to a sample."""
        problems: list[str] = []
        found = [self._sample(step, number, problems) for number in self._numbers]
        plans = [plan for plan, _ in found]
        contents: dict[int, Any] = {}  # the pictures carried, each once, by identity
        roles = {}
        for i, role in enumerate(("template", "online", "search")):
            if role == "online" and self._config.templates == 1:
                continue
            views: list[View] = [getattr(plan, role) for plan in plans]
            pictures = [pictures[i] for _, pictures in found]
            roles[role] = looks(views)
            if self._carried == "crops":
                crops = [cut(view, p.content) for view, p in zip(views, pictures, strict=True)]
                roles[role]["crops"] = torch.stack(crops)
                continue
            roles[role].update(places(views, [picture.size for picture in pictures]))
            if self._carried == "nothing":
                roles[role]["base"] = torch.tensor([picture.content for picture in pictures])
                continue
            for picture in pictures:
                contents.setdefault(id(picture), picture)
            roles[role]["picture"] = torch.tensor([id(picture) for picture in pictures])
        carried = {}
        if contents:
            # Files first; the identities become positions in this order.
            order = sorted(contents.values(), key=lambda p: not isinstance(p.content, bytes))
            positions = {id(picture): i for i, picture in enumerate(order)}
            for tensors in roles.values():
                numbers = [positions[i] for i in tensors["picture"].tolist()]
                tensors["picture"] = torch.tensor(numbers)
            carried = _join(order)
        return Prepared(
            roles,
            carried,
            torch.tensor([plan.box_xywh for plan in plans], dtype=torch.float32),
            torch.tensor([plan.label for plan in plans], dtype=torch.float32),
            problems,
        )

    def _sample(self, step: int, number: int, problems: list[str]) -> tuple[Plan, list[Picture]]:
        """One sample: the first draw that leads to one, files that cannot be used left out."""
        rng = np.random.default_rng((self._seed, step, number))
        for _ in range(_TRIES):
            try:
                shots = pick(self._sources, self._chances, self._config, rng)
                recent: dict[tuple[int, Any], Picture] = {}
                pictures = [
                    self._open(shot, recent)
                    for shot in (shots.template, shots.online, shots.search)
                ]
                sizes = [picture.size for picture in pictures]
                planned = plan(shots, sizes, self._config, rng, training=self._training)
                return planned, pictures
            except Unusable:
                continue
            except InputError as error:
                problems.append(str(error))
        why = f" The last reason was: {problems[-1]}" if problems else ""
        raise InputError(f"{_TRIES} draws from the training data led to no sample.{why}")

    def _open(self, shot: Shot, recent: dict[tuple[int, Any], Picture]) -> Picture:
        source = self._sources[shot.source]
        key = shot.source, source.picture(shot.item, shot.frame)
        if key not in recent:
            recent[key] = self._read(source, key, source.describe(shot.item, shot.frame))
        return recent[key]

    def _read(self, source: Source, key: tuple[int, Any], what: str) -> Picture:
        if self._resident is not None:
            size, base = self._resident.find(*key)
            return Picture(size, base)
        encoded = source.encoded(key[1])
        if self._carried == "files" and encoded.startswith(_JPEG):
            return Picture(size_of(encoded, what), encoded)
        pixels = decode(encoded, what)
        return Picture((len(pixels), len(pixels[0])), pixels)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture's (height, width), and its file, its pixels or where they begin on the device."""

    size: tuple[int, int]
    content: Any


def _join(pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
    files = [p.content for p in pictures if isinstance(p.content, bytes)]
    pixels = [p.content.reshape(-1, 3) for p in pictures if not isinstance(p.content, bytes)]
    return {
        "files": torch.frombuffer(bytearray(b"".join(files) or b"\0"), dtype=torch.uint8),
        "lengths": torch.tensor([len(file) for file in files], dtype=torch.int64),
        "pixels": torch.from_numpy(np.concatenate(pixels or [np.empty((0, 3), np.uint8)])),
        "sizes": torch.tensor([p.size for p in pictures], dtype=torch.int64),
    }
