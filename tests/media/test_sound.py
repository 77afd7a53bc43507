"""Sound goes over bit by bit, or converted where it must be, and stays in step with the picture."""

from __future__ import annotations

import hashlib
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from media.video import VideoWriter, open_video

MILLI = Fraction(1, 1000)
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}


def copy(source: Path, target: Path, span: tuple[int, int] | None = None) -> list[str]:
    """Read and write again, all of it or the frames of `span` with their sound."""
    with open_video(source) as video:
        info = video.info
        first, stop = span or (0, len(video))
        end = video.pts[stop - 1] + video.durations[stop - 1]
        seconds = (float(video.pts[first] * info.time_base), float(end * info.time_base))
        with VideoWriter(
            target,
            size=info.size,
            fps=info.fps,
            time_base=info.time_base,
            audio_from=source,
            audio_range=seconds if span else None,
        ) as writer:
            for k, frame in enumerate(video.frames(first, stop), start=first):
                writer.write(frame, int(video.pts[k]), int(video.durations[k]))
    return writer.notes


def packets(path: Path, strip: int = 0) -> list[str]:
    with av.open(str(path)) as container:
        return [
            hashlib.md5(bytes(packet)[strip:]).hexdigest()
            for packet in container.demux(audio=0)
            if packet.size
        ]


def loudness(path: Path) -> tuple[float, np.ndarray]:
    """Seconds from the first picture to the first sample, and how loud each 10 ms are."""
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).time
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        resampler = av.AudioResampler("flt", "mono", 48000)
        parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
    samples = np.concatenate(parts)
    blocks = samples[: len(samples) // 480 * 480].reshape(-1, 480)
    return frames[0].time - picture, np.abs(blocks).max(axis=1)


def onsets(path: Path) -> list[float]:
    """Seconds after the first picture at which the tone sets in; silence before counts."""
    offset, levels = loudness(path)
    loud = levels > 0.15
    rises = np.flatnonzero(loud & ~np.roll(loud, 1) & (np.arange(len(loud)) > 0))
    first = [0] if loud[0] else []
    return [offset + 0.01 * int(k) for k in [*first, *rises]]


COPIED: dict[str, dict[str, Any]] = {
    "aac.mp4": {"sound": {}},
    "aac.mkv": {"sound": {}, "time_base": MILLI},
    "mp3.avi": {"sound": {"codec": "libmp3lame"}, "time_base": Fraction(1, 24)},
    "opus.webm": {"sound": {"codec": "libopus"}, "time_base": MILLI, **VP9},
    "flac.mkv": {"sound": {"codec": "flac"}, "time_base": MILLI},
    "ac3.mkv": {"sound": {"codec": "ac3", "layout": "5.1"}, "time_base": MILLI},
    "alac.mp4": {"sound": {"codec": "alac"}},
}
CONVERTED: dict[str, dict[str, Any]] = {
    "pcm.mkv": {"sound": {"codec": "pcm_s16le", "rate": 44100}, "time_base": MILLI},
    "odd_rate.mkv": {
        "sound": {"codec": "pcm_s16le", "rate": 11000, "layout": "mono"},
        "time_base": MILLI,
    },
    "vorbis.mkv": {
        "sound": {"codec": "vorbis", "options": {"strict": "experimental"}},
        "time_base": MILLI,
    },
    "mp2.mpg": {"codec": "mpeg2video", "sound": {"codec": "mp2"}, "time_base": Fraction(1, 24)},
    "four_channels.mkv": {"sound": {"codec": "pcm_s16le", "layout": "quad"}, "time_base": MILLI},
}


@pytest.mark.parametrize("kind", COPIED)
def test_packets_are_copied_bit_by_bit(kind: str, clips: Any, tmp_path: Path) -> None:
    source = clips.write(tmp_path / kind, 60, **COPIED[kind])
    assert copy(source, tmp_path / "out.mp4") == []
    assert packets(tmp_path / "out.mp4") == packets(source)
    assert onsets(tmp_path / "out.mp4") == pytest.approx(onsets(source), abs=0.03)


def test_transport_stream(clips: Any, tmp_path: Path) -> None:
    """AAC in a transport stream carries a header on each packet, which mp4 keeps elsewhere."""
    source = clips.write(tmp_path / "in.ts", 60, sound={})
    assert copy(source, tmp_path / "out.mp4") == []
    assert packets(tmp_path / "out.mp4") == packets(source, strip=7)
    assert onsets(tmp_path / "out.mp4")[1:] == pytest.approx(onsets(source)[1:], abs=0.03)


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_mp4_cannot_hold_is_converted(kind: str, clips: Any, tmp_path: Path) -> None:
    source = clips.write(tmp_path / kind, 60, **CONVERTED[kind])
    (note,) = copy(source, tmp_path / "out.mp4")
    assert "converted to AAC" in note
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    assert onsets(tmp_path / "out.mp4") == pytest.approx([0, 1, 2], abs=0.03)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_that_starts_later_than_the_picture(codec: str, clips: Any, tmp_path: Path) -> None:
    source = clips.write(
        tmp_path / "in.mkv", 60, time_base=MILLI, sound={"codec": codec, "start": 0.4}
    )
    copy(source, tmp_path / "out.mp4")
    assert onsets(tmp_path / "out.mp4") == pytest.approx([0.4, 1.4, 2.4], abs=0.03)
    if codec == "pcm_s16le":
        assert loudness(tmp_path / "out.mp4")[0] == 0, "silence is filled in"


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_that_starts_earlier_than_the_picture(codec: str, clips: Any, tmp_path: Path) -> None:
    pts = [500 + round(1000 * k / 24) for k in range(60)]
    source = clips.write(tmp_path / "in.mkv", 60, time_base=MILLI, pts=pts, sound={"codec": codec})
    copy(source, tmp_path / "out.mp4")
    assert onsets(tmp_path / "out.mp4") == pytest.approx([-0.5, 0.5, 1.5], abs=0.03)


@pytest.mark.parametrize("kind", ["aac.mp4", "aac.mkv", "opus.webm", "pcm.mkv", "mp2.mpg"])
def test_trim(kind: str, clips: Any, tmp_path: Path) -> None:
    """1.25 s to 2.75 s of a tone that is on from 1 to 1.5 and from 2 to 2.5."""
    source = clips.write(tmp_path / kind, 84, **{**COPIED, **CONVERTED}[kind])
    copy(source, tmp_path / "out.mp4", span=(30, 66))
    with open_video(tmp_path / "out.mp4") as video:
        assert clips.numbers(video.frames()) == list(range(30, 66))
        picture_seconds = video.info.duration
    offset, levels = loudness(tmp_path / "out.mp4")
    loud = np.flatnonzero(levels > 0.15) * 0.01 + offset
    assert loud[0] == pytest.approx(0, abs=0.04)
    gap = loud[np.flatnonzero(np.diff(loud) > 0.2)[0]]
    assert gap == pytest.approx(0.25, abs=0.04), "the tone stops half a second after 1.0"
    assert loud[loud > gap + 0.1][0] == pytest.approx(0.75, abs=0.04)
    assert offset + 0.01 * len(levels) == pytest.approx(picture_seconds, abs=0.06)
    with av.open(str(tmp_path / "out.mp4")) as container:
        kept = [p.duration * p.time_base for p in container.demux(audio=0) if p.size]
    assert float(sum(kept)) == pytest.approx(picture_seconds, abs=0.06), "the rest is not hidden"


def test_without_sound(clips: Any, tmp_path: Path) -> None:
    source = clips.write(tmp_path / "in.mp4", 5)
    assert copy(source, tmp_path / "out.mp4") == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_sound_that_cannot_be_decoded(clips: Any, tmp_path: Path) -> None:
    """The video is written all the same, and the note says what is missing."""
    source = clips.write(tmp_path / "in.mkv", 24, time_base=MILLI, sound={"codec": "pcm_s16le"})
    data = source.read_bytes()
    assert data.count(b"A_PCM/INT/LIT") == 1
    source.write_bytes(data.replace(b"A_PCM/INT/LIT", b"A_UNKNOWN/XYZ"))
    assert copy(source, tmp_path / "out.mp4") == [
        "The sound cannot be decoded here and is left out."
    ]
    with open_video(tmp_path / "out.mp4") as video:
        assert len(video) == 24 and not video.info.has_audio


def test_picture_folder_as_source_of_sound(clips: Any, tmp_path: Path) -> None:
    with VideoWriter(
        tmp_path / "out.mp4", size=(96, 144), fps=Fraction(25), audio_from=tmp_path
    ) as writer:
        writer.write(clips.paint(0))
    assert writer.notes == []


def test_sound_of_a_truncated_file(clips: Any, tmp_path: Path) -> None:
    whole = clips.write(tmp_path / "whole.mkv", 60, time_base=MILLI, sound={"codec": "flac"})
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    copy(cut, tmp_path / "out.mp4")
    with open_video(cut) as source, open_video(tmp_path / "out.mp4") as video:
        assert len(video) == len(source)
    kept = packets(tmp_path / "out.mp4")
    assert 10 < len(kept) and kept == packets(whole)[: len(kept)]


def test_damaged_sound_is_skipped(clips: Any, tmp_path: Path) -> None:
    """The video is written all the same; what is left of the sound stays in step."""
    source = clips.write(tmp_path / "in.ts", 60, sound={})
    data = bytearray(source.read_bytes())
    headers = [k for k in range(len(data) - 1) if data[k] == 0xFF and data[k + 1] & 0xF6 == 0xF0]
    for k in headers[15:25]:  # beginnings of AAC packets
        data[k : k + 4] = b"\0\0\0\0"
    source.write_bytes(data)
    assert copy(source, tmp_path / "out.mp4") == ["Damaged parts of the sound are left out."]
    assert 60 < len(packets(tmp_path / "out.mp4")) < 118
    with av.open(str(tmp_path / "out.mp4")) as container:
        *_, last = (p.pts * p.time_base for p in container.demux(audio=0) if p.size)
    assert float(last) == pytest.approx(2.5, abs=0.05), "the gap is not closed up"
    with open_video(tmp_path / "out.mp4") as video:
        assert clips.numbers(video.frames()) == list(range(60))


def test_sound_out_of_order(clips: Any, tmp_path: Path) -> None:
    """A packet whose time stamp lies before its predecessor's; mp4 cannot say that."""
    source = clips.write(tmp_path / "in.mkv", 60, time_base=MILLI, sound={})
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packet = [p for p in container.demux(audio=0) if p.size][30]
    # A block: track number (one byte), time in its cluster (two bytes), flags, the packet.
    (time,) = struct.unpack_from(">h", data, packet.pos + 1)
    struct.pack_into(">h", data, packet.pos + 1, time - 60)
    source.write_bytes(data)
    assert copy(source, tmp_path / "out.mp4") == ["Damaged parts of the sound are left out."]
    expected = packets(source)
    assert packets(tmp_path / "out.mp4") == [*expected[:30], *expected[31:]]
