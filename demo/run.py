"""One run from beginning to end: which stages there are, which of them are done, what is written.

The stages themselves are in `demo/pipeline.py`, the folder they write to in `demo/project.py`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import checkpoints
from demo import __version__
from demo.exports import WRITERS, Material, write_tracks_csv, write_tracks_json
from demo.failures import Cancelled, out_of_memory
from demo.imports import (
    Masks,
    prompts_of,
    read_masks,
    read_names,
    read_tracks,
    read_tracks_json,
    tracks_of,
)
from demo.pipeline import (
    Frame,
    Mask,
    Models,
    Segment,
    choose_models,
    cut_out,
    draw,
    follow,
    locate,
    plan,
    repaint,
    within,
    write_video,
)
from demo.project import (
    EXPORTS,
    MIN_RESOLUTION,
    KeyFrame,
    ObjectPrompt,
    Project,
    Settings,
    Task,
    TrackPoint,
    Tracks,
    describe,
    fingerprint,
    object_masks,
    source_identity,
    write_json,
)
from inpainting import Inpainter
from media import InputError
from media.device import peak_rss_mb
from media.files import replacing_folder
from media.masks import MaskFolder, MaskUnion, load_mask
from media.video import Budget, VideoReader, open_video
from segmenters import Segmenter
from trackers import MultiTracker

# Called with (stage, frames done, frames in all).
Report = Callable[[str, int, int], None]
# Called with a frame's index and a function that draws what has just been found on it.
Show = Callable[[int, Callable[[], Frame]], None]


STAGES = ("follow", "draw boxes", "cut out", "draw masks", "paint away")
"""In order; a task takes the first so many of them, and then come the exports."""
STAGES_OF: dict[Task, int] = {"track": 2, "segment": 4, "remove": 5}


@dataclass
class Result:
    """What a run made; `seconds` are those of the stages that were not done before, `pixels` those
    of a frame."""

    folder: Path
    outputs: list[Path]
    notes: list[str]
    seconds: dict[str, float]
    frames: int = 0
    pixels: int = 0


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
    show: Show = lambda index, picture: None,
    models: Models | None = None,
    said: Sequence[str] = (),
    known: Sequence[ObjectPrompt] = (),
) -> Result:
    """Do one video and leave the results in `folder`.

    Args:
        source: a video file, a folder of pictures, or a GIF.
        objects: what to follow; none where `settings` name tracks or masks to take.
        report: called with (stage, frames done, frames in all) after every frame.
        cancelled: asked after every frame; True ends the run with `Cancelled`. What was finished
            before stays and is not done again by the next run.
        show: called for every frame that is followed, cut out or painted, for people who watch.
        models: hand in the same object again to keep loaded models between runs.
        known: of tracks or masks that are taken, what the objects are called and what happens to
            each; any others are left out.
        said: notes for the user from an attempt that came before.

    Raises:
        InputError: the input, a prompt or a setting cannot be used.
        checkpoints.CheckpointError: weights are missing or damaged.
        OSError: the disk is full or cannot be written.
    """
    # Whatever can be found wrong now is found now, and not after minutes of work.
    settings = choose_models(settings)
    models = models or Models(settings)
    with open_video(source, budget=budget or Budget()) as reader:
        span = settings.span(len(reader))
        tracks, masks = _import(settings, reader, span)
        if tracks is not None:
            if objects:
                raise InputError("Say what to follow, or give tracks or masks, but not both.")
            objects = prompts_of(tracks, read_names(settings.masks or settings.tracks or source))
            if known:
                looks = {o.id: {"name": o.name, "color": o.color, "do": o.do} for o in known}
                objects = [replace(o, **looks[o.id]) for o in objects if o.id in looks]  # type: ignore[arg-type]
                tracks.keep(looks)
        given: dict[tuple[int, int], Mask] = {}
        for prompt in objects:
            prompt.check(reader.info.size, len(reader))
            for key in prompt.keys:
                if key.mask is not None:
                    mask = given[prompt.id, key.frame] = load_mask(key.mask, size=reader.info.size)
                    if not mask.any():
                        raise InputError(
                            f"{key.title}: the mask {key.mask} is empty; paint the object white."
                        )
        check_models(models, settings, objects)
        with closing(Project(folder, source, overwrite=overwrite)) as project:
            return _Run(
                reader, project, list(objects), settings, span, models,
                given=given, given_tracks=tracks, given_masks=masks,
                report=report, cancelled=cancelled, show=show, said=said,
            ).go()  # fmt: skip


def check_models(models: Models, settings: Settings, objects: Sequence[ObjectPrompt]) -> None:
    """Raise what the later stages of a run would only find out when their turn comes.

    Args:
        models: those of the run.
        settings: of the run.
        objects: what it is about; none, as long as the tracks or masks that it takes are not read.

    Raises:
        InputError: see `Models.check`.
        checkpoints.CheckpointError: weights that it needs are missing or damaged.
    """
    tasks = {o.task(settings.do) for o in objects} or {settings.do}
    clicked = any(key.box is None and key.mask is None for o in objects for key in o.keys)
    models.check(
        segmenter=settings.masks is None and (clicked or tasks != {"track"}),
        inpainter=settings.do == "remove",
    )


def _import(
    settings: Settings, reader: VideoReader, span: range
) -> tuple[Tracks | None, dict[int, Masks]]:
    """What the settings name of tracks and masks that are there already, cut to `span`."""
    size, count = reader.info.size, len(reader)
    if settings.masks is not None:
        masks = read_masks(settings.masks, size, count)
        tracks = tracks_of(masks, span)
        if not prompts_of(tracks):
            raise InputError(f"The masks at {settings.masks} are empty in all of these frames.")
        return tracks, masks
    if settings.tracks is not None:
        tracks = read_tracks(settings.tracks, size, count)
        tracks.points = {index: tracks.points[index] for index in span if index in tracks.points}
        if not prompts_of(tracks):
            raise InputError(f"{settings.tracks} has no box in these frames.")
        return tracks, {}
    return None, {}


@dataclass(frozen=True)
class _Joined:
    """One object's masks from several folders, by frame."""

    folders: Mapping[int, MaskFolder]

    def __getitem__(self, index: int) -> Mask:
        return self.folders[index][index]


@dataclass
class _Run:
    """One run's stages in order; each asks the project whether it has been done before.

    Attributes:
        given: the masks that were drawn by hand, by (object id, frame).
        given_tracks, given_masks: what is taken in place of following and of cutting out.
        said: notes from an attempt that came before.
        fresh: stages that were not done before.
        notes, weights: of the stage that is running.
    """

    reader: VideoReader
    project: Project
    objects: list[ObjectPrompt]
    settings: Settings
    span: range
    models: Models
    given: dict[tuple[int, int], Mask]
    given_tracks: Tracks | None
    given_masks: dict[int, Masks]
    report: Report | None
    cancelled: Callable[[], bool]
    show: Show
    said: Sequence[str]
    outputs: list[Path] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cut = [o for o in self.objects if o.task(self.settings.do) != "track"]
        self.painted = [o for o in self.objects if o.task(self.settings.do) == "remove"]

    def go(self) -> Result:
        s = self.settings
        asked = fingerprint(
            __version__, self.project.source, describe(self.objects, s)["objects"],
            [self._identify(key) for o in self.objects for key in o.keys],
            [source_identity(p) for p in (s.tracks, s.masks) if p], s.do,
            s.start, s.end, s.tracker, s.segmenter, _weights_here("tracker", "segmenter"),
        )  # fmt: skip
        masks = fingerprint(asked, s.steady)
        self.stage("follow", asked, ["tracks.json", "tracks.csv"], self._follow)
        tracks = read_tracks_json(self.project.folder / "tracks.json")
        video = fingerprint(asked, s.trim)
        self.stage("draw boxes", video, ["tracked.mp4"], lambda: self._draw(tracks, "tracked.mp4"))
        if s.do != "track":
            self.stage("cut out", masks, ["masks"], lambda: self._cut_out(tracks))
            print_ = fingerprint(masks, s.trim)
            draw_masks = partial(self._draw, tracks, "segmented.mp4")
            self.stage("draw masks", print_, ["segmented.mp4"], draw_masks)
        if s.do == "remove":
            painted = fingerprint(
                masks, s.trim, s.inpainter, s.resolution, s.dilate, s.shadow,
                _weights_here("flow", "inpainter"),
            )  # fmt: skip
            self.stage("paint away", painted, ["removed.mp4"], self._repaint)
        for name in s.exports:
            export = partial(self._export, name, tracks)
            print_ = fingerprint(masks, s.feather)
            self.stage(f"export {name}", print_, [EXPORTS[name].output], export)
        return self._summary()

    def stage(self, name: str, print_: str, outputs: list[str], work: Callable[[], None]) -> None:
        """Run one stage unless its result is there already."""
        if not self.project.is_fresh(name, print_, outputs):
            # Where a part of the stage is kept from an earlier run, so are its weights.
            self.notes, self.weights = [], dict(self.project.record(name).get("weights", {}))
            self.project.begin(name)
            self.tick(name, 0, len(self.span))  # models load now, which takes a while
            began = time.perf_counter()
            work()
            seconds = round(time.perf_counter() - began, 2)
            self.project.finish(
                name, print_, seconds=seconds, weights=self.weights, notes=self.notes
            )
            self.fresh.append(name)
        self.stages.append(name)
        self.outputs += [self.project.folder / output for output in outputs]

    def tick(self, stage: str, done: int, total: int) -> None:
        if self.report:
            self.report(stage, done, total)
        self.poll()

    def poll(self) -> None:
        if self.cancelled():
            raise Cancelled("Stopped by the user.")

    def _weights_of(self, role: str, model: MultiTracker | Segmenter | Inpainter) -> None:
        self.weights[role] = str(model.weights)

    def _identify(self, key: KeyFrame) -> list[Any]:
        """What a key frame's results depend on, and not the object's name or colour."""
        mask = None if key.mask is None else source_identity(key.mask)
        return [key.frame, key.points, key.box, mask]

    def _track_print(self, segment: Segment) -> str:
        """What a segment's track depends on, but for its length: a longer one has it in it."""
        s, first, key = self.settings, segment.prompt, segment.key
        seen = (s.segmenter, *_weights_here("segmenter")) if first.points or key.points else ()
        return fingerprint(
            __version__, self.project.source, self._identify(first), self._identify(key),
            segment.frames.step, s.tracker, _weights_here("tracker"), seen,
        )  # fmt: skip

    def _follow(self) -> None:
        tracks = self.given_tracks
        if tracks is None:
            tracks = self._track()
        folder = self.project.folder
        write_tracks_csv(folder / "tracks.csv", tracks, self.reader)
        write_tracks_json(folder / "tracks.json", tracks, self.reader, self.objects)

    def _track(self) -> Tracks:
        """Follow the objects where they have not been followed before, and put it together."""
        segments = [s for prompt in self.objects for s in plan(prompt, self.span)]
        known = {s: self.project.load_track(self._track_print(s), len(s.frames)) for s in segments}
        fresh: dict[Segment, list[TrackPoint]] = {s: [] for s, found in known.items() if not found}
        if fresh:
            tracker = self.models.tracker()
            self._weights_of("tracker", tracker)
            total, done = len(set(chain.from_iterable(s.frames for s in fresh))), set[int]()
            boxes = self._boxes(fresh)
            for index, frame, found in follow(self.reader, list(fresh), boxes, tracker):
                points: dict[int, TrackPoint] = {}
                for segment, track in found.items():
                    x0, y0, x1, y1 = (float(v) for v in track.box)
                    box = None if track.lost else (x0, y0, x1, y1)
                    points[segment.prompt.id] = TrackPoint(box=box, score=track.score)
                    fresh[segment].append(points[segment.prompt.id])
                self.show(index, partial(draw, frame, points, None, self.objects))
                done.add(index)
                self.tick("follow", len(done), total)
            for segment, made in fresh.items():
                self.project.save_track(self._track_print(segment), made)
        tracks = Tracks()
        for segment in segments:
            track_ = known[segment] or fresh[segment]
            for index, point in zip(segment.frames, track_, strict=True):
                if index in self.span:
                    tracks.put(index, segment.prompt.id, point)
        return tracks

    def _boxes(self, segments: Iterable[Segment]) -> dict[tuple[int, int], np.ndarray]:
        """The boxes of the key frames that these segments need, by object and frame."""
        boxes: dict[tuple[int, int], np.ndarray] = {}
        for segment in segments:
            for key in (segment.prompt, segment.key):
                place = segment.prompt.id, key.frame
                if place not in boxes:
                    frame = self.reader[key.frame]
                    boxes[place] = locate(frame, key, self.given.get(place), self.models)
        return boxes

    def _cut_out(self, tracks: Tracks) -> None:
        """Make the masks of segments that have none yet, and lay all of them out in `masks`."""
        size = self.reader.info.size
        if self.given_masks:
            self.project.publish_doubts({})
            self._publish_masks({o.id: self.given_masks[o.id] for o in self.cut})
            return
        segments = [within(s, self.span) for prompt in self.cut for s in plan(prompt, self.span)]
        folders: dict[Segment, MaskFolder] = {}
        for segment in segments:
            print_ = fingerprint(
                self._track_print(segment), segment.frames[0], self.settings.segmenter,
                self.settings.steady, _weights_here("segmenter"),
            )  # fmt: skip
            folders[segment] = self.project.segment_masks(print_, size)
        missing = [s for s in segments if not folders[s].file(s.frames[-1]).exists()]
        if missing:
            segmenter = self.models.segmenter()
            self._weights_of("segmenter", segmenter)
            total, done = len(set(chain.from_iterable(s.frames for s in missing))), set[int]()
            doubtful: dict[Segment, list[int]] = {segment: [] for segment in missing}
            made = cut_out(
                self.reader, tracks, missing, self.given, segmenter, self.settings.steady
            )
            for index, frame, masks in made:
                for segment, found in masks.items():
                    folders[segment].write(index, found.mask)
                    if found.doubtful:
                        doubtful[segment].append(index)
                shown = {segment.prompt.id: found.mask for segment, found in masks.items()}
                here = {n: point for n, point in tracks.at(index).items() if n in shown}
                self.show(index, partial(draw, frame, here, shown, self.objects))
                done.add(index)
                self.tick("cut out", len(done), total)
            for segment, numbers in doubtful.items():
                self.project.save_doubts(folders[segment], numbers)
        doubts: dict[int, list[int]] = {}
        for segment in segments:
            kept = self.project.load_doubts(folders[segment])
            own = [index for index in kept if index in segment.frames]
            doubts[segment.prompt.id] = sorted({*doubts.get(segment.prompt.id, ()), *own})
        self.project.publish_doubts(doubts)
        self.notes += [_doubt(o.title, doubts[o.id]) for o in self.cut if doubts.get(o.id)]
        by_frame: dict[int, dict[int, MaskFolder]] = {}
        for segment in segments:
            places = by_frame.setdefault(segment.prompt.id, {})
            places.update(dict.fromkeys(segment.frames, folders[segment]))
        self._publish_masks({number: _Joined(places) for number, places in by_frame.items()})

    def _publish_masks(self, sources: Mapping[int, Masks]) -> None:
        """Lay out the results: all objects' masks together and, of several, each one's as well."""
        size = self.reader.info.size
        with replacing_folder(self.project.folder / "masks") as part:
            union = MaskFolder(part, size=size)
            folders = object_masks(part, [o.id for o in self.cut], size)
            for index in self.span:
                masks = {number: source[index] for number, source in sources.items()}
                if len(masks) > 1:
                    for number, mask in masks.items():
                        folders[number].write(index, mask)
                union.write(index, np.any([np.zeros(size, bool), *masks.values()], axis=0))
                self.poll()

    def _masks(self) -> dict[int, MaskFolder]:
        """The masks that were laid out, of each object."""
        numbers = [o.id for o in self.cut]
        return object_masks(self.project.folder / "masks", numbers, self.reader.info.size)

    def _draw(self, tracks: Tracks, name: str) -> None:
        folders = self._masks() if name == "segmented.mp4" else None

        def drawn() -> Iterator[tuple[int, Frame]]:
            frames = self.reader.frames(self.span.start, self.span.stop)
            for index, frame in zip(self.span, frames, strict=False):
                masks = None if folders is None else {i: f[index] for i, f in folders.items()}
                yield index, draw(frame, tracks.at(index), masks, self.objects)

        self._write(name, drawn(), "draw boxes" if folders is None else "draw masks")

    def _repaint(self) -> None:
        """Paint; where memory does not suffice, again at half the size, which is said."""
        folders = self._masks()
        masks = MaskUnion(folders[o.id] for o in self.painted)
        settings, done = self.settings, False
        while not done:
            inpainter = self.models.inpainter(settings.resolution)
            self._weights_of("inpainter", inpainter)
            try:
                self._write("removed.mp4", self._painted(masks, inpainter), "paint away")
                done = True
            except Exception as error:
                smaller = half_size(settings, self.reader.info.size)
                if smaller is None or not out_of_memory(error):
                    raise
                settings = replace(settings, resolution=smaller)
                self.notes = [painted_smaller(smaller)]
        self.notes += inpainter.notes

    def _painted(self, masks: MaskUnion, inpainter: Inpainter) -> Iterator[tuple[int, Frame]]:
        for index, frame in repaint(self.reader, masks, self.span, inpainter, self.poll):
            self.show(index, partial(np.asarray, frame))
            yield index, frame

    def _export(self, name: str, tracks: Tracks) -> None:
        total = len(self.span)
        masks = {} if self.settings.do == "track" else self._masks()
        WRITERS[name](
            self.project.folder / EXPORTS[name].output,
            Material(
                self.reader, tracks, self.objects, self.span, masks, self.settings.feather,
                lambda done: self.tick(f"export {name}", done, total),
            ),
        )  # fmt: skip

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
        notes = dict.fromkeys(
            [*info.notes, *self.said, *(n for r in records.values() for n in r["notes"])]
        )
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
                "doubtful": self.project.doubts if self.settings.do != "track" else {},
                "outputs": [str(p.relative_to(self.project.folder)) for p in self.outputs],
            },
        )  # fmt: skip
        new = {stage: seconds[stage] for stage in self.fresh}
        pixels = info.size[0] * info.size[1]
        return Result(self.project.folder, self.outputs, list(notes), new, len(self.span), pixels)


def half_size(settings: Settings, size: tuple[int, int]) -> int | None:
    """Half of what a run paints at, in pixels of the longer side; None if that is too little."""
    half = min(settings.resolution or max(size), max(size)) // 2
    return half if half >= MIN_RESOLUTION else None


def painted_smaller(resolution: int) -> str:
    return (
        f"There was not enough memory to paint at full size, so it was done at {resolution} pixels "
        "of the longer side; what is not painted over is as it was."
    )


def _doubt(title: str, frames: Sequence[int]) -> str:
    """A note on frames whose mask is probably wrong: the ends of the longest runs of them."""
    numbers = np.unique(frames)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    runs = sorted(sorted(runs, key=len, reverse=True)[:5], key=lambda run: int(run[0]))
    places = ", ".join(f"{r[0]}" if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs)
    return (
        f"{title}: the mask may be wrong in {len(numbers)} frame{'s' * (len(numbers) > 1)} "
        f"(look at {places}); a correction on one of them puts it right."
    )


def _weights_here(*stages: checkpoints.Stage) -> list[str]:
    """Files that may be in use; when a better one has been fetched, a stage is run again."""
    names = [name for stage in stages for name in checkpoints.PREFERRED[stage]]
    return [name for name in names if checkpoints.find(name)]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "av", "opencv-contrib-python-headless", "onnxruntime",
                 "segment-anything", "timm"):  # fmt: skip
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed from somewhere else, or not at all
            continue
    return found
