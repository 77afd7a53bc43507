"""Decoding by frame number: seeks where that helps, never trusts where a seek has landed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.stream import Discard

from media.errors import InputError
from media.index import FrameIndex, open_container, read_packets, video_stream
from media.info import Budget

_SEEK_TRIES = 3  # key frames to go back before starting over at the beginning


class ExactDecoder:
    """One open file with one position in it; frames in sequence cost no seek.

    Args:
        path: The video file.
        index: Its index.
        budget: Frames larger than it allows, whatever the header said, are not decoded.
    """

    def __init__(self, path: Path, index: FrameIndex, budget: Budget) -> None:
        self._path = path
        self._index = index
        self._budget = budget
        self._next = 0  # the frame that comes next without a seek
        self._current: tuple[int, av.VideoFrame] | None = None  # the last at or before the wanted
        self._ahead: tuple[int, av.VideoFrame] | None = None  # decoded already, comes after it
        self._open()

    def frame(self, number: int) -> tuple[av.VideoFrame, bool]:
        """Decode frame `number`.

        Returns:
            The frame and True; or, where its data are damaged, the nearest frame before it (after
            it, if there is none) and False.

        Raises:
            InputError: no frame at all can be decoded.
        """
        key = int(self._index.key[number])
        if number < self._next or self._index.group[number] > self._next:
            self._seek(key)
        self._advance(number)
        while self._current is None and key > 0:  # a damaged start of a group: take the one before
            key -= 1
            self._seek(key)
            self._advance(number)
        self._next = number + 1
        found = self._current or self._ahead
        if found is None:
            raise InputError(f"{self._path.name} cannot be decoded: no frame of it is intact.")
        position, frame = found
        return frame, position == number

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        self._container.close()

    def _advance(self, number: int) -> None:
        """Decode until `_current` is the last intact frame up to `number`."""
        while self._ahead is None or self._ahead[0] <= number:
            if self._ahead is not None:
                self._current = self._ahead
                if self._current[0] == number:
                    self._ahead = None
                    return
            self._ahead = next(self._decoded, None)
            if self._ahead is None:
                return

    def _open(self) -> None:
        self._container = open_container(self._path, self._budget)
        self._stream = video_stream(self._container, self._path)
        for other in self._container.streams:
            if other is not self._stream:
                other.discard = Discard.all
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.options = {"max_pixels": str(2 * self._budget.max_frame_pixels)}
        self._start(read_packets(self._container, self._stream))

    def _seek(self, key: int) -> None:
        """Go to a key frame, or to one before it, or to the beginning."""
        for attempt in range(key, max(key - _SEEK_TRIES, -1), -1):
            try:
                self._container.seek(int(self._index.key_seek[attempt]), stream=self._stream)
            except av.error.FFmpegError:
                break
            packets = read_packets(self._container, self._stream)
            first = next((p for p in packets if p.is_keyframe and p.pts is not None), None)
            if first is not None and first.pts <= self._index.key_pts[attempt]:
                self._start(chain([first], packets))
                return
        self.close()
        self._open()

    def _start(self, packets: Iterator[av.Packet]) -> None:
        self._decoded = self._decode(packets)
        self._current = self._ahead = None
        self._next = 0

    def _decode(self, packets: Iterator[av.Packet]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with their numbers."""
        pts, count = self._index.pts, 0
        for packet in packets:
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue  # damaged: its place is filled by the frame before
            for frame in frames:
                if self._index.counted:
                    position, known = count, count < len(pts)
                    count += 1
                elif frame.pts is None:
                    continue
                else:
                    position = int(np.searchsorted(pts, frame.pts))
                    known = position < len(pts) and pts[position] == frame.pts
                if known:
                    yield position, frame
