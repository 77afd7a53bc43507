"""The sound of one video carried over beside the new pictures of another, in step with them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.stream import Discard

from media.index import open_container, read_packets
from media.info import Budget

_NEED_HEADER = {"opus", "flac", "alac", "vorbis"}  # files cannot hold them without set-up data
_PROBED_PACKETS = 20
_AAC_RATES = {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000}
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_BITS_PER_CHANNEL = 96_000


class Sound:
    """One sound track on its way into a video file, a little at a time.

    Args:
        source: The file it comes from, open; closed by `close`.
        track: The sound track in it.
        output: Where to write it. The stream is added at once, packets by `write`.
        span: (start, end) in seconds on the source's clock; all of it if None.
        copied: Codecs whose packets go over as they are.
        encoder: "aac" or "libopus", for all others.
    """

    def __init__(
        self,
        source: InputContainer,
        track: AudioStream,
        output: OutputContainer,
        span: tuple[float, float] | None,
        copied: Collection[str],
        encoder: str,
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
        self.copies = _can_be_copied(track, copied)
        self.is_damaged = False
        if self.copies:
            self._target = output.add_stream_from_template(track)
        else:
            rate = track.rate if encoder == "aac" and track.rate in _AAC_RATES else 48_000
            layout = _LAYOUTS.get(track.channels, "stereo")
            stream = output.add_stream(encoder, rate=rate, layout=layout)
            assert isinstance(stream, AudioStream)
            self._target = stream
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
            self.is_damaged |= not mux(self._output, packet)
            self._waiting = next(self._packets, None)

    def close(self) -> None:
        """Close the source; harmless when done twice."""
        self._source.close()

    def _copied(self, origin: Fraction) -> Iterator[av.Packet]:
        """Packets that sound within the span. One that reaches over its start comes along; its time
        stamp is negative and mp4's edit list keeps its head silent.
        """
        start, end = self._span or (None, None)
        last_dts: int | None = None
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
            if last_dts is not None and packet.dts <= last_dts:
                self.is_damaged = True  # out of order; mp4 cannot say that
                continue
            last_dts = packet.dts
            packet.stream = self._target
            yield packet

    def _converted(self, origin: Fraction) -> Iterator[av.Packet]:
        """Encoded packets; silence fills what is missing before the sound and inside it."""
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
        form, layout = self._target.format.name, self._target.layout.name
        nodes = [graph.add_abuffer(template=self._track)]
        if self._span is not None:
            start, end = map(float, self._span)
            nodes.append(graph.add("atrim", f"start={start}:end={end}"))
        nodes += [
            graph.add("asetpts", f"PTS-({float(origin)})/TB"),
            graph.add("aresample", f"{self._target.rate}:async=1:first_pts=0"),
            graph.add("aformat", f"sample_fmts={form}:channel_layouts={layout}"),
            graph.add("abuffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        return graph


def open_sound(
    path: Path,
    output: OutputContainer,
    span: tuple[float, float] | None,
    *,
    copied: Collection[str],
    encoder: str,
) -> tuple[Sound | None, list[str]]:
    """The first sound track of a file, if it has one, and notes for the user.

    Packets go over bit by bit as they are; what the container cannot hold is converted, what cannot
    be decoded is left out, and the notes say so. For the arguments see `Sound`.

    Raises:
        InputError: the file cannot be read.
    """
    with open_container(path, Budget()) as probed:
        tracks = probed.streams.audio
        if not tracks:
            return None, []
        notes = ["Only the first of several sound tracks is kept."] if len(tracks) > 1 else []
        if not _can_be_decoded(probed, tracks[0]):
            return None, [*notes, "The sound cannot be decoded here and is left out."]
    source = open_container(path, Budget())
    track = source.streams.audio[0]
    sound = Sound(source, track, output, span, copied, encoder)
    if not sound.copies:
        name = track.codec_context.codec.canonical_name
        target, container = encoder.removeprefix("lib").upper(), output.format.name
        notes.append(
            f"The sound ({name}) is converted to {target}: {container} cannot hold it as it is."
        )
    return sound, notes


def mux(output: OutputContainer, packet: av.Packet) -> bool:
    """Write a packet; False if the muxer finds it damaged (which only sound can be)."""
    try:
        output.mux(packet)
    except av.error.InvalidDataError:
        return False
    return True


def _can_be_decoded(source: InputContainer, track: AudioStream) -> bool:
    if track.codec_context is None or not track.rate or not track.channels:
        return False
    for packet in islice(read_packets(source, track), _PROBED_PACKETS):
        with contextlib.suppress(av.error.FFmpegError):
            if track.decode(packet):
                return True
    return False


def _can_be_copied(track: AudioStream, copied: Collection[str]) -> bool:
    name = track.codec_context.codec.canonical_name
    has_header = bool(track.codec_context.extradata)
    return name in copied and (has_header or name not in _NEED_HEADER)
