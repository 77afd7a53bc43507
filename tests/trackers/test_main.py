"""`python -m trackers`, as a person uses it."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import checkpoints
from media.command_line import build_parser
from trackers import build_network, list_trackers
from trackers.__main__ import COMMANDS, main
from trackers.datasets import list_datasets
from trackers.training.data import list_kinds

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """run("list") -> exit code, what it printed, what it complained about."""

    def call(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sequences of a textured square that moves."""
    noise = np.random.default_rng(0)
    background = noise.integers(0, 90, (90, 120, 3)).astype(np.uint8)
    square = noise.integers(120, 255, (24, 30, 3)).astype(np.uint8)
    for name in ("a", "b"):
        folder = tmp_path / "data" / name
        (folder / "img").mkdir(parents=True)
        for i in range(4):
            picture = background.copy()
            picture[30:54, 20 + 2 * i : 50 + 2 * i] = square
            Image.fromarray(picture).save(folder / "img" / f"{i:04d}.png")
        truth = "".join(f"{20 + 2 * i},30,30,24\n" for i in range(4))
        (folder / "groundtruth.txt").write_text(truth)
    return tmp_path / "data"


def test_list_names_all(run: Run) -> None:
    code, shown, _ = run("list")
    assert code == 0
    for name in (*list_trackers(), "opencv:CSRT", *list_datasets()):
        assert name in shown
    begun = {line.split()[0] for line in shown.splitlines() if line.startswith("  ")}
    assert begun == {*list_datasets(), *list_kinds()}  # each kind has a line for its layout


@pytest.mark.parametrize("command", [command.__name__.strip("_") for command in COMMANDS])
def test_help_explains_every_argument(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0 and "usage: python -m trackers" in capsys.readouterr().out
    chosen = build_parser("x", "", COMMANDS)._subparsers._group_actions[0].choices[command]  # type: ignore[union-attr]
    assert all(action.help for action in chosen._actions)


def test_track_writes_boxes(run: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "boxes.csv"
    words = ("track", data / "a" / "img", "--box", "20,30,50,54", "--tracker", "opencv:KCF")
    assert run(*words, "--out", out)[:2] == (0, f"{out}\n")
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["frame", "x0", "y0", "x1", "y1", "score", "lost"]
    assert [row["frame"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[3]["x0"]) == pytest.approx(26, abs=3) and rows[3]["lost"] == "0"
    code, shown, _ = run(*words)
    assert code == 0 and list(csv.DictReader(io.StringIO(shown))) == rows
    assert sorted(path.name for path in out.parent.iterdir()) == ["boxes.csv"]


def test_track_fast_gives_boxes_that_differ_a_little(run: Run, data: Path) -> None:
    words = ("track", data / "a" / "img", "--box", "20,30,50,54", "--device", "cpu")
    plain, fast = (
        [[float(value) for value in row.values()] for row in csv.DictReader(io.StringIO(shown))]
        for shown in (run(*words)[1], run(*words, "--fast")[1])
    )
    assert plain != fast and np.abs(np.array(plain) - np.array(fast)).max() < 2


def test_evaluate_then_report(run: Run, data: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "results", tmp_path / "report"
    words = ("evaluate", "folder", data, "--out", out, "--tracker", "opencv:KCF")
    code, shown, _ = run(*words)
    assert code == 0 and shown.splitlines()[0].split()[:2] == ["tracker", "AUC"]
    assert shown.splitlines()[1].startswith("opencv:KCF")
    code, again, _ = run(*words, "--tracker", "opencv:CSRT")
    assert code == 0 and "opencv:CSRT" in again
    code, shown, _ = run("report", "folder", data, "--results", out, "--out", page)
    assert code == 0 and "opencv_CSRT" in shown and str(page / "report.html") in shown
    assert (page / "success.png").is_file() and (page / "precision.png").is_file()


def test_a_failed_sequence_ends_in_1_and_the_rest_is_scored(
    run: Run, data: Path, tmp_path: Path
) -> None:
    (data / "b" / "groundtruth.txt").write_text("1,2,3,4\n")
    words = ("evaluate", "folder", data, "--out", tmp_path / "r", "--tracker", "opencv:KCF")
    code, shown, told = run(*words)
    assert code == 1 and "1 of 2" in shown
    assert "opencv:KCF: The sequence b has 4 frames but 1 lines of ground truth" in told
    assert "1 sequences failed; the same command tries them again." in told
    for i in range(10):
        shutil.copytree(data / "b", data / f"c{i}")
    _, _, told = run(*words)
    assert told.count("lines of ground truth") == 10 and "opencv:KCF: and 1 more." in told
    (data / "a" / "groundtruth.txt").write_text("1,2,3,4\n")
    code, shown, _ = run(*words, "--overwrite")
    assert code == 1 and shown == ""


def test_hidden_truth_ends_in_an_archive(run: Run, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "got"
    (root / "test").mkdir(parents=True)
    (root / "test" / "list.txt").write_text("s\n")
    (data / "a" / "img").rename(root / "test" / "s")
    (root / "test" / "s" / "groundtruth.txt").write_text("20,30,30,24\n")
    out = tmp_path / "r"
    words = ("evaluate", "got10k", root, "--out", out, "--tracker", "opencv:KCF")
    code, shown, _ = run(*words)
    archive = out / "opencv_KCF" / "got10k_test.zip"
    assert code == 0 and archive.is_file() and f"upload {archive} to the server" in shown
    (root / "test" / "list.txt").write_text("s\nt\n")
    few = tmp_path / "few.txt"
    few.write_text("s\n")
    code, shown, _ = run(*words, "--sequences", few)
    assert code == 0 and "no archive before all is done" in shown
    code, _, told = run("report", "got10k", root, "--results", out, "--out", tmp_path)
    assert code == 2 and "Only the server of GOT-10k" in told


def test_what_was_stopped_goes_on_or_not_as_it_is_said(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trackers.training.train", stop)
    monkeypatch.setattr("trackers.training.data.packing.pack", stop)
    monkeypatch.setattr("trackers.evaluation.run.evaluate", stop)
    monkeypatch.setattr("media.video.open_video", stop)
    out = ("--out", tmp_path / "out")
    for words, sentence in (
        (("train", "continue_small", "--data", "stills=x"), "the last state it has saved"),
        (("pack", data, "--kind", "folder"), "nothing is packed"),
        (("evaluate", "folder", data, "--tracker", "opencv:KCF"), "sequences that are not done"),
        (("track", data / "a" / "img", "--box", "20,30,50,54"), "Stopped.\n"),
    ):
        code, _, told = run(*words, *out)
        assert code == 1
        assert told.splitlines()[-1].startswith("Stopped") and sentence in told


def test_training_without_data_names_the_option(run: Run, tmp_path: Path) -> None:
    code, _, told = run("train", "continue_small", "--out", tmp_path)
    assert code == 2 and "give at least one --data KIND=PATH" in told


def test_threads_are_those_that_are_asked_for(run: Run, data: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        words = ("track", data / "a" / "img", "--box", "20,30,50,54", "--tracker", "opencv:KCF")
        assert run(*words, "--threads", 3)[0] == 0
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
        words = ("evaluate", "folder", data, "--out", tmp_path / "r", "--tracker", "opencv:KCF")
        assert run(*words, "--threads", 2)[0] == 0
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
        code, _, told = run(*words, "--threads", 0)
        assert code == 2 and "1 to 4096 threads can compute, not 0" in told
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_a_failed_pack_says_one_sentence(run: Run, data: Path, tmp_path: Path) -> None:
    words = ("pack", data, "--kind", "clips", "--out", tmp_path / "packed")
    code, shown, told = run(*words)
    assert (code, shown) == (2, "") and told.startswith("Error: ") and told.count("\n") == 1
    code, _, told = run(*words, "--limit", "-1")
    assert code == 2 and "The limit and the size of a shard are at least 1" in told
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "The following arguments are required: COMMAND"),
        (("fly",), "COMMAND: there is no 'fly'"),
        (("evaluate", "vot", "DATA", "--out", "r", "--tracker", "opencv:KCF"), "no data set"),
        (("evaluate", "folder", "no", "--out", "r", "--tracker", "opencv:KCF"), "no folder no"),
        (("evaluate", "folder", "DATA", "--out", "r"), "required: --tracker"),
        (("evaluate", "folder", "DATA", "--out", "r", "--tracker", "x"), "no tracker called 'x'"),
        (("evaluate", "folder", "DATA", "--out", "r", "--tracker", "x", "--tracker", "y",
          "--label", "z"), "one by one"),
        (("report", "folder", "DATA", "--results", "r", "--out", "o"), "There are no results for"),
        (("track", "DATA/a/img", "--box", "1,2,3", "--tracker", "opencv:KCF"), "four numbers"),
        (("track", "DATA/a/img", "--box", "1,2,3,x"), "not four numbers x0,y0,x1,y1"),
        (("track", "nothing.mp4", "--box", "1,2,3,4"), "nothing.mp4 does not exist"),
        (("track", "DATA/a/img", "--box", "1,2,3,4", "--out", "DATA"), "data is a folder"),
        (("track", "DATA/a/img", "--box", "5,2,3,4", "--out", "r"), "has no area"),
        (("track", "DATA/a/img", "--box", "500,2,510,4", "--out", "r"), "lies outside of the 120"),
        (("track", "DATA/a/img", "--box", "1,2,3,4", "--fast", "--tracker", "opencv:KCF"),
         "opencv:KCF takes neither options"),
        (("export", "nothing", "--out", "r"), "no tracker called 'nothing'"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_2_with_one_sentence(
    words: tuple[str, ...], sentence: str, run: Run, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, shown, told = run(*(word.replace("DATA", str(data)) for word in words))
    errors = [line for line in told.splitlines() if line.startswith("Error: ")]
    assert code == 2 and shown == "" and len(errors) == 1 and sentence in errors[0]
    assert "Traceback" not in told and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("box_head.layers.0.0.bias"), "1 of 66 keys are missing (box_head"),
        (lambda state: state.update(more=torch.zeros(1)), "1 keys are unknown (more"),
        (
            lambda state: state.update(build_network("mixvit_base", depth=2).state_dict()),
            "keys are unknown (backbone.cls_token, ...)",
        ),
    ],
)
def test_weights_of_another_network(
    change: Callable[[dict[str, torch.Tensor]], object],
    sentence: str,
    run: Run,
    data: Path,
    tmp_path: Path,
) -> None:
    state = dict(build_network("mixformerv2_small").state_dict())
    change(state)
    torch.save({"net": state}, tmp_path / "some.pth.tar")
    words = ("track", data / "a" / "img", "--box", "20,30,50,54", "--out", tmp_path / "boxes.csv")
    code, _, told = run(*words, "--weights", tmp_path / "some.pth.tar")
    assert code == 2 and len(told.splitlines()) == 1
    assert "some.pth.tar do not fit mixformerv2_small" in told and sentence in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "some.pth.tar"]


def test_missing_weights_end_in_1(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "find", lambda name: None)
    words = ("evaluate", "folder", data, "--out", tmp_path / "r", "--tracker", "mixformerv2_base")
    code, _, told = run(*words)
    assert code == 1 and "python -m checkpoints fetch mixformerv2_base" in told
