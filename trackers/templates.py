"""When the tracker renews what it believes the target looks like: a state machine, no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Template = TypeVar("Template")


class OnlineTemplates(Generic[Template]):
    """The online-template rule of MixFormer.

    Within an interval the most confident frame above `min_score` is the candidate; when the
    interval ends it becomes an online template and the search starts anew. An interval without such
    a frame brings the first template back: kept from upstream, it undoes a drift the scores have
    noticed. Source: MCG-NJU/MixFormerV2 @ 10414383, the online tracker. With more than one online
    template upstream crashes at the second update; here templates are added until there are `size`,
    then the oldest is replaced, which is what upstream's code sets out to do.

    Args:
        first: the template of the frame the user gave; anything, the rule only hands it around.
        interval: frames from one update to the next.
        size: how many online templates are kept.
        min_score: scores have to exceed this, in [0, 1].
        decay: the best score of the interval fades by this factor in each frame.
    """

    def __init__(
        self,
        first: Template,
        *,
        interval: int,
        size: int = 1,
        min_score: float = 0.5,
        decay: float = 1.0,
    ) -> None:
        self.interval = interval
        self.size = size
        self.min_score = min_score
        self.decay = decay
        self.online: list[Template] = [first]
        self._updates = 0
        self._restart(first)

    def _restart(self, first: Template) -> None:
        self._fallback = self._candidate = first
        self._frames = 0
        self.max_score = -1.0

    def step(self, score: float, make_template: Callable[[], Template]) -> bool:
        """Take note of one tracked frame.

        Args:
            score: confidence of this frame, in [0, 1].
            make_template: makes a template of this frame; called only when it is the best so far.

        Returns:
            Whether `online` has changed.
        """
        self._frames += 1
        self.max_score *= self.decay
        if score > self.min_score and score > self.max_score:
            self._candidate, self.max_score = make_template(), score
        if self._frames % self.interval:
            return False
        self._insert(self._candidate)
        self._candidate, self.max_score = self._fallback, -1.0
        return True

    def correct(self, template: Template) -> None:
        """Take a template the user vouches for: used at once, and what bad intervals go back to."""
        self._insert(template)
        self._restart(template)

    def _insert(self, template: Template) -> None:
        if len(self.online) < self.size:
            self.online.append(template)
        else:
            self.online[self._updates % self.size] = template
            self._updates += 1
