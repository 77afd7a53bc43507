"""A machine on which little is installed: what training runs on."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_ALLOWED = ("torch", "torchvision", "numpy", "PIL", "safetensors")
_OF_TORCH = (
    "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec",
    "filelock", "functorch", "torchgen", "packaging", "triton", "nvidia",
)  # fmt: skip


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run Python code where nothing but torch, torchvision, numpy, Pillow and safetensors is.

    bare(code, *arguments) returns what it printed.
    """
    site = Path(sysconfig.get_paths()["purelib"])
    packages = tmp_path_factory.mktemp("bare")
    for name in (*_ALLOWED, *_OF_TORCH):
        for path in (site / name, site / f"{name}.py", site / f"{name}.libs"):
            if path.exists():
                (packages / path.name).symlink_to(path)
    (packages / "pillow.libs").symlink_to(site / "pillow.libs")

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-S", "-c", code, *arguments],  # -S: without what else is installed
            cwd=_ROOT,
            env={"PYTHONPATH": f"{packages}:{_ROOT}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
