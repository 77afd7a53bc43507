"""MixViT is upstream's network, cached or not, and reads upstream's files."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import WeightsRecord
from media import InputError
from tests.golden.formula import fill_
from tests.trackers.every_tracker import random_frame, refuses_wrong_use
from trackers import base, build_network, build_tracker
from trackers.crops import SquareCrop, to_tensor
from trackers.models.mixvit import MixViT, MixViTTracker

GOLDEN = Path(__file__).parent.parent / "golden" / "mixformerv2"
TINY = {"depth": 2, "dim": 48, "heads": 3, "search_size": 64, "template_size": 32}
MARGINS = {"t": (0, 2), "l": (0, 1), "b": (1, 2), "r": (1, 1)}  # corner, axis to sum over less one


def with_formula_weights(name: str, **overrides) -> MixViT:
    network = build_network(name, **overrides)
    fill_(network, scale=0.035, skip=lambda key: key.endswith(("pos_embed_s", "pos_embed_t")))
    return network.eval().requires_grad_(False)


def sample64(tensor: torch.Tensor) -> np.ndarray:
    flat = tensor.flatten()
    return flat[np.linspace(0, flat.numel() - 1, 64).astype(np.int64)].numpy()


def mean_std(tensor: torch.Tensor) -> list[float]:
    return [tensor.double().mean().item(), tensor.double().std(correction=0).item()]


# The large network's scores reach 30 and its corners are sharp: PyTorch's fused attention would put
# its marginals 4e-6 from upstream's.
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mixvit_base", "B"),
        pytest.param("mixvit_large", "L", marks=pytest.mark.slow),  # 319 million weights
    ],
)
def test_network_is_upstreams(golden, check, name: str, file: str) -> None:
    case, what = golden(f"model_MixViT_{file}"), f"model_MixViT_{file}"
    network = with_formula_weights(name)
    random = np.random.RandomState(0)
    template, online, search = (
        torch.from_numpy(random.standard_normal((1, 3, size, size)).astype(np.float32))
        for size in (128, 128, 288)
    )
    tokens: list[torch.Tensor] = []
    network.backbone.blocks[-1].register_forward_hook(
        lambda module, inputs, output: tokens.append(output)
    )
    maps: list[torch.Tensor] = []
    network.box_head.register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0]))
    with torch.inference_mode():
        full = network(template, online, search)
        cache = network.encode_templates(torch.stack([template, online], dim=1))
        cached = network.search(search, cache)

    tight, scores = 2e-6, 5e-5
    check(f"{what} fwd boxes", full.boxes_cxcywh, case["fwd_pred_boxes"], tight)
    for edge, (corner, axis) in MARGINS.items():
        marginal = full.corner_probabilities[:, corner].sum(dim=axis)
        check(f"{what} fwd marginals", marginal, case[f"fwd_marg_{edge}"], tight)
    for corner, name in enumerate(("tl", "br")):
        sample, logits = (
            sample64(full.corner_probabilities[:, corner]),
            full.corner_logits[:, corner],
        )
        check(f"{what} fwd probabilities", sample, case[f"fwd_prob_{name}_sample64"], tight)
        check(f"{what} fwd scores", sample64(logits), case[f"fwd_score_{name}_sample64"], scores)
        check(f"{what} fwd scores", mean_std(logits), case[f"fwd_score_{name}_meanstd"], scores)
    assert tokens[0].shape == tuple(case["fwd_tokens_shape"].astype(int))
    check(f"{what} fwd tokens", sample64(tokens[0]), case["fwd_tokens_sample64"], 5e-4)
    check(f"{what} fwd tokens", mean_std(tokens[0]), case["fwd_tokens_meanstd"], 5e-4)

    check(f"{what} online boxes", cached.boxes_cxcywh, case["online_pred_boxes"], tight)
    sample = sample64(cached.corner_probabilities[:, 0])
    check(f"{what} online probabilities", sample, case["online_prob_tl_sample64"], tight)
    searched = maps[1].flatten(2).mT
    assert searched.shape == tuple(case["online_search_tokens_shape"].astype(int))
    check(f"{what} online tokens", sample64(searched), case["online_search_tokens_sample64"], 5e-4)
    check(f"{what} online tokens", mean_std(searched), case["online_search_tokens_meanstd"], 5e-4)
    check("MixViT cached - full: boxes", cached.boxes_cxcywh, full.boxes_cxcywh, tight)
    check("MixViT cached - full: scores", cached.corner_logits, full.corner_logits, scores)


def test_cached_path_takes_batches_and_any_number_of_templates() -> None:
    network = with_formula_weights("mixvit_base", **TINY)
    torch.manual_seed(0)
    templates, search = torch.randn(2, 4, 3, 32, 32), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        cached = network.search(search, network.encode_templates(templates[:, :2]))
        full = network(templates[:, 0], templates[:, 1], search)
        assert torch.allclose(cached.corner_logits, full.corner_logits, atol=1e-5)
        many = network.search(search, network.encode_templates(templates))
        alone = network.search(search[1:], network.encode_templates(templates[1:]))
        assert torch.allclose(many.corner_logits[1:], alone.corner_logits, atol=1e-5)
        assert not torch.allclose(many.corner_logits, full.corner_logits, atol=1e-3)


@pytest.mark.parametrize(("name", "file"), [("mixvit_base", "B"), ("mixvit_large", "L")])
def test_state_dict_has_the_official_keys_and_shapes(name: str, file: str) -> None:
    official = json.loads((GOLDEN / f"state_dict_mixvit{file}.json").read_text())
    with torch.device("meta"):
        network = build_network(name)
    ours = [[k, list(v.shape), str(v.dtype)] for k, v in network.state_dict().items()]
    assert ours == official


def test_large_384_differs_from_large_in_its_positions_only() -> None:
    with torch.device("meta"):
        large, larger = (
            {k: v.shape for k, v in build_network(name).state_dict().items()}
            for name in ("mixvit_large", "mixvit_large_384")
        )
    differing = {key: larger[key] for key in large if large[key] != larger[key]}
    assert large.keys() == larger.keys() and differing == {
        "backbone.pos_embed_s": (1, 24 * 24, 1024),
        "backbone.pos_embed_t": (1, 12 * 12, 1024),
    }


# --------------------------------------------------------------------------------- official files


@pytest.fixture
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registered networks, but tiny."""
    base.list_networks()
    for name, entry in base._registry.items():
        small = dataclasses.replace(entry, network=functools.partial(entry.network, **TINY))
        monkeypatch.setitem(base._registry, name, small)


def save_as_upstream(path: Path, state: dict[str, torch.Tensor]) -> None:
    """What upstream's trainer saves: the state dict, among objects of the trainer's own classes."""
    module = types.ModuleType("lib.train.admin.settings")
    settings = type("Settings", (), {"__module__": module.__name__})
    module.Settings = settings
    trainers = {"lib": types.ModuleType("lib"), "lib.train": types.ModuleType("lib.train")}
    trainers |= {"lib.train.admin": types.ModuleType("lib.train.admin"), module.__name__: module}
    sys.modules.update(trainers)
    try:
        theirs = settings()
        theirs.project_path = "train/mixformer_vit_online/baseline"
        content = {"epoch": 40, "net_type": "MixFormerOnlineScore", "net": state, "stats": {}}
        torch.save(content | {"settings": theirs, "constructor": None}, path)
    finally:
        for name in trainers:
            del sys.modules[name]


def as_official(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With the online tracker's score branch, and from BatchNorms that were frozen."""
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    return kept | {"score_branch.score_head.layers.0.weight": torch.ones(3, 3)}


@pytest.mark.parametrize("name", ["mixvit_base", "grm_base"])
def test_official_files_load(small_presets, tmp_path: Path, name: str) -> None:
    state = fill_(build_network(name)).state_dict()
    path = tmp_path / f"{name}.pth.tar"
    save_as_upstream(path, as_official(state) if name == "mixvit_base" else state)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True)
    assert "lib" not in sys.modules
    tracker = build_tracker(name, device="cpu", weights=path)
    loaded = tracker.network.state_dict()
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(loaded[key], value) and loaded[key].dtype == value.dtype, key
    frame = np.random.RandomState(0).randint(0, 256, (120, 160, 3)).astype(np.uint8)
    tracker.initialize(frame, [60, 40, 100, 80])
    assert np.isfinite(tracker.track(frame).box).all()


def test_any_other_difference_is_refused(small_presets) -> None:
    state = as_official(build_network("mixvit_base").state_dict())

    def refuse(name: str, state: dict[str, torch.Tensor]) -> str:
        with pytest.raises(InputError) as error:
            build_tracker(name, device="cpu", weights=state)
        return str(error.value)

    told = refuse("mixvit_base", state | {"score_brunch.weight": torch.ones(1)})
    assert "1 keys are unknown (score_brunch.weight, ...)" in told
    without = {k: v for k, v in state.items() if k != "box_head.conv5_tl.bias"}
    assert "1 of" in refuse("mixvit_base", without)
    without = {k: v for k, v in state.items() if k != "box_head.conv1_tl.1.running_var"}
    told = refuse("mixvit_base", without)
    assert "1 of" in told and "conv1_tl.1.running_var" in told
    # Tiny, all MixViTs are one and the same; to other trackers the two oddities are unknown keys.
    told = refuse("grm_base", state)
    assert "looks like one for mixvit_base or mixvit_large or mixvit_large_384" in told


def test_unpublished_weights_are_told() -> None:
    with pytest.raises(InputError, match="no published weights for mixvit_large;"):
        build_tracker("mixvit_large", device="cpu")


# ---------------------------------------------------------------------------------------- tracker


def tiny_tracker(**options) -> MixViTTracker:
    network = with_formula_weights("mixvit_base", **TINY)
    return MixViTTracker(network, weights=WeightsRecord("formula", ""), **options)


def test_tracker_asks_the_full_network_with_the_first_frame_twice() -> None:
    tracker, box = tiny_tracker(), (20.0, 40.0, 40.0, 40.0)
    # Send the corners to their sides, so that the box has an area and is not clipped.
    slope = torch.linspace(-1, 1, 16)[:, None] + torch.linspace(-1, 1, 16)
    tracker.network.box_head.register_forward_hook(
        lambda module, inputs, output: output + torch.stack([-slope, slope])
    )
    tracker.initialize(random_frame(), [20, 40, 60, 80])
    track = tracker.track(random_frame(1))
    template = to_tensor([SquareCrop.around(box, 2.0, 32).extract(random_frame())])
    crop = SquareCrop.around(box, 4.5, 64)
    with torch.inference_mode():
        found = tracker.network(template, template, to_tensor([crop.extract(random_frame(1))]))
    x, y, w, h = crop.to_frame(found.boxes_cxcywh[0, 0])
    assert x > 0 and y > 0 and w > 10 and h > 10 and y + h < 120
    assert track.box.tolist() == pytest.approx([x, y, x + w, y + h], abs=1e-3)
    assert math.isnan(track.score) and not track.lost


def test_a_correction_is_the_online_template() -> None:
    tracker = tiny_tracker()
    tracker.initialize(random_frame(), [20, 40, 60, 80])
    tracker.correct(random_frame(1), [300, 30, 340, 70])
    first = SquareCrop.around((20, 40, 40, 40), 2.0, 32).extract(random_frame())
    online = SquareCrop.around((300, 30, 40, 40), 2.0, 32).extract(random_frame(1))
    wanted = tracker.network.encode_templates(to_tensor([first, online])[None])
    assert all(torch.equal(*pair) for pair in zip(tracker._cache[-1], wanted[-1], strict=True))
    assert tracker.track(random_frame(2)).box[0] > 200


@pytest.mark.parametrize("box", [[0, 0, 3, 2], [390, 110, 500, 200], [-50, -50, 450, 170]])
def test_boxes_stay_in_the_frame(box: list[float]) -> None:
    tracker = tiny_tracker(search_factor=5.05)
    tracker.initialize(random_frame(), box)
    for i in range(5):
        x0, y0, x1, y1 = tracker.track(random_frame(i)).box
        assert 0 <= x0 and 0 <= y0 and x1 <= 400 and y1 <= 120
        assert x1 - x0 >= 9.999 and y1 - y0 >= 9.999


def test_wrong_use_is_told_in_a_sentence(small_presets) -> None:
    refuses_wrong_use(tiny_tracker())
    with pytest.raises(InputError, match="mixvit_base has no option update_interval"):
        build_tracker("mixvit_base", device="cpu", weights={}, update_interval=5)
