"""Where computation runs, one rule for every stage; and the memory it took."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from media.errors import InputError

if TYPE_CHECKING:
    import torch

_MOST_THREADS = 4096


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


def use_threads(count: int | None) -> None:
    """Compute with so many threads of the CPU, in PyTorch and OpenCV; None: as they choose.

    Raises:
        InputError: it is less than one, or more than any machine has.
    """
    if count is None:
        return
    if not 1 <= count <= _MOST_THREADS:
        raise InputError(f"1 to {_MOST_THREADS} threads can compute, not {count}.")
    import torch

    torch.set_num_threads(count)
    with suppress(ImportError):  # training does without OpenCV
        import cv2

        cv2.setNumThreads(count)


def multiplies_bfloat16(device: str | torch.device) -> bool:
    """Whether the device has instructions for bfloat16, so that it is worth while there.

    PyTorch computes in bfloat16 anywhere, but on a CPU without them more slowly than in float32.
    """
    import torch

    found = resolve_device(device)
    if found.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return found.type == "cpu" and bool(_cpu_flags() & {"avx512_bf16", "amx_bf16"})


@cache
def _cpu_flags() -> frozenset[str]:
    """What Linux says the processor can do; nothing on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def peak_rss_mb() -> float:
    """The most memory this process has ever held, in MB; 0 where the system does not tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024**2
