"""Tensors out of a weight file, and nothing else: no code of the file ever runs.

A `.pth` file is a pickle, and a pickle is a program. `torch.load(weights_only=True)` reads the
plain ones. The official tracker files also hold the trainer's settings as objects of upstream's own
classes (`lib.train.admin...`), which that reader refuses; those are read with an unpickler that
knows five harmless names and turns every other name into an inert stand-in. So the settings come
out as empty husks, which are dropped, and `os.system` comes out as just such a husk.
"""

from __future__ import annotations

import functools
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

from checkpoints.errors import CheckpointError
from checkpoints.formats import FormatError, pieces, weight_kind

if TYPE_CHECKING:
    import torch

_ENTRIES = ("net", "params", "model", "state_dict")
"""Where files keep their state dict: trackers, BasicSR, MAE, Lightning; the first one counts."""


class _Inert:
    """Stands for whatever a pickle names: swallows construction, state and contents."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return _Inert()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The only way from a pickle to a Python object.

        Functions are wrapped anew each time: the pickle could otherwise set attributes (BUILD) on
        torch's own function objects. Storage types never come here; `torch.load` knows them.
        """
        import torch

        harmless: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "Size"): torch.Size,
            ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        }
        known = harmless.get((module, name), _Inert)
        return known if isinstance(known, type) else functools.partial(known)


def _load(file: BinaryIO, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


def _read_without_code(path: Path) -> Any:
    import torch

    reader = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="checkpoints.loading")
    # weights_only=False lets torch use our reader; it never sees Python's own.
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)


def _read(path: Path) -> Any:
    if weight_kind(path) == "safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # names other than tensors, or a broken pickle
        return _read_without_code(path)


def _tensors(content: Any) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(content, Mapping):
        entries = (content[key] for key in _ENTRIES if isinstance(content.get(key), Mapping))
        content = next(entries, content)
    if not isinstance(content, Mapping) or not content:
        raise FormatError("holds no named tensors")
    strangers = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strangers or not all(isinstance(key, str) for key in content):
        raise FormatError(f"holds more than named tensors: {strangers[:3]}")
    return {key: value.detach() for key, value in content.items()}


def load_state_dict(path: str | PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the named tensors of a weight file, onto the CPU, without running any code of it.

    Reads safetensors, files of `torch.save` (zip and the format before torch 1.6), official tracker
    files that hold settings objects besides, and all the pieces that an `.index.json` names. If a
    file holds a dict with an entry `net`, `params`, `model` or `state_dict` (in this order) that is
    itself a dict, that entry is taken; everything else in it (optimizer, statistics, settings) is
    dropped.

    Args:
        path: The file.

    Returns:
        Names to tensors, in the file's order and precision (the bundled tracker is float16; a
        module's `load_state_dict` casts).

    Raises:
        CheckpointError: Not there, empty, cut off, an HTML page, or not a state dict.
    """
    path = Path(path)
    try:
        files = pieces(path)
        if files != [path]:
            return {key: value for file in files for key, value in load_state_dict(file).items()}
        return _tensors(_read(path))
    except CheckpointError:  # which names the piece
        raise
    except FormatError as error:
        blame = str(error)
    except OSError as error:
        blame = f"cannot be read ({error.strerror or error})"
    except Exception as error:  # torch, pickle and zip raise a dozen kinds on a damaged file
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        blame = f"is damaged or not a weight file ({detail})"
    raise CheckpointError(f"{path} {blame}; download it again or name another file.")


def difference(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """Say in a few words what keeps `state` from being loaded as `wanted`, "" if nothing does."""
    # Batch counters are not weights, and many a converted file leaves them out, as torch allows.
    missing = [k for k in wanted if k not in state and not k.endswith(".num_batches_tracked")]
    surplus = [key for key in state if key not in wanted]
    shaped = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} keys are missing ({missing[0]}, ...)")
    if surplus:
        problems.append(f"{len(surplus)} keys are unknown ({surplus[0]}, ...)")
    if shaped:
        key = shaped[0]
        found, needed = tuple(state[key].shape), tuple(wanted[key].shape)
        problems.append(f"{len(shaped)} shapes differ ({key} is {found}, not {needed})")
    return ", ".join(problems)


def load_notes(path: str | PathLike[str]) -> dict[str, str]:
    """Read the notes in the head of a safetensors file, or of the first of an index's pieces.

    Returns:
        What was noted; nothing for files of another kind, or that cannot be read: loading says why.
    """
    from safetensors import SafetensorError, safe_open

    try:
        first = pieces(Path(path))[0]
        if weight_kind(first) != "safetensors":
            return {}
        with safe_open(first, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, FormatError, SafetensorError):
        return {}
