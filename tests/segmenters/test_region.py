from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from media import InputError
from segmenters import Candidate, Prompt
from segmenters.region import (
    CONTEXT,
    SMALL,
    STEP,
    answer,
    choose_window,
    is_within,
    look,
    predict,
)
from segmenters.sam import SamSegmenter

SIZE = (200, 400)  # height, width
WHOLE = (0, 0, 400, 200)
SIDE = STEP * np.ceil(20 * CONTEXT / STEP)  # of the window round a box of 20 pixels


def box_at(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x, y, x + side, y + side], np.float32)


def test_a_window_is_a_square_round_the_box() -> None:
    x0, y0, x1, y1 = choose_window(box_at(180, 90, 20), SIZE)
    assert x1 - x0 == y1 - y0 == SIDE
    assert abs((x0 + x1) / 2 - 190) <= SIDE / 16 and abs((y0 + y1) / 2 - 100) <= SIDE / 16


def test_a_box_that_trembles_keeps_its_window() -> None:
    windows = {choose_window(box_at(181 + dx, 91, 20 + dx), SIZE) for dx in (0, 0.3, -0.4)}
    assert len(windows) == 1


def test_a_window_holds_the_points_or_is_the_whole_frame() -> None:
    x0, y0, x1, y1 = near = choose_window(box_at(180, 90, 20), SIZE)
    inside, outside = [[x0, y0], [x1 - 1, y1 - 1]], [[x0, y0], [x1, y1 - 1]]
    assert choose_window(box_at(180, 90, 20), SIZE, points=np.array(inside)) == near
    assert choose_window(box_at(180, 90, 20), SIZE, points=np.array(outside)) == WHOLE


@pytest.mark.parametrize(
    ("x", "y"), [(-5.0, 90.0), (0.0, 0.0), (385.0, 185.0), (390.5, -3.5)], ids=str
)
def test_a_window_at_the_edge_moves_into_the_frame(x: float, y: float) -> None:
    x0, y0, x1, y1 = choose_window(box_at(x, y, 20), SIZE)
    assert 0 <= x0 and 0 <= y0 and x1 <= 400 and y1 <= 200
    assert x1 - x0 == y1 - y0 == SIDE


def test_a_box_without_area_has_a_window_too() -> None:
    x0, y0, x1, y1 = choose_window(box_at(400, 90, 0), SIZE)
    assert x1 - x0 == y1 - y0 == STEP and x1 == 400


@pytest.mark.parametrize(
    ("box", "within"),
    [
        ((10, 10, 30, 30), True),
        ((-20, -20, 1, 1), True),
        ((-20, 10, 0, 30), False),
        ((400, 10, 420, 30), False),
        ((10, 200, 30, 220), False),
        ((30, 10, 30, 30), False),
        ((np.nan, 10, 30, 30), False),
    ],
    ids=str,
)
def test_boxes_beside_the_frame_are_told_apart(
    box: tuple[float, float, float, float], within: bool
) -> None:
    assert is_within(np.array(box), SIZE) is within


def test_only_small_objects_are_looked_at_closely() -> None:
    limit = SMALL * 400
    assert choose_window(box_at(10, 10, limit - 1), SIZE) != WHOLE
    assert choose_window(box_at(10, 10, limit + 1), SIZE) == WHOLE
    assert choose_window(box_at(10, 10, limit - 1), SIZE, region="never") == WHOLE
    assert choose_window(None, SIZE, region="always") == WHOLE
    tall = np.array([100, 20, 110, 20 + limit + 1], np.float32)
    assert choose_window(tall, SIZE) == WHOLE


def test_a_window_is_no_larger_than_the_frame() -> None:
    x0, y0, x1, y1 = choose_window(box_at(100, 20, 120), SIZE, region="always")
    assert (y0, y1) == (0, 200) and x1 - x0 == min(400, STEP * np.ceil(120 * CONTEXT / STEP))


@pytest.mark.parametrize("side", [0.5, 3, 11, 40])
@pytest.mark.parametrize("x", [0.0, 57.3, 200.0, 359.0])
def test_a_window_holds_its_box(side: float, x: float) -> None:
    box = box_at(x, x / 3, side)
    x0, y0, x1, y1 = choose_window(box, SIZE, region="always")
    assert x0 <= box[0] and y0 <= box[1] and box[2] <= x1 and box[3] <= y1


class Recorder:
    """Answers with a mask of the prompted box, and keeps what it was asked."""

    weights = "recorder"

    def encode(self, frame: np.ndarray) -> np.ndarray:
        assert frame.flags.c_contiguous
        return frame

    def predict(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        self.prompts = list(prompts)
        answers = []
        for prompt in prompts:
            mask = np.zeros(embedding.shape[:2], bool)
            assert prompt.box is not None
            x0, y0, x1, y1 = prompt.box.astype(int)
            mask[y0:y1, x0:x1] = True
            answers.append([Candidate(mask, 0.9, np.zeros((256, 256), np.float32))])
        return answers


def test_prompts_go_into_the_window_and_masks_come_back() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    model = Recorder()
    view = look(model, frame, (100, 40, 180, 120))  # type: ignore[arg-type]
    assert (view.embedding == frame[40:120, 100:180]).all() and view.size == SIZE
    point = np.array([[135.0, 70.0]], np.float32)
    prompt = Prompt(box=box_at(130, 60, 20), points=point)
    ((answer,),) = predict(model, view, [prompt])  # type: ignore[arg-type]
    (inside,) = model.prompts
    assert inside.box is not None and inside.box.tolist() == [30, 20, 50, 40]
    assert inside.points is not None and inside.points.tolist() == [[35, 30]]
    expected = np.zeros(SIZE, bool)
    expected[60:80, 130:150] = True
    assert (answer.mask == expected).all()
    assert prompt.box is not None and prompt.box[0] == 130  # what was given is left alone


def test_each_window_is_encoded_once_and_answers_keep_their_order() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    seen = []

    class Counting(Recorder):
        def encode(self, frame: np.ndarray) -> np.ndarray:
            seen.append(frame.shape[:2])
            return super().encode(frame)

    near = (100, 40, 180, 120)
    boxes = [box_at(10, 10, 30), box_at(130, 60, 20), box_at(300, 100, 50), box_at(110, 50, 9)]
    asked = [(Prompt(box=b), w) for b, w in zip(boxes, [WHOLE, near, WHOLE, near], strict=True)]
    answers = answer(Counting(), frame, asked)  # type: ignore[arg-type]
    assert seen == [SIZE, (80, 80)]
    for box, (found,) in zip(boxes, answers, strict=True):
        x0, y0, x1, y1 = box.astype(int)
        assert found.mask[y0:y1, x0:x1].all() and found.mask.sum() == (x1 - x0) * (y1 - y0)
    assert answer(Counting(), frame, []) == [] and len(seen) == 2  # type: ignore[arg-type]


def test_the_whole_frame_is_a_plain_prediction(small: SamSegmenter) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    prompt = Prompt(box=box_at(130, 60, 20))
    view = look(small, frame, WHOLE)
    (found,) = predict(small, view, [prompt])
    (plain,) = small.predict(small.encode(frame), [prompt])
    for a, b in zip(found, plain, strict=True):
        assert (a.mask == b.mask).all() and a.score == b.score and (a.logits == b.logits).all()


def test_a_window_answers_as_its_own_picture(small: SamSegmenter) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    x0, y0, x1, y1 = window = (100, 40, 180, 120)
    (found,) = predict(small, look(small, frame, window), [Prompt(box=box_at(130, 60, 20))])
    part = np.ascontiguousarray(frame[y0:y1, x0:x1])
    (plain,) = small.predict(small.encode(part), [Prompt(box=box_at(30, 20, 20))])
    for a, b in zip(found, plain, strict=True):
        assert (a.mask[y0:y1, x0:x1] == b.mask).all() and a.mask.sum() == b.mask.sum()


def test_a_prompt_outside_the_window_is_refused(small: SamSegmenter) -> None:
    view = look(small, np.zeros((*SIZE, 3), np.uint8), (100, 40, 180, 120))
    with pytest.raises(InputError, match="lies outside"):
        predict(small, view, [Prompt(points=np.array([[10, 10]]))])
