from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

import checkpoints
from checkpoints import CheckpointError
from inpainting.lpips import LAYERS, Lpips, load_lpips
from tests.inpainting.conftest import texture


def a_file(path: Path, **changes: object) -> Path:
    """Weights of the published layout; numpy's old module name is what the real file has."""
    random = np.random.default_rng(0)
    tree: dict[str, object] = {"AlexNet_0": {}}
    for number, (outputs, inputs, size, *_) in enumerate(LAYERS):
        kernel = random.normal(0, 0.05, (size, size, inputs, outputs)).astype(np.float32)
        bias = np.zeros(outputs, np.float32)
        tree["AlexNet_0"][f"Conv_{number}"] = {"kernel": kernel, "bias": bias}  # type: ignore[index]
        judge = random.uniform(0, 0.1, (1, 1, outputs, 1)).astype(np.float32)
        tree[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": judge}}
    tree.update(changes)
    body = pickle.dumps(tree, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    path.write_bytes(body)
    return path


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("sprung",)


def test_weights_go_where_they_belong(tmp_path: Path) -> None:
    network = load_lpips(a_file(tmp_path / "weights"))
    first = network.convolutions[0].weight
    assert first.shape == (64, 3, 11, 11)
    with (tmp_path / "weights").open("rb") as file:
        body = file.read().replace(b"numpy.core.", b"numpy._core.")
    kernel = pickle.loads(body)["AlexNet_0"]["Conv_0"]["kernel"]
    assert float(first[5, 2, 3, 7]) == float(kernel[3, 7, 2, 5])


def test_no_code_of_the_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="mkdir"):
        load_lpips(a_file(tmp_path / "weights", NetLinLayer_4=Trap()))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("body", [b"", b"\x80\x03garbage", pickle.dumps({})])
def test_what_is_no_weight_file_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "weights").write_bytes(body)
    with pytest.raises(CheckpointError, match="damaged or not LPIPS"):
        load_lpips(tmp_path / "weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_lpips(tmp_path / "nothing")


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    path = checkpoints.find("lpips_alex")
    if path is None:
        pytest.skip("needs LPIPS's weights: python -m checkpoints fetch lpips_alex")
    return load_lpips(path)


def test_the_published_weights_judge_as_people_do(lpips: Lpips) -> None:
    truth = texture(96, 128).round().astype(np.uint8)
    random = np.random.default_rng(2)
    lighter = np.clip(truth.astype(int) + 12, 0, 255).astype(np.uint8)
    noisy = np.clip(truth + random.normal(0, 40, truth.shape), 0, 255).astype(np.uint8)
    blurred = cv2.GaussianBlur(truth, (0, 0), 6)
    other = texture(96, 128, seed=9).round().astype(np.uint8)
    assert lpips.between(truth, truth) == 0
    for frame in (lighter, blurred, other):
        there, back = lpips.between(frame, truth), lpips.between(truth, frame)
        assert there == pytest.approx(back, rel=1e-4)
    # Blur keeps the mean error small but destroys what a picture looks like; more light does not.
    assert lpips.between(lighter, truth) < 0.1
    assert lpips.between(lighter, truth) < lpips.between(blurred, truth)
    assert 0.2 < lpips.between(blurred, truth) < 1.2
    assert lpips.between(noisy, truth) > lpips.between(lighter, truth)
    judges = [judge.weight for judge in lpips.judges]
    assert all(float(weight.min()) >= 0 for weight in judges)
