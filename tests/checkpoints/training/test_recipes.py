"""Plain values become dataclasses, or one sentence says what does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from checkpoints.training.recipes import (
    Count,
    Decay,
    Positive,
    Range,
    Share,
    check_ranges,
    list_recipes,
    override,
    read,
    read_values,
)
from media import InputError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    names: tuple[str, ...] = ()
    pair: tuple[int, int] = (1, 2)
    kind: Literal["a", "b"] = "a"
    share: Share = 0.5
    sizes: tuple[Annotated[int, Range(least=16, multiple_of=16)], ...] = ()
    beta: Decay | None = None
    weights: Mapping[str, Positive] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Outer:
    steps: Count
    inner: Inner = field(default_factory=Inner)
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str | None = None


def test_an_override_is_json_or_a_word() -> None:
    values = {"a": {"b": 1, "c": 2}}
    assert override(values, "a.b=[1, 2]") == {"a": {"b": [1, 2], "c": 2}}
    assert override(values, "a.b=word") == {"a": {"b": "word", "c": 2}}
    assert override(values, "a=null") == {"a": None}
    assert values == {"a": {"b": 1, "c": 2}}


def test_plain_values_become_a_dataclass() -> None:
    values = {"steps": 3, "inner": {"rate": 1, "names": ["x"], "pair": [4, 5], "kind": "b"}}
    found = read(Outer, values, "recipe")
    assert found == Outer(3, Inner(1.0, ("x",), (4, 5), "b"))
    assert isinstance(found.inner.rate, float)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "recipe lacks the setting 'steps'"),
        ({"step": 3}, "no setting 'step' in recipe; the nearest there is is 'steps'"),
        ({"steps": True}, "recipe.steps should be a whole number, not True"),
        (
            {"steps": 1, "inner": {"rate": "fast"}},
            "recipe.inner.rate should be a number, not 'fast'",
        ),
        ({"steps": 1, "inner": {"pair": [1]}}, "recipe.inner.pair should be a list of 2 values"),
        ({"steps": 1, "inner": {"kind": "c"}}, "recipe.inner.kind is one of a, b, not 'c'"),
        ({"steps": 1, "inner": 5}, "recipe.inner should be a section of settings"),
        ({"steps": 1, "options": 5}, "recipe.options should be a section of settings"),
        ({"steps": 0}, "recipe.steps is at least 1, not 0"),
        ({"steps": 1, "inner": {"share": 2}}, "inner.share is at least 0 and at most 1, not 2.0"),
        ({"steps": 1, "inner": {"share": float("nan")}}, "at most 1, not nan"),
        ({"steps": 1, "inner": {"sizes": [32, 70]}}, r"sizes.1 is .* a multiple of 16, not 70"),
        ({"steps": 1, "inner": {"beta": 1}}, "inner.beta is at least 0 and below 1, not 1.0"),
        ({"steps": 1, "inner": {"weights": {"x": 0}}}, "weights.x is above 0, not 0.0"),
        ({"steps": 1, "inner": {"weights": {"x": float("inf")}}}, "above 0, not inf"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read(Outer, values, "recipe")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"share": -1.0}, "^share is at least 0 and at most 1, not -1.0"),
        ({"sizes": (32, 70)}, "^sizes.1 is at least 16"),
        ({"beta": 1.0}, "^beta is at least 0 and below 1"),
        ({"weights": {"x": 0.0}}, "^weights.x is above 0"),
    ],
)
def test_what_is_built_by_hand_keeps_to_its_ranges(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Inner(**settings)
    assert Inner(beta=0.5, sizes=(16, 48), weights={"x": 1.0}).beta == 0.5


def test_a_recipe_changes_its_base_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("steps: 1\ninner: {rate: 0.5, kind: b}\nfile: x\n")
    (tmp_path / "two.yaml").write_text("base: one\ninner: {rate: 0.7}\nfile: null\n")
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / "three.json"
    own.write_text(json.dumps({"base": "two", "steps": 9}))
    assert list_recipes(tmp_path) == ["one", "two"]
    wanted = {"steps": 9, "inner": {"rate": 0.7, "kind": "b"}, "file": None}
    assert read_values(str(own), tmp_path) == wanted
    with pytest.raises(InputError, match="no recipe 'four'; there are one, two"):
        read_values("four", tmp_path)
    same = tmp_path / "own" / "one.yaml"  # beside it lies nothing but itself
    same.write_text("base: one\nsteps: 5\n")
    assert read_values(str(same), tmp_path)["file"] == "x"
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="is no valid YAML"):
        read_values("bad", tmp_path)


def test_recipes_in_a_circle_are_named(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "b"), ("self", "self")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {base}\n")
    with pytest.raises(InputError, match=r"its own base: b\.yaml -> c\.yaml -> b\.yaml"):
        read_values("a", tmp_path)
    with pytest.raises(InputError, match=r"self\.yaml -> self\.yaml"):
        read_values("self", tmp_path)
