"""Opening a video file safely, and the index of its frames that makes every access exact.

What a header says (frame count, frame rate, key frames) is a hint; FFmpeg's seeking is approximate,
differs between formats, and forgets edit lists. So every packet is looked at once, undecoded
(50 ms for 300 frames of 720p), and from then on a frame number means one certain time stamp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from media.errors import InputError
from media.info import Budget

# Playlists and concat scripts can name other files and hosts; only plain containers are opened.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv"
_KINDS = "mp4, mov, mkv, webm, avi, ts, mpg, wmv or flv"
_GIVE_UP_AFTER = 50  # read errors in a row without a packet between them
_TOLERANCE = 1.0  # seconds that a duration in a header may be too long


def open_container(path: Path, budget: Budget) -> InputContainer:
    """Open a local video file with the formats and protocols narrowed down.

    Raises:
        InputError: it is not one of the accepted kinds of video, or cannot be read.
    """
    options = {
        "format_whitelist": _FORMATS,
        "protocol_whitelist": "file",
        # Coded frames are a little larger than shown ones; the header is checked exactly later.
        "max_pixels": str(2 * budget.max_frame_pixels),
    }
    try:
        # An absolute path cannot be taken for a protocol ("concat:..."); old files carry titles
        # that are not UTF-8.
        return av.open(str(path.resolve()), options=options, metadata_errors="replace")
    except PermissionError as error:
        raise InputError(f"{path.name} may not be read: check its permissions.") from error
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{path.name} is not a video that can be read (it may be damaged, cut off before its "
            f"index was written, or of another kind): give {_KINDS}."
        ) from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream to show: the first that is not a cover picture.

    Raises:
        InputError: there is none, or no decoder for it.
    """
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & pictures]
    if not streams:
        what = "only sound" if container.streams.audio else "no video"
        raise InputError(f"{path.name} holds {what}: give a file with moving pictures.")
    if streams[0].codec_context is None:
        raise InputError(
            f"{path.name} is coded in a way that cannot be decoded here: convert it to H.264."
        )
    return streams[0]


def read_packets(container: InputContainer, *streams: Stream) -> Iterator[av.Packet]:
    """Packets in file order, going on after damaged places; the last, empty, is for flushing."""
    failures = 0
    while failures < _GIVE_UP_AFTER:
        try:
            for packet in container.demux(*streams):
                failures = 0
                yield packet
            return
        except av.error.FFmpegError:
            failures += 1
        except IndexError:
            return  # PyAV's flushing stumbles over streams that turn up late in a transport stream


@dataclass(frozen=True)
class FrameIndex:
    """Where each shown frame is.

    Args:
        pts: int64 (n,), time stamps in the order of showing, in the stream's time base.
        durations: int64 (n,), how long each is shown.
        group: int64 (n,), the frame with which decoding has to begin to get frame i; shown at or
            before i. Frames of one group are cheap to read one after the other.
        key: int64 (n,), position in `key_pts` of the key frame that begins the group.
        key_pts: int64 (k,), time stamps of the key frames, in file order, shown or not.
        key_seek: int64 (k,), time stamps to ask FFmpeg for to land on them.
        counted: The time stamps do not say which frame is which (AVI with B-frames stores none of
            showing): frames have to be counted from the beginning.
        promised: Frames that there should be, if fewer came because the file ends early; else 0.
        hidden: Frames that are left out, because their time stamp is that of another one.
    """

    pts: np.ndarray
    durations: np.ndarray
    group: np.ndarray
    key: np.ndarray
    key_pts: np.ndarray
    key_seek: np.ndarray
    counted: bool
    promised: int
    hidden: int

    def __len__(self) -> int:
        return len(self.pts)


def build_index(
    container: InputContainer, stream: VideoStream, path: Path, budget: Budget
) -> FrameIndex:
    """Look at every packet of the stream once, after the header has passed the budget.

    Raises:
        InputError: there is no frame, or more than the budget allows.
    """
    pixels = stream.width * stream.height
    if not pixels:  # FFmpeg keeps silent about sizes beyond `max_pixels`
        raise InputError(
            f"{path.name} has pictures far over the limit of {budget.max_frame_pixels / 1e6:.1f} "
            "megapixels, or is damaged: make it smaller or raise --max-megapixels."
        )
    promised = _promised_frames(container, stream)
    seconds = (container.duration or 0) / av.time_base
    budget.check_frame(path.name, stream.height, stream.width)
    budget.check_length(path.name, promised, pixels, seconds)

    # Without a count of frames the sound has to tell whether the file ends early.
    others = [] if promised else list(container.streams.audio)
    for other in container.streams:
        if other is not stream and other not in others:
            other.discard = Discard.all
    most = budget.max_total_pixels // pixels
    rows: list[tuple[int, int, int, bool, bool]] = []
    seen, last_is_whole, reached = 0, True, 0.0
    for packet in read_packets(container, stream, *others):
        if packet.pts is None:
            continue
        duration = packet.duration or 0
        reached = max(reached, float((packet.pts + duration) * packet.time_base))
        if packet.stream is not stream:
            continue
        seen += 1
        if packet.size:  # AVI repeats a frame by an empty packet
            decoded = packet.pts if packet.dts is None else packet.dts
            rows.append((packet.pts, decoded, duration, not packet.is_discard, packet.is_keyframe))
            last_is_whole = not packet.is_corrupt
            if len(rows) > most:
                budget.check_length(path.name, len(rows), pixels)
    if not last_is_whole:
        rows.pop()
    if not any(shown for *_, shown, _ in rows):
        raise InputError(f"{path.name} holds no frames: it is empty or ends too early.")

    start = (container.start_time or 0) / av.time_base
    if not promised and reached + _TOLERANCE < start + seconds:
        promised = round(len(rows) * seconds / max(reached - start, 1e-3))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    pts, dts, durations, is_shown, is_key = columns
    counted = (
        container.format.name == "avi"
        and bool(stream.codec_context.has_b_frames)
        and bool((np.diff(pts) > 0).all())
    )
    return _arrange(
        pts,
        dts,
        durations,
        is_shown,
        is_key,
        exact_durations=_is_mp4(container),
        counted=counted,
        promised=promised if promised > seen - (not last_is_whole) else 0,
    )


def _promised_frames(container: InputContainer, stream: VideoStream) -> int:
    # The index of an mp4 knows its edit list; the frame count beside it does not.
    return len(stream.index_entries) if _is_mp4(container) else stream.frames


def _is_mp4(container: InputContainer) -> bool:
    return container.format.name.startswith("mov")


def _arrange(
    pts: np.ndarray,
    dts: np.ndarray,
    packet_durations: np.ndarray,
    shown: np.ndarray,
    is_key: np.ndarray,
    *,
    exact_durations: bool,
    counted: bool,
    promised: int,
) -> FrameIndex:
    """From packets in file order to frames in the order of showing."""
    is_key[0] = True
    if counted:
        is_key[1:] = False
    key_place = np.flatnonzero(is_key)
    key_pts = pts[key_place]

    place = np.flatnonzero(shown)
    frame_pts, first = np.unique(pts[place], return_index=True)
    hidden = len(place) - len(first)
    place = place[first]
    # A frame that comes after a key frame in the file but is shown before it (open group of
    # pictures) needs the group before.
    key = np.searchsorted(key_place, place, side="right") - 1
    while (early := (key > 0) & (key_pts[key] > frame_pts)).any():
        key[early] -= 1
    count = np.arange(len(frame_pts))
    return FrameIndex(
        pts=frame_pts,
        durations=_durations(frame_pts, int(packet_durations[place[-1]]), exact_durations),
        group=np.minimum(np.searchsorted(frame_pts, key_pts[key]), count),
        key=key,
        key_pts=key_pts,
        key_seek=np.minimum(dts, pts)[key_place],
        counted=counted,
        promised=promised,
        hidden=hidden,
    )


def _durations(pts: np.ndarray, last: int, exact: bool) -> np.ndarray:
    """Until the next frame; the last one's own, unless it comes from a nonsensical frame rate."""
    steps = np.diff(pts)
    usual = int(np.median(steps)) if len(steps) else max(last, 1)
    if last <= 0 or not (exact or usual / 2 <= last <= usual * 2):
        last = usual
    return np.append(steps, last).astype(np.int64)
