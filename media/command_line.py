"""Commands made of functions: arguments from the signature, help from the docstring.

Positional parameters become positional arguments, keyword-only ones options. Each needs a type
(str, int, float, Path, bool, a Literal, list[...] of these, or one of them | None) and a line under
"Args:" in the docstring, which is its help.
"""

from __future__ import annotations

import argparse
import inspect
import io
import logging
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union

from media import InputError

Command = Callable[..., int]


_KINDS = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}
_PLAINLY = {  # what argparse says, and what a person understands
    r"argument (\S+): invalid int value: ": r"\1 takes a whole number, not ",
    r"argument (\S+): invalid float value: ": r"\1 takes a number, not ",
    r"argument (-\S+): expected one argument": r"\1 takes a value (\1=VALUE if it begins with -)",
    r"argument (\S+): invalid choice: ": r"\1: there is no ",
}


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like any other: one sentence, and where to look.

    Raises:
        InputError: from `parse_args`, where argparse would print its usage and end the program.
    """

    def error(self, message: str) -> NoReturn:
        for technical, plain in _PLAINLY.items():
            message = re.sub(f"^{technical}", plain, message)
        raise InputError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def build_parser(
    prog: str, description: str, commands: Sequence[Command]
) -> argparse.ArgumentParser:
    """A parser with one sub-command per function; the chosen one is `run` in what it parses."""
    parser = Parser(prog=prog, description=description)
    chosen = parser.add_subparsers(
        required=True, dest="command", metavar="COMMAND", parser_class=Parser
    )
    for command in commands:
        about, texts = _read_docstring(inspect.getdoc(command) or "")
        name = command.__name__.strip("_")
        sub = chosen.add_parser(name, help=about.splitlines()[0].rstrip("."), description=about)
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            _add(sub, parameter, texts[parameter.name])
        sub.set_defaults(run=command)
    return parser


def call(arguments: argparse.Namespace) -> int:
    """Run the chosen command with what was parsed."""
    given = dict(vars(arguments))
    command = given.pop("run")
    names = inspect.signature(command).parameters
    values = {name: given[name] for name in names}
    positional = [values.pop(n) for n, p in names.items() if p.kind is not p.KEYWORD_ONLY]
    return int(command(*positional, **values))


def run_program(
    prog: str,
    description: str,
    commands: Sequence[Command],
    argv: Sequence[str] | None = None,
    *,
    stopped: str | Mapping[str, str] = "Stopped.",
) -> int:
    """Run what the command line asks for; what goes wrong is one sentence on standard error.

    Args:
        argv: without the program's name; None = what this process was started with.
        stopped: what Ctrl+C is answered with; or that by the names of commands, "Stopped." for the
            others.

    Returns:
        0 ok, 1 failed, 2 input that cannot be used. An error may bring an `exit_code` of its own.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    escape_what_cannot_be_shown()
    arguments = argparse.Namespace(command=None)
    try:
        return call(build_parser(prog, description, commands).parse_args(argv, arguments))
    except InputError as error:
        sentence, code = f"Error: {error}", 2
    except BrokenPipeError:  # whoever read this has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        what = error.filename or "A file"
        sentence, code = f"Error: {what} cannot be used: {error.strerror or error}.", 1
    except KeyboardInterrupt:
        told = stopped if isinstance(stopped, str) else stopped.get(arguments.command)
        sentence, code = told or "Stopped.", 1
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        sentence, code = f"Error: {error}", error.exit_code
    print(sentence, file=sys.stderr)
    return code


def escape_what_cannot_be_shown() -> None:
    """Print names of files that the terminal has no letters for with escapes, and do not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a Google docstring says before "Args:", and about each argument."""
    about, _, rest = text.partition("\nArgs:\n")
    block = re.split(r"\n\S", rest)[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block, flags=re.MULTILINE)
    return about.strip(), {name: " ".join(text.split()) for name, text in entries}


def _add(parser: argparse.ArgumentParser, parameter: inspect.Parameter, text: str) -> None:
    kind, default = parameter.annotation, parameter.default
    required = default is parameter.empty
    if typing.get_origin(kind) in (Union, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    how: dict[str, Any] = {}
    several = typing.get_origin(kind) is list
    if several:
        (kind,) = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        how["choices"] = typing.get_args(kind)
    elif kind is not str and kind is not bool:
        how["type"] = kind
    if parameter.kind is not parameter.KEYWORD_ONLY:
        how["metavar"] = parameter.name.upper()
        if several:
            how["nargs"] = "+"
        elif not required:
            how["nargs"], how["default"] = "?", default
        parser.add_argument(parameter.name, help=_percent(text), **how)
        return
    flag = f"--{parameter.name.replace('_', '-')}"
    if kind is bool:
        parser.add_argument(flag, action="store_true", help=_percent(text))
        return
    if several:
        how["action"] = "append"
        text = f"{text.removesuffix('.')}; may be repeated."
    if "choices" not in how:
        how["metavar"] = _KINDS[kind]
    if default not in (None, parameter.empty):
        text += f" Default: {default}."
    how["default"] = None if required else default
    parser.add_argument(flag, required=required, help=_percent(text), **how)


def _percent(text: str) -> str:
    return text.replace("%", "%%")  # which argparse would fill in
