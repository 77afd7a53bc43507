"""Lost or in sight, judged by the score head alone."""

from __future__ import annotations


class Presence:
    """The object is lost after a run of low scores, and back at the first high one.

    The thresholds were chosen on the bundled weights; see the docstring of `MixFormerV2Tracker`.

    Args:
        low: scores below this, in [0, 1], speak for a loss.
        patience: so many in a row make it one; a single one is often motion blur.
        high: the score that makes an object count as found again, at least `low`.
    """

    def __init__(self, low: float = 0.3, patience: int = 3, high: float = 0.5) -> None:
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
