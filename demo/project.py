"""What one person asked for, what has been done so far, and what of it is out of date.

A project is a folder. Each stage of the pipeline writes its results there and leaves a fingerprint
of everything the result depends on; a stage whose fingerprint still fits is not run again. That is
all there is to resuming after an interruption and to changing one setting and running once more.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from media import InputError
from media.draw import PALETTE
from media.files import replacing
from media.masks import MaskFolder

Task = Literal["track", "segment", "remove"]
Point = tuple[float, float, int]
Box = tuple[float, float, float, float]

MIN_RESOLUTION = 64  # pixels of the longer side
STEADY = 0.6  # of masks; the value that the figures in docs/benchmarks.md speak for

WORK = ".mixcut"  # folder in the project's for what is not a result
DOUBTS = "doubtful.json"
_PATIENCE = 2.0  # seconds in which a run that was stopped just now comes to its end
_KEPT = {"tracks": 400, "masks": 40}  # of old segments, for when something is undone


@dataclass(frozen=True)
class Export:
    """One kind of file that is written when it is asked for.

    Attributes:
        output: its name, or a folder's, among the results.
        needs_masks: whether boxes alone are not enough.
        summary: what it is good for, in a few words.
    """

    output: str
    needs_masks: bool
    summary: str


EXPORTS = {
    "mot": Export("tracks_mot.txt", False, "boxes as MOTChallenge has them"),
    "otb": Export("tracks_otb", False, "boxes as OTB and LaSOT have them (lost: nan)"),
    "vot": Export("tracks_vot", False, "boxes as VOT has them (lost: 0)"),
    "coco": Export("masks_coco.json", True, "masks as COCO run lengths"),
    "matte": Export("matte.mp4", True, "masks as a black-and-white video"),
    "webm": Export("cutout.webm", True, "cut-out with alpha (VP9), for web pages"),
    "mov": Export("cutout.mov", True, "cut-out with alpha (ProRes 4444), for editing"),
    "green": Export("cutout_green.mp4", True, "cut-out before a green screen"),
}
OUTPUTS = (
    "tracked.mp4", "segmented.mp4", "removed.mp4", "masks", "tracks.json", "tracks.csv",
    *(export.output for export in EXPORTS.values()),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class KeyFrame:
    """How the user pointed at an object on one frame.

    Attributes:
        frame: index of the frame.
        points: (x, y, label) in pixels of the shown frame; label 1 = on the object, 0 = not on it.
        box: x0 y0 x1 y1 in pixels.
        mask: a black and white picture of the frame's size, in place of points and box.
    """

    frame: int = 0
    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask: Path | None = None

    @property
    def title(self) -> str:
        """What sentences about it begin with."""
        return f"Frame {self.frame}"

    def __post_init__(self) -> None:
        if self.mask is not None and (self.box is not None or self.points):
            raise InputError(f"{self.title}: give a mask, or points and a box, but not both.")
        if self.mask is None and self.box is None and not any(p[2] == 1 for p in self.points):
            raise InputError(
                f"{self.title}: nothing says where it is; give a box, a mask, or at least one "
                "point on the object."
            )

    def check(self, size: tuple[int, int], frame_count: int) -> None:
        """Raise InputError if it does not fit a video of `size` (height, width)."""
        height, width = size
        if not 0 <= self.frame < frame_count:
            raise InputError(
                f"{self.title}: frame {self.frame} does not exist; the video has frames 0 to "
                f"{frame_count - 1}."
            )
        for x, y, _ in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise InputError(
                    f"{self.title}: the point {x:g},{y:g} is outside the frame, which is {width} "
                    f"pixels wide and {height} high."
                )
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (x1 - x0 >= 1 and y1 - y0 >= 1 and all(map(math.isfinite, self.box))):
                raise InputError(
                    f"{self.title}: the box {x0:g},{y0:g},{x1:g},{y1:g} has no area; give "
                    "x0,y0,x1,y1 with x0 < x1 and y0 < y1."
                )
            if min(x1, width) - max(x0, 0) < 1 or min(y1, height) - max(y0, 0) < 1:
                raise InputError(
                    f"{self.title}: the box {x0:g},{y0:g},{x1:g},{y1:g} lies outside the frame, "
                    f"which is {width} pixels wide and {height} high."
                )


@dataclass(frozen=True, kw_only=True)
class ObjectPrompt(KeyFrame):
    """One thing to follow: the key frame it is followed from, both ways, and what was put right.

    Attributes:
        id: number from 1, the same in every file that is written.
        do: what happens to it; None = what the settings say.
        corrections: other key frames. Each counts from its frame on, away from the first one and up
            to the next: frames on the far side of it, or between others, do not depend on it.
    """

    id: int
    name: str
    color: str
    do: Task | None = None
    corrections: tuple[KeyFrame, ...] = ()

    @property
    def title(self) -> str:
        return self.name

    def __post_init__(self) -> None:
        super().__post_init__()
        frames = [key.frame for key in self.keys]
        if twice := {frame for frame in frames if frames.count(frame) > 1}:
            raise InputError(f"{self.name}: frame {min(twice)} is given twice; say it once.")

    def task(self, most: Task) -> Task:
        """What is done with it in a run that does `most` at the most."""
        tasks = get_args(Task)
        return min(self.do or most, most, key=tasks.index)

    @property
    def keys(self) -> tuple[KeyFrame, ...]:
        """All key frames, the one it is followed from first."""
        return (self, *self.corrections)

    def check(self, size: tuple[int, int], frame_count: int) -> None:
        """See `KeyFrame.check`; the corrections are looked at as well."""
        super().check(size, frame_count)
        for key in self.corrections:
            key.check(size, frame_count)


@dataclass(frozen=True)
class Settings:
    """How to do it; one value for the whole run.

    Attributes:
        do: `track` writes boxes, `segment` masks as well, `remove` also paints the objects away.
        start, end: frames start <= i < end are worked on; None = from the first, to the last.
        trim: write only that range (sound included) instead of the whole video.
        tracker, segmenter, inpainter: names of models; auto = the best one whose weights are here.
        steady: how much the mask of the frame before counts, 0 (not at all) to 0.9; it takes away
            flicker, and where the picture changes the new frame decides alone.
        resolution: longer side, in pixels, of the pictures that the inpainter works on; None = its
            own choice. What is not painted over keeps every pixel anyway.
        dilate: pixels by which masks grow before painting; None = by the object's size.
        shadow: also paint over the shadow beside an object (propagation can).
        feather: softness of a cut-out's edge, in pixels (standard deviation); 0 = a hard edge.
        tracks: a file of boxes to take in place of following; see `demo/imports.py`.
        masks: masks to take in place of following and cutting out.
        exports: names in `EXPORTS` of what shall be written besides.
    """

    do: Task = "track"
    start: int | None = None
    end: int | None = None
    trim: bool = False
    tracker: str = "auto"
    segmenter: str = "auto"
    inpainter: str = "auto"
    device: str = "auto"
    steady: float = STEADY
    resolution: int | None = None
    dilate: int | None = None
    shadow: bool = False
    feather: float = 0.8
    tracks: Path | None = None
    masks: Path | None = None
    exports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.exports:
            if name not in EXPORTS:
                raise InputError(f"There is no export “{name}”; there are {', '.join(EXPORTS)}.")
            if EXPORTS[name].needs_masks and self.do == "track":
                raise InputError(f"The export {name} needs masks; use segment or remove.")
        if not 0 <= self.steady <= 0.9:
            raise InputError(f"Masks are steadied by 0 to 0.9, not {self.steady:g}.")
        if self.resolution is not None and self.resolution < MIN_RESOLUTION:
            raise InputError(
                f"Pictures are painted at {MIN_RESOLUTION} pixels or more, not {self.resolution}."
            )
        if self.dilate is not None and self.dilate < 0:
            raise InputError(f"Masks grow by 0 pixels or more before painting, not {self.dilate}.")
        if not 0 <= self.feather <= 50:
            raise InputError(f"A cut-out's edge is 0 to 50 pixels soft, not {self.feather:g}.")
        if self.tracks is not None and self.masks is not None:
            raise InputError("Give tracks or masks, but not both; boxes are made of masks.")

    def span(self, frame_count: int) -> range:
        """The frames to work on; raises InputError if there are none."""
        start = 0 if self.start is None else self.start
        end = frame_count if self.end is None else min(self.end, frame_count)
        if not 0 <= start < end:
            raise InputError(
                f"There is no frame between start {start} and end {end}; the video has "
                f"{frame_count} frames, numbered from 0, and the end is not included."
            )
        return range(start, end)


ADJUSTABLE = (
    "trim", "exports", "tracker", "segmenter", "inpainter", "device", "steady", "resolution",
    "dilate", "shadow", "feather",
)  # fmt: skip
"""Those of `Settings` that a person chooses beside what they point at, in the page's order."""


@dataclass(frozen=True)
class TrackPoint:
    """Where one object is on one frame; `box` is None while it is lost."""

    box: Box | None
    score: float

    @property
    def lost(self) -> bool:
        return self.box is None


@dataclass
class Tracks:
    """Boxes of all objects over the frames that were worked on: `points[frame][object id]`."""

    points: dict[int, dict[int, TrackPoint]] = field(default_factory=dict)

    def put(self, frame: int, object_id: int, point: TrackPoint) -> None:
        self.points.setdefault(frame, {})[object_id] = point

    def at(self, frame: int) -> Mapping[int, TrackPoint]:
        return self.points.get(frame, {})

    def keep(self, object_ids: Iterable[int]) -> None:
        """Forget all other objects."""
        wanted = set(object_ids)
        for frame, points in self.points.items():
            self.points[frame] = {n: point for n, point in points.items() if n in wanted}


def fingerprint(*parts: object) -> str:
    """A short hash of anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_identity(source: Path) -> dict[str, Any]:
    """What tells two inputs apart without reading them: the path, its size and its time.

    Of a folder, the size and the newest time of all files in it.
    """
    files = [p.stat() for p in source.rglob("*") if p.is_file()] if source.is_dir() else []
    stats = [source.stat(), *files]
    return {
        "path": str(source.resolve()),
        "bytes": sum(stat.st_size for stat in (files or stats)),
        "modified": max(stat.st_mtime_ns for stat in stats),
    }


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text made of parts, whole or not at all."""
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all."""
    write_whole(path, [json.dumps(value, indent=1, default=str), "\n"])


class Project:
    """The folder of one run, which keeps other runs out of it until it is closed.

    Args:
        folder: created if missing.
        source: the video; it is never written to.
        overwrite: allow a folder that holds the results of another video.

    Raises:
        InputError: the folder cannot be written, holds something else, is in use by another run, or
            is where the source lies, so that results would be written over it.
    """

    def __init__(self, folder: Path, source: Path, *, overwrite: bool = False) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; --out needs a folder.")
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise InputError(
                f"{folder} is in the input, which is never written to; choose another --out."
            )
        if any(source.resolve().is_relative_to((folder / name).resolve()) for name in OUTPUTS):
            raise InputError(
                f"The results in {folder} would replace the input {source}; choose another --out."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be created: {error.strerror}.") from error
        if not os.access(folder, os.W_OK):
            raise InputError(f"{folder} cannot be written to; choose another --out.")
        self._state_file.parent.mkdir(exist_ok=True)
        self._lock = FileLock(folder / WORK / "lock")
        try:
            self._lock.acquire(timeout=_PATIENCE)
        except Timeout:
            raise InputError(
                f"Another run is at work in {folder}; wait for its end or choose another --out."
            ) from None
        except (OSError, RuntimeError):
            pass  # a file system without locks; filelock 3.15 says so by a kind of RuntimeError
        try:
            self._state = self._find_state(source_identity(source), overwrite)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other runs in; harmless when done twice."""
        self._lock.release()

    def _find_state(self, identity: dict[str, Any], overwrite: bool) -> dict[str, Any]:
        state, folder = self._read_state(), self.folder
        if state.get("source") != identity:
            known = state.get("source")
            present = [name for name in OUTPUTS if (folder / name).exists()]
            if present and not overwrite:
                what = f"of {known['path']}" if known else "that this program did not write"
                raise InputError(
                    f"{folder} already holds {present[0]} {what}; choose another --out or add "
                    "--overwrite."
                )
            state = {"source": identity, "stages": {}}
        return state

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        whole = isinstance(state, dict) and isinstance(state.get("stages"), dict)
        return state if whole else {}

    def _write_state(self) -> None:
        write_json(self._state_file, self._state)

    @property
    def source(self) -> dict[str, Any]:
        return self._state["source"]

    def is_fresh(self, stage: str, print_: str, outputs: Sequence[str]) -> bool:
        """Whether `stage` has been finished for exactly these settings and its files are there."""
        return self.record(stage).get("fingerprint") == print_ and all(
            (self.folder / name).exists() for name in outputs
        )

    def record(self, stage: str) -> dict[str, Any]:
        """What `finish` wrote down about a stage: seconds, weights, notes."""
        return self._state["stages"].get(stage, {})

    def begin(self, stage: str) -> None:
        """Forget that `stage` was finished, before its files are touched."""
        self._state["stages"].pop(stage, None)
        self._write_state()

    def finish(self, stage: str, print_: str, **record: object) -> None:
        """Remember that `stage` is done, with whatever is worth telling about it."""
        self._state["stages"][stage] = {"fingerprint": print_, **record}
        self._write_state()

    def save_track(self, print_: str, points: Sequence[TrackPoint]) -> None:
        """Keep the track of one segment."""
        rows = [[point.box, None if math.isnan(point.score) else point.score] for point in points]
        write_json(self._segments("tracks") / f"{print_}.json", rows)

    def load_track(self, print_: str, length: int) -> list[TrackPoint] | None:
        """The first `length` points of a segment's track; None if there are not as many."""
        try:
            text = (self._segments("tracks") / f"{print_}.json").read_text(encoding="utf-8")
            points = [
                TrackPoint(None if box is None else tuple(box), float("nan" if s is None else s))
                for box, s in json.loads(text)
            ]
        except (OSError, ValueError):
            return None
        return points[:length] if len(points) >= length else None

    def segment_masks(self, print_: str, size: tuple[int, int]) -> MaskFolder:
        """The masks of one segment; they are written in its order, so the last one comes last."""
        return MaskFolder(self._segments("masks") / print_, size=size)

    def save_doubts(self, masks: MaskFolder, frames: Sequence[int]) -> None:
        """Keep, beside a segment's masks, the frames on which they are probably wrong."""
        write_json(masks.path / DOUBTS, list(frames))

    def load_doubts(self, masks: MaskFolder) -> list[int]:
        try:
            return json.loads((masks.path / DOUBTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # of a run that was killed at its very end
            return []

    def publish_doubts(self, frames: Mapping[int, Sequence[int]]) -> None:
        """Write down the doubtful frames of each object."""
        write_json(self.folder / WORK / DOUBTS, frames)

    @property
    def doubts(self) -> dict[str, list[int]]:
        """What was written down last, by the object's number."""
        return read_doubts(self.folder)

    def _segments(self, kind: str) -> Path:
        """Where segments are kept; the oldest are removed when there are very many."""
        folder = self.folder / WORK / kind
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in old[: -_KEPT[kind]]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return folder

    @property
    def _state_file(self) -> Path:
        return self.folder / WORK / "state.json"


def read_doubts(folder: Path) -> dict[str, list[int]]:
    """Frames of a project on which a mask is probably wrong, by the object's number."""
    try:
        return json.loads((folder / WORK / DOUBTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def object_masks(
    folder: Path, numbers: Sequence[int], size: tuple[int, int]
) -> dict[int, MaskFolder]:
    """Where the masks of objects are: `00000.png` of a single one, else `object_1/00000.png`.

    Args:
        size: (height, width).
    """
    if len(numbers) == 1:
        return {numbers[0]: MaskFolder(folder, size=size)}
    return {n: MaskFolder(folder / f"object_{n}", size=size) for n in numbers}


def object_name(object_id: int) -> str:
    """What an object is called until somebody says."""
    return f"Object {object_id}"


def object_color(object_id: int) -> str:
    return PALETTE[(object_id - 1) % len(PALETTE)]


def describe(objects: Sequence[ObjectPrompt], settings: Settings) -> dict[str, Any]:
    """The request as JSON, for run.json."""
    return {"objects": [asdict(o) for o in objects], "settings": asdict(settings)}
