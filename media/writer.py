"""Writing video with the source's time stamps and sound: for browsers, and with transparency.

The ending of the file decides: .mp4 is H.264, which every browser plays; .webm (VP9) and .mov
(ProRes 4444) take frames with an alpha channel, for web pages and for editing programs.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from media.color import Frame, YuvConverter
from media.errors import InputError
from media.padding import pad_to_even, size_tag
from media.pictures import is_picture
from media.reader import is_being_read
from media.sound import Sound, mux, open_sound


@dataclass(frozen=True)
class _Format:
    """What an ending stands for."""

    container: str
    codec: str
    pixels: str  # as FFmpeg calls the pixel format
    channels: int  # of a frame: 3 RGB, 4 RGB and alpha
    sounds: frozenset[str]  # kinds that go over as they are
    sound: str  # the encoder for all others
    options: dict[str, str]


# What the container holds and players play.
_MP4_SOUNDS = frozenset({"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"})
_FORMATS = {
    # veryfast: 720p in real time on two cores; slower ones gain a few percent of size.
    ".mp4": _Format("mp4", "libx264", "yuv420p", 3, _MP4_SOUNDS, "aac", {"preset": "veryfast"}),
    ".webm": _Format(
        "webm", "libvpx-vp9", "yuva420p", 4, frozenset({"opus", "vorbis"}), "libopus",
        # Its default, alternate reference frames, cannot be had together with alpha.
        {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "auto-alt-ref": "0"},
    ),
    ".mov": _Format(
        "mov", "prores_ks", "yuva444p10le", 4, _MP4_SOUNDS - {"opus", "flac"}, "aac",
        {"profile": "4444"},
    ),
}  # fmt: skip
_SECONDS_BETWEEN_KEY_FRAMES = 2  # a player, and our own reader, can go anywhere quickly
_LONGEST_SIDE = 16_384
_LEAD = Fraction(1, 10)  # sound that starts this much before the picture is more than codec delay


class VideoWriter:
    """Writes frames (BT.709, tagged as such) into a file of the kind its ending says.

    Everything goes to PATH.part, which becomes PATH when the writer is closed without an error and
    is removed otherwise. Time stamps and durations are exact, with variable frame rates too (in a
    webm to the millisecond); the first frame is moved to time 0 and the sound along with it.

    Args:
        path: The file to write: .mp4 for RGB frames; .webm or .mov for RGBA frames, alpha not
            multiplied into the colours. An older file of that name is replaced.
        size: (height, width) of the frames. Where one is odd, an edge pixel is repeated (coded
            video has even sizes only), `notes` says so, and `open_video` takes it off again.
        fps: Frame rate, for frames without a time stamp and for the encoder's rate control.
        time_base: Seconds per unit of a time stamp; 1 / fps if None.
        audio_from: A video whose sound is carried over; nothing happens if it has none.
        audio_range: (start, end) in seconds on that video's clock: only this part of the sound,
            start being shown with the first frame.
        crf: Quality, 0 (lossless) to 51; 18 is nearly indistinguishable from the source. ProRes
            has a fixed one.

    Raises:
        InputError: the file cannot be written there, or would replace a video being read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        fps: Fraction,
        time_base: Fraction | None = None,
        audio_from: str | Path | None = None,
        audio_range: tuple[float, float] | None = None,
        crf: int = 18,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.notes: list[str] = []
        source = None if audio_from is None else Path(audio_from)
        self._part = self.path.with_name(self.path.name + ".part")
        self._fps = Fraction(fps)
        self._time_base = time_base or 1 / self._fps
        self._span = audio_range
        self._count = 0
        self._first_pts: int | None = None
        self._last_pts = self._next_pts = 0
        self._sound: Sound | None = None
        self._check_target(source)
        self._format = _FORMATS[self.path.suffix.lower()]
        self._to_yuv = YuvConverter(self._format.pixels)
        options = {} if self._format.container == "webm" else {"movflags": "+faststart"}
        self._container: OutputContainer | None = av.open(
            str(self._part.absolute()),
            "w",
            format=self._format.container,
            container_options=options,
        )
        try:
            self._stream = self._add_picture(self._container, crf)
            if source is not None and source.is_file() and not is_picture(source):
                self._sound, notes = open_sound(
                    source, self._container, audio_range,
                    copied=self._format.sounds, encoder=self._format.sound,
                )  # fmt: skip
                self.notes += notes
        except BaseException:
            self.abort()
            raise

    def write(self, frame: Frame, pts: int | None = None, duration: int | None = None) -> None:
        """Write the next frame.

        Args:
            frame: uint8 (h, w, 3) RGB of the writer's size; (h, w, 4) RGBA for webm and mov.
            pts: When it is shown, in units of `time_base`; right after the frame before if None.
            duration: How long it is shown, in the same units; matters for the last frame, for the
                others the next time stamp decides. One frame at `fps` if None.

        Raises:
            OSError: the disk is full or the file cannot be written; in one sentence.
            ValueError: the frame has another size, or the time stamps do not rise.
        """
        if self._container is None:
            raise ValueError("the writer is closed")
        shape = (*self.size, self._format.channels)
        if frame.shape != shape or frame.dtype != np.uint8:
            raise ValueError(f"expected uint8 {shape}, got {frame.dtype} {frame.shape}")
        step = 1 / (self._fps * self._time_base)
        if duration is None:
            duration = max(1, round((self._count + 1) * step) - round(self._count * step))
        if pts is None:
            pts = self._next_pts
        elif self._first_pts is not None and pts <= self._last_pts:
            raise ValueError(f"time stamp {pts} is not after {self._last_pts}")
        if self._first_pts is None:
            self._first_pts = pts
            self._set_clock(pts)
        self._count += 1
        self._last_pts, self._next_pts = int(pts), int(pts) + int(duration)

        picture = self._to_yuv(pad_to_even(frame))
        picture.pts = self._last_pts - self._first_pts + self._delay
        picture.time_base = self._time_base
        picture.duration = int(duration)
        with self._explaining_errors():
            self._mux_picture(self._stream.encode(picture))
            if self._sound is not None:
                self._sound.write(self._origin, (picture.pts + picture.duration) * self._time_base)

    def close(self) -> None:
        """Finish the file and give it its name; harmless when done twice.

        Raises:
            OSError: the disk is full or the file cannot be written; in one sentence.
            ValueError: no frame was written.
        """
        if self._container is None:
            return
        if self._first_pts is None:
            self.abort()
            raise ValueError("no frame was written")
        with self._explaining_errors():
            self._mux_picture(self._stream.encode(None))
            if self._sound is not None:
                self._sound.write(self._origin, None)
                self._sound.close()
                if self._sound.is_damaged:
                    self.notes.append("Damaged parts of the sound are left out.")
            self._container.close()
            self._part.replace(self.path)
        self._container = None

    def abort(self) -> None:
        """Throw away what was written; harmless when done twice."""
        if self._sound is not None:
            self._sound.close()
        if self._container is not None:
            with contextlib.suppress(av.error.FFmpegError):
                self._container.close()
        self._container = None
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _check_target(self, source: Path | None) -> None:
        """Refuse a target before any work is done for it."""
        path = self.path
        if path.suffix.lower() not in _FORMATS:
            raise InputError(
                f"{path.name} has to end with .mp4, or with .webm or .mov where a video has "
                "transparent parts."
            )
        if max(self.size) > _LONGEST_SIDE:
            raise InputError(
                f"Coded pictures have at most {_LONGEST_SIDE} pixels on a side; these have "
                f"{max(self.size)}: make the video smaller."
            )
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the name of a file in it.")
        if source is not None and not source.exists():
            raise InputError(f"{source} does not exist: check the name.")
        same = source is not None and path.exists() and path.samefile(source)
        if same or is_being_read(path):
            raise InputError(f"{path.name} would replace the video it is made from: give another.")
        try:
            self._part.open("wb").close()
        except OSError as error:
            raise InputError(
                f"{path.parent} cannot be written to ({error.strerror}): choose another folder."
            ) from error

    def _add_picture(self, container: OutputContainer, crf: int) -> VideoStream:
        height, width = (side + side % 2 for side in self.size)
        if (height, width) != self.size:
            container.metadata["comment"] = size_tag(self.size)
            self.notes.append(
                f"Coded video has even sizes only: {self.size[1]}x{self.size[0]} is stored as "
                f"{width}x{height} with the last pixels repeated."
            )
        stream = container.add_stream(
            self._format.codec,
            rate=self._fps.limit_denominator(100_000),
            options={**self._format.options, "crf": str(crf)},
        )
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, self._format.pixels
        stream.time_base = stream.codec_context.time_base = self._time_base
        stream.gop_size = max(1, min(round(_SECONDS_BETWEEN_KEY_FRAMES * self._fps), 250))
        stream.codec_context.flags |= Flags.frame_duration
        stream.bit_rate = 0  # or VP9 keeps to one in place of a quality
        stream.max_b_frames = 0  # they need edit lists and blur how long the last frame is shown
        stream.colorspace = Colorspace.ITU709
        stream.color_primaries = ColorPrimaries.BT709
        stream.color_trc = ColorTrc.BT709
        stream.color_range = ColorRange.MPEG
        return stream

    def _mux_picture(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            # Packets of sound wait to be interleaved, so their damage may come to light here.
            if self._container is not None and not mux(self._container, packet) and self._sound:
                self._sound.is_damaged = True

    def _set_clock(self, first_pts: int) -> None:
        """Decide which moment of the source becomes 0, so that picture and sound stay in step."""
        self._origin = first_pts * self._time_base
        self._delay = 0
        if self._sound is None:
            return
        if self._span is not None:
            self._origin = Fraction(self._span[0])
            return
        sound_start = self._sound.start
        if sound_start < self._origin - _LEAD:
            self._delay = round((self._origin - sound_start) / self._time_base)
            self._origin = sound_start

    @contextlib.contextmanager
    def _explaining_errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            self.abort()
            raise OSError(_explanation(error, self.path)) from error
        except BaseException:
            self.abort()
            raise


def _explanation(error: Exception, path: Path) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        return f"The disk is full: {path.name} could not be finished; free some space."
    if number == errno.EFBIG:
        return f"{path.name} could not be finished: it grew larger than a file may be here."
    return f"{path.name} could not be written: {getattr(error, 'strerror', None) or error}."
