"""What training an inpainter takes: the sections of a recipe.

The defaults are those of E2FGVI's own training (MCG-NKU/E2FGVI @ 709cbe3 and the paper, section 4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from checkpoints.training import recipes
from checkpoints.training.recipes import Count, Decay, Natural, NotNegative, override, read
from inpainting.training.data import DataConfig
from inpainting.training.discriminator import CHANNELS
from media import InputError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class NetworkConfig:
    """The network that is trained.

    Attributes:
        name: of an inpainter with a network, as for `inpainting.build_network`.
        width: a width of its own, see `inpainting.e2fgvi.Width`; None: that of the name.
        discriminator: channels of the discriminator's convolutions.
    """

    name: str
    width: Mapping[str, Count] | None = None
    discriminator: tuple[Count, ...] = CHANNELS


@dataclass(frozen=True)
class InitConfig:
    """Where the first weights come from; what no file fills is drawn from a normal distribution.

    Attributes:
        weights: file of the whole network, or the name of a checkpoint.
        discriminator: file of the discriminator.
        flow: file of a SPyNet, or the name of a checkpoint: the first weights of the network's
            flow, unless `weights` has them, and the frozen teacher of the loss `flow`.
        scheme: published draws weights with a deviation of 0.02 everywhere; fan_in by the number of
            inputs, without which what goes through narrow layers fades away, but for the last one.
    """

    weights: str | None = None
    discriminator: str | None = None
    flow: str | None = "spynet"
    scheme: Literal["published", "fan_in"] = "published"


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; see losses.py.

    Attributes:
        hole: L1 inside the holes.
        valid: L1 outside.
        adversarial: the discriminator's opinion; 0: there is none.
        flow: L1 to the flow that a frozen SPyNet sees between the true frames.
    """

    hole: NotNegative = 1.0
    valid: NotNegative = 1.0
    adversarial: NotNegative = 0.01
    flow: NotNegative = 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, for the network and for the discriminator.

    Attributes:
        lr: of the network.
        flow_lr: of the part that finds the flow, as a multiple of `lr`; 0: it is frozen.
        discriminator_lr: of the discriminator.
        betas: decay of Adam's two averages.
        clip: largest norm of a gradient; 0: no limit, as published.
    """

    lr: NotNegative = 1e-4
    flow_lr: NotNegative = 1.0
    discriminator_lr: NotNegative = 1e-4
    betas: tuple[Decay, Decay] = (0.0, 0.99)
    clip: NotNegative = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and how the learning rates change.

    Attributes:
        steps: how many.
        batch_size: samples per step, of all processes together.
        accumulate: parts a process cuts its share of a batch into, one after the other.
        warmup_steps: over which the learning rates rise.
        decay: step: a tenth after each of `drops`; cosine: to 0 at the end.
        drops: steps after which the rates are a tenth of what they were.
    """

    steps: Count = 500_000
    batch_size: Count = 8
    accumulate: Count = 1
    warmup_steps: Natural = 0
    decay: Literal["step", "cosine"] = "step"
    drops: tuple[Count, ...] = (400_000,)


@dataclass(frozen=True)
class ValidationConfig:
    """How good it is meanwhile, on clips that are not trained on, always with the same holes.

    Attributes:
        samples: how many; 0: none.
        every: steps between two validations; there is one at the end as well.
        clips: folders of clips; none: a twentieth of the clips, which is then not trained on.
    """

    samples: Natural = 32
    every: Count = 5000
    clips: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineConfig(recipes.EngineConfig):
    """How it is computed and kept.

    Attributes:
        save_every: steps between two states, from which a killed run goes on.
        draw_every: steps between two sheets of samples; 0: only that of the first batch.
    """

    save_every: Count = 5000
    draw_every: Natural = 1000


@dataclass(frozen=True)
class Recipe:
    """A whole run; `about` says what it is for."""

    about: str
    network: NetworkConfig
    data: DataConfig
    init: InitConfig = field(default_factory=InitConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are written into the run's folder."""
        return json.loads(json.dumps(asdict(self)))

    def as_values(self) -> dict[str, Any]:
        """The same in the form of a recipe file: without places."""
        values = self.as_dict()
        del values["data"]["clips"], values["data"]["objects"]
        return values


def list_recipes() -> list[str]:
    """Names of the recipes that come with the project."""
    return recipes.list_recipes(RECIPES)


def read_values(recipe: str) -> dict[str, Any]:
    """Plain values of a recipe, by name or file; see `recipes.read_values`."""
    return recipes.read_values(recipe, RECIPES)


def build_recipe(
    values: Mapping[str, Any],
    clips: Sequence[str],
    objects: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Recipe:
    """Check everything.

    Args:
        values: see `read_values`.
        clips: folders of clips to train on.
        objects: folders of masks of moving objects, for holes of their shapes.
        overrides: see `recipes.override`.

    Raises:
        InputError: something does not fit; says what, in one sentence.
    """
    for change in overrides:
        values = override(values, change)
    data = {**(values.get("data") or {}), "clips": list(clips), "objects": list(objects)}
    recipe = read(Recipe, {**values, "data": data}, "recipe")
    if recipe.losses.flow and recipe.init.flow is None:
        raise InputError("The loss flow needs a teacher: give init.flow, or set losses.flow=0.")
    if recipe.schedule.accumulate > recipe.schedule.batch_size:
        raise InputError("A batch cannot be cut into more parts than it has samples.")
    return recipe


def load_recipe(
    recipe: str,
    clips: Sequence[str],
    objects: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Recipe:
    """Read a recipe by name or file; see `build_recipe`."""
    return build_recipe(read_values(recipe), clips, objects, overrides)
