"""The queue of runs, with runs that do nothing but wait for the test."""

from __future__ import annotations

import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoints import CheckpointError
from demo.failures import Cancelled
from demo.jobs import Job, Jobs, Progress
from demo.project import Settings
from demo.run import Result
from demo.worker import Picture
from media import InputError
from media.device import resolve_device


class Steps:
    """A run of one stage whose frames the test lets through one by one."""

    def __init__(self, total: int = 4) -> None:
        self.total = total
        self.frame = threading.Semaphore(0)
        self.began: list[str] = []
        self.at_once = self.most_at_once = 0
        self.asked = 0  # frames that the run has waited for
        self._counting = threading.Lock()
        self.options: dict[str, Any] = {}

    def __call__(
        self,
        source: Path,
        folder: Path,
        objects: list[Any],
        settings: Settings,
        *,
        report: Callable[[str, int, int], None],
        cancelled: Callable[[], bool],
        paused: Callable[[], bool],
        picture: Callable[[Picture], None],
        **options: Any,
    ) -> Result:
        self.began.append(source.name)
        self.options = options
        with self._counting:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for done in range(1, self.total + 1):
                self.asked = done
                assert self.frame.acquire(timeout=300)
                report("follow", done, self.total)
                picture((done, b"jpeg"))
                while paused() and not cancelled():
                    time.sleep(0.005)
                if cancelled():
                    raise Cancelled("stopped")
        finally:
            with self._counting:
                self.at_once -= 1
        return Result(folder, [], [], {})


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit, "it did not happen within two minutes"
        time.sleep(0.005)


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def jobs(steps: Steps) -> Iterator[Jobs]:
    queue = Jobs(lambda: steps)
    yield queue
    steps.frame.release(100)
    queue.close()


def submit(
    jobs: Jobs, folder: Path, name: str = "a", device: str = "cpu",
    ended: Callable[[], None] = lambda: None,
) -> Job:  # fmt: skip
    (folder / "run.json").write_text("{}")
    return jobs.submit(
        Path(name), folder, [], Settings(device=device), shelves=folder, ended=ended, budget=None
    )


def test_progress_is_seen_and_the_job_is_found_by_its_id(
    jobs: Jobs, steps: Steps, tmp_path: Path
) -> None:
    job = submit(jobs, tmp_path)
    wait_for(lambda: job.state == "running")
    assert job.progress.stage == "" and job.progress.seconds_left is None
    began = time.monotonic()
    for done in range(1, 4):
        steps.frame.release()
        wait_for(lambda done=done: job.progress.done == done)
        assert (job.progress.stage, job.progress.total) == ("follow", 4)
    left = job.progress.seconds_left
    # The one frame that is left takes as long as the two since the first on average.
    assert left is not None and 0 <= left <= (time.monotonic() - began) / 2
    assert jobs.find(job.id) is job and jobs.find("somebody else's") is None
    steps.frame.release()
    wait_for(lambda: job.state == "done")
    assert job.result is not None and job.result.folder == tmp_path
    assert steps.options == {"budget": None}


@pytest.mark.parametrize(
    ("progress", "left"),
    [
        (Progress(), None),
        (Progress("follow", 1, 10, 0.0), None),
        (Progress("follow", 3, 10, 4.0), 14.0),  # 2 s a frame, 7 frames
        (Progress("follow", 10, 10, 18.0), 0.0),
    ],
)
def test_time_left(progress: Progress, left: float | None) -> None:
    assert progress.seconds_left == left


def test_one_job_per_device_and_the_others_know_their_place(
    jobs: Jobs, steps: Steps, tmp_path: Path
) -> None:
    first, second, third = (submit(jobs, tmp_path, name) for name in "abc")
    elsewhere = submit(jobs, tmp_path, "d", device="meta")  # which torch has anywhere
    wait_for(lambda: first.state == "running" and elsewhere.state == "running")
    assert [second.state, third.state] == ["waiting", "waiting"]
    assert [jobs.ahead_of(j) for j in (first, second, third, elsewhere)] == [0, 1, 2, 0]
    wait_for(lambda: steps.at_once == 2)
    steps.frame.release(100)
    wait_for(lambda: third.state == "done")
    assert [name for name in steps.began if name != "d"] == ["a", "b", "c"]
    assert steps.most_at_once == 2


def test_cancel_ends_a_running_job_at_the_next_frame(
    jobs: Jobs, steps: Steps, tmp_path: Path
) -> None:
    job = submit(jobs, tmp_path)
    steps.frame.release()
    wait_for(lambda: steps.asked == 2)
    assert job.progress.done == 1
    jobs.cancel(job)
    assert job.active
    steps.frame.release()
    wait_for(lambda: job.state == "cancelled")
    assert job.progress.done == 2 and job.result is None and not job.error


def test_a_paused_job_stands_still_and_goes_on(jobs: Jobs, steps: Steps, tmp_path: Path) -> None:
    job = submit(jobs, tmp_path)
    wait_for(lambda: job.state == "running")
    jobs.pause(job, True)
    steps.frame.release(100)
    wait_for(lambda: job.picture is not None)
    time.sleep(0.1)
    assert job.progress.done == 1 and job.picture == (1, b"jpeg") and job.active
    jobs.pause(job, False)
    wait_for(lambda: job.state == "done")


def test_a_paused_job_makes_way_for_who_waits_and_then_goes_on(
    jobs: Jobs, steps: Steps, tmp_path: Path
) -> None:
    first = submit(jobs, tmp_path, "a")
    wait_for(lambda: first.state == "running")
    jobs.pause(first, True)
    steps.frame.release()
    wait_for(lambda: first.progress.done == 1)
    second, third = (submit(jobs, tmp_path, name) for name in "bc")
    assert jobs.ahead_of(second) == 0 and jobs.ahead_of(third) <= 1
    wait_for(lambda: second.state == "running")
    assert first.state == "waiting" and first.active and not first.progress.stage
    jobs.pause(first, False)  # it was there first
    assert [jobs.ahead_of(j) for j in (first, third)] == [1, 2]
    steps.frame.release(100)
    wait_for(lambda: third.state == "done")
    assert steps.began == ["a", "b", "a", "c"] and steps.most_at_once == 1
    assert (first.state, second.state) == ("done", "done")


def test_a_job_that_made_way_waits_for_its_user_and_can_be_cancelled(
    steps: Steps, tmp_path: Path
) -> None:
    jobs = Jobs(lambda: steps, max_waiting=1)
    first = submit(jobs, tmp_path, "a")
    jobs.pause(first, True)  # perhaps before it has begun
    steps.frame.release(100)
    second = submit(jobs, tmp_path, "b")
    wait_for(lambda: second.state == "done")
    third = submit(jobs, tmp_path, "c")  # whoever has paused takes nobody's place
    wait_for(lambda: third.state == "done")
    assert first.state == "waiting"
    jobs.cancel(first)
    assert first.state == "cancelled"
    jobs.close()


def test_all_names_of_a_device_are_one_queue(jobs: Jobs, steps: Steps, tmp_path: Path) -> None:
    here = str(resolve_device("auto"))
    first, second = (submit(jobs, tmp_path, device=name) for name in ("auto", f"{here}:0"))
    assert first.device == second.device and jobs.ahead_of(second) == 1
    steps.frame.release(100)
    wait_for(lambda: second.state == "done")
    assert steps.most_at_once == 1


def test_cancel_ends_a_waiting_job_at_once(jobs: Jobs, steps: Steps, tmp_path: Path) -> None:
    first = submit(jobs, tmp_path)
    ended: list[str] = []
    second = submit(jobs, tmp_path, "b", ended=lambda: ended.append(second.state))
    third = submit(jobs, tmp_path, "c")
    jobs.cancel(second)
    assert second.state == "cancelled" and jobs.ahead_of(third) == 1
    assert ended == ["cancelled"], "or the next server would run it"
    steps.frame.release(100)
    wait_for(lambda: third.state == "done")
    assert steps.began == ["a", "c"] and first.state == "done"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("Click on the object."), "Click on the object."),
        (CheckpointError("mobile_sam is missing."), "mobile_sam is missing."),
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("boom"), "RuntimeError: boom"),
    ],
)
def test_a_failure_is_a_sentence_and_the_next_job_runs(
    error: Exception, sentence: str, tmp_path: Path
) -> None:
    def run(source: Path, folder: Path, *rest: Any, **options: Any) -> Result:
        if source.name == "bad":
            raise error
        return Result(folder, [], [], {})

    jobs = Jobs(lambda: run)
    bad, good = submit(jobs, tmp_path, "bad"), submit(jobs, tmp_path, "good")
    wait_for(lambda: good.state == "done")
    assert bad.state == "failed" and sentence in bad.error and bad.result is None
    jobs.close()


def test_too_many_waiting_jobs_are_turned_away(steps: Steps, tmp_path: Path) -> None:
    jobs = Jobs(lambda: steps, max_waiting=2)
    first = submit(jobs, tmp_path)
    wait_for(lambda: first.state == "running")
    submit(jobs, tmp_path)
    submit(jobs, tmp_path)
    with pytest.raises(InputError, match="2 jobs are waiting"):
        submit(jobs, tmp_path)
    steps.frame.release(100)
    jobs.close()


def test_close_stops_the_running_job_and_drops_the_waiting_one(
    steps: Steps, tmp_path: Path
) -> None:
    jobs = Jobs(lambda: steps)
    first, second = submit(jobs, tmp_path, "a"), submit(jobs, tmp_path, "b")
    wait_for(lambda: first.state == "running")
    closing = threading.Thread(target=jobs.close)
    closing.start()
    wait_for(first.stop.is_set)
    steps.frame.release()
    closing.join(120)
    assert not closing.is_alive()
    assert (first.state, second.state) == ("cancelled", "cancelled") and steps.began == ["a"]


def test_what_ended_long_ago_is_forgotten(steps: Steps, tmp_path: Path) -> None:
    jobs = Jobs(lambda: steps, keep_seconds=0.0)
    steps.frame.release(100)
    old = submit(jobs, tmp_path)
    wait_for(lambda: old.state == "done")
    new = submit(jobs, tmp_path)
    assert jobs.find(old.id) is None and jobs.find(new.id) is new
    jobs.close()


def test_a_finished_run_is_laid_out_for_download_and_a_later_one_leaves_it_alone(
    tmp_path: Path,
) -> None:
    def run(source: Path, folder: Path, *rest: Any, **options: Any) -> Result:
        (folder / "masks").mkdir(exist_ok=True)
        for name in ("masks/00000.png", "masks/00001.png", "tracks.csv", "tracked.mp4", "run.json"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_text(f"{name} of {source}")
        (folder / "removed.mp4").write_text("of an earlier run")
        outputs = [folder / name for name in ("tracks.csv", "tracked.mp4", "masks")]
        return Result(folder, outputs, [], {})

    jobs = Jobs(lambda: run)
    results = tmp_path / "results"
    results.mkdir()
    first, second = (
        jobs.submit(Path(name), results, [], Settings(device="cpu"), shelves=tmp_path)
        for name in ("one", "two")
    )
    wait_for(lambda: not second.active)
    for job, name in ((first, "one"), (second, "two")):
        tracks, video, archive = job.files
        assert video == tmp_path / job.id / "tracked.mp4" and archive.parent == video.parent
        assert video.read_text() == f"tracked.mp4 of {name}"
        assert tracks.read_text() == f"tracks.csv of {name}"
        assert (archive.parent / "masks/00001.png").read_text() == f"masks/00001.png of {name}"
        with zipfile.ZipFile(archive) as bundle:
            assert sorted(bundle.namelist()) == [
                "masks/00000.png", "masks/00001.png", "run.json", "tracks.csv",
            ]  # fmt: skip
            assert bundle.read("masks/00001.png").decode() == f"masks/00001.png of {name}"
    jobs.close()
