"""What is known of a video before its frames are read, and how much of it will be accepted."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from media.errors import InputError


@dataclass(frozen=True)
class Budget:
    """How large a video may be; checked from the header, before anything is decoded.

    A file of 268 KB can unfold to 60 GB of pixels, so the size of the file says nothing. A limit
    that stops somebody can be raised by the command line option that the message names.

    Args:
        max_frame_pixels: Height times width of one frame; 9,437,184 is a little over 4K.
        max_total_pixels: Frames times pixels per frame.
        max_seconds: Duration.
    """

    max_frame_pixels: int = 9_437_184
    max_total_pixels: int = 400_000_000_000
    max_seconds: float = 10_800.0

    def check_frame(self, name: str, height: int, width: int) -> None:
        """Raise InputError if a single frame of this size is too large."""
        pixels = height * width
        if pixels > self.max_frame_pixels:
            raise InputError(
                f"{name} is {width}x{height}, {pixels / 1e6:.1f} megapixels a frame, and the limit "
                f"is {self.max_frame_pixels / 1e6:.1f}: make it smaller or raise --max-megapixels."
            )

    def check_length(
        self, name: str, frame_count: int, frame_pixels: int, seconds: float = 0.0
    ) -> None:
        """Raise InputError if so many frames, or so long a time, are too much."""
        if seconds > self.max_seconds:
            raise InputError(
                f"{name} lasts {seconds / 60:.1f} minutes and the limit is "
                f"{self.max_seconds / 60:.1f}: cut it into parts or raise --max-minutes."
            )
        pixels = frame_count * frame_pixels
        if pixels > self.max_total_pixels:
            raise InputError(
                f"{name} holds {frame_count} frames, {pixels / 1e9:.1f} gigapixels in all, and the "
                f"limit is {self.max_total_pixels / 1e9:.1f}: cut it into parts or make it smaller."
            )


@dataclass(frozen=True)
class VideoInfo:
    """What one needs to know of an opened video.

    Args:
        path: The file or folder.
        size: (height, width) as shown: rotated upright, pixels made square.
        frame_count: Frames that can be read (not what the header says).
        fps: Average frame rate.
        time_base: Seconds per unit of a time stamp.
        duration: Seconds from the first time stamp to the end of the last frame.
        codec: Short name, "h264"; for pictures the kind of file, "png".
        has_audio: There is a sound track.
        bit_depth: Bits per colour channel in the file; frames always come out as 8 bit.
        hdr: The file is high dynamic range (PQ or HLG); frames come out tone-mapped.
        rotation: Degrees counter-clockwise by which stored frames are turned to stand upright
            (0, 90, 180, 270); already applied to the frames.
        notes: Sentences for the user about what is unusual here.
    """

    path: Path
    size: tuple[int, int]
    frame_count: int
    fps: Fraction
    time_base: Fraction
    duration: float
    codec: str
    has_audio: bool = False
    bit_depth: int = 8
    hdr: bool = False
    rotation: int = 0
    notes: tuple[str, ...] = ()
