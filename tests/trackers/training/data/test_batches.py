"""Batches: the same for one process and several, after a resume, by either pipeline."""

from __future__ import annotations

import json
import logging
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.training.shards import ShardWriter
from media import InputError
from tests.trackers.training.data.scenes import SIZE, encode, misplaced, scene, to_pixels
from trackers.training.data import (
    Batch,
    Batches,
    DataConfig,
    Deformation,
    SourceConfig,
    draw_batch,
)

STRONG = Deformation(0.3, 25, 0.2, 0.2, 0.0, 2.0, 0.0)


def config(*sources: tuple[str, Path], **options: Any) -> DataConfig:
    given = tuple(SourceConfig(kind, str(path)) for kind, path in sources)
    return DataConfig(given, **{"template_size": 48, "search_size": 96, **options})


def take(found: DataConfig, steps: int = 2, **options: Any) -> list[Batch]:
    options = {"seed": 5, "batch_size": 8, **options}
    return list(islice(Batches(found, **options), steps))


def is_same(first: Batch, second: Batch, tolerance: float = 0.0) -> None:
    """`tolerance` is for pixels, in grey levels; boxes and labels are equal."""
    assert first.boxes_xywh.equal(second.boxes_xywh) and first.labels.equal(second.labels)
    for name in ("template", "online_template", "search"):
        ours, theirs = (to_pixels(getattr(each, name)) for each in (first, second))
        assert np.abs(ours - theirs).max() <= tolerance, name


def part(batch: Batch, rows: slice) -> Batch:
    return Batch(*(tensor[rows] for tensor in vars(batch).values()))


def test_shapes_and_ranges(stills: Path, tracks: Path) -> None:
    (batch,) = take(config(("stills", stills), ("tracks", tracks)), 1)
    assert batch.template.shape == batch.online_template.shape == (8, 3, 48, 48)
    assert batch.search.shape == (8, 3, 96, 96) and batch.search.dtype == torch.float32
    assert batch.boxes_xywh.shape == (8, 4) and batch.labels.tolist() == [1] * 8
    assert len(batch) == 8 and len(batch.to(torch.device("cpu"))) == 8
    assert -2.2 < batch.search.min() < -1.7 and 1 < batch.search.max() < 2.7
    assert not batch.template.equal(batch.online_template)


@pytest.mark.parametrize("pipeline", ["loader", "device"])
@pytest.mark.parametrize("training", [True, False])
def test_boxes_are_where_the_objects_are(
    pipeline: str, training: bool, stills: Path, tracks: Path
) -> None:
    found = config(("stills", stills), ("tracks", tracks), pipeline=pipeline)
    batches = take(found, 6, batch_size=16, training=training)
    errors = [error for batch in batches for error in misplaced(batch)]
    assert len(errors) > 70
    # The labels are half a pixel off by upstream's rule, crops begin at whole pixels of the
    # picture, one of which may be several of the crop's, and colours fade over a pixel.
    assert np.median(errors) < 1.5 and np.quantile(errors, 0.9) < 4


def test_boxes_follow_deformations(stills: Path) -> None:
    plain = {"flip": 0.0, "crop_flip": 0.0, "brightness": 0.0, "grayscale": 0.0}
    turned = config(("stills", stills), deformation=Deformation(stretch=0.4), **plain)
    errors = [error for batch in take(turned, 6, batch_size=16) for error in misplaced(batch)]
    assert len(errors) > 60 and np.median(errors) < 1.5 and np.quantile(errors, 0.9) < 4
    # Turned rectangles reach out of the box round their ellipse, by a part of their own size.
    turned = config(("stills", stills), deformation=Deformation(turn=15), **plain)
    errors = [error for batch in take(turned, 6, batch_size=16) for error in misplaced(batch)]
    assert len(errors) > 60 and np.median(errors) < 4


@pytest.mark.parametrize("resident_gb", [1.0, 0.0])
@pytest.mark.parametrize("deformation", [Deformation(), STRONG], ids=["papers", "strong"])
@pytest.mark.parametrize("sampler", ["causal", "trident_pro"])
def test_both_pipelines_give_the_same_batches(
    sampler: str, deformation: Deformation, resident_gb: float, stills: Path, tracks: Path
) -> None:
    sources = ("stills", stills), ("tracks", tracks)
    options = {"sampler": sampler, "deformation": deformation}
    loader = take(config(*sources, **options))
    device = take(config(*sources, **options, pipeline="device", resident_gb=resident_gb))
    for first, second in zip(loader, device, strict=True):
        # One grey level of the crops' own rounding, which brightness and contrast enlarge.
        is_same(first, second, tolerance=1.2 * (1 + deformation.contrast) + 0.01)


@pytest.mark.parametrize("pipeline", ["loader", "device"])
def test_two_processes_see_what_one_would(pipeline: str, stills: Path, tracks: Path) -> None:
    found = config(("stills", stills), ("tracks", tracks), pipeline=pipeline)
    whole = take(found, 3)
    for rank in (0, 1):
        for batch, mine in zip(whole, take(found, 3, rank=rank, world=2), strict=True):
            is_same(part(batch, slice(4 * rank, 4 * rank + 4)), mine, tolerance=1e-3)


def test_a_resumed_run_goes_on_as_if_unbroken(stills: Path) -> None:
    found = config(("stills", stills))
    whole = take(found, 4)
    for batch, resumed in zip(whole[2:], take(found, 2, start_step=2), strict=True):
        is_same(batch, resumed)
    assert not whole[0].boxes_xywh.equal(whole[1].boxes_xywh)
    (other,) = take(found, 1, seed=6)
    assert not whole[0].boxes_xywh.equal(other.boxes_xywh)


def test_worker_processes_change_nothing(stills: Path, tracks: Path) -> None:
    sources = ("stills", stills), ("tracks", tracks)
    for pipeline in ("loader", "device"):
        alone = take(config(*sources, pipeline=pipeline), 3)
        helped = take(config(*sources, pipeline=pipeline, workers=2), 3)
        for first, second in zip(alone, helped, strict=True):
            is_same(first, second, tolerance=1e-3)


def test_one_template(tracks: Path) -> None:
    (batch,) = take(config(("tracks", tracks), templates=1), 1)
    (two,) = take(config(("tracks", tracks)), 1)
    assert batch.online_template is batch.template
    assert batch.template.equal(two.template) and batch.search.equal(two.search)


def test_labels_of_the_score_stage(tracks: Path) -> None:
    batches = take(config(("tracks", tracks), sampler="trident_pro"), 8)
    labels = torch.cat([batch.labels for batch in batches])
    assert set(labels.tolist()) == {0, 1} and 0.3 < labels.mean() < 0.7
    for batch in batches:
        # Where the label is 0, the frames of these videos show nothing red.
        for image, label in zip(to_pixels(batch.search), batch.labels, strict=True):
            if not label:
                assert (image[..., 0] - image[..., 1:].max(axis=2)).max() < 60


def spoil(folder: Path, keep: int = 0) -> int:
    """Overwrite the pictures of every shard but for `keep` in each."""
    spoilt = 0
    for index in folder.glob("*.jsonl"):
        data = bytearray(index.with_suffix(".bin").read_bytes())
        for line in index.read_text().splitlines()[keep:]:
            row = json.loads(line)
            data[row["off"] : row["off"] + row["len"]] = b"x" * row["len"]
            spoilt += 1
        index.with_suffix(".bin").write_bytes(data)
    return spoilt


@pytest.mark.parametrize(
    "options",
    [{}, {"workers": 1}, {"pipeline": "device"}, {"pipeline": "device", "resident_gb": 0.0}],
    ids=["loader", "worker", "resident", "carried"],
)
def test_broken_pictures_are_left_out_said_and_counted(
    options: dict[str, Any], stills: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(stills, tmp_path / "broken")
    spoilt = spoil(tmp_path / "broken", keep=2)
    batches = Batches(config(("stills", tmp_path / "broken"), **options), seed=1, batch_size=8)
    with caplog.at_level(logging.WARNING):
        for batch in islice(batches, 6):
            assert len(batch) == 8 and batch.search.std() > 0.1
    assert 10 < len(batches.skipped) <= spoilt and batches.skipped.total() > len(batches.skipped)
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == len(batches.skipped)  # once each
    assert all("is damaged. It is left out." in sentence for sentence in said)
    # By whichever way, the same samples are drawn instead.
    plain = take(config(("stills", tmp_path / "broken")), 1, seed=1)[0]
    again = take(config(("stills", tmp_path / "broken"), **options), 1, seed=1)[0]
    is_same(plain, again, tolerance=1.3)


def test_nothing_but_broken_pictures(stills: Path, tmp_path: Path) -> None:
    shutil.copytree(stills, tmp_path / "broken")
    # The shards are spoilt after they were opened, as by a disk that goes.
    alone, helped = (
        Batches(config(("stills", tmp_path / "broken"), workers=workers), seed=0, batch_size=8)
        for workers in (0, 1)
    )
    spoil(tmp_path / "broken")
    for batches in (alone, helped):
        with pytest.raises(InputError, match=r"^200 draws .* led to no sample. .*is damaged.$"):
            next(iter(batches))
    with pytest.raises(
        InputError, match=r"None of the first pictures in .*broken can be used. The"
    ):
        take(config(("stills", tmp_path / "broken")))


def test_what_cannot_be_configured(stills: Path) -> None:
    with pytest.raises(InputError, match="batch of 8 cannot be shared by 3 processes"):
        take(config(("stills", stills)), world=3)
    with pytest.raises(InputError, match="name no source"):
        DataConfig(())
    with pytest.raises(InputError, match="There is no sampler 'casual'"):
        config(("stills", stills), sampler="casual")
    with pytest.raises(InputError, match="templates is at least 1 and at most 2, not 3"):
        config(("stills", stills), templates=3)
    with pytest.raises(InputError, match="flip is at least 0 and at most 1"):
        config(("stills", stills), flip=50)
    with pytest.raises(InputError, match="weight is above 0"):
        SourceConfig("stills", "x", weight=0)


def test_a_sheet_to_look_at(tracks: Path) -> None:
    (batch,) = take(config(("tracks", tracks), sampler="trident_pro"), 1)
    sheet = np.array(draw_batch(batch, most=6))
    assert sheet.shape[2] == 3 and sheet.shape[1] > 4 * (48 + 96) and sheet.std() > 20
    pen = {1.0: (0x35, 0xD4, 0x61), 0.0: (0xFF, 0x55, 0x33)}
    for i in range(2):
        x, y, _, h = (batch.boxes_xywh[i] * 96).tolist()
        left = i * (48 + 96 + 6) + 48 + 2
        row, column = round(y + h / 2), round(x)
        if 1 <= row < 95 and 1 <= column < 95:
            line = sheet[row, left + column - 1 : left + column + 3]
            assert (line == pen[batch.labels[i].item()]).all(axis=1).any()


@pytest.fixture
def jpegs(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "jpegs") as writer:
        for i in range(8):
            box = (10 + i, 20, 30, 24)
            record = {"source": "s", "video": None, "frame": None, "objects": [{"box": box}]}
            writer.add(encode(scene(box, i), "jpeg"), SIZE, record)
    return tmp_path / "jpegs"


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
def test_files_for_a_gpu_to_decode(
    jpegs: Path, stills: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a GPU gets, here decoded by the CPU; PNG files among them go as pixels."""
    sources = ("stills", jpegs), ("stills", stills)
    plain = Batches(config(*sources), seed=3, batch_size=8)
    files = Batches(config(*sources, pipeline="device", resident_gb=0.0), seed=3, batch_size=8)
    files._preparer._carried = "files"  # chosen by the kind of device
    carried = files._preparer[0].pictures
    assert 0 < len(carried["lengths"]) < len(carried["sizes"])
    is_same(next(iter(plain)), next(iter(files)), tolerance=1.3)

    # A file of which only the end is missing is found to be damaged when it is too late.
    index = jpegs / "shard_00.jsonl"
    data = bytearray((jpegs / "shard_00.bin").read_bytes())
    row = json.loads(index.read_text().splitlines()[3])
    data[row["off"] + row["len"] // 2 : row["off"] + row["len"]] = b"\xff" * -(-row["len"] // 2)
    (jpegs / "shard_00.bin").write_bytes(data)
    seen = [len(batch) for batch in islice(files, 3)]
    assert seen == [8, 8, 8] and list(files.skipped) == [
        f"A file of {row['len']} bytes is damaged."
    ]
    assert "decoded one by one, on the CPU" in caplog.text
