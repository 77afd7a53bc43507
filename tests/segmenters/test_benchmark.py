"""On a SAM with a small plain ViT and random weights: what is compared, and what is refused."""

from __future__ import annotations

import copy
import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import nn

from checkpoints import WeightsRecord
from media import InputError
from segmenters import Candidate, Embedding, Prompt, benchmark, hourglass
from segmenters import base as segmenters_base
from segmenters.__main__ import main
from segmenters.hourglass import HourglassConfig
from segmenters.sam import SamSegmenter


@pytest.fixture(scope="module")
def vit_sam(small_sam: Sam) -> SamSegmenter:
    torch.manual_seed(0)
    network = copy.copy(small_sam)
    network._modules = dict(small_sam._modules)
    network.image_encoder = ImageEncoderViT(
        img_size=1024,
        embed_dim=24,
        depth=2,
        num_heads=1,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
    )
    for parameter in network.image_encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return SamSegmenter(network, WeightsRecord("small", ""), torch.device("cpu"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three photographs of different sizes, masks of two of them, and a note."""
    random = np.random.default_rng(0)
    for name, size in (("a.png", (40, 60)), ("b.jpg", (30, 20)), ("c.png", (25, 25))):
        picture = random.integers(0, 256, (*size, 3), np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "note.txt").write_text("no picture")
    return tmp_path / "pictures"


@pytest.fixture
def built(vit_sam: SamSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenters_base, "build_segmenter", lambda *args, **options: vit_sam)
    monkeypatch.setattr(benchmark, "SURE", -10.0)  # random weights are sure of nothing


# --------------------------------------------------------------------------------- pooled tokens


@torch.inference_mode()
def test_pooling_and_clustering_run_on_equally_many_tokens(vit_sam: SamSegmenter) -> None:
    plain = vit_sam.network.image_encoder
    config = HourglassConfig(1, 64)
    seen = []
    image = torch.randn(1, 3, 1024, 1024)
    for encoder in (
        hourglass.HourglassImageEncoder(plain, config),
        benchmark.PooledImageEncoder(plain, config),
    ):
        block = encoder.get_submodule("blocks.1")
        hook = block.register_forward_hook(lambda module, inputs, out: seen.append(out.shape))
        assert encoder(image).shape == (1, 256, 64, 64)
        hook.remove()
    assert seen == [(1, 40, 40, 24)] * 2


def test_averages_are_averages() -> None:
    """Nothing between: what comes back is the smoothed map."""
    x = torch.arange(36.0).view(1, 6, 6, 1).expand(1, 6, 6, 2)
    out = benchmark.run_on_averages(x, [], 2, HourglassConfig(0, 1, neighbours=1))
    assert out.shape == x.shape
    torch.testing.assert_close(out[0, 0, 0], x[0, :2, :2].mean((0, 1)))
    assert float(out.mean()) == pytest.approx(float(x.mean()), abs=1e-4)
    flat = torch.full((1, 5, 7, 3), 2.5)
    torch.testing.assert_close(
        benchmark.run_on_averages(flat, [], 4, HourglassConfig(0, 9, neighbours=1)), flat
    )


# -------------------------------------------------------------------------------------- comparing


class Transparent(SamSegmenter):
    """Its masks are what its encoder sees; those of a random decoder hardly depend on it."""

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        seen = embedding.features[0, 0].numpy()
        return [[Candidate(seen > np.median(seen), 1.0, seen)] for _ in prompts]


def test_as_many_clusters_as_tokens_change_less_than_few(vit_sam: SamSegmenter) -> None:
    vit_sam = Transparent(vit_sam.network, vit_sam.weights, vit_sam.device)
    frame = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    prompts = [Prompt(box=np.array([5, 5, 40, 30])), Prompt(points=np.array([[30, 20]]))]
    truth = np.zeros((64, 64), bool)
    truth[5:30, 5:40] = True
    configs = [HourglassConfig(0, n, neighbours=1, temperature=t) for n, t in ((196, 9), (1, 1e-4))]
    models = benchmark.fewer_tokens(vit_sam, configs)
    assert list(models) == [
        "plain", "clustered 0, 196", "pooled 0, 196", "clustered 0, 1", "pooled 0, 1",
    ]  # fmt: skip
    sample = benchmark.Sample(frame, prompts, [truth, truth])
    results = benchmark.compare(models, [sample, sample])
    alike = {result.name: np.mean(result.alike) for result in results}
    assert alike["plain"] == 1
    assert alike["clustered 0, 196"] > 0.9 > 0.7 > alike["clustered 0, 1"]
    for result in results:
        assert len(result.seconds) == 2 and min(result.seconds) > 0
        assert len(result.alike) == len(result.right) == 4
    assert models["plain"] is vit_sam
    assert isinstance(vit_sam.network.image_encoder, ImageEncoderViT)

    table = benchmark.as_table(results)
    assert table[0][-1] == "IoU with truth" and table[1][3] == "1.000"
    wanted = np.median(results[0].seconds) / np.median(results[1].seconds)
    assert float(table[2][2]) == pytest.approx(wanted, abs=0.006)


def test_an_unsure_mask_does_not_count(vit_sam: SamSegmenter) -> None:
    """Random weights are sure of nothing."""
    frame = np.zeros((20, 20, 3), np.uint8)
    samples = [benchmark.Sample(frame, benchmark.grid_prompts((20, 20), 2))]
    results = benchmark.compare({"plain": vit_sam}, samples)
    assert not results[0].alike
    with pytest.raises(InputError, match="nothing to compare: the plain model is sure of no mask"):
        benchmark.as_table(results)


def test_a_grid_covers_the_frame() -> None:
    points = np.concatenate([p.points for p in benchmark.grid_prompts((40, 80), 2)])  # type: ignore[misc]
    np.testing.assert_allclose(points, [[20, 10], [60, 10], [20, 30], [60, 30]])


# --------------------------------------------------------------------------------------- command


@pytest.mark.usefixtures("built")
def test_the_command_writes_a_table(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--points", "1", "--setting", "1,64", "--limit", "2", "--device", "cpu"]
    assert main(["benchmark", str(pictures), *options, "--out", str(tmp_path / "a.csv")]) == 0
    rows = list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))
    names = [row[0] for row in rows]
    assert names == ["encoder", "plain", "clustered 1, 64", "pooled 1, 64"]
    assert rows[1][2:4] == ["1.00", "1.000"]
    printed = capsys.readouterr().out
    assert printed.startswith("| encoder |") and "| clustered 1, 64 |" in printed
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("built")
def test_prompts_may_be_boxes_or_true_masks(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "boxes.csv").write_text("a.png,5,5,30,30\na.png,1,1,9,9\nelsewhere.png,0,0,1,1\n")
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, size in (("a", (60, 40)), ("b", (20, 30)), ("c", (25, 25))):
        mask = Image.new("L", size)
        if name != "c":  # an empty mask is no prompt
            mask.paste(255, (5, 5, 15, 15))
        mask.save(masks / f"{name}.png")
    setting = ["--setting", "1,64", "--device", "cpu"]
    boxes = ["--boxes", str(tmp_path / "boxes.csv")]
    assert main(["benchmark", str(pictures), *setting, *boxes]) == 0
    assert "truth" not in capsys.readouterr().out
    out = tmp_path / "b.md"
    with_masks = ["--masks", str(masks), "--out", str(out)]
    assert main(["benchmark", str(pictures), *setting, *with_masks]) == 0
    assert out.read_text() == capsys.readouterr().out
    assert "IoU with truth" in out.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--setting", "six"], "The setting 'six' is not two numbers"),
        (["--setting", "1,80"], "80 clusters do not fill a square window"),
        (["--setting", "9,81"], "There is no block 9"),
        (["--setting", "1,225"], "225 clusters are more than the 14x14 tokens"),
        (["--points", "0"], "--points and --limit must be 1 or more"),
        (["--limit", "0"], "--points and --limit must be 1 or more"),
        (["--boxes", "{tmp}/bad.csv"], "Line 2 of bad.csv is no box"),
        (["--boxes", "{tmp}/out.csv"], "lies outside the frame"),
        (["--boxes", "{tmp}/none.csv"], "none.csv cannot be used"),
        (["--boxes", "{tmp}/latin.csv"], "latin.csv is not text in UTF-8"),
        (["--boxes", "x.csv", "--masks", "x"], "--boxes or --masks to prompt with, not both"),
        (["--masks", "{tmp}"], "a.png does not exist"),
        (["--out", "table.txt"], "The result table.txt must end in .md or .csv"),
        (["--out", "{tmp}/none/table.md"], "none for the result does not exist"),
        (["--segmenter", "mobile_sam"], "choose from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("built")
def test_bad_input_is_refused_in_one_sentence(
    options: list[str],
    message: str,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.csv").write_text("a.png,5,5,30,30\na.png,5,5\n")
    (tmp_path / "out.csv").write_text("a.png,500,500,600,600\n")
    (tmp_path / "latin.csv").write_bytes("é.png,5,5,30,30\n".encode("latin-1"))
    given = [option.format(tmp=tmp_path) for option in options]
    usual = ["--points", "1", *([] if "--setting" in given else ["--setting", "1,64"])]
    assert main(["benchmark", str(pictures), "--device", "cpu", *usual, *given]) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("Error: ")


def test_a_folder_without_pictures_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["benchmark", str(folder)]) == 2
        assert "is no folder with pictures" in capsys.readouterr().err
