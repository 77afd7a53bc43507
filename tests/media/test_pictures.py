"""Folders of pictures, single pictures and GIFs are videos like any other."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from media import InputError
from media.video import Budget, open_video


@pytest.fixture
def folder(clips: Any, tmp_path: Path) -> Path:
    path = tmp_path / "frames"
    path.mkdir()
    for number in range(12):  # 1, 10, 11, 2 ... in the order of the alphabet
        iio.imwrite(path / f"frame{number}.png", clips.paint(number))
    (path / "groundtruth.txt").write_text("1,2,3,4")
    (path / ".hidden.png").write_bytes(b"")
    return path


def test_folder_in_natural_order(folder: Path, clips: Any) -> None:
    with open_video(folder) as video:
        assert clips.numbers(video.frames()) == list(range(12))
        assert clips.numbers(video.frames(backwards=True)) == list(range(12))[::-1]
        assert clips.number(video[7]) == 7 and clips.number(video[3]) == 3
        assert video.info.size == (96, 144) and video.info.codec == "png"
        assert video.info.fps == 25 and video.info.duration == pytest.approx(12 / 25)
        assert video.pts.tolist() == list(range(12)) and video.durations.tolist() == [1] * 12
        assert video.info.notes == ("Pictures carry no frame rate: 25 a second are assumed.",)
        assert np.array_equal(video[5], clips.paint(5))


def test_frame_rate_of_a_folder(folder: Path) -> None:
    with open_video(folder, fps=Fraction(30000, 1001)) as video:
        assert video.info.fps == Fraction(30000, 1001) and video.info.notes == ()
        assert video.info.time_base == Fraction(1001, 30000)
    with pytest.raises(InputError, match=r"frame rate of 0"):
        open_video(folder, fps=Fraction(0))


def test_frame_rate_is_not_for_videos(clips: Any, tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "in.mp4", 2)
    with pytest.raises(InputError, match="has its own"):
        open_video(clip, fps=Fraction(25))


def test_mixed_sizes(folder: Path, clips: Any) -> None:
    iio.imwrite(folder / "frame12.png", clips.paint(12, 96, 150))
    with pytest.raises(InputError, match=r"frame12.png is 150x96 and frame0.png is 144x96"):
        open_video(folder)


def test_damaged_picture(folder: Path) -> None:
    file = folder / "frame3.png"
    file.write_bytes(file.read_bytes()[:200])
    with open_video(folder) as video, pytest.raises(InputError, match=r"frame3.png"):
        list(video.frames())
    file.write_bytes(b"no picture at all")
    with pytest.raises(InputError, match=r"frame3.png"):
        open_video(folder)


def test_budget_of_a_folder(folder: Path) -> None:
    pixels = 96 * 144
    with pytest.raises(InputError, match="--max-megapixels"):
        open_video(folder, budget=Budget(max_frame_pixels=pixels - 1))
    with pytest.raises(InputError, match="12 frames"):
        open_video(folder, budget=Budget(max_total_pixels=12 * pixels - 1))
    with pytest.raises(InputError, match="--max-minutes"):
        open_video(folder, budget=Budget(max_seconds=0.4))


def test_kinds_of_pixels(tmp_path: Path) -> None:
    """Grey, 16 bit, palette and transparent pictures all come out as 8-bit RGB."""
    ramp = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
    pictures = {
        "grey": Image.fromarray(ramp),
        "deep": Image.fromarray(ramp.astype(np.uint16) * 257),
        "palette": Image.fromarray(ramp).convert("P"),
        "clear": Image.merge("LA", (Image.fromarray(ramp), Image.new("L", (60, 40), 128))),
        "bits": Image.fromarray(ramp).point(lambda v: 255 * (v > 99)).convert("1"),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        with open_video(tmp_path / f"{name}.png") as video:
            frame = video[0]
            assert frame.shape == (40, 60, 3) and frame.dtype == np.uint8 and len(video) == 1
            assert video.info.bit_depth == (16 if name == "deep" else 8)
            expected = 255 * (ramp > 99) if name == "bits" else ramp
            assert np.array_equal(frame, np.repeat(expected[..., None], 3, axis=2)), name


def test_exif_orientation(clips: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to stand upright
    Image.fromarray(clips.paint(5)).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    with open_video(tmp_path) as video:
        assert video.info.size == (144, 96)
        expected = np.rot90(clips.paint(5), -1)
        assert np.abs(video[0].astype(int) - expected).mean() < 3


def test_picture_named_like_a_video(clips: Any, tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "picture.png", clips.paint(9))
    (tmp_path / "picture.png").rename(tmp_path / "video.mp4")
    with open_video(tmp_path / "video.mp4") as video:
        assert len(video) == 1 and clips.number(video[0]) == 9


def test_gif(clips: Any, tmp_path: Path) -> None:
    milliseconds = [50, 100, 200, 50, 0, 40, 70, 80, 90, 100]  # 0 is shown for 100
    frames = np.stack([clips.paint(number) for number in range(10)])
    iio.imwrite(tmp_path / "moving.gif", frames, duration=milliseconds, loop=0)
    with open_video(tmp_path / "moving.gif") as video:
        assert len(video) == 10 and video.info.codec == "gif"
        assert clips.numbers(video.frames()) == list(range(10))
        assert clips.numbers(video.frames(backwards=True)) == list(range(10))[::-1]
        order = random.Random(0).sample(range(10), 10)
        assert clips.numbers(video[k] for k in order) == order
        milliseconds[4] = 100
        assert video.durations.tolist() == milliseconds
        assert video.info.time_base == Fraction(1, 1000)
        assert video.info.duration == pytest.approx(sum(milliseconds) / 1000)
        assert float(video.info.fps) == pytest.approx(10_000 / sum(milliseconds))
    with pytest.raises(InputError, match="10 frames"):
        open_video(tmp_path / "moving.gif", budget=Budget(max_total_pixels=9 * 96 * 144))
