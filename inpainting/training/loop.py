"""What a step of the training is: the judge learns, then the network.

    recipe = load_recipe("hq_small", clips=["/data/clips"])
    train(recipe, Path("runs/hq_small"))

The loop itself, its log and its files are those of `checkpoints.training.runs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from checkpoints.training.processes import Place, join
from checkpoints.training.runs import (
    Average,
    Rhythm,
    Run,
    clip_gradients,
    seed_for,
    write_summary,
)
from checkpoints.training.saving import write_weights
from checkpoints.training.schedule import cosine_decay, warmup
from inpainting.e2fgvi import neighbour_flows
from inpainting.training.config import Recipe
from inpainting.training.data import Batch, Batches, draw_sheet
from inpainting.training.losses import (
    Flows,
    adversarial_loss,
    composite,
    discriminator_loss,
    flow_loss,
    l1,
)
from inpainting.training.networks import (
    build_discriminator,
    build_generator,
    build_teacher,
    parameter_groups,
)
from inpainting.training.validation import HeldOut
from media import InputError


def train(
    recipe: Recipe, out: Path, *, device: str = "auto", minutes: float | None = None
) -> dict[str, Any]:
    """Train by a recipe, or go on where an earlier run in the same folder stopped.

    Writes to `out`: recipe.json, log.csv, samples.png, state.pt, weights.safetensors, run.json.

    Args:
        recipe: what to do.
        out: the run's folder.
        device: see `media.device.resolve_device`; `torchrun` shares the work between processes.
        minutes: squeeze the schedule into so many minutes, if it would take longer.

    Returns:
        What run.json holds: steps, seconds, and the last figures.

    Raises:
        InputError: weights, data or folder do not fit the recipe.
    """
    with join(device) as place:
        summary = _Run(recipe, out, place, minutes).finish()
        if place.leads:
            write_summary(summary, out)
        return summary


class _Judge(nn.Module):
    """The discriminator with its loss, so that processes meet once per step."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, truth: Tensor, composited: Tensor) -> Tensor:
        return discriminator_loss(
            self.discriminator(truth).float(), self.discriminator(composited).float()
        )


class _Run(Run):
    """The network, its judge, and what both learn from. Read `step` first."""

    told = ("total", "hole", "held_out_psnr", "held_out_hole_psnr", "samples_per_second")
    free = (*Run.free, "data.clips.*", "data.objects.*", "engine.draw_every", "validation.every")

    def __init__(self, recipe: Recipe, out: Path, place: Place, minutes: float | None) -> None:
        engine, schedule, rates = recipe.engine, recipe.schedule, recipe.optimizer
        share = schedule.batch_size // place.world
        if share % schedule.accumulate:
            raise InputError(f"A share of {share} samples has no {schedule.accumulate} like parts.")
        self.recipe = recipe
        rhythm = Rhythm(
            steps=schedule.steps,
            batch_size=schedule.batch_size,
            validate=recipe.validation.every,
            save=engine.save_every,
            draw=engine.draw_every,
        )
        self.held_out = HeldOut(recipe, place)
        data = recipe.data
        torch.manual_seed(engine.seed)
        self.network = build_generator(recipe).to(place.device)
        self.discriminator = build_discriminator(recipe).to(place.device)
        self.teacher = build_teacher(recipe)
        if self.teacher is not None:
            self.teacher.to(place.device)
        super().__init__(recipe, out, place, rhythm, minutes)
        self.batches = Batches(
            data,
            "train" if recipe.validation.samples and not recipe.validation.clips else None,
            seed=engine.seed,
            batch_size=schedule.batch_size,
            rank=place.rank,
            world=place.world,
            device=place.device,
            start_step=self.done,
        )
        groups = parameter_groups(self.network, rates.lr, rates.flow_lr)
        judged: list[dict[str, Any]] = [
            {
                "params": list(self.discriminator.parameters()),
                "lr": rates.discriminator_lr,
                "base_lr": rates.discriminator_lr,
                "name": "discriminator",
            }
        ]
        fused = place.device.type == "cuda"
        self.optimizer = torch.optim.Adam(groups, betas=rates.betas, fused=fused)
        self.judge_optimizer = torch.optim.Adam(judged, betas=rates.betas, fused=fused)
        self.average = Average(self.network, engine.ema) if engine.ema else None
        self.restore()
        self.painter: nn.Module = self.network
        self.judge: nn.Module = _Judge(self.discriminator)
        if engine.compile:
            self.painter.compile()
        if place.world > 1:
            ids = [place.device] if place.device.type == "cuda" else None
            self.painter = DistributedDataParallel(self.painter, device_ids=ids)
            # Its buffers are alike without being sent: they depend on the weights alone.
            self.judge = DistributedDataParallel(
                self.judge, device_ids=ids, broadcast_buffers=False
            )

    # ---------------------------------------------------------------------------------- a step

    def step(self, batch: Batch) -> tuple[dict[str, Tensor], bool]:
        """The judge learns to tell true from painted, then the network learns."""
        recipe = self.recipe
        self.network.train()
        self.discriminator.train()
        torch.manual_seed(seed_for(recipe.engine.seed + self.place.rank, self.done))
        chunks = batch.cut(recipe.schedule.accumulate)
        shares = self.place.mean(torch.stack((batch.holes.mean(), 1 - batch.holes.mean())))
        # In one part, what is painted for the judge is what the network learns from afterwards.
        at_once = len(chunks) == 1
        painted: Tensor | None = None
        flows: Flows | None = None
        parts: dict[str, Tensor] = {}
        norms = []
        if recipe.losses.adversarial:
            for i, chunk in enumerate(chunks, 1):
                with self._alone(self.judge, i < len(chunks)), self._precision():
                    with torch.set_grad_enabled(at_once):
                        painted, flows = self._paint(chunk)
                    fake = composite(painted.detach(), chunk.truth, chunk.holes)
                    loss = self.judge(chunk.truth, fake) / len(chunks)
                    loss.backward()
                _add(parts, "discriminator", loss)
            norms.append(self._follow(self.judge_optimizer, self.discriminator))
        self.discriminator.requires_grad_(False)
        for i, chunk in enumerate(chunks, 1):
            with self._alone(self.painter, i < len(chunks)), self._precision():
                if not at_once or painted is None or flows is None:
                    painted, flows = self._paint(chunk)
                losses = self._losses(chunk, painted, flows, shares)
                (losses["total"] / len(chunks)).backward()
            for name, value in losses.items():
                _add(parts, name, value / len(chunks))
            if i == 1:
                self._painted = painted.detach()
            painted = flows = None
        self.discriminator.requires_grad_(True)
        norms.append(self._follow(self.optimizer, self.network))
        usable = all(bool(norm.isfinite()) for norm in norms)
        return parts | {"gradient": norms[-1].detach()}, usable

    def _paint(self, chunk: Batch) -> tuple[Tensor, Flows]:
        found, flows = self.painter(chunk.masked, chunk.num_local)
        return found.float().unflatten(0, (len(chunk), -1)), flows

    def _losses(
        self, chunk: Batch, painted: Tensor, flows: Flows, shares: Tensor
    ) -> dict[str, Tensor]:
        weights = self.recipe.losses
        losses = {
            "hole": l1(painted, chunk.truth, chunk.holes, shares[0]),
            "valid": l1(painted, chunk.truth, 1 - chunk.holes, shares[1]),
        }
        if weights.adversarial:
            composited = composite(painted, chunk.truth, chunk.holes)
            losses["adversarial"] = adversarial_loss(self.discriminator(composited).float())
        if self.teacher is not None:
            with torch.no_grad(), torch.autocast(self.place.device.type, enabled=False):
                taught = neighbour_flows(self.teacher, chunk.truth[:, : chunk.num_local])
            losses["flow"] = flow_loss(flows, taught)
        total = sum((getattr(weights, n) * value for n, value in losses.items()), torch.tensor(0.0))
        return losses | {"total": total}

    def _follow(self, optimizer: torch.optim.Optimizer, network: nn.Module) -> Tensor:
        """A step along the gradients, unless they are useless; returns their norm."""
        norm = clip_gradients(network.parameters(), self.recipe.optimizer.clip)
        if norm.isfinite():  # alike in all processes: they have the same gradients
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def _alone(self, module: nn.Module, waits: bool) -> AbstractContextManager[None]:
        """Gradients stay in this process, where more of them are to come."""
        return module.no_sync() if waits and self.place.world > 1 else nullcontext()  # type: ignore[operator]

    def _precision(self) -> torch.autocast:
        return torch.autocast(
            self.place.device.type, torch.bfloat16, enabled=self.recipe.engine.bf16
        )

    # ------------------------------------------------------------------------- see `Run` for all

    def set_rates(self) -> dict[str, float]:
        """Set the learning rates for the next step."""
        schedule = self.recipe.schedule
        factor = warmup(self.reached(), schedule.warmup_steps)
        if schedule.decay == "step":
            passed = sum(self.reached() >= drop - 0.5 for drop in schedule.drops)
            factor *= 0.1**passed
        else:
            factor *= cosine_decay(self.progress())
        groups = [*self.optimizer.param_groups, *self.judge_optimizer.param_groups]
        for group in groups:
            group["lr"] = group["base_lr"] * factor
        return {f"lr_{group['name']}": group["lr"] for group in groups}

    def validate(self) -> dict[str, float]:
        """See `HeldOut`."""
        return self.held_out(self.network)

    def sheet(self, batch: Batch) -> Image.Image:
        """What is given, what was painted, what was there."""
        return draw_sheet(batch, self._painted)

    def notes(self) -> dict[str, str]:
        """See `Run.notes`."""
        return super().notes() | {"network": self.recipe.network.name}

    def save(self) -> None:
        """Write the judge's weights beside the network's, for `init.discriminator`."""
        super().save()
        write_weights(self.discriminator.state_dict(), self.out / "discriminator.safetensors")

    def state(self) -> dict[str, Any]:
        """See `Run.state`."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "judge_optimizer": self.judge_optimizer.state_dict(),
        }

    def take(self, state: Mapping[str, Any]) -> None:
        """See `Run.take`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.judge_optimizer.load_state_dict(state["judge_optimizer"])


def _add(parts: dict[str, Tensor], name: str, value: Tensor) -> None:
    parts[name] = parts.get(name, torch.zeros(())) + value.detach()
