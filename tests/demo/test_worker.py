"""Runs in another process: what comes back, and how they end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo import worker
from demo.failures import EXIT_BAD_INPUT, EXIT_FAILED, Cancelled, Failed
from demo.project import Settings
from demo.run import Result
from demo.worker import Worker
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
    if word in ("rarely", "often"):  # pictures, however long the frames take
        worker._PICTURE_SECONDS = {"rarely": 3600.0, "often": 0.0}[word]
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
            time.sleep(600)
        if word in ("rarely", "often", "quick", "film.mp4") and done == 3:
            break
        while word == "gate" and done == 3 and not (folder / "open").exists():
            time.sleep(0.005)
        if word == "gate" and done == 6:
            break
        time.sleep(0.02)
        if cancelled():
            raise Cancelled("stopped")
    return Result(folder, [folder / "x.mp4"], [str(options)], {"follow": 1.0})


@pytest.fixture(scope="module")
def child() -> Iterator[Worker]:
    child = Worker(steps)
    yield child
    child.close()


def call(child: Worker, word: str, folder: Path, **options: Any) -> Result:
    how: dict[str, Any] = {"report": lambda *a: None, "cancelled": lambda: False, **options}
    return child(Path(word), folder, [], Settings(), **how)


def pid(folder: Path) -> int:
    """Of the process that has worked in this folder last."""
    return int((folder / "pid").read_text())


def test_progress_pictures_and_the_result_come_back(child: Worker, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    pictures: list[tuple[int, bytes]] = []
    result = call(child, "rarely", tmp_path, report=lambda *a: seen.append(a),
                  picture=pictures.append, budget=7)  # fmt: skip
    assert result == Result(tmp_path, [tmp_path / "x.mp4"], ["{'budget': 7}"], {"follow": 1.0})
    assert seen == [("follow", k, 400) for k in (1, 2, 3)]
    (index, data), *more = pictures
    assert index == 1 and data[:3] == b"\xff\xd8\xff" and not more  # not every frame
    assert pid(tmp_path) != os.getpid()
    pictures.clear()
    call(child, "often", tmp_path, picture=pictures.append)
    assert [index for index, _ in pictures] == [1, 2, 3]


@pytest.mark.parametrize(
    ("word", "sentence", "code"),
    [("bad", "Click on the object.", EXIT_BAD_INPUT), ("boom", "boom", EXIT_FAILED)],
)
def test_failures_are_sentences_and_the_process_lives_on(
    word: str, sentence: str, code: int, child: Worker, tmp_path: Path
) -> None:
    with pytest.raises(Failed, match=sentence) as caught:
        call(child, word, tmp_path)
    assert caught.value.code == code
    before = pid(tmp_path)
    call(child, "quick", tmp_path)
    assert pid(tmp_path) == before


def test_a_run_that_listens_ends_by_itself(
    child: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GRACE", 300.0)  # nobody ends it before
    seen: list[int] = []
    with pytest.raises(Cancelled):
        call(child, "long", tmp_path, report=lambda stage, done, total: seen.append(done),
             cancelled=lambda: bool(seen))  # fmt: skip
    assert seen[-1] < 399, "it was not told, and came to its end"
    before = pid(tmp_path)
    call(child, "quick", tmp_path)
    assert pid(tmp_path) == before


def test_a_run_that_does_not_listen_is_ended(child: Worker, tmp_path: Path) -> None:
    seen: list[int] = []
    began = time.monotonic()
    with pytest.raises(Cancelled):
        call(child, "deaf", tmp_path, report=lambda stage, done, total: seen.append(done),
             cancelled=lambda: bool(seen))  # fmt: skip
    assert seen == [1] and time.monotonic() - began < 300, "it would have slept for ten minutes"
    assert not list(tmp_path.glob("*.part"))
    before = pid(tmp_path)
    call(child, "quick", tmp_path)
    assert pid(tmp_path) != before


def test_a_paused_run_stands_still_and_goes_on(child: Worker, tmp_path: Path) -> None:
    seen: list[int] = []
    looks = 0

    def paused() -> bool:
        """From frame 3 on, for so long that a run which does not stand still would be over."""
        nonlocal looks
        if seen[-1:] != [3]:
            return False
        looks += 1
        if looks == 2:  # the run has been told
            (tmp_path / "open").touch()
        return looks < 40

    call(child, "gate", tmp_path, report=lambda s, done, total: seen.append(done), paused=paused)
    assert looks >= 40 and seen == [1, 2, 3, 4, 5, 6]


def test_a_process_that_dies_is_told_of_and_replaced(child: Worker, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="ended by the system, most likely for want of memory"):
        call(child, "die", tmp_path)
    with pytest.raises(Failed, match=r"ended unexpectedly \(code 3\); what the server has printed"):
        call(child, "crash", tmp_path)
    assert not list(tmp_path.glob("*.part"))
    call(child, "quick", tmp_path)


def test_a_run_that_was_ended_for_its_memory_is_done_again_at_half_the_size(
    child: Worker, tmp_path: Path
) -> None:
    with VideoWriter(tmp_path / "film.mp4", size=(240, 640), fps=Fraction(10)) as writer:
        writer.write(np.zeros((240, 640, 3), np.uint8))
    result = call(child, str(tmp_path / "film.mp4"), tmp_path, said=["Not written."])
    assert "Not written." in result.notes[0] and "done at 320 pixels" in result.notes[0]
