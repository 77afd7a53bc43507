"""Commands as a person types them: exit codes and sentences."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo import pipeline
from demo.batch import find_videos
from demo.cli import main
from media.video import Budget
from tests.demo.square import COUNT, square_box

BOX = "{},{},{},{}".format(*square_box(0))
ROOT = Path(__file__).parents[2]


def run_cli(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str]:
    """Exit code and everything that was printed."""
    code = main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.mark.usefixtures("colour_models")
def test_track_prints_what_it_wrote(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run_cli(capsys, "track", clip, "--out", tmp_path / "o", "--box", BOX)
    assert code == 0
    for name in ("tracked.mp4", "tracks.json", "tracks.csv", "run.json"):
        assert str(tmp_path / "o" / name) in said
        assert (tmp_path / "o" / name).exists()
    assert "earlier run" not in said


def test_names_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "track", tmp_path / "視頻.mp4", "--out", tmp_path,
         "--box", BOX],
        cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "cp1252:strict"}, capture_output=True,
    )  # fmt: skip
    said = done.stderr.decode("cp1252")
    assert done.returncode == 2 and "\\u8996\\u983b.mp4 does not exist" in said


@pytest.mark.usefixtures("colour_models")
def test_what_an_earlier_run_has_left_is_said(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    assert run_cli(capsys, "segment", clip, "--out", out, "--box", BOX)[0] == 0
    code, said = run_cli(capsys, "track", clip, "--out", out, "--box", BOX)
    assert code == 0 and f"what {out} holds besides: segmented.mp4, masks." in said


@pytest.mark.usefixtures("colour_models")
def test_prompts_file_with_two_objects(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(
        json.dumps(
            {
                "objects": [
                    {"name": "a", "box": square_box(0)},
                    {"name": "b", "frame": 5, "points": [[square_box(5)[0] + 4, 40]]},
                ]
            }
        )
    )
    code, _ = run_cli(capsys, "segment", clip, "--out", tmp_path / "o", "--prompts", prompts)
    assert code == 0
    data = json.loads((tmp_path / "o" / "tracks.json").read_text())
    assert [o["name"] for o in data["objects"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--box", "1,2,3"], "not four numbers"),
        (["--box", "5,5,5,9"], "no area"),
        (["--point", "3"], "is not x,y"),
        (["--point", "3,4,7"], "is not x,y"),
        (["--point", "3000,4"], "outside the frame"),
        ([], "nothing says where it is"),
        (["--box", BOX, "--frame", "99"], "frame 99 does not exist"),
        (["--mask", "missing.png"], "missing.png"),
        (["--prompts", "missing.json"], "missing.json"),
        (["--box", BOX, "--start", "30"], "no frame"),
        (["--box", BOX, "--no-such-option"], "--no-such-option"),
        (["--box", BOX, "--tracker", "none"], "none"),
        (["--box", BOX, "--max-megapixels", "0.001"], "--max-megapixels"),
        (["--box", BOX, "--max-minutes", "0.001"], "--max-minutes"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_sentence(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, text = run_cli(capsys, "track", clip, "--out", tmp_path / "o", *arguments)
    assert code == 2, text
    assert said in text
    assert text.startswith("Error: ") and text.count("\n") == 1
    assert "Traceback" not in text
    assert not (tmp_path / "o" / "tracked.mp4").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "video"),
        (b"not a video at all, just text\n" * 50, "video"),
        (os.urandom(9000), "video"),
    ],
)
def test_files_that_are_no_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(content)
    code, text = run_cli(capsys, "track", bad, "--out", tmp_path / "o", "--box", BOX)
    assert code == 2
    assert "bad.mp4" in text and said in text and text.count("\n") == 1
    assert bad.read_bytes() == content
    assert not (tmp_path / "o").exists()


def test_missing_file_and_unwritable_folder(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run_cli(capsys, "track", tmp_path / "no.mp4", "--out", tmp_path, "--box", BOX)
    assert code == 2 and "no.mp4" in text
    blocker = tmp_path / "file"
    blocker.write_text("x")
    for out in (blocker, blocker / "below"):
        code, text = run_cli(capsys, "track", clip, "--out", out, "--box", BOX)
        assert code == 2 and str(blocker) in text and text.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--inpainter", "e2fgvi"], "fetch e2fgvi"),
        (["--inpainter", "e2fgvi", "--shadow"], "Only propagation finds shadows"),
        (["--dilate", "-3"], "0 pixels or more"),
        (["--device", "cuda:77"], "'cuda:77' is not available"),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", [["remove"], ["batch", "--do", "remove"]], ids=" ".join)
def test_what_the_last_stage_cannot_do_is_known_before_the_first(
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(pipeline, "check_segmenter", lambda name: None)
    monkeypatch.setattr(pipeline, "build_tracker", lambda *a, **k: pytest.fail("it has begun"))
    arguments = [*command, clip, "--out", tmp_path / "o", "--box", BOX, *options]
    code, text = run_cli(capsys, *arguments)
    assert code in (1, 2) and said in text and text.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_missing_and_damaged_weights(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(weights))
    arguments = ["segment", clip, "--out", tmp_path / "o", "--box", BOX, "--end", "2"]
    code, text = run_cli(capsys, *arguments)
    assert code == 1 and "python -m checkpoints fetch mobile_sam" in text
    assert not (tmp_path / "o").exists(), "known before the first stage"
    (weights / "mobile_sam.pt").write_bytes(b"<html>not found</html>")
    code, text = run_cli(capsys, *arguments)
    assert code == 1 and "mobile_sam" in text and text.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "o" / "segmented.mp4").exists()


def test_full_disk(clip: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands in for a full disk: the same write fails half-way."""
    out = tmp_path / "o"
    process = subprocess.run(
        [sys.executable, "-m", "demo", "track", str(clip), "--out", str(out), "--box", BOX],
        cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert process.returncode == 1, process.stderr
    assert process.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in process.stderr
    assert not (out / "tracked.mp4").exists()
    assert not list(out.rglob("*.part"))


# It sends itself the signal: who watched it from outside, on a busy machine, might come too late.
INTERRUPTED = """
import os, random, sys, threading, time
from demo.cli import main
from demo.run import _Run
how, tick, seen = int(sys.argv.pop(1)), _Run.tick, []

def end():
    os.kill(os.getpid(), how)

def noting(self, stage, done, total):
    global timer
    if stage == "cut out":
        seen.append(time.monotonic())
        if len(seen) == 3:  # within the next five frames, whatever is being done just then
            timer = threading.Timer(random.uniform(0, 5) * (seen[2] - seen[1]), end)
            timer.start()
        if len(seen) == 20 and timer.is_alive():
            timer.cancel()
            end()
    tick(self, stage, done, total)

_Run.tick = noting
sys.exit(main())
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing_half_written(
    clip: Path, tmp_path: Path, how: signal.Signals
) -> None:
    out = tmp_path / "o"
    process = subprocess.run(
        [
            sys.executable, "-c", INTERRUPTED, str(int(how)),
            "segment", str(clip), "--out", str(out), "--box", BOX,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
        # A test run in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    said = process.stderr
    assert process.returncode == 1, said
    assert "Error: Stopped." in said and "Traceback" not in said
    assert not (out / "segmented.mp4").exists()
    assert not list(out.rglob("*.part"))
    assert (out / "tracked.mp4").exists()


# ------------------------------------------------------------------------------------------- batch


@pytest.fixture
def folder(clip: Path, tmp_path: Path) -> Path:
    """Two good videos and one that is none."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", "c.mp4"):
        (videos / name).write_bytes(clip.read_bytes())
    (videos / "b.mp4").write_text("no video")
    return videos


@pytest.mark.usefixtures("colour_models")
def test_batch_goes_on_after_a_failure_and_skips_what_is_done(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["batch", folder, "--out", tmp_path / "o", "--do", "remove", "--box", BOX, "--json"]
    code, text = run_cli(capsys, *arguments)
    lines = [json.loads(line) for line in text.splitlines()]
    assert code == 1
    assert [line["status"] for line in lines] == ["done", "failed", "done"]
    assert "b.mp4" in lines[1]["error"] and lines[0]["error"] is None
    assert lines[0]["frames"] == COUNT
    assert (tmp_path / "o" / "c" / "removed.mp4").exists()
    assert (tmp_path / "o" / "a" / "tracks.json").exists()
    assert not (tmp_path / "o" / "b" / "tracked.mp4").exists()
    code, text = run_cli(capsys, *arguments)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["status"] for line in lines] == ["skipped", "failed", "skipped"]
    assert lines[0]["frames"] == COUNT
    (folder / "b.mp4").unlink()
    assert run_cli(capsys, *arguments)[0] == 0


@pytest.mark.usefixtures("colour_models")
def test_batch_with_a_jobs_file_and_limit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = tmp_path / "jobs.csv"
    x0, y0, *_ = square_box(3)
    jobs.write_text(
        f"video,box,point,frame,name\nc.mp4,,{x0 + 3},{y0 + 3},3,dot\n".replace(
            f"{x0 + 3},{y0 + 3}", f'"{x0 + 3},{y0 + 3} 1,1,0"'
        )
        + f'a,"{BOX}",,0,boxed\n'
    )
    arguments = ["batch", folder, "--out", tmp_path / "o", "--jobs", jobs, "--json"]
    code, text = run_cli(capsys, *arguments, "--limit", "1")
    assert code == 0 and len(text.splitlines()) == 1
    data = json.loads((tmp_path / "o" / "c" / "tracks.json").read_text())
    assert data["objects"][0]["name"] == "dot"
    assert run_cli(capsys, *arguments)[0] == 0
    assert (tmp_path / "o" / "a" / "tracks.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("box\n1\n", "column “video”"),
        ("video,boxx\na,1\n", "boxx"),
        ("video,box\nzzz,1\n", "there is no video “zzz”"),
        ('video,box\na,"1,2"\n', "line 2"),
        ("video,box,frame\na,,x\n", "line 2: “x” is not the number of a frame"),
        ("video,box\na,1,2\n", "line 2: there are more values than columns"),
        ("video,box\na,\udcff\n", "is not a CSV file in UTF-8"),
        ("video,box\n", "names no video"),
    ],
)
def test_bad_jobs_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(content, encoding="utf-8", errors="surrogateescape")
    arguments = ["batch", folder, "--out", tmp_path / "o", "--jobs", jobs]
    code, text = run_cli(capsys, *arguments)
    assert code == 2 and said in text and text.count("\n") == 1
    for prompt in (["--frame", "3"], ["--name", "dog"], ["--tracks", "boxes.csv"]):
        code, text = run_cli(capsys, *arguments, *prompt)
        assert code == 2 and "--jobs" in text


def test_a_list_of_paths(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"# two lines, one video\n{clip}\n\n{clip}\n")
    assert find_videos(str(listed)) == [clip]
    listed.write_bytes(b"\xff\xfe")
    for source, said in ((listed, "cannot be read as a list of paths"), ("", "No video was found")):
        code, text = run_cli(capsys, "batch", source, "--out", tmp_path / "o", "--box", BOX)
        assert code == 2 and said in text and text.count("\n") == 1


@pytest.mark.parametrize("option", ["--limit", "--max-minutes"])
def test_a_batch_of_nothing_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    code, text = run_cli(
        capsys, "batch", folder, "--out", tmp_path / "o", "--box", BOX, option, "0"
    )
    assert code == 2 and option in text and text.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_batch_without_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run_cli(capsys, "batch", tmp_path, "--out", tmp_path / "o", "--box", BOX)
    assert code == 2 and "No video was found" in text


def test_the_page_takes_limits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr("demo.app.serve", lambda **how: seen.update(how) or 0)
    limits = ["--max-minutes", "2", "--max-megapixels", "1.5"]
    assert main(["--port", "7999", *limits, "--auth", "ann:a:b", "--auth", "bob:c"]) == 0
    assert seen["port"] == 7999 and seen["auth"] == [("ann", "a:b"), ("bob", "c")]
    assert seen["budget"] == Budget(max_seconds=120, max_frame_pixels=1_500_000)
    for wrong in (["--auth", "ann"], ["--port", "0"], ["--port", "70000"],
                  ["--max-megapixels", "nan"], ["--max-minutes", "0"]):  # fmt: skip
        assert main(wrong) == 2, wrong
