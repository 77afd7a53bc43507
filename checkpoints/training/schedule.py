"""How the learning rate changes while training goes on."""

from __future__ import annotations

import math


def cosine_decay(progress: float) -> float:
    """Factor of the learning rate: a cosine from 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup(step: float, steps: int) -> float:
    """Factor of the learning rate: rises in a line over the first `steps` steps, then is 1.

    The paper's recipes start from MAE weights and need none (`steps` 0); a vision transformer that
    starts from scratch does not settle without.

    Args:
        step: counted from 0; between two steps where a clock drives the schedule.
        steps: how many the rise takes.
    """
    return min(1.0, (step + 1) / (steps + 1))
