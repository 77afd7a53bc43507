"""The discriminator, the losses and a step of both networks are those of the official code.

Numbers: MCG-NKU/E2FGVI @ 709cbe3 on the CPU, formula weights; see tests/inpainting/test_e2fgvi.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from checkpoints.training import runs
from checkpoints.training.processes import Place
from inpainting.e2fgvi import FlowLevel
from inpainting.spynet import SPyNet
from inpainting.training import Recipe, loop
from inpainting.training.data import Batch
from inpainting.training.discriminator import Discriminator
from tests.golden.differences import Check
from tests.golden.formula import formula_tensor
from tests.inpainting.test_e2fgvi import fanin_state, golden

LOSSES = {
    "discriminator": "loss_dis",
    "hole": "loss_hole",
    "valid": "loss_valid",
    "flow": "loss_flow",
    "total": "loss_total",
}


def drifting(count: int, height: int, width: int) -> Tensor:
    """The golden runs' coarse random picture that drifts: (1, t, 3, h, w)."""
    low = np.random.RandomState(0).standard_normal((3, height // 8 + 1, width // 8 + 1))
    low = low.astype(np.float32) * np.float32(0.5)
    image = low.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width].clip(-1, 1)
    frames = np.stack([np.roll(image, (2 * t, 3 * t), axis=(1, 2)) for t in range(count)])
    return torch.from_numpy(frames)[None]


def with_a_box(frames: Tensor) -> Tensor:
    frames = frames.clone()
    height, width = frames.shape[-2:]
    for t in range(frames.shape[1]):
        y, x = height // 4 + 2 * t, width // 3 + 4 * t
        frames[:, t, :, y : y + height // 4, x : x + width // 4] = 0
    return frames


def fill_judge(network: nn.Module) -> None:
    """Weights by formula, by fan-in as for the generator."""
    state = network.state_dict()
    for key, value in state.items():
        scale = 0.02
        if key.endswith(("weight", "weight_orig")):
            scale = 1.4 / float(np.sqrt(np.prod(value.shape[1:])))
        state[key] = torch.from_numpy(formula_tensor(key, tuple(value.shape), scale))
    network.load_state_dict(state)


def test_the_discriminator(check: Check) -> None:
    numbers = golden("discriminator")

    def compare(entry: str, found: Tensor) -> None:
        assert list(found.shape) == numbers[f"{entry}.shape"].tolist(), entry
        sample = found.detach().numpy().reshape(-1)[:: int(numbers[f"{entry}.stride"])]
        check(f"discriminator {entry}", sample, numbers[f"{entry}.sample"], 1e-5)
        values = found.detach().double()
        moments = [values.mean(), values.std(correction=0), values.abs().max()]
        wanted = [numbers[f"{entry}.{name}"] for name in ("mean", "std", "absmax")]
        check(f"discriminator {entry} (moments)", moments, wanted, 1e-5)

    network = Discriminator().train()
    fill_judge(network)
    frames = with_a_box(drifting(5, 60, 108))
    with torch.no_grad():
        compare("train_forward1", network(frames))
        for layer in (0, 2, 4, 6, 8):
            compare(f"u{layer}_after1", network.state_dict()[f"conv.{layer}.weight_u"])
        compare("train_forward2", network(frames))
        network.eval()
        compare("eval_forward3", network(frames))
        compare("eval_240x432_T8", network(with_a_box(drifting(8, 240, 432))))


@pytest.fixture
def golden_batch() -> Batch:
    frames = drifting(4, 60, 108)
    holes = torch.zeros(2, 4, 1, 60, 108)
    for t in range(4):
        holes[0, t, :, 15 + 2 * t : 35 + 2 * t, 36 + 4 * t : 70 + 4 * t] = 1
    holes[1, :, :, 20:40, 10:50] = 1
    return Batch(torch.cat((frames, frames.flip(-2))), holes, 3)


def test_a_step(
    make: Callable[..., Recipe],
    golden_batch: Batch,
    check: Check,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers: Mapping[str, Any] = golden("train_step")
    norms: list[dict[str, float]] = []

    def remember(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
        parameters = list(parameters)
        network = (run.discriminator, run.network)[len(norms)]
        norms.append({name: p.grad.norm().item() for name, p in network.named_parameters()})  # type: ignore[union-attr]
        return runs.clip_gradients(parameters, most)

    monkeypatch.setattr(loop, "clip_gradients", remember)
    published = {
        "network": {"name": "e2fgvi_hq"},
        "init": {"flow": None},
        "losses": {"flow": 1.0},
        "optimizer": {"flow_lr": 1.0, "lr": 1e-4, "discriminator_lr": 1e-4, "clip": 0.0},
    }
    monkeypatch.setattr(loop, "build_teacher", lambda recipe: SPyNet(FlowLevel))
    recipe = make("tiny")
    recipe = type(recipe)(
        **{
            **vars(recipe),
            **{
                section: type(getattr(recipe, section))(**values)  # the rest as published
                for section, values in published.items()
            },
        }
    )
    run = loop._Run(recipe, tmp_path, Place(0, 1, torch.device("cpu")), None)
    state = fanin_state("e2fgvi_hq")
    run.network.load_state_dict(state)
    fill_judge(run.discriminator)
    assert run.teacher is not None
    part = "update_spynet."
    flow = {key.removeprefix(part): value for key, value in state.items() if part in key}
    run.teacher.load_state_dict(flow)
    run.set_rates()
    painted: list[Tensor] = []
    opinions: list[Tensor] = []
    run.network.register_forward_hook(lambda m, i, output: painted.append(output[0].detach()))
    run.discriminator.register_forward_hook(lambda m, i, output: opinions.append(output.detach()))
    losses, usable = run.step(golden_batch)
    assert usable
    check("train_step masks", golden_batch.holes.mean(), numbers["mask_mean"], 1e-6)
    check("train_step painted", painted[0].mean(), numbers["pred_mean"], 1e-5)
    check("train_step painted", painted[0].double().std(), numbers["pred_std"], 1e-5)
    real, fake, _ = opinions
    check("train_step real", relu(1 - real).mean(), numbers["loss_dis_real"], 1e-5)
    check("train_step fake", relu(1 + fake).mean(), numbers["loss_dis_fake"], 1e-5)
    found = {name: losses[name].item() for name in LOSSES}
    wanted = {name: float(numbers[entry]) for name, entry in LOSSES.items()}
    found["adversarial"] = 0.01 * losses["adversarial"].item()
    wanted["adversarial"] = float(numbers["loss_gan_weighted"])
    for name, value in wanted.items():
        check(f"train_step {name}, relative", found[name] / value, 1, 1e-4)
    for side, index in (("D", 0), ("G", 1)):
        names = [str(name) for name in numbers[f"grad{side}_names"]]
        wants = np.array(numbers[f"grad{side}_norms"])
        assert sorted(names) == sorted(norms[index])
        got = np.array([norms[index][name] for name in names])
        miss = np.abs(got - wants) / np.maximum(wants, 1e-6 * wants.max())
        check(f"train_step gradients of {side}, relative", miss.max(), 0, 1e-3)
    after = run.network.state_dict()
    for key, entry in (
        ("encoder.layers.0.weight", "after_step_encoder.layers.0.weight"),
        ("feat_prop_module.fusion.weight", "after_step_fusion"),
    ):
        sample = numbers[entry]
        values = after[key].numpy().reshape(-1)
        stride = -(-len(values) // len(sample))
        check(f"train_step {key} after", values[::stride], sample, 1e-5)
