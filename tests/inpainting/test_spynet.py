from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import CheckpointError
from inpainting.spynet import SPyNet, load_basicvsr, warp
from tests.golden.formula import formula_tensor
from tests.inpainting.conftest import texture

GOLDEN = Path(__file__).parents[1] / "golden" / "e2fgvi" / "spynet.npz"
PREFIX = "update_spynet."


def formula_network() -> SPyNet:
    """Weights by the golden's rule: names are those of E2FGVI, where convolution 2i is i.conv."""
    network = SPyNet()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            start, index, leaf = key.rsplit(".", 2)
            name = f"{PREFIX}{start}.{int(index) // 2}.conv.{leaf}"
            shape = tuple(parameter.shape)
            scale = 1.35 / np.sqrt(np.prod(shape[1:])) if leaf == "weight" else 0.02
            parameter.copy_(torch.from_numpy(formula_tensor(name, shape, scale)))
    return network.eval()


def golden_pair(height: int, width: int) -> torch.Tensor:
    """The two images the golden was made with (its README's `frames(2, h, w)`), in [0, 1]."""
    low = np.random.RandomState(0).standard_normal((3, height // 8 + 1, width // 8 + 1))
    low = low.astype(np.float32) * np.float32(0.5)
    image = low.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width].clip(-1, 1)
    frames = np.stack([image, np.roll(image, (2, 3), axis=(1, 2))])
    return torch.from_numpy(frames) / 2 + 0.5


@pytest.mark.parametrize("size", [(60, 108), (64, 128), (45, 80)])
def test_matches_the_official_network(size: tuple[int, int]) -> None:
    golden = np.load(GOLDEN)
    name = f"{size[0]}x{size[1]}"
    pair = golden_pair(*size)
    stride = int(golden[f"in_{name}.stride"])
    np.testing.assert_array_equal(pair.numpy().reshape(-1)[::stride], golden[f"in_{name}.sample"])
    with torch.inference_mode():
        flow = formula_network()(pair[:1], pair[1:])
    sample = flow.numpy().reshape(-1)[:: int(golden[f"flow_{name}.stride"])]
    np.testing.assert_allclose(sample, golden[f"flow_{name}.sample"], atol=1e-4)
    for entry, values in ((f"in_{name}", pair.numpy()), (f"flow_{name}", flow.numpy())):
        assert list(values.shape) == list(golden[f"{entry}.shape"])
        values = values.astype(np.float64)
        assert values.mean() == pytest.approx(float(golden[f"{entry}.mean"]), abs=1e-4)
        assert values.std() == pytest.approx(float(golden[f"{entry}.std"]), abs=1e-4)
        assert np.abs(values).max() == pytest.approx(float(golden[f"{entry}.absmax"]), abs=1e-4)


def test_every_entry_has_its_place() -> None:
    state = {f"spynet.{key}": value for key, value in formula_network().state_dict().items()}
    network = load_basicvsr({"params": {**state, "upsample1.weight": torch.zeros(1)}})
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[f"spynet.{key}"])
    missing = dict(state)
    del missing["spynet.basic_module.3.basic_module.4.bias"]
    with pytest.raises(CheckpointError, match=r"basic_module\.3\.basic_module\.4\.bias"):
        load_basicvsr({"params": missing})
    with pytest.raises(CheckpointError, match="stray"):
        load_basicvsr({"params": {**state, "spynet.stray": torch.zeros(1)}})
    with pytest.raises(CheckpointError) as told:
        load_basicvsr({"net": torch.zeros(1)})
    assert len(str(told.value)) < 200 and "\n" not in str(told.value)


def test_warp_looks_up_where_the_flow_points() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 1  # one to the right
    assert warp(image, flow)[0, 0, 1].tolist() == [5, 6, 7, 0]
    assert warp(image, flow, padding_mode="border")[0, 0, 1].tolist() == [5, 6, 7, 7]


@pytest.mark.parametrize("levels", [6, 5])
def test_direction_and_scale(spynet: SPyNet, levels: int) -> None:
    """A view that moves right and down over a picture makes what it shows move left and up."""
    canvas = torch.from_numpy(texture(112, 152)).permute(2, 0, 1)[None] / 255
    first, second = canvas[..., 8:104, 8:136], canvas[..., 10:106, 13:141]
    with torch.inference_mode():
        flow = spynet(first, second, levels=levels)
    inner = flow[0, :, 16:-16, 16:-16].flatten(1)
    x, y = inner.median(dim=1).values.tolist()
    assert x == pytest.approx(-5, abs=0.3)
    assert y == pytest.approx(-2, abs=0.3)


def test_agrees_with_another_flow_on_smooth_motion(spynet: SPyNet) -> None:
    cv2 = pytest.importorskip("cv2")
    canvas = texture(120, 160).astype(np.uint8)
    matrix = cv2.getRotationMatrix2D((80, 60), 2.0, 1.02)
    moved = cv2.warpAffine(canvas, matrix, (160, 120), borderMode=cv2.BORDER_REFLECT)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (canvas, moved)]
    other = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    pair = torch.from_numpy(np.stack([canvas, moved])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        flow = spynet(pair[:1], pair[1:])[0].permute(1, 2, 0).numpy()
    inner = np.linalg.norm(flow - other, axis=-1)[16:-16, 16:-16]
    assert np.median(inner) < 0.2


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (33, 31)])
def test_takes_any_size(size: tuple[int, int]) -> None:
    flow = formula_network()(torch.rand(2, 3, *size), torch.rand(2, 3, *size))
    assert flow.shape == (2, 2, *size)
    assert bool(flow.isfinite().all())
