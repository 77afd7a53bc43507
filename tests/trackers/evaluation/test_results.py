"""Files of results, and the archives for the servers."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from media import InputError
from trackers.datasets import Dataset, open_dataset
from trackers.evaluation.results import Results, labels_in, write_submission

BOXES = np.array([[1.9, 1.99999, 30, 40.99], [-1.9, 0.5, 10, 10]])
SECONDS = np.array([0.25, 0.125])


def test_boxes_are_truncated_and_separated_by_tabs(dataset: Dataset, tmp_path: Path) -> None:
    results = Results(tmp_path, "opencv:CSRT", dataset)
    assert not results.has("a")
    results.write("a", BOXES, SECONDS)
    folder = tmp_path / "opencv_CSRT" / "folder_all"
    assert (folder / "a.txt").read_text() == "1\t2\t30\t40\n-1\t0\t10\t10\n"
    assert (folder / "a_time.txt").read_text() == "0.25000000\n0.12500000\n"
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "a_time.txt"]
    assert results.has("a") and results.boxes("a").tolist() == [[1, 2, 30, 40], [-1, 0, 10, 10]]
    seconds = results.seconds("a")
    assert seconds is not None and seconds.tolist() == SECONDS.tolist()


def test_results_of_others_are_read(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "theirs" / "folder_all"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("1.5,2,3,4\n1,2,3,4\n")
    results = Results(tmp_path, "theirs", dataset)
    assert results.boxes("a")[0].tolist() == [1.5, 2, 3, 4] and results.seconds("a") is None
    (tmp_path / "failed" / "folder_all").mkdir(parents=True)  # of a tracker without any result
    assert labels_in(tmp_path, dataset) == ["theirs"]


def test_settings_are_kept_apart(dataset: Dataset, tmp_path: Path) -> None:
    results = Results(tmp_path, "x", dataset)
    settings = {"tracker": "t", "options": {"search_factor": 4.4}}
    results.claim(settings, overwrite=False)
    results.write("a", BOXES, SECONDS)
    results.claim(dict(settings), overwrite=False)
    with pytest.raises(InputError, match=r"made with another options; .*--label.*--overwrite"):
        results.claim({"tracker": "t", "options": {}}, overwrite=False)
    assert results.has("a")
    results.claim({"tracker": "t", "options": {}}, overwrite=True)
    assert not results.has("a")


def secret(key: str, name: str, tmp_path: Path) -> Dataset:
    root = tmp_path / key
    if key == "got10k":
        (root / "test").mkdir(parents=True)
        (root / "test" / "list.txt").write_text(name)
    else:
        (root / "TEST" / "anno").mkdir(parents=True)
        (root / "TEST" / "anno" / f"{name}.txt").write_text("1,2,3,4")
    return open_dataset(key, root)


@pytest.mark.parametrize(
    ("key", "files"),
    [
        ("got10k", {"s_1/s_1_001.txt": "1,2,30,40\n-1,0,10,10\n",
                    "s_1/s_1_time.txt": "0.25000000\n0.12500000\n"}),
        ("trackingnet", {"s_1.txt": "1,2,30,40\n-1,0,10,10\n"}),
    ],
)  # fmt: skip
def test_submission(key: str, files: dict[str, str], tmp_path: Path) -> None:
    results = Results(tmp_path / "out", "x", secret(key, "s_1", tmp_path))
    assert write_submission(results, ["s_1"]) is None
    results.write("s_1", BOXES, SECONDS)
    archive = write_submission(results, ["s_1"])
    assert archive == tmp_path / "out" / "x" / f"{key}_test.zip"
    with zipfile.ZipFile(archive) as file:
        assert {name: file.read(name).decode() for name in file.namelist()} == files


def test_hidden_splits_are_for_the_server(tmp_path: Path, sequences: Callable[..., Path]) -> None:
    from trackers.evaluation.report import score_results

    with pytest.raises(InputError, match=r"Only the server of GOT-10k can score its test split"):
        score_results(secret("got10k", "s_1", tmp_path), [])
