"""Batches without end, the same ones for one process as for several, and after a resume."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from checkpoints.training.streaming import stream
from inpainting.training.data.clips import Clip, Split, choose, find_clips, find_masks
from inpainting.training.data.config import DataConfig
from inpainting.training.data.holes import draw_holes
from media import InputError

_log = logging.getLogger(__name__)
_TRIES = 8  # clips in a row that cannot be used, before a run is given up


@dataclass
class Batch:
    """b samples of t frames: first consecutive ones, then references.

    Attributes:
        truth: (b, t, 3, h, w) float32 in [-1, 1].
        holes: (b, t, 1, h, w) float32: 1 where something has to be painted, else 0.
        num_local: how many frames are consecutive.
    """

    truth: Tensor
    holes: Tensor
    num_local: int

    @property
    def masked(self) -> Tensor:
        """What the network is given: 0, a middle grey, in the holes."""
        return self.truth * (1 - self.holes)

    def cut(self, parts: int) -> list[Batch]:
        """The same in parts of like size."""
        pieces = zip(self.truth.chunk(parts), self.holes.chunk(parts), strict=True)
        return [Batch(*piece, self.num_local) for piece in pieces]

    def __len__(self) -> int:
        return len(self.truth)


@dataclass
class Prepared:
    """A batch on its way from a worker: uint8 frames (b, t, h, w, 3), bool holes (b, t, h, w)."""

    frames: Tensor
    holes: Tensor
    problems: list[str]

    def pin_memory(self) -> Prepared:
        """The same where a GPU fetches it faster."""
        return replace(self, frames=self.frames.pin_memory(), holes=self.holes.pin_memory())


class Preparer:
    """Makes the batch of a step; sample k of step s depends on (config, seed, s, k) alone."""

    def __init__(
        self,
        config: DataConfig,
        clips: Sequence[Clip],
        objects: Sequence[Clip],
        *,
        seed: int,
        numbers: range,
    ) -> None:
        self._config, self._clips, self._objects = config, clips, objects
        self._seed, self._numbers = seed, numbers

    def __getitem__(self, step: int) -> Prepared:
        problems: list[str] = []
        samples = [self._sample(step, number, problems) for number in self._numbers]
        frames, holes = (torch.from_numpy(np.stack(each)) for each in zip(*samples, strict=True))
        return Prepared(frames, holes, problems)

    def _sample(self, step: int, number: int, problems: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Frames (t, h, w, 3) uint8 and holes (t, h, w) bool."""
        rng = np.random.default_rng([self._seed, step, number])
        for _ in range(_TRIES):
            clip = self._clips[int(rng.integers(len(self._clips)))]
            try:
                return self._draw(rng, clip)
            except InputError as error:  # a broken file: another clip will do
                problems.append(str(error))
        raise InputError(f"{_TRIES} clips in a row cannot be used. {problems[-1]}")

    def _draw(self, rng: np.random.Generator, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        config = self._config
        times = choose_frames(rng, len(clip.frames), config.local, config.references)
        if rng.random() < config.reverse:
            times = [*times[config.local - 1 :: -1], *times[config.local :]]
        share = None if config.crop is None else rng.uniform(config.crop, 1)
        corner, mirrored = rng.random(2), rng.random() < config.flip
        pictures = [_frame(clip, time, config.size, share, corner, mirrored) for time in times]
        holes = draw_holes(rng, times, config.size, config.holes, self._objects)
        return np.stack(pictures), holes


def choose_frames(rng: np.random.Generator, count: int, local: int, references: int) -> list[int]:
    """Consecutive frames of a clip from anywhere, then others in order, none of them twice."""
    first = int(rng.integers(count - local + 1))
    others = [index for index in range(count) if not first <= index < first + local]
    chosen = rng.permutation(len(others))[:references].tolist()
    return [*range(first, first + local), *sorted(others[index] for index in chosen)]


def _frame(
    clip: Clip,
    time: int,
    size: tuple[int, int],
    share: float | None,
    corner: np.ndarray,
    mirrored: bool,
) -> np.ndarray:
    """A frame, cut and resized: uint8 (h, w, 3).

    Args:
        clip: of which it is a frame.
        time: its number.
        size: (height, width) of the result.
        share: of the largest part with these proportions; None: all, squeezed.
        corner: two numbers in [0, 1): where the part is, down and along.
        mirrored: left and right are exchanged.
    """
    try:
        with Image.open(io.BytesIO(clip.encoded(time))) as file:
            picture = file.convert("RGB")
    except InputError:
        raise
    except Exception as error:  # on damaged data Pillow raises almost anything
        what = clip.describe(time)
        raise InputError(f"{what[:1].upper()}{what[1:]} is damaged.") from error
    box = None
    if share is not None:
        scale = share * min(picture.height / size[0], picture.width / size[1])
        height, width = size[0] * scale, size[1] * scale
        y, x = (picture.height - height) * corner[0], (picture.width - width) * corner[1]
        box = (x, y, min(x + width, picture.width), min(y + height, picture.height))
    picture = picture.resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    return np.array(ImageOps.mirror(picture) if mirrored else picture)


class Batches:
    """The batches of a run, one per step.

    n processes with a share of the batch each see what one would, and a run that begins at
    `start_step` what an unbroken one sees from there. A file that cannot be used is left out,
    logged once, and counted in `skipped`.

    Args:
        config: what to draw and how.
        split: train or val: a twentieth of the videos is for validation; None: all.
        seed: of all chance.
        batch_size: samples per step, of all processes together.
        rank: number of this process, of `world`.
        world: how many processes share a batch; `batch_size` is a multiple of it.
        device: where batches end up.
        start_step: number of the first batch.

    Raises:
        InputError: the data cannot be used; says why in one sentence.
    """

    def __init__(
        self,
        config: DataConfig,
        split: Split | None,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        start_step: int = 0,
    ) -> None:
        if batch_size % world:
            raise InputError(f"A batch of {batch_size} cannot be shared by {world} processes.")
        clips = find_clips(config.clips, least=config.frames)
        self.clips = clips if split is None else choose(clips, split)
        objects = find_masks(config.objects)
        self.skipped: Counter[str] = Counter()
        self._config, self._start, self._device = config, start_step, torch.device(device)
        share = batch_size // world
        numbers = range(rank * share, (rank + 1) * share)
        self._preparer = Preparer(config, self.clips, objects, seed=seed, numbers=numbers)

    def __iter__(self) -> Iterator[Batch]:
        made = stream(
            self._preparer,
            start=self._start,
            workers=self._config.workers,
            pin_memory=self._device.type == "cuda",
        )
        for prepared in made:
            for problem in prepared.problems:
                if problem not in self.skipped:
                    _log.warning("%s It is left out.", problem)
                self.skipped[problem] += 1
            frames = prepared.frames.to(self._device, non_blocking=True)
            holes = prepared.holes.to(self._device, non_blocking=True)
            truth = frames.permute(0, 1, 4, 2, 3).float() / 255 * 2 - 1
            yield Batch(truth, holes[:, :, None].float(), self._config.local)
