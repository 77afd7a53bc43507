"""What changes while trackers are trained: how much of a removed part is left, and steps down.

Source: MCG-NJU/MixFormerV2 @ 10414383, whose tables these functions meet (paper, section 3.3).
"""

from __future__ import annotations

import math


def removal_coefficient(epoch: int, epochs: int = 40) -> float:
    """How much of a removed block, or hidden unit, is left in an epoch: a cosine from 1 to 0.

    Kept from upstream: constant within an epoch, and one epoch ahead, so that it starts below 1 and
    is 0 from epoch `epochs` - 1 on.

    Args:
        epoch: counted from 1.
        epochs: how many the fading takes; 40 in the paper.
    """
    if epoch + 1 >= epochs:
        return 0.0  # of which the cosine of a float would be a little off
    return 0.5 * (1 + math.cos(math.pi * (epoch + 1) / epochs))


def step_decay(epoch: int, drop_epochs: int) -> float:
    """Factor of the learning rate: a tenth from epoch `drop_epochs` + 1 on, then another tenth.

    Args:
        epoch: counted from 1.
        drop_epochs: epochs between two drops.
    """
    return float(0.1 ** ((epoch - 1) // drop_epochs))
