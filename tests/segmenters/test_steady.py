from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from segmenters import Candidate
from segmenters.cleanup import choose_candidate
from segmenters.steady import BOX_MARGIN, HELD, Steadier, _enlarge, boxes_to_ask

SIZE = (120, 200)
WHOLE = (0, 0, 200, 120)


def textured(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def disk(x: float = 80, y: float = 60, radius: float = 30) -> np.ndarray:
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    return (xx - x) ** 2 + (yy - y) ** 2 <= radius**2


def candidate(
    mask: np.ndarray, score: float = 0.9, sure: float = 8, window: Any = WHOLE
) -> Candidate:
    """A mask, and the logits a model that is so sure would have for it."""
    x0, y0, x1, y1 = window
    part = mask[y0:y1, x0:x1].astype(np.float32)
    logits = np.full((256, 256), -sure, np.float32)
    scale = 256 / max(part.shape)
    rows, columns = round(part.shape[0] * scale), round(part.shape[1] * scale)
    logits[:rows, :columns] = sure * (2 * cv2.resize(part, (columns, rows)) - 1)
    return Candidate(mask, score, logits)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def moved(picture: np.ndarray, dx: int) -> np.ndarray:
    return np.roll(picture, dx, axis=1)


def test_the_first_mask_is_the_chosen_candidate_as_it_is() -> None:
    whole = disk()
    whole[5:12, 5:12], whole[60, 80] = True, False  # an island and a pinhole
    settled = Steadier().settle(textured(), [candidate(whole), candidate(disk(radius=9), 0.8)])
    assert (settled.mask == whole).all()
    assert settled.score == 0.9 and np.isnan(settled.agreement) and not settled.doubtful


@pytest.mark.parametrize("inertia", [0.6, 0.0])
def test_a_speck_is_not_shown_until_it_has_grown(inertia: float) -> None:
    frame, box = textured(), np.array([50, 30, 111, 91], np.float32)
    steadier = Steadier(inertia=inertia)
    for side in (3, 3, 8, 8, 8):  # 9 of the disk's 2821 pixels are less than a two-hundredth
        mask = disk()
        mask[5 : 5 + side, 165 : 165 + side] = True
        settled = steadier.settle(frame, [candidate(mask)], box=box)
        if side == 3:
            assert not settled.mask[:, 150:].any() and settled.agreement > 0.95
    assert settled.mask[5:13, 165:173].mean() > 0.8


def test_a_speck_that_is_not_shown_is_known_of() -> None:
    """What comes out from behind a tree begins as one."""
    frame, speck = textured(), disk(170, 40, 2)
    steadier = Steadier()
    for _ in range(2):
        assert not steadier.settle(frame, [candidate(disk() | speck)]).mask[:, 150:].any()
    unsure = candidate(np.zeros(SIZE, bool))
    unsure.logits[candidate(speck).logits > -8] = -1
    for _ in range(2):
        left = steadier.settle(frame, [unsure]).mask  # the disk has gone behind something
    assert iou(left, speck) > 0.5


def test_the_tracked_box_does_not_choose() -> None:
    frame, whole, part = textured(), disk(), disk(radius=15)
    both = [candidate(whole, 0.95), candidate(part, 0.9)]
    steadier = Steadier()
    for _ in range(2):
        settled = steadier.settle(frame, both, box=np.array([65, 45, 96, 76], np.float32))
        assert iou(settled.mask, whole) > 0.95 and settled.doubtful


def test_a_part_that_the_model_is_unsure_of_for_one_frame_stays() -> None:
    frame, whole = textured(), disk()
    half = whole & (np.arange(200) < 80)
    unsure = candidate(whole)
    unsure.logits[:, 102:] = np.minimum(unsure.logits[:, 102:], -1)  # the right half drops out
    unsure = Candidate(half, 0.9, unsure.logits)
    steadier = Steadier()
    steadier.settle(frame, [candidate(whole)])
    assert iou(steadier.settle(frame, [unsure]).mask, whole) > 0.95
    # The same without inertia, and from a model that is sure for long enough:
    plain = Steadier(inertia=0)
    plain.settle(frame, [candidate(whole)])
    assert (plain.settle(frame, [unsure]).mask == half).all()
    for _ in range(4):
        last = steadier.settle(frame, [candidate(half)]).mask
    assert iou(last, half) > 0.95


def test_a_moving_object_leaves_no_trail() -> None:
    steadier = Steadier()
    for shift in range(0, 60, 12):
        frame, mask = moved(textured(), shift), moved(disk(50), shift)
        found = steadier.settle(frame, [candidate(mask)]).mask
        assert iou(found, mask) > 0.96


def test_where_the_picture_is_new_the_new_frame_decides() -> None:
    steadier = Steadier()
    steadier.settle(textured(0), [candidate(disk(40))])
    other = disk(150)
    found = steadier.settle(textured(1), [candidate(other, sure=3)]).mask  # another shot
    assert iou(found, other) > 0.85  # some of the noise looks alike by chance


def test_the_candidate_that_agrees_with_the_frame_before_wins() -> None:
    frame, whole, part = textured(), disk(), disk(radius=15)
    steadier = Steadier()
    steadier.settle(frame, [candidate(part)])
    both = [candidate(whole, 0.95), candidate(part, 0.9)]
    assert choose_candidate(both).mask.sum() == whole.sum()  # alone, the whole
    assert iou(steadier.settle(frame, both).mask, part) > 0.9
    # It is looked for where it went to, not where it was.
    here, there = disk(60, radius=6), disk(73, radius=6)
    steadier = Steadier()
    steadier.settle(frame, [candidate(here)])
    both = [candidate(here, 0.92), candidate(there, 0.9)]
    assert iou(steadier.settle(moved(frame, 13), both).mask, there) > 0.8


def test_a_given_mask_is_held() -> None:
    frame, given = textured(), disk(radius=20)
    steadier = Steadier()
    steadier.hold(frame, given)
    both = [candidate(disk(), 0.95), candidate(given, 0.9)]
    assert iou(steadier.settle(frame, both).mask, given) > 0.93


def test_what_is_forgotten_has_no_effect() -> None:
    frame = textured()
    steadier = Steadier()
    steadier.settle(frame, [candidate(disk(40))])
    steadier.forget()
    found = steadier.settle(frame, [candidate(disk(120), sure=0.5)]).mask
    assert (found == disk(120)).all()


@pytest.mark.parametrize(
    ("x", "agreement", "doubtful"),
    [(80, 1.0, False), (95, 0.6, False), (125, 0.15, True), (170, 0.0, True)],
)
def test_a_mask_far_from_the_track_is_doubtful(x: int, agreement: float, doubtful: bool) -> None:
    box = np.array([50, 30, 111, 91], np.float32)
    settled = Steadier().settle(textured(), [candidate(disk(x))], box=box)
    assert settled.agreement == pytest.approx(agreement, abs=0.02)
    assert settled.doubtful == doubtful


def test_an_empty_mask_is_doubtful() -> None:
    settled = Steadier().settle(
        textured(), [candidate(np.zeros(SIZE, bool))], box=np.array([50, 30, 110, 90])
    )
    assert not settled.mask.any() and settled.doubtful and settled.agreement == 0


def test_a_jump_to_what_was_seen_not_to_be_the_object_is_not_believed() -> None:
    frame, elsewhere = textured(), disk(160, 60, 25)
    steadier = Steadier()
    steadier.settle(frame, [candidate(disk())])
    for _ in range(HELD):
        held = steadier.settle(frame, [candidate(elsewhere)])
        assert held.doubtful and iou(held.mask, disk()) > 0.95
    found = steadier.settle(frame, [candidate(disk())])
    assert not found.doubtful and iou(found.mask, disk()) > 0.95


def test_what_is_found_later_is_no_jump() -> None:
    frame, steadier = textured(), Steadier()
    steadier.settle(frame, [candidate(np.zeros(SIZE, bool))])
    for _ in range(8):
        settled = steadier.settle(frame, [candidate(disk())])
        assert not settled.doubtful
    assert iou(settled.mask, disk()) > 0.95


def test_a_tracker_that_insists_is_believed() -> None:
    frame, elsewhere = textured(), disk(160, 60, 25)
    steadier = Steadier()
    steadier.settle(frame, [candidate(disk())])
    for _ in range(HELD):
        steadier.settle(frame, [candidate(elsewhere)])
    for _ in range(8):
        settled = steadier.settle(frame, [candidate(elsewhere)])
    assert not settled.doubtful and iou(settled.mask, elsewhere) > 0.95


def test_each_frame_by_itself_knows_of_no_jump() -> None:
    frame, elsewhere = textured(), disk(160, 60, 25)
    steadier = Steadier(inertia=0)
    steadier.settle(frame, [candidate(disk())])
    settled = steadier.settle(frame, [candidate(elsewhere)])
    assert not settled.doubtful and (settled.mask == elsewhere).all()


def test_what_has_left_the_picture_is_not_found_in_what_stands_there() -> None:
    still, thing, elsewhere = textured(), textured(1), disk(150, 60, 25)

    def frame(x: float) -> np.ndarray:
        shown = still.copy()
        shown[disk(x)] = np.roll(thing, round(x), axis=1)[disk(x)]
        return shown

    steadier = Steadier()
    for x in range(60, -30, -6):
        seen = steadier.settle(frame(x), [candidate(disk(x))])
    assert 0 < seen.mask.sum() < 500
    for _ in range(HELD + 10):  # for good, not for a while
        settled = steadier.settle(frame(-60), [candidate(elsewhere)])
        assert settled.doubtful and not settled.mask.any()
    for x in range(-24, 60, 6):
        back = steadier.settle(frame(x), [candidate(disk(x))])
    assert not back.doubtful and iou(back.mask, disk(54)) > 0.9


def test_windows_may_move_from_frame_to_frame() -> None:
    frame, mask = textured(), disk(80, 60, 14)
    steadier = Steadier()
    weak = {"sure": 3.0}
    for window in [(40, 20, 120, 100), (55, 35, 115, 95), (30, 10, 130, 110), WHOLE]:
        one = candidate(mask, window=window, **weak)
        settled = steadier.settle(frame, [one], window=window).mask
        assert iou(settled, mask) > 0.93
        before = steadier._before
        assert before is not None and before.window == window
    # What lay outside of the window before is not known to be background.
    far = disk(170, 60, 14)
    steadier.settle(frame, [candidate(mask, window=(40, 20, 120, 100))], window=(40, 20, 120, 100))
    found = steadier.settle(frame, [candidate(far, sure=1)]).mask
    assert found[far].mean() > 0.95


def test_frames_are_left_alone() -> None:
    frame = textured()
    frame.flags.writeable = False
    steadier = Steadier()
    one = candidate(disk())
    one.logits.flags.writeable = False
    steadier.settle(frame, [one])
    steadier.settle(frame, [one])


@pytest.mark.parametrize("size", [(90, 160), (120, 97), (300, 400), (64, 1100)], ids=str)
def test_logits_are_enlarged_as_the_model_does(small_sam: Sam, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    logits = cv2.GaussianBlur(noise, (0, 0), 6)
    scale = 1024 / max(size)
    resized = (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))
    expected = small_sam.postprocess_masks(torch.as_tensor(logits)[None, None], resized, size)
    ours = _enlarge(logits, (0, 0, size[1], size[0]), size)
    assert (ours != (expected[0, 0].numpy() > 0)).mean() < 1e-3


def test_boxes_that_are_asked_about_stay_inside_the_frame() -> None:
    larger, own = boxes_to_ask(np.array([-4, 20, 100, 60]), SIZE)
    assert larger == pytest.approx([0, 20 - 40 * BOX_MARGIN, 100 + 104 * BOX_MARGIN, 62])
    assert own.tolist() == [0, 20, 100, 60]
    assert larger.dtype == own.dtype == np.float32
