"""What can go wrong with a weight file, as one sentence for the user."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """A weight file is missing, damaged, out of reach, or not what it claims to be.

    The message is one clear sentence that says what is wrong and what to do about it; command lines
    print it without a traceback and end with `exit_code`.
    """

    exit_code = 1


class UsageError(CheckpointError):
    """The request itself cannot be met: an unknown name, or a licence that was not accepted."""

    exit_code = 2
