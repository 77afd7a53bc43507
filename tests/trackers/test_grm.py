"""GRM is upstream's network, layer by layer, and its tracker upstream's frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import WeightsRecord
from tests.golden.formula import fill_, formula_input
from tests.golden.grm import synth
from tests.trackers.every_tracker import padding_mask, random_frame, refuses_wrong_use
from trackers import build_network, list_trackers
from trackers.base import _registry
from trackers.crops import SquareCrop, to_tensor
from trackers.models.grm import (
    GRM,
    GRMTracker,
    decode,
    hann_window,
    masked_softmax,
    who_sees_whom,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "grm"
THRESHOLDS = {"argmax": 0.0, "thr0p4": 0.4, "allA": 1.1, "noneA": 1e-9}
TINY = {"depth": 3, "dim": 48, "heads": 3, "search_size": 64, "template_size": 32}


@pytest.fixture(scope="module")
def base() -> Iterator[GRM]:
    yield fill_(build_network("grm_base"), scale=0.04).eval().requires_grad_(False)


def check_forward(check, network: GRM, case: dict, what: str, threshold: float = 0.0) -> None:
    """Compare one forward with everything its golden file holds."""
    tokens: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: tokens.append(output[0]))
        for block in network.backbone.blocks
    ]
    hooks.append(
        network.backbone.norm.register_forward_hook(
            lambda module, inputs, output: tokens.append(output)
        )
    )
    template = formula_input(0, (1, 3, network.template_size, network.template_size))
    search = formula_input(1, (1, 3, network.search_size, network.search_size))
    with torch.inference_mode():
        found = network(template, search, threshold)
    for hook in hooks:
        hook.remove()
    *blocks, normalized = tokens
    check(f"{what} score map", found.score_map, case["score_map"], 2e-4)
    check(f"{what} size map", found.size_map, case["size_map"], 2e-4)
    check(f"{what} offset map", found.offset_map, case["offset_map"], 2e-4)
    check(f"{what} box", found.box_cxcywh, case["pred_boxes"], 2e-4)
    check(f"{what} probabilities", found.keep_probabilities, case["p_keep_search"], 2e-4)
    samples = np.stack([block[0, ::16, :8].numpy() for block in blocks])
    check(f"{what} tokens", samples, case["block_samples"], 2e-4)
    check(f"{what} tokens", normalized[:, ::16, :32], case["feat_sample"], 2e-4)
    assert found.decisions.unique().tolist() in ([0.0, 1.0], [0.0], [1.0])
    # A token whose probability is on the threshold may fall to either side.
    margin = np.abs(case["p_keep_search"] - (threshold or 0.5))
    same = found.decisions.numpy() == case["decisions"]
    assert same[margin > 1e-4].all() and same.mean() >= 0.999


@pytest.mark.parametrize("file", THRESHOLDS)
def test_network_is_upstreams(golden, check, base: GRM, file: str) -> None:
    case = golden(f"forward_vitb256_{file}", "grm")
    check_forward(check, base, case, f"grm forward_{file}", THRESHOLDS[file])


def test_another_threshold_divides_as_upstream(check, base: GRM) -> None:
    """A few figures of a run whose arrays are not here."""
    wanted = json.loads((GOLDEN / "info_base.json").read_text())["thr0p55"]
    crops = formula_input(0, (1, 3, 128, 128)), formula_input(1, (1, 3, 256, 256))
    with torch.inference_mode():
        found = base(*crops, wanted["threshold"])
    margin = (found.keep_probabilities - wanted["threshold"]).abs().min()
    check("grm thr0p55 margin", margin, wanted["min_margin"], 2e-6)
    assert found.decisions[0].sum(dim=1).tolist() == wanted["countA"]
    check("grm thr0p55 box", found.box_cxcywh[0, 0], wanted["box"], 2e-4)
    ends = [found.score_map.min(), found.score_map.max()]
    check("grm thr0p55 scores", ends, wanted["score"], 2e-4)


def test_samples_of_a_batch_divide_for_themselves() -> None:
    """Upstream's quick way adds their counts up, and fails."""
    network = fill_(build_network("grm_base", **TINY), scale=0.1).eval()
    crops = formula_input(2, (2, 3, 32, 32)), formula_input(3, (2, 3, 64, 64))
    with torch.inference_mode():
        both = network(*crops, 0.3)
        for i in range(2):
            alone = network(*(c[i : i + 1] for c in crops), 0.3)
            assert torch.allclose(both.score_map[i], alone.score_map[0], atol=1e-5)
            assert torch.allclose(both.box_cxcywh[i], alone.box_cxcywh[0], atol=1e-5)
            assert torch.equal(both.decisions[i], alone.decisions[0])
    assert not torch.equal(both.decisions[0], both.decisions[1])


@pytest.mark.slow  # 332 million formula weights
def test_large_network_is_upstreams(golden, check) -> None:
    network = fill_(build_network("grm_large"), scale=0.03).eval().requires_grad_(False)
    check_forward(check, network, golden("forward_vitl320_argmax", "grm"), "grm forward_vitl320")


def test_attention_is_upstreams(golden, check, base: GRM) -> None:
    case = golden("attention_layer1", "grm")
    with torch.inference_mode():
        found, division = base.backbone.blocks[1].attn(formula_input(4, (1, 320, 768)), 64, 0.0)
    check("grm attention_layer1 masked", found[0, ::8, ::8], case["masked"], 2e-4)
    # Upstream's other way, with three plain attentions, differs by the epsilons only.
    check("grm attention_layer1 grouped", found[0, ::8, ::8], case["grouped"], 2e-4)
    assert (division.mixed.numpy() == case["decision"]).all()


def test_masked_softmax_is_upstreams(golden, check) -> None:
    case = golden("masked_softmax", "grm")
    group = torch.from_numpy(case["group"])  # 0 template, 1 search alone, 2 search mixed
    kinds = {(0, 0), (0, 2), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)}
    allowed = torch.zeros(2, 12, 12)
    for i, j in kinds:
        allowed += (group[:, :, None] == i) * (group[:, None] == j)
    found = masked_softmax(torch.from_numpy(case["logits"]), allowed)
    check("grm masked_softmax", found, case["out"], 1e-6)


def test_who_sees_whom() -> None:
    allowed = who_sees_whom(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 2)
    assert allowed[0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1]]
    assert allowed[1].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_masked_softmax_is_a_plain_softmax_over_the_allowed() -> None:
    torch.manual_seed(0)
    logits, mixed = torch.randn(2, 3, 12, 12), torch.randint(0, 2, (2, 8)).float()
    allowed = who_sees_whom(mixed, 4)
    found = masked_softmax(logits, allowed)
    wanted = logits.masked_fill(allowed[:, None] == 0, -torch.inf).softmax(dim=-1)
    assert torch.allclose(found, wanted, atol=2e-6)
    assert torch.allclose(found.sum(dim=-1), torch.ones(()))
    # All keys that a row may see far below one that it may not: the mean of all.
    logits[0, 0, 0, :] = torch.where(allowed[0, 0] > 0, -200.0, 0.0)
    assert (allowed[0, 0] == 0).any()
    assert torch.allclose(masked_softmax(logits, allowed)[0, 0, 0], torch.full((12,), 1 / 12))


def test_head_is_upstreams(golden, check, base: GRM) -> None:
    case = golden("center_head", "grm")
    with torch.inference_mode():
        score, size, offset = base.box_head(formula_input(6, (1, 768, 16, 16)))
    check("grm center_head score", score, case["score"], 2e-4)
    check("grm center_head size", size, case["size"], 2e-4)
    check("grm center_head offset", offset, case["offset"], 2e-4)
    check("grm center_head box", decode(score, size, offset)[0], case["box"], 2e-4)


def test_decoding_is_upstreams(golden, check) -> None:
    case = golden("center_decode", "grm")
    score, size, offset = (torch.from_numpy(case[key]) for key in ("score", "size", "offset"))
    window = hann_window(16)
    check("grm center_decode windows", window, case["hann16"], 1e-6)
    check("grm center_decode windows", hann_window(20), case["hann20"], 1e-6)
    for response, suffix in ((score, ""), (window * score, "_hann")):
        box, cell = decode(response, size, offset)
        check(f"grm center_decode box{suffix}", box, case[f"box{suffix}"], 1e-6)
        best = response.flatten(1).gather(1, cell[:, None])
        check(f"grm center_decode max{suffix}", best, case[f"max{suffix}"], 1e-6)


@pytest.mark.parametrize(("name", "file"), [("grm_base", "vitb256"), ("grm_large", "vitl320")])
def test_state_dict_has_the_official_keys_and_shapes(name: str, file: str) -> None:
    lines = (GOLDEN / f"keys_grm_{file}.txt").read_text().splitlines()
    with torch.device("meta"):
        network = build_network(name)
    ours = [
        f"{key}\t{str(value.dtype).removeprefix('torch.')}\t"
        f"{'x'.join(map(str, value.shape)) or 'scalar'}"
        for key, value in network.state_dict().items()
    ]
    assert ours == lines


def test_crops_are_upstreams(golden, check) -> None:
    case, frame = golden("crops", "grm"), synth.frame(0)
    for i in range(sum(key.startswith("box") for key in case)):
        size = int(case[f"out{i}"])
        crop = SquareCrop.around(case[f"box{i}"], float(case[f"factor{i}"]), size)
        pixels = crop.extract(frame)
        check("grm crops resize factor", crop.scale, case[f"resize_factor{i}"], 0)
        check("grm crops pixels", pixels[::16, ::16], case[f"sample{i}"], 1)
        mean = case[f"sum{i}"] / pixels.size
        check("grm crops mean", pixels.mean(), mean, 0.5)
        assert padding_mask(crop, frame).sum() == case[f"mask_sum{i}"]


def test_without_mixing_the_template_is_not_heard() -> None:
    """Once the first block, which does not divide, is made deaf."""
    network = fill_(build_network("grm_base", **TINY), scale=0.1).eval()
    network.backbone.blocks[0].attn.proj.weight.data.zero_()
    torch.manual_seed(0)
    search = torch.randn(1, 3, 64, 64)
    templates = torch.randn(2, 1, 3, 32, 32)

    def difference(threshold: float) -> float:
        one, other = (network(template, search, threshold).score_map for template in templates)
        return (one - other).abs().max().item()

    with torch.inference_mode():
        assert difference(1e-9) < 1e-5 < 1e-3 < difference(1.1)


def test_tokens_that_would_rather_not_stay_alone_are_mixed() -> None:
    network = fill_(build_network("grm_base", **TINY), scale=0.1).eval()
    torch.manual_seed(0)
    crops = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        found = {t: network(*crops, t) for t in (0.0, 1e-9, 0.25, 0.3, 0.5, 1.1)}
    for threshold, output in found.items():
        mixed = output.keep_probabilities < (threshold or 0.5)
        assert torch.equal(output.decisions, mixed.float())
    counts = [output.decisions[:, 0].sum().item() for output in found.values()]
    assert counts[0] == counts[4] and 0 == counts[1] < counts[2] < counts[3] < counts[5] == 16


# ---------------------------------------------------------------------------------------- tracker


def test_tracker_is_upstreams_frame_by_frame(golden, check, base: GRM) -> None:
    case = golden("track_got10k_test", "grm")
    tracker = GRMTracker(base, weights=WeightsRecord("formula", ""), mode="benchmark")
    x, y, w, h = synth.box_xywh(0)
    tracker.initialize(synth.frame(0), [x, y, x + w, y + h])
    seen: list[tuple] = []
    hook = base.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output)))
    for t in range(1, 13):
        track = tracker.track(synth.frame(t))
        (template, search, _), output = seen[-1]
        x0, y0, x1, y1 = track.box
        check("grm track boxes (px)", [x0, y0, x1 - x0, y1 - y0], case["boxes"][t - 1], 2e-3)
        response = (hann_window(16) * output.score_map).flatten()
        best, second = response.topk(2).values.tolist()
        assert response.argmax() == case["hann_argmax"][t - 1]
        check("grm track response", best, case["hann_max"][t - 1], 2e-4)
        check("grm track response", second, case["hann_second"][t - 1], 2e-4)
        assert track.score == output.score_map.flatten()[response.argmax()]
        counts = output.decisions[0].sum(dim=-1)
        check("grm track mixed tokens", counts, case["countA"][t - 1], 1)
        check("grm track search (sum)", search.double().sum(), case["search_sum"][t - 1], 1e-1)
        assert not track.lost
    hook.remove()
    check("grm track template (sum)", template.double().sum(), case["template_sum"], 1e-1)
    check("grm track template", template[0, :, ::16, ::16], case["template_sample"], 1e-6)
    check("grm track search", search[0, :, ::16, ::16], case["search_sample"], 1e-6)


def tiny_tracker(**options) -> GRMTracker:
    """A fast tracker with random weights."""
    torch.manual_seed(0)
    network = build_network("grm_base", **TINY).eval().requires_grad_(False)
    return GRMTracker(network, weights=WeightsRecord("random", ""), **options)


@pytest.mark.parametrize("box", [[0, 0, 3, 2], [390, 110, 500, 200], [-50, -50, 450, 170]])
def test_boxes_stay_in_the_frame(box: list[float]) -> None:
    tracker = tiny_tracker()
    tracker.initialize(random_frame(), box)
    for i in range(5):
        track = tracker.track(random_frame(i))
        x0, y0, x1, y1 = track.box
        assert 0 <= x0 and 0 <= y0 and x1 <= 400 and y1 <= 120
        assert x1 - x0 >= 9.999 and y1 - y0 >= 9.999
        assert 0 < track.score < 1 and not track.lost


def test_a_correction_is_the_new_template() -> None:
    tracker = tiny_tracker()
    tracker.initialize(random_frame(), [20, 40, 60, 80])
    tracker.correct(random_frame(1), [300, 30, 340, 70])
    crop = SquareCrop.around((300, 30, 40, 40), 2.0, 32).extract(random_frame(1))
    assert torch.equal(tracker._cache[0][0], to_tensor([crop]))
    assert tracker.track(random_frame(2)).box[0] > 200


def test_the_threshold_reaches_every_layer() -> None:
    decisions = []
    for threshold in (1e-9, 0.4, 1.1):
        tracker = tiny_tracker(threshold=threshold)
        tracker.network.register_forward_hook(
            lambda module, inputs, output: decisions.append(output.decisions)
        )
        tracker.initialize(random_frame(), [20, 40, 60, 80])
        tracker.track(random_frame())
    assert decisions[0].sum() == 0 and decisions[2].sum() == 2 * 16


def test_presets_have_their_own_crops() -> None:
    list_trackers()  # fills the registry
    large = _registry["grm_large"].tracker
    assert isinstance(large, partial) and large.keywords == {"search_factor": 5.0}
    assert tiny_tracker().search_factor == 4.0


def test_wrong_use_is_told_in_a_sentence() -> None:
    refuses_wrong_use(tiny_tracker())
