"""The one loop of every training: steps, a log, states to go on from, and weights at the end.

All chance is a function of (seed, process, step), and batches are a function of the step, so that a
run that is killed and started again does what it would have done.
"""

from __future__ import annotations

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn

from checkpoints import WeightsRecord
from checkpoints.training.processes import Place
from checkpoints.training.recipes import EngineConfig
from checkpoints.training.records import Meter, Record
from checkpoints.training.saving import read_state, write, write_state, write_weights
from media import InputError

_log = logging.getLogger(__name__)
_PATIENCE = 50  # steps in a row without usable gradients, after which a run is given up


class Recipe(Protocol):
    """What a run reads of its recipe."""

    @property
    def about(self) -> str: ...
    @property
    def engine(self) -> EngineConfig: ...
    def as_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Rhythm:
    """When things happen, in steps.

    Attributes:
        steps: of the whole run.
        batch_size: samples per step, of all processes together.
        validate: between two validations; there is one at the end as well.
        save: between two states; the last one is written as well.
        follow: between two trials in real use; 0: none, else there is one at the end as well.
        draw: between two sheets of samples; 0: only the first batch of a start.
    """

    steps: int
    batch_size: int
    validate: int
    save: int
    follow: int = 0
    draw: int = 0


class Average:
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


class Run(ABC):
    """A run in its folder. Read `finish` first, then `_steps`.

    A kind of training says what a step is, and sets in its own __init__, after this one's:
    `network`, what is trained and written; `batches`, from step `done` on. It ends with `restore`.
    """

    network: nn.Module
    batches: Iterable[Any]
    told: tuple[str, ...] = ("total",)
    """Figures that are worth a line on the screen."""
    free: tuple[str, ...] = ("data.workers", "engine.log_every", "engine.save_every*")
    """Settings, as patterns, that may change when a run goes on: they do not change what it learns.
    Of a list, what stands in it is free and how much that is is not."""

    def __init__(
        self, recipe: Recipe, out: Path, place: Place, rhythm: Rhythm, minutes: float | None
    ) -> None:
        """Claim the folder, and read the state if this run has been there before.

        Args:
            recipe: what to do; a folder belongs to one.
            out: the run's folder.
            place: this process among others.
            rhythm: how long, and when to validate and save.
            minutes: squeeze the schedule into so many minutes, if it would take longer.

        Raises:
            InputError: the folder holds the state of another recipe, or a damaged one, or there
                are no minutes.
        """
        if minutes is not None and not minutes > 0:
            raise InputError(f"minutes is {minutes:g}; give a number of minutes above 0.")
        self.out, self.place, self.rhythm, self.minutes = out, place, rhythm, minutes
        self.about, self.engine = recipe.about, recipe.engine
        self.saved = _claim(out, recipe.as_dict(), self.free, place)
        self.done, self.seconds = 0 if self.saved is None else self.saved["step"], 0.0
        self.figures: dict[str, float] = {}
        self.average: Average | None = None
        self.meter = Meter(place)

    # ------------------------------------------------------------------- what a kind of run says

    @abstractmethod
    def step(self, batch: Any) -> tuple[dict[str, torch.Tensor], bool]:
        """Learn from a batch. Returns the losses, and whether the gradients were of use."""

    @abstractmethod
    def set_rates(self) -> dict[str, float]:
        """Set for the next step what changes over time, and name it for the log."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """How good the network is on what it is not trained on."""

    def follow(self) -> dict[str, float]:
        """How good the network is in real use, if the kind of run knows that."""
        return {}

    @abstractmethod
    def sheet(self, batch: Any) -> Image.Image:
        """A batch for a person to look at."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What else to keep for going on: tensors, numbers, strings, lists and dicts of them."""

    @abstractmethod
    def take(self, state: Mapping[str, Any]) -> None:
        """Set what `state` has returned."""

    def notes(self) -> dict[str, str]:
        """What stands in the head of the weights' file."""
        return {"recipe": self.about}

    # ---------------------------------------------------------------------------------- the loop

    def finish(self) -> dict[str, Any]:
        """Do what is left of the run. Returns what run.json shall hold, with the last figures."""
        self._record = Record(self.out, self.done) if self.place.leads else None
        for _ in self._steps():
            last = self.progress() >= 1
            if figures := self._examine(last):
                self._report(figures)
            if last or self.done % self.rhythm.save == 0:
                self.meter.share()
                if self.place.leads:
                    self.save()
        if self._record is not None:
            self._record.close()
        summary: dict[str, Any] = {
            "about": self.about,
            "steps": self.done,
            "samples": self.done * self.rhythm.batch_size,
            "seconds": round(self.seconds, 1),
            "device": self.place.name,
            "figures": self.figures,
        }
        if self.place.leads:
            summary["weights"] = WeightsRecord.of_tensors(self.result()).sha256
        return summary

    def _examine(self, last: bool) -> dict[str, float]:
        exams = ((self.rhythm.validate, self.validate), (self.rhythm.follow, self.follow))
        due = [exam for every, exam in exams if every and (last or self.done % every == 0)]
        figures: dict[str, float] = {}
        if due:
            with self.averaged():
                for exam in due:
                    figures |= exam()
        return figures

    def _steps(self) -> Iterator[None]:
        """Step by step to the end of the schedule."""
        if self.progress() >= 1:
            return
        rhythm, place = self.rhythm, self.place
        batches = iter(self.batches)
        failures, fresh = 0, True
        before = time.perf_counter()
        while self.progress() < 1:
            batch = next(batches)
            waited = time.perf_counter() - before
            settings = self.set_rates()
            parts, usable = self.step(batch)
            failures = 0 if usable else failures + 1
            if failures == _PATIENCE:
                raise InputError(
                    f"{failures} steps in a row had no finite gradients: the training diverged; "
                    "lower the learning rates."
                )
            if self.average is not None and usable:
                self.average.update(self.network)
            self.done += 1
            now = time.perf_counter()
            self.seconds = place.agree(self.seconds + now - before)
            self.meter.add(parts, waited, now - before, usable)
            before = now
            if place.leads and (fresh or (rhythm.draw and self.done % rhythm.draw == 0)):
                picture = self.sheet(batch)
                write(self.out / "samples.png", lambda part, p=picture: p.save(part, format="PNG"))  # type: ignore[misc]
            fresh = False
            if self.done % self.engine.log_every == 0 or self.progress() >= 1:
                self._report({**self.meter.take(rhythm.batch_size), **settings})
            yield
            before = time.perf_counter()

    def reached(self) -> float:
        """How far the schedule is, in its steps: those done or, if that is more, by the clock."""
        if self.minutes is None:
            return self.done
        return max(self.done, self.seconds / 60 / self.minutes * self.rhythm.steps)

    def progress(self) -> float:
        """Share of the run that is done."""
        return self.reached() / self.rhythm.steps

    # ------------------------------------------------------------------------ figures and files

    def _report(self, figures: dict[str, float]) -> None:
        self.figures |= figures
        if self._record is not None:
            self._record.add(self.done, figures)
            line = ", ".join(f"{name} {figures[name]:.4g}" for name in self.told if name in figures)
            _log.info("step %d of %d: %s", self.done, self.rhythm.steps, line)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with the weights that are the result, for a while."""
        if self.average is None:
            yield
            return
        current = {k: t.clone() for k, t in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.state)
        yield
        self.network.load_state_dict(current)

    def result(self) -> dict[str, torch.Tensor]:
        """The weights that are written."""
        return dict(self.network.state_dict() if self.average is None else self.average.state)

    def save(self) -> None:
        """Write weights and state; one process does."""
        write_weights(
            self.result(),
            self.out / "weights.safetensors",
            half=self.engine.half,
            piece_mb=self.engine.piece_mb,
            about=self.notes(),
        )
        state = {
            "step": self.done,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state,
            "average_steps": 0 if self.average is None else self.average.steps,
            "figures": self.figures,
            "meter": self.meter.state(),
        }
        write_state(state | self.state(), self.out / "state.pt")

    def restore(self) -> None:
        """Go on from the saved state, if there is one."""
        if self.saved is None:
            return
        self.network.load_state_dict(self.saved["network"])
        self.seconds, self.figures = self.saved["seconds"], self.saved["figures"]
        if self.average is not None:
            for key, tensor in self.saved["average"].items():
                self.average.state[key].copy_(tensor)
            self.average.steps = self.saved["average_steps"]
        if "meter" in self.saved:  # older states have none
            self.meter.restore(self.saved["meter"])
        self.take(self.saved)
        self.saved = None  # it is large
        _log.info("going on from step %d", self.done)


def write_summary(summary: Mapping[str, Any], out: Path) -> None:
    """Write OUT/run.json."""
    text = json.dumps(summary, indent=1)
    write(out / "run.json", lambda part: part.write_text(text, encoding="utf-8"))


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> torch.Tensor:
    """Shorten the gradient to a norm of `most`, 0: no limit. Returns the norm it had."""
    return nn.utils.clip_grad_norm_(parameters, most or math.inf)


def seed_for(seed: int, step: int) -> int:
    """One seed per process and step, far from its neighbours."""
    return (seed * 1_000_003 + step) % 2**63


def _claim(
    out: Path, described: dict[str, Any], free: tuple[str, ...], place: Place
) -> dict[str, Any] | None:
    """Note what is done here. Returns the state to go on from, if a run got as far as one."""
    file, kept, saved = out / "recipe.json", out / "state.pt", None
    if kept.exists():
        if file.exists():
            _compare(_read_recipe(file), described, free, out)
        saved = read_state(kept)
    if place.leads:
        text = json.dumps(described, indent=1)
        write(file, lambda part: part.write_text(text, encoding="utf-8"))
    return saved


def _read_recipe(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(
            f"{file} is damaged, so nobody knows which run this is; name another folder with --out."
        ) from None


def _compare(earlier: Any, now: Any, free: tuple[str, ...], out: Path) -> None:
    earlier, now = _bound(earlier, free), _bound(now, free)
    if earlier != now:
        raise InputError(
            f"{out} holds a run of another recipe ({_first_change(earlier, now)}); "
            "name another folder with --out."
        )


def _bound(values: Any, free: tuple[str, ...], where: str = "") -> Any:
    """What of nested values is not free: of a list whose entries are, their number."""
    if isinstance(values, dict):
        places = {key: f"{where}.{key}".strip(".") for key in values}
        return {
            key: _bound(value, free, places[key])
            for key, value in values.items()
            if not any(fnmatch(places[key], pattern) for pattern in free)
        }
    if isinstance(values, list):
        if f"{where}.*" in free:
            return f"{len(values)} entries"
        return [_bound(value, free, f"{where}.{i}") for i, value in enumerate(values)]
    return values


def _first_change(earlier: Any, now: Any, where: str = "") -> str:
    """In words, where two nested values differ first."""
    if isinstance(earlier, list) and isinstance(now, list) and len(earlier) == len(now):
        earlier, now = ({str(i): value for i, value in enumerate(each)} for each in (earlier, now))
    if isinstance(earlier, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*earlier, *now]):
            if earlier.get(key) != now.get(key):
                return _first_change(earlier.get(key), now.get(key), f"{where}.{key}".strip("."))
    return f"{where} is {now!r} now and was {earlier!r}"
