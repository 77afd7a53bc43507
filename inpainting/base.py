"""What an inpainter is, and the list of those there are."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from media import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

Frame = np.ndarray
"""RGB uint8 (h, w, 3)."""
Mask = np.ndarray
"""bool (h, w); True = paint this over."""


class FrameSource(Protocol):
    """The frames of a clip, read when asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Frame: ...


class MaskSource(Protocol):
    """One mask per frame, read when asked for; an empty mask leaves its frame as it is."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mask: ...


class Inpainter(Protocol):
    """Paints things away. One instance serves one clip at a time."""

    weights: str
    """Names and hashes of the weights in use, for the record of a run."""

    notes: list[str]
    """Sentences for the user about the clip last painted; complete when the frames are through."""

    def inpaint(
        self, frames: FrameSource, masks: MaskSource, *, start: int = 0, stop: int | None = None
    ) -> Iterator[Frame]:
        """Yield the frames `start` up to `stop` (the end) in order, the masked things gone.

        Frames outside that range may be read as well: what they show helps those inside it.

        Raises:
            InputError: Frames and masks do not fit together, or there is nothing to paint from.
        """
        ...


def check_clip(frames: FrameSource, masks: MaskSource, start: int, stop: int | None) -> range:
    """The frames that `inpaint` is asked for.

    Raises:
        InputError: There is not one mask per frame, or the range is not inside the clip.
    """
    count = len(frames)
    if len(masks) != count:
        raise InputError(
            f"There are {count} frames but {len(masks)} masks; give one mask per frame."
        )
    stop = count if stop is None else min(stop, count)
    if not 0 <= start <= stop:
        raise InputError(f"The range {start} to {stop} is not inside the {count} frames.")
    return range(start, stop)


def check_mask(mask: Mask, frame: Frame, index: int) -> None:
    """Raise InputError unless the mask of frame `index` has the frame's size."""
    if mask.shape != frame.shape[:2]:
        raise InputError(
            f"The mask of frame {index} is {mask.shape[1]}x{mask.shape[0]} pixels but the "
            f"frame is {frame.shape[1]}x{frame.shape[0]}; give masks of the frames' size."
        )


Builder = TypeVar("Builder", bound=Callable[..., Inpainter])
_BUILDERS: dict[str, Callable[..., Inpainter]] = {}
_NETWORKS: dict[str, Callable[..., nn.Module]] = {}
_WEIGHTS: dict[str, Callable[[], Path]] = {}
_WITHOUT: dict[str, str] = {}  # modules that cannot be had here, and the packages they lack


def register(
    name: str,
    *,
    network: Callable[..., nn.Module] | None = None,
    weights: Callable[[], Path] | None = None,
) -> Callable[[Builder], Builder]:
    """Make a class or function known as the builder of the inpainter `name`.

    Args:
        name: for `build_inpainter`.
        network: builds its network without training, for `build_network`; None = it has not just
            one.
        weights: finds the file it loads when none is given, or raises CheckpointError, for
            `check_inpainter`; None = it does without.
    """

    def add(builder: Builder) -> Builder:
        _BUILDERS[name] = builder
        if network is not None:
            _NETWORKS[name] = network
        if weights is not None:
            _WEIGHTS[name] = weights
        return builder

    return add


def list_inpainters() -> list[str]:
    """The names `build_inpainter` knows, sorted. Every module beside this one may add some.

    Those that need a package that is not installed, as on a machine for training, are left out.
    """
    package = __package__ or "inpainting"
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.ispkg and not module.name.startswith("_"):
            try:
                importlib.import_module(f"{package}.{module.name}")
            except ModuleNotFoundError as error:
                if error.name is None or error.name.startswith(package):
                    raise
                _WITHOUT[module.name] = error.name
    return sorted(_BUILDERS)


def build_network(name: str, **changes: Any) -> nn.Module:
    """Build an inpainter's network without training it, with the keys of the official checkpoint.

    Args:
        name: of the inpainter.
        changes: arguments of the network's class that shall differ, such as its width.

    Raises:
        InputError: No inpainter with a network of its own has that name.
    """
    list_inpainters()
    if name not in _NETWORKS:
        raise InputError(f"There is no network called {name!r}{_instead(_NETWORKS)}")
    return _NETWORKS[name](**changes)


def _instead(names: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known."""
    lacking = ", ".join(f"{module} (it needs {package})" for module, package in _WITHOUT.items())
    missing = f"; not to be had here: {lacking}" if lacking else ""
    return f"; choose one of {', '.join(sorted(names))}{missing}."


def check_name(name: str) -> None:
    """Raise InputError unless `build_inpainter` knows the name."""
    names = list_inpainters()
    if name not in names:
        raise InputError(f"There is no inpainter called {name!r}{_instead(names)}")


def check_inpainter(name: str) -> None:
    """Raise what `build_inpainter` without weights would, as far as is known without loading any.

    Raises:
        InputError: No inpainter has that name.
        checkpoints.CheckpointError: Its weights are not there, or damaged.
    """
    check_name(name)
    if name in _WEIGHTS:
        _WEIGHTS[name]()


def build_inpainter(
    name: str,
    *,
    device: str = "auto",
    weights: str | Path | Mapping[str, Tensor] | None = None,
    dilate: int | None = None,
    **options: Any,
) -> Inpainter:
    """Build an inpainter by name.

    Args:
        name: one of `list_inpainters()`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        weights: the file to load, or a state dict if the inpainter is one network; None = the file
            in the checkpoints folder.
        dilate: pixels by which every mask is grown first, so that it covers the object's soft
            edge; None = by the inpainter's own rule.
        options: what the inpainter itself understands. All know `resolution`, the pixels of the
            longer side of what their networks work at; None = by their own rule.

    Raises:
        InputError: No inpainter has that name.
        checkpoints.CheckpointError: The weights are not there, or damaged.
    """
    check_name(name)
    return _BUILDERS[name](device=device, weights=weights, dilate=dilate, **options)
