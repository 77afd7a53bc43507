"""A video file as upright RGB frames: what its header and its first frame say, put to use."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.video.stream import VideoStream

from media.color import Frame, RgbConverter, is_hdr
from media.decoder import ExactDecoder
from media.index import FrameIndex, build_index, open_container, video_stream
from media.info import Budget, VideoInfo
from media.padding import true_size

_FASTEST = 240  # a header that promises more frames a second is not believed
_DEFAULT_FPS = Fraction(25)
_SAME_SHAPE = 0.01  # pixels that are square within this are left alone
_OBLONG = 4  # pixels more oblong than this are a damaged header


class Turn:
    """How stored frames are turned and mirrored to stand upright.

    Args:
        matrix: The nine numbers of FFmpeg's display matrix (a b u c d v x y w, 16.16 fixed point),
            or None for upright. A stored pixel (x, y) is shown at (a x + c y, b x + d y).
    """

    def __init__(self, matrix: np.ndarray | None) -> None:
        a, b, _, c, d = (1, 0, 0, 0, 1) if matrix is None else matrix[:5].tolist()
        self.transposes = abs(b) > abs(a)
        x, y = (c, b) if self.transposes else (a, d)
        self._steps = (-1 if y < 0 else 1, -1 if x < 0 else 1)

    def __call__(self, stored: Frame) -> Frame:
        """Apply to uint8 (h, w, 3); C-contiguous again."""
        picture = stored.transpose(1, 0, 2) if self.transposes else stored
        return np.ascontiguousarray(picture[:: self._steps[0], :: self._steps[1]])


class Film:
    """A video file behind the surface that `media.video.VideoReader` reads from.

    Args:
        path: The file.
        budget: What is accepted.

    Raises:
        InputError: it is no video, too large, or not one frame can be decoded.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self.path = path
        self.budget = budget
        self.damaged: set[int] = set()
        with open_container(path, budget) as container:
            stream = video_stream(container, path)
            self.index = build_index(container, stream, path, budget)
            self._look_at(container, stream)

    @property
    def pts(self) -> np.ndarray:
        """int64 (n,) time stamps."""
        return self.index.pts

    @property
    def durations(self) -> np.ndarray:
        """int64 (n,) durations."""
        return self.index.durations

    def group_start(self, number: int) -> int:
        """The frame from which decoding has to begin to get frame `number`."""
        return int(self.index.group[number])

    def cursor(self) -> FilmCursor:
        """An independent reading position."""
        return FilmCursor(self)

    def _look_at(self, container: InputContainer, stream: VideoStream) -> None:
        """Learn from the first frame what the header does not say."""
        decoder = ExactDecoder(self.path, self.index, self.budget)
        frame, _ = decoder.frame(0)
        decoder.close()
        side_data: Any = frame.side_data  # its type stubs know other keys than it does
        matrix = side_data.get(SideData.DISPLAYMATRIX)
        self.turn = Turn(None if matrix is None else np.frombuffer(matrix, np.int32))
        self.stored_size = _with_square_pixels(frame, stream.sample_aspect_ratio)
        height, width = self.stored_size
        upright = (width, height) if self.turn.transposes else (height, width)
        self.budget.check_frame(self.path.name, *upright)

        time_base = stream.time_base or Fraction(1, av.time_base)
        total = int(self.pts[-1] - self.pts[0] + self.durations[-1]) * time_base
        depth = max(component.bits for component in frame.format.components)
        self.info = VideoInfo(
            path=self.path,
            size=true_size(upright, _comment(container)),
            frame_count=len(self.index),
            fps=_frame_rate(stream.average_rate, len(self.index), total),
            time_base=time_base,
            duration=float(total),
            codec=stream.codec_context.codec.canonical_name,
            has_audio=bool(container.streams.audio),
            bit_depth=depth,
            hdr=is_hdr(frame),
            rotation=round(frame.rotation / 90) * 90 % 360,
            notes=tuple(_notes(self.index, depth, is_hdr(frame))),
        )


class FilmCursor:
    """One reading position in a film, with a file handle of its own."""

    def __init__(self, film: Film) -> None:
        self._film = film
        self._decoder = ExactDecoder(film.path, film.index, film.budget)
        self._to_rgb = RgbConverter(film.stored_size)

    def read(self, number: int) -> Frame:
        """Frame `number`; where it is damaged, the one before it."""
        frame, intact = self._decoder.frame(number)
        if not intact:
            self._film.damaged.add(number)
        height, width = self._film.info.size
        return np.ascontiguousarray(self._film.turn(self._to_rgb(frame))[:height, :width])

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        self._decoder.close()


def _comment(container: InputContainer) -> str:
    found = {key.lower(): value for key, value in container.metadata.items()}  # webm shouts keys
    return found.get("comment", "")


def _with_square_pixels(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """(height, width) of the frame once its pixels are square; like browsers, never smaller."""
    height, width = frame.height, frame.width
    if not aspect or abs(aspect - 1) < _SAME_SHAPE or not 1 / _OBLONG <= aspect <= _OBLONG:
        return height, width
    if aspect > 1:
        return height, round(width * aspect)
    return round(height / aspect), width


def _frame_rate(promised: Fraction | None, count: int, total: Fraction) -> Fraction:
    """Average frames per second: the header's, unless silly or at odds with the time stamps."""
    believable = promised is not None and 0 < promised <= _FASTEST
    if count < 2:
        return promised if promised is not None and believable else _DEFAULT_FPS
    measured = count / total
    if promised is not None and believable and abs(promised / measured - 1) < 0.01:
        return promised
    return measured.limit_denominator(100_000)


def _notes(index: FrameIndex, depth: int, hdr: bool) -> Iterator[str]:
    if index.promised:
        yield f"{len(index)} of {index.promised} frames can be read; the file ends too early."
    if index.hidden:
        yield (
            f"{index.hidden} of {len(index) + index.hidden} frames are left out: each has the time "
            "stamp of another one, as above 1000 frames a second in mkv."
        )
    if hdr:
        yield f"{depth}-bit HDR video is shown tone-mapped to 8 bit."
    elif depth > 8:
        yield f"{depth}-bit video is shown in 8 bit."
