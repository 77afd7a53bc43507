"""The guides' promises: every link leads somewhere, and every command in them is understood."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
GUIDES = sorted(
    path for pattern in ("*.md", "docs/*.md", "checkpoints/*.md") for path in ROOT.glob(pattern)
)
_VARIABLE = re.compile(r'\b([A-Z])="([^"]*)"')
_PROGRAM = re.compile(r"(?:\S+=\S+ )*(?:\S*python|torchrun --\S+) -m ([\w.]+)(.*)")


def commands(guide: Path) -> list[tuple[str, list[str], bool]]:
    """(module, its arguments, whether all are there) of each command in a guide's code.

    Variables of the guide are filled in. In the middle of a sentence a command may be cut short.
    """
    text = guide.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    blocks = "\n".join([*fenced, *re.findall(r"^ {4}.*$", text, flags=re.MULTILINE)])
    values = {name: " ".join(value.split()) for name, value in _VARIABLE.findall(blocks)}
    lines = [(line, True) for line in _VARIABLE.sub("", blocks).splitlines()]
    lines += [(" ".join(span.split()), False) for span in re.findall(r"`(python -m [^`]+)`", text)]
    found = []
    for line, whole in lines:
        line = re.sub(r"\$([A-Z])\b", lambda name: values[name[1]], line.strip())
        program = _PROGRAM.match(line.replace("[", "").replace("]", ""))
        if program and not re.search(r"\||\.\.\.|COMMAND|\bX\b", line):
            found.append((program[1], shlex.split(program[2], comments=True), whole))
    return found


EVERY = [
    pytest.param(*command, id=f"{guide.name}: {command[0]} {' '.join(command[1])}"[:100])
    for guide in GUIDES
    for command in commands(guide)
]


class Understood(BaseException):
    """Raised in place of doing what the command says."""


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(("module", "arguments", "whole"), EVERY)
def test_commands_are_understood(
    module: str,
    arguments: list[str],
    whole: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, *args: Any, **how: Any) -> None:
        parse(parser, *args, **how)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises((Understood, SystemExit)) as end:
        runpy.run_module(module, run_name="__main__")
    said = capsys.readouterr()
    asked_for_help = isinstance(end.value, SystemExit) and end.value.code == 0
    cut_short = not whole and "arguments are required" in said.err
    assert end.type is Understood or asked_for_help or cut_short, said.err


def anchors(guide: Path) -> set[str]:
    """What a link may name behind #: the headings as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", guide.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_links_lead_somewhere(guide: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", guide.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = guide.parent / name if name else guide
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_guides_are_looked_at() -> None:
    assert len(GUIDES) >= 9 and len(EVERY) >= 70
    modules = {command.values[0] for command in EVERY}
    assert {"demo", "trackers", "segmenters", "inpainting", "checkpoints"} <= modules
