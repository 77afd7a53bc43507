"""Lost or in sight: what the network says about a frame, made into a probability and a decision.

The probabilities are logistic models, fitted with the bundled weights of MixFormerV2-S on the first
100 frames of 56 labelled training sequences (OTB, VOT, UAV123, SegTrack, FOD-A and others; some of
them the weights have seen in training), followed in robust mode, and on probes in which the object
was painted over or the window put elsewhere: 4,123 boxes with an IoU above 0.5 and 1,342 that are
wrong. In five-fold cross-validation over sequences `presence` tells them apart with an area under
the ROC curve of 0.953 and a calibration error of 0.022. The score head alone reaches 0.853, the
entropy of the edges alone 0.877, both together 0.885. `likeness`, on 1,260 of them that were looked
at twice, reaches 0.960. Once entropy and colours are known, the score head says little more. With
other weights the order of boxes should hold; the calibration need not.
"""

from __future__ import annotations

import math

import numpy as np

_CONFIDENT = 4.0  # log-odds beyond which one frame counts no more
_OTHER_LIGHT = 0.75  # colours that are less alike count as if they were that: lights go on and off


def edge_entropy(probabilities: np.ndarray) -> float:
    """How spread the four edges of a box are, in nats.

    Args:
        probabilities: (4, F) where each edge may lie, rows sum to 1.

    Returns:
        The mean of the four entropies, from 0 (sure) to log F (no idea).
    """
    return float(-(probabilities * np.log(probabilities.clip(1e-12))).sum(axis=1).mean())


def presence(score: float, entropy: float, color: float) -> float:
    """The probability that a box is right, that is, overlaps its object with an IoU above 0.5."""
    return _sigmoid(_evidence(score, entropy, _PRESENCE, max(color, _OTHER_LIGHT)))


def likeness(score: float, entropy: float, color: float, way_back: float) -> float:
    """The same for a box that was found elsewhere, or after a while, and may be a double's.

    Args:
        score: of the network's score head, in [0, 1].
        entropy: see `edge_entropy`.
        color: how alike its colours and the object's are, in [0, 1]; see `recovery.Palette`.
        way_back: IoU, on the frame the user gave, of the user's box and of what is found there with
            the box in question as template.
    """
    return _sigmoid(_evidence(score, entropy, _LIKENESS, color, way_back))


_PRESENCE = (-4.401, 0.030, -4.280, 17.813)
_LIKENESS = (0.513, 0.186, -3.321, 5.325, 3.624)


def _evidence(score: float, entropy: float, weights: tuple[float, ...], *more: float) -> float:
    bias, *factors = weights
    values = (_log_odds(score), entropy, *more)
    return bias + sum(a * b for a, b in zip(factors, values, strict=True))


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class Presence:
    """The object is lost when frames speak against it for a while; back when several confirm it.

    Evidence is a mean of log-odds that fades: one blurred frame changes little, four or five bad
    ones make a loss.

    Args:
        low: a mean probability below this, in [0, 1], is a loss.
        high: boxes of a lost object that are at least so likely to be right confirm it.
        memory: share of the mean that stays from frame to frame, in [0, 1).
        confirm: so many confirmations in a row bring the object back.
    """

    def __init__(
        self, low: float = 0.35, high: float = 0.75, memory: float = 0.8, confirm: int = 3
    ) -> None:
        self.low = low
        self.high = high
        self.memory = memory
        self.confirm = confirm
        self.lost = False
        self._mean = _CONFIDENT / 2
        self._confirmed = 0

    def update(self, probability: float) -> bool:
        """Take note of the next frame of an object in sight; returns whether it is lost now."""
        new = min(max(_log_odds(probability), -_CONFIDENT), _CONFIDENT)
        self._mean = self.memory * self._mean + (1 - self.memory) * new
        if self._mean < _log_odds(self.low):
            self.lose()
        return self.lost

    def lose(self) -> None:
        """Give the object up, whatever was seen before: a new shot begins."""
        self.lost = True
        self._confirmed = 0

    def check(self, probability: float) -> bool:
        """Take note of the best box in a frame of a lost object; returns whether it is back."""
        self._confirmed = self._confirmed + 1 if probability >= self.high else 0
        if self._confirmed >= self.confirm:
            self.lost = False
            self._mean = _log_odds(self.high)
        return not self.lost
