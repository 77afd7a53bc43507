"""A file of prompts: several objects, each pointed at in its own way."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from demo.project import KeyFrame, ObjectPrompt, Point, Task, object_color, object_name
from media import InputError
from media.draw import parse_color


def load_prompts(path: Path) -> list[ObjectPrompt]:
    """Read a prompts file: several objects, each with its own prompt.

    `{"objects": [{"name": "dog", "frame": 0, "points": [[x, y, 1], ...], "box": [x0, y0, x1, y1],
    "mask": "dog.png", "color": "#ff8800", "do": "remove", "corrections": [{"frame": 30, "box":
    [x0, y0, x1, y1]}]}]}`; everything but one kind of prompt may be left out, and `mask` is looked
    up beside the file.

    Raises:
        InputError: the file cannot be read or an entry is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The prompts file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"The prompts file {path} is not JSON: {error}.") from error
    entries = data.get("objects") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f'The prompts file {path} is not of the form {{"objects": [...]}} with at least one '
            "object."
        )
    objects: list[ObjectPrompt] = []
    for number, entry in enumerate(entries, start=1):
        try:
            objects.append(_read_object(entry, path.parent, number))
        except _Wrong as error:
            raise InputError(
                f"Object {number} of the prompts file {path} is wrong: {error}."
            ) from error
    if len({o.id for o in objects}) < len(objects):
        raise InputError(f"The prompts file {path} uses the same id for two objects.")
    return objects


class _Wrong(Exception):
    """What is wrong with an entry of a prompts file, to be read in the middle of a sentence."""


def _read_object(entry: object, folder: Path, number: int) -> ObjectPrompt:
    key = _read_key(entry, folder, {"id", "name", "color", "do", "corrections"})
    assert isinstance(entry, dict)
    object_id = _whole(entry.get("id", number), "id")
    if object_id < 1:
        raise _Wrong("ids start at 1")
    if entry.get("do") not in (None, *get_args(Task)):
        raise _Wrong(f'"do" is one of {", ".join(get_args(Task))}')
    color = str(entry.get("color") or object_color(object_id))
    parse_color(color)
    return ObjectPrompt(
        id=object_id,
        name=str(entry.get("name") or object_name(object_id)),
        color=color,
        do=entry.get("do"),
        corrections=tuple(
            KeyFrame(**_read_key(correction, folder))
            for correction in _list(entry.get("corrections"), "corrections")
        ),
        **key,
    )


def _read_key(entry: object, folder: Path, others: Iterable[str] = ()) -> dict[str, Any]:
    """The arguments of `KeyFrame`; `others` are keys that somebody else reads."""
    if not isinstance(entry, dict):
        raise _Wrong(f"{json.dumps(entry)} is not of the form {{...}}")
    if unknown := set(entry) - {"frame", "points", "box", "mask", *others}:
        raise _Wrong(f"it has unknown keys {', '.join(sorted(unknown))}")
    points: list[Point] = []
    for point in _list(entry.get("points"), "points"):
        x, y, *label = [_number(value, "points") for value in _list(point, "points", 2, 3)]
        if label and label[0] not in (0, 1):
            raise _Wrong("a point's label is 1 (on the object) or 0 (not on it)")
        points.append((x, y, int(label[0]) if label else 1))
    box = None
    if entry.get("box") is not None:
        x0, y0, x1, y1 = (_number(value, "box") for value in _list(entry["box"], "box", 4, 4))
        box = x0, y0, x1, y1
    mask = entry.get("mask") or None
    if not isinstance(mask, str | None):
        raise _Wrong('"mask" is not the name of a picture')
    return {
        "frame": _whole(entry.get("frame", 0), "frame"),
        "points": tuple(points),
        "box": box,
        "mask": None if mask is None else folder / mask,
    }


def _list(value: object, key: str, least: int = 0, most: int | None = None) -> list[Any]:
    """A list of `least` to `most` values; none at all is an empty one."""
    found = [] if value is None else value
    if not isinstance(found, list) or not least <= len(found) <= (most or len(found)):
        count = f"{least}" if least == most else f"{least} or {most}"
        size = "" if most is None else f" of {count} numbers"
        raise _Wrong(f'"{key}": {json.dumps(value)} is not a list{size}')
    return found


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise _Wrong(f'"{key}": {json.dumps(value)} is not a number that a video may have')
    return float(value)


def _whole(value: object, key: str) -> int:
    number = _number(value, key)
    if not number.is_integer():
        raise _Wrong(f'"{key}": {number:g} is not a whole number')
    return int(number)
