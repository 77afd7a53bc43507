"""The losses of E2FGVI: MCG-NKU/E2FGVI @ 709cbe3 and the paper, section 3.4.

Clips are (b, t, 3, h, w) in [-1, 1], holes (b, t, 1, h, w) with 1 where something is painted.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

Flows = tuple[Tensor, Tensor]


def composite(painted: Tensor, truth: Tensor, holes: Tensor) -> Tensor:
    """What was painted inside the holes, and the truth outside."""
    return truth * (1 - holes) + painted * holes


def l1(painted: Tensor, truth: Tensor, where: Tensor, share: Tensor) -> Tensor:
    """Mean absolute difference where `where` is 1.

    Args:
        painted: a clip.
        truth: the clip as it was.
        where: 1 where it counts, else 0.
        share: the mean of `where` over the whole batch, of which these clips may be a part, so that
            parts of a batch add up to the same loss however it is cut.
    """
    return F.l1_loss(painted * where, truth * where) / share.clamp(min=1e-6)


def flow_loss(found: Flows, taught: Flows) -> Tensor:
    """L1 between flows forwards and backwards, each (b, l - 1, 2, h/4, w/4), in feature pixels."""
    return F.l1_loss(found[0], taught[0]) + F.l1_loss(found[1], taught[1])


def adversarial_loss(opinion: Tensor) -> Tensor:
    """What the network wants of the discriminator (hinge): to be taken for real."""
    return -opinion.mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator wants (hinge): at least 1 for what is real, else at most -1."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
