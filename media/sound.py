"""The sound of one video carried over beside the new pictures of another, in step with them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.stream import Discard

from media.index import open_container, read_packets
from media.info import Budget

_COPIED = {"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"}  # what mp4 holds and players play
_AAC_RATES = {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000}
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_BITS_PER_CHANNEL = 96_000


class Sound:
    """One sound track on its way into an mp4, a little at a time.

    Args:
        source: The file it comes from, open; closed by `close`.
        track: The sound track in it.
        output: Where to write it. The stream is added at once, packets by `write`.
        span: (start, end) in seconds on the source's clock; all of it if None.
    """

    def __init__(
        self,
        source: InputContainer,
        track: AudioStream,
        output: OutputContainer,
        span: tuple[float, float] | None,
    ) -> None:
        self._source = source
        self._track = track
        self._output = output
        self._span = None if span is None else (Fraction(span[0]), Fraction(span[1]))
        self._packets: Iterator[av.Packet] | None = None
        self._waiting: av.Packet | None = None
        for other in source.streams:
            if other is not track:
                other.discard = Discard.all
        self.copies = codec_name(track) in _COPIED
        if self.copies:
            self._target = output.add_stream_from_template(track)
        else:
            rate = track.rate if track.rate in _AAC_RATES else 48_000
            layout = _LAYOUTS.get(track.channels, "stereo")
            self._target = output.add_stream("aac", rate=rate, layout=layout)
            self._target.bit_rate = _BITS_PER_CHANNEL * self._target.channels

    @property
    def start(self) -> Fraction:
        """Seconds on the source's clock at which the sound begins."""
        if self._track.start_time is None or self._track.time_base is None:
            return Fraction(0)
        return self._track.start_time * self._track.time_base

    def write(self, origin: Fraction, until: Fraction | None) -> None:
        """Write the packets that come before a moment.

        Args:
            origin: The source's time that becomes 0; the same in every call.
            until: Seconds in the new file; None for all that is left.
        """
        if self._packets is None:
            self._packets = self._copied(origin) if self.copies else self._converted(origin)
            self._waiting = next(self._packets, None)
        while (packet := self._waiting) is not None:
            if until is not None and (packet.pts or 0) * packet.time_base >= until:
                return
            self._output.mux(packet)
            self._waiting = next(self._packets, None)

    def close(self) -> None:
        """Close the source; harmless when done twice."""
        self._source.close()

    def _copied(self, origin: Fraction) -> Iterator[av.Packet]:
        """Packets that sound within the span. One that reaches over its start comes along; its time
        stamp is negative and mp4's edit list keeps its head silent.
        """
        start, end = self._span or (None, None)
        for packet in read_packets(self._source, self._track):
            if packet.pts is None or not packet.size:
                continue
            begins = packet.pts * packet.time_base
            ends = begins + (packet.duration or 0) * packet.time_base
            if start is not None and ends <= start:
                continue
            if end is not None and begins >= end:
                return
            shift = round(origin / packet.time_base)
            packet.dts = (packet.pts if packet.dts is None else packet.dts) - shift
            packet.pts -= shift
            packet.stream = self._target
            yield packet

    def _converted(self, origin: Fraction) -> Iterator[av.Packet]:
        """AAC packets; silence fills what is missing before the sound and inside it."""
        graph = self._trimming_graph(origin)
        for frame in chain(self._decoded(), [None]):
            try:
                graph.push(frame)
            except av.error.EOFError:  # past the end of the span
                break
            yield from self._encoded(graph)
        yield from self._encoded(graph)
        yield from self._target.encode(None)

    def _decoded(self) -> Iterator[av.AudioFrame]:
        for packet in read_packets(self._source, self._track):
            try:
                frames = self._track.decode(packet)
            except av.error.FFmpegError:
                continue  # damaged: silence takes its place
            yield from frames

    def _encoded(self, graph: Graph) -> Iterator[av.Packet]:
        while True:
            try:
                frame = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if isinstance(frame, av.AudioFrame):
                yield from self._target.encode(frame)

    def _trimming_graph(self, origin: Fraction) -> Graph:
        """Cut to the span, move to the new clock, and begin at exactly 0, all to the sample."""
        graph = Graph()
        nodes = [graph.add_abuffer(template=self._track)]
        if self._span is not None:
            start, end = map(float, self._span)
            nodes.append(graph.add("atrim", f"start={start}:end={end}"))
        nodes += [
            graph.add("asetpts", f"PTS-({float(origin)})/TB"),
            graph.add("aresample", f"{self._target.rate}:async=1:first_pts=0"),
            graph.add("aformat", f"sample_fmts=fltp:channel_layouts={self._target.layout.name}"),
            graph.add("abuffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        return graph


def open_sound(
    path: Path, output: OutputContainer, span: tuple[float, float] | None
) -> tuple[Sound | None, list[str]]:
    """The first sound track of a file, if it has one, and notes for the user.

    Packets go over bit by bit as they are; what mp4 cannot hold is converted to AAC, what cannot be
    decoded is left out, and the notes say so.

    Raises:
        InputError: the file cannot be read.
    """
    source = open_container(path, Budget())
    tracks = source.streams.audio
    if not tracks:
        source.close()
        return None, []
    notes = ["Only the first of several sound tracks is kept."] if len(tracks) > 1 else []
    name = codec_name(tracks[0])
    if name is None or not tracks[0].rate:
        source.close()
        return None, [*notes, "The sound cannot be decoded here and is left out."]
    sound = Sound(source, tracks[0], output, span)
    if not sound.copies:
        notes.append(f"The sound ({name}) is converted to AAC: mp4 cannot hold it as it is.")
    return sound, notes


def codec_name(track: AudioStream) -> str | None:
    """ "aac", "vorbis" ...; None if there is no decoder for it."""
    return None if track.codec_context is None else track.codec_context.codec.canonical_name
