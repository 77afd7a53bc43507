"""From a click to three videos: the stages, and how each makes frames out of frames.

    key frames ─► locate ─► follow ─► cut_out      pass 1: streams frames, writes tracks and masks
                                         │
                  draw ◄─────────────────┤         pass 2: reads them back, writes the videos
                  repaint ◄──────────────┘

Each stage is a generator over frames, so nothing holds the video. Models come from `trackers`,
`segmenters` and `inpainting`, which know nothing of each other; only this file joins them. The
stages are run one after the other, in a project folder, by `demo/run.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

import checkpoints
from demo.project import STEADY, KeyFrame, ObjectPrompt, Settings, TrackPoint, Tracks
from inpainting import (
    Inpainter,
    MaskSource,
    build_inpainter,
    check_inpainter,
    list_inpainters,
)
from media import InputError
from media.cuts import CutDetector
from media.device import multiplies_bfloat16, resolve_device
from media.draw import draw_box, draw_mask
from media.video import VideoReader, VideoWriter
from segmenters import (
    Candidate,
    Embedding,
    Prompt,
    Segmenter,
    build_segmenter,
    check_segmenter,
    list_segmenters,
)
from segmenters.cache import CachedSegmenter
from segmenters.cleanup import choose_candidate, clean_mask, mask_box
from segmenters.region import Window, answer, choose_window, is_within
from segmenters.steady import Steadier, SteadyMask, boxes_to_ask
from trackers import MultiTracker, Track, build_tracker, list_trackers

Frame = np.ndarray  # RGB uint8 (h, w, 3)
Mask = np.ndarray  # bool (h, w)

KEPT_SEGMENTERS = 2  # loaded at a time; the largest has 2.5 GB
CACHED_BYTES = 2**30  # on disk, for about 250 frames


# ------------------------------------------------------------------------------------------ models


def choose_models(settings: Settings) -> Settings:
    """Put the best model that has its weights on this machine wherever `auto` stands.

    Raises:
        InputError: a name that is not `auto` is not registered.
    """
    return replace(
        settings,
        tracker=_choose("tracker", settings.tracker, list_trackers(), "mixformerv2_small"),
        segmenter=_choose("segmenter", settings.segmenter, list_segmenters(), "mobile_sam"),
        inpainter=_choose("inpainter", settings.inpainter, list_inpainters(), "propagation"),
    )


def _choose(stage: checkpoints.Stage, name: str, known: Sequence[str], fallback: str) -> str:
    if name == "auto":
        here = (weights for weights in checkpoints.PREFERRED[stage] if checkpoints.find(weights))
        models = (weights.removesuffix("_seed") for weights in here)  # a seed's is its namesake
        return next((model for model in models if model in known), fallback)
    if name not in known:
        raise InputError(f"There is no {stage} “{name}”; there are auto, {', '.join(known)}.")
    return name


@dataclass
class Models:
    """The models of a run; segmenters, which are stateless, are kept for the next one.

    Attributes:
        cache: folder for what segmenters have seen of frames, for whoever comes back to them; None
            keeps nothing.
    """

    settings: Settings
    cache: Path | None = None
    _segmenters: OrderedDict[str, Segmenter] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.settings = choose_models(self.settings)

    def check(self, *, segmenter: bool, inpainter: bool) -> None:
        """Raise now what building these would, as far as is known without loading them.

        Raises:
            InputError: there is no such device, or the inpainter cannot do what is asked for.
            checkpoints.CheckpointError: weights are missing or damaged.
        """
        settings = self.settings
        resolve_device(settings.device)
        if segmenter:
            check_segmenter(settings.segmenter)
        if inpainter:
            if settings.shadow and settings.inpainter != "propagation":
                raise InputError("Only propagation finds shadows; choose it, or leave shadows.")
            check_inpainter(settings.inpainter)

    def tracker(self, name: str = "") -> MultiTracker:
        """The one of the settings, or another by its name, which may be `auto`."""
        name = choose_models(replace(self.settings, tracker=name or self.settings.tracker)).tracker
        return MultiTracker(build_tracker(name, device=self.settings.device))

    def segmenter(self, name: str = "") -> Segmenter:
        """The one of the settings, or another by its name, which may be `auto`."""
        name = choose_models(
            replace(self.settings, segmenter=name or self.settings.segmenter)
        ).segmenter
        with self._lock:  # a click and a run may ask at the same time
            if name not in self._segmenters:
                # Masks in bfloat16 have an IoU of 0.998 with those in float32 (MobileSAM on DAVIS),
                # and a frame takes less than half the time where there are instructions for it.
                device = self.settings.device
                built = build_segmenter(
                    name, device=device,
                    precision="bfloat16" if multiplies_bfloat16(device) else "float32",
                )  # fmt: skip
                if self.cache is not None:
                    built = CachedSegmenter(built, folder=self.cache, disk=CACHED_BYTES)
                self._segmenters[name] = built
                while len(self._segmenters) > KEPT_SEGMENTERS:
                    self._segmenters.popitem(last=False)
            self._segmenters.move_to_end(name)
            return self._segmenters[name]

    def inpainter(self, resolution: int | None = None) -> Inpainter:
        """The one of the settings, which `check` has looked at; `resolution` as in `Settings`."""
        settings = self.settings
        options: dict[str, Any] = {"shadow": True} if settings.shadow else {}
        return build_inpainter(
            settings.inpainter, device=settings.device, dilate=settings.dilate,
            resolution=resolution, **options,
        )  # fmt: skip


# ---------------------------------------------------------------------------- pass 1: boxes, masks


@dataclass(frozen=True)
class Segment:
    """Frames on which one object is followed from one of its key frames.

    Attributes:
        prompt: the object.
        key: one of its key frames.
        frames: in the order they are gone through: the key frame first, then away from it, upwards
            or downwards.
    """

    prompt: ObjectPrompt
    key: KeyFrame
    frames: range


def plan(prompt: ObjectPrompt, span: range) -> list[Segment]:
    """Divide `span` into the segments of an object, as `ObjectPrompt.corrections` says.

    The object's own key frame begins two of them, one upwards and one downwards. A key frame may
    lie outside of `span`: its segment leads into it.
    """
    later = sorted((k for k in prompt.corrections if k.frame > prompt.frame), key=_frame_of)
    earlier = sorted((k for k in prompt.corrections if k.frame < prompt.frame), key=_frame_of)
    segments = []
    for keys, step, end in (
        ([prompt, *later], 1, span.stop),
        ([prompt, *reversed(earlier)], -1, span.start - 1),
    ):
        for key, following in zip_longest(keys, keys[1:]):
            stop = end if following is None else step * min(step * following.frame, step * end)
            frames = range(key.frame, stop, step)
            # Downwards, the object's own frame alone is in the first of the others.
            if frames and frames[-1] in span and (step > 0 or key is not prompt or len(frames) > 1):
                segments.append(Segment(prompt, key, frames))
    return segments


def within(segment: Segment, span: range) -> Segment:
    """The segment without the frames that lead into `span`."""
    frames = segment.frames
    first = span[0] if frames.step > 0 else span[-1]
    return replace(segment, frames=frames[max(0, (first - frames[0]) * frames.step) :])


def _frame_of(key: KeyFrame) -> int:
    return key.frame


def walk(
    reader: VideoReader, segments: Sequence[Segment]
) -> Iterator[tuple[int, Frame, list[Segment]]]:
    """Go through the frames of segments in their order: the upward ones together, then the others.

    Yields (frame index, frame, the segments it is in). Memory is constant in both directions:
    downwards the reader works by groups of pictures.
    """
    for step in (1, -1):
        group = [s for s in segments if s.frames.step == step]
        if not group:
            continue
        first = min(min(s.frames) for s in group)
        stop = max(max(s.frames) for s in group) + 1
        frames = reader.frames(first, stop, backwards=step < 0)
        for index, frame in zip(range(first, stop)[::step], frames, strict=False):
            yield index, frame, [s for s in group if index in s.frames]


def to_prompt(key: KeyFrame) -> Prompt:
    """The user's points and box as the segmenter takes them."""
    return Prompt(
        box=None if key.box is None else np.asarray(key.box, np.float32),
        points=np.asarray([p[:2] for p in key.points], np.float32) if key.points else None,
        labels=np.asarray([p[2] for p in key.points], np.int64) if key.points else None,
    )


def find_candidates(
    segmenter: Segmenter, embedding: Embedding, key: KeyFrame
) -> tuple[list[Candidate], Candidate]:
    """The masks that the user may mean, the smallest first, and the one that is taken.

    What a click shows at once; a small object is then looked at closely by `look_closer`.
    """
    prompt = to_prompt(key)
    candidates = segmenter.predict(embedding, [prompt])[0]
    chosen = choose_candidate(candidates, prompt=prompt, box=prompt.box)
    return sorted(candidates, key=lambda c: int(c.mask.sum())), chosen


def window_of(key: KeyFrame, coarse: Candidate) -> Window | None:
    """Where to look closely at what was pointed at; None if it is large enough as it is."""
    prompt, (height, width) = to_prompt(key), coarse.mask.shape
    box = mask_box(coarse.mask) if prompt.box is None else prompt.box
    window = choose_window(box, (height, width), points=prompt.points)
    return None if window == (0, 0, width, height) else window


def look_closer(
    segmenter: Segmenter, frame: Frame, key: KeyFrame, coarse: Candidate
) -> tuple[Candidate, Window | None]:
    """One of the candidates as it is seen from near, if it is small, and the window it is seen in.

    The page and a run both ask this, so that the mask one clicks is the mask one gets.
    """
    window = window_of(key, coarse)
    if window is None:
        return coarse, None
    prompt = to_prompt(key)
    (closer,) = answer(segmenter, frame, [(prompt, window)])
    return choose_candidate(closer, prompt=prompt, box=prompt.box, previous=coarse.mask), window


def locate(frame: Frame, key: KeyFrame, given: Mask | None, models: Models) -> np.ndarray:
    """The box to follow: as it was drawn, or around the given mask, or around what is clicked.

    Raises:
        InputError: the segmenter finds nothing at the points.
    """
    if key.box is not None:
        return np.asarray(key.box, np.float32)
    if given is None:
        segmenter = models.segmenter()
        _, coarse = find_candidates(segmenter, segmenter.encode(frame), key)
        given = clean_mask(look_closer(segmenter, frame, key, coarse)[0].mask)
    box = mask_box(given)
    if box is None:
        raise InputError(
            f"{key.title}: nothing was found at the points; click on the object or draw a box."
        )
    return box


def follow(
    reader: VideoReader,
    segments: Sequence[Segment],
    boxes: Mapping[tuple[int, int], np.ndarray],
    tracker: MultiTracker,
) -> Iterator[tuple[int, Frame, dict[Segment, Track]]]:
    """Follow objects through their segments.

    What a segment shows depends on its own key frame and the object's first one, and on no other:
    a correction leaves the frames before it as they are.

    Args:
        boxes: where each object is on its key frames, by (object id, frame index).

    Yields (frame index, frame, {segment: track}), in the order of `walk`.
    """
    running: dict[int, Segment] = {}
    for index, frame, here in walk(reader, segments):
        for number, segment in list(running.items()):
            if segment not in here:
                tracker.remove(number)
                del running[number]
        found = {running[number]: track for number, track in tracker.track(frame).items()}
        for segment in here:
            if segment in found:
                continue
            number, first = segment.prompt.id, segment.prompt.frame
            running[number] = segment
            box = boxes[number, index]
            if segment.key is segment.prompt:
                tracker.add(number, frame, box)
            else:
                tracker.add(number, reader[first], boxes[number, first])
                tracker.correct(number, frame, box)
            found[segment] = Track(box=box, score=1.0)
        yield index, frame, found


def search(
    frame: Frame, views: Iterable[tuple[Frame, Sequence[float]]], tracker: MultiTracker
) -> Track:
    """Look for an object that was lost all over a frame.

    Args:
        views: other frames and its box there: the one it was first shown on, and one on which it
            looks more as it may look now.

    Raises:
        InputError: this tracker cannot do that.
    """
    for other, box in views:
        if not tracker.ids:
            tracker.add(1, other, box)
        else:
            tracker.correct(1, other, box)
    return tracker.find(1, frame)


def cut_out(
    reader: VideoReader,
    tracks: Tracks,
    segments: Sequence[Segment],
    given: Mapping[tuple[int, int], Mask],
    segmenter: Segmenter,
    steady: float = STEADY,
) -> Iterator[tuple[int, Frame, dict[Segment, SteadyMask]]]:
    """Masks of objects in their segments, prompted with the tracked boxes and steady in time.

    On a key frame the user's prompt counts instead: a given mask is taken as it is, points and box
    go to the segmenter together. Small objects are looked at closely, each by itself; where every
    object is lost, or its box beside the frame, the frame is not even encoded. What was decided
    before a cut does not count behind it.

    Args:
        given: the masks that are taken as they are, by (object id, frame index).
        steady: weight of the frame before; see `Steadier`.

    Yields (frame index, frame, {segment: mask}), in the order of `walk`; a lost object has an empty
    mask.
    """
    size = reader.info.size
    nothing = SteadyMask(np.zeros(size, bool), float("nan"), float("nan"), False)
    steadiers: dict[Segment, Steadier] = {}
    cuts = CutDetector()
    for index, frame, here in walk(reader, segments):
        if cuts.is_cut(frame):
            steadiers.clear()
        steadiers = {
            segment: steadiers.get(segment) or Steadier(inertia=steady) for segment in here
        }
        masks = dict.fromkeys(here, nothing)
        asked: dict[Segment, tuple[tuple[np.ndarray, np.ndarray], Window]] = {}
        for segment in here:
            number, key = segment.prompt.id, segment.key
            point = tracks.at(index).get(number)
            if point is None or point.box is None or not is_within(point.box, size):
                steadiers[segment].forget()
            elif index == key.frame and (number, index) in given:
                mask = given[number, index]
                steadiers[segment].hold(frame, mask)
                masks[segment] = SteadyMask(mask, 1.0, float("nan"), False)
            elif index == key.frame:
                _, coarse = find_candidates(segmenter, segmenter.encode(frame), key)
                chosen, window = look_closer(segmenter, frame, key, coarse)
                chosen = replace(chosen, mask=clean_mask(chosen.mask))  # as the page has shown it
                # A click may mean a part that is smaller than the box; a box means the whole of it.
                expected = None if key.points or key.box is None else np.asarray(key.box)
                masks[segment] = steadiers[segment].settle(
                    frame, [chosen], box=expected, window=window
                )
            else:
                both = boxes_to_ask(np.asarray(point.box), size)
                asked[segment] = both, choose_window(both[0], size)
        answers = iter(
            answer(
                segmenter,
                frame,
                [(Prompt(box), near) for both, near in asked.values() for box in both],
            )
        )
        for segment, (both, near) in asked.items():
            candidates = [*next(answers), *next(answers)]
            masks[segment] = steadiers[segment].settle(frame, candidates, box=both[0], window=near)
        yield index, frame, masks


# ------------------------------------------------------------------------------- pass 2: the videos


def draw(
    frame: Frame,
    points: Mapping[int, TrackPoint],
    masks: Mapping[int, Mask] | None,
    objects: Sequence[ObjectPrompt],
) -> Frame:
    """The frame with each object's mask drawn on, or its box; a lost object draws nothing."""
    for prompt in objects:
        point = points.get(prompt.id)
        if point is None or point.box is None:
            continue
        if masks is not None and prompt.id in masks:
            frame = draw_mask(frame, masks[prompt.id], color=prompt.color)
        else:
            frame = draw_box(
                frame, point.box, color=prompt.color, label=prompt.name, score=point.score
            )
    return frame


class _Range:
    """A lazy sequence as the inpainter sees it when only a part of the video is worked on.

    `poll` is called at every access, so that a run can be stopped while the inpainter, which looks
    ahead, has nothing to show yet.
    """

    def __init__(self, source: Any, span: range, poll: Callable[[], None]) -> None:
        self._source = source
        self._span = span
        self._poll = poll

    def __len__(self) -> int:
        return len(self._span)

    def __getitem__(self, index: int) -> np.ndarray:
        self._poll()
        return self._source[self._span[index]]


def repaint(
    reader: VideoReader,
    masks: MaskSource,
    span: range,
    inpainter: Inpainter,
    poll: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Frame]]:
    """Yield (frame index, frame without the masked things) over `span`; `poll` may raise."""
    source, holes = _Range(reader, span, poll), _Range(masks, span, poll)
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
