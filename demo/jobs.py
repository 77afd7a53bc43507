"""Runs of the pipeline in the background: one at a time per device, the others wait their turn.

A job lives in the server and not in the page that started it: closing the tab does not end it, and
whoever knows its id finds it again. One that is paused stands still where it is, until somebody
else waits for the device: then it goes back into the queue, and later on from what it had finished.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from demo.failures import EXIT_BAD_INPUT, Cancelled, Failed, explain
from demo.project import ObjectPrompt, Settings, Task, link
from demo.run import Result
from demo.worker import Picture, Worker
from media import InputError
from media.device import resolve_device

State = Literal["waiting", "running", "done", "failed", "cancelled"]
# Like `demo.worker.Worker`.
Run = Callable[..., Result]

ARCHIVE = "masks_and_tracks.zip"
VIDEOS = (".mp4", ".webm", ".mov")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a running job is.

    Attributes:
        stage: as the pipeline calls it; empty while the models are being loaded.
        done, total: frames of this stage.
        seconds: since the stage's first frame was done.
    """

    stage: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time to the end of this stage; None until two frames have shown how fast it goes."""
        if self.done < 2:
            return None
        return self.seconds / (self.done - 1) * (self.total - self.done)


@dataclass(eq=False)
class Job:
    """One run and what became of it so far; `files` are there once it is done."""

    device: str
    task: Task
    exports: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: State = "waiting"
    progress: Progress = Progress()
    error: str = ""
    result: Result | None = None
    files: list[Path] = field(default_factory=list)
    picture: Picture | None = None  # the frame that was worked on last
    stop: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event = field(default_factory=threading.Event)
    ended: float = 0.0

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "running")

    @property
    def queued(self) -> bool:
        """Whether it may begin as soon as it is its turn."""
        return self.state == "waiting" and not self.pause.is_set()


@dataclass(frozen=True)
class _Call:
    """What a job was submitted with."""

    source: Path
    folder: Path
    objects: list[ObjectPrompt]
    settings: Settings
    options: dict[str, Any]
    shelves: Path
    ended: Callable[[], None]


def publish(result: Result, shelf: Path) -> list[Path]:
    """Lay out what a run made for being looked at and downloaded, in the new folder `shelf`.

    All of it as it is in the results, which a later run writes to while these files stay; and all
    but the videos in one archive, uncompressed because PNG already is. That may be passed on, and
    so does not say where this was made: who knows a session's folder can look into the session.

    Returns:
        What is for download: videos, tracks, and last the archive.
    """
    shutil.rmtree(shelf, ignore_errors=True)  # of a server that ended in the middle of this
    shelf.mkdir(mode=0o700)
    with zipfile.ZipFile(shelf / ARCHIVE, "w") as archive:
        for output in [*result.outputs, result.folder / "run.json"]:
            for path in sorted(output.rglob("*")) if output.is_dir() else [output]:
                if path.is_file():
                    name = path.relative_to(result.folder)
                    (shelf / name).parent.mkdir(parents=True, exist_ok=True)
                    link(path, shelf / name)
                    if path.name == "run.json":
                        text = path.read_text(encoding="utf-8")
                        own = json.dumps(str(result.folder.parent) + os.sep)[1:-1]
                        archive.writestr("run.json", text.replace(own, ""))
                    elif path.suffix not in VIDEOS:
                        archive.write(path, name)
    single = (p for p in result.outputs if p.suffix in VIDEOS or p.stem == "tracks")
    return [*(shelf / path.name for path in single), shelf / ARCHIVE]


def _place(device: str) -> str:
    """A device by the one name that all its names stand for."""
    found = resolve_device(device)
    return f"cuda:{found.index or 0}" if found.type == "cuda" else found.type


class Jobs:
    """The queue, with one worker process for each device and a thread that waits for it.

    Args:
        new_run: makes what does the jobs of one device; a test puts something quicker in its place.
        max_waiting: jobs that may wait for one device before a new one is turned away.
        keep_seconds: how long a job that has ended can still be found.
    """

    def __init__(
        self,
        new_run: Callable[[], Run] = Worker,
        *,
        max_waiting: int = 16,
        keep_seconds: float = 86_400.0,
    ) -> None:
        self._new_run = new_run
        self._runs: dict[str, Run] = {}
        self._max_waiting = max_waiting
        self._keep_seconds = keep_seconds
        self._jobs: dict[str, Job] = {}  # in the order they were submitted
        self._calls: dict[str, _Call] = {}
        self._workers: dict[str, ThreadPoolExecutor] = {}
        self._lock = threading.Lock()

    def submit(
        self,
        source: Path,
        folder: Path,
        objects: Sequence[ObjectPrompt],
        settings: Settings,
        *,
        shelves: Path,
        ended: Callable[[], None] = lambda: None,
        job_id: str | None = None,
        paused: bool = False,
        **options: Any,
    ) -> Job:
        """Queue a run.

        Args:
            shelves: where the folder with the finished files is made; its name is the job's id.
            ended: called when the job is over, however it ended.
            job_id: of a job that an earlier server did not finish.
            paused: it begins when it is told to go on.
            options: what else `demo.run.run` takes.

        Raises:
            InputError: too many others are waiting, or there is no such device.
        """
        device = _place(settings.device)
        settings = replace(settings, device=device)
        with self._lock:
            self._forget_old()
            waiting = sum(j.queued for j in self._jobs.values() if j.device == device)
            if waiting >= self._max_waiting:
                raise InputError(
                    f"{self._max_waiting} jobs are waiting already; try again in a few minutes."
                )
            if device not in self._workers:
                self._workers[device] = ThreadPoolExecutor(1, thread_name_prefix=f"job-{device}")
                self._runs[device] = self._new_run()
            job = Job(device, settings.do, settings.exports, job_id or uuid.uuid4().hex)
            if paused:
                job.pause.set()
            self._jobs[job.id] = job
            self._calls[job.id] = _Call(
                source, folder, list(objects), settings, options, shelves, ended
            )
            self._workers[device].submit(self._next, device)
        return job

    def find(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def ahead_of(self, job: Job) -> int:
        """How many jobs have to end before a waiting one begins; a paused one makes way."""
        with self._lock:
            jobs = [j for j in self._jobs.values() if j.device == job.device]
        running = (j for j in jobs if j.state == "running" and j is not job)
        queued = (j for j in jobs[: jobs.index(job)] if j.queued)
        return sum(not j.pause.is_set() for j in running) + sum(1 for _ in queued)

    def pause(self, job: Job, on: bool) -> None:
        """Let a job stand still after the frame it is working on, or go on.

        It makes way for whoever waits, and then has its place in the queue again when it goes on.
        """
        with self._lock:
            if on:
                job.pause.set()
            else:
                job.pause.clear()
                if job.state == "waiting":
                    self._workers[job.device].submit(self._next, job.device)

    def cancel(self, job: Job) -> None:
        """End a job: a waiting one at once, a running one within a second or so."""
        job.stop.set()
        with self._lock:
            waited = job.state == "waiting"
            if waited:
                job.state, job.ended = "cancelled", time.monotonic()
        if waited:
            self._calls[job.id].ended()

    def close(self) -> None:
        """Cancel everything and wait until it has ended."""
        for job in reversed(list(self._jobs.values())):  # or the end of one would begin the next
            self.cancel(job)
        for worker in self._workers.values():
            worker.shutdown()
        for run in self._runs.values():
            if isinstance(run, Worker):
                run.close()

    def _forget_old(self) -> None:
        limit = time.monotonic() - self._keep_seconds
        for job in [j for j in self._jobs.values() if not j.active and j.ended < limit]:
            del self._jobs[job.id], self._calls[job.id]

    def _makes_way(self, job: Job) -> bool:
        """Whether a job stands still while others wait for its device."""
        if not job.pause.is_set():
            return False
        with self._lock:
            return any(j.queued for j in self._jobs.values() if j.device == job.device)

    def _next(self, device: str) -> None:
        """Do the first job that may begin on a device, if there is one."""
        with self._lock:
            job = next((j for j in self._jobs.values() if j.device == device and j.queued), None)
            if job is None:  # it was cancelled, or is paused
                return
            job.state = "running"
            call = self._calls[job.id]
        self._work(job, call)

    def _work(self, job: Job, call: _Call) -> None:
        began = time.monotonic()

        def report(stage: str, done: int, total: int) -> None:
            nonlocal began
            if stage != job.progress.stage or not job.progress.done:
                began = time.monotonic()
            job.progress = Progress(stage, done, total, time.monotonic() - began)

        state: State = "failed"
        try:
            result = self._runs[job.device](
                call.source, call.folder, call.objects, call.settings, report=report,
                cancelled=lambda: job.stop.is_set() or self._makes_way(job),
                paused=job.pause.is_set, picture=partial(setattr, job, "picture"), **call.options,
            )  # fmt: skip
            job.files = publish(result, call.shelves / job.id)
            job.result = result
            state = "done"
        except Cancelled:
            with self._lock:
                if not job.stop.is_set():  # it makes way
                    job.state, job.progress, job.picture = "waiting", Progress(), None
                    self._workers[job.device].submit(self._next, job.device)
                    return
            state = "cancelled"
        except Exception as error:
            job.error, code = explain(error)
            if code != EXIT_BAD_INPUT and not isinstance(error, Failed):  # which was logged there
                logger.exception("A job failed.")
        job.ended = time.monotonic()
        job.state = state  # last: whoever sees it finds the rest in place
        call.ended()
