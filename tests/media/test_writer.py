"""What is written is what was given: pictures, time stamps, size; and never half a file."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from media import InputError
from media.video import VideoWriter, open_video

FPS = Fraction(30000, 1001)


def write(path: Path, clips: Any, count: int = 24, **options: Any) -> list[str]:
    options = {"size": (96, 144), "fps": FPS, **options}
    with VideoWriter(path, **options) as writer:
        for number in range(count):
            writer.write(clips.paint(number, *options["size"]))
    return writer.notes


def test_frames_and_rate(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    assert write(path, clips) == []
    with open_video(path) as video:
        assert clips.numbers(video.frames()) == list(range(24))
        assert video.info.fps == FPS
        assert video.info.duration == pytest.approx(24 / float(FPS), abs=1e-9)
        assert video.info.codec == "h264" and video.info.notes == ()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_index_comes_first(clips: Any, tmp_path: Path) -> None:
    """A browser can begin to play before it has the whole file."""
    write(tmp_path / "out.mp4", clips)
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    "time_base", [Fraction(1, 24000), Fraction(1, 1000), Fraction(1001, 60000)]
)
def test_variable_frame_rate_is_exact(time_base: Fraction, clips: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    durations = rng.integers(1, 90, 40).tolist()
    pts = [0, *np.cumsum(durations).tolist()]
    path = tmp_path / "vfr.mp4"
    with VideoWriter(path, size=(96, 144), fps=Fraction(24), time_base=time_base) as writer:
        for number, duration in enumerate(durations):
            writer.write(clips.paint(number), pts[number], duration)
    with open_video(path) as video:
        scale = video.info.time_base / time_base
        assert [p * scale for p in video.pts.tolist()] == pts[:-1]
        assert [d * scale for d in video.durations.tolist()] == durations  # the last one too
        assert clips.numbers(video.frames()) == list(range(40))


def test_copy_of_a_variable_rate_video(clips: Any, tmp_path: Path) -> None:
    """From the reader's time stamps to the writer's and back; the first frame moves to 0."""
    pts = [3000, 3100, 3900, 4000, 7000]
    source = clips.write(tmp_path / "in.mkv", 5, pts=pts, time_base=Fraction(1, 1000))
    with open_video(source) as video:
        info = video.info
        with VideoWriter(
            tmp_path / "out.mp4", size=info.size, fps=info.fps, time_base=info.time_base
        ) as writer:
            for k, frame in enumerate(video.frames()):
                writer.write(frame, int(video.pts[k]), int(video.durations[k]))
    with open_video(tmp_path / "out.mp4") as video:
        seconds = [float(p * video.info.time_base) for p in video.pts]
        assert seconds == pytest.approx([0, 0.1, 0.9, 1.0, 4.0], abs=1e-9)


def test_frame_rate_that_the_time_base_cannot_hold(clips: Any, tmp_path: Path) -> None:
    """30 a second in milliseconds: 33, 34, 33, 33, ...; nothing adds up to a drift."""
    path = tmp_path / "out.mp4"
    write(path, clips, 60, fps=Fraction(30), time_base=Fraction(1, 1000))
    with open_video(path) as video:
        seconds = np.array([float(p * video.info.time_base) for p in video.pts])
        assert np.abs(seconds - np.arange(60) / 30).max() <= 0.0006


@pytest.mark.parametrize("size", [(97, 145), (96, 145), (97, 144), (1, 1), (2, 3)])
def test_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = np.kron(
        rng.integers(60, 200, (-(-size[0] // 16), -(-size[1] // 16), 1), dtype=np.uint8),
        np.ones((16, 16, 3), np.uint8),
    )[: size[0], : size[1]]
    with VideoWriter(tmp_path / "odd.mp4", size=size, fps=FPS) as writer:
        writer.write(frame)
    assert len(writer.notes) == 1 and f"{size[1]}x{size[0]}" in writer.notes[0]
    with open_video(tmp_path / "odd.mp4") as video:
        assert video.info.size == size
        assert np.abs(video[0].astype(int) - frame).mean() < 3
    with av.open(str(tmp_path / "odd.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert picture.shape[:2] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert np.abs(picture[-1] - picture[size[0] - 1]).max() <= 4, "the edge is repeated"


@pytest.mark.parametrize("ending", [".webm", ".mov"])
def test_transparency(ending: str, clips: Any, tmp_path: Path) -> None:
    """Colours and alpha come back, with time stamps and sound, and our reader shows the colours."""
    source = clips.write(tmp_path / "source.mp4", 24, sound={})
    path = tmp_path / f"out{ending}"
    pts = [40 * k + 7 * (k > 5) for k in range(24)]  # in ms
    frames = [
        np.dstack([clips.paint(k, 95, 143), np.zeros((95, 143), np.uint8)]) for k in range(24)
    ]
    for k, frame in enumerate(frames):
        frame[20:60, 30 + k : 90 + k, 3] = 255
    base = Fraction(1, 1000)
    with VideoWriter(
        path, size=(95, 143), fps=Fraction(25), time_base=base, audio_from=source
    ) as writer:
        for stamp, frame in zip(pts, frames, strict=True):
            writer.write(frame, stamp, 40)
    assert any("95" in note for note in writer.notes)
    decoded = clips.decode_alpha(path)
    assert [round(f.time * 1000) for f in decoded] == pts
    for frame, picture in zip(frames, decoded, strict=True):
        alpha = picture.reformat(format="rgba").to_ndarray()[:95, :143, 3]
        assert ((alpha > 127) == (frame[..., 3] > 0)).mean() > 0.995
    with open_video(path) as video:
        assert clips.numbers(video.frames()) == list(range(24))
        assert video.info.size == (95, 143) and video.info.has_audio
        red = video[3][80:90, 5:30].reshape(-1, 3).mean(0)
        assert np.abs(red - (230, 20, 20)).max() < 6
    with (
        pytest.raises(ValueError, match="expected uint8"),
        VideoWriter(tmp_path / f"rgb{ending}", size=(96, 144), fps=FPS) as writer,
    ):
        writer.write(clips.paint(0))


def test_wrong_frames_and_time_stamps(clips: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="expected uint8"),
        VideoWriter(tmp_path / "out.mp4", size=(96, 144), fps=FPS) as writer,
    ):
        writer.write(np.zeros((96, 140, 3), np.uint8))
    with (
        pytest.raises(ValueError, match="not after"),
        VideoWriter(tmp_path / "out.mp4", size=(96, 144), fps=FPS) as writer,
    ):
        writer.write(clips.paint(0), 5)
        writer.write(clips.paint(1), 5)
    with pytest.raises(ValueError, match="no frame"):
        write(tmp_path / "none.mp4", clips, 0)


# ------------------------------------------------------------------------ never half a file


def test_nothing_is_left_after_an_exception(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"an older result")
    with pytest.raises(RuntimeError), VideoWriter(path, size=(96, 144), fps=FPS) as writer:
        for number in range(10):
            writer.write(clips.paint(number))
        assert (tmp_path / "out.mp4.part").exists()
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_bytes() == b"an older result"


def test_the_source_is_never_replaced(clips: Any, tmp_path: Path) -> None:
    source = clips.write(tmp_path / "in.mp4", 5, sound={})
    before = source.read_bytes()
    (tmp_path / "link.mp4").symlink_to(source)
    for target in (source, tmp_path / "link.mp4", tmp_path / "x" / ".." / "in.mp4"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="would replace"):
            VideoWriter(target, size=(96, 144), fps=FPS, audio_from=source)
        with open_video(source), pytest.raises(InputError, match="would replace"):
            VideoWriter(target, size=(96, 144), fps=FPS)
    assert source.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    cases = {
        tmp_path / "out.avi": "has to end with .mp4",
        tmp_path / "missing" / "out.mp4": "cannot be written to",
        Path("/proc/out.mp4"): "cannot be written to",
    }
    (tmp_path / "folder.mp4").mkdir()
    cases[tmp_path / "folder.mp4"] = "is a folder"
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            VideoWriter(path, size=(96, 144), fps=FPS)
    with pytest.raises(InputError, match="at most 16384"):
        VideoWriter(tmp_path / "out.mp4", size=(16, 16400), fps=FPS)
    with pytest.raises(InputError, match="does not exist"):
        VideoWriter(tmp_path / "out.mp4", size=(8, 8), fps=FPS, audio_from=tmp_path / "none.mp4")


@pytest.mark.parametrize("limit", [20_000, 80_000])
def test_full_disk(limit: int, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: while writing, and only at the end."""
    code = f"""
import resource, sys
from fractions import Fraction
import numpy as np
from media.video import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
rng = np.random.default_rng(0)
try:
    with VideoWriter("out.mp4", size=(96, 144), fps=Fraction(25)) as writer:
        for _ in range(10 if {limit} == 80_000 else 60):
            writer.write(rng.integers(0, 255, (96, 144, 3), dtype=np.uint8))
except OSError as error:
    print(error)
    sys.exit(3)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 3, run.stderr
    assert run.stdout.startswith("out.mp4 could not be finished") and run.stdout.endswith(".\n")
    assert list(tmp_path.iterdir()) == []
