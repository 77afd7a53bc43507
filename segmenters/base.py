"""What every segmenter has in common: prompts in, candidate masks out, and the registry by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn

import checkpoints
from checkpoints import WeightsRecord
from media import InputError
from media.device import resolve_device

if TYPE_CHECKING:
    from segmenters.hourglass import HourglassConfig

MASK_INPUT_SIZE = (256, 256)  # of the low-resolution logits, in and out


def _floats(values: object, what: str, shape: tuple[int | None, ...], wanted: str) -> np.ndarray:
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    fits = array.ndim == len(shape) and all(
        size in (None, actual) for size, actual in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.isfinite(array).all():
        raise InputError(f"The {what} of a prompt must be {wanted}, all finite.")
    return array


def _numbers(values: np.ndarray) -> str:
    return ",".join(f"{value:g}" for value in values)


@dataclass(frozen=True, eq=False)
class Prompt:
    """Where the object is, in full-frame pixels; at least one of box, points and mask_logits.

    Attributes:
        box: Float (4,), x0 y0 x1 y1 with x1, y1 exclusive. It may reach over the edge of the frame
            (a tracked box does) and is clipped to it.
        points: Float (n, 2), x y, inside the frame.
        labels: Int (n,), 1 for a point on the object, 0 for one beside it. Left out, all are 1.
        mask_logits: Float (256, 256), `Candidate.logits` of an earlier answer about the same frame:
            refines it.

    Raises:
        InputError: A part has the wrong shape, or there is nothing to go by.
    """

    box: np.ndarray | None = None
    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    mask_logits: np.ndarray | None = None

    def __post_init__(self) -> None:
        box, points, labels, mask_logits = self.box, self.points, self.labels, self.mask_logits
        if labels is not None and points is None:
            raise InputError("Labels were given without points; give one point for each label.")
        if box is None and points is None and mask_logits is None:
            raise InputError("A prompt needs a point, a box or a mask; this one has none of them.")
        if box is not None:
            box = _floats(box, "box", (4,), "four numbers x0 y0 x1 y1")
            if box[2] <= box[0] or box[3] <= box[1]:
                raise InputError(
                    f"The box {_numbers(box)} has no area; "
                    "give x0 y0 x1 y1 with x1 > x0 and y1 > y0."
                )
        if points is not None:
            points = _floats(points, "points", (None, 2), "a list of x y pairs")
            labels = np.ones(len(points)) if labels is None else np.asarray(labels)
            if not len(points):
                raise InputError("The list of points is empty; give at least one.")
            if labels.shape != (len(points),) or not np.isin(labels, (0, 1)).all():
                raise InputError(
                    "Give each point one label: 1 on the object, 0 beside it "
                    f"({len(points)} points, labels {labels.tolist()})."
                )
            labels = labels.astype(np.int32)
        if mask_logits is not None:
            mask_logits = _floats(
                mask_logits, "mask logits", MASK_INPUT_SIZE, "the 256x256 logits of a candidate"
            )
        checked = {"box": box, "points": points, "labels": labels, "mask_logits": mask_logits}
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def in_frame(self, size: tuple[int, int]) -> Prompt:
        """Return the prompt for a frame of `size` (height, width), its box clipped to the frame.

        Raises:
            InputError: A point, or the whole box, lies outside the frame.
        """
        height, width = size
        frame = f"the frame, which is {width} pixels wide and {height} high"
        if self.points is not None:
            outside = ((self.points < 0) | (self.points >= (width, height))).any(axis=1)
            if outside.any():
                point = _numbers(self.points[outside][0])
                raise InputError(f"The point {point} lies outside {frame}.")
        if self.box is None:
            return self
        box = np.clip(self.box, 0, np.array([width, height, width, height], np.float32))
        if box[2] <= box[0] or box[3] <= box[1]:
            raise InputError(f"The box {_numbers(self.box)} lies outside {frame}.")
        return replace(self, box=box)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One answer to a prompt.

    Attributes:
        mask: Bool (h, w) at frame size, True on the object.
        score: The model's own guess of the mask's IoU with the object, about [0, 1].
        logits: Float32 (256, 256), > 0 on the object, in the model's padded square frame; hand them
            back as `Prompt.mask_logits` to refine this answer.
    """

    mask: np.ndarray
    score: float
    logits: np.ndarray


@dataclass(frozen=True, eq=False)
class Embedding:
    """A frame as the model sees it: everything `predict` needs to know about it.

    Attributes:
        features: Float (1, c, h', w') on the model's device.
        size: (height, width) of the frame in pixels.
    """

    features: Tensor
    size: tuple[int, int]


class Segmenter(Protocol):
    """Turns prompts about one frame into masks.

    Stateless: everything about a frame is in its `Embedding`, so that several users may share one
    instance, and a prompt on a frame already encoded costs only the small decoder.

    Attributes:
        weights: Which weights it runs.
        device: Where it runs.
        settings: What the features of a frame depend on beside the weights, for who keeps features.
    """

    weights: WeightsRecord
    device: torch.device

    @property
    def settings(self) -> str: ...

    def encode(self, frame: np.ndarray) -> Embedding:
        """Look at an RGB uint8 (h, w, 3) frame. The slow part, once per frame."""
        ...

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        """Answer each prompt (one object each) with candidates, the best score first.

        Raises:
            InputError: A prompt lies outside the frame.
        """
        ...

    def predict_logits(
        self, embedding: Embedding, prompts: Sequence[Prompt]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Answer as `predict`, but leave out the masks: most of the work after the decoder.

        Returns:
            Per prompt float32 logits (n, 256, 256) and scores (n,), as those of `Candidate`, the
            best first.

        Raises:
            InputError: A prompt lies outside the frame.
        """
        ...

    def enlarge(self, logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Turn logits (n, 256, 256) into bool masks (n, h, w) for a frame of `size` (h, w)."""
        ...


WeightsSource = str | Path | Mapping[str, Tensor] | None  # None: the checkpoint of that name
Precision = Literal["float32", "bfloat16", "float16"]
Factory = Callable[..., Segmenter]
_FACTORIES: dict[str, Factory] = {}
_PRESETS: dict[str, Mapping[str, HourglassConfig]] = {}


def register(
    name: str, factory: Factory, *, presets: Mapping[str, HourglassConfig] | None = None
) -> None:
    """Make a segmenter known by name. `factory(device, weights)` builds it.

    It also takes `precision=`, a `torch.dtype`, if it can compute in another than float32.
    With `presets` (settings of token clustering by name) it also takes `hourglass=`, a config.
    """
    if name in _FACTORIES:
        raise ValueError(f"a segmenter {name!r} is registered already")
    _FACTORIES[name] = factory
    if presets is not None:
        _PRESETS[name] = presets


def _recognise(state: Mapping[str, Tensor]) -> str | None:
    """Whose official weights these probably are, to say so when they are another's."""
    positions = state.get("image_encoder.pos_embed")
    if positions is not None:
        widths = {768: "sam_vit_b", 1024: "sam_vit_l", 1280: "sam_vit_h"}
        return widths.get(positions.shape[-1])
    return "mobile_sam" if "image_encoder.patch_embed.seq.0.c.weight" in state else None


def load_weights(
    network: nn.Module, name: str, weights: WeightsSource, *, unused: Sequence[str] = ()
) -> WeightsRecord:
    """Fill a network strictly: every key of the file is used once, and none is missing.

    Args:
        network: Untrained network with the official key names.
        name: The segmenter's name, which is also that of its checkpoint.
        weights: None for the checkpoint of that name, else a file or a state dict.
        unused: Official keys that this network has no use for.

    Raises:
        checkpoints.CheckpointError: The file is missing, damaged, or made for another network.
    """
    if isinstance(weights, Mapping):
        used, state = WeightsRecord.of_tensors(weights), dict(weights)
    else:
        path = checkpoints.path(name) if weights is None else Path(weights)
        state = checkpoints.load_state_dict(path)
        used = WeightsRecord.of_file(name if weights is None else str(path), path)
    state = {key: value for key, value in state.items() if key not in unused}
    if difference := checkpoints.difference(network.state_dict(), state):
        source = "The given state dict" if isinstance(weights, Mapping) else str(path)
        owner = _recognise(state)
        if owner not in (None, name):
            raise checkpoints.CheckpointError(
                f"{source} holds weights of {owner}, not of {name}; choose the segmenter {owner}, "
                "or give another file."
            )
        raise checkpoints.CheckpointError(
            f"{source} does not hold weights of {name}: {difference}."
        )
    network.load_state_dict(state)
    return used


def _discover() -> None:
    """Import every module of this package, so that each new file can register itself."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")


def list_segmenters() -> list[str]:
    """Return the names `build_segmenter` knows, sorted."""
    _discover()
    return sorted(_FACTORIES)


def _clustering(name: str, hourglass: HourglassConfig | str) -> HourglassConfig:
    if name not in _PRESETS:
        raise InputError(
            f"{name} has no plain vision transformer whose tokens could be clustered; "
            f"leave `hourglass` out, or choose one of {', '.join(sorted(_PRESETS))}."
        )
    if not isinstance(hourglass, str):
        return hourglass
    if hourglass not in _PRESETS[name]:
        raise InputError(
            f"{name} has no hourglass preset {hourglass!r}; "
            f"choose one of {', '.join(_PRESETS[name])}, or give an HourglassConfig."
        )
    return _PRESETS[name][hourglass]


def _check_name(name: str) -> None:
    names = list_segmenters()
    if name not in names:
        raise InputError(f"There is no segmenter {name!r}; choose one of {', '.join(names)}.")


def check_segmenter(name: str) -> None:
    """Raise what `build_segmenter` without weights would, as far as is known without loading any.

    Raises:
        InputError: There is no such segmenter.
        checkpoints.CheckpointError: Its weights are missing or damaged.
    """
    _check_name(name)
    if name in checkpoints.CHECKPOINTS:  # where `load_weights` looks
        checkpoints.path(name)


def build_segmenter(
    name: str,
    *,
    device: str = "auto",
    weights: WeightsSource = None,
    hourglass: HourglassConfig | str | None = None,
    precision: Precision = "float32",
) -> Segmenter:
    """Build a segmenter with its weights, ready to use.

    Args:
        name: One of `list_segmenters()`.
        device: auto (the fastest there is), cpu, cuda, cuda:1 or mps.
        weights: None for the checkpoint of that name, else a file or a state dict with the official
            keys.
        hourglass: For SAM's plain vision transformers (sam_vit_b, _l, _h): encode a frame with
            fewer tokens, faster and less exactly, with the same weights. A preset ("balanced",
            "fast") or settings of your own; see `segmenters.hourglass`.
        precision: What the image encoder multiplies in. bfloat16 and float16 take half the memory
            and less time on hardware made for them, for slightly different masks; norms stay in
            float32.

    Raises:
        InputError: There is no such segmenter or device, or it cannot be clustered so.
        checkpoints.CheckpointError: The weights are missing, damaged, or made for another network.
    """
    _check_name(name)
    if precision not in get_args(Precision):
        raise InputError(
            f"There is no precision {precision!r}; choose one of {', '.join(get_args(Precision))}."
        )
    options: dict[str, Any] = {}
    if hourglass is not None:
        options["hourglass"] = _clustering(name, hourglass)
    if precision != "float32":
        options["precision"] = getattr(torch, precision)
    return _FACTORIES[name](resolve_device(device), weights, **options)
