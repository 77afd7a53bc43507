"""Every recipe parses, builds, and trains; settings that do not exist are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import checkpoints
from checkpoints.training.saving import write_weights
from media import InputError
from tests.trackers.training.conftest import TINY
from trackers import build_network
from trackers.__main__ import main
from trackers.training import list_recipes, load_recipe, read_values, train
from trackers.training.networks import build_student, build_teacher
from trackers.training.objectives import check_comparable

TEACHERS = {"dim": 32, "heads": 2}
WITHOUT_PREDECESSOR = (
    "continue_small",
    "grm_base",
    "grm_large",
    "mixvit_large_teacher",
    "mixvit_teacher",
    "reduced_1_teacher",
)
SHALLOW = (
    "mixvit_base",
    "mixvit_large_384",
    "grm_base",
    "grm_large",
)  # whose depth no other setting depends on


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_trains_twenty_steps(make, losses_of, tmp_path, name: str) -> None:
    changes: dict[str, object] = {"schedule.batch_size": 2, "schedule.samples_per_epoch": 10}
    values = read_values(name)
    if values["network"]["name"] in SHALLOW:
        changes["network.options.depth"] = 2
    if values.get("teacher"):
        changes |= {"teacher.weights": None, "teacher.resize": False}
        changes |= {f"teacher.options.{key}": value for key, value in TEACHERS.items()}
        if values["teacher"]["name"] in SHALLOW:
            changes["teacher.options.depth"] = 2
        bins = 16 if "mixvit" in values["teacher"]["name"] else 12
        changes["network.options.feat_sz"] = bins
    if (values["network"].get("options") or {}).get("kept_hidden"):
        changes["network.options.kept_hidden"] = 32
    recipe = make(name, **changes)
    assert recipe.schedule.steps == 20
    summary = train(recipe, tmp_path / "run", device="cpu")
    losses = losses_of(tmp_path / "run")
    assert summary["steps"] == len(losses) == 20
    assert all(map(math.isfinite, losses))
    # All weights are those of the recipe's network, and something has been learnt.
    start = build_network(recipe.network.name, **recipe.network.options)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["network"]
    assert {k: t.shape for k, t in state.items()} == {
        k: t.shape for k, t in start.state_dict().items()
    }


def _small(name: str) -> dict[str, object]:
    """What makes the networks of a recipe small without changing how stages hang together."""
    values = read_values(name)
    options = values["network"].get("options") or {}
    init = values.get("init") or {}
    changes: dict[str, object] = {"init.weights": init.get("weights")}
    if "v2" in values["network"]["name"]:
        changes["network.options.feat_sz"] = 16
    if options.get("kept_hidden"):
        changes["network.options.kept_hidden"] = 32
    if init.get("kept_hidden"):
        changes["init.kept_hidden"] = 32
    if values.get("teacher"):
        changes |= {f"teacher.options.{key}": value for key, value in TEACHERS.items()}
    return changes


@pytest.mark.parametrize("piece_mb", [0, 0.1])
@pytest.mark.parametrize("name", [n for n in list_recipes() if n not in WITHOUT_PREDECESSOR])
def test_a_stage_starts_from_what_the_one_before_writes(
    make, tmp_path, monkeypatch, name: str, piece_mb: int
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = make(name, **_small(name))
    teacher = recipe.teacher and recipe.teacher.weights
    for file in {Path(file) for file in (recipe.init.weights, teacher) if file}:
        before = file.parts[1]
        assert file == Path("runs", before, "weights.safetensors") and before in list_recipes()
        state = build_student(make(before, **_small(before) | {"init.weights": None})).state_dict()
        written = write_weights(state, file, half=True, piece_mb=piece_mb)
        assert len(written) > 1 or not piece_mb
    student = build_student(recipe)
    if recipe.teacher:
        check_comparable(student, build_teacher(recipe.teacher, student), recipe.losses, name)


def test_a_recipe_names_a_checkpoint_to_start_from(make, monkeypatch) -> None:
    """What is not there yet is fetched by the command that the message names."""
    monkeypatch.setattr(checkpoints, "find", lambda name: None)
    vit = read_values("mixvit_large_teacher")["init"]["vit"]
    with pytest.raises(
        checkpoints.CheckpointError, match="python -m checkpoints fetch mae_vit_large"
    ):
        build_student(make("mixvit_teacher", **{"init.vit": vit, "network.options.depth": 2}))


def test_recipes_are_the_papers() -> None:
    """What the recipes of the paper come to, without any override."""
    data = [("lasot", "x"), ("got10k", "x"), ("coco", "x"), ("trackingnet", "x")]
    stage1 = load_recipe("stage1_dense_to_sparse", data)
    assert [source.split for source in stage1.data.sources] == [
        "train",
        "train",
        "train2017",
        "train",
    ]
    assert stage1.data.search_size == 288 and stage1.data.search_factor == 5.0
    assert stage1.schedule.steps_per_epoch == 234 and stage1.schedule.epochs == 500
    losses = stage1.losses
    assert (losses.l1, losses.ciou, losses.edges, losses.features) == (5.0, 2.0, 5.0, 0.0)
    finetune = load_recipe("stage2b_finetune", data)
    assert finetune.losses.feature_pairs == ((1, 2), (3, 5), (5, 8), (7, 11))
    assert finetune.losses.features == 0.2 and finetune.init.removed_blocks == (0, 3, 6, 9)
    score = load_recipe("score", data)
    assert score.optimizer.train_only == ("score",) and score.data.sampler == "trident_pro"
    grm = load_recipe("grm_base", data)
    assert (grm.losses.giou, grm.losses.l1, grm.losses.focal) == (2.0, 5.0, 1.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "schedule.epoch=3",
            "no setting 'epoch' in recipe.schedule; the nearest there is is 'epochs'",
        ),
        ("losses.cio=3", "nearest there is is 'ciou'"),
        ("engin.seed=3", "nearest there is is 'engine'"),
        ("schedule.epochs=many", "schedule.epochs should be a whole number, not 'many'"),
        ("schedule.decay=linear", "one of step, cosine, not 'linear'"),
        ("network.options.deep=3", "do not fit mixformerv2_small"),
        ("data.search_size=224", "set network.options.search_size"),
        ("losses.edges=1", "need a teacher"),
        ('losses={"l1": 0, "ciou": 0, "score": 0}', "All losses are 0: give at least one of l1, "),
        ("engine.log_every=0", "recipe.engine.log_every is at least 1, not 0"),
        ("engine.save_every_epochs=0", "save_every_epochs is at least 1"),
        ("engine.seed=-1", "seed is at least 0 and below 4294967296, not -1"),
        ("engine.ema=1", "engine.ema is at least 0 and below 1, not 1.0"),
        ("engine.piece_mb=-1", "piece_mb is at least 0"),
        ("validation.every_epochs=0", "every_epochs is at least 1"),
        ("validation.samples=-3", "validation.samples is at least 0"),
        ("schedule.warmup_steps=-1", "warmup_steps is at least 0"),
        ("schedule.epochs=0", "epochs is at least 1"),
        ("optimizer.lr=-1", "optimizer.lr is at least 0"),
        ("optimizer.clip=-1", "optimizer.clip is at least 0"),
        ("optimizer.betas=[1.5, 0.9]", "optimizer.betas.0 is at least 0 and below 1, not 1.5"),
        ("data.workers=-1", "data.workers is at least 0"),
        ("data.search_scale_jitter=-1", "search_scale_jitter is at least 0"),
        ("data.flip=NaN", "data.flip is at least 0 and at most 1, not nan"),
        ("network.options.search_size=70", "search_size is at least 16 and a multiple of 16"),
        ("network.options.dim=0", "options.dim is at least 4 and a multiple of 4, not 0"),
        ("network.options.heads=5", "options.heads is a divisor of the 768 channels, not 5"),
        ("network.options.removed_blocks=[7]", "removed_blocks is at most 3, not 7"),
        ("network.options.removed_blocks=[-1]", r"removed_blocks\.0 is at least 0, not -1"),
        ("network.options.kept_hidden=1000", "kept_hidden is at most 768, not 1000"),
        ("data.workers", "key=value"),
    ],
)
def test_what_does_not_exist_is_refused(change: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe("continue_small", [("stills", "x")], [change])


def test_a_recipe_may_be_json_and_change_another(tmp_path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"base": "continue_small", "schedule": {"epochs": 3}}))
    recipe = load_recipe(str(file), [("stills", "x")])
    assert recipe.schedule.epochs == 3 and recipe.schedule.batch_size == 512
    with pytest.raises(InputError, match="There is no recipe 'kontinue'"):
        load_recipe("kontinue", [])


def test_the_command_prints_a_recipe_that_it_reads(tmp_path, capsys) -> None:
    assert main(["train", "stage2a_removal", "--print-config", "--override", "engine.seed=7"]) == 0
    file = tmp_path / "printed.json"
    file.write_text(capsys.readouterr().out)
    data = [("lasot", "x"), ("tracks", "y")]
    change = ["engine.seed=7"]
    assert load_recipe(str(file), data) == load_recipe("stage2a_removal", data, change)


def test_a_recipe_that_names_no_data(tmp_path, capsys) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"about": "x", "network": {"name": "mixformerv2_small"}}))
    print_it = ["train", str(file), "--print-config"]
    assert main([*print_it, "--data=stills=DIR"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["sources"].keys() == {"stills"}
    assert main(print_it) == 2 and "give at least one" in capsys.readouterr().err
    file.write_text(json.dumps({"base": "continue_small", "data": 3}))
    assert main(print_it) == 2 and "recipe.data should be a section" in capsys.readouterr().err
    file.write_text(json.dumps({"base": "continue_small", "data": {"sources": {"stills": 3}}}))
    assert main(print_it) == 2 and "stills should be a section" in capsys.readouterr().err


def test_the_command_trains(stills, tmp_path, capsys) -> None:
    changes = {
        **{f"network.options.{key}": value for key, value in (TINY | {"depth": 1}).items()},
        "init.weights": None,
        "schedule": {"epochs": 1, "batch_size": 2, "samples_per_epoch": 4, "warmup_steps": 0},
        "engine.compile": False,
        "data.pipeline": "loader",
        "data.workers": 0,
        "validation.samples": 4,
    }
    words = [f"--override={key}={json.dumps(value)}" for key, value in changes.items()]
    out = tmp_path / "run"
    command = ["train", "continue_small", f"--data=stills={stills}", *words, "--device=cpu"]
    assert main([*command, f"--out={out}"]) == 0
    shown = capsys.readouterr()
    assert "after 2 steps" in shown.out and (out / "weights.safetensors").exists()
    assert main(command) == 2 and "give --out DIR" in capsys.readouterr().err
    again = [word.replace("stills=", "") for word in command]  # a folder of shards says of what
    assert main([*again, f"--out={out}"]) == 0
    assert main(["train", "continue_small", "--data=stills", f"--out={out}"]) == 2
    assert "KIND=PATH" in capsys.readouterr().err
    assert main(["train", "continue_small", f"--out={out}2"]) == 2  # no data at all
    assert "at least one" in capsys.readouterr().err
