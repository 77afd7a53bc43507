"""What a run has left to be looked at: boxes, masks, and how far they are to be trusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demo.editing import Thing
from demo.imports import read_tracks_json
from demo.project import object_masks


class Shelf:
    """The folder in which `demo.jobs.publish` has laid out a run; nothing in it changes any more.

    Args:
        size: (height, width) of the video.

    Attributes:
        tracks: the boxes.
        version: tells it apart from the shelf of another run.

    Raises:
        OSError, KeyError, ValueError: something is missing in it.
    """

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.folder = folder
        self.tracks = read_tracks_json(folder / "tracks.json")
        self.version = (folder / "run.json").stat().st_mtime_ns // 1_000_000
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        most = record["settings"]["do"]
        cut = [o["id"] for o in record["objects"] if "track" not in (most, o["do"])]
        self._masks = object_masks(folder / "masks", cut, size)
        self._doubts: dict[str, list[int]] = record["doubtful"]

    def mask(self, number: int, frame: int) -> np.ndarray | None:
        """An object's mask on a frame, bool (h, w); None if there is none."""
        masks = self._masks.get(number)
        return masks[frame] if masks is not None and masks.file(frame).exists() else None

    def curves(self, things: Sequence[Thing], frame_count: int) -> dict[str, Any]:
        """For the timeline, per object: score per frame (null without one), where it is lost, and
        frames whose mask is doubtful."""
        return {"things": [self._curve(thing, frame_count) for thing in things]}

    def _curve(self, thing: Thing, frame_count: int) -> dict[str, Any]:
        points = [self.tracks.at(index).get(thing.id) for index in range(frame_count)]
        scores = (None if p is None or np.isnan(p.score) else round(p.score, 3) for p in points)
        return {
            "id": thing.id, "scores": list(scores),
            "lost": [p is not None and p.lost for p in points],
            "doubtful": self._doubts.get(str(thing.id), []) if thing.do != "track" else [],
        }  # fmt: skip
