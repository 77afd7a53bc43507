"""How far from the golden numbers we are: a fixture that compares, and the list at the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

Check = Callable[[str, object, object, float], None]
_largest = pytest.StashKey[dict[str, float]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_largest] = {}


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Check:
    """check(what, found, wanted, tolerance): compare, and remember the largest difference."""
    largest = request.config.stash[_largest]

    def compare(what: str, found: object, wanted: object, tolerance: float) -> None:
        ours, theirs = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
        assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, not {theirs.shape}"
        difference = float(np.abs(ours - theirs).max())
        largest[what] = max(largest.get(what, 0.0), difference)
        assert difference <= tolerance, f"{what}: off by {difference:.2e}, {tolerance:.0e} allowed"

    return compare


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[_largest]:
        terminalreporter.section("largest difference from the official code")
        for what, difference in sorted(config.stash[_largest].items()):
            terminalreporter.line(f"{what:48s} {difference:.2e}")
