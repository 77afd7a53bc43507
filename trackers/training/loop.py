"""One training for all stages: what a step is, and how the schedule runs.

    recipe = load_recipe("stage1_dense_to_sparse", data=[("lasot", "/data/LaSOT")])
    train(recipe, Path("runs/stage1"))

The loop itself, its log and its files are those of `checkpoints.training.runs`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
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
from checkpoints.training.schedule import cosine_decay, warmup
from media import InputError
from trackers.training.config import Recipe
from trackers.training.data import Batch, Batches, draw_batch
from trackers.training.distill import importance_on, order_hidden_units
from trackers.training.networks import build_student, build_teacher, parameter_groups
from trackers.training.objectives import Objective, Teacher, answer, check_comparable
from trackers.training.schedule import removal_coefficient, step_decay
from trackers.training.validation import HeldOut, follow_all, open_sequences, parse_sequences

_log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    minutes: float | None = None,
    evaluate: tuple[str, Path] | None = None,
) -> dict[str, Any]:
    """Train by a recipe, or go on where an earlier run in the same folder stopped.

    Writes to `out`: recipe.json, log.csv, samples.png, state.pt, weights.safetensors, run.json.

    Args:
        recipe: what to do.
        out: the run's folder.
        device: see `media.device.resolve_device`; `torchrun` shares the work between processes.
        minutes: squeeze the schedule into so many minutes, if it would take longer.
        evaluate: kind and folder of sequences to track at the end.

    Returns:
        What run.json holds: steps, seconds, and the last figures.

    Raises:
        InputError: weights, data, folder or sequences cannot be used.
    """
    # What is wrong with them shows before days of training.
    sequences = None if evaluate is None else open_sequences(*evaluate)
    with join(device) as place:
        network, summary = _Run(recipe, out, place, minutes).finished()
        if place.leads:
            write_summary(summary, out)
            if sequences is not None:
                summary["sequences"] = follow_all(network, recipe, sequences)
                write_summary(summary, out)
        return summary


class _Run(Run):
    """A tracker's network, what it learns from, and what changes meanwhile."""

    told = ("total", "iou", "held_out_iou", "followed_AUC", "samples_per_second")
    free = (*Run.free, "data.sources.*.path", "validation")

    def __init__(self, recipe: Recipe, out: Path, place: Place, minutes: float | None) -> None:
        engine, schedule = recipe.engine, recipe.schedule
        share = schedule.batch_size // place.world
        if share % schedule.accumulate:
            raise InputError(f"A share of {share} samples has no {schedule.accumulate} like parts.")
        follow = recipe.validation.follow
        self.followed = None if follow is None else open_sequences(*parse_sequences(follow))
        often = recipe.validation.follow_every_epochs if follow else 0
        rhythm = Rhythm(
            steps=schedule.steps,
            batch_size=schedule.batch_size,
            validate=recipe.validation.every_epochs * schedule.steps_per_epoch,
            save=engine.save_every_epochs * schedule.steps_per_epoch,
            follow=often * schedule.steps_per_epoch,
        )
        super().__init__(recipe, out, place, rhythm, minutes)
        self.recipe = recipe
        self.network = build_student(recipe).to(place.device)
        self.teacher = None
        if recipe.teacher is not None:
            teacher = build_teacher(recipe.teacher, self.network).to(place.device)
            names = f"{recipe.network.name} and its teacher {recipe.teacher.name}"
            check_comparable(self.network, teacher, recipe.losses, names)
            self.teacher = Teacher(teacher, recipe.teacher)
        self.batches = Batches(
            recipe.data,
            seed=engine.seed,
            batch_size=schedule.batch_size,
            rank=place.rank,
            world=place.world,
            device=place.device,
            start_step=self.done,
        )
        if self.saved is None and getattr(self.network, "kept_hidden", None) is not None:
            self._order_hidden_units()
        groups = parameter_groups(self.network, recipe.optimizer)
        self.trained = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(
            groups, betas=recipe.optimizer.betas, fused=place.device.type == "cuda"
        )
        self.average = Average(self.network, engine.ema) if engine.ema else None
        self._coefficient: float | None = None  # of what is being removed, if anything
        self.restore()
        objective = Objective(self.network, recipe.losses)
        if engine.compile:
            objective.compile()
        self.objective: nn.Module = objective
        if place.world > 1:
            ids = [place.device] if place.device.type == "cuda" else None
            self.objective = DistributedDataParallel(objective, device_ids=ids)
        self.held_out = HeldOut(recipe, place)

    def finished(self) -> tuple[nn.Module, dict[str, Any]]:
        """Do what is left of the run. Returns the trained network, and what run.json shall hold."""
        summary = self.finish()
        self.network.load_state_dict(self.result())
        return self.network, summary

    def step(self, batch: Batch) -> tuple[dict[str, torch.Tensor], bool]:
        """Gradients of one batch, and a step along them unless they are useless."""
        recipe, place = self.recipe, self.place
        self.objective.train()
        torch.manual_seed(seed_for(recipe.engine.seed + place.rank, self.done))
        parts: dict[str, torch.Tensor] = {}
        chunks = _cut(batch, recipe.schedule.accumulate)
        for i, chunk in enumerate(chunks, 1):
            waits = place.world > 1 and i < len(chunks)
            with self.objective.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with torch.autocast(place.device.type, torch.bfloat16, enabled=recipe.engine.bf16):
                    lesson = self.teacher(chunk) if self.teacher is not None else None
                    found = self.objective(chunk, lesson)
                (found["total"] / len(chunks)).backward()
            for name, value in found.items():
                parts[name] = parts.get(name, 0.0) + value.detach() / len(chunks)
        norm = clip_gradients(self.trained, recipe.optimizer.clip)
        usable = bool(norm.isfinite())  # alike in all processes: they have the same gradients
        if usable:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return parts | {"gradient": norm.detach()}, usable

    def set_rates(self) -> dict[str, float]:
        """Set learning rates and what is left of removed parts for the next step."""
        schedule, progress = self.recipe.schedule, self.progress()
        # Counted from 1; against the rounding of the division, half a step is added.
        epoch = int((progress + 0.5 / schedule.steps) * schedule.epochs) + 1
        factor = warmup(self.reached(), schedule.warmup_steps)
        if schedule.decay == "step":
            factor *= step_decay(epoch, schedule.drop_epochs)
        else:
            factor *= cosine_decay(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        network: Any = self.network
        if getattr(network, "removed_blocks", ()) or getattr(network, "kept_hidden", None):
            coefficient = removal_coefficient(epoch, schedule.removal_epochs)
            if coefficient != self._coefficient:
                network.set_removal_coefficient(coefficient)
                self._coefficient = coefficient
        settings = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        if self._coefficient is not None:
            settings["removal"] = self._coefficient
        return {"epoch": epoch, **settings}

    def validate(self) -> dict[str, float]:
        """See `HeldOut`."""
        return self.held_out(self.network)

    def follow(self) -> dict[str, float]:
        """Means over the sequences of `validation.follow`."""
        if self.followed is None or not self.place.leads:
            return {}
        frames = self.recipe.validation.follow_frames
        try:
            mean = follow_all(self.network, self.recipe, self.followed, frames)["mean"]
        except InputError as error:  # which is no reason to stop learning
            _log.warning("%s", error)
            return {}
        return {f"followed_{title.replace(' ', '_')}": value for title, value in mean.items()}

    def sheet(self, batch: Batch) -> Image.Image:
        """Pairs as the network sees them."""
        return draw_batch(batch)

    def notes(self) -> dict[str, str]:
        """See `Run.notes`."""
        network, data = self.recipe.network, self.recipe.data
        tracker = {  # what `build_tracker` cannot see in the weights' shapes
            "options": dict(network.options),
            "search_factor": data.search_factor,
            "template_factor": data.template_factor,
        }
        return super().notes() | {"network": network.name, "tracker": json.dumps(tracker)}

    def state(self) -> dict[str, Any]:
        """See `Run.state`."""
        return {"optimizer": self.optimizer.state_dict()}

    def take(self, state: Mapping[str, Any]) -> None:
        """See `Run.take`."""
        self.optimizer.load_state_dict(state["optimizer"])

    def _order_hidden_units(self) -> None:
        """Those that stay are the first ones: so the important ones have to come first."""
        batch = next(iter(self.batches))
        found = importance_on(self.network, lambda: answer(self.network, batch))
        shared = {block: self.place.mean(values) for block, values in found.items()}
        self.network.load_state_dict(order_hidden_units(self.network.state_dict(), shared))


def _cut(batch: Batch, parts: int) -> list[Batch]:
    if parts == 1:
        return [batch]
    columns = [getattr(batch, f.name).chunk(parts) for f in fields(batch)]
    return [Batch(*row) for row in zip(*columns, strict=True)]
