"""What a run has written can be tracked with: by its path, and the name of a tracker."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from checkpoints.convert import convert
from media import InputError
from tests.trackers.training.conftest import TINY
from trackers import build_tracker
from trackers.__main__ import main
from trackers.evaluation.run import Contestant
from trackers.training import train
from trackers.training.networks import build_student

SHORT = {"schedule.epochs": 1, "schedule.samples_per_epoch": 4}


def write_run(make, out: Path, name: str, **changes: object) -> Path:
    train(make(name, **SHORT, **changes), out, device="cpu")
    return out


def frames(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (90, 120, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("recipe", "tracker", "changes"),
    [
        ("score", "mixformerv2_base", {}),  # 72 bins
        ("stage1_dense_to_sparse", "mixformerv2_base", {"network.options.feat_sz": 16}),
        ("reduced_6_small_finetune", "mixformerv2_small", {"network.options.feat_sz": 12}),
        ("mixvit_teacher", "mixvit_base", {"network.options.depth": 2}),
        ("grm_large", "grm_large", {"network.options.depth": 2}),
    ],
)
def test_a_run_of_any_size_can_be_followed(
    make, tmp_path, recipe: str, tracker: str, changes: dict[str, object]
) -> None:
    changes = changes | {"teacher": None, "losses.edges": 0, "losses.features": 0}
    out = write_run(make, tmp_path / "run", recipe, **changes, **{"data.search_factor": 2.5})
    follower = build_tracker(tracker, device="cpu", weights=out / "weights.safetensors")
    network = build_student(make(recipe, **changes)).eval()
    network.load_state_dict(load_file(out / "weights.safetensors"))
    torch.manual_seed(0)
    sides = {"search": 64}
    wanted = inspect.signature(network.forward).parameters
    crops = {
        key: torch.randn(2, 3, sides.get(key, 32), sides.get(key, 32))
        for key in wanted
        if key != "threshold"
    }
    with torch.no_grad():  # two heads of 16 channels, which the shapes do not tell
        found, expected = follower.network(**crops), network(**crops)
    for key, value in vars(expected).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(vars(found)[key], value), key
    assert (follower.search_factor, follower.template_factor) == (2.5, 2.0)
    first, second = frames(2)
    follower.initialize(first, [20, 20, 60, 60])
    assert np.isfinite(follower.track(second).box).all()


def test_what_a_run_was_removing_is_gone(make, tmp_path) -> None:
    """A removal's result has all blocks; the fading ones are left out, as at the run's end."""
    changes = {"teacher": None, "losses.edges": 0, "losses.features": 0}
    out = write_run(make, tmp_path / "run", "stage2a_removal", **changes)
    weights = out / "weights.safetensors"
    network = build_tracker("mixformerv2_base", device="cpu", weights=weights).network
    found = [block.coefficient for block in network.backbone.blocks]
    assert [i for i, coefficient in enumerate(found) if coefficient is not None] == [0, 3, 6, 9]
    assert not any(coefficient for coefficient in found)


def test_commands_take_a_run(make, stills, tmp_path, capsys) -> None:
    """Pieces, whose head has the notes, and one file made of them."""
    from PIL import Image

    wide = {"network.options.dim": 128, "network.options.heads": 2, "network.options.feat_sz": 20}
    small = TINY | {"depth": 4}
    changes = {f"network.options.{key}": value for key, value in small.items()} | wide
    out = write_run(
        make,
        tmp_path / "run",
        "reduced_7_score",
        **changes,
        **{"engine.piece_mb": 1, "data.search_factor": 2.25, "data.template_factor": 1.5},
    )
    index = out / "weights.safetensors.index.json"
    whole = convert(index, tmp_path / "whole.safetensors")
    for path in (index, whole):
        tracker = build_tracker("mixformerv2_small", device="cpu", weights=path)
        assert (tracker.search_factor, tracker.template_factor) == (2.25, 1.5)
        # The published search factor of a data set is for weights that know it.
        contestant = Contestant("mixformerv2_small", weights=str(path))
        assert contestant.tuned_for("got10k").options == {"update_interval": 15}
    asked = build_tracker("mixformerv2_small", device="cpu", weights=whole, search_factor=3)
    assert asked.search_factor == 3
    sequence = tmp_path / "data" / "a"
    (sequence / "img").mkdir(parents=True)
    for i, frame in enumerate(frames(3)):
        Image.fromarray(frame).save(sequence / "img" / f"{i}.png")
    (sequence / "groundtruth.txt").write_text("20,20,40,40\n" * 3)
    words = ["--tracker", "mixformerv2_small", "--weights", str(index), "--device", "cpu"]
    assert main(["track", str(sequence / "img"), "--box", "20,20,60,60", *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    folder = str(tmp_path / "data")
    assert main(["evaluate", "folder", folder, "--out", str(tmp_path / "r"), *words]) == 0
    assert "AUC" in capsys.readouterr().out


def test_weights_of_another_architecture_are_still_refused(make, tmp_path) -> None:
    out = write_run(make, tmp_path / "run", "mixvit_teacher", **{"network.options.depth": 2})
    with pytest.raises(InputError, match=r"do not fit mixformerv2_small: .*reg_tokens"):
        build_tracker("mixformerv2_small", device="cpu", weights=out / "weights.safetensors")
    with pytest.raises(InputError, match=r"do not fit grm_base: .*keys are missing"):
        build_tracker("grm_base", device="cpu", weights=out / "weights.safetensors")
