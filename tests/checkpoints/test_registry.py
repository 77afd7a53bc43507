"""The registry says the same as README.md, and nothing that cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checkpoints import CHECKPOINTS, PREFERRED, store
from checkpoints.__main__ import _size
from checkpoints.registry import Checkpoint
from checkpoints.sources import (
    DriveFile,
    DriveFolder,
    NpmMember,
    SdistMember,
    Source,
    Url,
    WheelMember,
)

README = Path(store.__file__).with_name("README.md").read_text(encoding="utf-8")
EVERY = pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())


def readme_rows() -> dict[str, list[str]]:
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0].strip("`"): row for row in cells}


def token(source: Source) -> str:
    """What the table shows of a source."""
    match source:
        case WheelMember():
            return f"wheel `{source.requirement}`"
        case SdistMember():
            return f"source distribution `{source.file}`"
        case NpmMember():
            return f"npm `{source.package}`"
        case Url():
            return f"[link]({source.url})"
        case DriveFile():
            return f"[Drive]({source})"
        case DriveFolder():
            return f"[Drive](https://drive.google.com/drive/folders/{source.folder_id})"
    raise AssertionError(source)


def test_the_readme_lists_every_file_and_no_other() -> None:
    assert list(readme_rows()) == list(CHECKPOINTS)


@EVERY
def test_the_readme_row_is_right(checkpoint: Checkpoint) -> None:
    name, file, what, size, licence, where, used_by, metrics = readme_rows()[checkpoint.name]
    assert (name, file) == (f"`{checkpoint.name}`", f"`{checkpoint.file}`")
    assert (what, size) == (checkpoint.summary, _size(checkpoint))
    assert licence == checkpoint.licence + " (NC)" * checkpoint.non_commercial
    assert (used_by, metrics) == (checkpoint.used_by, checkpoint.metrics)
    upstream = "this repository" if checkpoint.bundled else f"[upstream]({checkpoint.upstream})"
    assert where == ", ".join([*map(token, checkpoint.sources), upstream])


@EVERY
def test_the_entry_is_sound(checkpoint: Checkpoint) -> None:
    assert CHECKPOINTS[checkpoint.name] is checkpoint
    assert checkpoint.sha256 is None or re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)
    assert (checkpoint.sha256 is None) == (checkpoint.size is None)
    assert checkpoint.bundled or checkpoint.upstream.startswith("https://github.com/")
    assert checkpoint.bundled != bool(checkpoint.sources)
    assert ("NC" in checkpoint.licence) == checkpoint.non_commercial
    for source in checkpoint.sources:
        if isinstance(source, Url):
            assert source.url.startswith("https://")


def test_files_are_distinct() -> None:
    assert len({checkpoint.file for checkpoint in CHECKPOINTS.values()}) == len(CHECKPOINTS)


def test_preferred_names_exist_and_end_with_a_default() -> None:
    for stage, names in PREFERRED.items():
        assert all(name in CHECKPOINTS for name in names), stage
        assert CHECKPOINTS[names[-1]].default


def test_the_names_that_other_packages_use() -> None:
    names = "mixformerv2_small mixformerv2_base mixvit_base mixvit_large_384 grm_base grm_large"
    names += " mobile_sam sam_vit_b sam_vit_l sam_vit_h spynet migan e2fgvi e2fgvi_hq"
    names += " mae_vit_base mae_vit_large"  # recipes start from them
    assert set(names.split()) <= CHECKPOINTS.keys()


def test_the_model_card_names_what_must_not_be_reported_on() -> None:
    card = " ".join(README.partition("## Model card")[2].split())
    for sequence in (
        *("boat1", "building4", "person12_1", "wakeboard7", "wakeboard10"),
        *("Drone1", "CarChase2", "Mohiniyattam"),
    ):
        assert sequence in card
    assert "unstated licence" in card
