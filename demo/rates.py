"""What runs take on this computer, learnt from those that are over."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import inpainting
from demo.project import Settings, Task, write_json
from demo.run import STAGES, STAGES_OF, Result

# Seconds of a stage for a frame (those that draw: for a million pixels), in those in which the
# segmenter looks at one, until there has been a run; and megabytes of a run's process and bytes for
# each pixel of a frame. Measured on two cores of an AMD EPYC with the default models, at 854x480
# and 1920x1080.
LOOKS = {"follow": 0.2, "draw boxes": 0.1, "cut out": 1.2, "draw masks": 0.1}
MEMORY: dict[Task, tuple[int, int]] = {
    "track": (900, 95), "segment": (1010, 90), "remove": (1800, 90),
}  # fmt: skip

REMEMBERED = 0.03  # seconds; what takes less was no new look


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: None where there is nothing to go by.
        memory: bytes of the run's process.
        free: bytes that are free now; None where the system does not tell.
    """

    frames: int
    seconds: float | None
    memory: float
    free: float | None = None


class Rates:
    """Seconds that each stage has taken for a frame on this computer, to tell what a run will take.

    Args:
        path: where they are kept from one server to the next.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seconds: dict[str, float] = {}
        self._look: float | None = None
        if path is not None:
            with suppress(OSError, ValueError, TypeError):
                self._seconds = dict(json.loads(path.read_text(encoding="utf-8")))

    def learn(self, result: Result, settings: Settings) -> None:
        """Take note of a run, as far as it did its stages anew."""
        frames = result.frames
        for name, seconds in result.seconds.items():
            stage = _key(name, settings)
            if frames >= 10:  # less is mostly the time that models take to load
                rate = seconds / frames / _amount(stage, result.pixels)
                self._seconds[stage] = 0.5 * self._seconds.get(stage, rate) + 0.5 * rate
        if self._path is not None:
            with suppress(OSError):
                write_json(self._path, self._seconds)

    def learn_look(self, seconds: float) -> None:
        """Take note of how long the segmenter has looked at a frame that was new to it."""
        if seconds > REMEMBERED:
            self._look = min(seconds, self._look or seconds)

    def of(self, stage: str, size: tuple[int, int], settings: Settings) -> float | None:
        """Seconds of a stage for a frame of `size` (height, width); None with nothing to go by."""
        amount = _amount(stage, size[0] * size[1])
        if (key := _key(stage, settings)) in self._seconds:
            return self._seconds[key] * amount
        if stage == "paint away":
            painting = _painting(settings, size, frames=100).seconds
            return None if painting is None else painting / 100 / (os.cpu_count() or 1)
        if stage not in LOOKS or self._look is None:
            return None
        return LOOKS[stage] * self._look * amount

    def estimate(
        self, task: Task, frames: int, size: tuple[int, int], settings: Settings
    ) -> Estimate:
        """What a whole run will take.

        Args:
            size: (height, width) of the frames.
            settings: with the models' own names.
        """
        found = [self.of(stage, size, settings) for stage in STAGES[: STAGES_OF[task]]]
        known = [seconds for seconds in found if seconds is not None]
        base, a_pixel = MEMORY[task]
        memory = base * 2.0**20 + a_pixel * size[0] * size[1]
        if task == "remove":
            memory += _painting(settings, size, frames).memory or 0
        seconds = frames * sum(known) if len(known) == len(found) else None
        return Estimate(frames, seconds, memory, free_memory())


def _key(stage: str, settings: Settings) -> str:
    """What a stage is remembered by: painting takes so different a time with each inpainter."""
    if stage != "paint away":
        return stage
    return f"{stage}, {settings.inpainter} at {settings.resolution or 'its own size'}"


def _painting(settings: Settings, size: tuple[int, int], frames: int) -> inpainting.Estimate:
    return inpainting.estimate(
        settings.inpainter, size=size, length=frames, device=settings.device,
        resolution=settings.resolution,
    )  # fmt: skip


def _amount(stage: str, pixels: int) -> float:
    """What a stage's time grows with: networks see every frame at one size, videos are written."""
    return pixels / 1e6 if stage.startswith(("draw", "export")) else 1.0


def free_memory() -> float | None:
    """Bytes that programs may still take here; None where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return None if found is None else 1024.0 * int(found[1])
