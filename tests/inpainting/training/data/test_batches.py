"""Batches are a function of seed and step; files that are broken are left out."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inpainting.training.data import Batch, Batches, DataConfig, HoleConfig, draw_sheet
from inpainting.training.data.batches import choose_frames
from media import InputError


def config(clips: Path, **changes: object) -> DataConfig:
    settings = {"size": (56, 100), "local": 3, "references": 2, **changes}
    return DataConfig((str(clips),), **settings)  # type: ignore[arg-type]


def take(count: int, *args: object, **options: object) -> list[Batch]:
    return list(islice(Batches(*args, **options), count))  # type: ignore[arg-type]


def test_a_batch_is_what_the_network_wants(clips: Path) -> None:
    (batch,) = take(1, config(clips), None, seed=1, batch_size=2)
    assert batch.truth.shape == (2, 5, 3, 56, 100) and batch.holes.shape == (2, 5, 1, 56, 100)
    assert batch.truth.dtype == torch.float32 and batch.num_local == 3 and len(batch) == 2
    assert -1 <= batch.truth.min() < -0.3 and 0.3 < batch.truth.max() <= 1
    assert set(batch.holes.unique().tolist()) == {0.0, 1.0}
    hidden = batch.holes.expand_as(batch.truth) > 0
    assert (batch.masked[hidden] == 0).all()
    assert torch.equal(batch.masked[~hidden], batch.truth[~hidden])


def test_processes_and_resumed_runs_see_the_same(clips: Path) -> None:
    settings = config(clips, crop=0.5, reverse=0.5)
    one = take(4, settings, "train", seed=3, batch_size=4)
    later = take(2, settings, "train", seed=3, batch_size=4, start_step=2)
    worked = take(4, config(clips, crop=0.5, reverse=0.5, workers=1), "train", seed=3, batch_size=4)
    shares = [
        take(4, settings, "train", seed=3, batch_size=4, rank=rank, world=2) for rank in (0, 1)
    ]
    for step, batch in enumerate(one):
        joined = torch.cat([share[step].truth for share in shares])
        assert torch.equal(batch.truth, joined)
        assert torch.equal(batch.truth, worked[step].truth)
        assert torch.equal(batch.holes, worked[step].holes)
    assert torch.equal(one[2].truth, later[0].truth) and torch.equal(one[3].holes, later[1].holes)
    assert not torch.equal(one[0].truth, one[1].truth)
    (other,) = take(1, settings, "train", seed=4, batch_size=4)
    assert not torch.equal(one[0].truth, other.truth)


def test_frames_are_consecutive_and_then_others_in_order() -> None:
    firsts: Counter[int] = Counter()
    for seed in range(400):
        times = choose_frames(np.random.default_rng(seed), 8, 3, 3)
        assert times[1] == times[0] + 1 and times[2] == times[0] + 2
        others = times[3:]
        assert others == sorted(set(others)) and not set(others) & set(times[:3])
        firsts[times[0]] += 1
    assert sorted(firsts) == list(range(6)) and min(firsts.values()) > 30


def numbered(root: Path) -> Path:
    """A clip whose frame t is t times 20 bright on the left, and black on the right."""
    (root / "clip").mkdir(parents=True)
    for t in range(8):
        pixels = np.zeros((60, 108, 3), np.uint8)
        pixels[:, :54] = 20 * t + 60
        Image.fromarray(pixels).save(root / "clip" / f"{t}.png")
    return root


def order(batch: Batch) -> list[int]:
    """Which frames of a numbered clip the first sample shows."""
    brightest = (batch.truth[0].amax(dim=(1, 2, 3)) + 1) / 2 * 255
    return [round((value - 60) / 20) for value in brightest.tolist()]


def test_mirrored_and_reversed_as_asked(tmp_path: Path) -> None:
    folder = numbered(tmp_path)
    plain, mirrored, back = (
        take(1, config(folder, flip=flip, reverse=reverse), None, seed=0, batch_size=1)[0]
        for flip, reverse in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    )
    assert plain.truth[0, 0, 0, 0, 5] > 0 - 0.6 > plain.truth[0, 0, 0, 0, -5]
    assert torch.equal(mirrored.truth, plain.truth.flip(-1))
    assert order(back) == [*order(plain)[2::-1], *order(plain)[3:]]


def test_a_crop_keeps_proportions(tmp_path: Path) -> None:
    """A square in a picture of other proportions stays one, and is the same in all frames."""
    (tmp_path / "clip").mkdir()
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[50:150, 100:200] = 255
    for t in range(6):
        Image.fromarray(pixels).save(tmp_path / "clip" / f"{t}.png")
    for crop, square in ((None, False), (1.0, True)):
        (batch,) = take(1, config(tmp_path, crop=crop), None, seed=0, batch_size=1)
        bright = batch.truth[0, :, 0] > 0
        assert (bright == bright[0]).all()
        height, width = (int(bright[0].any(dim=axis).sum()) for axis in (1, 0))
        assert (abs(height - width) <= 1) == square


def test_broken_files_are_left_out_and_said_once(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    for frame in (folder / "clip2").iterdir():
        frame.write_bytes(frame.read_bytes()[:100])
    batches = Batches(config(folder), None, seed=0, batch_size=4)
    assert all(len(batch) == 4 for batch in islice(batches, 6))
    assert sum(batches.skipped.values()) >= 2
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == len(batches.skipped)
    assert "is damaged. It is left out." in caplog.text
    for clip in folder.iterdir():
        for frame in clip.iterdir():
            frame.write_bytes(b"")
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"8 clips in a row cannot be used. The picture"):
            take(1, config(folder, workers=workers), None, seed=0, batch_size=1)


def test_what_cannot_be_is_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name folders of clips with --data"):
        DataConfig(())
    with pytest.raises(InputError, match="at least 9 frames"):
        Batches(config(clips, references=6), None, seed=0, batch_size=1)
    with pytest.raises(InputError, match="cannot be shared by 2 processes"):
        Batches(config(clips), None, seed=0, batch_size=3, world=2)
    with pytest.raises(InputError, match="holds no masks"):
        Batches(config(clips, objects=(str(tmp_path),)), None, seed=0, batch_size=1)
    with pytest.raises(InputError, match="still is at least 0 and at most 1"):
        HoleConfig(still=2.0)


def test_a_sheet_shows_given_painted_and_true(clips: Path) -> None:
    (batch,) = take(1, config(clips), None, seed=0, batch_size=2)
    painted = torch.ones_like(batch.truth)
    pixels = np.asarray(draw_sheet(batch, painted))
    assert pixels.shape == (2 * 3 * 60, 5 * 104, 3)
    hole = batch.holes[1, 2, 0].bool().numpy()
    given, filled, true = (pixels[60 * row : 60 * row + 56, 208:308] for row in (3, 4, 5))
    assert (given[hole] == 127).all() and (filled[hole] == 255).all()
    np.testing.assert_array_equal(filled[~hole], true[~hole])
    wanted = ((batch.truth[1, 2].permute(1, 2, 0) + 1) / 2 * 255).round().numpy()
    assert np.abs(true.astype(int) - wanted).max() <= 1
