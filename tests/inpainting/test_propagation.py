from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoints
from inpainting import build_inpainter, list_inpainters
from inpainting.compositing import diffuse
from inpainting.propagation import (
    FEATURES,
    Evidence,
    Generator,
    PropagationInpainter,
    camera_motion,
    complete,
    mix,
)
from inpainting.spynet import SPyNet
from media import InputError
from tests.inpainting.conftest import Clip, Still, moving_hole, psnr, texture


def build(network: SPyNet | None = None, **options: int | bool | None) -> PropagationInpainter:
    """Without MI-GAN and without growing the masks, unless told; for a camera that stands still."""
    options = {"dilate": 0, "reach": 10, **options}
    return PropagationInpainter(Still() if network is None else network, **options)  # type: ignore[arg-type]


def run(inpainter: PropagationInpainter, clip: Clip, **options: int) -> list[np.ndarray]:
    return list(inpainter.inpaint(clip, clip.holes, **options))


def psnr_in_holes(frames: list[np.ndarray], clip: Clip) -> float:
    parts = [(f[h], t[h]) for f, t, h in zip(frames, clip.truth, clip.holes, strict=True)]
    found, true = (np.concatenate(side) for side in zip(*parts, strict=True))
    return psnr(found, true)


@pytest.mark.parametrize(("pan", "least"), [((0, 0), 40), ((3, 0), 32), ((2, 3), 32)])
def test_what_other_frames_show_comes_back(
    spynet: SPyNet, pan: tuple[int, int], least: float
) -> None:
    clip = moving_hole(9, pan=pan)
    inpainter = build(spynet)
    result = run(inpainter, clip)
    assert psnr_in_holes(result, clip) > least
    assert len(result) == len(clip)
    for frame, source, hole in zip(result, clip.frames, clip.holes, strict=True):
        np.testing.assert_array_equal(frame[~hole], source[~hole])
    if pan == (0, 0):
        assert inpainter.notes == []


def test_what_the_holes_show_has_no_say(spynet: SPyNet) -> None:
    clip, other = moving_hole(4, pan=(2, 0)), moving_hole(4, pan=(2, 0))
    for frame, hole in zip(other.frames, other.holes, strict=True):
        frame[hole] = 0
    for one, two in zip(run(build(spynet), clip), run(build(spynet), other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_sources_are_left_alone_and_read_once_in_order() -> None:
    """Memory: never more than `reach + block` frames ahead of the one that is given out."""
    clip = moving_hole(20)
    before = [frame.copy() for frame in clip.frames]
    ahead = []
    for index, _ in enumerate(build(reach=4, block=2).inpaint(clip, clip.holes)):
        ahead.append(max(clip.asked) - index)
    assert clip.asked == list(range(20))
    assert max(ahead) <= 4 + 2 - 1
    for frame, source in zip(clip.frames, before, strict=True):
        np.testing.assert_array_equal(frame, source)


def test_the_window_forgets() -> None:
    """Memory again: what is alive, frames that were given out included, is bounded."""
    import weakref

    size, alive, most = (48, 64), [], 0
    hole = np.zeros(size, bool)
    hole[20:30, 20:30] = True

    class Endless:
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> np.ndarray:
            nonlocal most
            frame = np.full((*size, 3), index, np.uint8)
            alive.append(weakref.ref(frame))
            most = max(most, sum(reference() is not None for reference in alive))
            return frame

    for _ in build(reach=3, block=2).inpaint(Endless(), [hole] * 40):
        pass
    assert most <= 3 + 2 + 1


def test_parts_of_a_clip_equal_the_whole() -> None:
    """Where the cut lies makes no difference at all to what is carried from other frames."""
    clip = moving_hole(16)
    whole = run(build(reach=5), clip)
    for start, stop, block in ((0, 6, 8), (6, 16, 3), (9, 10, 1)):
        part = run(build(reach=5, block=block), clip, start=start, stop=stop)
        assert len(part) == stop - start
        for frame, expected in zip(part, whole[start:stop], strict=True):
            np.testing.assert_array_equal(frame, expected)


def test_frames_without_a_mask_come_back_as_they_are() -> None:
    clip = moving_hole(9)
    lost = [0, 3, 4, 8]
    empty = np.zeros_like(clip.holes[0])
    clip = Clip(clip.truth, [empty if i in lost else h for i, h in enumerate(clip.holes)])
    result = run(build(dilate=None), clip)
    for index in lost:
        np.testing.assert_array_equal(result[index], clip.frames[index])
    assert psnr_in_holes(result, clip) > 35


@pytest.mark.parametrize("gap", [4, 5, 8, 9])
def test_what_is_gone_for_long_may_come_back(gap: int) -> None:
    """Whole blocks without a mask, and a mask on the first frame after them."""
    clip = moving_hole(gap + 6)
    empty = np.zeros_like(clip.holes[0])
    holes = [h if i < 2 or i >= 2 + gap else empty for i, h in enumerate(clip.holes)]
    clip = Clip(clip.truth, holes)
    result = run(build(reach=4, block=2), clip)
    assert len(result) == len(clip)
    assert psnr_in_holes(result, clip) > 35


def test_no_masks_at_all() -> None:
    clip = moving_hole(5)
    clip = Clip(clip.truth, [np.zeros_like(hole) for hole in clip.holes])
    inpainter = build()
    for frame, source in zip(run(inpainter, clip), clip.frames, strict=True):
        np.testing.assert_array_equal(frame, source)
    assert inpainter.notes == []


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [(80, 112), (40, 70)])
def test_very_short_clips(count: int, size: tuple[int, int]) -> None:
    clip = moving_hole(count, size)
    inpainter = build()
    result = run(inpainter, clip)
    assert len(result) == count
    noise = psnr_in_holes(clip.frames, clip)
    assert psnr_in_holes(result, clip) > noise + 5
    assert "invented" in inpainter.notes[0]


def test_never_seen_pixels_do_not_flicker() -> None:
    """A hole that stands still before a still camera: invented once, kept for good."""
    clip = moving_hole(20, speed=0)
    inpainter = build(reach=4, block=4)
    result = run(inpainter, clip)
    assert inpainter.notes[0].startswith("100 %")
    assert "fetch migan" in inpainter.notes[1]
    for frame in result[1:]:
        np.testing.assert_array_equal(frame, result[0])


def test_masks_are_grown_and_the_seam_lies_inside() -> None:
    clip = moving_hole(8)
    result = run(build(dilate=6), clip)
    for frame, source, hole in zip(result, clip.frames, clip.holes, strict=True):
        ys, xs = np.nonzero(hole)
        outside = np.ones_like(hole)
        outside[ys.min() - 6 : ys.max() + 7, xs.min() - 6 : xs.max() + 7] = False
        np.testing.assert_array_equal(frame[outside], source[outside])
    assert psnr_in_holes(result, clip) > 40


def test_whole_frames_masked() -> None:
    clip = moving_hole(7)
    full = np.ones_like(clip.holes[0])
    empty = np.zeros_like(full)
    clip = Clip(clip.truth, [full if i in (2, 3) else empty for i in range(7)])
    assert psnr_in_holes(run(build(), clip), clip) > 60
    # Further away than anything that is looked at: shown as the nearest frame that there is.
    clip = Clip(clip.truth, [empty, *[full] * 6])
    assert psnr_in_holes(run(build(reach=2, block=2), clip), clip) > 60
    with pytest.raises(InputError, match="Every mask covers its whole frame"):
        run(build(), Clip(clip.truth, [full] * 7))


def test_what_does_not_fit_is_refused() -> None:
    clip = moving_hole(3)
    with pytest.raises(InputError, match="3 frames but 2 masks"):
        build().inpaint(clip, clip.holes[:2])
    with pytest.raises(InputError, match="mask of frame 1 is 40x30"):
        list(build().inpaint(clip, [clip.holes[0], np.ones((30, 40), bool), clip.holes[2]]))
    with pytest.raises(InputError, match="range 4"):
        build().inpaint(clip, clip.holes, start=4)
    with pytest.raises(InputError, match="dilate"):
        build(dilate=-1)
    assert list(build().inpaint(clip, clip.holes, start=3)) == []


def test_flow_in_the_hole_is_the_cameras() -> None:
    """Zoom and rotation round the middle, hidden where they are strongest to guess."""
    ys, xs = np.mgrid[:80, :120].astype(np.float32)
    flow = np.stack((0.05 * (xs - 60) - 0.02 * (ys - 40), 0.02 * (xs - 60)), axis=-1)
    hole = np.zeros((80, 120), bool)
    hole[10:70, 30:90] = True
    random = np.random.default_rng(0)
    damaged = np.where(hole[..., None], random.normal(0, 9, flow.shape), flow).astype(np.float32)
    assert np.abs(complete(damaged, hole)[..., :2] - flow).max() < 0.05
    damaged[70:, 40:70] = 6  # a shadow at the hole's border that moves by itself
    background = complete(damaged, hole)
    assert np.abs(background[..., :2] - flow).max() < 0.05
    assert background[77, 55, 2] > 4  # and is known for it
    assert background[40, 60, 2] == 0
    assert background[5, 5, 2] < 0.1
    assert camera_motion(flow, np.zeros_like(hole)) is None


@pytest.fixture(scope="module")
def generator() -> Generator:
    """MI-GAN with its real weights."""
    path = checkpoints.find("migan")
    if path is None:
        message = "needs MI-GAN: python -m checkpoints fetch migan"
        if os.environ.get("CI") == "true" and shutil.which("npm"):
            pytest.fail(message)
        pytest.skip(message)
    return Generator(path, torch.device("cpu"))


def test_generator_leaves_no_rim(generator: Generator) -> None:
    """What the hole showed must not shine through at its border."""
    clip = moving_hole(2, speed=0)
    black = [np.where(h[..., None], 0, f) for f, h in zip(clip.frames, clip.holes, strict=True)]
    white = [np.where(h[..., None], 255, f) for f, h in zip(clip.frames, clip.holes, strict=True)]
    inpainter = PropagationInpainter(Still(), generator, dilate=0)
    one = [frame.copy() for frame in inpainter.inpaint(black, clip.holes)]
    two = [frame.copy() for frame in inpainter.inpaint(white, clip.holes)]
    np.testing.assert_array_equal(one, two)
    assert len(inpainter.notes) == 1
    inside = one[0][clip.holes[0]]
    assert 5 < inside.mean() < 250
    assert inside.std() > 5  # a texture, not a flat colour


def test_what_is_invented_is_softened_where_the_mean_is_asked_for(generator: Generator) -> None:
    clip = moving_hole(1)
    frame, hole = clip.frames[0], clip.holes[0]
    start = diffuse(np.where(hole[..., None], 0, frame).astype(np.float32), ~hole)
    sharp = generator(frame, hole)[hole].astype(np.float32)
    soft = generator(frame, hole, sharp=False)[hole].astype(np.float32)
    assert np.abs(soft - (sharp + start[hole]) / 2).max() <= 1
    assert np.abs(soft - sharp).max() > 3


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_generator_gives_its_memory_back(generator: Generator) -> None:
    """It works in 300 MB. Kept for each size of picture, they would grow with the clip."""

    def resident() -> float:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    before = resident()
    for side in (120, 135):
        generator(np.zeros((side, side, 3), np.uint8), np.eye(side, dtype=bool))
        assert resident() - before < 150


def test_nothing_is_kept_for_every_frame() -> None:
    """Memory: flow, motion, places and records of frames that are done are gone as well."""
    size = (48, 64)
    hole = np.zeros(size, bool)
    hole[20:30, 20:30] = True

    class Endless:
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> np.ndarray:
            return np.full((*size, 3), index % 64, np.uint8)

    class Holes(Endless):
        def __getitem__(self, index: int) -> np.ndarray:
            return np.roll(hole, index % 6, axis=1)

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in build(reach=3, block=2).inpaint(Endless(count), Holes(count)):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(12)  # makes what is made once
    short = min(peak(12) for _ in range(2))
    # One mask kept for each frame makes it 1.07 each time; now and then something else comes in
    # between, and that goes again.
    assert any(peak(48) < 1.03 * short for _ in range(5))


def test_is_in_the_list_and_says_which_file_is_missing(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "propagation" in list_inpainters()
    with pytest.raises(InputError, match="propagation"):
        build_inpainter("magic")
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(tmp_path))
    with pytest.raises(checkpoints.CheckpointError, match="spynet"):
        build_inpainter("propagation")


def passing_thing(count: int = 12) -> Clip:
    """A textured block moves right over a still texture, behind a hole that stands in its way."""
    canvas, block = texture(96, 160), texture(40, 44, seed=7)
    truth = []
    for i in range(count):
        frame = canvas.copy()
        frame[30:70, 12 + 8 * i : 56 + 8 * i] = block
        truth.append(frame.round().astype(np.uint8))
    hole = np.zeros((96, 160), bool)
    hole[36:64, 70:86] = True
    return Clip(truth, [hole] * count)


def test_what_passes_in_front_goes_on_behind_the_hole(spynet: SPyNet) -> None:
    clip = passing_thing()
    for sharp, least in ((True, 17), (False, 19)):
        result = run(build(spynet, sharp=sharp), clip)
        # While the block fills the hole; the background found instead would be another texture.
        inside = slice(3, 7)
        parts = [(f[h], t[h]) for f, t, h in zip(result, clip.truth, clip.holes, strict=True)]
        found, true = (np.concatenate(side) for side in zip(*parts[inside], strict=True))
        background = np.concatenate([clip.truth[0][h] for h in clip.holes[inside]])
        assert psnr(found, true) > psnr(background, true) + 4
        assert psnr(found, true) > least


@pytest.mark.parametrize("shadow", [False, True])
def test_a_shadow_goes_with_what_casts_it(shadow: bool) -> None:
    clip = moving_hole(10)
    shaded = []
    for frame, hole in zip(clip.frames, clip.holes, strict=True):
        ys, xs = np.nonzero(hole)
        dark = frame.copy()
        dark[ys.max() + 1 : ys.max() + 11, xs.min() : xs.max() + 1] //= 2
        far = np.s_[2:8, 90:96]  # something else that is dark in this frame only
        dark[far] //= 2 if len(shaded) == 5 else 1
        shaded.append(dark)
    result = list(build(shadow=shadow, reach=10).inpaint(shaded, clip.holes))
    for frame, dark, truth, hole in zip(result, shaded, clip.truth, clip.holes, strict=True):
        ys, xs = np.nonzero(hole)
        under = np.s_[ys.max() + 1 : ys.max() + 11, xs.min() : xs.max() + 1]
        if shadow:
            assert psnr(frame[under], truth[under]) > psnr(dark[under], truth[under]) + 6
        else:
            np.testing.assert_array_equal(frame[~hole], dark[~hole])
        np.testing.assert_array_equal(frame[2:8, 90:96], dark[2:8, 90:96])


def test_nothing_is_carried_across_a_cut(spynet: SPyNet) -> None:
    first, second = moving_hole(6), moving_hole(6)
    second = Clip([255 - f[::-1] for f in second.truth], second.holes)
    clip = Clip(first.truth + second.truth, first.holes + second.holes)
    whole = run(build(spynet, block=12), clip)
    alone = run(build(spynet, block=6), first)
    for frame, expected in zip(whole[:6], alone, strict=True):
        np.testing.assert_array_equal(frame, expected)


def test_a_sharp_mixture_takes_sides_and_an_expected_one_does_not() -> None:
    colours = np.zeros((1, 5, 3), np.float32)
    colours[0, :, 0] = (10, 200, 0, 0, 100)
    features = np.zeros((1, 4, FEATURES), np.float32)
    features[0, :2, 0] = (1.0, 0.5)
    features[0, :2, 2] = 2  # they disagree
    weights = np.zeros((2, FEATURES))
    weights[:, 0] = 1
    found = np.array([[True, True, False, False]])
    evidence = Evidence(np.zeros((1, 2), int), colours, features, found)
    assert mix(evidence, sharp=True, weights=weights)[0, 0] == pytest.approx(10, abs=1)
    odds = np.exp([1.0, 0.5, 0.0])
    mean = float(odds @ (10, 200, 100) / odds.sum())
    assert mix(evidence, sharp=False, weights=weights)[0, 0] == pytest.approx(mean, abs=1e-3)
    evidence.found[:] = False
    for sharp in (True, False):
        assert mix(evidence, sharp=sharp)[0, 0] == 100


@pytest.mark.parametrize(("asked", "longer"), [(None, 300), (60, 60), (1000, 300)])
def test_the_flow_is_as_large_as_asked_for(asked: int | None, longer: int) -> None:
    seen: list[tuple[int, ...]] = []

    class Watched(Still):
        def forward(
            self, reference: torch.Tensor, support: torch.Tensor, *, levels: int = 6
        ) -> torch.Tensor:
            seen.append(tuple(reference.shape[2:]))
            return super().forward(reference, support)

    clip = moving_hole(3, (100, 300))
    for hole in clip.holes:
        hole[30:60, 20:280] = True
    inpainter = PropagationInpainter(Watched(), dilate=0, resolution=asked)
    list(inpainter.inpaint(clip, clip.holes))
    assert seen and {max(size) for size in seen} == {longer}
    with pytest.raises(InputError, match="resolution is 0"):
        PropagationInpainter(Watched(), resolution=0)
