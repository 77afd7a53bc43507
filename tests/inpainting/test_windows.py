from __future__ import annotations

import numpy as np

from inpainting.windows import BY_THE_OBJECT, Layer, Shot, Step, sample, surroundings


def test_sample_reads_between_pixels() -> None:
    image = np.array([[0, 10, 20], [100, 110, 120]], np.float32)
    points = np.array([[0, 0], [1.5, 0], [1, 0.5], [-4, 1], [9, 9]], np.float32)
    assert sample(image, points).tolist() == [0, 15, 60, 100, 120]
    assert sample(image, np.zeros((0, 2), np.float32)).shape == (0,)


def test_a_shot_keeps_its_coordinates_when_cut() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    hole = np.zeros((40, 50), bool)
    hole[20, 25] = True
    shot = Shot(0, pixels, hole)
    points = np.array([[40, 18], [25, 20], [26.5, 20], [28, 20], [2, 2]], np.float32)
    assert (shot.view(points) > BY_THE_OBJECT).tolist() == [False, True, True, False, False]
    assert (shot.view(points) == 0).tolist() == [True, False, False, False, True]
    before = shot.colours(points[:1])
    shot.keep((10, 12, 35, 45))
    assert (shot.view(points) > BY_THE_OBJECT).tolist() == [False, True, True, False, True]
    np.testing.assert_array_equal(shot.colours(points[:1]), before)
    np.testing.assert_array_equal(before[0], pixels[18, 40])


def test_a_step_moves_there_and_back() -> None:
    forward = np.full((10, 20, 3), (3, -1, 0), np.float32)
    backward = np.full((10, 20, 3), (-3, 2, 4), np.float32)
    layer = Layer(forward, backward)
    step = Step((100, 200, 120, 240), layer)
    assert step.cell == 2
    points = np.array([[210.25, 110.5]], np.float32)
    ends, miss, departure = step.move(points, 1, layer)
    assert ends.tolist() == [[213.25, 109.5]]
    assert (miss.tolist(), departure.tolist()) == ([1], [4])
    assert step.move(points, -1, layer)[0].tolist() == [[207.25, 112.5]]


def test_surroundings_stay_in_the_frame() -> None:
    hole = np.zeros((300, 400), bool)
    hole[100:120, 390:400] = True
    assert surroundings(hole) == (36, 326, 184, 400)
