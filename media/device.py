"""Where computation runs: one rule for every stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from media.errors import InputError

if TYPE_CHECKING:
    import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto" into cuda, mps or cpu, whichever comes first on this machine, and check others.

    Raises:
        InputError: the device does not exist.
    """
    import torch  # late, so that reading videos needs no torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"The device {str(device)!r} is not available on this machine; use 'auto' or 'cpu'."
        ) from error
    return found
