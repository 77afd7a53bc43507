"""What the editor on the page is shown of a session, and what it says there."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from demo.editing import Mark, Thing
from demo.pictures import mask_url, outline, soft_edge, survey_url
from inpainting.compositing import hole_of

if TYPE_CHECKING:
    from demo.sessions import Session


class Showing:
    """Makes what the editor shows out of a session. Several threads may ask."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._drawn: tuple[np.ndarray, int | None, str] | None = None  # mask, growth, outline
        # Of this server's views and of a later one's, the newer has the larger number.
        self._stamps = itertools.count(time.time_ns() // 1_000_000)

    def view(self) -> dict[str, Any]:
        """All of it; of two, the one with the larger `stamp` was begun later and holds whatever
        the other does."""
        session, stamp = self._session, next(self._stamps)
        index, document = session.frame_index, session.document
        height, width = session.info.size
        picks, results = session.looker.picks(index), session.results
        shown = [thing for thing in document.things if thing.shown]
        masks = {thing.id: session.mask_at(thing, index) for thing in shown}
        painted = [masks[thing.id] for thing in shown if thing.do == "remove"]
        return {
            "session": session.id, "index": index, "count": session.frame_count,
            "width": width, "height": height, "fps": float(session.info.fps),
            "start": document.start, "stop": document.stop or session.frame_count,
            "things": [self._thing(t, index, masks.get(t.id)) for t in document.things],
            "hole": self._hole([mask for mask in painted if mask is not None]),
            "active": document.active,
            "candidates": self._candidates(index),
            "survey": "" if picks is None else survey_url(picks),
            "undo": session.history.can_undo, "redo": session.history.can_redo,
            "running": session.job is not None and session.job.active,
            "again": session.is_lost(index), "searches": session.searches,
            "looking": session.looker.state(index, session.marks_at(index)),
            "curves": 0 if results is None else results.version,
            "note": self._note(index),
            "stamp": stamp,  # no two alike, so that the page always notices
        }  # fmt: skip

    def _hole(self, masks: Sequence[np.ndarray]) -> str:
        """The outline of what is painted over to make masked things disappear."""
        if not masks:
            return ""
        mask, dilate = np.logical_or.reduce(masks), self._session.settings.dilate
        drawn = self._drawn
        if drawn is None or drawn[1] != dilate or not np.array_equal(drawn[0], mask):
            drawn = self._drawn = mask, dilate, outline(hole_of(mask, dilate)[0])
        return drawn[2]

    def _thing(self, thing: Thing, index: int, mask: np.ndarray | None) -> dict[str, Any]:
        session = self._session
        mark, point = thing.marks.get(index), session.point_at(thing.id, index)
        box = session.find(index, mark).box if mark else (point.box if point else None)
        cut = None if thing.do != "segment" else mask
        return {
            "id": thing.id, "name": thing.name, "color": thing.color, "do": thing.do,
            "shown": thing.shown, "keys": sorted(thing.marks), "key": mark is not None,
            "points": [list(p) for p in mark.points] if mark else [],
            "box": [round(v, 1) for v in box] if box else [],
            "mask": mask_url(mask, thing.color) if mask is not None and mask.any() else "",
            "fade": "" if cut is None else soft_edge(cut, session.settings.feather),
            "lost": bool(point is not None and point.lost and mark is None),
            "score": None if point is None or np.isnan(point.score) else round(point.score, 2),
        }  # fmt: skip

    def _candidates(self, index: int) -> dict[str, int]:
        session = self._session
        mark = session.mark_at(index) if session.document.things else Mark()
        if not mark.points or (mark.box and not mark.mask):
            return {"count": 0, "chosen": 0}
        found = session.find(index, replace(mark, mask="", choice=None))
        chosen: int | None = found.chosen
        if mark.mask:
            chosen = mark.choice
        return {"count": len(found.masks), "chosen": -1 if chosen is None else chosen}

    def _note(self, index: int) -> str:
        session = self._session
        if not session.document.things or not session.active.marks:
            return "Click the object, or drag a box around it."
        if session.job is not None and session.job.active:
            return "A run is under way; what you change now counts for the next one."
        if session.document.imported:
            now = "Press Run" if session.changed else "Undo leads back to pointing"
            return f"These boxes come from a file. {now}."
        thing = session.active
        if index not in thing.marks:
            point = session.point_at(thing.id, index)
            if point is None:
                return f"{thing.name}: pointed at in frame {_listed(thing.marks)}. Press Run."
            if point.lost:
                return f"{thing.name} is lost here. If you can see it, look for it or click it."
            return f"{thing.name}: a click here corrects it from this frame on."
        if session.proposal is not None and session.proposal[0] is session.document:
            sure = f"{100 * session.proposal[1]:.0f} % sure"
            return f"{thing.name} was found here, {sure}. Press Run if it is right, else Undo."
        if session.find(index, thing.marks[index]).box is None:
            return "Nothing was found here. Click somewhere else on the object, or drag a box."
        if session.point_at(thing.id, index) is not None and not session.changed:
            return f"{thing.name} has been followed. Where it is not right, click it."
        return f"{thing.name}: add points until the colour fits, then press Run."


def _listed(frames: Mapping[int, Mark]) -> str:
    *others, last = map(str, sorted(frames))
    return f"{', '.join(others)} and {last}" if others else last
