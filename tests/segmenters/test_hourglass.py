"""Parity with the official code; what the numbers are is in golden/expedit."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import build_sam_vit_b
from segment_anything.modeling import ImageEncoderViT
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
)
from torch import Tensor, nn
from torch.nn import functional as F

from media import InputError
from segmenters import build_segmenter, hourglass
from segmenters.hourglass import (
    PRESETS,
    HourglassConfig,
    HourglassImageEncoder,
    apply_to_sam_encoder,
    apply_to_swin,
    cluster_tokens,
    neighbourhood,
    reconstruct_tokens,
    reconstruction_weights,
)
from segmenters.sam import SamSegmenter
from tests.golden.differences import Check
from tests.golden.formula import fill_, formula_input, formula_tensor

GOLDEN = Path(__file__).parent.parent / "golden/expedit"
LAYERS = sorted(path.stem.removeprefix("layer_") for path in GOLDEN.glob("layer_*.npz"))


def read(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture(autouse=True)
def no_gradients_and_no_chance() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


# ------------------------------------------------------------------------------------ the layers


@pytest.mark.parametrize("name", LAYERS)
def test_layer_parity(name: str, check: Check) -> None:
    wanted = read(f"layer_{name}")
    c = json.loads(str(wanted["config"]))
    features = formula_input(c["seed"], c["shape"]) * np.float32(c["scale"])
    if c["smooth"]:
        features = 7 * F.avg_pool2d(F.pad(features, (3, 3, 3, 3), mode="replicate"), 7, 1)
    features = features.permute(0, 2, 3, 1)
    b, h, w, _ = features.shape
    grid = tuple(c["hw"])
    cluster = partial(
        cluster_tokens, features, grid, temperature=c["temperature"], window=c["window"]
    )
    settings = {"temperature": c["temperature"], "neighbours": c["k"]}
    step = {"c64": 4, "c48": 2}.get(name[:3], 1)
    size = max(1, float(features.abs().max()) / 10)  # underflow has an input scaled by 30

    centroids = cluster(iterations=c["iters"])
    check(
        f"layer {name} averages",
        cluster(iterations=0)[:, ::step, ::step],
        wanted["init"],
        1e-6 * size,
    )
    check(f"layer {name} centroids", centroids[:, ::step, ::step], wanted["centroids"], 2e-5 * size)

    nearest = torch.cdist(features.reshape(b, h * w, -1), centroids.flatten(1, 2)).argmin(-1)
    stable = ~wanted["unstable_label"]
    assert stable.mean() > 0.9
    np.testing.assert_array_equal(nearest.numpy()[stable], wanted["labels"][stable])

    flat = centroids.flatten(1, 2)
    mixed = (flat.tanh() + 0.1 * flat.roll(1, -1)).view_as(centroids)
    # Where the last neighbour in and the first one out are equally near, rounding decides.
    unstable = wanted["unstable_topk"].reshape(b, h, w)[:, :: 2 * step, :: 2 * step]
    for part, low_res in (("recon_tanh", mixed), ("recon_identity", centroids)):
        full = reconstruct_tokens(low_res, features, centroids, **settings)
        found = full[:, :: 2 * step, :: 2 * step].numpy()
        check(f"layer {name} {part}", found, wanted[part], 2e-2)
        np.testing.assert_allclose(found[~unstable], wanted[part][~unstable], atol=5e-5)
        if part == "recon_tanh":
            ratio = full.double().abs().sum() / max(wanted["sums"][3], 1e-30)
            assert float(ratio) == pytest.approx(float(name != "underflow"), abs=1e-4)
    if name != "underflow":  # there every weight is 0, and so equal to the largest
        kept = (reconstruction_weights(features, centroids, **settings) > 0).sum(-1).numpy()
        stable = ~wanted["unstable_topk"]
        np.testing.assert_array_equal(kept[stable], wanted["kept_per_pixel"][stable])


def test_layers_are_what_their_definition_says() -> None:
    """Token by token, in float64, on a map and a grid that are not square."""
    (h, w), (rows, columns), reach, temperature, neighbours = (10, 15), (4, 6), 1, 0.05, 5
    features = formula_input(5, (1, 8, h, w)).permute(0, 2, 3, 1).contiguous()
    tokens = features[0].double().numpy()

    centroids = np.zeros((rows, columns, 8))
    for i, j in np.ndindex(rows, columns):
        top, bottom = i * h // rows, -(-(i + 1) * h // rows)
        left, right = j * w // columns, -(-(j + 1) * w // columns)
        centroids[i, j] = tokens[top:bottom, left:right].mean((0, 1))
    for _ in range(3):
        sums, shares = np.zeros((rows, columns, 8)), np.zeros((rows, columns, 1))
        for y, x in np.ndindex(h, w):
            a, b = y * rows // h, x * columns // w
            near = np.s_[max(a - reach, 0) : a + reach + 1, max(b - reach, 0) : b + reach + 1]
            weights = np.exp(-temperature * ((centroids[near] - tokens[y, x]) ** 2).sum(-1))
            weights = weights[..., None] / weights.sum()
            sums[near] += weights * tokens[y, x]
            shares[near] += weights
        centroids = sums / shares
    found = cluster_tokens(
        features, (rows, columns), iterations=3, temperature=temperature, window=2 * reach + 1
    )
    np.testing.assert_allclose(found[0], centroids, atol=1e-5)

    low_res = np.tanh(centroids).reshape(rows * columns, -1)
    wanted = np.zeros((h, w, 8))
    for y, x in np.ndindex(h, w):
        distances = ((centroids - tokens[y, x]) ** 2).sum(-1).ravel()
        nearest = np.argsort(distances)[:neighbours]
        weights = np.exp(-temperature * distances[nearest])
        wanted[y, x] = weights @ low_res[nearest] / np.sqrt((weights**2).sum())
    rebuilt = reconstruct_tokens(
        found.tanh(), features, found, temperature=temperature, neighbours=neighbours
    )
    np.testing.assert_allclose(rebuilt[0], wanted, atol=1e-5)


def test_the_cluster_over_a_token_is_the_official_one() -> None:
    maps = read("label_axis_maps")
    for name, wanted in maps.items():
        tokens, clusters = (int(part) for part in name.split("_")[1:])
        over = neighbourhood((tokens, 1), (clusters, 1), window=1)
        assert (over.sum(1) == 1).all()
        np.testing.assert_array_equal(over.int().argmax(1).numpy(), wanted)


def test_a_token_far_away_never_joins() -> None:
    """With a window of 1 a cluster is made of its own cell alone."""
    features = torch.randn(2, 6, 9, 4)
    centroids = cluster_tokens(features, (2, 3), iterations=4, temperature=1e-6, window=1)
    cells = features.view(2, 2, 3, 3, 3, 4).mean((2, 4))
    torch.testing.assert_close(centroids, cells)


def test_weights_may_sum_to_one_as_in_the_paper() -> None:
    features, low_res = torch.randn(1, 6, 8, 5), torch.full((1, 3, 4, 2), 7.0)
    centroids = cluster_tokens(features, (3, 4), iterations=2, temperature=0.1, window=3)
    rebuild = partial(reconstruct_tokens, low_res, features, centroids, temperature=0.1)
    torch.testing.assert_close(rebuild(neighbours=5, norm=1), torch.full((1, 6, 8, 2), 7.0))
    assert (rebuild(neighbours=5) > 7.1).all()
    torch.testing.assert_close(rebuild(neighbours=1), torch.full((1, 6, 8, 2), 7.0))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_layers_work_in_float32_inside_autocast(half: torch.dtype) -> None:
    features = 40 * torch.randn(2, 7, 7, 64)  # squared lengths of 100000 overflow float16

    def run(features: Tensor) -> Tensor:
        centroids = cluster_tokens(features, (4, 4), iterations=3, temperature=1e-4, window=3)
        return reconstruct_tokens(centroids, features, centroids, temperature=1e-4, neighbours=4)

    plain = run(features)
    with torch.autocast("cpu", half):
        assert torch.equal(run(features), plain)
    halved = run(features.to(half))
    assert halved.dtype == half
    assert F.cosine_similarity(halved.float(), plain, dim=-1).min() > 0.95


def test_maps_of_a_batch_do_not_mix() -> None:
    features = torch.randn(3, 8, 5, 6)

    def run(features: Tensor) -> Tensor:
        centroids = cluster_tokens(features, (3, 2), iterations=3, temperature=0.1, window=3)
        return reconstruct_tokens(centroids, features, centroids, temperature=0.1, neighbours=3)

    torch.testing.assert_close(run(features), torch.cat([run(one[None]) for one in features]))


# ------------------------------------------------------------------------------- settings refused

TOKENS = torch.zeros(1, 4, 4, 3)
CLUSTERS = torch.zeros(1, 2, 2, 3)
cluster = partial(
    cluster_tokens, features=TOKENS, grid=(2, 2), iterations=1, temperature=1.0, window=3
)
rebuild = partial(
    reconstruct_tokens,
    low_res=CLUSTERS,
    features=TOKENS,
    centroids=CLUSTERS,
    temperature=1.0,
    neighbours=2,
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cluster(grid=(5, 2)), "5x2 clusters do not fit a map of 4x4 tokens"),
        (lambda: cluster(grid=(2, 0)), "2x0 clusters do not fit"),
        (lambda: cluster(features=TOKENS[0]), r"features must be a map .*, not \(4, 4, 3\)"),
        (lambda: cluster(iterations=-1), "0 or more iterations, not -1"),
        (lambda: cluster(temperature=0.0), "temperature of a clustering must be above 0, not 0.0"),
        (lambda: cluster(temperature=float("nan")), "must be above 0, not nan"),
        (lambda: cluster(window=4), "window of a clustering must be an odd number, not 4"),
        (lambda: cluster(window=-1), "an odd number, not -1"),
        (lambda: rebuild(neighbours=5), "put together from 5 of 4 clusters; choose 1 to 4"),
        (lambda: rebuild(neighbours=0), "from 0 of 4 clusters"),
        (lambda: rebuild(temperature=-1.0), "must be above 0"),
        (lambda: rebuild(norm=3), "norm of the weights must be 1 or 2, not 3"),
        (lambda: rebuild(low_res=CLUSTERS[:, :1]), "not laid out like the centroids"),
        (lambda: rebuild(features=TOKENS[..., :2]), "are not those of tokens"),
        (lambda: HourglassConfig(-1, 81), "before block -1; blocks count from 0"),
        (lambda: HourglassConfig(6, 80), "80 clusters do not fill a square window"),
        (lambda: HourglassConfig(6, 0), "0 clusters do not fill"),
        (lambda: HourglassConfig(6, -4), "-4 clusters do not fill"),
        (lambda: HourglassConfig(6, 16), "from 20 of 16 clusters; choose 1 to 16 neighbours"),
        (lambda: HourglassConfig(6, 81, iterations=-1), "0 or more iterations"),
        (lambda: HourglassConfig(6, 81, window=2), "an odd number, not 2"),
        (lambda: HourglassConfig(6, 81, temperature=float("inf")), "above 0, not inf"),
        (lambda: HourglassConfig(6, 81, norm=0), "must be 1 or 2"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=message):
        call()


# ------------------------------------------------------------------------------------------- SAM


def sam_encoder(image: int, scale: float) -> ImageEncoderViT:
    """The image encoder of SAM ViT-B with formula weights."""
    with torch.device("meta"):
        encoder = ImageEncoderViT(
            img_size=image,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(2, 5, 8, 11),
        )
    fill_(encoder.to_empty(device="cpu"), scale)
    return encoder.eval()


@pytest.fixture(scope="module")
def encoders() -> dict[tuple[int, str], ImageEncoderViT]:
    """Encoders by image size and scale of the weights, each made once: that takes seconds."""
    return {}


def check_sam(
    encoders: dict[tuple[int, str], ImageEncoderViT], name: str, tolerance: float, check: Check
) -> None:
    wanted = read(f"sam_vitb_{name}")
    c = json.loads(str(wanted["config"]))
    key = (c["img"], str(c["weights_scale"]))
    if key not in encoders:
        encoders.clear()  # 360 MB each
        encoders[key] = sam_encoder(c["img"], c["weights_scale"])
    encoder: nn.Module = encoders[key]
    location = max(c["location"], 0)
    if c["location"] >= 0:
        config = HourglassConfig(
            location, c["num_cluster"], c["iters"], c["temperature"], c["window"], c["k"]
        )
        encoder = apply_to_sam_encoder(encoders[key], config)
    outputs: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in encoder.get_submodule("blocks").children()
    ]
    out = encoder(formula_input(0, (1, 3, c["img"], c["img"])))
    for hook in hooks:
        hook.remove()

    assert [list(output.shape) for output in outputs] == wanted["block_shapes"].tolist()
    for part, output in (("loc", outputs[location]), ("last", outputs[-1])):
        sample = output[0, ::7, ::7, :16]
        check(f"SAM {name} block {part}", sample, wanted[f"block_{part}"], tolerance)
    sums = [float(output.double().abs().sum()) for output in outputs]
    np.testing.assert_allclose(sums, wanted["block_abs_sums"], rtol=1e-4)
    step = 2 if c["img"] == 512 else 4
    found = out[0, ::4, ::step, ::step].numpy()
    check(f"SAM {name} out", found, wanted["out"], 1.0)  # see the layers: rounding may decide
    assert (np.abs(found - wanted["out"]) <= tolerance).mean() >= 0.995
    sums = [float(out.double().sum()), float(out.double().abs().sum())]
    np.testing.assert_allclose(sums, wanted["sums"], atol=1e-4 * wanted["sums"][1])


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("s0p02_512_plain", 5e-3),
        ("s0p02_512_loc6_n100", 5e-3),
        ("s0p02_512_loc2_n49", 5e-3),
        ("s0p04_512_plain", 5e-2),
        ("s0p04_512_loc6_n100", 5e-2),  # an eighth of the weights is so small that eps acts
    ],
)
def test_sam_parity(
    encoders: dict[tuple[int, str], ImageEncoderViT], name: str, tolerance: float, check: Check
) -> None:
    check_sam(encoders, name, tolerance, check)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s0p02_1024_plain", "s0p02_1024_loc6_n100"])
def test_sam_parity_at_full_size(
    encoders: dict[tuple[int, str], ImageEncoderViT], name: str, check: Check
) -> None:
    check_sam(encoders, name, 5e-3, check)


def small_encoder(**changes: object) -> ImageEncoderViT:
    """Four blocks, one of them global, of windows of 4x4; grid 10x10 (padded to 12x12)."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "img_size": 160,
        "embed_dim": 24,
        "depth": 4,
        "num_heads": 2,
        "out_chans": 8,
        "use_rel_pos": True,
        "window_size": 4,
        "global_attn_indexes": (2,),
        **changes,
    }
    encoder = ImageEncoderViT(**settings)
    for parameter in encoder.parameters():  # positions are zero at first, which would hide them
        nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


SMALL = HourglassConfig(location=1, clusters_per_window=9, neighbours=4)


def test_an_encoder_keeps_its_weights_and_their_names() -> None:
    encoder = small_encoder()
    image = torch.randn(1, 3, 160, 160)
    before = encoder(image)
    clustered = apply_to_sam_encoder(encoder, SMALL)
    theirs, ours = encoder.state_dict(), clustered.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[key].data_ptr() == theirs[key].data_ptr() for key in theirs)
    out = clustered(image)
    assert out.shape == before.shape and not torch.allclose(out, before, atol=0.1)
    assert torch.equal(encoder(image), before)  # the plain one is what it was
    twice = copy.deepcopy(clustered)
    assert torch.equal(twice(image), out)


def test_settings_of_one_encoder_live_side_by_side() -> None:
    encoder, image = small_encoder(), torch.randn(1, 3, 160, 160)
    one, other = (
        apply_to_sam_encoder(encoder, HourglassConfig(1, n, neighbours=4)) for n in (4, 9)
    )
    before = one(image)
    other(image)
    assert torch.equal(one(image), before)


@pytest.mark.parametrize("location", range(4))
def test_images_of_a_batch_do_not_mix(location: int) -> None:
    encoder = apply_to_sam_encoder(
        small_encoder(), HourglassConfig(location, 9, neighbours=4, temperature=0.1)
    )
    images = torch.randn(3, 3, 160, 160)
    one_by_one = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(encoder(images), one_by_one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (160, 224), (400, 112)], ids=str)
def test_images_of_any_size(size: tuple[int, int]) -> None:
    plain = small_encoder(use_abs_pos=False)  # SAM's table of positions fits one size
    out = apply_to_sam_encoder(plain, SMALL)(torch.randn(2, 3, *size))
    assert out.shape == plain(torch.randn(2, 3, *size)).shape and out.isfinite().all()


def test_an_encoder_runs_under_autocast() -> None:
    encoder, image = apply_to_sam_encoder(small_encoder(), SMALL), torch.randn(1, 3, 160, 160)
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(image)
    assert out.isfinite().all()
    assert F.cosine_similarity(out.float(), encoder(image)).mean() > 0.95


def test_as_many_clusters_as_tokens_are_reconstructed_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The official code leaves it out, without a word, when the clustered map is as large."""
    calls = []

    def counted(*args: Tensor, **settings: object) -> Tensor:
        calls.append(args)
        return reconstruct_tokens(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(hourglass, "reconstruct_tokens", counted)
    image = torch.randn(1, 3, 128, 128)
    for official_flaws in (False, True):
        config = HourglassConfig(1, 16, neighbours=4, official_flaws=official_flaws)
        apply_to_sam_encoder(small_encoder(img_size=128), config)(image)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("encoder", "config", "message"),
    [
        (
            small_encoder,
            HourglassConfig(4, 9, neighbours=4),
            "no block 4 .* has 4 blocks, .* 0 to 3",
        ),
        (
            small_encoder,
            HourglassConfig(1, 25),
            "25 clusters are more than the 4x4 tokens .* to 16",
        ),
        (partial(small_encoder, window_size=0), SMALL, "no windowed block"),
        (lambda: apply_to_sam_encoder(small_encoder(), SMALL), SMALL, "not HourglassImageEncoder"),
        (nn.Identity, SMALL, "plain image encoder of SAM .* not Identity"),
    ],
)
def test_an_encoder_that_cannot_is_refused(
    encoder: object, config: HourglassConfig, message: str
) -> None:
    assert callable(encoder)
    with pytest.raises(InputError, match=message):
        apply_to_sam_encoder(encoder(), config)


# ---------------------------------------------------------------------------------- build_segmenter


def test_a_preset_builds_a_clustered_sam() -> None:
    state = build_sam_vit_b().state_dict()
    own = HourglassConfig(1, 121)
    for option, config in (("fast", PRESETS["sam_vit_b"]["fast"]), (own, own)):
        segmenter = build_segmenter("sam_vit_b", device="cpu", weights=state, hourglass=option)
        assert isinstance(segmenter, SamSegmenter)
        encoder = segmenter.network.image_encoder
        assert isinstance(encoder, HourglassImageEncoder) and encoder.config == config
        assert segmenter.network.state_dict().keys() == state.keys()
        bias = encoder.get_parameter("blocks.5.mlp.lin1.bias")
        assert torch.equal(bias, state["image_encoder.blocks.5.mlp.lin1.bias"])


@pytest.mark.parametrize(("name", "depth"), [("b", 12), ("l", 24), ("h", 32)])
def test_presets_fit_their_network(name: str, depth: int) -> None:
    presets = PRESETS[f"sam_vit_{name}"]
    assert list(presets) == ["balanced", "fast"]
    for config in presets.values():
        config.check_place(depth, (14, 14))
    assert presets["fast"].location < presets["balanced"].location


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        (
            "mobile_sam",
            "fast",
            "mobile_sam has no plain .* choose one of sam_vit_b, sam_vit_h, sam_",
        ),
        ("mobile_sam", HourglassConfig(1, 81), "mobile_sam has no plain vision transformer"),
        ("sam_vit_b", "quick", "sam_vit_b has no hourglass preset 'quick'; .* balanced, fast, or"),
        ("sam_vit_b", HourglassConfig(12, 81), "no block 12"),
        ("sam_vit_b", HourglassConfig(3, 225), "225 clusters are more than the 14x14 tokens"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_before_weights_are_looked_for(
    name: str, option: HourglassConfig | str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        build_segmenter(name, device="cpu", weights=tmp_path / "none.pt", hourglass=option)


# ------------------------------------------------------------------------------------------ Swin


class PadsFirst(SwinTransformerBlock):
    """timm rolls a map before it pads it to whole windows; the official detection code, which the
    golden numbers are from, pads first."""

    def _attn(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        rows, columns = self.window_size
        return super()._attn(F.pad(x, (0, 0, 0, -w % columns, 0, -h % rows)))[:, :h, :w]


def test_swin_parity(check: Check) -> None:
    wanted = read("swin_stage")
    c = json.loads(str(wanted["config"]))
    size, window, m = (c["H"], c["W"]), c["window"], c["clustered_window"]
    stage = SwinTransformerStage(
        c["dim"],
        c["dim"],
        size,
        c["depth"],
        downsample=False,
        num_heads=c["heads"],
        window_size=window,
        always_partition=True,
        dynamic_mask=True,
    )
    fill_(stage, c["scale"]).eval()
    for block in stage.blocks:
        block.__class__ = PadsFirst  # same parts, other order
    merge = fill_(PatchMerging(c["dim"]), c["scale"], prefix="downsample.").eval()
    x = formula_input(0, (c["B"], size[0] * size[1], c["dim"])).view(c["B"], *size, c["dim"])

    def build(official_flaws: bool) -> hourglass.HourglassSwinStage:
        config = HourglassConfig(
            c["location"], m**2, c["iters"], c["temperature"], c["cluster_window"], c["k"],
            official_flaws=official_flaws,
        )  # fmt: skip
        return hourglass.HourglassSwinStage(stage, c["location"], config)

    right, official = build(official_flaws=False), build(official_flaws=True)
    assert official.state_dict().keys() == stage.state_dict().keys()
    corrected = right(x).flatten(1, 2)
    maps: list[Tensor] = []
    for block in official.blocks.children():
        block.register_forward_hook(lambda module, inputs, out: maps.append(out.flatten(1, 2)))
    out = official(x).flatten(1, 2)

    assert [tokens.shape[1] for tokens in maps] == wanted["tokens_per_block"].tolist()
    samples = torch.stack([tokens[0, ::31, ::6][:19] for tokens in maps])
    check("Swin blocks", samples, wanted["block_samples"], 1e-4)
    check("Swin stage", out[:, ::3, ::2], wanted["out"], 1e-3)
    check("Swin stage, right mask", corrected[:, ::3, ::2], wanted["out_corrected_mask"], 1e-3)
    down = merge(out.view(c["B"], *size, -1)).flatten(1, 2)
    check("Swin merged", down[:, ::2, ::2], wanted["down"], 1e-3)
    sums = [out.sum(), out.abs().sum(), down.abs().sum(), corrected.abs().sum()]
    np.testing.assert_allclose(sums, wanted["sums"], rtol=1e-4)


def test_swin_bias_table_parity(check: Check) -> None:
    wanted = read("swin_stage")
    table = formula_tensor("relative_position_bias_table", (529, 4), 0.04)
    np.testing.assert_allclose(table, wanted["rpb_table_12"], atol=1e-7)
    resized = hourglass.resize_bias_table(torch.from_numpy(table), 8)
    check("Swin bias table", resized, wanted["rpb_table_8"], 1e-6)


@pytest.mark.parametrize(("shift", "name"), [(4, "corrected"), (6, "official")])
def test_swin_mask_parity(shift: int, name: str) -> None:
    mask = hourglass.shift_mask((24, 24), 8, (shift, shift))[:, ::4, ::4].numpy()
    np.testing.assert_array_equal(mask, read("swin_stage")[f"mask_{name}_24_w8"])


def small_swin(**changes: object) -> SwinTransformer:
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "img_size": 96,
        "window_size": 6,
        "embed_dim": 12,
        "depths": (2, 4, 2),
        "num_heads": (1, 2, 3),
        "num_classes": 5,
        **changes,
    }
    return SwinTransformer(**settings).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("location", range(8))
def test_swin_keeps_its_weights_and_call(location: int) -> None:
    """Grids of 24, 12 and 6: four windows, one, and in the last stage no shift."""
    swin, images = small_swin(), torch.randn(2, 3, 96, 96)
    before = swin(images)
    clustered = apply_to_swin(swin, HourglassConfig(location, 16, neighbours=6))
    assert isinstance(clustered, SwinTransformer)
    assert clustered.state_dict().keys() == swin.state_dict().keys()
    out = clustered(images)
    assert out.shape == before.shape and not torch.equal(out, before)
    torch.testing.assert_close(clustered(images[:1]), out[:1], atol=1e-5, rtol=1e-4)
    maps = clustered.forward_intermediates(images, intermediates_only=True)
    assert [level.shape[-1] for level in maps] == [24, 12, 6]
    assert torch.equal(swin(images), before)


@pytest.mark.parametrize(
    ("location", "stage", "block"), [(0, 0, 0), (3, 1, 1), (6, 2, 2), (10, 3, 0)]
)
def test_swin_counts_blocks_through_all_stages(location: int, stage: int, block: int) -> None:
    """Depths 2, 2, 6, 2: block 6 of all is block 2 of the third stage; the other stages stay."""
    swin = small_swin(depths=(2, 2, 6, 2), num_heads=(1, 2, 3, 4), img_size=192)
    clustered = apply_to_swin(swin, HourglassConfig(location, 16, neighbours=6))
    for index, (ours, theirs) in enumerate(zip(clustered.layers, swin.layers, strict=True)):
        assert isinstance(ours, hourglass.HourglassSwinStage) == (index == stage)
        if index == stage:
            assert ours.location == block and len(ours.blocks) == len(theirs.blocks)
        else:
            assert ours is theirs


@pytest.mark.parametrize("grid", [(24, 24), (6, 24)], ids=["shifted", "shifted along one axis"])
def test_clustered_swin_blocks_are_timms_at_full_size(grid: tuple[int, int]) -> None:
    """With as many clusters as tokens only the windows' bookkeeping is ours: same attention."""
    swin = small_swin(img_size=(4 * grid[0], 4 * grid[1]))
    x = torch.randn(2, *grid, 12)
    for block in swin.get_submodule("layers.0.blocks").children():
        assert isinstance(block, SwinTransformerBlock)
        nn.init.normal_(block.attn.relative_position_bias_table)
        ours = hourglass.ClusteredSwinBlock(block, HourglassConfig(0, 36))
        torch.testing.assert_close(ours(x), block(x), atol=1e-5, rtol=1e-4)


def test_swin_runs_under_autocast() -> None:
    swin, image = small_swin(), torch.randn(1, 3, 96, 96)
    clustered = apply_to_swin(swin, HourglassConfig(3, 16, neighbours=6))
    with torch.autocast("cpu", torch.bfloat16):
        out = clustered(image)
    torch.testing.assert_close(out.float(), clustered(image), atol=0.05, rtol=0.05)


def test_swin_takes_images_of_any_size() -> None:
    swin = small_swin(strict_img_size=False, always_partition=True)
    clustered = apply_to_swin(swin, HourglassConfig(3, 16, neighbours=6))
    for size in [(96, 96), (100, 52), (20, 148)]:
        images = torch.randn(1, 3, *size)
        assert clustered.forward_features(images).shape == swin.forward_features(images).shape


@pytest.mark.parametrize(
    ("swin", "config", "message"),
    [
        (small_swin, HourglassConfig(8, 16, neighbours=6), "no block 8 .* has 8 blocks, .* 0 to 7"),
        (small_swin, HourglassConfig(3, 49), "49 clusters are more than the 6x6 tokens"),
        (
            partial(small_swin, window_size=(6, 3)),
            HourglassConfig(3, 4, neighbours=2),
            "not in 6x3",
        ),
        (nn.Identity, SMALL, "timm's Swin, not Identity"),
    ],
)
def test_a_swin_that_cannot_is_refused(swin: object, config: HourglassConfig, message: str) -> None:
    assert callable(swin)
    with pytest.raises(InputError, match=message):
        apply_to_swin(swin(), config)
