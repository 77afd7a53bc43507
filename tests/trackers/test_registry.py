"""All that is registered, tested by name: a new file in trackers/models is tested at once."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import checkpoints
from media import InputError
from media.device import resolve_device
from trackers import base, build_network, build_tracker, list_networks, list_trackers, register

SEED = Path(checkpoints.__file__).parent / "mixformerv2_small_seed.safetensors"


@pytest.fixture
def seed() -> dict[str, torch.Tensor]:
    return checkpoints.load_state_dict(SEED)


def smallest(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, depth=2, dim=48, heads=3, search_size=64, template_size=32)


def crops_for(network: nn.Module, batch: int) -> dict[str, torch.Tensor]:
    """Random inputs by the names of the arguments of `forward` that are images."""
    torch.manual_seed(1)
    sizes = {"template": 32, "online_template": 32, "search": 64}
    wanted = inspect.signature(network.forward).parameters
    return {key: torch.randn(batch, 3, n, n) for key, n in sizes.items() if key in wanted}


def tensors(output: object) -> dict[str, torch.Tensor]:
    return {key: value for key, value in vars(output).items() if isinstance(value, torch.Tensor)}


def test_names() -> None:
    assert {"mixformerv2_small", "mixformerv2_base"} <= set(list_trackers()) <= set(list_networks())
    assert {"mixformerv2_student12", "mixformerv2_student8"} <= set(list_networks())
    assert not any("student" in name for name in list_trackers())


@pytest.mark.parametrize("name", list_networks())
def test_outputs_are_numbers_and_samples_do_not_mix(name: str) -> None:
    network = smallest(name).eval()
    crops = crops_for(network, 3)
    with torch.inference_mode():
        together = tensors(network(**crops))
        alone = tensors(network(**{key: value[1:2] for key, value in crops.items()}))
    assert together
    for key, value in together.items():
        assert value.isfinite().all(), key
        assert torch.allclose(value[1:2], alone[key], atol=1e-5), key


@pytest.mark.parametrize("name", list_networks())
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    network = smallest(name).train()
    torch.manual_seed(2)
    output = tensors(network(**crops_for(network, 2)))
    sum((value * torch.randn_like(value)).sum() for value in output.values()).backward()
    # The BatchNorm after a convolution takes its bias out again: any gradient is a rounding error.
    idle = {
        f"{name}.0.bias"
        for name, part in network.named_modules()
        if isinstance(part, nn.Sequential) and isinstance(part[1], nn.BatchNorm2d)
    }
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert key in idle or parameter.grad.abs().sum() > 0, key
        else:
            assert parameter.grad is None, key


def test_a_name_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_registry", dict(base._registry))
    register("test_only")(nn.Identity)
    assert isinstance(build_network("test_only"), nn.Identity)
    with pytest.raises(ValueError, match="test_only"):
        register("test_only")(nn.Identity)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no tracker called 'mixformer_v3'.*mixformerv2_base"):
        build_tracker("mixformer_v3")
    with pytest.raises(InputError, match=r"no network called 'nothing'.*mixformerv2_student8"):
        build_network("nothing")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "fast"}, "'robust' or 'benchmark', not 'fast'"),
        ({"search_factor": 0.5}, "search_factor is at least 1, not 0.5"),
        ({"update_interval": 0}, "update_interval is at least 1, not 0"),
        ({"online_size": 0}, "online_size is at least 1, not 0"),
        ({"threshold": 0.4}, "mixformerv2_small has no option threshold"),
        ({"device": "cuda:77"}, "device 'cuda:77' is not available"),
        ({"device": "toaster"}, "device 'toaster' is not available"),
        ({"weights": "nowhere/at_all.pth"}, "no file nowhere/at_all.pth"),
    ],
)
def test_bad_options_say_what_is_wrong(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build_tracker("mixformerv2_small", **({"device": "cpu"} | options))


def test_seed_loads_strictly_and_is_cast_up(seed: dict[str, torch.Tensor]) -> None:
    tracker = build_tracker("mixformerv2_small", device="cpu", weights=SEED)
    loaded = tracker.network.state_dict()
    assert loaded.keys() == seed.keys()
    assert {value.dtype for value in seed.values()} == {torch.float16}
    for key, value in loaded.items():
        assert value.dtype == torch.float32 and torch.equal(value, seed[key].float()), key
    assert tracker.weights.name == str(SEED)
    assert tracker.weights.sha256 == hashlib.sha256(SEED.read_bytes()).hexdigest()[:12]


def test_official_weights_win_over_the_bundled_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {"mixformerv2_small_seed": SEED}
    monkeypatch.setattr(checkpoints, "find", files.get)
    assert build_tracker("mixformerv2_small", device="cpu").weights.name == "mixformerv2_small_seed"
    official = tmp_path / "official.safetensors"
    official.write_bytes(SEED.read_bytes())
    files["mixformerv2_small"] = official
    tracker = build_tracker("mixformerv2_small", device="cpu")
    assert str(tracker.weights).startswith("mixformerv2_small (sha256 ")


def test_missing_weights_are_the_checkpoints_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "find", lambda name: None)
    with pytest.raises(checkpoints.CheckpointError, match="mixformerv2_base"):
        build_tracker("mixformerv2_base", device="cpu")


def test_a_state_dict_is_copied_and_identified(seed: dict[str, torch.Tensor]) -> None:
    state = {key: value.float() for key, value in seed.items()}
    tracker = build_tracker("mixformerv2_small", device="cpu", weights=state)
    again = build_tracker("mixformerv2_small", device="cpu", weights=state)
    assert tracker.weights == again.weights and tracker.weights.name == "state dict"
    state["backbone.reg_tokens"] += 1
    assert not torch.equal(tracker.network.backbone.reg_tokens, state["backbone.reg_tokens"])
    other = build_tracker("mixformerv2_small", device="cpu", weights=state)
    assert other.weights.sha256 != tracker.weights.sha256


def test_weights_of_another_network_are_refused_in_one_sentence(
    seed: dict[str, torch.Tensor],
) -> None:
    def refuse(name: str, state: dict[str, torch.Tensor]) -> str:
        with pytest.raises(InputError) as error:
            build_tracker(name, device="cpu", weights=state)
        return str(error.value)

    told = refuse("mixformerv2_base", seed)
    assert "looks like one for mixformerv2_small" in told and "keys are missing" in told
    assert "shapes differ" in told
    without = {key: value for key, value in seed.items() if "score_head.layers.0" not in key}
    told = refuse("mixformerv2_small", without)
    assert "2 of 66 keys are missing (score_head.layers.0.0.weight, ...)" in told
    assert "looks like" not in told
    told = refuse("mixformerv2_small", seed | {"score_branch.x": torch.zeros(1)})
    assert "1 keys are unknown (score_branch.x, ...)" in told


def test_the_network_takes_the_sizes_of_the_weights(
    seed: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    without = {key: value for key, value in seed.items() if "score_head" not in key}
    assert build_tracker("mixformerv2_small", device="cpu", weights=without).network.feat_sz == 96
    assert "have no score head: nothing is ever called lost" in caplog.text
    other = build_network(
        "mixformerv2_base", depth=3, dim=128, heads=2, feat_sz=20, search_size=96, mlp_ratio=0.5
    )
    built = build_tracker("mixformerv2_base", device="cpu", weights=other.state_dict()).network
    assert (built.feat_sz, built.search_size, built.template_size) == (20, 96, 128)
    assert [len(block.mlp.fc1.bias) for block in built.backbone.blocks] == [64] * 3
    assert {block.attn.heads for block in built.backbone.blocks} == {2}


def test_auto_is_a_device_of_this_machine() -> None:
    device = resolve_device("auto")
    assert device.type == ("cuda" if torch.cuda.is_available() else device.type)
    assert torch.zeros(1, device=device).device.type == device.type


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (np.zeros((40, 60), np.uint8), "height x width x 3"),
        (np.zeros((40, 60, 4), np.uint8), "40 x 60 x 4"),
        (np.zeros((40, 60, 3), np.float32), "type float32"),
        (None, "height x width x 3 .* is a NoneType"),
    ],
)
def test_bad_frames(frame: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        base.check_frame(frame)


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ([10, 10, 10, 20], "no area"),
        ([30, 10, 20, 20], "no area"),
        ([60, 10, 70, 20], "outside of the 60 x 40 pixel frame"),
        ([-9, -9, 0, 20], "outside"),
        ([10, 10, 20, 90], "far beyond"),
        ([-1e9, -1e9, 1e9, 1e9], "far beyond"),
        ([1, 2, 3], "four numbers"),
        ([1, 2, float("nan"), 9], "four numbers"),
        ([1, 2, float("inf"), 9], "four numbers"),
        ("1,2,3,9", "four numbers"),
    ],
)
def test_bad_boxes(box: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        base.check_box(box, (40, 60))


def test_box_may_reach_beyond_the_frame() -> None:
    assert base.check_box([-5, -5, 70, 50], (40, 60)).tolist() == [-5, -5, 70, 50]
