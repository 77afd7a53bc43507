"""Arguments made of signatures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from media import InputError
from media.command_line import build_parser, call, run_program

calls: list[tuple] = []


def paint(
    source: Path,
    size: int = 3,
    *,
    color: Literal["red", "blue"] = "red",
    share: float | None = None,
    name: list[str] | None = None,
    out: Path,
    dry_run: bool = False,
) -> int:
    """Paint something. 100 % of it.

    It takes two lines to say.

    Args:
        source: What to paint,
            on two lines.
        size: How large.
        color: Which color.
        share: Of what; 50% is half.
        name: Who.
        out: Where to.
        dry_run: Only say.

    Returns:
        Nothing: but a number.
    """
    calls.append((source, size, color, share, name, out, dry_run))
    return 7


def run(*words: str) -> int:
    return call(build_parser("prog", "What it is.", (paint,)).parse_args(["paint", *words]))


def test_values_arrive_with_their_types() -> None:
    calls.clear()
    assert run("x.mp4", "--out", "y") == 7
    assert run("x", "5", "--out", "y", "--color", "blue", "--share", "0.5", "--dry-run",
               "--name", "a", "--name", "b") == 7  # fmt: skip
    assert calls == [
        (Path("x.mp4"), 3, "red", None, None, Path("y"), False),
        (Path("x"), 5, "blue", 0.5, ["a", "b"], Path("y"), True),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("x",), "The following arguments are required: --out"),
        (("x", "--out", "y", "--color", "green"), "--color: there is no 'green' .choose"),
        (
            ("x", "many", "--out", "y"),
            "SIZE takes a whole number, not 'many'; see prog paint --help",
        ),
        (("x", "--out", "y", "--share", "all"), "--share takes a number, not 'all'"),
        (("x", "--out", "y", "--name", "-a,b"), "--name takes a value .--name=VALUE if"),
        (("x", "--out", "y", "--fast"), "Unrecognized arguments: --fast"),
    ],
)
def test_mistakes_are_input_errors(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        run(*words)


def test_help_says_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "Paint something. 100 % of it. It takes two lines to say.",
        "What to paint, on two lines.",
        "--color {red,blue} Which color. Default: red.",
        "--share NUMBER Of what; 50% is half.",
        "Who; may be repeated.",
        "--dry-run Only say.",
    ):
        assert text in shown
    assert "Nothing" not in shown


def test_what_goes_wrong_is_a_sentence_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    class Missing(RuntimeError):
        exit_code = 5

    errors: dict[str, BaseException] = {
        "bad": InputError("Give another."), "disk": OSError(28, "No space left", "x.csv"),
        "stop": KeyboardInterrupt(), "missing": Missing("Fetch it."), "bug": ValueError("boom"),
    }  # fmt: skip

    def fail(how: str) -> int:
        """Fail.

        Args:
            how: In which way.
        """
        raise errors[how]

    def code(how: str, stopped: str | dict[str, str] = "Ended.") -> tuple[int, str]:
        found = run_program("prog", "", [fail], ["fail", how], stopped=stopped)
        return found, capsys.readouterr().err

    assert code("bad") == (2, "Error: Give another.\n")
    assert code("disk") == (1, "Error: x.csv cannot be used: No space left.\n")
    assert code("stop") == (1, "Ended.\n")
    assert code("stop", {"fail": "No more of it."}) == (1, "No more of it.\n")
    assert code("stop", {"other": "No more of it."}) == (1, "Stopped.\n")
    assert code("missing") == (5, "Error: Fetch it.\n")
    with pytest.raises(ValueError, match="boom"):
        code("bug")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    talk = (
        "from media.command_line import run_program\n"
        "def talk() -> int:\n"
        "    'Talk.'\n"
        "    while True: print('x' * 100)\n"
        "raise SystemExit(run_program('prog', '', [talk], ['talk']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", talk],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"x" * 100 + b"\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
