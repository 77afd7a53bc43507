"""A script in two processes of torchrun, as a training on two devices is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_LEFT = """
from pathlib import Path
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], f"still at work: {threads}"
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
