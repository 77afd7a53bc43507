"""One run from beginning to end: which stages there are, which of them are done, what is written.

The stages themselves are in `demo/pipeline.py`, the folder they write to in `demo/project.py`.
"""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import checkpoints
from demo import __version__
from demo.exports import WRITERS, Material, write_tracks_csv, write_tracks_json
from demo.failures import Cancelled
from demo.imports import Masks, prompts_of, read_masks, read_tracks, read_tracks_json, tracks_of
from demo.pipeline import (
    Frame,
    Mask,
    Models,
    choose_models,
    cut_out,
    draw,
    follow,
    locate,
    repaint,
    write_video,
)
from demo.project import (
    EXPORTS,
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
from inpainting import Inpainter
from media import InputError
from media.masks import load_mask
from media.video import Budget, VideoReader, open_video
from segmenters import Segmenter
from trackers import Tracker

# Called with (stage, frames done, frames in all).
Report = Callable[[str, int, int], None]


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
        objects: what to follow; none where `settings` name tracks or masks to take.
        report: called with (stage, frames done, frames in all) after every frame.
        cancelled: asked after every frame; True ends the run with `Cancelled`. What was finished
            before stays and is not done again by the next run.
        models: hand in the same object again to keep loaded models between runs.

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
            objects = prompts_of(tracks)
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
            reader, project, list(objects), given, tracks, masks, settings, span, models, report,
            cancelled,
        ).go()  # fmt: skip


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


class _Run:
    """One run's stages in order; each asks the project whether it has been done before."""

    def __init__(
        self,
        reader: VideoReader,
        project: Project,
        objects: list[ObjectPrompt],
        given: dict[int, Mask],
        tracks: Tracks | None,
        masks: dict[int, Masks],
        settings: Settings,
        span: range,
        models: Models,
        report: Report | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self.reader, self.project, self.objects, self.given = reader, project, objects, given
        self.given_tracks, self.given_masks = tracks, masks
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
            [source_identity(p) for p in (*(o.mask for o in self.objects), s.tracks, s.masks) if p],
            s.start, s.end, s.tracker, s.segmenter, _weights_here("tracker", "segmenter"),
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
            painted = fingerprint(video, s.inpainter, s.dilate, _weights_here("flow", "inpainter"))
            self.stage("paint away", painted, ["removed.mp4"], self._repaint)
        for name in s.exports:
            export = partial(self._export, name, tracks)
            self.stage(f"export {name}", asked, [EXPORTS[name].output], export)
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
        self.poll()

    def poll(self) -> None:
        if self.cancelled():
            raise Cancelled("Stopped by the user.")

    def _weights_of(self, role: str, model: Tracker | Segmenter | Inpainter) -> None:
        self.weights[role] = str(model.weights)

    def _follow(self) -> None:
        tracks = self.given_tracks
        if tracks is None:
            tracks = self._track()
        folder = self.project.folder
        write_tracks_csv(folder / "tracks.csv", tracks, self.reader)
        write_tracks_json(folder / "tracks.json", tracks, self.reader, self.objects)

    def _track(self) -> Tracks:
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
        return tracks

    def _cut_out(self, tracks: Tracks) -> None:
        shutil.rmtree(self.project.folder / "masks", ignore_errors=True)
        size = self.reader.info.size
        union = self.project.union_masks(size)
        single = self.project.object_masks(self.objects, size)
        masks_by_frame: Iterator[tuple[int, dict[int, Mask]]]
        if self.given_masks:
            sources = self.given_masks
            masks_by_frame = ((i, {k: m[i] for k, m in sources.items()}) for i in self.span)
        else:
            segmenter = self.models.segmenter()
            self._weights_of("segmenter", segmenter)
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
        masks = self.project.union_masks(self.reader.info.size)
        frames = repaint(self.reader, masks, self.span, inpainter, self.poll)
        self._write("removed.mp4", frames, "paint away")
        self.notes += inpainter.notes

    def _export(self, name: str, tracks: Tracks) -> None:
        size, total = self.reader.info.size, len(self.span)
        masks = (
            {} if self.settings.do == "track" else (self.project.object_masks(self.objects, size))
        )
        WRITERS[name](
            self.project.folder / EXPORTS[name].output,
            Material(
                self.reader, tracks, self.objects, self.span, masks,
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


def _weights_here(*stages: checkpoints.Stage) -> list[str]:
    """Files that may be in use; when a better one has been fetched, a stage is run again."""
    names = [name for stage in stages for name in checkpoints.PREFERRED[stage]]
    return [name for name in names if checkpoints.find(name)]


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
