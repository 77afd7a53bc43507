"""What a downloaded file is by its first bytes, before anything reads it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Literal

Kind = Literal["safetensors", "zip", "legacy"]

INDEX = ".index.json"
"""Ends the name of a file that says which of its neighbours hold the weights, as on the Hugging
Face hub."""


class FormatError(ValueError):
    """The file holds no weights; the message is to be read after the file's name."""


_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6: its magic number
_HEAD = 512


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD)


def oddity(path: Path) -> str | None:
    """What is wrong with any file at a glance, to be read after its name, or None.

    Hosts answer with a page where a file was expected, so that is what often lies there.
    """
    head = _head(path).lstrip().lower()
    if not head:
        return "is empty"
    if head.startswith((b"<!doctype html", b"<html", b"<head")):
        return "is an HTML page (an error or login page of the host), not the file"
    return None


def pieces(path: Path) -> list[Path]:
    """The files that hold the weights: those that an index names, or the file itself.

    Raises:
        FormatError: The index is damaged.
        OSError: It cannot be read.
    """
    if not path.name.endswith(INDEX):
        return [path]
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        # Neighbours alone: the index of a stranger is not to lead anywhere else.
        found = [path.with_name(Path(name).name) for name in sorted(names)]
    except (ValueError, KeyError, TypeError, AttributeError):
        found = []
    if not found or any(file.name.endswith(INDEX) for file in found):
        raise FormatError("does not say which files hold the weights")
    return found


def weight_kind(path: Path) -> Kind:
    """Tell the formats of weights apart: safetensors, torch.save now, and torch.save before 1.6.

    Raises:
        FormatError: None of them.
    """
    odd = oddity(path)
    if odd:
        raise FormatError(odd)
    head = _head(path)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if head.startswith(_LEGACY):
        return "legacy"
    if not head.startswith(b"PK\x03\x04"):
        raise FormatError("is neither a safetensors file nor one written by torch.save")
    try:
        with zipfile.ZipFile(path) as bundle:
            members = bundle.namelist()
    except zipfile.BadZipFile as error:  # a zip's table of contents stands at its end
        raise FormatError("is cut off before its end") from error
    if any(member.endswith("/constants.pkl") for member in members):
        raise FormatError("is a compiled TorchScript model, which is a program, not weights")
    return "zip"
