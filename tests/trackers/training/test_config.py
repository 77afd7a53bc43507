"""Which data a recipe takes, how much of each, and what of it is held out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from checkpoints.training.processes import Place
from media import InputError
from trackers.training import load_recipe
from trackers.training.config import Recipe
from trackers.training.validation import HeldOut, held_out_data

PLACES = [("stills", "a"), ("tracks", "b")]


def shares(recipe: Recipe) -> dict[str, float]:
    weights = {source.kind: source.weight for source in recipe.data.sources}
    return {kind: weight / sum(weights.values()) for kind, weight in weights.items()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("data.sources.foo.weight=2", "no kind of data 'foo' for data.sources; there are stills,"),
        (
            "data.sources.lasot.wieght=2",
            "no setting 'wieght' in data.sources.lasot",
        ),
        ("data.sources.lasot=2", "data.sources.lasot should be a section"),
        (
            'validation.sources={"lasott": {}}',
            "names 'lasott', which is no kind of this run's data",
        ),
        ('validation.sources={"lasot": {}}', "this run's data: stills, tracks"),
    ],
)
def test_kinds_of_data_that_are_not_there_are_refused(change: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe("continue_small", PLACES, [change])


def test_clips_are_a_sixth_and_nothing_changes_without_them() -> None:
    without, all_three = (
        shares(load_recipe("continue_small", places))
        for places in (PLACES, [*PLACES, ("clips", "c")])
    )
    assert without == pytest.approx({"stills": 0.4, "tracks": 0.6})
    assert all_three == pytest.approx({"stills": 1 / 3, "tracks": 1 / 2, "clips": 1 / 6})


def test_a_twentieth_of_packed_clips_is_held_out() -> None:
    recipe = load_recipe("mixvit_teacher", [("clips", "c"), ("lasot", "d")])
    assert [source.split for source in recipe.data.sources] == ["train", "train"]
    held_out = held_out_data(recipe)
    assert held_out is not None
    assert [(source.kind, source.split) for source in held_out.sources] == [("clips", "val")]


def test_too_few_videos_to_hold_one_out_are_said(
    make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make("continue_small", **{"validation.samples": 4})
    source = recipe.data.sources[0]
    rows = Path(source.path, "shard_00.jsonl").read_text().splitlines()
    (tmp_path / "shard_00.bin").write_bytes(Path(source.path, "shard_00.bin").read_bytes())
    named = [json.dumps(json.loads(row) | {"video": "one"}) + "\n" for row in rows]
    (tmp_path / "shard_00.jsonl").write_text("".join(named))
    object.__setattr__(source, "path", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert HeldOut(recipe, Place(0, 1, torch.device("cpu"))).batches is None
    assert f"Nothing is held out of {tmp_path}" in caplog.text
    assert "validation.sources says what should be" in caplog.text
