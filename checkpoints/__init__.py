"""Weights and sample clips: which there are, where they come from, and how to read them safely.

    from checkpoints import find, path, load_state_dict
    weights = load_state_dict(path("mobile_sam"))

`python -m checkpoints list` shows what is there; README.md has the table with licences and sources.
Importing this package imports neither torch nor the network.
"""

from checkpoints.errors import CheckpointError, UsageError
from checkpoints.loading import difference, load_notes, load_state_dict
from checkpoints.record import WeightsRecord
from checkpoints.registry import CHECKPOINTS, PREFERRED, Checkpoint, Stage
from checkpoints.store import fetch, find, first_available, folder, path, state, verify

__all__ = [
    "CHECKPOINTS",
    "PREFERRED",
    "Checkpoint",
    "CheckpointError",
    "Stage",
    "UsageError",
    "WeightsRecord",
    "difference",
    "fetch",
    "find",
    "first_available",
    "folder",
    "load_notes",
    "load_state_dict",
    "path",
    "state",
    "verify",
]
