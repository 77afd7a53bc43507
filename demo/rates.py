"""How long runs take on this computer, learnt from those that are over."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from demo.project import Task, write_json
from demo.run import STAGES, STAGES_OF, Result


class Rates:
    """Seconds that each stage has taken for a frame on this computer, to tell what a run will take.

    Args:
        path: where they are kept from one server to the next.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seconds: dict[str, float] = {}
        if path is not None:
            with suppress(OSError, ValueError, TypeError):
                self._seconds = dict(json.loads(path.read_text(encoding="utf-8")))

    def learn(self, result: Result) -> None:
        """Take note of a run, as far as it did its stages anew."""
        frames = result.frames
        for stage, seconds in result.seconds.items():
            if frames >= 10:  # less is mostly the time that models take to load
                before = self._seconds.get(stage, seconds / frames)
                self._seconds[stage] = 0.5 * before + 0.5 * seconds / frames
        if self._path is not None:
            with suppress(OSError):
                write_json(self._path, self._seconds)

    def seconds(self, task: Task, frames: int) -> float | None:
        """Of a whole run; None before there has been one that did as much."""
        stages = STAGES[: STAGES_OF[task]]
        if not all(stage in self._seconds for stage in stages):
            return None
        return frames * sum(self._seconds[stage] for stage in stages)
