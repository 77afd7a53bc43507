"""The loop learns, goes on where it was killed, and shares its work without changing it."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from checkpoints.training import runs
from checkpoints.training.processes import Place
from checkpoints.training.schedule import cosine_decay
from media import InputError
from tests.together import run_together
from trackers.training import Recipe, train
from trackers.training.loop import _Run
from trackers.training.objectives import Objective

ROOT = Path(__file__).parents[3]
# Depth and width at which a step takes milliseconds, and nothing is left to chance but the data.
FAST = {"network.options.depth": 2, "network.options.drop_path": 0.0, "data.sampler": "causal"}
FAST |= {"losses.score": 0.0}
ALONE = Place(0, 1, torch.device("cpu"))

TRAIN = """
import json, sys, torch
from pathlib import Path
from trackers.training import build_recipe, train
torch.set_num_threads(1)
values, data, out = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
train(build_recipe(values, [tuple(pair) for pair in data]), out, device="cpu")
"""


def command(recipe, stills: Path, out: Path) -> list[str]:
    data = [["stills", str(stills)]]
    return [sys.executable, "-c", TRAIN, json.dumps(recipe.as_values()), json.dumps(data), str(out)]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def moved(recipe: Recipe, path: str | Path) -> Recipe:
    """The same with its pictures in another place."""
    (source,) = recipe.data.sources
    return replace(recipe, data=replace(recipe.data, sources=(replace(source, path=str(path)),)))


@pytest.fixture
def sequences(tmp_path) -> Path:
    """A folder with a sequence of three frames, of a bright square that moves."""
    from PIL import Image

    folder = tmp_path / "sequences" / "square"
    (folder / "img").mkdir(parents=True)
    boxes = []
    for i in range(3):
        pixels = np.full((80, 100, 3), 60, np.uint8)
        pixels[20:50, 20 + i : 50 + i] = 220
        Image.fromarray(pixels).save(folder / "img" / f"{i:04d}.png")
        boxes.append(f"{20 + i},20,30,30\n")
    (folder / "groundtruth.txt").write_text("".join(boxes))
    return tmp_path / "sequences"


@pytest.fixture
def stop_at(monkeypatch):
    """Interrupt what is trained inside `with stop_at(STEP)` before that step."""

    @contextmanager
    def stop(step: int):
        whole = _Run.step

        def stops(self, batch):
            if self.done == step:
                raise KeyboardInterrupt
            return whole(self, batch)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(_Run, "step", stops)
            yield

    return stop


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "state.pt", weights_only=True)["network"]


def test_it_learns(make, losses_of, tmp_path) -> None:
    changes = {
        "schedule.batch_size": 8,
        "schedule.samples_per_epoch": 8 * 50,
        "schedule.epochs": 3,
        "schedule.warmup_steps": 10,
        "optimizer.lr": 2e-3,
        "optimizer.backbone_lr": 2e-3,
        "validation.samples": 16,
        "data.search_center_jitter": 1.0,
        "engine.ema": 0.9,
    }
    summary = train(make("continue_small", **FAST | changes), tmp_path, device="cpu")
    losses = losses_of(tmp_path)
    assert len(losses) == 150
    assert np.mean(losses[-15:]) < 0.75 * np.mean(losses[:15])
    assert summary["figures"]["held_out_iou"] > 0.1
    assert json.loads((tmp_path / "run.json").read_text()) == summary
    assert (tmp_path / "samples.png").stat().st_size > 1000
    assert not list(tmp_path.glob("*.part"))


# It ends itself: who watched it from outside, on a busy machine, might come too late.
DYING = """
import os, random, signal, threading
from trackers.training.loop import _Run
first, step = random.randrange(6, 40), _Run.step

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def mortal(self, batch):
    if self.done == first:  # within the next ten steps, whatever is being done just then
        threading.Timer(random.uniform(0, 10) * self.seconds / self.done, die).start()
    if self.done == first + 10:
        die()
    return step(self, batch)

_Run.step = mortal
"""


def test_a_killed_run_goes_on_as_if_it_had_not_been(make, stills, losses_of, tmp_path) -> None:
    """Killed by the system, without a chance to tidy up, at a moment that chance chooses."""
    changes = {"schedule.epochs": 12, "engine.ema": 0.9, "network.options.drop_path": 0.1}
    recipe = make("continue_small", **FAST | changes)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    train(recipe, unbroken, device="cpu")

    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = command(recipe, stills, broken)
    run[2] = DYING + run[2]
    assert subprocess.run(run, env=environment, timeout=600).returncode == -signal.SIGKILL
    state = torch.load(broken / "state.pt", weights_only=True)
    assert 0 < state["step"] < recipe.schedule.steps, "killed too late to show anything"

    train(recipe, broken, device="cpu")
    assert losses_of(broken) == losses_of(unbroken)
    first, second = weights(unbroken), weights(broken)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_processes_do_what_one_does(make, stills, losses_of, tmp_path) -> None:
    recipe = make("continue_small", **FAST | {"schedule.epochs": 2, "schedule.accumulate": 2})
    one, two = tmp_path / "one", tmp_path / "two"
    train(recipe, one, device="cpu")
    run_together(tmp_path, TRAIN, *command(recipe, stills, two)[3:])
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-4)
    first, second = weights(one), weights(two)
    for key, tensor in first.items():
        assert (tensor.float() - second[key].float()).abs().max() < 1e-4, key


def test_parts_of_a_batch_add_up(make, losses_of, tmp_path) -> None:
    for parts in (1, 4):
        changes = {"schedule.epochs": 1, "schedule.accumulate": parts}
        train(make("continue_small", **FAST | changes), tmp_path / str(parts), device="cpu")
    assert losses_of(tmp_path / "4") == pytest.approx(losses_of(tmp_path / "1"), rel=1e-4)


@pytest.mark.slow
def test_compiled_it_learns_the_same(make, losses_of, tmp_path) -> None:
    changes = FAST | {"network.options.kept_hidden": 16, "schedule.removal_epochs": 4}
    for compiled in (False, True):
        recipe = make("continue_small", **changes | {"engine.compile": compiled})
        train(recipe, tmp_path / str(compiled), device="cpu")
    assert losses_of(tmp_path / "True") == pytest.approx(losses_of(tmp_path / "False"), rel=1e-3)


def test_in_half_precision_it_learns_nearly_the_same(make, losses_of, tmp_path) -> None:
    for bf16 in (False, True):
        recipe = make("continue_small", **FAST | {"schedule.epochs": 1, "engine.bf16": bf16})
        train(recipe, tmp_path / str(bf16), device="cpu")
    exact, rough = (losses_of(tmp_path / name) for name in ("False", "True"))
    assert rough == pytest.approx(exact, rel=0.05) and rough != exact


def test_it_is_measured_on_a_device_without_float64(make, tmp_path) -> None:
    run = _Run(make("continue_small", **FAST | {"validation.samples": 4}), tmp_path, ALONE, None)
    run.held_out._place = Place(0, 1, torch.device("mps"))  # which can make no tensor here at all
    assert 0 <= run.validate()["held_out_iou"] <= 1


def test_the_clock_ends_a_run_with_its_schedule(make, tmp_path, monkeypatch) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: 0.1 * next(ticks))  # two or three ticks a step
    monkeypatch.setattr(runs, "time", clock)
    recipe = make("continue_small", **FAST | {"schedule.epochs": 100_000})
    summary = train(recipe, tmp_path, device="cpu", minutes=0.1)
    assert 15 < summary["steps"] < 35 and summary["seconds"] == pytest.approx(6, abs=0.3)
    rates = [float(row["lr_head"]) for row in rows(tmp_path) if row["lr_head"]]
    assert rates[-1] < 0.2 * max(rates)  # it fell as if the run had been planned so long


def test_the_clock_squeezes_the_warm_up_too(make, tmp_path) -> None:
    changes = {"schedule.epochs": 200, "schedule.warmup_steps": 100}  # of 1000 steps
    run = _Run(make("continue_small", **FAST | changes), tmp_path, ALONE, minutes=1.0)
    most = run.optimizer.param_groups[0]["base_lr"]
    for seconds, share in ((3, 51 / 101), (6, 1.0), (30, 1.0)):
        run.done, run.seconds = 2, float(seconds)
        wanted = most * share * cosine_decay(seconds / 60)
        assert run.set_rates()["lr_head"] == pytest.approx(wanted)
    run.done = 800  # steps lead
    assert run.set_rates()["lr_head"] == pytest.approx(most * cosine_decay(0.8))


def test_the_removal_follows_the_epochs(make, tmp_path) -> None:
    changes = {
        "teacher.weights": None,
        "teacher.options": {"dim": 32, "heads": 2, "search_size": 64},
        "network.options.feat_sz": 12,
        "network.options.kept_hidden": 32,
        "schedule.epochs": 6,
        "schedule.removal_epochs": 5,
    }
    train(make("small_a_removal", **changes), tmp_path, device="cpu")
    found = [float(row["removal"]) for row in rows(tmp_path)]
    assert found[::5] == pytest.approx([0.654508, 0.345492, 0.0954915, 0, 0, 0], rel=1e-4)


def test_another_recipe_does_not_go_on_in_the_same_folder(make, tmp_path) -> None:
    train(make("continue_small", **FAST | {"schedule.epochs": 1}), tmp_path, device="cpu")
    with pytest.raises(InputError, match=r"schedule.epochs is 2 now and was 1"):
        train(make("continue_small", **FAST | {"schedule.epochs": 2}), tmp_path, device="cpu")


def test_a_first_try_that_failed_does_not_keep_the_folder(make, losses_of, tmp_path) -> None:
    recipe = make("continue_small", **FAST | {"schedule.epochs": 1})
    with pytest.raises(InputError, match=r"no folder .*nowhere"):
        train(moved(recipe, tmp_path / "nowhere"), tmp_path / "run", device="cpu")
    lost = make("continue_small", **FAST | {"schedule.epochs": 1, "init.weights": "lost.pth"})
    with pytest.raises(InputError, match=r"no file lost\.pth"):
        train(lost, tmp_path / "run", device="cpu")
    train(recipe, tmp_path / "run", device="cpu")
    assert len(losses_of(tmp_path / "run")) == 5
    assert json.loads((tmp_path / "run" / "recipe.json").read_text()) == recipe.as_dict()


def test_what_changes_no_loss_may_change_when_a_run_goes_on(
    make, stills, losses_of, tmp_path, stop_at
) -> None:
    recipe = make("continue_small", **FAST | {"schedule.epochs": 2})
    train(recipe, tmp_path / "unbroken", device="cpu")
    out = tmp_path / "broken"
    with stop_at(7):
        train(recipe, out, device="cpu")
    shutil.copytree(stills, tmp_path / "moved")
    free = {
        "data.workers": 1,
        "engine.log_every": 2,
        "engine.save_every_epochs": 3,
        "validation.samples": 4,
        "validation.every_epochs": 1,
    }
    changed = make("continue_small", **FAST | {"schedule.epochs": 2} | free)
    train(moved(changed, tmp_path / "moved"), out, device="cpu")
    first, second = weights(tmp_path / "unbroken"), weights(out)
    assert all(torch.equal(first[key], second[key]) for key in first)
    bound = {"engine.seed": 7, "data.flip": 0.1, "data.sources.stills.weight": 2.0}
    for key, value in bound.items():
        with pytest.raises(InputError, match=f"{key.split('.')[-1]} is {value} now"):
            train(make("continue_small", **FAST | {key: value, "schedule.epochs": 2}), out)


def test_a_line_of_the_log_counts_the_steps_before_an_interruption(
    make, losses_of, tmp_path, stop_at
) -> None:
    recipe = make("continue_small", **FAST | {"schedule.epochs": 3, "engine.log_every": 4})
    train(recipe, tmp_path / "unbroken", device="cpu")
    for name in ("broken", "old"):
        with stop_at(6):
            train(recipe, tmp_path / name, device="cpu")
    old = torch.load(tmp_path / "old" / "state.pt", weights_only=True)  # without what is counted
    assert old["step"] == 5 and old.pop("meter")["sums"]
    torch.save(old, tmp_path / "old" / "state.pt")
    for name in ("broken", "old"):
        train(recipe, tmp_path / name, device="cpu")
    unbroken, broken, old = (losses_of(tmp_path / n) for n in ("unbroken", "broken", "old"))
    assert broken == unbroken and len(unbroken) == 4  # steps 4, 8, 12 and 15
    assert old[0] == unbroken[0] and old[1] != unbroken[1] and old[2:] == unbroken[2:]


def test_a_damaged_state_is_named(make, tmp_path) -> None:
    recipe = make("continue_small", **FAST | {"schedule.epochs": 1})
    train(recipe, tmp_path, device="cpu")
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(InputError, match="delete it to start anew"):
        train(recipe, tmp_path, device="cpu")


def test_steps_without_finite_gradients_change_nothing(make, tmp_path, monkeypatch) -> None:
    whole = Objective.forward

    def poisoned(self, batch, lesson):
        found = whole(self, batch, lesson)
        return found | {"total": found["total"] * float("nan")}

    recipe = make("continue_small", **FAST | {"schedule.epochs": 2})
    train(recipe, tmp_path / "a", device="cpu")
    monkeypatch.setattr(Objective, "forward", poisoned)
    train(recipe, tmp_path / "b", device="cpu")
    assert all(row["steps_without_gradients"] == "1" for row in rows(tmp_path / "b"))
    assert all(t.isfinite().all() for t in weights(tmp_path / "b").values())
    with pytest.raises(InputError, match="the training diverged"):
        train(
            make("continue_small", **FAST | {"schedule.epochs": 20}), tmp_path / "c", device="cpu"
        )


BARE = """
import sys
for name in ("cv2", "av", "timm", "yaml", "tensorboard", "matplotlib", "imageio", "tqdm", "gradio",
             "requests", "pycocotools", "scipy", "skimage", "onnxruntime", "lmdb", "filelock"):
    sys.modules[name] = None
"""


def test_a_bare_machine_trains(make, stills, losses_of, tmp_path) -> None:
    """With torch, torchvision, numpy, Pillow and safetensors, and nothing else."""
    recipe = make("continue_small", **FAST | {"schedule.epochs": 1, "validation.samples": 4})
    run = command(recipe, stills, tmp_path / "run")
    run[2] = BARE + run[2]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(losses_of(tmp_path / "run")) == 5


def test_sequences_are_tracked_with_what_was_learnt(make, sequences, tmp_path, caplog) -> None:
    broken = shutil.copytree(sequences / "square", sequences / "broken")
    (broken / "img" / "0001.png").write_bytes(b"no picture")
    recipe = make("continue_small", **FAST | {"schedule.epochs": 1})
    summary = train(recipe, tmp_path / "run", device="cpu", evaluate=("folder", sequences))
    assert summary["sequences"].keys() == {"square", "mean"}
    assert 0 <= summary["sequences"]["mean"]["AUC"] <= 1
    assert "The sequence broken is left out" in caplog.text
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == summary
    # That nothing can be tracked shows after the training, whose result is kept.
    shutil.rmtree(sequences / "square")
    with pytest.raises(InputError, match="None of the sequences"):
        train(recipe, tmp_path / "other", device="cpu", evaluate=("folder", sequences))
    assert json.loads((tmp_path / "other" / "run.json").read_text())["steps"] == 5


def test_sequences_are_followed_meanwhile_and_change_nothing(
    make, sequences, losses_of, tmp_path
) -> None:
    changes = FAST | {"schedule.epochs": 3, "network.options.drop_path": 0.1, "engine.ema": 0.9}
    train(make("continue_small", **changes), tmp_path / "plain", device="cpu")
    follow = {
        "validation.follow": f"folder={sequences}",
        "validation.follow_frames": 2,
        "validation.follow_every_epochs": 2,
    }
    train(make("continue_small", **changes | follow), tmp_path / "followed", device="cpu")
    found = {int(row["step"]): row["followed_AUC"] for row in rows(tmp_path / "followed")}
    assert [step for step, auc in found.items() if auc] == [10, 15]
    assert all(0 <= float(auc) <= 1 for auc in found.values() if auc)
    assert losses_of(tmp_path / "followed") == losses_of(tmp_path / "plain")
    first, second = weights(tmp_path / "plain"), weights(tmp_path / "followed")
    assert all(torch.equal(first[key], second[key]) for key in first)
    (sequences / "square" / "img" / "0000.png").write_bytes(b"no picture")
    summary = train(make("continue_small", **changes | follow), tmp_path / "broken", device="cpu")
    assert summary["steps"] == 15 and "followed_AUC" not in summary["figures"]
    wrong = changes | {"validation.follow": str(tmp_path / "nowhere")}
    with pytest.raises(InputError, match="nowhere"):
        train(make("continue_small", **wrong), tmp_path / "wrong", device="cpu")


def test_sequences_that_are_not_there_show_before_the_training(make, tmp_path) -> None:
    recipe = make("continue_small", **FAST | {"schedule.epochs": 1})
    for kind, sentence in (("folder", "nowhere"), ("lasott", "There is no data set called")):
        with pytest.raises(InputError, match=sentence):
            train(recipe, tmp_path / "run", device="cpu", evaluate=(kind, tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()
