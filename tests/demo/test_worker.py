"""Runs in another process: what comes back, and how they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo.failures import EXIT_BAD_INPUT, EXIT_FAILED, Cancelled, Failed
from demo.project import Settings
from demo.run import Result
from demo.worker import GRACE, Worker
from media import InputError
from media.video import VideoWriter


def steps(
    source: Path, folder: Path, objects: list[Any], settings: Settings, *,
    report: Callable[..., None], cancelled: Callable[[], bool], show: Callable[..., None],
    **options: Any,
) -> Result:  # fmt: skip
    """A run whose `source` says what it does; it works in the child and so only through files."""
    (folder / "pid").write_text(str(os.getpid()))
    word = source.name
    if word == "bad":
        raise InputError("Click on the object.")
    if word == "boom":
        raise RuntimeError("boom")
    if word == "die":
        (folder / "removed.mp4.part").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "crash":
        os._exit(3)
    if word == "film.mp4":
        report("paint away", 0, 400)
        if settings.resolution is None:
            os.kill(os.getpid(), signal.SIGKILL)
    for done in range(1, 400):
        report("follow", done, 400)
        show(done, lambda: np.full((90, 1600, 3), 200, np.uint8))
        if word == "deaf":
            (folder / "removed.mp4.part").write_text("half")
            time.sleep(60)
        if word in ("quick", "film.mp4") and done == 3:
            break
        time.sleep(0.02)
        if cancelled():
            raise Cancelled("stopped")
    return Result(folder, [folder / "x.mp4"], [str(options)], {"follow": 1.0})


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(steps)
    yield worker
    worker.close()


def call(worker: Worker, word: str, folder: Path, **options: Any) -> Result:
    how: dict[str, Any] = {"report": lambda *a: None, "cancelled": lambda: False, **options}
    return worker(Path(word), folder, [], Settings(), **how)


def test_progress_pictures_and_the_result_come_back(worker: Worker, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    pictures: list[tuple[int, bytes]] = []
    result = call(worker, "quick", tmp_path, report=lambda *a: seen.append(a),
                  picture=pictures.append, budget=7)  # fmt: skip
    assert result == Result(tmp_path, [tmp_path / "x.mp4"], ["{'budget': 7}"], {"follow": 1.0})
    assert seen == [("follow", k, 400) for k in (1, 2, 3)]
    (index, data), *more = pictures
    assert index == 1 and data[:3] == b"\xff\xd8\xff" and not more  # not every frame
    assert int((tmp_path / "pid").read_text()) != os.getpid()


@pytest.mark.parametrize(
    ("word", "sentence", "code"),
    [("bad", "Click on the object.", EXIT_BAD_INPUT), ("boom", "boom", EXIT_FAILED)],
)
def test_failures_are_sentences_and_the_process_lives_on(
    word: str, sentence: str, code: int, worker: Worker, tmp_path: Path
) -> None:
    with pytest.raises(Failed, match=sentence) as caught:
        call(worker, word, tmp_path)
    assert caught.value.code == code
    before = (tmp_path / "pid").read_text()
    call(worker, "quick", tmp_path)
    assert (tmp_path / "pid").read_text() == before


def test_a_run_that_listens_ends_by_itself(worker: Worker, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Cancelled):
        call(worker, "long", tmp_path, cancelled=lambda: time.monotonic() - began > 0.3)
    assert time.monotonic() - began < 0.3 + GRACE
    call(worker, "quick", tmp_path)


def test_a_run_that_does_not_listen_is_ended(worker: Worker, tmp_path: Path) -> None:
    cancel = threading.Event()
    seen: list[int] = []
    began = 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal began
        seen.append(done)
        began = time.monotonic()
        cancel.set()

    with pytest.raises(Cancelled):
        call(worker, "deaf", tmp_path, report=report, cancelled=cancel.is_set)
    assert seen == [1] and time.monotonic() - began < GRACE + 1
    assert not list(tmp_path.glob("*.part"))
    call(worker, "quick", tmp_path)  # in a new process


def test_a_paused_run_stands_still(worker: Worker, tmp_path: Path) -> None:
    pause, seen = threading.Event(), [0]
    stop_at = time.monotonic() + 1.5

    def report(stage: str, done: int, total: int) -> None:
        seen.append(done)
        if done == 3:
            pause.set()

    def cancelled() -> bool:
        return time.monotonic() > stop_at

    with pytest.raises(Cancelled):
        call(worker, "long", tmp_path, report=report, paused=pause.is_set, cancelled=cancelled)
    assert 3 <= seen[-1] < 20


def test_a_process_that_dies_is_told_of_and_replaced(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="ended by the system, most likely for want of memory"):
        call(worker, "die", tmp_path)
    with pytest.raises(Failed, match=r"ended unexpectedly \(code 3\); what the server has printed"):
        call(worker, "crash", tmp_path)
    assert not list(tmp_path.glob("*.part"))
    call(worker, "quick", tmp_path)


def test_a_run_that_was_ended_for_its_memory_is_done_again_at_half_the_size(
    worker: Worker, tmp_path: Path
) -> None:
    with VideoWriter(tmp_path / "film.mp4", size=(240, 640), fps=Fraction(10)) as writer:
        writer.write(np.zeros((240, 640, 3), np.uint8))
    result = call(worker, str(tmp_path / "film.mp4"), tmp_path, said=["Not written."])
    assert "Not written." in result.notes[0] and "done at 320 pixels" in result.notes[0]
