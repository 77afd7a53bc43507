"""Measures against numbers of davis2017-evaluation @ 30b698a, layouts, and files of boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from media import InputError
from segmenters import Candidate, Prompt
from segmenters.evaluation import (
    Clip,
    Statistics,
    boundary_accuracy,
    cut_out_steadily,
    find_clips,
    read_boxes,
    read_masks,
    region_similarity,
    score,
    steadiness,
    true_prompts,
)
from segmenters.steady import Steadier

Size = tuple[int, int]
Shape = tuple[float, float, float, float]


def ellipse(size: Size, x: float, y: float, a: float, b: float) -> np.ndarray:
    yy, xx = np.mgrid[: size[0], : size[1]]
    return ((xx - x) / a) ** 2 + ((yy - y) / b) ** 2 <= 1


# Size, mask, truth, J, F, and both with a void disk; all made by the official code.
OFFICIAL = [
    ((480, 854), (400, 200, 150, 90), (410, 205, 140, 95), 0.888924, 0.623052, 0.885722, 0.676628),
    ((480, 854), (400, 200, 150, 90), (402, 201, 151, 89), 0.976767, 1.000000, 0.976069, 1.000000),
    ((100, 200), (0, 0, 60, 50), (10, 5, 60, 50), 0.739024, 0.0, 0.739024, 0.0),
    ((100, 200), (190, 95, 40, 40), (180, 99, 40, 30), 0.675917, 0.138193, 0.675917, 0.138193),
    ((60, 60), (10, 10, 5, 5), (50, 50, 5, 5), 0.0, 0.0, 0.0, 0.0),
    ((60, 60), (10, 10, 5, 5), (500, 500, 5, 5), 0.0, 0.0, 0.0, 0.0),  # no truth
    ((60, 60), (500, 500, 5, 5), (10, 10, 5, 5), 0.0, 0.0, 0.0, 0.0),  # no mask
    ((60, 60), (500, 500, 5, 5), (500, 500, 5, 5), 1.0, 1.0, 1.0, 1.0),  # neither
    ((60, 60), (30, 30, 100, 100), (30, 30, 28, 28), 0.681389, 0.0, 0.513444, 0.578773),
]


@pytest.mark.parametrize(("size", "a", "b", "j", "f", "j_void", "f_void"), OFFICIAL)
def test_measures_are_the_official_ones(
    size: Size, a: Shape, b: Shape, j: float, f: float, j_void: float, f_void: float
) -> None:
    mask, truth = ellipse(size, *a), ellipse(size, *b)
    assert region_similarity(mask, truth) == pytest.approx(j, abs=1e-6)
    assert boundary_accuracy(mask, truth) == pytest.approx(f, abs=1e-6)
    void = ellipse(size, 0.4 * size[1], 0.4 * size[0], 20, 20)
    assert region_similarity(mask, truth, void) == pytest.approx(j_void, abs=1e-6)
    assert boundary_accuracy(mask, truth, void) == pytest.approx(f_void, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "mean", "recall", "decay"),
    [
        (1, 0.0, 0.0, 0.0),
        (2, 0.495832, 0.5, -0.991665),
        (5, 0.533427, 0.4, -0.214132),
        (38, 0.619597, 0.631579, -0.003710),
        (200, 0.634941, 0.665, -0.018849),
    ],
)
def test_statistics_are_the_official_ones(
    count: int, mean: float, recall: float, decay: float
) -> None:
    found = Statistics.of(np.abs(np.sin(np.arange(count) * 1.7)).tolist())
    wanted = (mean, recall, decay)
    assert (found.mean, found.recall, found.decay) == pytest.approx(wanted, abs=1e-6)


def test_decay_of_a_long_sequence() -> None:
    # 1 in the first quarter and 0 after; with bounds in 8 bits this would be another number.
    assert Statistics.of([1.0] * 250 + [0.0] * 750).decay == pytest.approx(250 / 251, abs=2e-3)


def textured(size: Size = (120, 160)) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def test_a_mask_that_moves_with_the_picture_is_steady_and_one_that_flickers_is_not() -> None:
    before, mask = textured(), ellipse((120, 160), 80, 60, 30, 25)
    now, moved = np.roll(before, 8, axis=1), np.roll(mask, 8, axis=1)
    assert steadiness(before, now, mask, moved) > 0.97
    assert steadiness(before, now, mask, mask) < 0.85  # it stood still
    half = moved & (np.arange(160) < 88)
    assert steadiness(before, now, mask, half) == pytest.approx(0.5, abs=0.03)


# ---------------------------------------------------------------------------------------- folders


Make = Callable[..., Path]
LAYOUTS = {
    "DAVIS": ("JPEGImages/480p/{}", "Annotations/480p/{}"),
    "DAVIS without sizes": ("JPEGImages/{}", "Annotations/{}"),
    "a folder each": ("{}/JPEGImages", "{}/Annotations"),
}


def labels_at(index: int) -> np.ndarray:
    """Object 1 moves to the right by 4 pixels a frame; object 2 stays."""
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 10 + 4 * index : 30 + 4 * index] = 1
    labels[50:58, 2:12] = 2
    return labels


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(layout: str = "DAVIS", kind: str = "black and white", count: int = 4) -> Path:
        pictures, annotations = (tmp_path / part.format("clip") for part in LAYOUTS[layout])
        pictures.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for index in range(count):
            Image.fromarray(textured((60, 80))).save(pictures / f"{index:05d}.jpg")
            labels = labels_at(index)
            if kind == "black and white":
                picture = Image.fromarray(np.where(labels == 1, np.uint8(255), np.uint8(0)))
            elif kind == "colour":
                red = np.where(labels[..., None] == 1, np.uint8([128, 0, 0]), np.uint8(0))
                picture = Image.fromarray(red)
            else:  # several objects, and a void corner
                labels[:5, :5] = 255
                picture = Image.fromarray(labels)
                picture.putpalette(range(256))
            picture.save(annotations / f"{index:05d}.png")
        return tmp_path

    return write


@pytest.mark.parametrize("kind", ["black and white", "colour", "palette"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_kinds_of_annotation(make: Make, layout: str, kind: str) -> None:
    (clip,) = find_clips(make(layout, kind))
    assert clip.name == "clip" and len(clip) == 4
    assert clip.objects == ((1, 2) if kind == "palette" else (255,))
    truth, void = clip.truth(2, clip.objects[0])
    assert (truth == (labels_at(2) == 1)).all()
    assert void.sum() == (25 if kind == "palette" else 0)
    assert clip.frame(0).shape == (60, 80, 3)


def test_grey_edges_are_no_objects(make: Make) -> None:
    root = make()
    file = root / "Annotations/480p/clip/00001.png"
    mask = np.asarray(Image.open(file))
    Image.fromarray(cv2.GaussianBlur(mask, (5, 5), 0)).save(file)
    (clip,) = find_clips(root)
    assert clip.objects == (255,)


def test_first_and_last_frame_do_not_count(make: Make) -> None:
    (clip,) = find_clips(make(kind="palette"))
    nothing = np.zeros((60, 80), bool)
    masks = [nothing, labels_at(1) == 1, labels_at(2) == 1, nothing]
    found = score(clip, 1, masks)
    assert found.region == Statistics(1, 1, 0) and found.boundary.mean == 1 and found.both == 1
    masks[1] = nothing
    assert score(clip, 1, masks).region == Statistics(0.5, 0.5, -1)


def test_annotations_of_another_size_are_refused(make: Make) -> None:
    root = make()
    file = root / "Annotations/480p/clip/00002.png"
    Image.open(file).resize((40, 30)).save(file)
    (clip,) = find_clips(root)
    with pytest.raises(InputError, match=r"00002\.png has 40x30 pixels, but its frame 80x60"):
        clip.objects  # noqa: B018


class Either:
    """Asked about both halves, it cannot tell which is meant; it is surer of the right one."""

    def encode(self, frame: np.ndarray) -> None:
        pass

    def predict(self, embedding: None, prompts: list[Prompt]) -> list[list[Candidate]]:
        halves = np.zeros((2, 60, 80), bool)
        halves[0, 10:50, 5:35] = halves[1, 10:50, 45:75] = True
        logits = np.full((2, 256, 256), -8, np.float32)
        logits[0, 32:160, 16:112] = logits[1, 32:160, 144:240] = 8
        box = prompts[0].box
        assert box is not None
        scores = (0.95 if box[2] < 40 else 0.85, 0.9)
        return [[Candidate(*one) for one in zip(halves, scores, logits, strict=True)]]


@pytest.mark.parametrize("cut", [False, True])
def test_the_shot_before_does_not_vote(tmp_path: Path, cut: bool) -> None:
    frames = [tmp_path / f"{index}.png" for index in range(4)]
    for index, file in enumerate(frames):
        colour = np.uint8([90, 20, 10] if cut and index > 1 else [10, 40, 90])
        picture = textured((60, 80)) // 2 + colour
        Image.fromarray(picture[:, ::-1] if cut and index > 1 else picture).save(file)
    left, both = np.array([5, 10, 35, 50]), np.array([5, 10, 75, 50])
    masks = cut_out_steadily(
        Either(), Clip("clip", tuple(frames), {}), [left, left, both, both],  # type: ignore[arg-type]
        steadier=Steadier(), tracked=False,
    )  # fmt: skip
    found = ["left" if mask[30, 20] else "right" for mask in masks]
    assert found == ["left", "left", *(["right"] * 2 if cut else ["left"] * 2)]


def test_frames_without_annotation_are_not_scored(make: Make) -> None:
    root = make()
    (root / "Annotations/480p/clip/00001.png").unlink()
    (clip,) = find_clips(root)
    masks = [np.zeros((60, 80), bool) for _ in range(4)]
    masks[2] = labels_at(2) == 1
    assert score(clip, 255, masks).region.mean == 1
    assert [p is None for p in true_prompts(clip, 255, "box")] == [False, True, False, False]


def test_true_prompts(make: Make) -> None:
    (clip,) = find_clips(make())
    boxes = [p.box.tolist() for p in true_prompts(clip, 255, "box") if p and p.box is not None]
    assert boxes[1] == [14, 20, 34, 40]
    points = [p.points for p in true_prompts(clip, 255, "point") if p]
    assert points[0] is not None and points[0][0] == pytest.approx([19.5, 29.5], abs=1)


@pytest.mark.parametrize("form", ["14\t20\t20\t20", "14,20,20,20", "14.0 20.0 20.0 20.0"])
def test_boxes_of_a_tracker(make: Make, tmp_path: Path, form: str) -> None:
    (clip,) = find_clips(make())
    (tmp_path / "clip.txt").write_text("\n".join([form, "nan,nan,nan,nan", "1,1,0,5", form]))
    boxes = read_boxes(tmp_path, clip, 255)
    assert boxes[0] is not None and boxes[0].tolist() == [14, 20, 34, 40]
    assert boxes[1] is None and boxes[2] is None


def test_boxes_beside_the_frame_are_lost(make: Make, tmp_path: Path) -> None:
    (clip,) = find_clips(make())  # of 80 x 60 pixels
    (tmp_path / "clip.txt").write_text("80,0,9,9\n-9,0,9,9\n0,-30,9,20\n-9,0,10,9\n")
    found = read_boxes(tmp_path, clip, 255)
    assert [box is None for box in found] == [True, True, True, False]


def test_boxes_of_the_demo(make: Make, tmp_path: Path) -> None:
    (clip,) = find_clips(make(kind="palette"))
    (tmp_path / "clip").mkdir()
    lines = ["frame,time,object,x0,y0,x1,y1,score,lost"]
    for index in range(4):
        lines += [f"{index},0,1,14,20,34,40,0.9,0", f"{index},0,2,,,,,0.1,1"]
    (tmp_path / "clip/tracks.csv").write_text("\n".join(lines))
    first = read_boxes(tmp_path, clip, 1)[3]
    assert first is not None and first.tolist() == [14, 20, 34, 40]
    assert read_boxes(tmp_path, clip, 2) == [None] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "There are no boxes of clip"),
        ("1,2,3,4\n", "clip has 4 frames, but there are 1 boxes"),
        ("1,2,three,4\n", "The boxes of clip in .* cannot be read"),
        ("1\n1\n1\n1\n", "The boxes of clip in .* cannot be read"),
    ],
)
def test_wrong_boxes_are_refused(
    make: Make, tmp_path: Path, text: str | None, message: str
) -> None:
    (clip,) = find_clips(make())
    if text is not None:
        (tmp_path / "clip.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_boxes(tmp_path, clip, 255)


def test_masks_that_are_made(make: Make, tmp_path: Path) -> None:
    (clip,) = find_clips(make())
    with pytest.raises(InputError, match="There are no masks of clip"):
        list(read_masks(tmp_path / "made", clip, 255))
    made = tmp_path / "made/clip"
    made.mkdir(parents=True)
    mask = np.where(labels_at(1) == 1, np.uint8(255), np.uint8(0))
    Image.fromarray(mask).save(made / "00001.png")
    masks = list(read_masks(tmp_path / "made", clip, 255))
    assert [m.any() for m in masks] == [False, True, False, False]
    Image.fromarray(mask[:30]).save(made / "00002.png")
    with pytest.raises(InputError, match="of one size"):
        list(read_masks(tmp_path / "made", clip, 255))


def test_what_cannot_be_evaluated_is_said(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no annotated sequence"):
        find_clips(tmp_path)
    root = make(count=2)
    with pytest.raises(InputError, match="There is no sequence other"):
        find_clips(root, ["other"])
    (clip,) = find_clips(root)
    with pytest.raises(InputError, match="no annotation between its first and its last"):
        score(clip, 255, [np.zeros((60, 80), bool)] * 2)
    damaged = root / "JPEGImages/480p/clip/00000.jpg"
    damaged.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        Clip("clip", (damaged,), {}).frame(0)
