"""Colours survive the way in and out, whatever matrix, range and depth a file has."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media.color import to_sdr
from media.video import VideoWriter, open_video

RED, TEAL = (255, 0, 0), (0, 128, 64)
PATCHES = np.array([RED, TEAL, (0, 0, 255), (255, 255, 255), (128, 128, 128), (0, 0, 0)], np.uint8)
PQ, HLG = 16, 18


def patches(height: int) -> np.ndarray:
    """uint8 (height, 32 * 6, 3): one column 32 pixels wide for each colour."""
    return np.broadcast_to(np.repeat(PATCHES, 32, axis=0), (height, 192, 3)).copy()


def errors(frame: np.ndarray) -> list[int]:
    """How far each colour is off, in its worst channel."""
    middles = frame[frame.shape[0] // 2, 16::32].astype(int)
    return np.abs(middles - PATCHES.astype(int)).max(axis=1).tolist()


def tags(*, matrix: int, full: bool = False, trc: int = 1, primaries: int = 1) -> Callable:
    def set_up(stream: Any) -> None:
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1
        stream.codec_context.color_trc = trc
        stream.codec_context.color_primaries = primaries

    return set_up


@pytest.mark.parametrize("height", [96, 720])
def test_written_colours_come_back(height: int, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, size=(height, 192), fps=Fraction(25)) as writer:
        for _ in range(3):
            writer.write(patches(height))
    with open_video(path) as video:
        assert max(errors(video[1])) <= 3


def test_written_file_is_tagged(tmp_path: Path) -> None:
    """Untagged, browsers would guess, and show red as (255, 24, 0)."""
    import av

    path = tmp_path / "out.mp4"
    with VideoWriter(path, size=(96, 192), fps=Fraction(25)) as writer:
        writer.write(patches(96))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == "yuv420p"
        found = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
        assert found == (1, 1, 1, 1)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "name"), [(1, "ITU709"), (6, "ITU601"), (5, "ITU601")])
def test_tagged_files(matrix: int, name: str, full: bool, clips: Any, tmp_path: Path) -> None:
    clip = clips.write(
        tmp_path / "tagged.mp4",
        [patches(96)],
        size=(96, 192),
        set_up=tags(matrix=matrix, full=full),
        dst_colorspace=name,
        dst_color_range="JPEG" if full else "MPEG",
    )
    with open_video(clip) as video:
        assert max(errors(video[0])) <= 4


@pytest.mark.parametrize(("height", "name"), [(576, "ITU601"), (578, "ITU709")])
def test_untagged_files(height: int, name: str, clips: Any, tmp_path: Path) -> None:
    """Players take BT.601 for standard definition and BT.709 above; so do we."""
    clip = clips.write(
        tmp_path / "untagged.mp4", [patches(height)], size=(height, 192), dst_colorspace=name
    )
    with open_video(clip) as video:
        assert max(errors(video[0])) <= 4


def test_ten_bit(clips: Any, tmp_path: Path) -> None:
    clip = clips.write(
        tmp_path / "deep.mp4",
        [patches(96)],
        size=(96, 192),
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": "log-level=none:bframes=0"},
        set_up=tags(matrix=1),
        dst_colorspace="ITU709",
    )
    with open_video(clip) as video:
        assert video.info.bit_depth == 10 and not video.info.hdr
        assert video.notes == ("10-bit video is shown in 8 bit.",)
        assert max(errors(video[0])) <= 6


def test_rgb_file(clips: Any, tmp_path: Path) -> None:
    clip = clips.write(
        tmp_path / "rgb.mkv",
        [patches(96)],
        size=(96, 192),
        codec="ffv1",
        pix_fmt="bgr0",
        time_base=Fraction(1, 1000),
    )
    with open_video(clip) as video:
        assert errors(video[0]) == [0] * 6


@pytest.mark.parametrize("trc", [PQ, HLG])
def test_hdr_is_tone_mapped(trc: int, clips: Any, tmp_path: Path) -> None:
    """Code values are written as they are; only the tags say what they mean."""
    steps = np.repeat(np.arange(0, 256, 51, dtype=np.uint8), 32)
    ramp = np.broadcast_to(steps[:, None], (96, 192, 3)).copy()
    clip = clips.write(
        tmp_path / "hdr.mp4",
        [ramp],
        size=(96, 192),
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": "log-level=none:bframes=0"},
        set_up=tags(matrix=9, trc=trc, primaries=9),
        dst_colorspace=9,
    )
    with open_video(clip) as video:
        assert video.info.hdr and video.info.bit_depth == 10
        assert video.notes == ("10-bit HDR video is shown tone-mapped to 8 bit.",)
        row = video[0][48, 16::32].astype(int)
    assert np.ptp(row, axis=1).max() <= 2, "grey stays grey"
    assert (np.diff(row[:, 0]) >= 0).all() and row[0, 0] == 0 and row[-1, 0] > 245
    expected = to_sdr(np.repeat(steps, 3).reshape(1, -1, 3).astype(np.uint16) * 257, trc)
    assert np.abs(row - expected[0, 16::32].astype(int)).max() <= 6


def code(*channels: float) -> np.ndarray:
    return (np.array([[channels]]) * 65535).round().astype(np.uint16)


def test_tone_map_by_hand() -> None:
    """A white page (203 cd/m2) is bright but not clipped; dark tones are kept as they are."""
    white = to_sdr(code(0.5807, 0.5807, 0.5807), PQ)  # PQ code value of 203 cd/m2 (BT.2408)
    # linear 1.0 -> knee 0.6 + 0.4 * 0.4 / (0.4 + 0.4) = 0.8 -> sRGB 0.906 -> 231
    assert np.abs(white.astype(int) - 231).max() <= 1
    # PQ 0.4 is 32.5 cd/m2: linear 0.16, below the knee -> sRGB 0.437 -> 111
    assert np.abs(to_sdr(code(0.4, 0.4, 0.4), PQ).astype(int) - 111).max() <= 2
    # HLG 0.75 is the same white: 203 cd/m2 on a display of 1000 cd/m2 (BT.2408)
    assert np.abs(to_sdr(code(0.75, 0.75, 0.75), HLG).astype(int) - 231).max() <= 1
    assert to_sdr(code(0, 0, 0), PQ).max() == 0
    assert to_sdr(code(1, 1, 1), PQ).min() >= 250  # 10,000 cd/m2


def test_tone_map_keeps_hues() -> None:
    """BT.2020's own red lies outside BT.709: it becomes its purest red, bright or not."""
    for level in (0.4, 0.7, 1.0):
        red, green, blue = to_sdr(code(level, 0, 0), PQ)[0, 0].tolist()
        assert red > 60 and green == 0 and blue <= 2
    # A BT.709 red of 100 cd/m2 inside BT.2020, (62.7, 6.9, 1.6) cd/m2, in PQ code values.
    red, green, blue = to_sdr(code(0.4626, 0.2565, 0.1438), PQ)[0, 0].tolist()
    assert red > 170 and green <= 8 and blue <= 8


def test_wide_gamut_without_hdr() -> None:
    """BT.2020 with an ordinary curve: greys stay, colours get stronger."""
    grey = to_sdr(code(0.5, 0.5, 0.5), 14)
    assert np.abs(grey.astype(int) - 128).max() <= 1
    red, green, _ = to_sdr(code(0.6, 0.3, 0.3), 14)[0, 0].tolist()
    assert red > 0.6 * 255 and green < 0.3 * 255
