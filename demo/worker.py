"""Runs in a process of their own: one can be ended at any moment, and a crash hurts nobody else.

    queue (demo/jobs.py)  --request-->  child: demo.run.run, with models that stay loaded
                          <--progress, pictures, result or sentence--

The child is asked to stop and is killed when it has not done so within a second: an encoder or an
inpainter may well be busy for ten. What it had finished is on disk, and the next run goes on there.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

from demo.failures import EXIT_BAD_INPUT, EXIT_FAILED, Cancelled, Failed, explain
from demo.pictures import to_jpeg
from demo.pipeline import Models, choose_models
from demo.project import ObjectPrompt, Settings
from demo.run import Report, Result, half_size, painted_smaller
from demo.run import run as run_once
from media.video import open_video

GRACE = 1.0  # seconds in which a run may end by itself after it was cancelled
_LAST_BREATH = 10.0  # seconds in which a process that is ending leaves its exit code
_POLL = 0.05  # seconds between two looks at what the user wants
_PICTURE_SECONDS = 0.4  # between two pictures of the work under way
_PICTURE_SIDE = 1280  # pixels
_KILLED = -9  # exit code of a process that was ended by force

logger = logging.getLogger(__name__)

Picture = tuple[int, bytes]  # frame index, JPEG


# ------------------------------------------------------------------------------------- in the child


def _serve(requests: Connection, stop: Event, pause: Event, run: Callable[..., Result]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the server, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    models: Any = None
    chosen: Any = None

    def cancelled() -> bool:
        while pause.is_set() and not stop.is_set():
            time.sleep(_POLL)
        return stop.is_set()

    while True:
        try:
            source, folder, objects, settings, options = requests.recv()
        except EOFError:
            return
        last = -np.inf

        def report(stage: str, done: int, total: int) -> None:
            requests.send(("progress", (stage, done, total)))

        def show(index: int, picture: Callable[[], np.ndarray]) -> None:
            nonlocal last
            if time.monotonic() - last >= _PICTURE_SECONDS:
                last = time.monotonic()
                requests.send(("picture", (index, to_jpeg(picture(), _PICTURE_SIDE))))

        try:
            if run is run_once:
                key = settings.tracker, settings.segmenter, settings.inpainter, settings.device
                if key != chosen:
                    models, chosen = Models(settings), key
                models.settings = choose_models(settings)
                options = {**options, "models": models}
            result = run(
                source, folder, objects, settings,
                report=report, cancelled=cancelled, show=show, **options,
            )  # fmt: skip
            answer: tuple[str, Any] = ("done", result)
        except Cancelled:
            answer = ("cancelled", None)
        except BaseException as error:
            sentence, code = explain(error)
            if code != EXIT_BAD_INPUT:
                logger.exception("A run failed.")
            answer = ("failed", (sentence, code))
        requests.send(answer)


def _end_with_parent() -> None:
    """A server that was killed cannot end us, and the next one will work in the same folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ------------------------------------------------------------------------------------ in the server


class _Ended(Failed):
    """The child has ended by itself."""

    def __init__(self, code: int | None) -> None:
        if code == _KILLED:  # the system ends whoever takes more memory than there is
            text = (
                "The run's process was ended by the system, most likely for want of memory; "
                "finished steps are kept, so run again with a smaller part of the video."
            )
        else:
            text = (
                f"The run's process ended unexpectedly (code {code}); what the server has printed "
                "says why. Finished steps are kept."
            )
        super().__init__(text, EXIT_FAILED)
        self.exitcode = code


class Worker:
    """One child process, started when it is first needed and again after it was ended.

    Args:
        run: what the child calls; something that can be pickled.
    """

    def __init__(self, run: Callable[..., Result] = run_once) -> None:
        self._run = run
        self._context = multiprocessing.get_context("spawn")  # a forked child cannot use a GPU
        self._process: Any = None
        self._pipe: Any = None
        self._stop: Any = None
        self._pause: Any = None

    def __call__(
        self,
        source: Path,
        folder: Path,
        objects: Sequence[ObjectPrompt],
        settings: Settings,
        *,
        report: Report,
        cancelled: Callable[[], bool],
        paused: Callable[[], bool] = lambda: False,
        picture: Callable[[Picture], None] = lambda picture: None,
        **options: Any,
    ) -> Result:
        """Do one run, like `demo.run.run`.

        Args:
            paused: asked many times a second; the run stands still while it is True.
            picture: called now and then with the frame that has just been worked on.
            options: what else `demo.run.run` takes and can be pickled.

        Raises:
            Cancelled: within a second of `cancelled` becoming True.
            Failed: with the sentence for the user.
        """
        stage = ""

        def watched(name: str, done: int, total: int) -> None:
            nonlocal stage
            stage = name
            report(name, done, total)

        before = list(options.pop("said", ()))
        said = before
        while True:
            try:
                return self._once(
                    source, folder, objects, settings, report=watched, cancelled=cancelled,
                    paused=paused, picture=picture, **options, **({"said": said} if said else {}),
                )  # fmt: skip
            except _Ended as end:
                if end.exitcode != _KILLED or stage != "paint away":
                    raise
                with open_video(source) as reader:
                    smaller = half_size(settings, reader.info.size)
                if smaller is None:
                    raise
                settings = replace(settings, resolution=smaller)
                said = [*before, painted_smaller(smaller)]

    def _once(
        self,
        source: Path,
        folder: Path,
        objects: Sequence[ObjectPrompt],
        settings: Settings,
        *,
        report: Report,
        cancelled: Callable[[], bool],
        paused: Callable[[], bool],
        picture: Callable[[Picture], None],
        **options: Any,
    ) -> Result:
        self._start()
        self._stop.clear()
        self._pause.clear()
        deadline = None
        try:
            self._pipe.send((source, folder, list(objects), settings, options))
            while True:
                self._pause.set() if paused() else self._pause.clear()
                if deadline is None and cancelled():
                    self._stop.set()
                    deadline = time.monotonic() + GRACE
                if deadline is not None and time.monotonic() > deadline:
                    self.close()
                    _tidy(folder)
                    raise Cancelled("Stopped by the user.")
                if not self._pipe.poll(_POLL):
                    continue
                kind, value = self._pipe.recv()
                if kind == "progress":
                    report(*value)
                elif kind == "picture":
                    picture(value)
                elif kind == "done":
                    return value
                elif kind == "cancelled":
                    raise Cancelled("Stopped by the user.")
                else:
                    raise Failed(*value)
        except (EOFError, OSError, pickle.UnpicklingError):
            process = self._process
            process.join(_LAST_BREATH)
            code = process.exitcode
            self.close()
            _tidy(folder)
            raise _Ended(code) from None

    def _start(self) -> None:
        if self._process is not None and self._process.is_alive():
            return
        self._stop, self._pause = self._context.Event(), self._context.Event()
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._stop, self._pause, self._run), daemon=True
        )
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the child at once; harmless when there is none."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _tidy(folder: Path) -> None:
    """Remove what a killed run was in the middle of writing."""
    for part in folder.glob("*.part"):
        with suppress(OSError):
            part.unlink()
