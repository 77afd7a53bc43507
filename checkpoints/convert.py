"""From any readable weight file to safetensors: smaller, quick to map, and never code."""

from __future__ import annotations

import os
from pathlib import Path

from checkpoints.errors import CheckpointError, UsageError
from checkpoints.loading import load_notes, load_state_dict
from checkpoints.store import sha256_of


def convert(source: Path, target: Path, *, half: bool = False) -> Path:
    """Write the tensors of `source` to the safetensors file `target`.

    Keys stay as they are: only the model that loads them knows which ones it may miss or ignore.

    Args:
        source: Anything `load_state_dict` reads.
        target: Ends in .safetensors. Overwritten when it exists; written beside and renamed, so
            never half a file.
        half: Store float32 and float64 as float16, but for tensors with values beyond its range.

    Returns:
        `target`.

    Raises:
        UsageError: `target` has another ending, or is `source`.
        CheckpointError: `source` cannot be read, or `target` cannot be written.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} has to end in .safetensors: that is what is written.")
    if target.resolve() == source.resolve():
        raise UsageError(f"{target} would be written over itself; choose another name.")
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        if half and tensor.dtype in (torch.float32, torch.float64):
            narrow = tensor.half()
            if torch.equal(narrow.isfinite(), tensor.isfinite()):
                tensor = narrow
        return tensor.contiguous().clone()  # safetensors refuses tensors that share memory

    tensors = {key: stored(value) for key, value in load_state_dict(source).items()}
    part = target.with_name(target.name + ".part")
    about = {"format": "pt", "source": source.name, "source_sha256": sha256_of(source)}
    about = load_notes(source) | about  # which say how a training run's network is built
    try:
        save_file(tensors, part, metadata=about)
        os.replace(part, target)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f"{target} cannot be written ({error}).") from error
    return target
