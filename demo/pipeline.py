"""The whole product in one file: a click becomes boxes, masks and three videos.

    prompt ─► locate ─► follow ─► cut_out          pass 1: streams frames, writes tracks and masks
                                     │
              draw ◄────────────────┤              pass 2: reads them back, writes the videos
              repaint ◄─────────────┘

Each stage is a generator over frames, so nothing holds the video. `run` chains the stages, skips
those whose result is already there (see `project.py`), and reports progress. Models come from
`trackers`, `segmenters` and `inpainting`, which know nothing of each other; only this file joins
them.
"""

from __future__ import annotations

import logging
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from demo import __version__
from demo.exports import read_tracks_json, write_tracks_csv, write_tracks_json
from demo.failures import Cancelled
from demo.project import (
    ObjectPrompt,
    Project,
    Settings,
    TrackPoint,
    Tracks,
    describe,
    fingerprint,
    source_identity,
    write_json,
)
from inpainting import Inpainter, build_inpainter, list_inpainters
from media import InputError
from media.draw import draw_box, draw_mask
from media.masks import MaskFolder, load_mask
from media.video import Budget, VideoReader, VideoWriter, open_video
from segmenters import Embedding, Prompt, Segmenter, build_segmenter, list_segmenters
from segmenters.cleanup import choose_candidate, clean_mask, mask_box
from trackers import Track, Tracker, build_tracker, list_trackers

Frame = np.ndarray  # RGB uint8 (h, w, 3)
Mask = np.ndarray  # bool (h, w)
# Called with (stage, frames done, frames in all).
Report = Callable[[str, int, int], None]

logger = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------------ models


@dataclass
class Models:
    """The models of a run, built when first needed and kept for the next run.

    A tracker has the state of one object, so each object gets its own; a segmenter is stateless.
    """

    settings: Settings
    _segmenter: Segmenter | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def check(self) -> None:
        """Raise InputError for a name that is not registered, before anything is built."""
        s = self.settings
        for kind, name, known in (
            ("tracker", s.tracker, list_trackers()),
            ("segmenter", s.segmenter, list_segmenters()),
            ("inpainter", s.inpainter, list_inpainters()),
        ):
            if name not in known:
                raise InputError(f"There is no {kind} “{name}”; there are {', '.join(known)}.")

    def tracker(self) -> Tracker:
        return build_tracker(self.settings.tracker, device=self.settings.device)

    def segmenter(self) -> Segmenter:
        with self._lock:  # a click and a run may ask at the same time
            if self._segmenter is None:
                self._segmenter = build_segmenter(
                    self.settings.segmenter, device=self.settings.device
                )
            return self._segmenter

    def inpainter(self) -> Inpainter:
        return build_inpainter(
            self.settings.inpainter, device=self.settings.device, dilate=self.settings.dilate
        )


# ---------------------------------------------------------------------------- pass 1: boxes, masks


def to_prompt(prompt: ObjectPrompt) -> Prompt:
    """The user's points and box as the segmenter takes them."""
    return Prompt(
        box=None if prompt.box is None else np.asarray(prompt.box, np.float32),
        points=np.asarray([p[:2] for p in prompt.points], np.float32) if prompt.points else None,
        labels=np.asarray([p[2] for p in prompt.points], np.int64) if prompt.points else None,
    )


def find_mask(segmenter: Segmenter, embedding: Embedding, prompt: ObjectPrompt) -> Mask:
    """The mask of what the user pointed at; also what the page shows after a click."""
    candidates = segmenter.predict(embedding, [to_prompt(prompt)])[0]
    box = None if prompt.box is None else np.asarray(prompt.box, np.float32)
    return clean_mask(choose_candidate(candidates, box=box).mask)


def locate(frame: Frame, prompt: ObjectPrompt, given: Mask | None, models: Models) -> np.ndarray:
    """The box to follow: as it was drawn, or around the given mask, or around what is clicked.

    Raises:
        InputError: the segmenter finds nothing at the points.
    """
    if prompt.box is not None:
        return np.asarray(prompt.box, np.float32)
    if given is None:
        segmenter = models.segmenter()
        given = find_mask(segmenter, segmenter.encode(frame), prompt)
    box = mask_box(given)
    if box is None:
        raise InputError(
            f"{prompt.name}: nothing was found at the points; click on the object or draw a box."
        )
    return box


def follow(
    reader: VideoReader,
    boxes: Mapping[int, np.ndarray],
    objects: Sequence[ObjectPrompt],
    span: range,
    new_tracker: Callable[[], Tracker],
) -> Iterator[tuple[int, dict[int, Track]]]:
    """Follow every object from its own frame to both ends of `span`.

    Yields (frame index, {object id: Track}); a frame may come twice, with different objects. Memory
    is constant in both directions: backwards the reader works by groups of pictures.
    """
    for backwards in (False, True):
        starts = {o.id: o.frame for o in objects if not backwards or o.frame > span.start}
        if not starts:
            continue
        if backwards:
            first, last = span.start, max(starts.values()) + 1
        else:
            first, last = min(starts.values()), span.stop
        order = range(last - 1, first - 1, -1) if backwards else range(first, last)
        frames = reader.frames(first, last, backwards=backwards)
        active: dict[int, Tracker] = {}
        for index, frame in zip(order, frames, strict=False):
            found: dict[int, Track] = {}
            for object_id, tracker in active.items():
                found[object_id] = tracker.track(frame)
            for object_id, start in starts.items():
                if start == index:
                    active[object_id] = new_tracker()
                    active[object_id].initialize(frame, boxes[object_id])
                    if not backwards:
                        found[object_id] = Track(box=boxes[object_id], score=1.0)
            yield index, found


def cut_out(
    reader: VideoReader,
    tracks: Tracks,
    objects: Sequence[ObjectPrompt],
    given: Mapping[int, Mask],
    span: range,
    segmenter: Segmenter,
) -> Iterator[tuple[int, dict[int, Mask]]]:
    """One mask per frame and object, prompted with the tracked box.

    On the object's own frame the user's prompt counts instead: a given mask is taken as it is,
    points and box go to the segmenter together. Where every object is lost the frame is not even
    encoded.

    Yields (frame index, {object id: mask}), in order; a lost object has no entry.
    """
    previous: dict[int, Mask] = {}
    for index, frame in zip(span, reader.frames(span.start, span.stop), strict=False):
        masks: dict[int, Mask] = {}
        asked: list[tuple[ObjectPrompt, np.ndarray, Prompt]] = []
        for prompt in objects:
            point = tracks.at(index).get(prompt.id)
            if point is None or point.box is None:
                previous.pop(prompt.id, None)
            elif index == prompt.frame and prompt.id in given:
                masks[prompt.id] = given[prompt.id]
            else:
                box = np.asarray(point.box, np.float32)
                own = to_prompt(prompt) if index == prompt.frame else Prompt(box=box)
                asked.append((prompt, box, own))
        if asked:
            answers = segmenter.predict(segmenter.encode(frame), [own for _, _, own in asked])
            for (prompt, box, own), candidates in zip(asked, answers, strict=True):
                # A click may mean a part that is smaller than the box; a box means the whole of it.
                expected = None if own.points is not None else box
                best = choose_candidate(candidates, box=expected, previous=previous.get(prompt.id))
                masks[prompt.id] = clean_mask(best.mask)
        previous.update(masks)
        yield index, masks


# ------------------------------------------------------------------------------- pass 2: the videos


def draw(
    frame: Frame,
    points: Mapping[int, TrackPoint],
    masks: Mapping[int, Mask] | None,
    objects: Sequence[ObjectPrompt],
) -> Frame:
    """The frame with boxes (and masks, if given) drawn on; a lost object draws nothing."""
    for prompt in objects:
        point = points.get(prompt.id)
        if point is None or point.box is None:
            continue
        if masks is not None:
            if prompt.id in masks:
                frame = draw_mask(frame, masks[prompt.id], color=prompt.color)
        else:
            frame = draw_box(
                frame, point.box, color=prompt.color, label=prompt.name, score=point.score
            )
    return frame


class _Range:
    """A lazy sequence as the inpainter sees it when only a part of the video is worked on."""

    def __init__(self, source: Any, span: range) -> None:
        self._source = source
        self._span = span

    def __len__(self) -> int:
        return len(self._span)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._source[self._span[index]]


def repaint(
    reader: VideoReader, masks: MaskFolder, span: range, inpainter: Inpainter
) -> Iterator[tuple[int, Frame]]:
    """Yield (frame index, frame without the masked things) over `span`."""
    source, holes = _Range(reader, span), _Range(masks, span)
    yield from zip(span, inpainter.inpaint(source, holes), strict=True)


def write_video(
    path: Path,
    reader: VideoReader,
    changed: Iterator[tuple[int, Frame]],
    span: range,
    *,
    trim: bool,
    tick: Callable[[int], None],
) -> list[str]:
    """Write the video with the frames of `span` replaced and everything else as it was.

    Time stamps, frame rate, size and sound are the input's. Returns the writer's notes.
    """
    info = reader.info
    whole = span if trim else range(len(reader))
    base = int(reader.pts[span.start]) if trim else 0
    audio_range = None
    if trim:
        last = span.stop - 1
        begin = float(reader.pts[span.start] * info.time_base)
        audio_range = (begin, float((reader.pts[last] + reader.durations[last]) * info.time_base))
    with VideoWriter(
        path,
        size=info.size,
        fps=info.fps,
        time_base=info.time_base,
        audio_from=info.path if info.has_audio else None,
        audio_range=audio_range,
    ) as writer:

        def write(index: int, frame: Frame) -> None:
            writer.write(frame, int(reader.pts[index]) - base, int(reader.durations[index]))

        if not trim:
            for index, frame in zip(range(span.start), reader.frames(0, span.start), strict=True):
                write(index, frame)
        for done, (index, frame) in enumerate(changed, start=1):
            write(index, frame)
            tick(done)
        if not trim:
            rest = range(span.stop, len(reader))
            for index, frame in zip(rest, reader.frames(span.stop, whole.stop), strict=True):
                write(index, frame)
    return list(writer.notes)


# ------------------------------------------------------------------------------------ the whole run


@dataclass
class Result:
    """What a run made."""

    folder: Path
    outputs: list[Path]
    notes: list[str]
    seconds: dict[str, float]


def run(
    source: Path,
    folder: Path,
    objects: Sequence[ObjectPrompt],
    settings: Settings,
    *,
    budget: Budget | None = None,
    overwrite: bool = False,
    report: Report | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    models: Models | None = None,
) -> Result:
    """Do one video and leave the results in `folder`.

    Args:
        source: a video file, a folder of pictures, or a GIF.
        report: called with (stage, frames done, frames in all) after every frame.
        cancelled: asked after every frame; True ends the run with `Cancelled`. What was finished
            before stays and is not done again by the next run.
        models: hand in the same object again to keep loaded models between runs.

    Raises:
        InputError: the input, a prompt or a setting cannot be used.
        checkpoints.CheckpointError: weights are missing or damaged.
        OSError: the disk is full or cannot be written.
    """
    models = models or Models(settings)
    # Whatever can be found wrong now is found now, and not after minutes of work.
    models.check()
    with open_video(source, budget=budget or Budget()) as reader:
        span = settings.span(len(reader))
        given: dict[int, Mask] = {}
        for prompt in objects:
            prompt.check(reader.info.size, len(reader), span)
            if prompt.mask is not None:
                given[prompt.id] = load_mask(prompt.mask, size=reader.info.size)
                if not given[prompt.id].any():
                    raise InputError(
                        f"{prompt.name}: the mask {prompt.mask} is empty; paint the object white."
                    )
        project = Project(folder, source, overwrite=overwrite)
        return _Run(
            reader, project, list(objects), given, settings, span, models, report, cancelled
        ).go()


class _Run:
    """One run's stages in order; each asks the project whether it has been done before."""

    def __init__(
        self,
        reader: VideoReader,
        project: Project,
        objects: list[ObjectPrompt],
        given: dict[int, Mask],
        settings: Settings,
        span: range,
        models: Models,
        report: Report | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self.reader, self.project, self.objects, self.given = reader, project, objects, given
        self.settings, self.span, self.models = settings, span, models
        self.report, self.cancelled = report, cancelled
        self.outputs: list[Path] = []
        self.stages: list[str] = []
        self.notes: list[str] = []  # of the stage that is running, like the next
        self.weights: dict[str, str] = {}

    def go(self) -> Result:
        s = self.settings
        asked = fingerprint(
            __version__, self.project.source, describe(self.objects, s)["objects"],
            [source_identity(o.mask) for o in self.objects if o.mask],
            s.start, s.end, s.tracker, s.segmenter,
        )  # fmt: skip
        self.stage("follow", asked, ["tracks.json", "tracks.csv"], self._follow)
        tracks = read_tracks_json(self.project.folder / "tracks.json")
        video = fingerprint(asked, s.trim)
        self.stage("draw boxes", video, ["tracked.mp4"], lambda: self._draw(tracks, "tracked.mp4"))
        if s.do != "track":
            self.stage("cut out", asked, ["masks"], lambda: self._cut_out(tracks))
            self.stage(
                "draw masks", video, ["segmented.mp4"], lambda: self._draw(tracks, "segmented.mp4")
            )
        if s.do == "remove":
            self.stage(
                "paint away", fingerprint(video, s.inpainter, s.dilate), ["removed.mp4"],
                self._repaint,
            )  # fmt: skip
        return self._summary()

    def stage(self, name: str, print_: str, outputs: list[str], work: Callable[[], None]) -> None:
        """Run one stage unless its result is there already."""
        if not self.project.is_fresh(name, print_, outputs):
            self.project.begin(name)
            self.notes, self.weights = [], {}
            self.tick(name, 0, len(self.span))  # models load now, which takes a while
            began = time.perf_counter()
            work()
            seconds = round(time.perf_counter() - began, 2)
            self.project.finish(
                name, print_, seconds=seconds, weights=self.weights, notes=self.notes
            )
        self.stages.append(name)
        self.outputs += [self.project.folder / output for output in outputs]

    def tick(self, stage: str, done: int, total: int) -> None:
        if self.report:
            self.report(stage, done, total)
        if self.cancelled():
            raise Cancelled(f"Stopped at frame {done} of {total} of the stage “{stage}”.")

    def _weights_of(self, role: str, model: Tracker | Segmenter | Inpainter) -> None:
        self.weights[role] = str(model.weights)

    def _follow(self) -> None:
        boxes: dict[int, np.ndarray] = {}
        for prompt in self.objects:
            frame = self.reader[prompt.frame]
            boxes[prompt.id] = locate(frame, prompt, self.given.get(prompt.id), self.models)

        def new_tracker() -> Tracker:
            tracker = self.models.tracker()
            self._weights_of("tracker", tracker)
            return tracker

        tracks = Tracks()
        total = len(self.span)
        seen: set[int] = set()
        for index, found in follow(self.reader, boxes, self.objects, self.span, new_tracker):
            for object_id, track in found.items():
                x0, y0, x1, y1 = (float(v) for v in track.box)
                box_ = None if track.lost else (x0, y0, x1, y1)
                tracks.put(index, object_id, TrackPoint(box=box_, score=track.score))
            seen.add(index)
            self.tick("follow", len(seen), total)
        folder = self.project.folder
        write_tracks_csv(folder / "tracks.csv", tracks, self.reader)
        write_tracks_json(folder / "tracks.json", tracks, self.reader, self.objects)

    def _cut_out(self, tracks: Tracks) -> None:
        shutil.rmtree(self.project.folder / "masks", ignore_errors=True)
        segmenter = self.models.segmenter()
        self._weights_of("segmenter", segmenter)
        size = self.reader.info.size
        union = self.project.union_masks(size)
        single = self.project.object_masks(self.objects, size)
        masks_by_frame = cut_out(
            self.reader, tracks, self.objects, self.given, self.span, segmenter
        )
        for done, (index, masks) in enumerate(masks_by_frame, start=1):
            together = np.zeros(self.reader.info.size, bool)
            for object_id, mask in masks.items():
                together |= mask
                if len(self.objects) > 1:
                    single[object_id].write(index, mask)
            union.write(index, together)
            self.tick("cut out", done, len(self.span))

    def _draw(self, tracks: Tracks, name: str) -> None:
        size = self.reader.info.size
        folders = self.project.object_masks(self.objects, size) if name == "segmented.mp4" else None

        def drawn() -> Iterator[tuple[int, Frame]]:
            frames = self.reader.frames(self.span.start, self.span.stop)
            for index, frame in zip(self.span, frames, strict=False):
                masks = None if folders is None else {i: f[index] for i, f in folders.items()}
                yield index, draw(frame, tracks.at(index), masks, self.objects)

        self._write(name, drawn(), "draw boxes" if folders is None else "draw masks")

    def _repaint(self) -> None:
        inpainter = self.models.inpainter()
        self._weights_of("inpainter", inpainter)
        frames = repaint(
            self.reader, self.project.union_masks(self.reader.info.size), self.span, inpainter
        )
        self._write("removed.mp4", frames, "paint away")
        self.notes += inpainter.notes

    def _write(self, name: str, frames: Iterator[tuple[int, Frame]], stage: str) -> None:
        total = len(self.span)
        notes = write_video(
            self.project.folder / name, self.reader, frames, self.span,
            trim=self.settings.trim, tick=lambda done: self.tick(stage, done, total),
        )  # fmt: skip
        self.notes += notes

    def _summary(self) -> Result:
        """Write run.json from what every stage left, whether it ran now or earlier."""
        info, records = self.reader.info, {s: self.project.record(s) for s in self.stages}
        notes = dict.fromkeys([*info.notes, *(n for r in records.values() for n in r["notes"])])
        seconds = {stage: record["seconds"] for stage, record in records.items()}
        weights = {k: v for record in records.values() for k, v in record["weights"].items()}
        write_json(
            self.project.folder / "run.json",
            {
                "mixcut": __version__,
                "versions": _versions(),
                "source": {
                    **self.project.source, "width": info.size[1], "height": info.size[0],
                    "frames": len(self.reader), "fps": str(info.fps), "codec": info.codec,
                    "audio": info.has_audio,
                },
                **describe(self.objects, self.settings),
                "weights": weights,
                "seconds": seconds,
                "peak_rss_mb": round(peak_rss_mb()),
                "notes": list(notes),
                "outputs": [str(p.relative_to(self.project.folder)) for p in self.outputs],
            },
        )  # fmt: skip
        return Result(self.project.folder, self.outputs, list(notes), seconds)


def peak_rss_mb() -> float:
    """The most memory this process has ever held, in MB; 0 where the system does not tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024**2


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "av", "opencv-contrib-python-headless", "onnxruntime",
                 "segment-anything", "timm"):  # fmt: skip
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed from somewhere else, or not at all
            continue
    return found
