from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import segmenters
from checkpoints import CHECKPOINTS, CheckpointError, WeightsRecord
from media import InputError
from segmenters import Prompt, base
from segmenters.mobile_sam import build_network

SIZE = (100, 200)  # height, width


def test_every_checkpoint_of_a_segmenter_is_registered() -> None:
    names = [c.name for c in CHECKPOINTS.values() if c.stage == "segmenter"]
    assert segmenters.list_segmenters() == sorted(names)


def test_a_name_is_registered_once() -> None:
    segmenters.list_segmenters()
    with pytest.raises(ValueError, match="registered already"):
        base.register("mobile_sam", lambda device, weights: pytest.fail("built"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "sam"}, "no segmenter 'sam'; choose one of mobile_sam, "),
        ({"name": "mobile_sam", "device": "toaster"}, "device 'toaster' is not available"),
        ({"name": "mobile_sam", "device": "cuda:99"}, "device 'cuda:99' is not available"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(
    arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        segmenters.build_segmenter(**arguments)


# ------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "needs a point, a box or a mask"),
        ({"labels": [1]}, "Labels were given without points"),
        ({"box": [1, 2, 3]}, "box of a prompt must be four numbers"),
        ({"box": [[1, 2, 3, 4]]}, "box of a prompt must be four numbers"),
        ({"box": [1, 2, "x", 4]}, "box of a prompt must be four numbers"),
        ({"box": [1, 2, np.nan, 4]}, "all finite"),
        ({"box": [10, 20, 10, 40]}, "The box 10,20,10,40 has no area"),
        ({"box": [10, 40, 30, 20]}, "has no area"),
        ({"points": [1, 2]}, "points of a prompt must be a list of x y pairs"),
        ({"points": 5}, "points of a prompt must be a list of x y pairs"),
        ({"points": [[1, 2, 3]]}, "points of a prompt must be a list of x y pairs"),
        ({"points": np.empty((0, 2))}, "list of points is empty"),
        ({"points": [[1, 2], [3, 4]], "labels": [1]}, "each point one label.*2 points"),
        ({"points": [[1, 2]], "labels": [2]}, "1 on the object, 0 beside it"),
        ({"points": [[1, 2]], "labels": [-1]}, "1 on the object, 0 beside it"),
        ({"mask_logits": np.zeros((1, 256, 256))}, "the 256x256 logits of a candidate"),
        ({"mask_logits": np.zeros(SIZE)}, "the 256x256 logits of a candidate"),
    ],
)
def test_a_wrong_prompt_is_refused(parts: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Prompt(**parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"points": [[200, 50]]}, "point 200,50 lies outside the frame.*200 pixels wide and 100"),
        ({"points": [[5, 5], [50, 100]]}, "point 50,100 lies outside"),
        ({"points": [[-0.5, 50]]}, "point -0.5,50 lies outside"),
        ({"box": [200, 0, 250, 50]}, "box 200,0,250,50 lies outside"),
        ({"box": [-30, -20, 0, 50]}, "box -30,-20,0,50 lies outside"),
        ({"box": [10, 100, 20, 110]}, "lies outside"),
    ],
)
def test_a_prompt_outside_the_frame_is_refused(parts: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Prompt(**parts).in_frame(SIZE)  # type: ignore[arg-type]


def test_parts_become_arrays_and_labels_default_to_the_object() -> None:
    prompt = Prompt(box=[1, 2, 3, 4], points=[(5, 6), (7, 8)])  # type: ignore[arg-type]
    assert prompt.box is not None and prompt.box.dtype == np.float32
    assert prompt.points is not None and prompt.points.shape == (2, 2)
    assert prompt.labels is not None and prompt.labels.tolist() == [1, 1]


def test_a_box_over_the_edge_is_clipped() -> None:
    prompt = Prompt(box=np.array([-10.0, 20.0, 260.0, 130.0])).in_frame(SIZE)
    assert prompt.box is not None and prompt.box.tolist() == [0, 20, 200, 100]


# ------------------------------------------------------------------------------------- weights


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> partial[WeightsRecord]:
    return partial(base.load_weights, nn.Linear(2, 1), "mobile_sam", unused=("head.weight",))


GOOD = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}


def test_named_keys_may_be_left_over(load: partial[WeightsRecord]) -> None:
    assert load({**GOOD, "head.weight": torch.ones(3)}).name == "state dict"


def test_the_counters_of_batches_may_be_missing() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2))
    state = {k: v + 1 for k, v in network.state_dict().items() if "num_batches" not in k}
    base.load_weights(network, "mobile_sam", state)
    assert (network[0].running_var == 2).all() and network[0].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": GOOD["weight"]}, "1 of 2 keys are missing .bias"),
        ({**GOOD, "head.bias": torch.ones(3)}, "1 keys are unknown .head.bias"),
        ({**GOOD, "bias": torch.zeros(2)}, "1 shapes differ .bias is"),
    ],
)
def test_other_weights_are_refused(
    load: partial[WeightsRecord], state: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(CheckpointError, match=f"does not hold weights of mobile_sam: {message}"):
        load(state)


@pytest.mark.parametrize(
    ("key", "shape", "owner"),
    [
        ("image_encoder.pos_embed", (1, 64, 64, 768), "sam_vit_b"),
        ("image_encoder.pos_embed", (1, 64, 64, 1024), "sam_vit_l"),
        ("image_encoder.pos_embed", (1, 64, 64, 1280), "sam_vit_h"),
    ],
)
def test_weights_of_another_sam_are_named(
    load: partial[WeightsRecord], key: str, shape: tuple[int, ...], owner: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        load({**GOOD, key: torch.zeros(shape)})
    assert str(caught.value) == (
        f"The given state dict holds weights of {owner}, not of mobile_sam; choose the segmenter "
        f"{owner}, or give another file."
    )


def test_mobile_sam_in_place_of_sam_is_named() -> None:
    with pytest.raises(CheckpointError, match="holds weights of mobile_sam, not of sam_vit_b"):
        segmenters.build_segmenter("sam_vit_b", weights=build_network().state_dict(), device="cpu")


def test_a_file_is_told_with_its_hash(load: partial[WeightsRecord], tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(GOOD, path)
    used = load(str(path))
    assert used.name == str(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(used.sha256)
    assert len(used.sha256) == 12
