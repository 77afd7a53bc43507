"""Every way to get at a frame gives exactly that frame, from every kind of file."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from media import InputError
from media import reader as reader_module
from media.decoder import ExactDecoder
from media.film import FilmCursor
from media.video import Budget, VideoReader, open_video

COUNT = 48
_RNG = np.random.default_rng(0)
VFR_PTS = [0, *np.cumsum(_RNG.integers(500, 3000, COUNT - 1)).tolist()]
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
HEVC = {"codec": "libx265", "options": {"x265-params": "log-level=none:open-gop=1:bframes=3"}}
MILLI = Fraction(1, 1000)
FRAME = Fraction(1, 24)


def b_frames(stream: Any) -> None:
    stream.max_b_frames = 2


KINDS: dict[str, dict[str, Any]] = {
    "cfr.mp4": {},
    "vfr.mp4": {"pts": VFR_PTS},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0:b-adapt=0"}},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:bframes=0"}},
    "one_group.mp4": {"options": {"g": "1000"}},
    "late_start.mp4": {"pts": [126_000 + 1000 * k for k in range(COUNT)]},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc_open_gop.mp4": HEVC,
    "matroska.mkv": {"time_base": MILLI},
    "matroska_vfr.mkv": {"time_base": MILLI, "pts": [p // 20 for p in VFR_PTS]},
    "vp9.webm": {"time_base": MILLI, **VP9},
    "h264.ts": {},
    "hevc_open_gop.ts": HEVC,
    "mpeg2.mpg": {"codec": "mpeg2video", "time_base": FRAME, "set_up": b_frames},
    "mpeg4.avi": {"codec": "mpeg4", "time_base": FRAME, "set_up": b_frames},
    "h264_without_pts.avi": {"time_base": FRAME},
    "h264.flv": {"time_base": MILLI},
    "lossless.mkv": {"codec": "ffv1", "time_base": MILLI},
}


@pytest.fixture(scope="module")
def make(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each kind of clip is encoded once."""
    folder = tmp_path_factory.mktemp("kinds")
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = clips.write(folder / kind, COUNT, **KINDS[kind])
        return made[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_every_access_gives_the_same_frames(kind: str, make: Any, clips: Any) -> None:
    with open_video(make(kind)) as video:
        assert len(video) == video.info.frame_count == COUNT
        assert clips.numbers(video.frames()) == list(range(COUNT))
        assert clips.numbers(video.frames(backwards=True)) == list(range(COUNT))[::-1]
        order = random.Random(kind).sample(range(COUNT), COUNT)
        assert clips.numbers(video[k] for k in order) == order
        assert not video.damaged
        assert video.notes == ()


@pytest.mark.parametrize("kind", ["vfr.mp4", "matroska_vfr.mkv", "late_start.mp4"])
def test_time_stamps_are_kept(kind: str, make: Any) -> None:
    base = KINDS[kind].get("time_base", Fraction(1, 24000))
    expected = np.array(KINDS[kind]["pts"])
    with open_video(make(kind)) as video:
        found = video.pts * video.info.time_base / base
        if kind.endswith(".mp4"):
            assert found.tolist() == expected.tolist()
        assert np.diff(found).tolist() == np.diff(expected).tolist()
        assert video.durations[:-1].tolist() == np.diff(video.pts).tolist()


def test_edit_list(make: Any, clips: Any, tmp_path: Path) -> None:
    """A clip cut without encoding anew shows frames 17 on, though the file holds those from 12."""
    for name, source in (("cfr", "cfr.mp4"), ("vfr", "vfr.mp4")):
        cut = _cut(make(source), tmp_path / f"{name}.mp4", first_shown=17)
        with open_video(cut) as video:
            shown = list(range(17, COUNT))
            assert clips.numbers(video.frames()) == shown
            assert clips.numbers(video.frames(backwards=True)) == shown[::-1]
            order = random.Random(0).sample(range(len(shown)), len(shown))
            assert clips.numbers(video[k] for k in order) == [shown[k] for k in order]
            assert video.notes == ()  # what the edit list leaves out is not missing


def _cut(source: Path, target: Path, *, first_shown: int) -> Path:
    """Copy packets with time stamps moved so that a frame in mid-group falls on 0."""
    with open_video(source) as video:
        origin = int(video.pts[first_shown])
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        copying = False
        for packet in read.demux(video=0):
            copying = copying or (packet.is_keyframe and packet.pts == int(video.pts[12]))
            if copying and packet.dts is not None:
                packet.pts -= origin
                packet.dts -= origin
                packet.stream = stream
                write.mux(packet)
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_no_frame_depends_on_a_later_key_frame(kind: str, make: Any) -> None:
    """The first frames after a key frame in the file may be shown, and need others, before it."""
    with open_video(make(kind)) as video:
        index = video._source.index  # type: ignore[attr-defined]
        assert (index.key_pts[index.key] <= index.pts).all()
        assert (index.group <= np.arange(COUNT)).all() and (np.diff(index.group) >= 0).all()
        if "open_gop" in kind or kind == "cfr.mp4":
            assert len(set(index.group)) >= 3


@pytest.mark.parametrize("ticks", [3000, 30_000, 10**9])
def test_seeks_that_land_too_far(ticks: int, make: Any, clips: Any) -> None:
    with open_video(make("cfr.mp4")) as video:
        video._source.index.key_seek[:] += ticks  # type: ignore[attr-defined]
        order = random.Random(0).sample(range(COUNT), COUNT)
        assert clips.numbers(video[k] for k in order) == order


def test_sequential_access_needs_no_seek(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seeks: list[int] = []
    seek = ExactDecoder._seek
    monkeypatch.setattr(
        ExactDecoder, "_seek", lambda self, key: (seeks.append(key), seek(self, key))[1]
    )
    with open_video(make("cfr.mp4")) as video:
        for k in range(10, COUNT):
            video[k]
            video[k - 1]  # a neighbour is in the cache
    assert len(seeks) <= 1


def test_iterators_are_independent(make: Any, clips: Any) -> None:
    with open_video(make("cfr.mp4")) as video:
        pairs = zip(video.frames(), video.frames(backwards=True), strict=True)
        for k, (forwards, backwards) in enumerate(pairs):
            found = clips.numbers([forwards, backwards, video[(k * 7) % COUNT]])
            assert found == [k, COUNT - 1 - k, (k * 7) % COUNT]


def test_ranges_and_negative_indices(make: Any, clips: Any) -> None:
    with open_video(make("cfr.mp4")) as video:
        assert clips.numbers(video.frames(20, 23)) == [20, 21, 22]
        assert clips.numbers(video.frames(20, 23, backwards=True)) == [22, 21, 20]
        assert clips.numbers(video.frames(46, 400)) == [46, 47]
        assert clips.number(video[-1]) == COUNT - 1
        for outside in (COUNT, -COUNT - 1):
            with pytest.raises(IndexError):
                video[outside]


def test_frames_are_contiguous_rgb(make: Any) -> None:
    with open_video(make("cfr.mp4")) as video:
        frame = video[3]
        assert frame.dtype == np.uint8 and frame.shape == (*video.info.size, 3)
        assert frame.flags.c_contiguous
        assert np.abs(frame[90, 5].astype(int) - (230, 20, 20)).max() < 12  # red, not blue


@pytest.mark.parametrize("backwards", [False, True])
def test_memory_stays_constant(backwards: bool, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the clip and its groups of pictures, only so many frames are alive."""
    frame_bytes = 96 * 144 * 3
    monkeypatch.setattr(reader_module, "_BACKWARDS_BYTES", 5 * frame_bytes)
    monkeypatch.setattr(reader_module, "_CACHE_BYTES", 5 * frame_bytes)
    alive: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
    read = FilmCursor.read
    most = 0

    def counting(self: FilmCursor, number: int) -> np.ndarray:
        nonlocal most
        frame = read(self, number)
        alive[len(alive) + 1000 * number] = frame
        most = max(most, len(alive))
        return frame

    monkeypatch.setattr(FilmCursor, "read", counting)
    with open_video(make("one_group.mp4")) as video:
        assert sum(1 for _ in video.frames(backwards=backwards)) == COUNT
        assert most <= 7
        for k in range(COUNT):
            video[k]
        assert most <= 7


def test_close_twice(make: Any) -> None:
    video = open_video(make("cfr.mp4"))
    video[0]
    video.close()
    video.close()


# ------------------------------------------------------------------------- what the header says


def test_info(make: Any) -> None:
    with VideoReader(make("vfr.mp4")) as video:
        info = video.info
        assert info.size == (96, 144)
        assert info.codec == "h264"
        assert (info.bit_depth, info.hdr, info.has_audio, info.rotation) == (8, False, False, 0)
        total = int(video.pts[-1] + video.durations[-1] - video.pts[0]) * info.time_base
        assert info.duration == pytest.approx(float(total))
        assert float(info.fps) == pytest.approx(COUNT / float(total), rel=0.01)


@pytest.mark.parametrize("promised", [1000, 1])
def test_silly_frame_rate_in_the_header(promised: int, clips: Any, tmp_path: Path) -> None:
    """The header says 1000 (or 1) frames a second, the time stamps say 25."""
    clip = clips.write(
        tmp_path / "silly.mkv", 20, fps=promised, time_base=MILLI, pts=[40 * k for k in range(20)]
    )
    with av.open(str(clip)) as container:
        assert container.streams.video[0].average_rate == promised
    with open_video(clip) as video:
        assert float(video.info.fps) == pytest.approx(25, rel=0.05)
        assert clips.numbers(video.frames()) == list(range(20))


def test_a_thousand_real_frames_a_second(clips: Any, tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "fast.mp4", 20, fps=1000)
    with open_video(clip) as video:
        assert video.info.fps == 1000
        assert video.info.duration == pytest.approx(0.02)


def test_single_frame(clips: Any, tmp_path: Path) -> None:
    with open_video(clips.write(tmp_path / "one.mp4", 1)) as video:
        assert len(video) == 1 and clips.number(video[0]) == 0
        assert 0 < video.info.fps <= 240 and video.info.duration > 0


def test_one_pixel(clips: Any, tmp_path: Path) -> None:
    frames = [np.full((1, 1, 3), 10 * k, np.uint8) for k in range(5)]
    clip = clips.write(tmp_path / "tiny.mkv", frames, codec="ffv1", size=(1, 1), time_base=MILLI)
    with open_video(clip) as video:
        assert video.info.size == (1, 1)
        assert [int(frame[0, 0, 0]) for frame in video.frames()] == pytest.approx(
            [10 * k for k in range(5)], abs=2
        )


@pytest.mark.parametrize(
    ("degrees", "mirrored"), [(90, False), (180, False), (270, False), (0, True), (90, True)]
)
def test_rotation(degrees: int, mirrored: bool, clips: Any, tmp_path: Path) -> None:
    plain = clips.write(tmp_path / "plain.mp4", 3)
    turned = clips.write(
        tmp_path / "turned.mp4",
        3,
        set_up=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored),
    )
    with open_video(plain) as upright, open_video(turned) as video:
        for stored, shown in zip(upright.frames(), video.frames(), strict=True):
            turned_only = np.rot90(stored, degrees // 90)  # counter-clockwise
            expected = turned_only[:, ::-1] if mirrored else turned_only
            assert np.array_equal(shown, expected)
            assert shown.flags.c_contiguous
        assert video.info.size == expected.shape[:2]
        if not mirrored:
            assert video.info.rotation == degrees


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(2), (96, 288)),
        (Fraction(1, 2), (192, 144)),
        (Fraction(720, 719), (96, 144)),  # rounding of some encoders
        (Fraction(200), (96, 144)),  # nonsense
    ],
)
def test_pixels_are_made_square(
    aspect: Fraction, size: tuple[int, int], clips: Any, tmp_path: Path
) -> None:
    def set_up(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    with open_video(clips.write(tmp_path / "wide.mp4", 3, set_up=set_up)) as video:
        assert video.info.size == size
        assert clips.numbers(video.frames()) == [0, 1, 2]
        assert video[0].shape == (*size, 3)


def test_titles_that_are_not_utf8(clips: Any, tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "old.mkv", 3, time_base=MILLI, title="MARKER")
    clip.write_bytes(clip.read_bytes().replace(b"MARKER", b"M\xe4RK\xffR"))
    with open_video(clip) as video:
        assert len(video) == 3


def test_frames_too_fast_for_their_time_stamps_are_said(clips: Any, tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "fast.mkv", 24, time_base=MILLI, pts=[i // 2 for i in range(24)])
    with open_video(clip) as video:
        assert len(video) == len(list(video.frames())) == 12
        assert video.notes[0].startswith("12 of 24 frames are left out")


# --------------------------------------------------------------------------------- damaged files


def test_truncated(clips: Any, tmp_path: Path) -> None:
    whole = clips.write(tmp_path / "whole.mp4", container_options={"movflags": "+faststart"})
    with av.open(str(whole)) as container:
        packet = [p for p in container.demux(video=0) if p.size][30]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: packet.pos + packet.size // 2])
    with open_video(cut) as video:
        readable = len(video)
        assert readable == 30
        assert video.notes == (
            f"{readable} of {COUNT} frames can be read; the file ends too early.",
        )
        numbers = clips.numbers(video.frames())
        assert numbers[0] == 0 and numbers == sorted(numbers)
        assert clips.numbers(video.frames(backwards=True)) == numbers[::-1]


def test_truncated_without_a_count(clips: Any, tmp_path: Path) -> None:
    whole = clips.write(tmp_path / "whole.mkv", 100, time_base=MILLI, sound={})
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: int(len(data) * 0.5)])
    with open_video(whole) as video:
        assert video.notes == ()
    with open_video(cut) as video:
        assert 20 < len(video) < 80
        (note,) = video.notes
        assert note.startswith(f"{len(video)} of ") and "ends too early" in note


def test_damaged_packets_keep_the_numbering(clips: Any, tmp_path: Path) -> None:
    """Two packets of noise: their frames repeat the one before, all others stay where they are."""
    clip = clips.write(
        tmp_path / "intra.mp4", codec="mpeg4", options={"g": "1"}, time_base=Fraction(1, 24000)
    )
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        for number in (20, 31):
            packet = packets[number]
            data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    expected = [k - (k in (20, 31)) for k in range(COUNT)]
    with open_video(damaged) as video:
        assert clips.numbers(video.frames()) == expected
        assert video.damaged == {20, 31}
        assert video.notes[-1] == "2 frames are damaged; the frame before is shown in place."
        order = random.Random(0).sample(range(COUNT), COUNT)
        assert clips.numbers(video[k] for k in order) == [expected[k] for k in order]
        assert clips.numbers(video.frames(backwards=True)) == expected[::-1]


def test_damaged_key_frame(make: Any, clips: Any, tmp_path: Path) -> None:
    """Frames that need it are lost; the frame before, of the group before, is not."""
    data = bytearray(make("open_gop.mp4").read_bytes())
    with av.open(str(make("open_gop.mp4"))) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    place = [k for k, p in enumerate(packets) if p.is_keyframe][2]
    packet = packets[place]
    data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    with open_video(damaged) as video:
        key = int(np.searchsorted(video.pts, packet.pts))
        numbers = clips.numbers(video.frames(0, key))
        assert numbers[: key - 4] == list(range(key - 4))
        assert clips.number(video[key]) == clips.number(video[key - 1]) == numbers[-1]
        assert key in video.damaged


def test_damaged_first_frame(clips: Any, tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "intra.mp4", 10, codec="mpeg4", options={"g": "1"})
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packet = next(container.demux(video=0))
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    clip.write_bytes(data)
    with open_video(clip) as video:
        assert clips.numbers(video.frames()) == [1, *range(1, 10)]


def test_size_that_changes_in_the_middle(clips: Any, tmp_path: Path) -> None:
    small = clips.write(tmp_path / "small.ts", 12)
    large = clips.write(
        tmp_path / "large.ts", 12, size=(192, 288), pts=[1000 * k for k in range(20, 32)]
    )
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with open_video(both) as video:
        assert {frame.shape for frame in video.frames()} == {(96, 144, 3)}
        assert clips.numbers(video.frames()) == [*range(12), *range(12)]
    # Frames that the header did not announce are not decoded beyond the budget.
    with open_video(both, budget=Budget(max_frame_pixels=96 * 144)) as video:
        numbers = clips.numbers(video.frames())
        assert numbers[:10] == list(range(10))
        assert set(numbers[12:]) == {numbers[11]}
        assert video.damaged >= set(range(12, 24))


# ------------------------------------------------------------------------------ what is refused


def _refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_video(path, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_files_that_are_no_videos(clips: Any, tmp_path: Path) -> None:
    whole = clips.write(tmp_path / "whole.mp4").read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"This is no video.\n" * 100,
        "noise.mp4": np.random.default_rng(0).bytes(50_000),
        "no_index.mp4": whole[: len(whole) // 2],  # the index (moov) stands at the end
    }
    # FFmpeg could read this one; what it opens is kept to a list of common containers.
    rare = clips.write(tmp_path / "rare.nut", 5, codec="ffv1")
    contents["rare.mp4"] = rare.read_bytes()
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert name in _refusal(path)


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    assert "does not exist" in _refusal(tmp_path / "missing.mp4")
    assert "no pictures" in _refusal(tmp_path)


@pytest.mark.parametrize("address", ["http://example.com/a.mp4", "rtsp://camera", "file:///a.mp4"])
def test_addresses_are_refused(address: str) -> None:
    assert "address" in _refusal(address)


def test_only_sound(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        for k in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 48000, 1024 * k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "only sound" in _refusal(path)


def test_no_frames(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = 96, 144, "yuv420p"
        container.start_encoding()
    assert "none.mkv" in _refusal(path)


def test_playlists_in_disguise(make: Any, tmp_path: Path) -> None:
    video = make("h264.ts")
    contents = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{video}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{video}'\n",
    }
    for name, text in contents.items():
        path = tmp_path / name
        path.write_text(text)
        _refusal(path)


def test_file_names_are_not_taken_for_protocols(
    make: Any, clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:a;b (x)%03d.mp4").write_bytes(make("cfr.mp4").read_bytes())
    with open_video("concat:a;b (x)%03d.mp4") as video:
        assert clips.number(video[5]) == 5


# ----------------------------------------------------------------------------------- the budget


def test_bomb_is_refused_from_its_header(
    clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some KB that unfold to 48 MB a frame."""
    black = (np.zeros((4096, 4096, 3), np.uint8) for _ in range(2))
    bomb = clips.write(
        tmp_path / "bomb.mp4", black, size=(4096, 4096), options={"preset": "ultrafast"}
    )
    assert bomb.stat().st_size < 60_000
    monkeypatch.setattr(ExactDecoder, "frame", None)  # decoding would fail otherwise
    message = _refusal(bomb)
    assert "4096x4096" in message and "16.8" in message and "--max-megapixels" in message


@pytest.mark.parametrize("side", [16000, 16384])
def test_sixteen_thousand_pixels_wide(side: int, clips: Any, tmp_path: Path) -> None:
    """A small file whose header claims huge frames, the second more than FFmpeg itself takes."""
    clip = clips.write(tmp_path / "wide.avi", 2, codec="ffv1", time_base=FRAME)
    true, claimed = struct.pack("<ii", 144, 96), struct.pack("<ii", side, side)
    data = clip.read_bytes()
    assert data.count(true) >= 2  # in the main header and in that of the stream
    clip.write_bytes(data.replace(true, claimed))
    assert "over the limit of 9.4 megapixels" in _refusal(clip)


def test_too_many_frames_and_too_long(make: Any) -> None:
    clip = make("cfr.mp4")
    pixels = 96 * 144
    assert "gigapixels" in _refusal(clip, budget=Budget(max_total_pixels=(COUNT - 1) * pixels))
    assert "--max-minutes" in _refusal(clip, budget=Budget(max_seconds=1.9))
    with open_video(clip, budget=Budget(pixels, COUNT * pixels, 2.1)) as video:
        assert len(video) == COUNT


def test_more_frames_than_the_header_says(make: Any) -> None:
    """Matroska has no count; the budget is kept while the frames are counted."""
    budget = Budget(max_total_pixels=20 * 96 * 144)
    assert "21 frames" in _refusal(make("lossless.mkv"), budget=budget)


def test_nothing_is_imported_that_is_heavy() -> None:
    code = "import media, sys; assert not {'av', 'cv2', 'torch', 'imageio'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
