"""Parity with the official E2FGVI on formula weights, and the inpainter round it.

The golden numbers come from upstream's code (MCG-NKU/E2FGVI @ 709cbe3) on the CPU in float32, whose
own noise is up to 1.8e-5 against float64; the weights are those of `fanin_state`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from checkpoints import CheckpointError
from inpainting import build_inpainter, build_network
from inpainting.e2fgvi import E2FGVI, load_weights
from inpainting.published import PublishedInpainter, select_windows
from inpainting.spynet import warp
from media import InputError
from tests.golden.formula import formula_input
from tests.inpainting.conftest import fanin_state, moving_hole

GOLDEN = Path(__file__).parents[1] / "golden" / "e2fgvi"
TOLERANCE = 1e-4


def golden(name: str) -> Mapping[str, np.ndarray]:
    return np.load(GOLDEN / f"{name}.npz")


def compare(
    entry: str, found: Tensor, numbers: Mapping[str, np.ndarray], tolerance: float = TOLERANCE
) -> None:
    """`found` has the shape and moments of a golden entry, and its values at every n-th place."""
    assert list(found.shape) == list(numbers[f"{entry}.shape"]), entry
    values = found.detach().numpy().reshape(-1)
    sample = values[:: int(numbers[f"{entry}.stride"])]
    # Numbers far from 1 are compared relative to the largest of them.
    allowed = tolerance * max(1.0, float(numbers[f"{entry}.absmax"]))
    np.testing.assert_allclose(
        sample, numbers[f"{entry}.sample"], rtol=0, atol=allowed, err_msg=entry
    )
    mean, deviation = values.astype(np.float64).mean(), values.astype(np.float64).std()
    assert mean == pytest.approx(float(numbers[f"{entry}.mean"]), abs=allowed), entry
    assert deviation == pytest.approx(float(numbers[f"{entry}.std"]), abs=allowed), entry


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
    # Flows of pure noise multiply rounding by 1e5: float64 differs from the golden by 0.008.
    with torch.inference_mode():
        compare("out", hq.feat_prop_module(features, *flows), numbers, tolerance=4e-3)
        geometric = hq.feat_prop_module(features, flows[0].flip(1), flows[1])
    with pytest.raises(AssertionError, match="Not equal"):
        compare("out", geometric, numbers, tolerance=0.2)


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
        full, _ = hq(masked_frames=frames, num_local=3)
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
    inputs: list[tuple[Tensor, int]] = []
    hook = network.register_forward_pre_hook(lambda module, args: inputs.append(args))
    painted = np.stack(list(PublishedInpainter(network).inpaint(frames, masks)))
    hook.remove()
    shapes, locals_, means = zip(*((x.shape, n, float(x.mean())) for x, n in inputs), strict=True)
    np.testing.assert_array_equal(shapes, numbers["window_shape"])
    np.testing.assert_array_equal(locals_, numbers["window_lt"])
    np.testing.assert_allclose(means, numbers["window_in_mean"], atol=1e-6)
    with torch.inference_mode():
        last, _ = network(*inputs[-1])  # upstream paints the references as well
    moments = numbers["window_out_mean"][-1], numbers["window_out_std"][-1]
    np.testing.assert_allclose((last.mean(), last.std(correction=0)), moments, atol=1e-5)
    stride = int(numbers["stride"])
    sample = painted[:, ::stride, ::stride].astype(int)
    difference = np.abs(sample - numbers["comp_sample"])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005
    np.testing.assert_allclose(painted.mean(axis=(1, 2, 3)), numbers["comp_mean"], atol=0.01)
    np.testing.assert_allclose(painted.std(axis=(1, 2, 3)), numbers["comp_std"], atol=0.01)
    np.testing.assert_array_equal(painted.shape, numbers["comp_shape"])
    changed = (painted != np.stack(frames)).any(axis=-1)
    assert (changed & ~np.stack(masks)).any()  # the masks were grown
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    grown = [cv2.dilate(mask.astype(np.uint8), cross, iterations=4).astype(bool) for mask in masks]
    np.testing.assert_array_equal([mask.sum() for mask in grown], numbers["dilated_mask_sum"])
    np.testing.assert_array_equal(
        (changed & ~np.stack(grown)).sum(axis=(1, 2)), numbers["outside_changed"]
    )
    inside = [frame[mask] for frame, mask in zip(painted, grown, strict=True)]
    np.testing.assert_allclose([x.mean() for x in inside], numbers["inside_mean"], atol=0.01)
    np.testing.assert_allclose([x.std() for x in inside], numbers["inside_std"], atol=0.01)


def test_hq_inference(hq: E2FGVI) -> None:
    check_inference(hq, "inference_hq_100x200", (100, 200))


@pytest.mark.slow
def test_fixed_inference(fixed: E2FGVI) -> None:
    check_inference(fixed, "inference_fixed_240x432", (240, 432))


class Counter(nn.Module):
    """Stands for the network: paints its first call all in 0.1, its second in 0.2, and so on."""

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.size = size
        self.calls: list[tuple[Tensor, int]] = []

    def forward(
        self, frames: Tensor, num_local: int, *, paint_references: bool
    ) -> tuple[Tensor, None]:
        assert not paint_references
        self.calls.append((frames, num_local))
        shape = (num_local, *frames.shape[2:])
        return torch.full(shape, len(self.calls) / 10), None


def counted(
    size: tuple[int, int] | None = None, **options: int
) -> tuple[PublishedInpainter, Counter]:
    network = Counter(size)
    return PublishedInpainter(network, **options), network  # type: ignore[arg-type]


def level(number: int) -> int:
    """What the n-th call paints, as a pixel: truncated, not rounded."""
    return int((np.float32(number / 10) + 1) / 2 * 255)


def test_overlapping_windows_blend_in_order() -> None:
    clip = moving_hole(12)
    inpainter, network = counted()
    result = list(inpainter.inpaint(clip, clip.holes))
    one, two, three = map(level, (1, 2, 3))
    for index, expected in (
        (0, (one + two) / 2),
        (5, (one + two) / 4 + three / 2),
        (8, (two + three) / 2),
        (11, three),
    ):
        assert (result[index][clip.holes[index]] == int(expected)).all()
    for frame, source, hole in zip(result, clip.frames, clip.holes, strict=True):
        # Four steps of a cross: a diamond.
        ys, xs = np.nonzero(hole)
        y, x = np.mgrid[: hole.shape[0], : hole.shape[1]]
        away = (abs(y - y.clip(ys.min(), ys.max())) + abs(x - x.clip(xs.min(), xs.max()))) > 4
        np.testing.assert_array_equal(frame[away], source[away])
        assert (frame[~away] != source[~away]).any(axis=-1).all()
    assert [num_local for _, num_local in network.calls] == [6, 11, 7]
    assert inpainter.notes == []


def test_the_network_sees_grey_in_holes_and_a_mirror_beyond_the_border() -> None:
    clip = moving_hole(2, (7, 100))
    inpainter, network = counted(dilate=0, neighbor_stride=2)
    frames, holes = clip.truth, [np.zeros((7, 100), bool) for _ in clip.truth]
    holes[0][5:, 97:] = True
    list(inpainter.inpaint(frames, holes))
    ((seen, _),) = network.calls
    assert seen.shape == (1, 2, 3, 60, 108)
    source = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255 * 2 - 1
    torch.testing.assert_close(seen[0, :, :, :5, :97], source[..., :5, :97])
    torch.testing.assert_close(seen[0, 1, :, :7, :100], source[1])
    assert (seen[0, 0, :, 5:9, 97:103] == 0).all()
    assert (seen[0, 0, :, 4, 97] != 0).any()
    torch.testing.assert_close(seen[..., 7:14, :], seen[..., :7, :].flip(-2))
    torch.testing.assert_close(seen[..., 100:], seen[..., 92:100].flip(-1))


def test_windows_without_a_hole_are_not_painted() -> None:
    clip = moving_hole(31)
    for index, hole in enumerate(clip.holes):
        hole &= index == 2
    inpainter, network = counted(step=7)
    result = list(inpainter.inpaint(clip, clip.holes))
    assert len(network.calls) == 2
    for index, (frame, source) in enumerate(zip(result, clip.frames, strict=True)):
        assert (frame is source) == (index != 2)


def test_a_part_equals_the_whole_and_reads_no_more_than_it_needs(hq: E2FGVI) -> None:
    clip = moving_hole(9, (50, 70))
    inpainter = PublishedInpainter(hq, neighbor_stride=2, step=4, num_ref=2, dilate=1)
    whole = list(inpainter.inpaint(clip, clip.holes))
    assert sorted(set(clip.asked)) == list(range(9))
    before = [frame.copy() for frame in clip.frames]
    clip.asked.clear()
    part = list(inpainter.inpaint(clip, clip.holes, start=1, stop=2))
    np.testing.assert_array_equal(part, whole[1:2])
    np.testing.assert_array_equal(clip.frames, before)
    # The windows of frames 0 and 2 reach to frame 4, and each frame is read once.
    assert sorted(clip.asked) == [0, 1, 2, 3, 4]


def test_the_fixed_model_paints_at_its_size_and_scales_the_fill_back() -> None:
    clip = moving_hole(3, (100, 200))
    inpainter, network = counted((240, 432))
    result = list(inpainter.inpaint(clip, clip.holes))
    assert network.calls[0][0].shape == (1, 3, 3, 240, 432)
    for frame, source, hole in zip(result, clip.frames, clip.holes, strict=True):
        assert frame.shape == source.shape
        assert (np.abs(frame[hole].astype(int) - level(1)) <= 1).all()
        changed = (frame != source).any(axis=-1)
        assert not changed[:24].any()
        assert changed.sum() < 2.5 * hole.sum()
    assert len(inpainter.notes) == 1
    assert "432x240" in inpainter.notes[0]


@pytest.mark.parametrize("option", ["step", "num_ref", "neighbor_stride", "dilate"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} is -2"):
        counted(**{option: -2})


def test_clips_too_large_for_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = moving_hole(2)
    inpainter, network = counted()

    def fail(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(network, "forward", fail)
    with pytest.raises(InputError, match=r"2 frames of 112x80 pixels.*memory of cpu"):
        list(inpainter.inpaint(clip, clip.holes))


# ---------------------------------------------------------------------------- weights


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    state = fanin_state("e2fgvi_hq")
    path = tmp_path / "E2FGVI-HQ-CVPR22.pth"
    torch.save(state, path)
    inpainter = build_inpainter("e2fgvi_hq", device="cpu", weights=path)
    assert str(path) in inpainter.weights
    with pytest.raises(CheckpointError, match=r"E2FGVI-HQ, not of E2FGVI; .*'e2fgvi_hq'"):
        build_inpainter("e2fgvi", device="cpu", weights=path)
    with pytest.raises(CheckpointError, match=r"E2FGVI, not of E2FGVI-HQ; .*'e2fgvi'"):
        load_weights("e2fgvi_hq", {**state, "sc.bias": torch.zeros(128, 60, 108)})
    del state["encoder.layers.0.bias"]
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.0\.bias"):
        load_weights("e2fgvi_hq", state)
    with pytest.raises(CheckpointError, match=r"nowhere\.pth"):
        build_inpainter("e2fgvi_hq", device="cpu", weights=tmp_path / "nowhere.pth")


def test_a_network_keeps_its_own_copy_in_full_precision() -> None:
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in fanin_state("e2fgvi_hq").items()
    }
    network, _ = load_weights("e2fgvi_hq", state)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    fusion = state["feat_prop_module.fusion.bias"]
    fusion.zero_()
    assert network.feat_prop_module.fusion.bias.any()


@pytest.mark.parametrize("name", ["e2fgvi", "e2fgvi_hq"])
def test_says_how_to_get_missing_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(tmp_path))
    with pytest.raises(CheckpointError, match=f"fetch {name}"):
        build_inpainter(name, device="cpu")


def test_networks_by_name() -> None:
    assert len(build_network("e2fgvi").state_dict()) == 243
    assert len(build_network("e2fgvi_hq").state_dict()) == 244
    with pytest.raises(InputError, match="one of e2fgvi, e2fgvi_hq, e2fgvi_hq_small"):
        build_network("propagation")


def test_the_small_network_fits_into_20_megabytes_and_is_used_like_the_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network("e2fgvi_hq_small")
    assert sum(2 * value.numel() for value in network.state_dict().values()) < 20_000_000
    state = fanin_state("e2fgvi_hq_small")
    clip = moving_hole(2, (50, 70))
    result = list(
        build_inpainter("e2fgvi_hq_small", device="cpu", weights=state).inpaint(clip, clip.holes)
    )
    for frame, source, hole in zip(result, clip.frames, clip.holes, strict=True):
        assert (frame[hole] != source[hole]).any()
    path = tmp_path / "small.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"small E2FGVI-HQ, not of E2FGVI-HQ; .*_small'"):
        load_weights("e2fgvi_hq", path)
    with pytest.raises(CheckpointError, match="E2FGVI-HQ, not of the small"):
        load_weights("e2fgvi_hq_small", fanin_state("e2fgvi_hq"))
    with pytest.raises(CheckpointError, match=r"no published weights .*train"):
        build_inpainter("e2fgvi_hq_small", device="cpu")
