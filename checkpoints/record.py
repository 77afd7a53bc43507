"""Which weights a model runs, for the record of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.formats import INDEX, pieces
from checkpoints.store import sha256_of

if TYPE_CHECKING:
    import torch

DIGITS = 12


@dataclass(frozen=True)
class WeightsRecord:
    """Name and content of weights in use.

    Attributes:
        name: of the checkpoint, or the path of a file, or "state dict".
        sha256: of the file, of its pieces' hashes, or of a state dict's keys and values; the first
            12 digits.
    """

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256})"

    @classmethod
    def of_file(cls, name: str, path: Path) -> WeightsRecord:
        """That of a file, or of weights in pieces by their index. Raises OSError if unreadable."""
        found = [sha256_of(file) for file in pieces(path)]
        if path.name.endswith(INDEX):  # which is alike for all weights of one network
            found = [hashlib.sha256("".join(found).encode()).hexdigest()]
        return cls(name, found[0][:DIGITS])

    @classmethod
    def of_tensors(cls, state: Mapping[str, torch.Tensor]) -> WeightsRecord:
        """That of named tensors, whatever device they are on; their order counts."""
        import torch  # late, so that fetching needs no torch

        digest = hashlib.sha256()
        for key, tensor in state.items():
            digest.update(key.encode())
            # As bytes, because numpy has no bfloat16.
            plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(plain.numpy().tobytes())
        return cls("state dict", digest.hexdigest()[:DIGITS])
