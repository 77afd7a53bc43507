"""What a failure is called in front of a user: one sentence, and the exit code with it."""

from __future__ import annotations

from checkpoints import CheckpointError
from media import InputError

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2


class Cancelled(Exception):
    """The user stopped the run."""


class Failed(Exception):
    """A run in another process failed.

    Args:
        sentence: for the user.
        code: the exit code that goes with it.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def out_of_memory(error: BaseException) -> bool:
    """Whether a library has said, in whichever of their ways, that memory is used up."""
    said = f"{type(error).__name__} {error}".lower()
    words = ("memoryerror", "out of memory", "insufficient memory", "not enough memory",
             "can't allocate memory", "failed to allocate")  # fmt: skip
    return any(word in said for word in words)


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence for the user and the exit code: 1 a failed run, 2 input that cannot be used."""
    if isinstance(error, Failed):
        return str(error), error.code
    if isinstance(error, InputError):
        return str(error), EXIT_BAD_INPUT
    if isinstance(error, CheckpointError):
        return str(error), EXIT_FAILED
    if isinstance(error, KeyboardInterrupt | Cancelled):
        return "Stopped. Finished stages are kept; the same run goes on from there.", EXIT_FAILED
    if out_of_memory(error):
        return (
            "There is not enough memory for this; choose a shorter part of the video, a smaller "
            "size to paint at, or another device. Finished steps are kept.",
            EXIT_FAILED,
        )
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}; nothing unfinished was kept.", EXIT_FAILED
    return f"The run failed unexpectedly ({type(error).__name__}: {error}).", EXIT_FAILED
