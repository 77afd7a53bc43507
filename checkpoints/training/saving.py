"""What a run leaves on disk: weights for trackers, and the state it goes on from.

Every file is written beside its place and then renamed, so that a killed run leaves whole files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import checkpoints
from checkpoints.formats import INDEX
from media import InputError
from media.files import replacing


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a file under another name, then give it its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save(part)


def write_weights(
    state: Mapping[str, torch.Tensor],
    path: Path,
    *,
    half: bool = False,
    piece_mb: int = 0,
    about: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a state dict as safetensors, in one file or in pieces.

    Pieces are called NAME-00001-of-00003.safetensors, and NAME.safetensors.index.json says which
    tensor is where, as on the Hugging Face hub.

    Args:
        state: keys to tensors.
        path: NAME.safetensors.
        half: as float16; integers stay.
        piece_mb: no file is larger than so many million bytes, unless a single tensor is; 0: one.
        about: notes for the file's head.

    Returns:
        The files written.
    """
    tensors = {
        key: (t.half() if half and t.is_floating_point() else t).detach().cpu().contiguous()
        for key, t in state.items()
    }
    pieces: list[dict[str, torch.Tensor]] = [{}]
    room = most = piece_mb * 1e6 - 20_000 if piece_mb else float("inf")  # less the file's head
    for key, tensor in tensors.items():
        if tensor.nbytes > room and pieces[-1]:
            pieces.append({})
            room = most
        pieces[-1][key] = tensor
        room -= tensor.nbytes
    notes = {"format": "pt", **(about or {})}
    if len(pieces) == 1:
        write(path, lambda part: save_file(tensors, part, metadata=notes))
        return [path]
    files: list[Path] = []
    places: dict[str, str] = {}
    for i, piece in enumerate(pieces, 1):
        file = path.with_name(f"{path.stem}-{i:05d}-of-{len(pieces):05d}{path.suffix}")
        write(file, lambda part, piece=piece: save_file(piece, part, metadata=notes))  # type: ignore[misc]
        files.append(file)
        places |= dict.fromkeys(piece, file.name)
    index = path.with_name(path.name + INDEX)
    size = sum(tensor.nbytes for tensor in tensors.values())
    content = json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1)
    write(index, lambda part: part.write_text(content, encoding="utf-8"))
    return [*files, index]


def find_weights(name: str) -> Path:
    """A file, or the file of a checkpoint by its name.

    Whether a run writes one file or pieces depends on their size: either name finds what is there.

    Raises:
        InputError: there is neither.
    """
    twin = name.removesuffix(INDEX) if name.endswith(INDEX) else name + INDEX
    for path in map(Path, (name, twin)):
        if path.exists():
            return path
    if name in checkpoints.CHECKPOINTS:
        return checkpoints.path(name)
    raise InputError(f"There is no file {name}, and no checkpoint of that name.")


def weights_in(folder: Path) -> Path:
    """What a run wrote into its folder: its weights, or the index of their pieces."""
    whole = folder / "weights.safetensors"
    index = whole.with_name(whole.name + INDEX)
    return index if index.exists() else whole


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a weight file of any kind, or all pieces that an index names, in float32.

    Raises:
        checkpoints.CheckpointError: a file is missing or damaged.
    """
    state = checkpoints.load_state_dict(path)
    return {k: t.float() if t.is_floating_point() else t for k, t in state.items()}


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Keep all a run needs to go on: tensors, numbers, strings, and lists and dicts of them."""
    write(path, lambda part: torch.save(dict(state), part))


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote; no code of the file runs.

    Raises:
        InputError: it is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zip raise a dozen kinds
        raise InputError(
            f"{path} is damaged, so the run cannot go on; delete it to start anew."
        ) from error
