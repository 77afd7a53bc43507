"""What one person has pointed at in a video: objects, key frames, and the way back.

Everything here is a value that is never changed but replaced, which makes undo a list of values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from demo.project import Box, KeyFrame, ObjectPrompt, Point, Task, object_color, object_name
from media import InputError
from media.draw import parse_color

MAX_THINGS = 20
MAX_NAME = 40
MAX_STEPS = 200  # that can be undone
KEPT_STEPS, KEPT_MARKS = 50, 2000  # what of that a later server still knows, each way


@dataclass(frozen=True)
class Mark:
    """How an object was pointed at on one frame.

    Attributes:
        points, box: see `KeyFrame`.
        mask: name of a picture with a mask that was painted or chosen; it counts in their place.
        choice: which of the masks that points and box may mean it is, if it is one of them.
    """

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask: str = ""
    choice: int | None = None


@dataclass(frozen=True)
class Thing:
    """One object on the page.

    Attributes:
        do: what a run does with it.
        shown: whether its mask and box are drawn on the page.
        marks: by frame, in the order in which they were made: it is followed from the first.
    """

    id: int
    name: str
    color: str
    do: Task = "track"
    shown: bool = True
    marks: Mapping[int, Mark] = field(default_factory=dict)

    def marked(self, frame: int, mark: Mark | None) -> Thing:
        """The same with another mark on a frame, or without one."""
        marks = dict(self.marks)
        if mark is None:
            marks.pop(frame, None)
        else:
            marks[frame] = mark
        return replace(self, marks=marks)

    def prompt(self, folder: Path) -> ObjectPrompt:
        """As a run takes it; `folder` is where masks are. There has to be a mark."""
        keys = [_key(frame, mark, folder) for frame, mark in self.marks.items()]
        first, *others = keys
        return ObjectPrompt(
            id=self.id, name=self.name, color=self.color, do=self.do, frame=first.frame,
            points=first.points, box=first.box, mask=first.mask, corrections=tuple(others),
        )  # fmt: skip


def _key(frame: int, mark: Mark, folder: Path) -> KeyFrame:
    if mark.mask:
        return KeyFrame(frame=frame, mask=folder / mark.mask)
    return KeyFrame(frame=frame, points=mark.points, box=mark.box)


@dataclass(frozen=True)
class Document:
    """All objects, which of them is worked on, and the part of the video.

    Attributes:
        active: id of the object that clicks are about; 0 while there is none.
        start, stop: frames start <= i < stop; None = to the end.
        imported: name of a file of tracks or masks that a run takes in place of the marks.
    """

    things: tuple[Thing, ...] = ()
    active: int = 0
    start: int = 0
    stop: int | None = None
    imported: str = ""

    def thing(self, number: int) -> Thing:
        """Raises InputError if there is no such object."""
        for thing in self.things:
            if thing.id == number:
                return thing
        raise InputError("This object is not there any more.")

    def with_thing(self, thing: Thing) -> Document:
        """The same with an object in the place of its namesake, or added; it becomes active."""
        known = any(t.id == thing.id for t in self.things)
        if not known and len(self.things) >= MAX_THINGS:
            raise InputError(f"There are {MAX_THINGS} objects already; run them first.")
        things = tuple(thing if t.id == thing.id else t for t in self.things)
        return replace(self, things=things if known else (*things, thing), active=thing.id)

    def new_thing(self) -> Thing:
        """An object that is not in the document yet; it shares the last one's fate."""
        number = max((t.id for t in self.things), default=0) + 1
        do: Task = self.things[-1].do if self.things else "track"
        return Thing(number, object_name(number), object_color(number), do)

    def without(self, number: int) -> Document:
        things = tuple(t for t in self.things if t.id != number)
        active = self.active if any(t.id == self.active for t in things) else 0
        return replace(self, things=things, active=active or (things[-1].id if things else 0))

    def renamed(self, number: int, name: str) -> Document:
        name = " ".join(name.split())[:MAX_NAME]
        if not name:
            raise InputError("An object needs a name.")
        return self.with_thing(replace(self.thing(number), name=name))

    def recolored(self, number: int, color: str) -> Document:
        parse_color(color)  # refuses what is none
        return self.with_thing(replace(self.thing(number), color=color))

    def fated(self, number: int, do: str) -> Document:
        if do not in get_args(Task):
            raise InputError(f"An object is one of {', '.join(get_args(Task))}, not {do}.")
        return self.with_thing(replace(self.thing(number), do=cast(Task, do)))

    def prompts(self, folder: Path) -> list[ObjectPrompt]:
        """The objects that were pointed at."""
        return [thing.prompt(folder) for thing in self.things if thing.marks]

    def task(self) -> Task:
        """The most that is done to any of them."""
        return max((t.do for t in self.things if t.marks), key=get_args(Task).index)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Document:
        """The inverse of `to_json`, for what this program has written itself."""
        things = []
        for thing in data["things"]:
            marks = {
                int(frame): Mark(
                    tuple(tuple(p) for p in mark["points"]),
                    tuple(mark["box"]) if mark["box"] else None,
                    mark["mask"],
                    mark.get("choice"),
                )
                for frame, mark in thing["marks"].items()
            }
            things.append(Thing(**{**thing, "marks": marks}))
        return cls(**{**data, "things": tuple(things)})


class History:
    """Documents in the order they came about, and where one is among them."""

    def __init__(self, document: Document | None = None) -> None:
        self._past: list[Document] = []
        self.document = document or Document()
        self._future: list[Document] = []

    def to_json(self) -> dict[str, Any]:
        """What lies before and behind the document, so far as it is worth its while to keep."""
        return {"past": _kept(self._past), "future": _kept(self._future)}

    @classmethod
    def from_json(cls, document: Document, data: Mapping[str, Any]) -> History:
        """The inverse of `to_json`, around the document it was about."""
        history = cls(document)
        history._past = [Document.from_json(step) for step in data.get("past", ())]
        history._future = [Document.from_json(step) for step in data.get("future", ())]
        return history

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    def push(self, document: Document) -> None:
        """Go on to another document; what was undone is forgotten."""
        if document == self.document:
            return
        self._past = [*self._past, self.document][-MAX_STEPS:]
        self.document = document
        self._future = []

    def replace(self, document: Document) -> None:
        """Change what is no step of its own, such as which object is active."""
        self.document = document

    def undo(self) -> None:
        if self._past:
            self._future.append(self.document)
            self.document = self._past.pop()

    def redo(self) -> None:
        if self._future:
            self._past.append(self.document)
            self.document = self._future.pop()


def _kept(steps: Sequence[Document]) -> list[dict[str, Any]]:
    """The last of some steps, with at most `KEPT_MARKS` marks together."""
    kept: list[dict[str, Any]] = []
    marks = 0
    for step in reversed(steps[-KEPT_STEPS:]):
        marks += sum(len(thing.marks) for thing in step.things)
        if marks > KEPT_MARKS:
            break
        kept.insert(0, step.to_json())
    return kept
