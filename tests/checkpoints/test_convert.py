"""Converted files hold the same tensors, and half precision only where it fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from checkpoints import CheckpointError, load_state_dict
from checkpoints.convert import convert


@pytest.fixture
def official(tmp_path: Path) -> Path:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    net = {
        "weight": weight,
        "tied": weight,
        "transposed": weight.t(),
        "huge": torch.tensor([1.0, 1e6]),
        "infinite": torch.tensor([float("inf"), 1.0]),
        "num_batches_tracked": torch.tensor(7),
    }
    torch.save({"net": net, "epoch": 3}, tmp_path / "net.pth.tar")
    return tmp_path / "net.pth.tar"


def test_convert_keeps_the_tensors(official: Path, tmp_path: Path) -> None:
    before = load_state_dict(official)
    after = load_state_dict(convert(official, tmp_path / "net.safetensors"))
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert after[key].dtype == value.dtype and torch.equal(after[key], value)
    assert {path.name for path in tmp_path.iterdir()} == {"net.pth.tar", "net.safetensors"}
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert file.metadata()["source"] == "net.pth.tar"


def test_half_precision_where_it_fits(official: Path, tmp_path: Path) -> None:
    tensors = load_state_dict(convert(official, tmp_path / "half.safetensors", half=True))
    assert tensors["weight"].dtype == torch.float16
    assert torch.equal(tensors["weight"], load_state_dict(official)["weight"].half())
    assert tensors["huge"].dtype == torch.float32  # 1e6 is beyond float16
    assert tensors["infinite"].dtype == torch.float16
    assert tensors["num_batches_tracked"].dtype == torch.int64


def test_a_target_that_cannot_be_written(official: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        convert(official, tmp_path / "none" / "net.safetensors")
