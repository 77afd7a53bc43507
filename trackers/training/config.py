"""What training a tracker takes: the sections of a recipe, and what follows from them.

Crop sizes stand in one place: they are those of the network.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from checkpoints.training import recipes
from checkpoints.training.recipes import (
    Count,
    Decay,
    Natural,
    NotNegative,
    Positive,
    Range,
    override,
    read,
)
from media import InputError
from trackers.base import build_network
from trackers.training.data import PACKED, DataConfig, SourceConfig, list_kinds

_log = logging.getLogger(__name__)
RECIPES = Path(__file__).parent / "recipes"

_Crop = Annotated[int, Range(least=16, multiple_of=16)]
_OPTIONS: dict[str, Any] = {  # of networks, as their classes describe them
    "search_size": _Crop,
    "template_size": _Crop,
    "dim": Annotated[int, Range(least=4, multiple_of=4)],
    "depth": Count,
    "heads": Count,
    "mlp_ratio": Positive,
    "feat_sz": Annotated[int, Range(least=2)],
    "drop_path": Decay,
    "removed_blocks": tuple[Natural, ...],
    "kept_hidden": Count | None,
}


@dataclass(frozen=True)
class NetworkConfig:
    """The network that is trained.

    Attributes:
        name: see `trackers.list_networks`.
        options: what shall differ from the preset, as in `trackers.build_network`.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InitConfig:
    """Where the first weights come from.

    Attributes:
        weights: file of a tracker, or the name of a checkpoint (`python -m checkpoints list`);
            strict but for `new`.
        new: beginnings of keys that the file need not have.
        unused: beginnings of the file's keys that are left out.
        removed_blocks: blocks of the file's network that are left out, the others moving up.
        kept_hidden: hidden units of the file's MLPs that are kept, the first ones.
        vit: file of a plain vision transformer for the backbone, of MAE or of timm, or the name of
            a checkpoint.
        scheme: torch leaves PyTorch's own start for what no file fills; trunc_normal draws linear
            layers from a narrow normal distribution, as vision transformers want it from scratch.
    """

    weights: str | None = None
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    removed_blocks: tuple[Natural, ...] = ()
    kept_hidden: Count | None = None
    vit: str | None = None
    scheme: Literal["torch", "trunc_normal"] = "torch"


@dataclass(frozen=True)
class TeacherConfig:
    """The network that is imitated; it is given the student's crops.

    Attributes:
        name: see `trackers.list_networks`.
        weights: its file, or the name of a checkpoint; None: random weights, for controls.
        options: as for the student; crop sizes, and the bins of a MixFormerV2, are the student's.
        resize: keep its own crop sizes, and enlarge the student's crops to them. So a 384 pixel
            teacher has as many bins as the published MixFormerV2 models, 96.
    """

    name: str
    weights: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    resize: bool = False


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; see losses.py. The defaults are those of the teacher's own training.

    Attributes:
        l1: of the box's corners.
        ciou: of the box.
        giou: of the box.
        edges: KL to the teacher's distributions over the position of each edge.
        features: squared difference to the teacher's tokens.
        feature_pairs: after which blocks tokens are compared: (student's, teacher's).
        score: does the crop show the target.
        focal: GRM's map of centres.
    """

    l1: NotNegative = 5.0
    ciou: NotNegative = 2.0
    giou: NotNegative = 0.0
    edges: NotNegative = 0.0
    features: NotNegative = 0.0
    feature_pairs: tuple[tuple[Natural, Natural], ...] = ()
    score: NotNegative = 0.0
    focal: NotNegative = 0.0


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW.

    Attributes:
        lr: of heads.
        backbone_lr: of what is called backbone, but for `head_names`.
        head_names: parts of names that are trained with `lr` wherever they stand.
        weight_decay: of all parameters, or of matrices only.
        matrices_only: no decay of biases, gains and tokens.
        betas: decay of AdamW's two averages.
        clip: largest norm of the gradient; 0: no limit.
        train_only: parts of names; what has none of them is frozen. Empty: train all.
    """

    lr: NotNegative = 4e-4
    backbone_lr: NotNegative = 4e-5
    head_names: tuple[str, ...] = ()
    weight_decay: NotNegative = 1e-4
    matrices_only: bool = False
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip: NotNegative = 0.1
    train_only: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and what changes meanwhile.

    Attributes:
        epochs: how many.
        samples_per_epoch: of all processes together; samples are drawn, not enumerated.
        batch_size: samples per step, of all processes together.
        accumulate: parts a process cuts its share of a batch into, one after the other.
        warmup_steps: over which the learning rate rises; 0 for a start from trained weights.
        decay: step: a tenth after every `drop_epochs`; cosine: to 0 at the end.
        drop_epochs: see `decay`.
        removal_epochs: over which the network's removed_blocks, and the hidden units behind
            kept_hidden, fade out.
    """

    epochs: Count = 500
    samples_per_epoch: Count = 60_000
    batch_size: Count = 256
    accumulate: Count = 1
    warmup_steps: Natural = 0
    decay: Literal["step", "cosine"] = "step"
    drop_epochs: Count = 400
    removal_epochs: Natural = 40

    def __post_init__(self) -> None:
        if self.samples_per_epoch < self.batch_size:
            raise InputError(
                f"An epoch of {self.samples_per_epoch} samples holds no batch of {self.batch_size}."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches."""
        return self.samples_per_epoch // self.batch_size

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class ValidationConfig:
    """How good it is meanwhile, on pairs that are not trained on.

    Attributes:
        sources: like the data's; none: the `val` part of those that are packed shards.
        samples: how many pairs; 0: none.
        every_epochs: after how many epochs, and at the end.
        follow: folder of sequences to track meanwhile, or KIND=PATH of a data set; of several
            processes the first one does, and the others wait.
        follow_frames: how many of each sequence; None: all.
        follow_every_epochs: after how many epochs, and at the end.
    """

    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: Natural = 10_000
    every_epochs: Count = 5
    follow: str | None = None
    follow_frames: Annotated[int, Range(least=2)] | None = None
    follow_every_epochs: Count = 5


@dataclass(frozen=True)
class EngineConfig(recipes.EngineConfig):
    """How it is computed and kept.

    Attributes:
        save_every_epochs: how often the state is kept, so that a killed run goes on from there.
    """

    save_every_epochs: Count = 5


@dataclass(frozen=True)
class Recipe:
    """A whole run; `about` says what it is for."""

    about: str
    network: NetworkConfig
    data: DataConfig
    init: InitConfig = field(default_factory=InitConfig)
    teacher: TeacherConfig | None = None
    losses: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are written into the run's folder."""
        return json.loads(json.dumps(asdict(self)))

    def as_values(self) -> dict[str, Any]:
        """The same in the form of a recipe file: without places, and crop sizes once."""
        values = self.as_dict()
        data = values["data"]
        del data["search_size"], data["template_size"]
        data["sources"] = {source.pop("kind"): source for source in data["sources"]}
        for source in data["sources"].values():
            del source["path"]
        return values


# ------------------------------------------------------------------------------------- recipes


def _sources(
    wanted: Mapping[str, Any] | None, places: Sequence[tuple[str, str]] | None
) -> list[dict[str, Any]]:
    """The recipe's settings per kind of source, with the places the command line gives."""
    wanted = {kind: settings or {} for kind, settings in (wanted or {}).items()}
    for kind, settings in wanted.items():
        if kind not in list_kinds():
            raise InputError(
                f"There is no kind of data {kind!r} for data.sources; there are "
                f"{', '.join(list_kinds())}."
            )
        where = f"data.sources.{kind}"
        if not isinstance(settings, Mapping):
            raise InputError(f"{where} should be a section of settings, not {settings!r}.")
        read(SourceConfig, {"kind": kind, "path": "", **settings}, where)
    if places is None:
        places = [(kind, "") for kind in wanted]
    without = [kind for kind in wanted if kind not in dict(places)]
    if without and places:
        _log.warning("Without --data %s=PATH: left out.", "=PATH, ".join(without))
    # Of packed shards a part is held out for validation unless the recipe says otherwise.
    part = {kind: {"split": "train"} for kind in PACKED}
    return [
        {"kind": kind, "path": path} | part.get(kind, {}) | wanted.get(kind, {})
        for kind, path in places
    ]


def build_recipe(
    values: Mapping[str, Any],
    data: Sequence[tuple[str, str]] | None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Check everything, and fill in what follows from the rest.

    Args:
        values: see `read_values`.
        data: kind and folder of each source; the recipe says how each kind is used. None: all the
            recipe's kinds, which are nowhere, so that it can be looked at but not trained.
        overrides: see `override`.

    Raises:
        InputError: something does not fit; says what, in one sentence.
    """
    for change in overrides:
        values = override(values, change)
    values = dict(values)
    section = values.get("data") or {}
    if not isinstance(section, Mapping):
        raise InputError(f"recipe.data should be a section of settings, not {section!r}.")
    section = dict(section)
    for key in ("search_size", "template_size"):
        if key in section:
            raise InputError(f"Crop sizes are the network's: set network.options.{key}.")
    sources = section.pop("sources", None)
    if not isinstance(sources, (Mapping, type(None))):
        raise InputError("data.sources names kinds of sources, each with its settings.")
    network = read(NetworkConfig, values.get("network"), "recipe.network")
    outline = _outline(network.name, network.options, "recipe.network.options")
    section |= {"search_size": outline.search_size, "template_size": outline.template_size}
    section["sources"] = _sources(sources, data)
    values["data"] = section
    recipe = read(Recipe, values, "recipe")
    _check(recipe, outline)
    return recipe


def _outline(name: str, options: Mapping[str, Any], where: str) -> Any:
    """The network without any memory for its weights. Raises InputError: options do not fit."""
    for key, value in options.items():
        read(_OPTIONS.get(key, Any), value, f"{where}.{key}")
    later = ("removed_blocks", "kept_hidden")  # they say which of its parts are to go
    whole = {key: value for key, value in options.items() if key not in later}
    try:
        with torch.device("meta"):
            _check_parts(build_network(name, **whole), options, where)
            return build_network(name, **options)
    except TypeError as error:
        raise InputError(f"{where} do not fit {name}: {error}.") from None


def _check_parts(network: Any, options: Mapping[str, Any], where: str) -> None:
    blocks = network.backbone.blocks
    block = blocks[0]
    dim, heads = block.attn.qkv.in_features, block.attn.heads
    if dim % heads:
        raise InputError(f"{where}.heads is a divisor of the {dim} channels, not {heads}.")
    for index in options.get("removed_blocks") or ():
        Range(most=len(blocks) - 1).check(index, f"{where}.removed_blocks")
    hidden = block.mlp.fc1.out_features
    Range(most=hidden).check(options.get("kept_hidden") or hidden, f"{where}.kept_hidden")


def list_recipes() -> list[str]:
    """Names of the recipes that come with the project."""
    return recipes.list_recipes(RECIPES)


def read_values(recipe: str) -> dict[str, Any]:
    """Plain values of a recipe, by name or file; see `recipes.read_values`."""
    return recipes.read_values(recipe, RECIPES)


def load_recipe(
    recipe: str, data: Sequence[tuple[str, str]] | None, overrides: Sequence[str] = ()
) -> Recipe:
    """Read a recipe by name or file; see `build_recipe`."""
    return build_recipe(read_values(recipe), data, overrides)


def _check(recipe: Recipe, outline: Any) -> None:
    """What no single section can know."""
    losses, teacher = recipe.losses, recipe.teacher
    if teacher is not None:
        _outline(teacher.name, teacher.options, "recipe.teacher.options")
    weights = {name: value for name, value in vars(losses).items() if name != "feature_pairs"}
    if not any(weights.values()):
        raise InputError(f"All losses are 0: give at least one of {', '.join(weights)} a weight.")
    kinds = [source.kind for source in recipe.data.sources]
    for kind in recipe.validation.sources:
        if kind not in kinds:
            raise InputError(
                f"validation.sources names {kind!r}, which is no kind of this run's data: "
                f"{', '.join(kinds)}."
            )
    if teacher is None and (losses.edges or losses.features):
        raise InputError("The losses edges and features need a teacher: give teacher.name.")
    if losses.features and not losses.feature_pairs:
        raise InputError("The loss features needs feature_pairs: which blocks are compared.")
    if losses.score and getattr(outline, "score_head", None) is None:
        raise InputError(f"{recipe.network.name} has no score head to train.")
    if recipe.data.sampler == "trident_pro" and not losses.score:
        raise InputError("The sampler trident_pro shows crops without a target: train the score.")
    if losses.focal and recipe.network.name.split("_")[0] != "grm":
        raise InputError("The loss focal is for GRM's map of centres.")
