"""What is switched off makes the difference that it should, and small objects are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import steady
from segmenters import Candidate, Embedding, Prompt, region
from segmenters import steady as product
from tests.demo.square import SIDE, ColourSegmenter, red, square_box, square_frame

COUNT, DARK = 5, 2  # frames, and the one that the segmenter cannot make out


class Moody(ColourSegmenter):
    """Likes one half of the square better than the whole, but in the first frame, and sees nothing
    where it is dark."""

    def __init__(self) -> None:
        self.asked: list[float] = []  # widths of boxes

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        return [self._answer(embedding, prompt) for prompt in prompts]

    def _answer(self, embedding: Embedding, prompt: Prompt) -> list[Candidate]:
        assert prompt.box is not None
        self.asked.append(float(prompt.box[2] - prompt.box[0]))
        ((whole,),) = super().predict(embedding, [prompt])
        frame = embedding.features.numpy().copy()
        if frame[..., 0].max() < 220:
            nothing = np.zeros_like(whole.mask)
            return [replace(whole, mask=nothing, logits=np.full_like(whole.logits, -1))]
        left = np.flatnonzero(red(frame).any(axis=0))[0]
        if left == square_box(0)[0]:
            return [whole]
        frame[:, left + SIDE // 2 :] = 0
        darker = replace(embedding, features=torch.from_numpy(frame))
        ((half,),) = super().predict(darker, [prompt])
        return [replace(half, score=0.95), whole]


class Blurred(ColourSegmenter):
    """Masks the one square that was pointed at, too large by two pixels unless seen from near."""

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        ((seen,),) = super().predict(embedding, prompts)
        (prompt,) = prompts
        place = prompt.box.reshape(2, 2).mean(axis=0) if prompt.box is not None else prompt.points
        x, y = np.ravel(place).astype(int)
        _, squares = cv2.connectedComponents(seen.mask.astype(np.uint8))
        mask = (squares == squares[y, x]).astype(np.uint8)
        if mask.shape[1] > 200:
            mask = cv2.dilate(mask, np.ones((5, 5), np.uint8))
        return [[replace(seen, mask=mask.astype(bool))]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("JPEGImages", "Annotations", "boxes"):
        (tmp_path / name / "square").mkdir(parents=True)
    lines = []
    for index in range(COUNT):
        frame = square_frame(index)
        mask = red(frame)
        if index == DARK:
            frame[mask] = (212, 20, 20)
        Image.fromarray(frame).save(tmp_path / f"JPEGImages/square/{index:05d}.png")
        Image.fromarray(255 * mask.astype(np.uint8)).save(
            tmp_path / f"Annotations/square/{index:05d}.png"
        )
        x0, y0, x1, y1 = square_box(index)
        lines.append(f"{x0},{y0},{x1 - x0},{y1 - y0}\n")
    (tmp_path / "boxes/square.txt").write_text("".join(lines))
    return tmp_path


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_each_part_makes_its_difference(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(steady, "build_segmenter", lambda *a, **k: Moody())
    before = vars(product).copy()
    assert steady.parts(root, boxes=root / "boxes") == 0
    table = rows(capsys.readouterr().out)
    assert len(table) == len(steady.VARIANTS) == len(get_args(steady.Name))
    j = {name: float(row[1]) for name, row in zip(steady.VARIANTS, table, strict=True)}
    # Frames 1 to 3 count. In the dark one the square is known from the frame before alone.
    assert j["default"] > 0.95
    assert j["0"] == j["3"] == pytest.approx(1 / 2, abs=0.02)  # it likes the half again
    assert j["alone"] == pytest.approx(1 / 3, abs=0.02)
    assert j["choice"] < 0.8 < 0.95 < min(j["box"], j["specks"], j["demo"])
    assert j["flow"] < j["default"] - 0.01
    assert vars(product) == before


def test_specks_are_left_in_but_where_dropping_them_is_measured(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for path in (root / "JPEGImages/square").iterdir():
        frame = np.array(Image.open(path))
        frame[70, 10:120:20] = (230, 20, 20)  # single pixels beside the square of 576
        Image.fromarray(frame).save(path)
    monkeypatch.setattr(steady, "build_segmenter", lambda *a, **k: ColourSegmenter())
    steady.parts(root, only=["default", "0", "specks"])
    left, unsmoothed, dropped = (float(row[2]) for row in rows(capsys.readouterr().out))  # F
    assert left < 0.98 and unsmoothed < 0.98 and dropped > 0.995


def test_only_tracked_boxes_grow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    larger = SIDE * (1 + 2 * product.BOX_MARGIN)
    for boxes, only, widths in (
        (None, "default", [SIDE]),
        (root / "boxes", "itself", [SIDE]),
        (root / "boxes", "larger", [larger]),
        (root / "boxes", "default", [larger, SIDE]),
    ):
        model = Moody()
        monkeypatch.setattr(steady, "build_segmenter", lambda *a, model=model, **k: model)
        steady.parts(root, boxes=boxes, only=[only])
        assert model.asked == pytest.approx(widths * COUNT)


def test_small_objects_from_near(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(steady, "build_segmenter", lambda *a, **k: Blurred())
    monkeypatch.setattr(steady, "FILM", (200, 300))
    assert steady.window(root, side=[12, 24, 120], out=tmp_path / "out") == 0
    table = rows(capsys.readouterr().out)
    # The frame is 160 pixels wide: with an object of 120 it would not fit in.
    assert [row[:2] for row in table[:2]] == [["12", "square 2"], ["24", "square 2"]]
    for side, row in zip((12, 24), table, strict=False):
        whole = side**2 / (side + 4) ** 2
        assert [float(cell) for cell in row[2:]] == pytest.approx([whole, 1, whole, 1], abs=6e-4)
    assert [row[1] for row in table[2:]] == ["mean of 1", "mean of 1", "mean of 0"]
    picture = np.asarray(Image.open(tmp_path / "out/square_2_24.png"))
    assert picture.shape == (320, 6 * 320, 3)
    assert region.CONTEXT == 3


def test_a_film_holds_the_object_in_its_middle() -> None:
    frame = square_frame(0)
    film, mask = steady.in_a_film(frame, red(frame), 2)
    assert film.shape == (1080, 1920, 3) and mask.sum() == (2 * SIDE) ** 2
    assert (red(film) == mask).all()  # the mirror images round it do not show it
