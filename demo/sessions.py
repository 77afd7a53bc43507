"""What the page keeps on the server: each person's video, where they pointed, and their run.

A session is one uploaded video (`looking.py`), its objects (`editing.py`), its run (`jobs.py`) and
what that left (`shelves.py`); `showing.py` tells the page. It is known by a random id that only its
own browser holds, and everything of it lies in a folder of that name, below a folder that is
private to this user of the machine. What a person has done is written there at once, so that a page
that is opened again, and a server that is started again, go on from it.
No gradio here.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo.editing import MAX_NAME, Document, History, Mark, Thing
from demo.imports import (
    holds_masks,
    prompts_of,
    read_masks,
    read_names,
    read_tracks,
    tracks_of,
)
from demo.jobs import Job, Jobs, State
from demo.looking import Found, Looker, as_box
from demo.pipeline import Models, choose_models
from demo.project import (
    ADJUSTABLE,
    EXPORTS,
    Box,
    Settings,
    TrackPoint,
    Tracks,
    link,
    object_color,
    write_json,
)
from demo.rates import Rates
from demo.run import Result
from demo.shelves import Shelf
from demo.showing import Showing
from media import InputError
from media.device import resolve_device
from media.masks import save_mask
from media.video import Budget

RECORD = "session.json"
NEAR = 25  # frames in sight, of which the surest says what a lost object looks like now
SURE_ENOUGH = 0.3  # probability from which a place is proposed to the user


class Session:
    """One video that somebody uploaded. Several threads may use it.

    Args:
        folder: for everything of this session; its name is the session's id.
        source: the video, inside `folder`.
        name: what the user calls it.
        models, rates: shared with the other sessions.
        settings: how runs are done, until somebody chooses otherwise.
        history: what has been pointed at before.

    Raises:
        InputError: the source cannot be read as a video, or is larger than `budget`.
    """

    def __init__(
        self,
        folder: Path,
        source: Path,
        name: str,
        models: Models,
        budget: Budget,
        rates: Rates,
        settings: Settings,
        history: History | None = None,
    ) -> None:
        self.id, self.name = folder.name, name
        self.folder, self.source = folder, source
        self.job: Job | None = None
        self.history = history or History()
        self.settings = replace(settings, do="remove")  # `start` says what is done
        self.frame_index = 0
        self._asked: tuple[Document, Settings] | None = None  # of the job
        self._earlier: tuple[Job, Settings] | None = None  # the last before it that made something
        self._usual = settings.exports
        self._frozen = False
        self.searches = 0  # that are over
        self.proposal: tuple[Document, float] | None = None  # where the object was found again
        self._budget, self._rates = budget, rates
        self._marks_folder = folder / "marks"
        self._results: Shelf | None = None
        self._showing = Showing(self)
        self._editing = threading.RLock()
        self.touch()
        self.looker = Looker(
            source, self._marks_folder, models, budget, rates, self.settings.segmenter
        )
        self.info, self.frame_count = self.looker.info, self.looker.count

    def touch(self) -> None:
        """Note that somebody uses this session: it is not to be tidied away yet."""
        self.used = time.monotonic()
        for folder in (self.folder, self.shelf):
            with suppress(OSError):
                os.utime(folder)

    @property
    def shown(self) -> Job | None:
        """The last run that has made something; whatever is shown is of this one."""
        if self.job is not None and self.job.files:
            return self.job
        return None if self._earlier is None else self._earlier[0]

    @property
    def shelf(self) -> Path:
        """Where the results that are shown lie; an empty place without any."""
        shown = self.shown
        return self.folder / "none" if shown is None else shown.files[0].parent

    @property
    def results(self) -> Shelf | None:
        """What lies there."""
        folder, known = self.shelf, self._results
        if known is None or known.folder != folder:
            try:
                known = self._results = Shelf(folder, self.info.size)
            except (OSError, KeyError, ValueError):
                return None
        return known

    def rest(self) -> None:
        """Let go of whatever can be had again when it is needed."""
        self.looker.rest()

    # ------------------------------------------------------------------------- what the user does

    @property
    def document(self) -> Document:
        return self.history.document

    def seek(self, index: int) -> None:
        """Show another frame; one that does not exist becomes the nearest that does."""
        self.frame_index = min(max(int(index), 0), self.frame_count - 1)

    def point(self, frame: int, x: float, y: float, label: int) -> None:
        """Add a point to the active object, label 1 on it and 0 beside it.

        Raises:
            InputError: the first point on a frame is not on the object.
        """
        thing, mark = self.active, self.mark_at(frame)
        if not label and mark.box is None and not mark.points and not mark.mask:
            raise InputError("Click on the object first, then on what does not belong to it.")
        # A click on a painted mask begins with the mask's box, or what was painted would be gone.
        box = mark.box
        if mark.mask and not mark.points:
            box = self.find(frame, mark).box
        mark = Mark((*mark.points, (x, y, label)), box)
        self._step(frame, thing, mark)

    def draw_box(self, frame: int, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a box around the active object; it takes the place of an earlier one."""
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        mark = replace(self.mark_at(frame), box=box, mask="", choice=None)
        self._step(frame, self.active, mark)

    def survey(self, frame: int) -> None:
        """Find everything on a frame, to be picked by pointing at it; takes some seconds.

        Clicks need not wait for it, and it ends when another frame is shown.
        """
        self.seek(frame)
        self.looker.survey(frame, lambda: self.frame_index != frame)

    def pick(self, frame: int, number: int) -> None:
        """Take one of the objects that `survey` has found for the active one."""
        masks = self.looker.picks(frame)
        if masks is None:
            raise InputError("The objects of this frame are not known any more; look again.")
        if not 0 <= number < len(masks):
            raise InputError(f"There are {len(masks)} objects to pick from here.")
        self._step(frame, self.active, Mark(mask=self._keep(masks[number])))

    def find_again(self, frame: int) -> None:
        """Look for the active object all over a frame, and point at it there; takes some seconds.

        Clicks need not wait for it, and nothing comes of it when another frame is shown meanwhile.

        Raises:
            InputError: it is not found, or nobody has said what it looks like.
            CheckpointError: the tracker's weights are missing.
        """
        self.seek(frame)
        thing = self.active
        views = self._sightings(thing, self.frame_index)
        if not views:
            raise InputError(f"Click {thing.name} on another frame first.")
        try:
            track = self.looker.search(frame, views, self.settings.tracker)
        finally:
            self.searches += 1
        if self.frame_index != frame:
            return
        if track.score < SURE_ENOUGH:
            raise InputError(
                f"{thing.name} was not found anywhere on frame {frame}; click it if you can see it."
            )
        self._step(frame, self.document.thing(thing.id), Mark(box=as_box(track.box)))
        self.proposal = self.document, track.score

    def _sightings(self, thing: Thing, frame: int) -> dict[int, Box]:
        """An object's boxes where it was first shown, and where it was surest near a frame."""
        tracks = self.tracks() or Tracks()
        points = {i: tracks.at(i)[thing.id] for i in tracks.points if thing.id in tracks.at(i)}
        scores = {i: point.score for i, point in points.items() if not point.lost}
        scores |= dict.fromkeys(thing.marks, 1.0)
        scores.pop(frame, None)
        near = sorted(scores, key=lambda i: abs(i - frame))[:NEAR]
        wanted = [*list(thing.marks)[:1], max(near, key=scores.__getitem__, default=frame)]
        boxes: dict[int, Box] = {}
        for index in (i for i in wanted if i != frame):
            mark = thing.marks.get(index)
            box = points[index].box if mark is None else self.find(index, mark).box
            if box is not None:
                boxes[index] = box
        return boxes

    def choose(self, frame: int, number: int) -> None:
        """Take another of the masks that may have been meant, the smallest being number 0."""
        thing, mark = self.active, replace(self.mark_at(frame), mask="", choice=None)
        count = len(self.find(frame, mark).masks)
        if not 0 <= number < count:
            raise InputError(f"There are {count} masks to choose from here.")
        mask = self.looker.closer(frame, mark, number)
        self._step(frame, thing, replace(mark, mask=self._keep(mask), choice=number))

    def paint(self, frame: int, strokes: Sequence[Mapping[str, Any]]) -> None:
        """Paint on the active object's mask, or erase from it.

        Args:
            strokes: each with `points`, a list of x y in pixels, `radius` in pixels, and `add`.
        """
        thing = self.active
        layer = self.mask_at(thing, frame)
        height, width = self.info.size
        canvas = np.zeros((height, width), np.uint8) if layer is None else layer.astype(np.uint8)
        for stroke in strokes:
            line = np.array(stroke["points"], np.float64).reshape(-1, 1, 2)
            radius = min(max(float(stroke["radius"]), 0.5), float(max(self.info.size)))
            color = int(bool(stroke["add"]))
            thickness = max(1, round(2 * radius))
            cv2.polylines(canvas, [line.round().astype(np.int32)], False, color, thickness)
            if len(line) == 1:
                center = tuple(line[0, 0].round().astype(int).tolist())
                cv2.circle(canvas, center, max(1, round(radius)), color, -1)
        if not canvas.any():
            raise InputError("Nothing is left of the mask; take the key frame away instead.")
        mark = replace(self.mark_at(frame), mask=self._keep(canvas > 0), choice=None)
        self._step(frame, thing, mark)

    def adjust(self, **changes: Any) -> None:
        """Choose some of `ADJUSTABLE` for the next run, and the segmenter for clicks as well.

        Raises:
            InputError: a name or a value is not possible.
            CheckpointError: the segmenter's weights are missing; nothing has changed.
        """
        if unknown := set(changes) - set(ADJUSTABLE):
            raise InputError(f"There is no setting {', '.join(sorted(unknown))}.")
        if "exports" in changes:
            changes["exports"] = tuple(changes["exports"])
        settings = replace(self.settings, **changes)
        choose_models(settings)
        resolve_device(settings.device)
        if settings.segmenter != self.settings.segmenter:
            self.looker.use(settings.segmenter)
        self.settings = settings
        self.save()

    def unmark(self, number: int, frame: int) -> None:
        """Take an object's key frame away."""
        self._push(self.document.with_thing(self.document.thing(number).marked(frame, None)))

    def add(self) -> None:
        """Begin another object; what is clicked next is it."""
        if self.document.things and not self.active.marks:
            raise InputError("Click on this object first; then add another one.")
        self._push(self.document.with_thing(self.document.new_thing()))

    def select(self, number: int) -> None:
        """Make an object the one that clicks are about."""
        self.history.replace(replace(self.document, active=self.document.thing(number).id))
        self.save()

    def show(self, number: int, shown: bool) -> None:
        """Draw an object on the page, or do not."""
        thing = replace(self.document.thing(number), shown=shown)
        self.history.replace(replace(self.document.with_thing(thing), active=self.document.active))
        self.save()

    def rename(self, number: int, name: str) -> None:
        self._push(self.document.renamed(number, name))

    def recolor(self, number: int, color: str) -> None:
        self._push(self.document.recolored(number, color))

    def decide(self, number: int, do: str) -> None:
        """Say what a run does with an object."""
        self._push(self.document.fated(number, do))

    def delete(self, number: int) -> None:
        self._push(self.document.without(number))

    def limit(self, start: int, stop: int | None) -> None:
        """Work on a part of the video only: frames start <= i < stop, None being the end."""
        end = self.frame_count if stop is None else min(stop, self.frame_count)
        if not 0 <= start < end:
            raise InputError("The part of the video ends before it begins; move its start or end.")
        whole = None if end == self.frame_count else end
        self._push(replace(self.document, start=start, stop=whole))

    def begin(self, frame: int) -> None:
        """Work on the video from a frame on."""
        stop = self.document.stop
        self.limit(frame, None if stop is not None and stop <= frame else stop)

    def end(self, frame: int) -> None:
        """Work on the video up to a frame."""
        start = self.document.start
        self.limit(start if start <= frame else 0, frame + 1)

    def take_over(self, upload: Path, name: str) -> None:
        """Take boxes or masks that were made before, in place of what was pointed at.

        Args:
            upload: a file in one of the formats of `demo/imports.py`.
            name: what the user calls it.

        Raises:
            InputError: it is none, or does not fit the video.
        """
        copy = self.folder / f"{uuid.uuid4().hex}{Path(name).suffix.lower()[:6]}"
        link(upload, copy)
        try:
            tracks = self.read_import(copy)
        except InputError as error:
            copy.unlink()
            raise InputError(str(error).replace(str(copy), name).replace(copy.name, name)) from None
        document = Document(start=self.document.start, stop=self.document.stop, imported=copy.name)
        for prompt in prompts_of(tracks, read_names(copy)):
            called = " ".join(prompt.name.split())[:MAX_NAME]
            thing = replace(
                document.new_thing(), id=prompt.id, name=called, color=object_color(prompt.id)
            )
            document = document.with_thing(thing.marked(prompt.frame, Mark(box=prompt.box)))
        self._push(document)
        first = min(frame for thing in document.things for frame in thing.marks)
        self.seek(max(first, document.start))

    def read_import(self, path: Path) -> Tracks:
        """The boxes in a file that was made before, or around its masks; InputError if none."""
        if holds_masks(path):
            masks = read_masks(path, self.info.size, self.frame_count)
            return tracks_of(masks, range(self.frame_count))
        return read_tracks(path, self.info.size, self.frame_count)

    def undo(self) -> None:
        """Take back the last step, and show the frame it was made on."""
        self._travel(self.history.undo)

    def redo(self) -> None:
        self._travel(self.history.redo)

    def clear(self) -> None:
        """Forget where the active object was pointed at."""
        if self.document.imported:
            self._push(replace(self.document, things=(), active=0, imported=""))
        elif self.document.things:
            self._push(self.document.with_thing(replace(self.active, marks={})))

    def settle(self) -> None:
        """Let this be the beginning: what was done before is not undone."""
        self.history = History(self.document)

    def _travel(self, go: Callable[[], None]) -> None:
        before = {t.id: t.marks for t in self.document.things}
        go()
        after = {t.id: t.marks for t in self.document.things}
        for number in before.keys() | after.keys():
            old, new = before.get(number, {}), after.get(number, {})
            changed = [f for f in old.keys() | new.keys() if old.get(f) != new.get(f)]
            if changed:
                self.seek(max(changed))
        self.save()

    @property
    def active(self) -> Thing:
        """The object that clicks are about; a new one while there is none."""
        document = self.document
        return document.thing(document.active) if document.things else document.new_thing()

    def mark_at(self, frame: int) -> Mark:
        """How the active object was pointed at on a frame."""
        return self.active.marks.get(frame, Mark())

    def _step(self, frame: int, thing: Thing, mark: Mark) -> None:
        """Take a mark over, if there is something to see where it points."""
        if self.document.imported:
            raise InputError(
                "The boxes come from a file; undo that, or clear them, to point at things here."
            )
        marked = thing.marked(frame, mark)
        marked.prompt(self._marks_folder).check(self.info.size, self.frame_count)
        self.find(frame, mark)
        self._push(self.document.with_thing(marked))
        self.seek(frame)

    def _push(self, document: Document) -> None:
        with self._editing:
            self.history.push(document)
        self.save()

    def _keep(self, mask: np.ndarray) -> str:
        self._marks_folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{uuid.uuid4().hex}.png"
        save_mask(self._marks_folder / name, mask)
        return name

    # ---------------------------------------------------------------------------- what comes of it

    def prepare(self) -> None:
        """Let the segmenter look at the frame that is shown, so that the first click is quick."""
        self.looker.prepare(self.frame_index)

    def look_closer(self) -> None:
        """Refine the masks of small objects that were pointed at on the shown frame."""
        index = self.frame_index
        self.looker.look_closer(index, self.marks_at(index))

    def find(self, frame: int, mark: Mark) -> Found:
        """The masks that a mark may mean, and the box that would be followed."""
        return self.looker.find(frame, mark)

    def marks_at(self, index: int) -> list[Mark]:
        """How objects were pointed at on a frame."""
        return [thing.marks[index] for thing in self.document.things if index in thing.marks]

    def mask_at(self, thing: Thing, frame: int) -> np.ndarray | None:
        """An object's mask on a frame: where it was pointed at, else from the last run."""
        if frame in thing.marks:
            return self.find(frame, thing.marks[frame]).mask
        point = self.point_at(thing.id, frame)
        if point is None or point.box is None:
            return None
        return None if self.results is None else self.results.mask(thing.id, frame)

    def point_at(self, number: int, frame: int) -> TrackPoint | None:
        """Where the run that is shown has an object on a frame."""
        tracks = self.tracks()
        return None if tracks is None else tracks.at(frame).get(number)

    def tracks(self) -> Tracks | None:
        """The boxes of the run that is shown."""
        return None if self.results is None else self.results.tracks

    def curves(self) -> dict[str, Any]:
        """What the timeline shows of that run; see `Shelf.curves`."""
        things = self.document.things
        if self.results is None:
            nothing: dict[str, Any] = {"scores": [], "lost": [], "doubtful": []}
            return {"things": [{"id": thing.id, **nothing} for thing in things]}
        return self.results.curves(things, self.frame_count)

    @property
    def playable(self) -> bool:
        """Whether a browser can play the source, beside a result."""
        coded = self.info.codec in ("h264", "vp8", "vp9", "av1") and not self.info.rotation
        return coded and self.source.suffix in (".mp4", ".m4v", ".mov", ".webm")

    @property
    def part(self) -> tuple[float, bool]:
        """Of the run that is shown: where its part begins, in seconds of the source, and whether
        the videos begin there, too."""
        settings = Settings()
        if self.shown is self.job and self._asked is not None:
            settings = self._asked[1]
        elif self._earlier is not None:
            settings = self._earlier[1]
        return float(self.looker.times[settings.start or 0]), settings.trim

    def view(self) -> dict[str, Any]:
        """What the editor on the page shows; see `Showing.view`."""
        return self._showing.view()

    def is_lost(self, index: int) -> bool:
        """Whether the active object is lost on a frame, so that it may be looked for there."""
        if not self.document.things or self.document.imported:
            return False
        thing = self.active
        point = self.point_at(thing.id, index)
        return point is not None and point.lost and bool(thing.marks) and index not in thing.marks

    @property
    def ready(self) -> bool:
        """Whether there is something to run."""
        return any(thing.marks for thing in self.document.things)

    # --------------------------------------------------------------------------------------- runs

    def start(self, jobs: Jobs) -> Job:
        """Run the pipeline for what was pointed at, as `settings` say.

        Exports that need masks are left out where nothing is cut out.

        Raises:
            InputError: nothing was pointed at; a run is under way; or too many others wait.
        """
        if self.job is not None and self.job.active:
            raise InputError("This video is being worked on; wait for it to end or cancel it.")
        if not self.ready:
            raise InputError("Click the object in the picture first.")
        return self._submit(jobs, self.document, self._wanted())

    def _wanted(self) -> Settings:
        """How a run would be done now."""
        document = self.document
        do = document.task()
        exports = (n for n in self.settings.exports if do != "track" or not EXPORTS[n].needs_masks)
        return replace(
            self.settings, do=do, start=document.start or None, end=document.stop,
            exports=tuple(exports),
        )  # fmt: skip

    @property
    def changed(self) -> bool:
        """Whether a run would be asked for something else now than the last one was."""
        if self._asked is None:
            return True
        folder, (document, settings) = self._marks_folder, self._asked
        return (
            self.document.prompts(folder) != document.prompts(folder)
            or self.document.imported != document.imported
            or self._wanted() != settings
        )

    def pause(self, jobs: Jobs, on: bool) -> None:
        """Let the run stand still, or go on; a later server keeps to it."""
        if self.job is not None:
            jobs.pause(self.job, on)
            self.save()

    def _submit(
        self,
        jobs: Jobs,
        document: Document,
        settings: Settings,
        job_id: str | None = None,
        *,
        paused: bool = False,
    ) -> Job:
        asked = document, settings
        objects = document.prompts(self._marks_folder)
        options: dict[str, Any] = {}
        left = [n for n in self.settings.exports if n not in (*settings.exports, *self._usual)]
        if left:
            names = ", ".join(EXPORTS[name].summary for name in left)
            options["said"] = [f"Not written, because nothing is cut out: {names}."]
        if document.imported:
            path = self.folder / document.imported
            kind = "masks" if holds_masks(path) else "tracks"
            options["known"], objects = objects, []
            settings = replace(settings, **{kind: path})  # type: ignore[arg-type]
        with self._editing:  # it may be over before we have taken note of it
            job = jobs.submit(
                self.source, self.folder / "results", objects, settings,
                shelves=self.folder.parent, ended=self._ended, job_id=job_id, paused=paused,
                budget=self._budget, **options,
            )  # fmt: skip
            if self.job is not None and self.job.files and self._asked is not None:
                self._earlier = self.job, self._asked[1]
            self.job, self._asked = job, asked
            self.save()
        return job

    def _ended(self) -> None:
        with self._editing:
            self.save()
            if self.job is not None and self.job.result is not None and self._asked is not None:
                self._rates.learn(self.job.result, choose_models(self._asked[1]))

    def save(self) -> None:
        """Write down what a server that is started later has to know."""
        if self._frozen:
            return
        record: dict[str, Any] = {
            "name": self.name, "source": self.source.name, "frame": self.frame_index,
            "document": self.document.to_json(), "history": self.history.to_json(),
            "settings": asdict(self.settings), "job": None, "earlier": None,
        }  # fmt: skip
        with self._editing:
            if self.job is not None and self._asked is not None:
                document, settings = self._asked
                result = self.job.result
                record["job"] = {
                    "id": self.job.id, "state": self.job.state, "error": self.job.error,
                    "paused": self.job.pause.is_set(),
                    "files": self._names(self.job), "notes": result.notes if result else [],
                    "document": document.to_json(), "settings": asdict(settings),
                }  # fmt: skip
            if self._earlier is not None:
                earlier, settings = self._earlier
                record["earlier"] = {
                    "id": earlier.id, "files": self._names(earlier), "settings": asdict(settings),
                }  # fmt: skip
            with suppress(OSError):  # a full disk must not keep anybody from looking
                write_json(self.folder / RECORD, record)

    def _names(self, job: Job) -> list[str]:
        return [str(file.relative_to(self.folder.parent)) for file in job.files]

    def freeze(self) -> None:
        """Write it down for the last time: that the server ends its run is not to be remembered."""
        self.save()
        self._frozen = True

    @classmethod
    def restore(
        cls,
        folder: Path,
        models: Models,
        jobs: Jobs,
        budget: Budget,
        rates: Rates,
        settings: Settings,
    ) -> Session:
        """Open a session that an earlier server has left; a run that was under way goes on.

        Raises:
            InputError, OSError, KeyError, TypeError, ValueError: it is damaged.
        """
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        document = Document.from_json(record["document"])
        history = History.from_json(document, record.get("history", {}))
        source = folder / Path(record["source"]).name
        session = cls(folder, source, record["name"], models, budget, rates, settings, history)
        session.settings = _settings(record["settings"])
        session.seek(record["frame"])
        if record["earlier"] is not None:
            settings = _settings(record["earlier"]["settings"])
            earlier = session._over(record["earlier"], settings, "done")
            session._earlier = (earlier, settings) if earlier.files else None
        if record["job"] is None:
            return session
        document = Document.from_json(record["job"]["document"])
        settings = _settings(record["job"]["settings"])
        state, error = record["job"]["state"], record["job"]["error"]
        if state in ("waiting", "running"):
            try:
                paused = record["job"].get("paused", False)
                session._submit(jobs, document, settings, record["job"]["id"], paused=paused)
                return session
            except InputError as refusal:  # perhaps its device is gone
                state, error = "failed", str(refusal)
        session._asked = document, settings
        session.job = session._over(record["job"], settings, state)
        session.job.error = error
        session.job.result = Result(folder / "results", [], record["job"]["notes"], {}, 0)
        return session

    def _over(self, record: Mapping[str, Any], settings: Settings, state: State) -> Job:
        """A job of an earlier server, with those of its files that are still there."""
        files = (self.folder.parent / name for name in record["files"])
        return Job(
            settings.device, settings.do, settings.exports, id=record["id"], state=state,
            files=[file for file in files if file.exists()],
        )  # fmt: skip


def _settings(record: Mapping[str, Any]) -> Settings:
    return Settings(**{**record, "exports": tuple(record["exports"])})
