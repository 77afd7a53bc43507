"""A script in two processes of torchrun, as a training on two devices is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_LEFT = """
import contextlib, pathlib, time
def threads():
    for path in pathlib.Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield path.read_text().strip()
# One that has been waited for may still be on the list; one that has not stays there for ever.
limit = time.monotonic() + 30
while left := [name for name in threads() if "gloo" in name]:
    assert time.monotonic() < limit, f"still at work: {left}"
    time.sleep(0.01)
"""


def run_together(folder: Path, code: str, *arguments: str) -> None:
    """Run code, which has to succeed in both.

    When it is done none of the group's threads may be left (as far as the system lists threads):
    one that is overtaken by the end of Python ends the process with SIGABRT, but only now and then.
    """
    script = folder / "script.py"
    script.write_text(code + _LEFT)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
            str(script), *arguments,
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
