"""Lost or in sight, judged by the score head alone."""

from __future__ import annotations


class Presence:
    """The object is lost after a run of low scores, and back at the first high one.

    A score tells a vanished object from a visible one, but not the object from its double: a third
    of the wrong boxes come with scores above 0.9, and no threshold finds those. The defaults were
    chosen with the bundled weights, for few false alarms. On 11 sequences of OTB, TLD and DAVIS
    they call 1 in 700 good frames (IoU above 0.5) lost, and 58 % of the failures (below 0.1); on 56
    others, of which the weights have seen some in training, 1 in 60 and 43 %.

    Args:
        low: scores below this, in [0, 1], speak for a loss.
        patience: so many in a row make it one; a few are often motion blur.
        high: the score that makes an object count as found again, at least `low`.
    """

    def __init__(self, low: float = 0.2, patience: int = 5, high: float = 0.5) -> None:
        self.low = low
        self.patience = patience
        self.high = high
        self.lost = False
        self._low_run = 0

    def update(self, score: float) -> bool:
        """Take note of the score of the next frame, and say whether the object is lost in it."""
        self._low_run = self._low_run + 1 if score < self.low else 0
        self.lost = score < self.high if self.lost else self._low_run >= self.patience
        return self.lost
