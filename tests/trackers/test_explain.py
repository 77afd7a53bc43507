"""What is drawn of the network's inside is what the network does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import WeightsRecord
from media import InputError
from media.video import open_video
from tests.trackers.every_tracker import random_frame
from trackers import Track
from trackers.__main__ import main
from trackers.boxes import clip_xywh, xywh_to_xyxy
from trackers.explain import SIZE, attention_weights, draw, explain, look, write_pictures
from trackers.models.mixformerv2 import MixFormerV2, MixFormerV2Tracker

BOX = [150, 40, 190, 80]


@pytest.fixture
def tracker() -> MixFormerV2Tracker:
    """A small one with three templates from frame 2 on, in which attention is far from uniform."""
    torch.manual_seed(0)
    network = MixFormerV2(
        search_size=64, template_size=32, dim=32, depth=3, heads=2, mlp_ratio=1.0, feat_sz=24
    )
    for block in network.backbone.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.6)
    network.requires_grad_(False).eval()
    found = MixFormerV2Tracker(
        network,
        weights=WeightsRecord("none", "none"),
        mode="benchmark",
        online_size=2,
        update_interval=1,
    )
    found.initialize(random_frame(0), BOX)
    for seed in (1, 2):
        found.track(random_frame(seed))
    return found


def next_frame() -> np.ndarray:
    return random_frame(3)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_attention_is_that_of_the_tracker(tracker: MixFormerV2Tracker, block: int) -> None:
    part = tracker.network.backbone.blocks[block]
    inputs: list[torch.Tensor] = []
    mixed: list[torch.Tensor] = []  # what the attention made of the values: (b, tokens, dim)
    keys, values = tracker._cache[block]  # before the next templates replace it
    insight = look(tracker, next_frame(), block)
    part.norm1.register_forward_hook(lambda module, given, result: inputs.append(result))
    part.attn.proj.register_forward_pre_hook(lambda module, given: mixed.append(given[0]))
    tracker.track(next_frame())

    weights = attention_weights(part.attn, inputs[0], (keys, values), 4)
    own = part.attn._split_heads(part.attn.qkv(inputs[0]))[2]
    found = (weights @ torch.cat([values, own], dim=2)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, mixed[0][:, -4:], rtol=1e-5, atol=1e-6)

    assert insight.template_attention.shape == (4, 3, 2, 2) and insight.attention.shape == (4, 4, 4)
    shares = weights[0].mean(dim=0)  # templates, search crop, prediction tokens
    np.testing.assert_allclose(insight.template_attention.reshape(4, 12), shares[:, :12], atol=1e-6)
    np.testing.assert_allclose(insight.attention.reshape(4, 16), shares[:, 12:28], atol=1e-6)


def test_looking_changes_nothing_and_sees_the_same_box(tracker: MixFormerV2Tracker) -> None:
    twin = tracker.another()
    twin.initialize(next_frame(), BOX)
    tracker.initialize(next_frame(), BOX)
    for seed in (4, 5):
        insight = look(tracker, random_frame(seed))
        ours, theirs = tracker.track(random_frame(seed)), twin.track(random_frame(seed))
        assert np.array_equal(ours.box, theirs.box) and ours.score == theirs.score
    x0, y0, x1, y1 = insight.box_in_crop
    expected = insight.window.to_frame(
        np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], np.float32)
    )
    clipped = clip_xywh(expected, (120, 400))
    np.testing.assert_allclose(xywh_to_xyxy(np.array(clipped)), ours.box, atol=1e-3)


def test_spread_is_a_standard_deviation(tracker: MixFormerV2Tracker) -> None:
    p = np.zeros((4, 24), np.float32)
    p[0, [3, 9]] = 0.5  # positions 3/24 and 9/24: 3/24 from their mean
    p[1:, 5] = 1
    insight = replace(look(tracker, next_frame()), probabilities=p)
    np.testing.assert_allclose(insight.spread, [3 / 24, 0, 0, 0], atol=1e-6)


def test_a_block_that_is_not_there(tracker: MixFormerV2Tracker) -> None:
    with pytest.raises(InputError, match=r"There is no block 3; there are 0 to 2\."):
        look(tracker, next_frame(), 3)


def test_each_map_is_drawn_in_its_place(tracker: MixFormerV2Tracker) -> None:
    track = Track(np.array(BOX, np.float32), 0.5)
    insight = look(tracker, next_frame())
    picture = draw(next_frame(), 7, track, insight)
    assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
    for i in range(4):
        attention = insight.attention.copy()
        attention[i] = np.eye(4)
        other = draw(next_frame(), 7, track, replace(insight, attention=attention))
        rows, columns = np.nonzero((picture != other).any(axis=2))
        fifth = SIZE[1] / 5
        assert rows.min() > SIZE[0] / 2 and len(rows) > 1000
        assert i * fifth - 10 < columns.min() and columns.max() < (i + 1) * fifth + 10


def test_explain_draws_each_so_manieth_frame(tracker: MixFormerV2Tracker) -> None:
    frames = [random_frame(seed) for seed in range(6)]
    numbers = [index for index, _ in explain(tracker, frames, BOX, first=10, every=2)]
    assert numbers == [11, 13, 15]


def pictures(count: int, *, fail: bool = False) -> Iterator[tuple[int, np.ndarray]]:
    for i in range(count):
        yield i + 3, np.full((*SIZE, 3), 40 * i, np.uint8)
    if fail:
        raise InputError("no more")


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    folder, film = tmp_path / "new" / "pictures", tmp_path / "film.mp4"
    write_pictures(pictures(2), folder, fps=Fraction(5))
    assert sorted(path.name for path in folder.iterdir()) == ["00003.png", "00004.png"]
    assert np.asarray(Image.open(folder / "00004.png"))[0, 0].tolist() == [40, 40, 40]
    write_pictures(pictures(3), film, fps=Fraction(5))
    with open_video(film) as video:
        assert len(video) == 3 and video.info.fps == 5 and video.info.size == SIZE
    with pytest.raises(InputError, match="is there already"):
        write_pictures(pictures(1), folder, fps=Fraction(5))
    for name in ("broken", "broken.mp4"):
        with pytest.raises(InputError, match="no more"):
            write_pictures(pictures(1, fail=True), tmp_path / name, fps=Fraction(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pictures"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(random_frame(i, 90, 120)).save(folder / f"{i}.png")
    return folder


def test_command(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["explain", str(clip), "--box", "30,30,60,54", "--out", str(out), "--device", "cpu"]
    assert main([*words, "--start", "1", "--every", "2"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert sorted(path.name for path in out.iterdir()) == ["00002.png", "00004.png"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--tracker", "mixvit_base"], "mixvit_base has no prediction tokens to look at; take mix"),
        (["--tracker", "opencv:KCF"], "opencv:KCF has no prediction tokens"),
        (["--start", "4"], "nothing to draw from frame 4 of 5"),
        (["--every", "0"], "--every 1"),
        (["--box", "500,1,510,9"], "lies outside of the 120 x 90 pixel frame"),
        (["--block", "9"], "no block 9; there are 0 to 3"),
    ],
)
def test_what_cannot_be_drawn(
    more: list[str], sentence: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", str(clip), "--box", "30,30,60,54", "--out", str(tmp_path / "out.mp4")]
    assert main([*words, *more]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]
