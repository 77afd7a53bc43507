"""The ways of running a network all find the same boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import checkpoints
from tests.trackers.every_tracker import random_frame
from tests.trackers.test_multi_tracker import BOXES, moving_frames, tiny
from trackers import MultiTracker, build_tracker, list_trackers
from trackers.crop_tracker import CropTracker
from trackers.crops import CropBuffer, SquareCrop, to_tensor
from trackers.fast import FrameBuffer, Recording, extract_crops
from trackers.packed import PackedLinears, packing_available

SEED = Path(checkpoints.__file__).parent / "mixformerv2_small_seed.safetensors"
CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(not packing_available(), reason="this PyTorch has no oneDNN")


def windows(count: int, size: int) -> list[SquareCrop]:
    """Inside of the frame and across its borders, smaller and larger than the crop."""
    boxes = [(120, 60, 60, 40), (-10, -8, 50, 36), (380, 80, 50, 50), (159.6, 60.4, 3.2, 2.9)]
    return [SquareCrop.around(box, 3.0, size) for box in boxes[:count]]


def test_the_buffer_holds_what_the_plain_way_makes() -> None:
    buffer, room = CropBuffer(64, CPU), None
    for seed, count in ((0, 2), (1, 3), (2, 1), (3, 3)):
        frame, places = random_frame(seed), windows(count, 64)
        found = buffer.fill(frame, places)
        assert torch.equal(found, to_tensor([window.extract(frame) for window in places]))
        if seed == 1:
            room = found.data_ptr()
        assert room is None or found.data_ptr() == room


@pytest.mark.parametrize("size", [48, 224])
def test_crops_made_on_the_device_are_opencvs_within_a_grey_level(size: int) -> None:
    for seed in range(4):
        frame, places = random_frame(seed), windows(4, size)
        found = extract_crops(torch.from_numpy(frame.copy()), places)
        wanted = np.stack([window.extract(frame) for window in places]).transpose(0, 3, 1, 2)
        difference = np.abs(found.numpy() - wanted)
        assert difference.max() <= 1 and difference.mean() < 0.15
        normalised = FrameBuffer(CPU).fill(frame, places)
        assert (normalised - to_tensor([w.extract(frame) for w in places])).abs().max() < 0.018


def test_a_recording_takes_new_inputs_and_keeps_the_others() -> None:
    one, two = torch.ones(2), torch.full((2,), 2.0)
    recording = Recording(lambda inputs: inputs[0] * 10 + inputs[1], [one, two])
    assert recording([one, two]).tolist() == [12, 12]
    assert recording([two, None]).tolist() == [22, 22]
    assert recording([None, one]).tolist() == [21, 21]
    assert one.tolist() == [1, 1]


@needs_packing
def test_packed_layers_are_the_layers() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(96, 70).requires_grad_(False)
    x, packed = torch.randn(3, 5, 96), PackedLinears()

    def both() -> None:
        with packed:
            found = layer(x)
            part = F.linear(x[..., :40], layer.weight[8:20, :40], layer.bias[8:20])
        assert torch.allclose(found, layer(x), atol=1e-5)
        wanted = F.linear(x[..., :40], layer.weight[8:20, :40], layer.bias[8:20])
        assert torch.allclose(part, wanted, atol=1e-5)

    both()
    assert len(packed._packed) == 2
    layer.weight.mul_(2)  # the copies are stale
    both()
    assert len(packed._packed) == 2
    with packed:  # not packed, and not refused: no bias, other types, to be trained
        assert torch.equal(F.linear(x, layer.weight), x @ layer.weight.T)
        assert layer.double()(x.double()).dtype == torch.float64
        assert torch.nn.Linear(96, 2)(x).requires_grad
    assert len(packed._packed) == 2


@needs_packing
@pytest.mark.parametrize("inputs", [96, 400, 3072])
def test_exact_layers_are_nearer_to_the_truth(inputs: int) -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(inputs, 64).requires_grad_(False), torch.randn(2, 50, inputs)
    truth = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    errors = []
    for exact in (False, True):
        with PackedLinears(exact=exact):
            errors.append((layer(x) - truth).square().mean().sqrt().item())
    assert errors[1] < 1.01 * errors[0] < 1e-5
    assert inputs < 3072 or errors[1] < 0.8 * errors[0]


@needs_packing
def test_benchmarks_are_exact() -> None:
    benchmark, robust = (
        build_tracker("mixformerv2_small", device="cpu", weights=SEED, mode=mode)
        for mode in ("benchmark", "robust")
    )
    assert benchmark._searcher.kernels._exact and not robust._searcher.kernels._exact


@needs_packing
def test_layers_are_packed_also_of_a_tracker_built_for_inference() -> None:
    with torch.inference_mode():
        tracker = build_tracker("mixformerv2_small", device="cpu", weights=SEED)
        tracker.initialize(random_frame(), BOXES[3])
    assert isinstance(tracker, CropTracker) and isinstance(tracker._searcher.kernels, PackedLinears)
    assert tracker._searcher.kernels._packed


@needs_packing
def test_a_tracker_on_the_cpu_uses_packed_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    pack = PackedLinears._pack
    monkeypatch.setattr(
        PackedLinears, "_pack", lambda self, weight: (calls.append(1), pack(self, weight))[1]
    )
    tracker = tiny("mixformerv2_small")
    tracker.initialize(random_frame(), BOXES[3])
    began = len(calls)
    assert began > 0
    tracker.track(random_frame())
    assert len(calls) > began


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("name", list_trackers())
def test_fast_is_the_same_but_for_the_last_digits(name: str, record: bool) -> None:
    """Three objects, one of them corrected, in bfloat16, and as a GPU is driven."""
    frames = moving_frames(5)
    tracks = []
    for fast in (False, True):
        tracker = tiny(name)
        assert isinstance(tracker, CropTracker)
        if fast:
            tracker.accelerate(record=record)
        objects = MultiTracker(tracker)
        for i in (1, 3, 7):
            objects.add(i, frames[0], BOXES[i])
        objects.track(frames[1])
        objects.correct(3, frames[1], BOXES[3])
        objects.track(frames[2])
        # What comes next shall start from the same boxes.
        for i in (1, 3, 7):
            objects.correct(i, frames[3], BOXES[i])
        tracks.append(objects.track(frames[4]))
    plain, accelerated = tracks
    for i, track in plain.items():
        assert accelerated[i].score == pytest.approx(track.score, abs=0.02, nan_ok=True)
        assert np.abs(accelerated[i].box - track.box).max() < 3
        assert (accelerated[i].box != track.box).any()


@pytest.mark.parametrize("record", [False, True])
def test_bundled_weights_follow_fast(record: bool) -> None:
    frames = moving_frames(4)
    plain, fast = (
        build_tracker("mixformerv2_small", device="cpu", weights=SEED, fast=fast)
        for fast in (False, True)
    )
    assert (
        isinstance(fast, CropTracker)
        and fast.network.backbone.patch_embed.proj.weight.dtype == torch.bfloat16
    )
    if record:
        fast.accelerate(record=True)
    for tracker in (plain, fast):
        tracker.initialize(frames[0], BOXES[1])
    for frame in frames[1:]:
        wanted, found = plain.track(frame), fast.track(frame)
        # bfloat16 has eight bits: here up to 1.2 pixels, where a window is 180 pixels wide.
        assert np.abs(found.box - wanted.box).max() < 2
        assert found.score == pytest.approx(wanted.score, abs=0.02)
