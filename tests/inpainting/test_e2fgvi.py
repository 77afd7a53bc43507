"""Parity with the official E2FGVI on formula weights, and the inpainter round it.

How the golden numbers were made, and how large a difference is float32's own noise (up to 1.8e-5
against float64), is told in `compare` and `fanin_state` below.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import checkpoints
from checkpoints import CheckpointError
from inpainting import build_inpainter, build_network, list_inpainters
from inpainting.e2fgvi import E2FGVI, E2FGVIInpainter, load_weights, select_windows
from inpainting.spynet import warp
from media import InputError
from tests.golden.formula import formula_input, formula_tensor
from tests.inpainting.conftest import moving_hole

GOLDEN = Path(__file__).parents[1] / "golden" / "e2fgvi"
TOLERANCE = 1e-4


def golden(name: str) -> Mapping[str, np.ndarray]:
    return np.load(GOLDEN / f"{name}.npz")


def compare(entry: str, found: Tensor, numbers: Mapping[str, np.ndarray]) -> None:
    """`found` has the shape and mean of a golden entry, and its values at every n-th place."""
    assert list(found.shape) == list(numbers[f"{entry}.shape"]), entry
    values = found.detach().numpy().reshape(-1)
    sample = values[:: int(numbers[f"{entry}.stride"])]
    # Numbers far from 1 are compared relative to the largest of them.
    scale = max(1.0, float(numbers[f"{entry}.absmax"]))
    np.testing.assert_allclose(
        sample, numbers[f"{entry}.sample"], rtol=0, atol=TOLERANCE * scale, err_msg=entry
    )
    mean = values.astype(np.float64).mean()
    assert mean == pytest.approx(float(numbers[f"{entry}.mean"]), abs=TOLERANCE * scale), entry


# ---------------------------------------------------------------------------- weights by formula


@functools.cache
def _formula(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    norm = "norm" in name and name.endswith("weight")
    return torch.from_numpy(formula_tensor(name, shape, scale, is_norm_weight=norm))


def _fanin(name: str, shape: tuple[int, ...]) -> float:
    """The golden run's scale: by fan-in for weights, so that the values keep their size."""
    if not name.endswith(".weight") or len(shape) < 2:
        return 0.02
    gain = 1.35 if "basic_module" in name else 0.5 if name.startswith("decoder.") else 1.4
    return gain / float(np.sqrt(np.prod(shape[1:])))


def fanin_state(name: str, scale: float | None = None) -> dict[str, Tensor]:
    """A state dict by formula, every scale by the rule above or the same; constants stay."""
    state = build_network(name).state_dict()
    for key, value in state.items():
        if value.is_floating_point() and key not in ("update_spynet.mean", "update_spynet.std"):
            shape = tuple(value.shape)
            state[key] = _formula(key, shape, scale or _fanin(key, shape))
    return state


@pytest.fixture(scope="module")
def hq() -> E2FGVI:
    return load_weights("e2fgvi_hq", fanin_state("e2fgvi_hq"))[0].eval().requires_grad_(False)


@pytest.fixture(scope="module")
def fixed() -> E2FGVI:
    return load_weights("e2fgvi", fanin_state("e2fgvi"))[0].eval().requires_grad_(False)


def golden_frames(count: int, height: int, width: int) -> Tensor:
    """A coarse random picture that drifts, with a grey box that drifts otherwise."""
    low = np.random.RandomState(0).standard_normal((3, height // 8 + 1, width // 8 + 1))
    low = low.astype(np.float32) * np.float32(0.5)
    image = low.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width].clip(-1, 1)
    frames = np.stack([np.roll(image, (2 * t, 3 * t), axis=(1, 2)) for t in range(count)])
    for t, frame in enumerate(frames):
        y, x = height // 4 + 2 * t, width // 3 + 4 * t
        frame[:, y : y + height // 4, x : x + width // 4] = 0
    return torch.from_numpy(frames)[None]


# ---------------------------------------------------------------------------- parts of the network


def test_warp() -> None:
    numbers = golden("flow_warp")
    image, flow = formula_input(0, (2, 4, 11, 17)), formula_input(1, (2, 11, 17, 2)) * 3
    flow = flow.permute(0, 3, 1, 2)
    for padding in ("zeros", "border"):
        compare(padding, warp(image, flow, padding_mode=padding), numbers)


def test_encoder_and_decoder(hq: E2FGVI) -> None:
    numbers = golden("encoder_decoder")
    compare("encoder", hq.encoder(golden_frames(2, 60, 108)[0]), numbers)
    compare("decoder", hq.decoder(formula_input(0, (2, 128, 15, 27))), numbers)


def test_deformable_alignment(hq: E2FGVI) -> None:
    numbers = golden("deform_align")
    features, condition = formula_input(0, (1, 256, 20, 28)), formula_input(1, (1, 384, 20, 28))
    flow, flow2 = formula_input(2, (1, 2, 20, 28)) * 2, formula_input(3, (1, 2, 20, 28)) * 3
    for name, align in hq.feat_prop_module.deform_align.items():
        raw = align.conv_offset(torch.cat((condition, flow, flow2), dim=1))
        compare(f"{name}.conv_offset", raw, numbers)
        compare(f"{name}.out", align(features, condition, flow, flow2), numbers)


def test_propagation_keeps_the_published_mirrored_flows(hq: E2FGVI) -> None:
    numbers = golden("feat_prop")
    features = formula_input(0, (2, 4, 128, 15, 27))
    flows = [formula_input(seed, (2, 3, 2, 15, 27)) * 2 for seed in (1, 2)]
    compare("out", hq.feat_prop_module(features, *flows), numbers)
    with pytest.raises(AssertionError):  # what geometry would ask for is something else
        compare("out", hq.feat_prop_module(features, flows[0].flip(1), flows[1]), numbers)


def test_soft_split_and_composite(hq: E2FGVI, fixed: E2FGVI) -> None:
    numbers = golden("soft_split_comp")
    for network, name, b, (h, w), grid in (
        (hq, "hq", 2, (30, 54), (10, 18)),
        (fixed, "fixed", 1, (60, 108), (20, 36)),
    ):
        features = formula_input(0, (2 * b, 128, h, w)).unflatten(0, (b, 2))
        compare(f"{name}_ss", network.ss(features), numbers)
        tokens = formula_input(1, (b, 2, *grid, 512))
        compare(f"{name}_sc", network.sc(tokens, (h, w)).flatten(0, 1), numbers)


def test_transformer(hq: E2FGVI) -> None:
    """Windows in both directions, only one of them, and features that do not fill the last one."""
    numbers = golden("transformer")
    for entry, index, seed, shape, size in (
        ("hq_block0", 0, 0, (2, 3, 10, 18), (30, 54)),
        ("fixed_block0", 0, 0, (1, 2, 20, 36), (60, 108)),
        ("hq_block7_45x81", 7, 2, (1, 2, 15, 27), (45, 81)),
        ("hq_block3_28x52", 3, 3, (1, 2, 10, 18), (28, 52)),
    ):
        tokens = formula_input(seed, (*shape, 512))
        compare(entry, hq.transformer[index](tokens, size), numbers)
    block = hq.transformer[0]
    tokens = formula_input(4, (2, 540, 512)).view(2, 3, 10, 18, 512)
    compare("hq_ffn0", block.mlp(tokens, (30, 54)).view(2, 540, 512), numbers)
    pooled = block.pool_layers[0](formula_input(5, (1, 2, 2, 3, 512, 45)))
    compare("hq_pool0", pooled, numbers)
    pooled = formula_input(7, (1, 2, 2, 3, 512)).permute(0, 3, 1, 2, 4)
    attended = block.attn(formula_input(6, (1, 3, 10, 18, 512)), pooled)
    windows = attended.view(1, 3, 2, 5, 2, 9, 512).permute(0, 2, 4, 1, 3, 5, 6)
    compare("hq_attn0", windows.reshape(4, 135, 512), numbers)
    np.testing.assert_array_equal(block.attn.valid_ind_rolled, numbers["valid_ind_rolled"])


# ---------------------------------------------------------------------------- the network


def check_forward(network: E2FGVI, name: str, size: tuple[int, int]) -> None:
    """Three local frames and two references: the result, and every stage on the way there."""
    numbers = golden(name)
    stages = ["encoder", "feat_prop_module", "ss", "sc", "decoder"]
    stages += [f"transformer.{i}" for i in range(8)]
    seen: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(stage).register_forward_hook(
            lambda module, args, output, stage=stage: seen.__setitem__(stage, output)
        )
        for stage in stages
    ]
    with torch.inference_mode():
        frames, flows = network(golden_frames(5, *size), 3)
    for hook in hooks:
        hook.remove()
    seen["sc"] = seen["sc"].flatten(0, 1)
    compare("flow_fwd", flows[0], numbers)
    compare("flow_bwd", flows[1], numbers)
    for stage in stages:
        compare(stage, seen[stage], numbers)
    compare("out", frames, numbers)
    moments = frames.double().flatten(1)
    np.testing.assert_allclose(moments.mean(1), numbers["out.frame_mean"], atol=TOLERANCE)
    np.testing.assert_allclose(moments.std(1, correction=0), numbers["out.frame_std"], atol=1e-4)


def test_hq_forward(hq: E2FGVI) -> None:
    check_forward(hq, "hq_forward", (120, 216))


def test_hq_forward_with_small_weights() -> None:
    network, _ = load_weights("e2fgvi_hq", fanin_state("e2fgvi_hq", scale=0.02))
    check_forward(network, "hq_forward_scale002", (120, 216))


def test_fixed_forward(fixed: E2FGVI) -> None:
    check_forward(fixed, "fixed_forward", (240, 432))


def test_leaving_references_out_changes_nothing_else(hq: E2FGVI) -> None:
    frames = golden_frames(4, 60, 108)
    with torch.inference_mode():
        full, _ = hq(frames, 3)
        local, _ = hq(frames, 3, paint_references=False)
        one, flows = hq(frames[:, :1], 1)
        pair, _ = hq(torch.cat((frames, frames.flip(-1))), 3)
    torch.testing.assert_close(local, full[:3], rtol=0, atol=1e-5)
    assert one.shape == (1, 3, 60, 108)
    assert flows[0].shape == flows[1].shape == (1, 0, 2, 15, 27)
    torch.testing.assert_close(pair[:4], full, rtol=0, atol=1e-5)  # a batch's clips do not mix


def test_learns(hq: E2FGVI) -> None:
    """Gradients reach every weight."""
    network, _ = load_weights("e2fgvi_hq", fanin_state("e2fgvi_hq"))
    frames, flows = network(golden_frames(3, 60, 108), 2)
    (frames.square().mean() + flows[0].square().mean()).backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # With two frames there is no frame before the last one, but its share of the weights is used.
    assert without == []


@pytest.mark.parametrize("size", [(118, 216), (120, 210), (128, 216), (64, 108), (60, 100 + 9)])
def test_sizes_that_do_not_fit_are_refused(hq: E2FGVI, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"multiple of 60.*{size[1]}x{size[0]}"):
        hq(torch.zeros(1, 1, 3, *size), 1)


def test_the_fixed_network_says_which_size_it_takes(fixed: E2FGVI) -> None:
    with pytest.raises(InputError, match=r"432x240 pixels only.*108x60"):
        fixed(torch.zeros(1, 1, 3, 60, 108), 1)


def test_sizes_just_below_a_multiple_fit(hq: E2FGVI) -> None:
    with torch.inference_mode():
        assert hq(golden_frames(1, 52, 104), 1)[0].shape == (1, 3, 52, 104)


# ---------------------------------------------------------------------------- windows


def test_windows_are_those_of_the_published_protocol() -> None:
    cases = json.loads((GOLDEN / "selection.json").read_text())
    assert len(cases) > 10
    for case in cases:
        length = case["length"]
        options = {key: case[key] for key in ("step", "num_ref", "neighbor_stride")}
        found = select_windows(length, **options)
        for window, expected in zip(found, case["windows"], strict=True):
            assert list(window.local) == expected["neighbor_ids"]
            # Upstream may ask for the frame after the last one, and fails then.
            assert (length in expected["ref_ids"]) == expected["out_of_range"]
            assert list(window.references) == [i for i in expected["ref_ids"] if i < length]
        counts = [sum(index in window.local for window in found) for index in range(length)]
        assert counts == case["predictions_per_frame"]


# ---------------------------------------------------------------------------- the inpainter


def triangle(values: np.ndarray, period: int = 510) -> np.ndarray:
    values = values % period
    return np.where(values > period // 2, period - values, values)


def golden_clip(count: int, height: int, width: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The clip and masks of the golden runs: integers only."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    frames, masks = [], []
    for t in range(count):
        xs, ys = x + 3 * t, y + 2 * t
        check = 160 * ((xs // 16 + ys // 16) % 2)
        channels = [
            (triangle(xs * (3 + c) + 40 * c) + triangle(ys * (5 - c) + 25 * c) + check) // 3
            for c in range(3)
        ]
        frames.append(np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8))
        mask = np.zeros((height, width), bool)
        y0, x0 = height // 4 + 2 * t, width // 5 + 5 * t
        mask[y0 : y0 + height // 3, x0 : x0 + width // 5] = True
        if t >= 4:
            distance = (y - 3 * height // 4) ** 2 + (x - 3 * width // 4 + 4 * t) ** 2
            mask |= distance <= (height // 8) ** 2
        masks.append(mask)
    return frames, masks


def check_inference(network: E2FGVI, name: str, size: tuple[int, int]) -> None:
    numbers = golden(name)
    frames, masks = golden_clip(12, *size)
    np.testing.assert_array_equal([f.sum(dtype=np.int64) for f in frames], numbers["clip_sum"])
    np.testing.assert_array_equal([m.sum() for m in masks], numbers["mask_sum"])
    inputs: list[tuple[tuple[int, ...], int, float]] = []
    hook = network.register_forward_pre_hook(
        lambda module, args: inputs.append((tuple(args[0].shape), args[1], float(args[0].mean())))
    )
    painted = np.stack(list(E2FGVIInpainter(network).inpaint(frames, masks)))
    hook.remove()
    shapes, locals_, means = zip(*inputs, strict=True)
    np.testing.assert_array_equal(shapes, numbers["window_shape"])
    np.testing.assert_array_equal(locals_, numbers["window_lt"])
    np.testing.assert_allclose(means, numbers["window_in_mean"], atol=1e-6)
    stride = int(numbers["stride"])
    sample = painted[:, ::stride, ::stride].astype(int)
    difference = np.abs(sample - numbers["comp_sample"])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005
    np.testing.assert_allclose(painted.mean(axis=(1, 2, 3)), numbers["comp_mean"], atol=0.01)
    np.testing.assert_allclose(painted.std(axis=(1, 2, 3)), numbers["comp_std"], atol=0.01)
    changed = (painted != np.stack(frames)).any(axis=-1)
    assert (changed & ~np.stack(masks)).any()  # the masks were grown


def test_hq_inference(hq: E2FGVI) -> None:
    check_inference(hq, "inference_hq_100x200", (100, 200))


@pytest.mark.slow
def test_fixed_inference(fixed: E2FGVI) -> None:
    check_inference(fixed, "inference_fixed_240x432", (240, 432))


def test_parts_of_a_clip_equal_the_whole(hq: E2FGVI) -> None:
    clip = moving_hole(9, (50, 70))
    inpainter = E2FGVIInpainter(hq, neighbor_stride=2, step=3, num_ref=2, dilate=1)
    whole = list(inpainter.inpaint(clip, clip.holes))
    before = [frame.copy() for frame in clip.frames]
    part = list(inpainter.inpaint(clip, clip.holes, start=4, stop=6))
    np.testing.assert_array_equal(part, whole[4:6])
    np.testing.assert_array_equal(clip.frames, before)
    assert inpainter.notes == []
