"""The main job on real footage, as `make demo` runs it: a cyclist who crosses the picture is
painted away."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

import checkpoints
from demo.project import ObjectPrompt, Settings, object_color
from media.files import replacing

# One shot of the clip; the others are cut before and after it.
SHOT = Settings(do="remove", start=30, end=45, trim=True)
PROMPT = ObjectPrompt(
    id=1, name="cyclist", color=object_color(1), frame=36, points=((330.0, 130.0, 1),)
)


def add_tone(source: Path, target: Path, *, rate: int = 48_000) -> None:
    """Copy a silent video and give it a soft tone that rises, so that sound can be heard to stay.

    The picture's packets are copied as they are.
    """
    with (
        replacing(target) as part,
        av.open(str(source)) as video,
        av.open(str(part), "w", format="mp4") as out,
    ):
        stream = video.streams.video[0]
        picture = out.add_stream_from_template(stream)
        sound = out.add_stream("aac", rate=rate, layout="mono")
        for packet in video.demux(stream):
            if packet.dts is not None:
                packet.stream = picture
                out.mux(packet)
        seconds = float((stream.duration or 0) * (stream.time_base or 0))
        time = np.arange(int(rate * seconds)) / rate
        wave = (0.1 * np.sin(2 * np.pi * (220 * time + 20 * time**2))).astype(np.float32)
        for start in range(0, len(wave) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def prepare(folder: Path) -> Path:
    """The sample clip with a tone, in `folder`; made once.

    Raises:
        checkpoints.CheckpointError: the clip has not been fetched.
    """
    clip = folder / "bikes.mp4"
    if not clip.exists():
        source = checkpoints.path("sample_bikes")
        folder.mkdir(parents=True, exist_ok=True)
        add_tone(source, clip)
    return clip
