from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from checkpoints import WeightsRecord
from segmenters import Embedding, Prompt
from segmenters.everything import _coarse_to_fine, find_objects
from segmenters.sam import SamSegmenter

SIZE = (300, 600)
SCENE = Embedding(torch.zeros(1, 256, 64, 64), SIZE)
# x0 y0 x1 y1 in the frame; a point on none of them gets an unsure answer.
OBJECTS = [
    (30, 30, 150, 130),
    (300, 60, 360, 200),
    (180, 20, 290, 280),
    (450, 200, 580, 290),
]


class Boxes(SamSegmenter):
    """Knows the objects of the scene: answers a point with the smallest object it lies on."""

    asked: int

    def predict_logits(
        self, embedding: Embedding, prompts: Sequence[Prompt]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        answers = []
        for prompt in prompts:
            self.asked += 1
            assert prompt.points is not None
            ((x, y),) = prompt.points
            logits = np.full((3, 256, 256), -9, np.float32)
            hit = [o for o in OBJECTS if o[0] <= x < o[2] and o[1] <= y < o[3]]
            for index, (x0, y0, x1, y1) in enumerate(reversed(hit[-2:])):
                x0, y0, x1, y1 = (round(value * 256 / 600) for value in (x0, y0, x1, y1))
                logits[index, y0:y1, x0:x1] = 9
            if not hit:
                logits[0, :200, :] = 9
            scores = np.array([0.95 if hit else 0.4, 0.9, 0.3], np.float32)
            answers.append((logits, scores))
        return answers


@pytest.fixture
def boxes(small: SamSegmenter) -> Boxes:
    model = Boxes(small.network, WeightsRecord("boxes", ""), torch.device("cpu"))
    model.asked = 0
    return model


def test_every_object_is_found_once_the_largest_first(boxes: Boxes) -> None:
    found = find_objects(boxes, SCENE)
    expected = sorted(OBJECTS, key=lambda o: -(o[2] - o[0]) * (o[3] - o[1]))
    assert len(found) == len(OBJECTS)
    for one, box in zip(found, expected, strict=True):
        assert one.box == pytest.approx(np.array(box, float), abs=4)
        assert one.mask.shape == SIZE and one.mask.dtype == bool
        assert one.score in (np.float32(0.95), np.float32(0.9)) and one.stability == 1


def test_points_on_an_object_found_before_are_not_asked(boxes: Boxes) -> None:
    find_objects(boxes, SCENE)
    xs, ys = 600 * (np.arange(16) + 0.5) / 16, 300 * (np.arange(16) + 0.5) / 16

    def on(o: tuple[int, ...]) -> int:
        return sum(o[0] <= x < o[2] and o[1] <= y < o[3] for x in xs for y in ys)

    spared = sum(on(o) for o in OBJECTS)
    assert 256 - spared < boxes.asked < 256 - spared + len(OBJECTS) * 4


def test_a_mask_of_the_whole_scene_spares_no_points(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.OBJECTS", [(0, 0, 600, 300), *OBJECTS])
    assert len(find_objects(boxes, SCENE)) == len(OBJECTS)


@pytest.mark.parametrize(
    "options", [{"min_score": 0.99}, {"min_stability": 1.01}, {"min_area": 0.2}], ids=str
)
def test_what_is_unsure_or_tiny_is_dropped(boxes: Boxes, options: dict[str, float]) -> None:
    assert find_objects(boxes, SCENE, **options) == []  # type: ignore[arg-type]


def test_progress_cancel_and_a_limit_of_time(boxes: Boxes) -> None:
    said: list[tuple[int, int]] = []
    find_objects(boxes, SCENE, points_per_side=8, progress=lambda *now: said.append(now))
    assert said[-1] == (64, 64) and said == sorted(said) and len(said) > 4

    boxes.asked = 0
    said.clear()
    find_objects(
        boxes, SCENE, progress=lambda *now: said.append(now), cancelled=lambda: len(said) == 3
    )
    assert len(said) == 3 and boxes.asked <= 12

    boxes.asked = 0
    assert find_objects(boxes, SCENE, seconds=-1.0) == [] and boxes.asked == 0


def test_the_first_points_already_lie_all_over_the_frame() -> None:
    points = _coarse_to_fine(16)
    assert len(np.unique(points, axis=0)) == 256
    for count in (16, 64):
        first = points[:count]
        quadrants = (first > 0.5) @ (1, 2)
        assert np.bincount(quadrants).tolist() == [count // 4] * 4
    assert len(_coarse_to_fine(5)) == 25 and len(_coarse_to_fine(1)) == 1


def test_a_real_network_gives_masks_at_frame_size(small: SamSegmenter) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    found = find_objects(
        small,
        small.encode(frame),
        points_per_side=2,
        min_score=-99,
        min_stability=0,
        min_area=0,
    )
    for one in found:
        assert one.mask.shape == (90, 160) and one.mask.any()
