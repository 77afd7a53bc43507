"""Small videos whose every frame says which one it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

_BITS = 9
_BACKGROUND = 40


class Clips:
    """Makes and reads the test clips. Frame i shows i as bars, dark 0 and bright 1, lowest first.

    A corner is red and another blue, so that turned and mirrored frames can be told apart.
    """

    @staticmethod
    def paint(number: int, height: int = 96, width: int = 144) -> np.ndarray:
        """uint8 (h, w, 3) RGB."""
        frame = np.full((height, width, 3), _BACKGROUND, np.uint8)
        for bit in range(_BITS):
            left, right = bit * width // _BITS, (bit + 1) * width // _BITS
            frame[height // 8 : height // 2, left:right] = 220 if number >> bit & 1 else 20
        frame[height * 3 // 4 :, : width // 4] = (230, 20, 20)
        frame[height * 3 // 4 :, width * 3 // 4 :] = (20, 20, 230)
        return frame

    @staticmethod
    def number(frame: np.ndarray) -> int:
        """The number that an upright frame shows."""
        height, width = frame.shape[:2]
        rows = frame[height * 3 // 16 : height * 7 // 16]
        bars = [
            rows[:, (4 * bit + 1) * width // (4 * _BITS) : (4 * bit + 3) * width // (4 * _BITS)]
            for bit in range(_BITS)
        ]
        return sum(int(bar.mean() > 120) << bit for bit, bar in enumerate(bars))

    @classmethod
    def numbers(cls, frames: Iterable[np.ndarray]) -> list[int]:
        return [cls.number(frame) for frame in frames]

    @classmethod
    def write(
        cls,
        path: Path,
        frames: int | Iterable[np.ndarray] = 48,
        *,
        pts: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 24000),
        fps: int = 24,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        size: tuple[int, int] = (96, 144),
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        set_up: Callable[[Any], object] | None = None,
        sound: dict[str, Any] | None = None,
        title: str = "",
        **reformat: Any,
    ) -> Path:
        """Encode frames 0, 1, ... (or the given ones) with a key frame every 12 and B-frames.

        `set_up` is called with the stream before encoding; `sound` are arguments of `_Tone`.
        """
        if isinstance(frames, int):
            frames = (cls.paint(number, *size) for number in range(frames))
        with av.open(str(path), "w", container_options=container_options or {}) as container:
            container.metadata["title"] = title
            stream = container.add_stream(codec, rate=fps, options=options or {})
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            stream.gop_size = 12
            stream.codec_context.time_base = time_base
            if set_up:
                set_up(stream)
            tone = None if sound is None else _Tone(container, **sound)
            step = int(1 / (time_base * fps))
            for number, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
                picture = picture.reformat(format=pix_fmt, **reformat)
                picture.pts = number * step if pts is None else pts[number]
                picture.time_base = time_base
                container.mux(stream.encode(picture))
                if tone:
                    tone.until(float((number + 1) * step * time_base))
            container.mux(stream.encode(None))
            if tone:
                container.mux(tone.stream.encode(None))
        return path

    @staticmethod
    def decode_alpha(path: Path) -> list[av.VideoFrame]:
        """Frames with their alpha plane, which FFmpeg's own VP9 decoder leaves out."""
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.codec_context.name != "vp9":
                return list(container.decode(stream))
            decoder = av.CodecContext.create("libvpx-vp9", "r")
            return [frame for packet in container.demux(stream) for frame in decoder.decode(packet)]


class _Tone:
    """A sound track: half a second of tone, half a second of silence, and so on."""

    def __init__(
        self,
        container: Any,
        codec: str = "aac",
        rate: int = 48000,
        layout: str = "stereo",
        start: float = 0.0,
        options: dict[str, str] | None = None,
    ) -> None:
        self.container, self.rate, self.layout = container, rate, layout
        self.first = round(start * rate)
        self.done = 0
        self.stream = container.add_stream(codec, rate=rate, layout=layout, options=options or {})

    def until(self, seconds: float) -> None:
        while self.done < seconds * self.rate:
            time = (self.done + np.arange(1024)) / self.rate
            wave = np.sin(2 * np.pi * 440 * time) * (time % 1 < 0.5) * 0.5
            channels = len(av.AudioLayout(self.layout).channels)
            planes = np.repeat(wave.astype(np.float32)[None], channels, axis=0)
            frame = av.AudioFrame.from_ndarray(planes, "fltp", self.layout)
            frame.sample_rate = self.rate
            frame.time_base = Fraction(1, self.rate)
            frame.pts = self.first + self.done
            self.done += 1024
            self.container.mux(self.stream.encode(frame))


@pytest.fixture(scope="session")
def clips() -> type[Clips]:
    return Clips
