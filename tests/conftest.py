"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden.differences import check, pytest_configure, pytest_terminal_summary

__all__ = ["check", "pytest_configure", "pytest_terminal_summary", "shared"]


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Find a file of the optional data folder named by MIXCUT_SHARED.

    Unset means that the data are not on this machine: the test is skipped. Set, a file that is not
    there is a failure, so that a run that promises the data cannot quietly leave tests out.
    """

    def locate(relative: str) -> Path:
        root = os.environ.get("MIXCUT_SHARED")
        if not root:
            pytest.skip(f"needs the reference data ({relative}); set MIXCUT_SHARED to its folder")
        path = Path(root).resolve() / relative
        assert path.exists(), f"MIXCUT_SHARED is set but {path} is missing"
        return path

    return locate
