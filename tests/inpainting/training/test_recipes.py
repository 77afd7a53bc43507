"""Every recipe parses, builds, and trains; the published ones are as published."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inpainting import build_network
from inpainting.__main__ import main
from inpainting.training import Recipe, list_recipes, load_recipe, train
from inpainting.training.data import DataConfig
from media import InputError
from tests.inpainting.training.conftest import TINY


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_trains(
    make: Callable[..., Recipe], figures_of: Callable[..., list[float]], tmp_path: Path, name: str
) -> None:
    changes: dict[str, object] = {"schedule.steps": 2}
    if name == "e2fgvi":  # bound to its size
        changes |= {"data.size": [240, 432], "schedule.batch_size": 1}
    summary = train(make(name, **changes), tmp_path, device="cpu")
    losses = figures_of(tmp_path, "total")
    assert summary["steps"] == len(losses) == 2 and all(map(math.isfinite, losses))


def test_the_help_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"Recipes: {', '.join(list_recipes())}." in said


def test_recipes_are_the_papers() -> None:
    recipe = load_recipe("e2fgvi", ["x"])
    assert recipe.data == DataConfig(("x",), holes=recipe.data.holes, workers=8)
    assert (recipe.data.size, recipe.data.local, recipe.data.references) == ((240, 432), 5, 3)
    assert recipe.data.holes.objects == 0 and recipe.data.holes.still == 0.5
    assert vars(recipe.losses) == {"hole": 1, "valid": 1, "adversarial": 0.01, "flow": 1}
    assert (recipe.schedule.steps, recipe.schedule.batch_size) == (500_000, 8)
    assert recipe.schedule.drops == (400_000,) and recipe.schedule.decay == "step"
    assert recipe.optimizer.lr == recipe.optimizer.discriminator_lr == 1e-4
    assert recipe.optimizer.betas == (0.0, 0.99) and recipe.optimizer.flow_lr == 1
    assert recipe.init.scheme == "published" and recipe.network.width is None
    hq = load_recipe("e2fgvi_hq", ["x"])
    assert hq.network.name == "e2fgvi_hq" and hq.schedule == recipe.schedule


def test_the_small_one_is_small() -> None:
    name = load_recipe("hq_small", ["x"]).network.name
    with torch.device("meta"):
        network = build_network(name)
    assert 2 * sum(p.numel() for p in network.parameters()) < 20e6  # bytes in half precision


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "schedule.step=3",
            "no setting 'step' in recipe.schedule; the nearest there is is 'steps'",
        ),
        ("data.holes.stil=0", "nearest there is is 'still'"),
        ("schedule.steps=0", "schedule.steps is at least 1, not 0"),
        ("data.local=1", "data.local is at least 2, not 1"),
        ("optimizer.betas=[0, 1]", "betas.1 is at least 0 and below 1"),
        ("schedule.warmup_steps=-1", "warmup_steps is at least 0"),
        ("validation.every=0", "every is at least 1"),
        ("engine.save_every=0", "save_every is at least 1"),
        ("init.flow=null", "The loss flow needs a teacher"),
        ("data.crop=2", "data.crop is above 0 and at most 1, not 2.0"),
    ],
)
def test_what_does_not_exist_is_refused(change: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe("hq_small", ["x"], [], [change])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data.size": [60, 100], "network.width": None, "network.name": "e2fgvi"}, "432x240"),
        ({"data.size": [64, 100]}, "multiple of 60"),
        ({"network.name": "magic"}, "no network called 'magic'"),
        ({"network.width": {"depth": 3}}, "network.width does not fit"),
        ({"schedule.accumulate": 3, "schedule.batch_size": 4}, "has no 3 like parts"),
        ({"init.weights": "nowhere.pth"}, "no file nowhere.pth"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    make: Callable[..., Recipe], tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(make("tiny", **changes), tmp_path, device="cpu")


def test_the_command_trains(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    changes = {**TINY, "data.size": [56, 100], "schedule.steps": 2, "validation.samples": 2}
    words = [f"--override={key}={json.dumps(value)}" for key, value in changes.items()]
    out = tmp_path / "run"
    command = ["train", "tiny", f"--data={clips}", *words, "--device=cpu"]
    assert main([*command, f"--out={out}"]) == 0
    assert "weights.safetensors after 2 steps" in capsys.readouterr().out
    assert main(command) == 2 and "give --out DIR" in capsys.readouterr().err
    assert main(["train", "tiny", f"--out={out}"]) == 2  # no data at all
    assert "name folders of clips with --data" in capsys.readouterr().err
    assert main([*command, "--override=engine.seed=7", f"--out={out}"]) == 2
    assert "engine.seed is 7 now and was 42" in capsys.readouterr().err


def test_the_command_prints_a_recipe_that_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", "hq_small", "--print-config", "--override=engine.seed=7"]) == 0
    file = tmp_path / "printed.json"
    file.write_text(capsys.readouterr().out)
    change = ["engine.seed=7"]
    assert load_recipe(str(file), ["x"]) == load_recipe("hq_small", ["x"], [], change)
