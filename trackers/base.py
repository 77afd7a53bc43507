"""What every tracker offers, and the registry that builds trackers and networks by name."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

import checkpoints
from checkpoints import WeightsRecord
from media import InputError
from media.device import resolve_device

Mode = Literal["robust", "benchmark"]
StateDict = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Track:
    """Where the object is in one frame."""

    box: np.ndarray  # float32 (4,) x0 y0 x1 y1 in full-frame pixels
    score: float  # in [0, 1]; 1.0 on the frame the user gave; nan for a model without a score
    lost: bool = False  # then `box` is the last one that was trusted


class Tracker(Protocol):
    """Follows one object through the frames of one video, in order, forwards or backwards.

    Frames are (h, w, 3) RGB uint8, all of one size, and never written into. Boxes are x0 y0 x1 y1
    in full-frame pixels.
    """

    weights: WeightsRecord

    def initialize(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """Start anew with the object in `box`; it has an area and touches the frame."""
        ...

    def track(self, frame: np.ndarray) -> Track:
        """Find the object in the next frame."""
        ...

    def correct(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """Take the user's word for where the object is in this frame; keep what was learnt."""
        ...


# --------------------------------------------------------------------------------- checks of input


def check_frame(frame: np.ndarray, size: tuple[int, int] | None = None) -> None:
    """Raise InputError unless `frame` is (h, w, 3) uint8, and of `size` (height, width)."""
    if not isinstance(frame, np.ndarray):  # such as the None of a picture that could not be read
        raise InputError(
            "A frame is an array of height x width x 3 with type uint8, but this one is a "
            f"{type(frame).__name__}."
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise InputError(
            f"A frame is an array of height x width x 3 with type uint8, but this one is "
            f"{' x '.join(map(str, frame.shape))} with type {frame.dtype}."
        )
    height, width = frame.shape[:2]
    if size is not None and (height, width) != size:
        raise InputError(
            f"This frame is {width} x {height} pixels but the first was {size[1]} x {size[0]}; "
            "start the tracker anew where the size changes."
        )


def check_box(box: Sequence[float] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Check a box a user gave.

    Args:
        box: x0 y0 x1 y1 in pixels; it may reach beyond the frame, by the frame's size at most.
        size: (height, width) of the frame.

    Returns:
        float64 (4,).

    Raises:
        InputError: the box is not four finite numbers, has no area, lies outside of the frame or
            reaches too far beyond it.
    """
    try:
        values = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (4,) or not np.isfinite(values).all():
        raise InputError(f"A box is four numbers x0, y0, x1, y1, but this one is {box}.")
    x0, y0, x1, y1 = values
    shown = ", ".join(f"{value:g}" for value in values)
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"The box {shown} has no area; give x0, y0, x1, y1 with x1 > x0, y1 > y0.")
    height, width = size
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise InputError(f"The box {shown} lies outside of the {width} x {height} pixel frame.")
    if x0 < -width or y0 < -height or x1 > 2 * width or y1 > 2 * height:
        raise InputError(
            f"The box {shown} reaches far beyond the {width} x {height} pixel frame; "
            "is it given in pixels of this video?"
        )
    return values


# -------------------------------------------------------------------------------------- registry


@dataclass(frozen=True)
class _Entry:
    network: Callable[..., nn.Module]
    tracker: Callable[..., Tracker] | None
    checkpoints: tuple[str, ...]
    from_official: Callable[[StateDict], StateDict]
    sizes: Callable[[StateDict], dict[str, Any]]


_registry: dict[str, _Entry] = {}


def register(
    name: str,
    *,
    tracker: Callable[..., Tracker] | None = None,
    checkpoints: Sequence[str] = (),
    from_official: Callable[[StateDict], StateDict] = lambda state: state,
    sizes: Callable[[StateDict], dict[str, Any]] = lambda state: {},
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register the function below the decorator as the builder of a network.

    Args:
        name: for `build_network`, and for `build_tracker` if there is a tracker.
        tracker: called as tracker(network, weights=..., mode=..., **options), where the options are
            those of `build_tracker` that were given and that its signature names.
        checkpoints: names in `checkpoints.CHECKPOINTS` with weights for it, the best first.
        from_official: mends the known differences between official files and the network's state
            dict. Weights that differ in anything else are refused.
        sizes: overrides that weights of another size tell by their shapes; may raise KeyError.

    Raises:
        ValueError: the name is taken.
    """

    def add(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if name in _registry:
            raise ValueError(f"two networks want to be called {name!r}")
        _registry[name] = _Entry(network, tracker, tuple(checkpoints), from_official, sizes)
        return network

    return add


def _entries() -> dict[str, _Entry]:
    """The registry, after every file in trackers/models has had the chance to register."""
    models = importlib.import_module("trackers.models")
    for module in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"trackers.models.{module.name}")
    return _registry


def list_trackers() -> list[str]:
    """Names for `build_tracker`, sorted."""
    return sorted(name for name, entry in _entries().items() if entry.tracker is not None)


def list_networks() -> list[str]:
    """Names for `build_network`, sorted: those of the trackers, and what only training needs."""
    return sorted(_entries())


def _entry(kind: str, name: str, names: Sequence[str]) -> _Entry:
    if name not in names:
        raise InputError(f"There is no {kind} called {name!r}; there are {', '.join(names)}.")
    return _registry[name]


def build_network(name: str, **overrides: Any) -> nn.Module:
    """Build a network without training it, with the keys of the official checkpoints.

    Args:
        name: one of `list_networks()`.
        overrides: arguments of the network's class that shall differ from the preset.

    Raises:
        InputError: there is no such network.
    """
    return _entry("network", name, list_networks()).network(**overrides)


def build_tracker(
    name: str,
    *,
    device: str | torch.device = "auto",
    weights: str | PathLike[str] | StateDict | None = None,
    mode: Mode = "robust",
    search_factor: float | None = None,
    update_interval: int | None = None,
    online_size: int | None = None,
    threshold: float | None = None,
    fast: bool = False,
) -> Tracker:
    """Build a tracker that is ready to follow one object.

    Args:
        name: one of `list_trackers()`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" or "mps".
        weights: a file, a state dict, or None for the best checkpoint on this machine: the official
            one, else the one bundled with the project. The network takes the sizes of the weights:
            crops, bins, width, depth, and whether there is a score head. A training run notes in
            its file what shapes do not tell, and its crop factors, which are taken over.
        mode: "robust" for real videos; "benchmark" for the published protocol, never lost.
        search_factor: side of the search window in multiples of the object's mean side.
        update_interval: frames between two updates of the online templates (MixFormerV2).
        online_size: how many online templates are kept (MixFormerV2).
        threshold: a search token meets the template when its probability of staying alone is below
            this; 0: when it is the less likely of the two (GRM).
            Options that are None take the tracker's own default.
        fast: run the transformer's layers in bfloat16; on a GPU also cut out crops there, and
            replay the network's kernels as a CUDA graph. Boxes differ a little, and published
            results come without it. A CPU without instructions for bfloat16 becomes slower.

    Raises:
        InputError: an argument does not exist or does not fit this tracker, or the weights belong
            to another network.
        checkpoints.CheckpointError: there are no weights, or the file is damaged.
    """
    entry = _entry("tracker", name, list_trackers())
    assert entry.tracker is not None
    if mode not in ("robust", "benchmark"):
        raise InputError(f"A tracker's mode is 'robust' or 'benchmark', not {mode!r}.")
    options: dict[str, float] = {}
    for option, value, least in (
        ("search_factor", search_factor, 1),
        ("update_interval", update_interval, 1),
        ("online_size", online_size, 1),
        ("threshold", threshold, 0),
    ):
        if value is None:
            continue
        if option not in inspect.signature(entry.tracker).parameters:
            raise InputError(f"The tracker {name} has no option {option}; leave it out.")
        if not value >= least:
            raise InputError(f"The option {option} is at least {least}, not {value}.")
        options[option] = value
    target = resolve_device(device)
    with torch.inference_mode(False):  # whatever the caller is in: weights are ordinary tensors
        network, info = _load(name, weights)
        network.requires_grad_(False).eval().to(target)
        if getattr(network, "removed_blocks", ()) or getattr(network, "kept_hidden", None):
            network.set_removal_coefficient(0.0)  # type: ignore[operator]  # as the run ends
    factors = noted_factors(name, weights)
    template_factor = factors.pop("template_factor", None)
    tracker = entry.tracker(network, weights=info, mode=mode, **factors | options)
    if template_factor is not None:
        tracker.template_factor = template_factor  # type: ignore[attr-defined]
    if fast:
        accelerate = getattr(tracker, "accelerate", None)
        if accelerate is None:
            raise InputError(f"The tracker {name} has no option fast; leave it out.")
        accelerate()
    return tracker


# --------------------------------------------------------------------------------------- weights


def _load(
    name: str, weights: str | PathLike[str] | StateDict | None
) -> tuple[nn.Module, WeightsRecord]:
    """Build a network with weights, loaded strictly, and say which they are.

    Half precision is cast up. The tensors are copied: whoever handed in a state dict may go on
    training with it.
    """
    if isinstance(weights, Mapping):
        info, state = WeightsRecord.of_tensors(weights), weights
    else:
        label, path = _find_weights(name) if weights is None else (str(weights), Path(weights))
        if not path.is_file():
            raise InputError(f"There is no file {path}; give weights that exist, or none.")
        info, state = WeightsRecord.of_file(label, path), checkpoints.load_state_dict(path)
    found = _registry[name].from_official(state)
    network = _outline_for(name, found, _noted(weights).get("options", {}), info.name)
    wanted = network.state_dict()
    cast_up = {key: tensor.to(wanted[key].dtype, copy=True) for key, tensor in found.items()}
    network.load_state_dict(cast_up, assign=True)
    return network, info


def _outline_for(name: str, state: StateDict, noted: Mapping[str, Any], label: str) -> nn.Module:
    """The network as registered if that fits, else of the sizes that the weights tell."""
    network = _outline(name)
    difference = checkpoints.difference(network.state_dict(), state)
    if not difference and not noted:
        return network
    likely = [other for other in list_networks() if other != name and _fits(other, state)]
    if noted or not any(_registry[other].tracker for other in likely):
        try:
            network = _outline(name, **{**_registry[name].sizes(state), **noted})
            difference = checkpoints.difference(network.state_dict(), state)
        except (LookupError, TypeError):
            pass  # of another architecture, as the difference says
    if difference:
        looks = f"; it looks like one for {' or '.join(likely)}" if likely else ""
        raise InputError(f"The weights {label} do not fit {name}: {difference}{looks}.")
    return network


def _noted(weights: str | PathLike[str] | StateDict | None) -> dict[str, Any]:
    """What a training run has written into its weights' head: options of the network, factors."""
    if weights is None or isinstance(weights, Mapping):
        return {}
    text = checkpoints.load_notes(weights).get("tracker", "{}")
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise InputError(f"The notes in the head of {weights} are damaged: {text!r}.") from None


def noted_factors(name: str, weights: str | PathLike[str] | StateDict | None) -> dict[str, float]:
    """Crop factors that a training run has noted in its weights and that are not the tracker's own.

    Args:
        name: one of `list_trackers()`.
        weights: as for `build_tracker`.

    Returns:
        search_factor, template_factor, or one of them, or none.
    """
    noted = _noted(weights)
    if not noted:
        return {}
    tracker = _entry("tracker", name, list_trackers()).tracker
    assert tracker is not None
    usual = inspect.signature(tracker).parameters["search_factor"].default
    own = {"search_factor": usual, "template_factor": 2.0}
    return {key: noted[key] for key in own if noted.get(key, own[key]) != own[key]}


def _find_weights(name: str) -> tuple[str, Path]:
    names = _registry[name].checkpoints
    for checkpoint in names:
        path = checkpoints.find(checkpoint)
        if path is not None:
            return checkpoint, path
    if not names:
        raise InputError(f"There are no published weights for {name}; name a file of your own.")
    return names[0], checkpoints.path(names[0])  # raises, and says how to fetch it


def _fits(name: str, state: StateDict) -> bool:
    wanted = _outline(name).state_dict()
    return not checkpoints.difference(wanted, _registry[name].from_official(state))


def _outline(name: str, **overrides: Any) -> nn.Module:
    """A network with shapes but no memory behind them, until weights are assigned."""
    with torch.device("meta"):
        return build_network(name, **overrides)
