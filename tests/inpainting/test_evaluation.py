from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import CheckpointError
from inpainting import evaluation as e
from inpainting.__main__ import main
from inpainting.vfid import I3D
from media import InputError
from tests.inpainting.conftest import texture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sequences of 4 and 3 frames of 864x480: a still texture, and a box that runs across."""
    picture = texture(480, 864).round().astype(np.uint8)
    for name, count in (("still", 4), ("runner", 3)):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / name / kind).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(picture).save(tmp_path / name / "JPEGImages" / f"{index:05d}.png")
            mask = np.zeros((480, 864), np.uint8)
            mask[160:280, 200 + 260 * index : 320 + 260 * index] = 255
            Image.fromarray(mask).save(tmp_path / name / "Annotations" / f"{index:05d}.png")
    return tmp_path


def test_the_first_gives_the_frames_and_the_second_the_masks(data: Path) -> None:
    clip = e.load_pair(data, "still+runner")
    assert len(clip.truth) == len(clip.holes) == 3  # as many as both have
    assert clip.truth[0].shape == (240, 432, 3)
    assert clip.holes[0].shape == (240, 432)
    plain = np.zeros((240, 432), np.uint8)
    plain[80:140, 100:160] = 1
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    for _ in range(4):
        plain = cv2.dilate(plain, cross)
    np.testing.assert_array_equal(clip.holes[0], plain > 0)
    assert len(e.load_pair(data, "still+runner", frames=2).truth) == 2
    blank = clip.blanked()[0]
    assert (blank[clip.holes[0]] == 0).all()
    np.testing.assert_array_equal(blank[~clip.holes[0]], clip.truth[0][~clip.holes[0]])


def test_still_boxes_stand_still_and_always_at_the_same_place(data: Path) -> None:
    clip = e.still_box(e.load_pair(data, "still+runner"))
    again = e.still_box(e.load_pair(data, "still+still"))
    assert clip.name == "still+box"
    assert not clip.moving
    for hole in (*clip.holes, *again.holes):
        np.testing.assert_array_equal(hole, clip.holes[0])
        assert hole.sum() == 80 * 108
    other = e.still_box(e.load_pair(data, "runner+still"))
    assert (other.holes[0] != clip.holes[0]).any()


def test_what_is_missing_is_said(data: Path) -> None:
    with pytest.raises(InputError, match="nobody"):
        e.load_pair(data, "still+nobody")
    with pytest.raises(InputError, match=r"FRAMES\+MASKS"):
        e.load_pair(data, "still")
    (data / "still" / "JPEGImages" / "00000.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"00000\.png is not a picture"):
        e.load_pair(data, "still+runner")
    with pytest.raises(InputError, match="no method called 'magic'"):
        e.build_method("magic")


def test_scores_of_a_known_error(data: Path) -> None:
    """A method that paints every hole 10 too bright, and the rest of the frame with nonsense."""
    clip = e.load_pair(data, "still+runner")
    clip = e.Clip("x", True, [np.minimum(f, 245) for f in clip.truth], clip.holes)

    def bright(frames: list[np.ndarray], holes: list[np.ndarray]) -> Iterator[np.ndarray]:
        for truth, frame, hole in zip(clip.truth, frames, holes, strict=True):
            assert (frame[hole] == 0).all()  # what the hole hides is not seen
            yield np.where(hole[..., None], truth + np.uint8(10), np.uint8(7))

    found = e.score("bright", bright, clip, every=2)
    shares = [float(clip.holes[i].mean()) for i in (0, 2)]
    expected = np.mean([10 * np.log10(255**2 / (100 * share)) for share in shares])
    assert found.psnr == pytest.approx(expected, abs=1e-6)
    assert found.ssim < 1
    assert found.frames == 3
    assert found.warping > 0


def test_nearest_copies_from_the_nearest_frame_that_shows_the_place() -> None:
    frames = [np.full((20, 20, 3), v, np.uint8) for v in (10, 20, 30, 40)]
    hole = np.zeros((20, 20), bool)
    hole[5:9, 5:9] = True
    empty = np.zeros_like(hole)
    result = list(e.nearest(frames, [hole, hole, empty, empty]))
    assert (result[0][hole] == 30).all()
    assert (result[1][hole] == 30).all()
    assert (result[3] == 40).all()
    result = list(e.nearest(frames[:2], [hole, hole]))
    # Nowhere to be seen: from the frame itself.
    assert np.abs(result[0][hole].astype(int) - 10).max() <= 3


def test_a_comparison_from_the_command_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    call = ["evaluate", "--data", str(data), "--out", str(out), "--pair", "still+runner", "--boxes"]
    assert main([*call, "--method", "telea", "--method", "nearest"]) == 0
    rows = json.loads((out / "scores.json").read_text())
    assert [(r["method"], r["clip"]) for r in rows] == [
        (method, clip)
        for method in ("telea", "nearest")
        for clip in ("still+runner", "still+box", "mean, moving holes", "mean, still boxes")
    ]
    # The picture never moves: what another frame shows at the same place is the truth.
    psnr = {(r["method"], r["clip"]): r["psnr"] for r in rows}
    assert psnr["nearest", "still+runner"] == 100
    assert psnr["telea", "still+runner"] < 50
    assert psnr["nearest", "still+box"] == pytest.approx(psnr["telea", "still+box"])
    table = (out / "scores.md").read_text()
    assert table in capsys.readouterr().out
    assert len(table.splitlines()) == 2 + len(rows)
    with (out / "scores.csv").open(newline="") as file:
        assert [r["method"] for r in csv.DictReader(file)] == [r["method"] for r in rows]
    assert not list(out.glob("*.part"))


def test_with_i3d_given_methods_are_compared_by_vfid(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {key.removeprefix("layers."): value for key, value in I3D().state_dict().items()}
    torch.save(state, tmp_path / "i3d.pt")
    call = ["evaluate", "--data", str(data), "--out", str(tmp_path), "--i3d", tmp_path / "i3d.pt"]
    call += ["--pair", "still+runner", "--pair", "runner+runner", "--frames", "2", "--device=cpu"]
    assert main([*map(str, call), "--method", "telea", "--method", "nearest"]) == 0
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert [r["vfid"] is None for r in rows] == [True, True, False] * 2
    assert rows[2]["vfid"] > rows[5]["vfid"] >= 0  # "nearest" finds the truth
    header, _, first, *_, mean = (tmp_path / "scores.md").read_text().splitlines()
    assert header.endswith("| VFID |")
    assert header.count("|") == first.count("|") == mean.count("|")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pair", "a+b"], "no pictures"),
        (["--method", "magic"], "no method called 'magic'"),
        (["--frames", "1"], "at least 2"),
        (["--weights", "x"], "one method"),
        (["--frames", "51"], "up to 50"),
        (["--every", "0"], "every"),
        (["--method", "telea", "--weights", "x"], "telea takes no weights"),
        (["--method", "telea", "--device", "cuda:77"], "'cuda:77' is not available"),
    ],
)
def test_one_sentence_for_what_cannot_be_before_anything_is_read(
    data: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(e, "_read", lambda *a: pytest.fail("a picture was read"))
    call = ["evaluate", "--data", str(data), "--out", str(data / "out")]
    if "--pair" not in arguments:
        call += ["--pair", "still+runner"]
    if "--method" not in arguments and "--weights" not in arguments:
        call += ["--method", "telea"]
    assert main([*call, *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said
    assert said.startswith("Error: ")
    assert not (data / "out").exists()


def test_a_folder_that_cannot_be_written_is_known_before_anything_is_painted(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(e, "build_method", lambda *a, **k: pytest.fail("a model was built"))
    (data / "file").write_text("")
    for out in (data / "file", data / "file" / "below"):
        call = ["evaluate", "--data", str(data), "--out", str(out), "--pair", "still+runner"]
        assert main([*call, "--method", "telea"]) == 1
        assert f"Error: {out} cannot be used" in capsys.readouterr().err


def test_names_in_capitals_and_clips_of_one_frame(data: Path) -> None:
    (data / "loud").mkdir()
    for kind in ("JPEGImages", "Annotations"):
        files = sorted((data / "runner" / kind).iterdir())
        (data / "loud" / kind).mkdir()
        for file in files[: 2 if kind == "JPEGImages" else 1]:
            (data / "loud" / kind / file.with_suffix(".PNG").name).write_bytes(file.read_bytes())
    assert len(e.load_pair(data, "loud+runner").truth) == 2
    with pytest.raises(InputError, match=r"loud\+loud has only one frame"):
        e.load_pair(data, "loud+loud")


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(tmp_path))
    with pytest.raises(CheckpointError, match="migan"):
        e.build_method("migan")
