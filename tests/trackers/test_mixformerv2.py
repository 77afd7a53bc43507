"""MixFormerV2 is upstream's network, cached or not, and its tracker upstream's frame by frame."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import checkpoints
from checkpoints import WeightsRecord
from tests.golden.formula import fill_, formula_tensor
from tests.trackers.every_tracker import random_frame, refuses_wrong_use
from trackers import build_network, build_tracker
from trackers.boxes import box_iou, xywh_to_xyxy
from trackers.crops import to_tensor
from trackers.models.layers import DropPath, sincos_position_table
from trackers.models.mixformerv2 import MixFormerV2, MixFormerV2Output, MixFormerV2Tracker

GOLDEN = Path(__file__).parent.parent / "golden" / "mixformerv2"
SEED = Path(checkpoints.__file__).parent / "mixformerv2_small_seed.safetensors"
NETWORKS = {"S": "small", "B": "base", "student12": "student12"}
EDGES = "lrtb"
REMOVED = (0, 3, 6, 9)


@functools.lru_cache(maxsize=2)  # drawing the weights takes longer than the tests; do not modify
def with_formula_weights(name: str, **overrides) -> MixFormerV2:
    network = build_network(f"mixformerv2_{name}", **overrides)
    fill_(network, scale=0.05, skip=lambda key: key.endswith(("pos_embed_s", "pos_embed_t")))
    return network.eval().requires_grad_(False)


def formula_crops(network: MixFormerV2) -> list[torch.Tensor]:
    """The golden run's template, online template and search crop, drawn from one generator."""
    random = np.random.RandomState(0)
    sizes = (network.template_size, network.template_size, network.search_size)
    return [
        torch.from_numpy(random.standard_normal((1, 3, size, size)).astype(np.float32))
        for size in sizes
    ]


def sample64(tensor: torch.Tensor) -> np.ndarray:
    flat = tensor.flatten()
    return flat[np.linspace(0, flat.numel() - 1, 64).astype(np.int64)].numpy()


def mean_std(tensor: torch.Tensor) -> list[float]:
    return [tensor.double().mean().item(), tensor.double().std(correction=0).item()]


def check_tokens(check, file: str, run: str, found: torch.Tensor, case: dict) -> None:
    """Compare a whole map of tokens with its shape, moments and samples in the golden file."""
    what = f"model_{file} {run}"
    assert found.shape == tuple(case[f"{run}_shape"].astype(int))
    check(what, sample64(found), case[f"{run}_sample64"], 5e-4)
    check(f"{what} (mean, std)", mean_std(found), case[f"{run}_meanstd"], 5e-5)


def check_output(check, file: str, run: str, found: MixFormerV2Output, case: dict) -> None:
    what = f"model_{file} {run}"
    check(f"{what} boxes", found.boxes_cxcywh, case[f"{run}_pred_boxes"], 2e-6)
    wanted = np.stack([case[f"{run}_prob_{edge}"] for edge in EDGES], axis=1)
    check(f"{what} probabilities", found.probabilities, wanted, 2e-6)
    if f"{run}_pred_scores" in case:
        check(f"{what} scores", found.scores, case[f"{run}_pred_scores"], 5e-5)
    if f"{run}_logit_l" in case:
        wanted = np.stack([case[f"{run}_logit_{edge}"] for edge in EDGES], axis=1)
        check(f"{what} logits", found.edge_logits, wanted, 5e-5)
    if f"{run}_pred_tokens" in case:
        check(f"{what} tokens", found.features[-1][:, -4:], case[f"{run}_pred_tokens"], 5e-4)


@pytest.mark.parametrize("file", NETWORKS)
def test_network_is_upstreams(golden, check, file: str) -> None:
    case = golden(f"model_{file}")
    removed = {"removed_blocks": REMOVED} if file == "student12" else {}
    network = with_formula_weights(NETWORKS[file], **removed)
    template, online, search = formula_crops(network)
    with torch.inference_mode():
        full = network(template, online, search)
        check_output(check, file, "fwd", full, case)
        assert (full.scores is None) == ("fwd_pred_scores" not in case)
        blocks = np.stack([sample64(tokens) for tokens in full.features])
        check(f"model_{file} fwd tokens", blocks, case["fwd_block_sample64"], 5e-4)
        moments = [mean_std(tokens) for tokens in full.features]
        check(f"model_{file} fwd tokens (mean, std)", moments, case["fwd_block_meanstd"], 5e-5)
        check_tokens(check, file, "fwd_tokens", full.features[-1], case)

        cache = network.encode_templates(torch.stack([template, online], dim=1))
        cached = network.search(search, cache)
        check_output(check, file, "online", cached, case)
        for name, (keys, values) in (("block0", cache[0]), ("lastblock", cache[-1])):
            # Upstream keeps the queries as well: the first third of the samples.
            ours = sample64(torch.stack([torch.full_like(keys, torch.nan), keys, values]))
            theirs = case[f"kvcache_{name}_sample64"]
            kept = ~np.isnan(ours)
            assert kept.sum() == 42
            check(f"model_{file} online keys, values", ours[kept], theirs[kept], 5e-4)

        # The last block's templates and search tokens, which the cached path leaves out.
        kept, x = network.backbone.template_tokens(torch.cat([template, online])), search
        kept, x = kept.flatten(0, 1)[None], network.backbone.search_tokens(x)
        for block, context in zip(network.backbone.blocks, cache, strict=True):
            kept, _ = block.cached(kept, None, kept.shape[1])
            x, _ = block.cached(x, context, x.shape[1])
        templates = kept[:, : kept.shape[1] // 2]
        check_tokens(check, file, "online_template_tokens", templates, case)
        check_tokens(check, file, "online_search_tokens", x[:, :-4], case)

        side = network.template_size
        three = torch.from_numpy(
            np.random.RandomState(7).standard_normal((3, 3, side, side)).astype(np.float32)
        )
        cache = network.encode_templates(torch.cat([template, three])[None])
        check_output(check, file, "online3", network.search(search, cache), case)


def test_removed_blocks_fade_out(golden, check) -> None:
    student = with_formula_weights("student12", removed_blocks=REMOVED)
    crops = formula_crops(student)
    case = golden("model_student12_rate0")
    with torch.inference_mode():
        untouched = student(*crops)
        student.set_removal_coefficient(0.0)
        found = student(*crops)
        check_output(check, "student12_rate0", "rate0", found, case)

        kept = [i for i in range(12) if i not in student.removed_blocks]
        shallow = build_network("mixformerv2_student8").eval()
        renamed = {
            f"backbone.blocks.{new}.{key}": value
            for new, old in enumerate(kept)
            for key, value in student.backbone.blocks[old].state_dict().items()
        }
        others = {k: v for k, v in student.state_dict().items() if ".blocks." not in k}
        shallow.load_state_dict(renamed | others)
        assert torch.equal(shallow(*crops).boxes_cxcywh, found.boxes_cxcywh)

        student.set_removal_coefficient(1.0)
        assert torch.equal(student(*crops).boxes_cxcywh, untouched.boxes_cxcywh)
    fresh = build_network("mixformerv2_student12", removed_blocks=(0,), depth=2)
    frozen = [name for name, p in fresh.named_parameters() if not p.requires_grad]
    assert all("pos_embed" in name or ".blocks.0." in name for name in frozen)
    assert len(frozen) == 2 + 12


def test_a_coefficient_weighs_both_branches_of_removed_blocks_alone() -> None:
    network = with_formula_weights("small", removed_blocks=(0, 2))
    template, online, search = formula_crops(network)
    with torch.inference_mode():
        network.set_removal_coefficient(0.37)
        found = network(template, online, search)
        tokens = [network.backbone.template_tokens(t) for t in (template, online)]
        x = torch.cat([*tokens, network.backbone.search_tokens(search)], dim=1)
        t = 2 * tokens[0].shape[1]
        for i, (block, seen) in enumerate(
            zip(network.backbone.blocks, found.features, strict=True)
        ):
            weight = 0.37 if i in (0, 2) else 1.0
            x = x + weight * block.attn(block.norm1(x), t)
            x = x + weight * block.mlp(block.norm2(x))
            assert torch.allclose(seen, x, atol=1e-5)
        cache = network.encode_templates(torch.stack([template, online], dim=1))
        cached = network.search(search, cache)
        assert torch.allclose(cached.edge_logits, found.edge_logits, atol=5e-5)
        network.set_removal_coefficient(1.0)  # the cached network serves other tests


def test_batch_of_two_is_upstreams(golden, check) -> None:
    network = with_formula_weights("small")
    template, online, search = formula_crops(network)
    with torch.inference_mode():
        found = network(
            torch.cat([template, online]),
            torch.cat([online, template]),
            torch.cat([search, search.flip(-1)]),
        )
    check_output(check, "S", "batch2", found, golden("model_S"))


@pytest.mark.parametrize("online", [1, 2, 3])
def test_cached_path_equals_the_full_forward(check, online: int) -> None:
    network = with_formula_weights("small")
    template, _, search = formula_crops(network)
    side = network.template_size
    torch.manual_seed(0)
    templates = torch.cat([template, torch.randn(online, 3, side, side)])
    with torch.inference_mode():
        cached = network.search(search, network.encode_templates(templates[None]))
        if online == 1:
            full = network(template, templates[1:], search)
        else:  # the full forward takes one online template: spell out what more of them mean
            tokens = network.backbone.template_tokens(templates).flatten(0, 1)[None]
            x = torch.cat([tokens, network.backbone.search_tokens(search)], dim=1)
            for block in network.backbone.blocks:
                x = block(x, tokens.shape[1])
            full = network._predict([x])
    check("cached - full: boxes", cached.boxes_cxcywh, full.boxes_cxcywh, 1e-5)
    check("cached - full: logits", cached.edge_logits, full.edge_logits, 5e-5)
    check("cached - full: scores", cached.scores, full.scores, 5e-5)


@pytest.mark.parametrize(
    ("file", "name", "removed"),
    [
        ("S", "small", ()),
        ("B", "base", ()),
        ("stu12", "student12", ()),
        ("stu12", "student12", REMOVED),  # fading is no weight
        ("stu8", "student8", ()),
    ],
)
def test_state_dict_has_the_official_keys_and_shapes(
    file: str, name: str, removed: tuple[int, ...]
) -> None:
    official = json.loads((GOLDEN / f"state_dict_{file}.json").read_text())
    with torch.device("meta"):
        network = build_network(f"mixformerv2_{name}", removed_blocks=removed)
        network.set_removal_coefficient(0.37)
    ours = [[k, list(v.shape), str(v.dtype)] for k, v in network.state_dict().items()]
    assert ours == official


def test_position_tables_are_upstreams(golden, check) -> None:
    case = golden("pos_embed")
    for key in (key for key in case if key.endswith("_sample256")):
        dim, grid = (int(part[1:]) for part in key.split("_")[:2])
        table = sincos_position_table(grid, dim)[0]
        flat = table.flatten()
        samples = flat[np.linspace(0, flat.numel() - 1, 256).astype(np.int64)]
        check("pos_embed", samples, case[key], 0)
        step = dim // 64
        check("pos_embed", table[1, ::step], case[f"d{dim}_g{grid}_row1"], 0)
        check("pos_embed", table[-1, ::step], case[f"d{dim}_g{grid}_rowlast"], 0)


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 3, 2)
    found = drop.train()(x)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(found, found[:, :1, :1].expand_as(found))
    assert found.mean().item() == pytest.approx(1.0, abs=0.05)
    assert drop.eval()(x) is x


def test_full_forward_is_plain_attention_with_a_mask() -> None:
    """Who sees whom, spelled out once more as a mask over all tokens."""
    network = with_formula_weights("small", depth=1)
    template, online, search = formula_crops(network)
    block, backbone = network.backbone.blocks[0], network.backbone
    with torch.inference_mode():
        tokens = [backbone.template_tokens(t) for t in (template, online)]
        x = torch.cat([*tokens, backbone.search_tokens(search)], dim=1)
        n, t = x.shape[1], 2 * tokens[0].shape[1]
        allowed = torch.ones(n, n, dtype=torch.bool)
        allowed[:t, t:] = False
        q, k, v = block.attn._split_heads(block.attn.qkv(block.norm1(x)))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        wanted = x + block.attn._join_heads(mixed)
        wanted = wanted + block.mlp(block.norm2(wanted))
        assert torch.allclose(block(x, t), wanted, atol=1e-5)


# ---------------------------------------------------------------------------------------- tracker


def golden_frames() -> list[np.ndarray]:
    """21 frames of a textured rectangle moving over noise, as the golden run had them."""
    background = np.random.RandomState(2).randint(96, 160, (240, 320, 3)).astype(np.int64)
    texture = np.random.RandomState(3).randint(0, 256, (8, 8, 3))
    target = texture.repeat(5, axis=0).repeat(6, axis=1)
    frames = []
    for i in range(21):
        frame = background.copy()
        x, y = 60 + 6 * i, 80 + (7 * i) % 23
        frame[y : y + 40, x : x + 48] = target
        frame += np.random.RandomState(100 + i).randint(-8, 9, (240, 320, 3))
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return frames


def golden_network() -> MixFormerV2:
    network = copy.deepcopy(with_formula_weights("small"))
    tokens = formula_tensor("track.19.reg_tokens", (1, 4, 768), 1.0)
    network.backbone.reg_tokens.copy_(torch.from_numpy(tokens))
    network.box_head.layers[1][1].weight.mul_(6)
    network.score_head.layers[1].bias.fill_(5.2)
    return network


RUNS = {
    "A_int5_decay1": {"update_interval": 5, "search_factor": 4.5},
    "B_int4_decay090": {"update_interval": 4, "search_factor": 4.5},
    "C_int200_sf44": {"update_interval": 200, "search_factor": 4.4},
}


@pytest.mark.parametrize("run", RUNS)
def test_tracker_is_upstreams_frame_by_frame(golden, check, run: str) -> None:
    case, frames = golden("track_S"), golden_frames()
    for frame, checksum in zip(frames, case["frame_checksums"], strict=True):
        flat = frame.ravel().astype(np.int64)
        assert [flat.sum(), (flat * (np.arange(flat.size) % 1009)).sum() % 1_000_003] == [*checksum]
    assert (frames[0][::16, ::16] == case["frame0_sub16"]).all()
    truth = [(60 + 6 * i, 80 + (7 * i) % 23, 48, 40) for i in range(21)]
    assert (case["gt_boxes"] == truth).all()
    tracker = MixFormerV2Tracker(
        golden_network(), weights=WeightsRecord("formula", ""), mode="benchmark", **RUNS[run]
    )
    tracker.initialize(frames[0], [60, 80, 108, 120])
    tracker.templates.decay = 0.9 if "decay090" in run else 1.0
    for i, frame in enumerate(frames[1:]):
        track = tracker.track(frame)
        wanted = xywh_to_xyxy(case[f"{run}_boxes_xywh"][i])
        check(f"track_S {run} boxes (px)", track.box, wanted, 2e-3)
        check(f"track_S {run} scores", track.score, case[f"{run}_scores"][i], 1e-4)
        best = case[f"{run}_max_pred_score_after"][i]
        check(f"track_S {run} best score", tracker.templates.max_score, best, 1e-4)
        online = to_tensor(tracker.templates.online).double().sum()
        wanted = case[f"{run}_online_template_sum_after"][i]
        check(f"track_S {run} online template (sum)", online, wanted, 1e-1)
        assert not track.lost


def tiny_tracker(**options) -> MixFormerV2Tracker:
    """A fast tracker with random weights."""
    torch.manual_seed(0)
    network = build_network(
        "mixformerv2_small", depth=2, dim=48, heads=3, search_size=64, template_size=32
    )
    network.eval().requires_grad_(False)
    return MixFormerV2Tracker(network, weights=WeightsRecord("random", ""), **options)


def act(tracker: MixFormerV2Tracker, monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let the network say these scores, one per run, and a box that moves right each time.

    Its edges are sharp where the score is high.
    """
    script = iter(scores)

    def search(crops: torch.Tensor, cache: object) -> MixFormerV2Output:
        score, n = next(script), len(crops)
        bins = 6 if score > 0.5 else 90
        edges = torch.zeros(n, 4, 96)
        edges[..., :bins] = 1 / bins
        logits = torch.logit(torch.tensor([score] * n, dtype=torch.float64))
        box = torch.tensor([[[0.6, 0.5, 0.25, 0.25]]]).expand(n, -1, -1)
        return MixFormerV2Output(box, logits, edges, edges.log(), [])

    monkeypatch.setattr(tracker.network, "search", search)


def test_robust_mode_declares_lost_and_keeps_the_last_box(monkeypatch) -> None:
    tracker, frame = tiny_tracker(search_factor=4.0), random_frame()
    tracker.initialize(frame, [20, 40, 60, 80])
    act(tracker, monkeypatch, [0.9, 0.9] + [0.05] * 60)
    tracks = [tracker.track(frame) for _ in range(20)]
    lost = [track.lost for track in tracks]
    first = lost.index(True)
    assert 3 <= first <= 2 + 15 and all(lost[first:])
    assert tracks[1].score > 0.5 > tracks[2].score
    for track in tracks[first:]:
        assert (track.box == tracks[1].box).all()


def test_a_lost_object_teaches_nothing(monkeypatch) -> None:
    tracker, frame = tiny_tracker(search_factor=4.0, update_interval=4), random_frame()
    tracker.initialize(frame, [20, 40, 60, 80])
    act(tracker, monkeypatch, [0.9] * 4 + [0.05] * 60)
    for _ in range(4):
        tracker.track(frame)
    learnt = tracker.templates.online[0]
    assert learnt is not tracker._first
    while not tracker.track(frame).lost:
        pass
    tracker.templates.online[0] = learnt
    for _ in range(8):
        assert tracker.track(frame).lost
    assert tracker.templates.online[0] is learnt


def test_benchmark_mode_is_never_lost(monkeypatch) -> None:
    tracker = tiny_tracker(search_factor=4.0, mode="benchmark")
    tracker.initialize(random_frame(), [20, 40, 60, 80])
    act(tracker, monkeypatch, [0.01] * 12)
    tracks = [tracker.track(random_frame()) for _ in range(12)]
    assert not any(track.lost for track in tracks)
    assert tracks[11].box[0] > tracks[10].box[0]
    assert (tracker.update_interval, tiny_tracker().update_interval) == (200, 25)


def test_correction_ends_the_loss_and_keeps_the_first_template(monkeypatch) -> None:
    tracker, frame = tiny_tracker(search_factor=4.0), random_frame()
    tracker.initialize(frame, [20, 40, 60, 80])
    first = tracker.templates.online[0]
    act(tracker, monkeypatch, [0.05] * 60)
    while not tracker.track(frame).lost:
        pass
    tracker.correct(frame, [300, 30, 340, 70])
    assert tracker._first is first and tracker.templates.online[0] is not first
    track = tracker.track(frame)
    assert not track.lost and track.box.tolist() == pytest.approx([316, 30, 356, 70], abs=1.0)


@pytest.mark.parametrize("online_size", [1, 2, 3])
def test_several_online_templates_survive_their_updates(online_size: int) -> None:
    """Upstream crashes on the frame after the first update when there are three."""
    tracker = tiny_tracker(mode="benchmark", update_interval=2, online_size=online_size)
    tracker.initialize(random_frame(), [20, 40, 60, 80])
    for i in range(9):
        assert np.isfinite(tracker.track(random_frame(i)).box).all()
        assert len(tracker.templates.online) == min(online_size, 1 + (i + 1) // 2)


def test_network_without_score_head_tracks_with_a_nan_score() -> None:
    torch.manual_seed(0)
    small = {"depth": 1, "dim": 48, "heads": 3, "search_size": 64, "template_size": 32}
    network = build_network("mixformerv2_student8", **small)
    tracker = MixFormerV2Tracker(network.eval(), weights=WeightsRecord("", ""), update_interval=1)
    tracker.initialize(random_frame(), [20, 40, 60, 80])
    for _ in range(8):
        track = tracker.track(random_frame())
        assert np.isnan(track.score) and not track.lost


@pytest.mark.parametrize("box", [[0, 0, 3, 2], [390, 110, 500, 200], [-50, -50, 450, 170]])
@pytest.mark.parametrize("mode", ["robust", "benchmark"])
def test_boxes_stay_in_the_frame(box: list[float], mode) -> None:
    tracker = tiny_tracker(mode=mode)
    tracker.initialize(random_frame(), box)
    for i in range(5):
        x0, y0, x1, y1 = tracker.track(random_frame(i)).box
        assert 0 <= x0 and 0 <= y0 and x1 <= 400 and y1 <= 120
        assert x1 - x0 >= 9.999 and y1 - y0 >= 9.999


def test_frames_are_never_written_into() -> None:
    tracker = tiny_tracker(update_interval=1)
    frame = random_frame()
    frame.flags.writeable = False
    tracker.initialize(frame, [20, 40, 60, 80])
    tracker.track(frame)
    tracker.correct(frame, [20, 40, 60, 80])


def test_wrong_use_is_told_in_a_sentence() -> None:
    refuses_wrong_use(tiny_tracker())


def test_bundled_weights_follow_a_textured_square() -> None:
    tracker = build_tracker("mixformerv2_small", device="cpu", weights=SEED)
    frames = golden_frames()
    tracker.initialize(frames[0], [60, 80, 108, 120])
    for i, frame in enumerate(frames[1:9], 1):
        track = tracker.track(frame)
        x, y = 60 + 6 * i, 80 + (7 * i) % 23
        assert box_iou(track.box, np.array([x, y, x + 48, y + 40])) > 0.6
        assert track.score > 0.5 and not track.lost
