"""The one loop of all stages.

    recipe = load_recipe("stage1_dense_to_sparse", data=[("lasot", "/data/LaSOT")])
    train(recipe, Path("runs/stage1"))

All chance is a function of (seed, process, step), and batches are a function of the step, so that a
run that is killed and started again does what it would have done.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from checkpoints import WeightsRecord
from media import InputError
from trackers.training.config import Recipe
from trackers.training.data import Batch, Batches
from trackers.training.distill import importance_on, order_hidden_units
from trackers.training.networks import build_student, build_teacher, parameter_groups
from trackers.training.objectives import Objective, Teacher, answer, check_comparable
from trackers.training.processes import Place, join
from trackers.training.records import Record, write_sheet
from trackers.training.saving import read_state, write, write_state, write_weights
from trackers.training.schedule import cosine_decay, removal_coefficient, step_decay, warmup
from trackers.training.validation import HeldOut, follow_sequences

_log = logging.getLogger(__name__)
_PATIENCE = 50  # steps in a row without usable gradients, after which a run is given up


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
        InputError: weights, data or folder do not fit the recipe.
    """
    with join(device) as place:
        return _Run(recipe, out, place, minutes).finish(evaluate)


class _Average:
    """An exponential moving average over steps of all floats of a network."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {k: t.detach().clone() for k, t in network.state_dict().items()}

    def update(self, network: nn.Module) -> None:
        """Take a step into account; the first ones count more, or the start would linger."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.state[key].lerp_(tensor.detach(), 1 - decay)
            else:
                self.state[key].copy_(tensor)


class _Run:
    """Everything a run holds. Read `steps` first, then `_step`."""

    def __init__(self, recipe: Recipe, out: Path, place: Place, minutes: float | None) -> None:
        self.recipe, self.out, self.place, self.minutes = recipe, out, place, minutes
        engine, schedule = recipe.engine, recipe.schedule
        share = schedule.batch_size // place.world
        if share % schedule.accumulate:
            raise InputError(f"A share of {share} samples has no {schedule.accumulate} like parts.")
        state = self._find_state()
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
            start_step=0 if state is None else state["step"],
        )
        if state is None and getattr(self.network, "kept_hidden", None) is not None:
            self._order_hidden_units()
        groups = parameter_groups(self.network, recipe.optimizer)
        self.trained = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(
            groups, betas=recipe.optimizer.betas, fused=place.device.type == "cuda"
        )
        self.average = _Average(self.network, engine.ema) if engine.ema else None
        self.done, self.seconds = 0, 0.0
        self.figures: dict[str, float] = {}
        self._coefficient: float | None = None  # of what is being removed, if anything
        if state is not None:
            self._restore(state)
        objective = Objective(self.network, recipe.losses)
        if engine.compile:
            objective.compile()
        self.objective: nn.Module = objective
        if place.world > 1:
            ids = [place.device] if place.device.type == "cuda" else None
            self.objective = DistributedDataParallel(objective, device_ids=ids)
        self.held_out = HeldOut(recipe, place)
        self.record = Record(out, self.done) if place.leads else None

    # ------------------------------------------------------------------------------- the loop

    def finish(self, evaluate: tuple[str, Path] | None) -> dict[str, Any]:
        """Do what is left of the run, and then measure and write what came of it."""
        schedule = self.recipe.schedule
        for epoch_ends in self._steps():
            last = self._progress() >= 1
            if last or (epoch_ends and self._epoch_done % self.recipe.validation.every_epochs == 0):
                self._validate()
            if last or (
                epoch_ends and self._epoch_done % self.recipe.engine.save_every_epochs == 0
            ):
                self._save()
        if self.record is not None:
            self.record.close()
        summary: dict[str, Any] = {
            "about": self.recipe.about,
            "steps": self.done,
            "samples": self.done * schedule.batch_size,
            "seconds": round(self.seconds, 1),
            "device": _device_name(self.place),
            "figures": self.figures,
        }
        if self.place.leads:
            state = self._result()
            summary["weights"] = WeightsRecord.of_tensors(state).sha256
            if evaluate is not None:
                kind, root = evaluate
                self.network.load_state_dict(state)
                summary["sequences"] = follow_sequences(self.network, self.recipe, root, kind)
            text = json.dumps(summary, indent=1)
            write(self.out / "run.json", lambda part: part.write_text(text, encoding="utf-8"))
        return summary

    def _steps(self) -> Iterator[bool]:
        """Step by step to the end of the schedule; yields whether an epoch ends with it."""
        if self._progress() >= 1:
            return
        schedule, place = self.recipe.schedule, self.place
        batches = iter(self.batches)
        meter, failures = _Meter(place), 0
        before = time.perf_counter()
        while self._progress() < 1:
            batch = next(batches)
            waited = time.perf_counter() - before
            if place.leads and meter.fresh:
                write_sheet(batch, self.out / "samples.png")
            epoch = self._set_epoch()
            parts, usable = self._step(batch)
            failures = 0 if usable else failures + 1
            if failures == _PATIENCE:
                raise InputError(
                    f"{failures} steps in a row had no finite gradients: the training diverged; "
                    "lower the learning rates."
                )
            self.done += 1
            now = time.perf_counter()
            self.seconds = place.agree(self.seconds + now - before)
            meter.add(parts, waited, now - before, usable)
            before = now
            ends = self.done % schedule.steps_per_epoch == 0
            self._epoch_done = self.done // schedule.steps_per_epoch
            if self.done % self.recipe.engine.log_every == 0 or self._progress() >= 1:
                figures = meter.take(schedule.batch_size)
                self._report({"epoch": epoch, **figures, **self._settings(epoch)})
            yield ends
            before = time.perf_counter()

    def _step(self, batch: Batch) -> tuple[dict[str, torch.Tensor], bool]:
        """Gradients of one batch, and a step along them unless they are useless."""
        recipe, place = self.recipe, self.place
        self.objective.train()
        torch.manual_seed(_mix(recipe.engine.seed + place.rank, self.done))
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
        most = recipe.optimizer.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.trained, most)
        usable = bool(norm.isfinite())  # alike in all processes: they have the same gradients
        if usable:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None and usable:
            self.average.update(self.network)
        return parts | {"gradient": norm.detach()}, usable

    # ----------------------------------------------------------------------------- the schedule

    def _progress(self) -> float:
        """Share of the run that is done, by steps or, if that comes first, by the clock."""
        share = self.done / self.recipe.schedule.steps
        return share if self.minutes is None else max(share, self.seconds / 60 / self.minutes)

    def _set_epoch(self) -> int:
        """Set learning rates and what is left of removed parts for the next step."""
        schedule, progress = self.recipe.schedule, self._progress()
        # Counted from 1; against the rounding of the division, half a step is added.
        epoch = int((progress + 0.5 / schedule.steps) * schedule.epochs) + 1
        factor = warmup(self.done, schedule.warmup_steps)
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
        return epoch

    def _settings(self, epoch: int) -> dict[str, float]:
        found = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        if self._coefficient is not None:
            found["removal"] = self._coefficient
        return found

    # ------------------------------------------------------------------------ figures and files

    def _report(self, figures: dict[str, float]) -> None:
        self.figures |= figures
        if self.record is not None:
            self.record.add(self.done, figures)
            told = ("total", "iou", "held_out_iou", "samples_per_second")
            line = ", ".join(f"{name} {figures[name]:.4g}" for name in told if name in figures)
            _log.info("step %d of %d: %s", self.done, self.recipe.schedule.steps, line)

    def _validate(self) -> None:
        if self.average is None:
            figures = self.held_out(self.network)
        else:
            current = {k: t.clone() for k, t in self.network.state_dict().items()}
            self.network.load_state_dict(self.average.state)
            figures = self.held_out(self.network)
            self.network.load_state_dict(current)
        if figures:
            self._report(figures)

    def _result(self) -> dict[str, torch.Tensor]:
        return dict(self.network.state_dict() if self.average is None else self.average.state)

    def _save(self) -> None:
        if not self.place.leads:
            return
        engine = self.recipe.engine
        about = {"recipe": self.recipe.about, "network": self.recipe.network.name}
        write_weights(
            self._result(),
            self.out / "weights.safetensors",
            half=engine.half,
            piece_mb=engine.piece_mb,
            about=about,
        )
        state = {
            "step": self.done,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state,
            "average_steps": 0 if self.average is None else self.average.steps,
            "figures": self.figures,
        }
        write_state(state, self.out / "state.pt")

    def _find_state(self) -> dict[str, Any] | None:
        """Claim the folder, and read the state if this run has been there before."""
        described, place = self.recipe.as_dict(), self.out / "recipe.json"
        if place.exists():
            try:
                earlier = json.loads(place.read_text(encoding="utf-8"))
            except ValueError:
                earlier = None
            if earlier != described:
                raise InputError(
                    f"{self.out} holds a run of another recipe ({_first_change(earlier, described)}"
                    "); name another folder with --out."
                )
        elif self.place.leads:
            text = json.dumps(described, indent=1)
            write(place, lambda part: part.write_text(text, encoding="utf-8"))
        kept = self.out / "state.pt"
        return read_state(kept) if kept.exists() else None

    def _order_hidden_units(self) -> None:
        """Those that stay are the first ones: so the important ones have to come first."""
        batch = next(iter(self.batches))
        found = importance_on(self.network, lambda: answer(self.network, batch))
        shared = {block: self.place.mean(values) for block, values in found.items()}
        self.network.load_state_dict(order_hidden_units(self.network.state_dict(), shared))

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self.seconds = state["step"], state["seconds"]
        self.figures = state["figures"]
        if self.average is not None:
            for key, tensor in state["average"].items():
                self.average.state[key].copy_(tensor)
            self.average.steps = state["average_steps"]
        _log.info("going on from step %d", self.done)


class _Meter:
    """Means over the steps between two lines of the log."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.fresh = True  # until the first step has been counted
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps, self._waited, self._seconds, self._skipped = 0, 0.0, 0.0, 0

    def add(
        self, parts: dict[str, torch.Tensor], waited: float, seconds: float, usable: bool
    ) -> None:
        """Count a step; `waited` of its `seconds` went by without a batch."""
        self.fresh = False
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self._waited += waited
        self._seconds += seconds
        self._skipped += not usable

    def take(self, batch_size: int) -> dict[str, float]:
        """The means, of all processes, and start anew."""
        names, values = list(self._sums), list(self._sums.values())
        means = self._place.mean(torch.stack(values).float() / self._steps).tolist()
        figures = dict(zip(names, means, strict=True))
        figures["samples_per_second"] = self._steps * batch_size / self._seconds
        figures["waiting_for_data"] = self._waited / self._seconds
        if self._skipped:
            figures["steps_without_gradients"] = float(self._skipped)
        if self._place.device.type == "cuda":
            figures["gpu_gb"] = torch.cuda.max_memory_allocated(self._place.device) / 1e9
        self._reset()
        return figures


def _cut(batch: Batch, parts: int) -> list[Batch]:
    if parts == 1:
        return [batch]
    columns = [getattr(batch, f.name).chunk(parts) for f in fields(batch)]
    return [Batch(*row) for row in zip(*columns, strict=True)]


def _mix(seed: int, step: int) -> int:
    """One seed per process and step, far from its neighbours."""
    return (seed * 1_000_003 + step) % 2**63


def _first_change(earlier: Any, now: Any, where: str = "") -> str:
    """In words, where two nested dicts differ first."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*earlier, *now]):
            if earlier.get(key) != now.get(key):
                return _first_change(earlier.get(key), now.get(key), f"{where}.{key}".strip("."))
    return f"{where} is {now!r} now and was {earlier!r}"


def _device_name(place: Place) -> str:
    name = str(place.device)
    if place.device.type == "cuda":
        name = torch.cuda.get_device_name(place.device)
    return name if place.world == 1 else f"{place.world} x {name}"
