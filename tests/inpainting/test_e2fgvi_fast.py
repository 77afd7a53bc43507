"""The quick network against the plain one, which the golden numbers hold to upstream's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inpainting.e2fgvi import E2FGVI, SMALL
from inpainting.e2fgvi_fast import KERNELS, FastE2FGVI, needs, quicken
from inpainting.view import Box

TOLERANCE = 5e-5  # in [-1, 1]; seen: 8e-6


def pictures(count: int, height: int, width: int) -> Tensor:
    random = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, 3, height // 12, width // 12, generator=random)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(-1, 1)


def plain(network: E2FGVI, frames: Tensor, num_local: int) -> Tensor:
    with torch.inference_mode():
        return network(frames[None], num_local, paint_references=False)[0]


def part(frames: Tensor, index: int, box: Box) -> Tensor:
    return frames[index][:, box.y0 : box.y1, box.x0 : box.x1]


@pytest.mark.parametrize("size", [(120, 216), (52, 104)])
def test_each_kernel_equals_the_part_it_stands_in_for(small: E2FGVI, size: tuple[int, int]) -> None:
    frames = pictures(4, *size)
    expected = plain(small, frames, 3)
    for name in KERNELS:
        found = plain(quicken(small, [name]), frames, 3)
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE, msg=name)


def test_wanted_parts_equal_those_of_the_whole(small: E2FGVI) -> None:
    frames = pictures(5, 120, 216)
    expected = plain(small, frames, 3)
    fast = FastE2FGVI(small)
    for boxes in (
        {0: Box(0, 0, 120, 216), 1: Box(0, 0, 120, 216), 2: Box(0, 0, 120, 216)},
        {0: Box(0, 0, 7, 9), 2: Box(113, 205, 120, 216)},
        {1: Box(70, 33, 71, 34)},
        {2: Box(2, 100, 100, 120)},
    ):
        found = fast.paint(frames.__getitem__, [0, 1, 2], [3, 4], boxes)
        assert list(found) == list(boxes)
        for index, box in boxes.items():
            torch.testing.assert_close(
                found[index], part(expected, index, box), rtol=0, atol=TOLERANCE
            )


def test_a_part_depends_on_less_than_everything() -> None:
    box = Box(0, 0, 20, 20)
    some, all_ = needs(box, (240, 432)), needs(box, (240, 432), everything=True)
    assert some.features.size[0] < 12
    assert some.tokens == (range(0, 2), range(0, 1))
    assert all_.tokens == (range(0, 4), range(0, 4))
    assert all_.features == (0, 0, 60, 108)


def test_windows_share_what_they_have_in_common(small: E2FGVI) -> None:
    """Frames are asked for once while they are near; the result is that of a fresh network."""
    frames = pictures(8, 60, 108)
    asked: list[int] = []

    def picture(index: int) -> Tensor:
        asked.append(index)
        return frames[index]

    fast = FastE2FGVI(small)
    whole = Box(0, 0, 60, 108)
    fast.paint(picture, [0, 1, 2], [4], {0: whole})
    found = fast.paint(picture, [1, 2, 3, 4], [0, 7], {1: whole, 4: whole})
    assert sorted(asked) == [0, 1, 2, 3, 4, 7]
    expected = plain(small, frames[[1, 2, 3, 4, 0, 7]], 4)
    for index, place in ((1, 0), (4, 3)):
        torch.testing.assert_close(found[index], expected[place], rtol=0, atol=TOLERANCE)
    fast.paint(picture, [5], [], {5: whole})
    fast.paint(picture, [1, 2], [], {1: whole})  # what was long ago is not kept
    assert asked[6:] == [5, 1, 2]
    fast.forget()
    fast.paint(picture, [1, 2], [], {1: whole})
    assert asked[9:] == [1, 2]


def test_the_given_network_is_left_as_it_is(small: E2FGVI) -> None:
    before = {key: value.clone() for key, value in small.state_dict().items()}
    FastE2FGVI(small, precision=torch.bfloat16)
    after = small.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_in_bfloat16_results_differ_by_a_grey_level_or_so(small: E2FGVI) -> None:
    frames = pictures(4, 60, 108)
    boxes = dict.fromkeys(range(3), Box(0, 0, 60, 108))
    fast = FastE2FGVI(small, precision=torch.bfloat16)
    found = torch.stack(list(fast.paint(frames.__getitem__, [0, 1, 2], [3], boxes).values()))
    off = (found - plain(small, frames, 3)).abs() * 127.5
    assert found.dtype == torch.float32
    assert 0.01 < off.mean() < 1  # seen: 0.3
    assert off.max() < 10


def test_the_model_of_one_size() -> None:
    """Its bias has a place of its own for each feature."""
    network = E2FGVI((240, 432), SMALL)
    torch.manual_seed(0)
    torch.nn.init.normal_(network.sc.bias)
    network = network.eval().requires_grad_(False)
    frames = pictures(2, 240, 432)
    expected = plain(network, frames, 1)
    box = Box(150, 300, 190, 350)
    found = FastE2FGVI(network).paint(frames.__getitem__, [0], [1], {0: box})
    torch.testing.assert_close(found[0], part(expected, 0, box), rtol=0, atol=TOLERANCE)
