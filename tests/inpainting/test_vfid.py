from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import CheckpointError
from inpainting.vfid import FEATURES, I3D, Pool, Unit, frechet, load_i3d


def official(network: I3D) -> dict[str, torch.Tensor]:
    """A state dict as the official file has it: the classifier too, and no counters of batches."""
    state = {
        key.removeprefix("layers."): value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    state["logits.conv3d.weight"] = torch.zeros(400, FEATURES, 1, 1, 1)
    state["logits.conv3d.bias"] = torch.zeros(400)
    return state


def test_an_official_file_loads_and_another_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = I3D()
    state = official(network)
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert state["Mixed_5c.b2b.bn.running_var"].shape == (128,)
    assert sum(value.numel() for key, value in state.items() if "running" not in key) == 12_697_264
    torch.save(state, tmp_path / "i3d.pt")
    again = load_i3d(tmp_path / "i3d.pt", device="cpu")
    video = np.random.default_rng(0).integers(0, 255, (10, 64, 96, 3), np.uint8)
    features = again.of(video)
    assert features.shape == (FEATURES,)
    np.testing.assert_allclose(features, network.of(video), atol=1e-6)
    del state["Mixed_4e.b0.conv3d.weight"]
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"i3d_rgb_imagenet\.pt is wanted"):
        load_i3d(tmp_path / "other.pt", device="cpu")


def test_the_batch_itself_is_what_batch_norm_uses() -> None:
    torch.manual_seed(0)
    unit = Unit(3, 4).train()
    x = torch.rand(1, 3, 4, 8, 8)
    out = unit.conv3d(x)
    mean, var = out.mean(dim=(0, 2, 3, 4)), out.var(dim=(0, 2, 3, 4), unbiased=False)
    expected = ((out - mean.view(1, -1, 1, 1, 1)) / (var.view(1, -1, 1, 1, 1) + 1e-3).sqrt()).relu()
    torch.testing.assert_close(unit(x), expected, atol=1e-5, rtol=1e-4)


def test_padding_puts_what_is_odd_behind() -> None:
    x = torch.arange(1.0, 6.0).view(1, 1, 1, 1, 5)  # of five, pooled by two: the fifth by itself
    assert Pool((1, 1, 2), (1, 1, 2))(x).flatten().tolist() == [2, 4, 5]
    x = torch.arange(6.0, 0, -1).view(1, 1, 1, 1, 6)  # padded on the right only
    assert Pool((1, 1, 3), (1, 1, 2))(x).flatten().tolist() == [6, 4, 2]
    unit = Unit(1, 1, 7, 2).eval()
    assert unit(torch.rand(1, 1, 10, 33, 64)).shape == (1, 1, 5, 17, 32)


def test_the_distance_is_frechets() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(40, 3)), rng.normal(size=(50, 3)) @ np.diag([1, 2, 3]) + 1
    s1, s2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values = np.linalg.eigvals(s1 @ s2)  # those of a product of two covariances are not negative
    shift = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    expected = shift + np.trace(s1) + np.trace(s2) - 2 * np.sqrt(values.real).sum()
    assert frechet(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert np.isnan(frechet(one[:1], other))
    few = rng.normal(size=(4, 1024))  # far fewer videos than numbers
    assert frechet(few, few + 0.5) == pytest.approx(1024 * 0.25, rel=1e-6)
