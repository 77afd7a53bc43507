"""Parity with the official code and weights; what the numbers are is in golden/mobile_sam."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional as F

import checkpoints
from segmenters import Embedding, Prompt, build_segmenter
from segmenters.mobile_sam import STRIP_ROWS, UNUSED_KEYS, Linear, MBConv, TinyViT, build_network
from segmenters.sam import SamSegmenter

GOLDEN = np.load(Path(__file__).parent.parent / "golden/mobile_sam/official.npz")
PROMPTS = {
    "astronaut_box": Prompt(box=np.array([30, 5, 430, 510])),
    "astronaut_point": Prompt(points=np.array([[230, 120]])),
    "astronaut_points": Prompt(
        points=np.array([[230, 120], [230, 400], [450, 300]]), labels=np.array([1, 1, 0])
    ),
    "astronaut_point_box": Prompt(points=np.array([[230, 120]]), box=np.array([150, 20, 300, 220])),
    "coffee_box": Prompt(box=np.array([130, 60, 470, 330])),
    "coffee_point": Prompt(points=np.array([[300, 180]])),
}


@pytest.fixture(scope="module")
def official() -> SamSegmenter:
    if checkpoints.find("mobile_sam") is None:
        message = "the official weights are missing: run `python -m checkpoints fetch mobile_sam`"
        assert os.environ.get("CI") != "true", message
        pytest.skip(message)
    segmenter = build_segmenter("mobile_sam", device="cpu")
    assert isinstance(segmenter, SamSegmenter)
    return segmenter


@pytest.fixture(scope="module")
def embeddings(official: SamSegmenter) -> dict[str, Embedding]:
    images = {"astronaut": data.astronaut(), "coffee": data.coffee()}
    for name, image in images.items():
        sha256 = hashlib.sha256(image.tobytes()).hexdigest()
        assert sha256 == str(GOLDEN[f"{name}_sha256"]), f"skimage's {name} is another picture"
    return {name: official.encode(image) for name, image in images.items()}


def test_weights_are_told(official: SamSegmenter) -> None:
    assert official.weights.name == "mobile_sam"
    known = checkpoints.CHECKPOINTS["mobile_sam"].sha256
    assert known is not None and known.startswith(official.weights.sha256)


def test_the_official_file_holds_just_our_keys(official: SamSegmenter) -> None:
    file = checkpoints.load_state_dict(checkpoints.path("mobile_sam"))
    ours = build_network().state_dict()
    assert sorted(file) == sorted([*ours, *UNUSED_KEYS])
    assert all(file[key].shape == value.shape for key, value in ours.items())


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_embedding_parity(embeddings: dict[str, Embedding], name: str) -> None:
    features = embeddings[name].features
    sample = features[0, ::8, ::4, ::4].numpy()
    np.testing.assert_allclose(sample, GOLDEN[f"{name}_embedding_sample"], atol=1e-3)
    moments = [features.mean().item(), features.std().item()]
    np.testing.assert_allclose(moments, GOLDEN[f"{name}_embedding_meanstd"], atol=1e-4)


@pytest.mark.parametrize("name", PROMPTS)
def test_answer_parity(official: SamSegmenter, embeddings: dict[str, Embedding], name: str) -> None:
    embedding = embeddings[name.partition("_")[0]]
    (candidates,) = official.predict(embedding, [PROMPTS[name]])
    order = np.argsort(-GOLDEN[f"{name}_iou"])
    scores = [candidate.score for candidate in candidates]
    np.testing.assert_allclose(scores, GOLDEN[f"{name}_iou"][order], atol=1e-3)
    areas = [candidate.mask.sum() for candidate in candidates]
    np.testing.assert_allclose(areas, GOLDEN[f"{name}_area"][order], rtol=2e-3)
    logits = np.stack([candidate.logits for candidate in candidates])[:, ::4, ::4]
    np.testing.assert_allclose(logits, GOLDEN[f"{name}_logits"][order], atol=1e-2)
    best = candidates[0].mask[::4, ::4].ravel()
    expected = np.unpackbits(GOLDEN[f"{name}_mask_best"])[: best.size]
    assert (best != expected).mean() <= 2e-3


# ----------------------------------------------------------- parts, without the official weights


def random_statistics(module: nn.Module) -> None:
    """Fresh batch norms do nothing, which would hide a wrong fold."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)


@torch.inference_mode()
def test_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = TinyViT().eval()
    random_statistics(encoder)
    image = torch.randn(1, 3, 208, 176)  # neither windows nor strips divide it
    before = encoder(image)
    encoder.fold()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    torch.testing.assert_close(encoder(image), before, atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("height", [1, STRIP_ROWS, STRIP_ROWS + 1, 2 * STRIP_ROWS + 5])
def test_strips_change_nothing(height: int) -> None:
    block = MBConv(8).eval()
    random_statistics(block)
    x = torch.randn(2, 8, height, 7)
    hidden = F.gelu(block.conv2(F.gelu(block.conv1(x))))
    torch.testing.assert_close(block(x), F.gelu(x + block.conv3(hidden)))


@torch.inference_mode()
def test_linear_is_linear() -> None:
    linear = Linear(12, 5)
    x = torch.randn(2, 3, 4, 12)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias))
    assert linear(x[:, :, 1:2]).shape == (2, 3, 1, 5)


def test_random_weights_give_masks_of_the_right_shape() -> None:
    segmenter = build_segmenter("mobile_sam", weights=build_network().state_dict(), device="cpu")
    embedding = segmenter.encode(np.zeros((120, 90, 3), np.uint8))
    assert embedding.features.shape == (1, 256, 64, 64)
    assert embedding.features.isfinite().all()
    ((best, *_),) = segmenter.predict(embedding, [Prompt(points=np.array([[5, 5]]))])
    assert best.mask.shape == (120, 90)
