"""Lost after a run of low scores, found at a high one."""

from __future__ import annotations

import math

import pytest

from trackers.presence import Presence


@pytest.mark.parametrize(
    ("scores", "lost"),
    [
        ([0.1, 0.1, 0.1, 0.1], "..LL"),
        ([0.1, 0.1, 0.2, 0.1, 0.1], "....."),  # 0.2 is not below 0.2: the run starts again
        ([0.0, 0.0, 0.0, 0.4, 0.1, 0.5, 0.3], "..LLL.."),  # found at 0.5; 0.4 is not enough
        ([0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0], "..L...L"),
        ([math.nan] * 5, "....."),  # a model without a score is never lost
    ],
)
def test_presence(scores: list[float], lost: str) -> None:
    presence = Presence(low=0.2, patience=3, high=0.5)
    assert "".join("L" if presence.update(score) else "." for score in scores) == lost
