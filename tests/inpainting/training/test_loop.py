"""It learns, goes on where it was killed, and shares its work without changing it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import checkpoints
from checkpoints.training import runs
from checkpoints.training.processes import Place
from inpainting.training import Recipe, train
from inpainting.training.losses import composite
from inpainting.training.networks import build_generator, load_flow
from inpainting.training.validation import HeldOut
from media import InputError
from tests.together import run_together

Make = Callable[..., Recipe]
Figures = Callable[[Path, str], list[float]]
ROOT = Path(__file__).parents[3]

TRAIN = """
import json, sys, torch
from pathlib import Path
from inpainting.training import build_recipe, train
torch.set_num_threads(1)
values, clips, out = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
train(build_recipe(values, [clips]), out, device="cpu")
"""


def weights(out: Path) -> dict[str, torch.Tensor]:
    state = torch.load(out / "state.pt", weights_only=True)
    judge = {f"judge.{key}": value for key, value in state["discriminator"].items()}
    return state["network"] | judge


def test_it_learns(make: Make, figures_of: Figures, tmp_path: Path) -> None:
    changes = {
        "schedule.steps": 30,
        "schedule.warmup_steps": 3,
        "optimizer.lr": 5e-3,
        "validation.samples": 4,
        "validation.every": 10,
        "engine.ema": 0.8,
        "engine.draw_every": 30,
    }
    summary = train(make("tiny", **changes), tmp_path, device="cpu")
    losses = figures_of(tmp_path, "total")
    assert len(losses) == 30 and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    held_out = figures_of(tmp_path, "held_out_hole_psnr")
    assert len(held_out) == 3 and held_out[-1] > held_out[0] + 0.5
    whole = figures_of(tmp_path, "held_out_psnr")
    assert all(a > b for a, b in zip(whole, held_out, strict=True))
    assert json.loads((tmp_path / "run.json").read_text()) == summary
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"weights.safetensors", "discriminator.safetensors", "samples.png", "log.csv"}
    assert not list(tmp_path.glob("*.part"))


def test_it_is_measured_on_a_device_without_float64(make: Make) -> None:
    held_out = HeldOut(make("tiny", **{"validation.samples": 2}), Place(0, 1, torch.device("cpu")))
    held_out._place = Place(0, 1, torch.device("mps"))  # which cannot make a tensor here at all
    found = held_out.measure(lambda batch: torch.zeros_like(batch.truth[:, : batch.num_local]))
    assert 0 < found["held_out_hole_psnr"] < found["held_out_psnr"] < 60


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_no_minutes_are_refused(make: Make, tmp_path: Path, minutes: float) -> None:
    with pytest.raises(InputError, match="a number of minutes above 0"):
        train(make("tiny"), tmp_path, device="cpu", minutes=minutes)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    make: Make, clips: Path, figures_of: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make("tiny", **{"engine.ema": 0.9, "engine.save_every": 2, "schedule.steps": 5})
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    train(recipe, unbroken, device="cpu")
    from inpainting.training import loop

    whole = loop._Run.step

    def stops(self, batch):  # type: ignore[no-untyped-def]
        if self.done == 3:
            raise KeyboardInterrupt
        return whole(self, batch)

    monkeypatch.setattr(loop._Run, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, broken, device="cpu")
    monkeypatch.undo()
    torch.set_num_threads(1)
    assert torch.load(broken / "state.pt", weights_only=True)["step"] == 2
    shutil.copytree(clips, tmp_path / "moved")
    moved = replace(recipe, data=replace(recipe.data, clips=(str(tmp_path / "moved"),), workers=1))
    twice = replace(recipe, data=replace(recipe.data, clips=(str(clips), str(clips))))
    with pytest.raises(InputError, match=r"data\.clips is '2 entries' now and was '1 entries'"):
        train(twice, broken, device="cpu")
    train(moved, broken, device="cpu")
    assert figures_of(broken, "total") == figures_of(unbroken, "total")
    first, second = weights(unbroken), weights(broken)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_processes_do_what_one_does(
    make: Make, clips: Path, figures_of: Figures, tmp_path: Path
) -> None:
    """Spectral norms depend on the weights alone, so that processes agree without a word."""
    recipe = make("tiny", **{"schedule.batch_size": 4, "validation.samples": 2})
    one, two = tmp_path / "one", tmp_path / "two"
    train(recipe, one, device="cpu")
    run_together(tmp_path, TRAIN, json.dumps(recipe.as_values()), str(clips), str(two))
    for name in ("total", "discriminator", "held_out_psnr"):
        assert figures_of(two, name) == pytest.approx(figures_of(one, name), rel=1e-4)
    first, second = weights(one), weights(two)
    for key, tensor in first.items():
        assert (tensor.float() - second[key].float()).abs().max() < 2e-4, key


def test_parts_of_a_batch_add_up(make: Make, figures_of: Figures, tmp_path: Path) -> None:
    """But for the judge's spectral norms, which go on with every part."""
    for parts in (1, 2):
        changes = {"schedule.accumulate": parts, "schedule.batch_size": 4, "schedule.steps": 2}
        train(make("tiny", **changes), tmp_path / str(parts), device="cpu")
    for name in ("hole", "valid", "gradient"):
        found = figures_of(tmp_path / "2", name)
        assert found == pytest.approx(figures_of(tmp_path / "1", name), rel=1e-3)


def test_in_half_precision_it_learns_nearly_the_same(
    make: Make, figures_of: Figures, tmp_path: Path
) -> None:
    for bf16 in (False, True):
        train(make("tiny", **{"engine.bf16": bf16}), tmp_path / str(bf16), device="cpu")
    exact, rough = (figures_of(tmp_path / name, "total") for name in ("False", "True"))
    assert rough == pytest.approx(exact, rel=0.05) and rough != exact


def test_the_clock_ends_a_run_with_its_schedule(
    make: Make, figures_of: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: 0.1 * next(ticks))  # two or three ticks a step
    monkeypatch.setattr(runs, "time", clock)
    changes = {"schedule.steps": 100_000, "schedule.decay": "step", "schedule.drops": [50_000]}
    changes |= {"schedule.warmup_steps": 10_000}  # a tenth, which is over within two steps
    summary = train(make("tiny", **changes), tmp_path, device="cpu", minutes=0.03)
    assert 5 < summary["steps"] < 12 and summary["seconds"] == pytest.approx(1.8, abs=0.3)
    rates = figures_of(tmp_path, "lr_network")
    assert rates[0] < 1e-4 and max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-4)


def test_a_run_without_a_judge(make: Make, figures_of: Figures, tmp_path: Path) -> None:
    train(make("tiny", **{"losses.adversarial": 0.0}), tmp_path, device="cpu")
    assert figures_of(tmp_path, "adversarial") == [] and len(figures_of(tmp_path, "total")) == 4


def test_it_starts_from_what_another_run_has_written(make: Make, tmp_path: Path) -> None:
    train(make("tiny", **{"schedule.steps": 1, "engine.piece_mb": 1}), tmp_path, device="cpu")
    index = str(tmp_path / "weights.safetensors.index.json")
    recipe = make("tiny", **{"init.weights": index})
    network = build_generator(recipe)
    wanted = weights(tmp_path)
    assert len(list(tmp_path.glob("weights-*.safetensors"))) > 1
    # The written ones are an average; after one step that is nearly the weights.
    assert all((v - wanted[k]).abs().max() < 2e-3 for k, v in network.state_dict().items())
    judge = str(tmp_path / "discriminator.safetensors")
    with pytest.raises(InputError, match="does not hold the weights of a network e2fgvi_hq"):
        build_generator(make("tiny", **{"init.weights": judge}))


def test_the_flow_starts_from_spynets_weights(make: Make, tmp_path: Path) -> None:
    """The same numbers as in the propagation's flow, under the keys of E2FGVI."""
    file = checkpoints.find("spynet")
    if file is None:
        pytest.skip("needs SPyNet's weights: python -m checkpoints fetch spynet")
    from inpainting.spynet import load_basicvsr

    plain = load_basicvsr(checkpoints.load_state_dict(file))
    images = torch.rand(2, 1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(load_flow("spynet")(*images), plain(*images))
    own = build_generator(make("tiny", **{"init.flow": "spynet"})).update_spynet.state_dict()
    assert all(
        torch.equal(own[key], value) for key, value in load_flow("spynet").state_dict().items()
    )
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold the weights of a SPyNet"):
        load_flow(str(tmp_path / "other.pth"))


def test_only_holes_are_composited() -> None:
    holes = torch.zeros(1, 1, 1, 2, 2)
    holes[..., 0, 0] = 1
    found = composite(torch.ones(1, 1, 3, 2, 2), torch.zeros(1, 1, 3, 2, 2), holes)
    assert found[0, 0, 0].tolist() == [[1, 0], [0, 0]]


def test_a_bare_machine_trains(
    make: Make, clips: Path, bare: Callable[..., str], figures_of: Figures, tmp_path: Path
) -> None:
    """With torch, torchvision, numpy, Pillow and safetensors, and nothing else."""
    recipe = make("tiny", **{"validation.samples": 2, "schedule.steps": 2, "data.workers": 1})
    check = 'import importlib.util\nfor name in ("cv2", "av", "timm", "yaml", "tqdm", "scipy"):\n'
    check += "    assert importlib.util.find_spec(name) is None, name\n"
    out = tmp_path / "run"
    bare(check + TRAIN, json.dumps(recipe.as_values()), str(clips), str(out))
    assert len(figures_of(out, "total")) == 2
