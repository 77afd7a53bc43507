"""Weights and states are written whole, and read without running any code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoints import CheckpointError, WeightsRecord
from checkpoints.training.saving import (
    find_weights,
    read_state,
    read_weights,
    weights_in,
    write_state,
    write_weights,
)
from media import InputError


def test_weights_come_in_pieces(tmp_path: Path) -> None:
    state = {f"t{i}": torch.randn(1000, 500) for i in range(4)}  # 2 MB each
    files = write_weights(state, tmp_path / "weights.safetensors", piece_mb=5)
    assert [f.name for f in files[:2]] == [
        "weights-00001-of-00002.safetensors",
        "weights-00002-of-00002.safetensors",
    ]
    assert all(f.stat().st_size <= 5e6 for f in files)
    assert weights_in(tmp_path) == tmp_path / "weights.safetensors.index.json"
    found = read_weights(weights_in(tmp_path))
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())
    # Named as any other weights, they are told apart by what the pieces hold.
    one = WeightsRecord.of_file("w", weights_in(tmp_path))
    write_weights({**state, "t0": state["t0"] + 1}, tmp_path / "weights.safetensors", piece_mb=5)
    other = WeightsRecord.of_file("w", weights_in(tmp_path))
    assert one.sha256 != other.sha256
    files[1].unlink()
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.safetensors cannot be read"):
        read_weights(weights_in(tmp_path))


def test_halves_come_back_as_floats(tmp_path: Path) -> None:
    state = {"w": torch.tensor([0.1, 2.0]), "n": torch.tensor([7])}
    (file,) = write_weights(state, tmp_path / "w.safetensors", half=True)
    found = read_weights(file)
    assert found["w"].dtype == torch.float32 and found["n"].tolist() == [7]
    assert found["w"].tolist() == pytest.approx([0.1, 2.0], rel=1e-3)


def test_a_state_comes_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    write_state({"step": 3, "network": {"w": torch.ones(2)}}, file)
    assert read_state(file)["step"] == 3
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match="delete it to start anew"):
        read_state(file)


@pytest.mark.parametrize("piece_mb", [0, 1])
def test_one_file_and_pieces_are_found_by_either_name(tmp_path: Path, piece_mb: int) -> None:
    state = {f"t{i}": torch.randn(400, 500) for i in range(2)}  # 0.8 MB each
    write_weights(state, tmp_path / "weights.safetensors", piece_mb=piece_mb)
    for name in ("weights.safetensors", "weights.safetensors.index.json"):
        found = find_weights(str(tmp_path / name))
        assert found == weights_in(tmp_path)
        assert torch.equal(read_weights(found)["t1"], state["t1"])


def test_weights_that_are_nowhere() -> None:
    with pytest.raises(InputError, match=r"no file nowhere.pth, and no checkpoint of that name"):
        find_weights("nowhere.pth")
