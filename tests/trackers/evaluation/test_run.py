"""The evaluation run: one pass, resumed, with failures that stay where they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from checkpoints import WeightsRecord
from media import InputError
from trackers import build_tracker, list_trackers
from trackers.base import Track
from trackers.datasets import Dataset, open_dataset
from trackers.evaluation import run
from trackers.evaluation.results import Results
from trackers.evaluation.run import Contestant, Outcome, evaluate, follow
from trackers.evaluation.tuned import TUNED, tuned_options


class Steps:
    """Moves two pixels to the right in each frame, as the square does."""

    weights = WeightsRecord("none", "none")

    def initialize(self, frame: np.ndarray, box: Any) -> None:
        self.box = np.array(box, np.float32)

    def track(self, frame: np.ndarray) -> Track:
        self.box = self.box + np.array([2, 0, 2, 0], np.float32)
        return Track(self.box, 1.0)

    def correct(self, frame: np.ndarray, box: Any) -> None:
        raise AssertionError("nobody corrects in one-pass evaluation")


@dataclass(frozen=True)
class Fake(Contestant):
    tracker: Any = None

    def build(self) -> Any:
        return self.tracker or Steps()


def files(results: Results) -> list[str]:
    return sorted(path.name for path in results.path.iterdir())


def test_follow_gives_a_box_and_a_time_per_frame(dataset: Dataset) -> None:
    boxes, seconds = follow(Steps(), dataset["a"])
    assert np.array_equal(boxes, dataset["a"].boxes_xywh)
    assert seconds.shape == (6,) and (seconds >= 0).all()


def test_all_sequences_are_written(dataset: Dataset, tmp_path: Path) -> None:
    results, seen = Results(tmp_path, "steps", dataset), []
    outcome = evaluate(
        dataset, Fake("steps"), results, report=lambda done, total: seen.append((done, total))
    )
    assert outcome == Outcome(["a", "b"], [], {})
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert files(results) == ["a.txt", "a_time.txt", "b.txt", "b_time.txt", "settings.json"]
    assert np.array_equal(results.boxes("b"), dataset["b"].boxes_xywh)


def test_a_second_run_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    results = Results(tmp_path, "steps", dataset)
    evaluate(dataset, Fake("steps"), results)
    (results.path / "b.txt").unlink()
    before = (results.path / "a.txt").stat().st_mtime_ns
    assert evaluate(dataset, Fake("steps"), results) == Outcome(["b"], ["a"], {})
    assert (results.path / "a.txt").stat().st_mtime_ns == before
    assert evaluate(dataset, Fake("steps"), results, overwrite=True).done == ["a", "b"]


def test_other_settings_are_not_mixed_in(dataset: Dataset, tmp_path: Path) -> None:
    results = Results(tmp_path, "steps", dataset)
    evaluate(dataset, Fake("steps"), results)
    with pytest.raises(InputError, match="made with another options"):
        evaluate(dataset, Fake("steps", options={"search_factor": 4.0}), results)
    with pytest.raises(InputError, match="made with another mode"):
        evaluate(dataset, Fake("steps", mode="robust"), results)


def test_failures_are_listed_and_the_rest_goes_on(
    sequences: Callable[..., Path], tmp_path: Path
) -> None:
    root = sequences(bad_lines=3, damaged=3, empty=0, good=3, missing=3)
    (root / "bad_lines" / "groundtruth.txt").write_text("1,2,3,4\n")
    (root / "damaged" / "img" / "0002.png").write_text("no picture")
    (root / "missing" / "img").rename(root / "missing" / "pictures")
    dataset = open_dataset("folder", root)
    results = Results(tmp_path, "steps", dataset)
    outcome = evaluate(dataset, Fake("steps"), results)
    assert outcome.done == ["good"] and list(outcome.failed) == [
        "bad_lines", "damaged", "empty", "missing",
    ]  # fmt: skip
    told = list(outcome.failed.values())
    assert "has 3 frames but 1 lines of ground truth" in told[0]
    assert "0002.png is missing or damaged" in told[1]
    assert "The sequence empty has no frames" in told[2]
    assert "img is missing" in told[3]
    assert not any("\n" in sentence for sentence in told)
    assert files(results) == ["good.txt", "good_time.txt", "settings.json"]
    assert evaluate(dataset, Fake("steps"), results).kept == ["good"]  # and tries the others again


def test_what_the_tracker_refuses_names_sequence_and_frame(
    sequences: Callable[..., Path], tmp_path: Path
) -> None:
    root = sequences(grows=4, outside=3, small=3)
    Image.new("RGB", (100, 80)).save(root / "grows" / "img" / "0003.png")
    (root / "outside" / "groundtruth.txt").write_text("500,30,30,24\n" * 3)
    dataset = open_dataset("folder", root)
    contestant = Contestant("opencv:KCF", device="cpu")
    outcome = evaluate(dataset, contestant, Results(tmp_path, "x", dataset))
    assert outcome.done == ["small"]
    assert outcome.failed["grows"].startswith("Frame 2 of grows: This frame is 100 x 80 pixels but")
    assert outcome.failed["outside"].startswith("Frame 0 of outside: The box 500, 30, 530, 54 lies")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: 1 / 0, "ZeroDivisionError in a: division by zero"),
        (lambda: Track(np.full(4, math.nan), 1.0), "no numbers for frame 1 of a"),
    ],
)
def test_a_failing_tracker(
    wrong: Callable[[], Track], sentence: str, dataset: Dataset, tmp_path: Path
) -> None:
    class Failing(Steps):
        def track(self, frame: np.ndarray) -> Track:
            return wrong()

    outcome = evaluate(dataset, Fake("x", tracker=Failing()), Results(tmp_path, "x", dataset))
    assert sentence in outcome.failed["a"] and outcome.done == []


def test_several_processes_find_the_same(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.root / "b" / "img" / "0003.png").write_text("no picture")
    one, two = Results(tmp_path, "one", dataset), Results(tmp_path, "two", dataset)
    contestant = Contestant("opencv:KCF", device="cpu")
    alone = evaluate(dataset, contestant, one)
    assert evaluate(dataset, contestant, two, processes=2) == alone
    assert list(alone.failed) == ["b"]
    assert np.array_equal(one.boxes("a"), two.boxes("a"))


def test_a_process_that_dies(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool:
        def __init__(self, *arguments: object) -> None: ...

        def submit(self, *arguments: object) -> Future:
            future: Future = Future()
            future.set_exception(BrokenProcessPool())
            return future

        def shutdown(self, cancel_futures: bool) -> None: ...

    monkeypatch.setattr(run, "ProcessPoolExecutor", Pool)
    contestant = Contestant("opencv:KCF", device="cpu")
    outcome = evaluate(dataset, contestant, Results(tmp_path, "x", dataset), processes=2)
    assert list(outcome.failed) == ["a", "b"]
    assert outcome.failed["b"].startswith("The process died before b was done")


def test_what_is_wrong_with_the_tracker_is_said_before_any_work(
    dataset: Dataset, tmp_path: Path
) -> None:
    results = Results(tmp_path, "x", dataset)
    for contestant, sentence in (
        (Contestant("mixformer_v9"), "no tracker called 'mixformer_v9'"),
        (Contestant("opencv:MIL"), "no opencv:MIL"),
        (Contestant("opencv:KCF", weights="x"), "takes neither options nor weights"),
        (Contestant("mixformerv2_small", options={"threshold": 0.1}), "no option threshold"),
    ):
        with pytest.raises(InputError, match=sentence):
            evaluate(dataset, contestant, results)
    with pytest.raises(InputError, match="At least one process"):
        evaluate(dataset, Fake("x"), results, processes=0)
    assert not results.path.exists()


def test_bundled_weights_follow_the_square(dataset: Dataset, tmp_path: Path) -> None:
    results = Results(tmp_path, "x", dataset)
    contestant = Contestant("mixformerv2_small", device="cpu").tuned_for("lasot")
    assert evaluate(dataset, contestant, results).failed == {}
    assert np.abs(results.boxes("a") - dataset["a"].boxes_xywh).max() < 12
    assert '"search_factor": 4.4' in (results.path / "settings.json").read_text()


def test_tuned_options() -> None:
    assert tuned_options("mixformerv2_small", "got10k") == {
        "search_factor": 4.55, "update_interval": 15,
    }  # fmt: skip
    assert tuned_options("mixformerv2_base", "trackingnet") == {"update_interval": 25}
    assert tuned_options("mixvit_base", "lasot") == {"search_factor": 5.05}
    assert tuned_options("mixvit_large_384", "trackingnet") == {"search_factor": 4.6}
    assert tuned_options("grm_base", "nfs") == {"threshold": 0.6}
    assert tuned_options("mixformerv2_base", "lasot") == tuned_options("x", "y") == {}
    given = Contestant("mixformerv2_small", options={"search_factor": 5.0}).tuned_for("got10k")
    assert given.options == {"search_factor": 5.0, "update_interval": 15}


def test_tuned_names_exist() -> None:
    from trackers.datasets import list_datasets

    assert set(TUNED) <= set(list_trackers())
    assert {key for rows in TUNED.values() for key in rows} <= set(list_datasets())


@pytest.mark.parametrize("tracker", TUNED)
def test_tuned_options_are_those_of_the_tracker(tracker: str) -> None:
    options = {name: value for row in TUNED[tracker].values() for name, value in row.items()}
    with pytest.raises(InputError, match=f"do not fit {tracker}"):  # not: has no option
        build_tracker(tracker, weights={}, **options)
