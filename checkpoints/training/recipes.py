"""What a training run does: recipes, read strictly, with what the command line changes.

A recipe is a .yaml or .json file, one of a folder that comes with the project or one's own. `base:
NAME` takes another one and changes it, key by key.
"""

from __future__ import annotations

import difflib
import json
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_type_hints

from media import InputError

T = TypeVar("T")


# -------------------------------------------------------------------------------------- ranges


@dataclass(frozen=True)
class Range:
    """Which numbers a setting takes. It stands in the setting's type: Annotated[int, Range(1)].

    Attributes:
        least: the smallest one; most is the largest, and both are in.
        above: it is larger than this; below: it is smaller.
        multiple_of: of what it is a multiple.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    multiple_of: int | None = None

    def check(self, value: float, where: str) -> None:
        """Raise InputError unless the value is one of them."""
        given = {name: bound for name, bound in vars(self).items() if bound is not None}
        holds = (_RULES[name][1](value, bound) for name, bound in given.items())
        if not math.isfinite(value) or not all(holds):
            words = " and ".join(f"{_RULES[name][0]} {bound}" for name, bound in given.items())
            raise InputError(f"{where} is {words}, not {value}.")


_RULES: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "least": ("at least", operator.ge),
    "most": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
    "multiple_of": ("a multiple of", lambda value, unit: value % unit == 0),
}

Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]
NotNegative = Annotated[float, Range(least=0)]
Positive = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(least=0, most=1)]
Decay = Annotated[float, Range(least=0, below=1)]


def check_ranges(settings: object) -> None:
    """Hold what was built by hand to the ranges of its fields, as `read` does: `__post_init__`.

    Raises:
        InputError: a number is outside.
    """
    for name, kind in get_type_hints(type(settings), include_extras=True).items():
        _check_ranges(kind, getattr(settings, name), name)


def _check_ranges(kind: Any, value: Any, where: str) -> None:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return
    if origin is Annotated:
        parts[1].check(value, where)
    elif origin in (Union, types.UnionType):
        _check_ranges(next(p for p in parts if p is not type(None)), value, where)
    elif origin is tuple:
        kinds = parts if parts[-1] is not Ellipsis else [parts[0]] * len(value)
        for i, (part, each) in enumerate(zip(kinds, value, strict=True)):
            _check_ranges(part, each, f"{where}.{i}")
    elif isinstance(value, Mapping) and parts:
        for key, each in value.items():
            _check_ranges(parts[1], each, f"{where}.{key}")


# -------------------------------------------------------------------------------------- engine


@dataclass(frozen=True)
class EngineConfig:
    """How it is computed and kept.

    Attributes:
        seed: of all chance; process r adds r.
        bf16: compute in bfloat16 what bears it (autocast).
        compile: let torch.compile fuse what is trained.
        ema: decay per step of the average over steps that is written as the result; 0: none.
        half: write the result in half precision.
        piece_mb: cut the result into files of at most so many megabytes; 0: one file.
        log_every: steps between two lines of the log.
    """

    seed: Annotated[int, Range(least=0, below=2**32)] = 42
    bf16: bool = False
    compile: bool = False
    ema: Decay = 0.0
    half: bool = False
    piece_mb: Natural = 0
    log_every: Count = 50


# ------------------------------------------------------------------------------- strict reading


def _refuse_unknown(given: Iterable[str], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            hint = f"; the nearest there is is {near[0]!r}" if near else ""
            raise InputError(f"There is no setting {key!r} in {where}{hint}.")


def read(kind: type[T], value: Any, where: str) -> T:
    """Turn plain values into a dataclass, or another annotated type, and refuse what does not fit.

    Args:
        kind: a dataclass, int, float, str, bool, a Literal, tuple[...], Mapping[...], one of them
            | None, or one of them with a `Range`.
        value: as YAML and JSON know it.
        where: for messages.

    Raises:
        InputError: a key is unknown or missing, or a value is of another type or out of range.
    """
    return typing.cast(T, _read(kind, value, where))


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (part for part in parts if part is not type(None))
        return None if value is None else _read(inner, value, where)
    if origin is Annotated:
        found = _read(parts[0], value, where)
        parts[1].check(found, where)
        return found
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin is Literal:
        if value not in parts:
            raise InputError(f"{where} is one of {', '.join(map(str, parts))}, not {value!r}.")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        if parts[-1] is Ellipsis:
            return tuple(_read(parts[0], v, f"{where}.{i}") for i, v in enumerate(value))
        if len(parts) == len(value):
            pairs = zip(parts, value, strict=True)
            return tuple(_read(p, v, f"{where}.{i}") for i, (p, v) in enumerate(pairs))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return {str(key): _read(parts[1], v, f"{where}.{key}") for key, v in value.items()}
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif kind in (int, str, bool) and type(value) is kind:
        return value
    raise InputError(f"{where} should be {_wanted(kind)}, not {value!r}.")


def _wanted(kind: Any) -> str:
    """A type as a person calls it who writes a recipe."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return "a list" if parts[-1] is Ellipsis else f"a list of {len(parts)} values"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(kind, "a section of settings")


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} should be a section of settings, not {value!r}.")
    hints = get_type_hints(kind, include_extras=True)
    _refuse_unknown(value, list(hints), where)
    for f in fields(kind):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in value:
            raise InputError(f"{where} lacks the setting {f.name!r}.")
    return kind(**{key: _read(hints[key], v, f"{where}.{key}") for key, v in value.items()})


# ------------------------------------------------------------------------------------- recipes


def list_recipes(folder: Path) -> list[str]:
    """Names of the recipes in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _recipe_path(recipe: str, folder: Path) -> Path:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml", ".json"):
        if not path.is_file():
            raise InputError(f"There is no recipe {path}.")
        return path
    known = list_recipes(folder)
    if recipe not in known:
        raise InputError(f"There is no recipe {recipe!r}; there are {', '.join(known)}.")
    return folder / f"{recipe}.yaml"


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".json":
            return json.loads(text)
        try:
            import yaml
        except ImportError:
            raise InputError(
                f"{path.name} needs the package PyYAML; without it, write the recipe as .json "
                "elsewhere (`train RECIPE --print-config`)."
            ) from None
        return yaml.safe_load(text)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from None
    except Exception as error:  # yaml's own
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from None


def _merge(base: Any, change: Any) -> Any:
    """`change` over `base`; sections key by key, but a section that is null is emptied."""
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        merged = {key: _merge(base.get(key), value) for key, value in change.items()}
        return {**base, **merged}
    return change


def read_values(recipe: str, folder: Path) -> dict[str, Any]:
    """Plain values of a recipe, with those of its `base` (which may have one as well).

    A base is a recipe of that name beside the file, or else one of `folder`.

    Args:
        recipe: a file, or the name of a recipe in `folder`.
        folder: where the project's recipes are.

    Raises:
        InputError: there is no such recipe, it cannot be read, or it is its own base in the end.
    """
    return _read_file(_recipe_path(recipe, folder), folder, ())


def _read_file(path: Path, folder: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    above = (*above, path.resolve())
    if above[-1] in above[:-1]:
        chain = " -> ".join(each.name for each in above[above.index(above[-1]) :])
        raise InputError(f"The recipe {path} is its own base: {chain}.")
    values = _load(path)
    if not isinstance(values, Mapping):
        raise InputError(f"{path} is not a recipe: it holds no settings.")
    values = dict(values)
    base = values.pop("base", None)
    if base is None:
        return values
    beside = path.parent / f"{base}{path.suffix}"
    if not beside.is_file() or beside.samefile(path):
        beside = _recipe_path(str(base), folder)
    return _merge(_read_file(beside, folder, above), values)


def override(values: Mapping[str, Any], change: str) -> dict[str, Any]:
    """Set one value by `a.b=value`; the value is JSON, or a word that needs no quotes.

    Raises:
        InputError: that is not of this form.
    """
    match = re.fullmatch(r"([\w.*-]+)=(.*)", change, flags=re.DOTALL)
    if match is None:
        raise InputError(f"--override takes key=value such as schedule.epochs=5, not {change!r}.")
    value: Any = match[2]
    try:
        value = json.loads(value)
    except ValueError:
        pass  # a word, such as a file
    for key in reversed(match[1].split(".")):
        value = {key: value}
    return _merge(values, value)
