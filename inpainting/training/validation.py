"""How good is it? On clips that are not trained on, with holes that are always the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from checkpoints.training.processes import Place
from inpainting.training.config import Recipe
from inpainting.training.data import Batch, Batches
from inpainting.training.losses import composite

_SEED = 2026  # of the samples: the same ones for every run with the same data
Paint = Callable[[Batch], Tensor]
"""A batch to its local frames (b, l, 3, h, w) in [-1, 1], painted; only the holes count."""


class HeldOut:
    """Samples that are not trained on, always the same ones, neither mirrored nor reversed.

    Args:
        recipe: its data and validation.
        place: each process takes its share.

    Raises:
        InputError: the data cannot be used.
    """

    def __init__(self, recipe: Recipe, place: Place) -> None:
        self._place, self._bf16 = place, recipe.engine.bf16
        self._batches: Batches | None = None
        wanted = recipe.validation.samples
        if not wanted:
            return
        crop = None if recipe.data.crop is None else 1.0
        data = replace(recipe.data, flip=0.0, reverse=0.0, crop=crop)
        if recipe.validation.clips:
            data = replace(data, clips=recipe.validation.clips)
        batch = min(recipe.schedule.batch_size, wanted)
        batch = max(batch - batch % place.world, place.world)
        self._steps = max(1, wanted // batch)
        self._batches = Batches(
            data,
            None if recipe.validation.clips else "val",
            seed=_SEED,
            batch_size=batch,
            rank=place.rank,
            world=place.world,
            device=place.device,
        )

    def __iter__(self) -> Iterator[Batch]:
        if self._batches is not None:
            for _, batch in zip(range(self._steps), self._batches, strict=False):
                yield batch

    @torch.no_grad()
    def measure(self, paint: Paint) -> dict[str, float]:
        """Mean PSNR in dB over local frames, of whole composited frames and inside holes.

        Frames are compared as uint8 would be; those without a hole are left out. Nothing if there
        are no samples.
        """
        sums = torch.zeros(3, dtype=torch.float64)  # on the CPU: Apple's GPUs have no float64
        for batch in self:
            local = slice(batch.num_local)
            truth, holes = batch.truth[:, local], batch.holes[:, local]
            painted = composite(paint(batch).float(), truth, holes)
            error = (_levels(painted) - _levels(truth)).square().mean(dim=2, keepdim=True)
            size = holes.mean(dim=(2, 3, 4))
            shown = size > 0
            whole = error.mean(dim=(2, 3, 4)).clamp(min=1e-3)
            inside = whole / size.clamp(min=1e-9)
            ratios = 10 * torch.log10(255**2 / torch.stack((whole, inside)))
            sums += torch.stack([*(ratios * shown).sum(dim=(1, 2)), shown.sum()]).cpu()
        if self._batches is None:
            return {}
        whole, inside, count = self._place.mean(sums).tolist()
        return {"held_out_psnr": whole / count, "held_out_hole_psnr": inside / count}

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """See `measure`, of a network."""
        was_training = network.training
        network.eval()

        def paint(batch: Batch) -> Tensor:
            with torch.autocast(self._place.device.type, torch.bfloat16, enabled=self._bf16):
                found, _ = network(batch.masked, batch.num_local)
            return found.unflatten(0, (len(batch), -1))[:, : batch.num_local]

        figures = self.measure(paint)
        network.train(was_training)
        return figures


def _levels(frames: Tensor) -> Tensor:
    """Frames in [-1, 1] as the integers 0 to 255 that are written, truncated as published."""
    return ((frames + 1) / 2 * 255 + 1e-3).floor()
