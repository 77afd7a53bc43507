"""Learning rates rise and fall."""

from __future__ import annotations

import pytest

from checkpoints.training.schedule import cosine_decay, warmup


def test_warm_up_and_cosine() -> None:
    assert warmup(0, 0) == 1.0
    assert [warmup(step, 4) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert [cosine_decay(share) for share in (0, 0.5, 1, 1.1)] == pytest.approx([1, 0.5, 0, 0])
