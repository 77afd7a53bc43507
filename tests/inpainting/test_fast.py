"""The fast way of running E2FGVI: against the published one, and at any length and size."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from inpainting.e2fgvi import E2FGVI, SMALL
from inpainting.e2fgvi_fast import FastE2FGVI
from inpainting.fast import FastInpainter
from inpainting.published import PublishedInpainter
from media import InputError
from tests.inpainting.conftest import Clip, moving_hole, texture

EQUAL = {"crop": False, "match": False, "num_ref": -1, "precision": "float32", "dilate": 0}


def build(network: E2FGVI, **options: object) -> FastInpainter:
    return FastInpainter(network, **{"precision": "float32", **options})  # type: ignore[arg-type]


def far_from(hole: np.ndarray, pixels: int) -> np.ndarray:
    ys, xs = np.nonzero(hole)
    y, x = np.mgrid[: hole.shape[0], : hole.shape[1]]
    away = np.maximum(abs(y - y.clip(ys.min(), ys.max())), abs(x - x.clip(xs.min(), xs.max())))
    return away > pixels


def test_equals_the_published_protocol(small: E2FGVI) -> None:
    """13 frames, three windows that overlap, references, and a border that is mirrored."""
    clip = moving_hole(13, (50, 100))
    clip.holes[3][:] = False
    published = PublishedInpainter(small, dilate=0)
    expected = np.stack(list(published.inpaint(clip, clip.holes))).astype(int)
    found = np.stack(list(build(small, **EQUAL).inpaint(clip, clip.holes)))
    off = np.abs(found - expected)
    assert off.max() <= 1  # truncated on either side of a whole number
    assert (off > 0).mean() < 1e-3
    once = build(small, **{**EQUAL, "once": True})
    off = np.abs(np.stack(list(once.inpaint(clip, clip.holes))) - expected)
    assert off.max() > 1


def test_paints_the_holes_and_nothing_else_at_any_size(small: E2FGVI) -> None:
    for size in ((30, 40), (90, 130), (300, 180)):
        clip = moving_hole(3, size, speed=3) if size[1] > 60 else tiny()
        clip.holes[1][:] = False
        inpainter = build(small, dilate=3)
        result = list(inpainter.inpaint(clip, clip.holes))
        for frame, source, hole in zip(result, clip.frames, clip.holes, strict=True):
            assert frame.shape == source.shape and frame.flags.c_contiguous
            if not hole.any():
                np.testing.assert_array_equal(frame, source)
                continue
            np.testing.assert_array_equal(frame[far_from(hole, 3)], source[far_from(hole, 3)])
            assert (frame[hole] != source[hole]).any(axis=-1).mean() > 0.9
        assert inpainter.notes == []


def tiny() -> Clip:
    hole = np.zeros((30, 40), bool)
    hole[10:20, 15:25] = True
    truth = [texture(30, 40, i).astype(np.uint8) for i in range(3)]
    return Clip(truth, [hole.copy() for _ in truth])


def test_large_holes_are_painted_at_the_resolution_asked_for_and_that_is_said(
    small: E2FGVI,
) -> None:
    clip = moving_hole(1, (300, 500))
    clip.holes[0][20:280, 30:460] = True
    inpainter = build(small, dilate=0, resolution=108)
    (result,) = inpainter.inpaint(clip, clip.holes)
    hole = clip.holes[0]
    np.testing.assert_array_equal(result[~hole], clip.frames[0][~hole])
    assert len(inpainter.notes) == 1
    assert "% of the frames' size" in inpainter.notes[0]


def test_a_part_equals_the_whole(small: E2FGVI) -> None:
    clip = moving_hole(40, (60, 108), speed=1)
    for index, hole in enumerate(clip.holes):
        hole &= index in (3, 30, 31)
    options = {"num_ref": 1, "step": 30, "neighbor_stride": 2}
    whole = list(build(small, **options).inpaint(clip, clip.holes))
    part = list(build(small, **options).inpaint(clip, clip.holes, start=31, stop=33))
    np.testing.assert_array_equal(part, whole[31:33])


def test_holes_that_move_far_are_not_seen_from_afar(small: E2FGVI) -> None:
    """Windows share a view while that costs little; a fast object gets one that goes with it."""
    near = moving_hole(40, (72, 1000), speed=0)
    fast = moving_hole(40, (72, 1000), speed=22)
    for clip, views in ((near, 1), (fast, 3)):
        seen: set[object] = set()
        inpainter = build(small)
        share = inpainter._share

        def note(windows, scout, seen=seen, inpainter=inpainter, share=share):  # type: ignore[no-untyped-def]
            groups = share(windows, scout)
            if len(groups) == 1:
                seen.add(inpainter._view(groups[0], scout))
            return groups

        inpainter._share = note  # type: ignore[method-assign]
        inpainter._network.paint = lambda picture, local, references, boxes: {  # type: ignore[method-assign]
            i: torch.zeros(3, *box.size) for i, box in boxes.items()
        }
        list(inpainter.inpaint(clip, clip.holes))
        assert len(seen) >= views
        assert (len(seen) == 1) == (views == 1)


def test_shots_do_not_mix(small: E2FGVI) -> None:
    """What the second shot shows has no influence on the first."""
    hole = np.zeros((60, 108), bool)
    hole[20:40, 40:70] = True
    first = [np.roll(texture(60, 108, 1).astype(np.uint8), i, 1) for i in range(4)]
    results = []
    for seed in (2, 3):
        second = [np.roll(texture(60, 108, seed).astype(np.uint8), i, 1) for i in range(4)]
        result = list(build(small, step=2).inpaint(first + second, [hole] * 8))
        results.append(result[:4])
    np.testing.assert_array_equal(*results)


def test_memory_does_not_grow_with_the_clip(small: E2FGVI) -> None:
    """Nothing of what was painted is kept, and little of what lies ahead."""
    kept: dict[int, list[int]] = {}
    for length in (130, 390):
        clip = moving_hole(length, (60, 108))
        inpainter = build(small, step=30, num_ref=2)
        network = inpainter._network
        network.paint = lambda picture, local, references, boxes: {  # type: ignore[method-assign]
            i: torch.zeros(3, *box.size) for i, box in boxes.items()
        }
        run = inpainter.inpaint(clip, clip.holes)
        assert inspect.isgenerator(run)
        next(run)
        while (ahead := max(clip.asked)) < length - 1:
            next(run)
        state = run.gi_frame.f_locals  # type: ignore[attr-defined]
        kept[length] = [len(state["scout"].sights), len(state["painter"]._shots), ahead]
        assert len(state["painter"]._shots) <= 11
    assert kept[390][0] <= kept[130][0] + 150
    assert kept[390][1] <= 11


def test_all_references_of_a_long_clip_on_request(small: E2FGVI) -> None:
    clip = moving_hole(160, (60, 108))
    for index, hole in enumerate(clip.holes):
        hole &= index == 155
    inpainter = build(small, num_ref=-1, step=50)
    asked: list[tuple[int, ...]] = []

    def paint(picture, local, references, boxes):  # type: ignore[no-untyped-def]
        asked.append(references)
        return {i: torch.zeros(3, *box.size) for i, box in boxes.items()}

    inpainter._network.paint = paint  # type: ignore[method-assign]
    assert len(list(inpainter.inpaint(clip, clip.holes))) == 160
    assert set(asked) <= {(0, 50, 100), (0, 50, 100, 150)} and asked


def test_where_memory_is_short_the_size_is_halved_and_that_is_said(
    small: E2FGVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = moving_hole(3, (300, 500))
    for hole in clip.holes:
        hole[20:280, 30:460] = True
    paint, tried = FastE2FGVI.paint, []

    def short(self, picture, local, references, boxes):  # type: ignore[no-untyped-def]
        size = max(picture(local[0]).shape)
        tried.append(size)
        if size > 250:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return paint(self, picture, local, references, boxes)

    monkeypatch.setattr(FastE2FGVI, "paint", short)
    inpainter = build(small, dilate=0)
    result = list(inpainter.inpaint(clip, clip.holes))
    assert tried == [432, 216]
    assert len(result) == 3
    for frame, source, hole in zip(result, clip.frames, clip.holes, strict=True):
        np.testing.assert_array_equal(frame[~hole], source[~hole])
    assert "from frame 0 on the network works at" in inpainter.notes[-1]
    monkeypatch.undo()
    again = list(inpainter.inpaint(clip, clip.holes))
    np.testing.assert_array_equal(again, list(build(small, dilate=0).inpaint(clip, clip.holes)))


def test_where_even_the_least_size_is_too_much_the_user_is_told(
    small: E2FGVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FastE2FGVI, "paint", fail)
    clip = moving_hole(2)
    with pytest.raises(InputError, match=r"2 frames of 108x120 pixels.*num_ref"):
        list(build(small, resolution=100).inpaint(clip, clip.holes))


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("mode", [FastInpainter, PublishedInpainter])
def test_bad_input(small: E2FGVI, mode: type[FastInpainter] | type[PublishedInpainter]) -> None:
    clip = moving_hole(3, (60, 108))
    inpainter = mode(small)
    with pytest.raises(InputError, match="3 frames but 2 masks"):
        inpainter.inpaint(clip, clip.holes[:2])
    with pytest.raises(InputError, match="mask of frame 2 is 40x30"):
        list(inpainter.inpaint(clip, [*clip.holes[:2], np.ones((30, 40), bool)]))
    with pytest.raises(InputError, match="nothing to paint from"):
        list(inpainter.inpaint(clip, [np.ones((60, 108), bool)] * 3))
    none = [np.zeros((60, 108), bool)] * 3
    np.testing.assert_array_equal(list(inpainter.inpaint(clip, none)), clip.frames)
    one = next(iter(inpainter.inpaint(clip.frames[:1], clip.holes[:1])))
    assert (one != clip.frames[0]).any()


def test_a_frame_that_is_covered_is_painted_from_its_neighbours(small: E2FGVI) -> None:
    clip = moving_hole(3, (60, 108))
    clip.holes[1][:] = True
    result = list(build(small).inpaint(clip, clip.holes))
    assert (result[1] != clip.frames[1]).any()


@pytest.mark.parametrize(
    ("option", "value"),
    [("step", 0), ("num_ref", -2), ("neighbor_stride", 0), ("dilate", -1), ("resolution", 0)],
)
def test_options_out_of_range_are_refused(small: E2FGVI, option: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{option} is {value}"):
        build(small, **{option: value})


def test_precisions_that_there_are_not_are_refused(small: E2FGVI) -> None:
    with pytest.raises(InputError, match="no precision 'float8'"):
        build(small, precision="float8")


def test_the_network_of_one_size_paints_what_is_round_the_hole() -> None:
    torch.manual_seed(0)
    network = E2FGVI((240, 432), SMALL).eval().requires_grad_(False)
    clip = moving_hole(1, (300, 600))
    (result,) = build(network, dilate=0, precision="float32").inpaint(clip, clip.holes)
    hole = clip.holes[0]
    np.testing.assert_array_equal(result[~hole], clip.frames[0][~hole])
    assert (result[hole] != clip.frames[0][hole]).any()
