"""Where samples come from: packed shards, and the data sets of `trackers.datasets`."""

from __future__ import annotations

import os
import re
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from checkpoints.training.pictures import decode
from checkpoints.training.shards import Row, is_inside, read_shards
from media import InputError
from trackers.datasets import Dataset, dataset_class, list_datasets, open_dataset
from trackers.datasets.coco import open_coco
from trackers.training.data.config import DataConfig, SourceConfig

PACKED = ("stills", "tracks", "clips")  # kinds of sources that are packed shards
_OPEN = 256  # sequences whose labels a process remembers
_FEWEST_FRAMES = 20  # of a video
_FEWEST_VISIBLE = 7  # of them with the object: more than 2 * (1 search + 2 templates)
_LOOKED_AT = 8  # pictures of packed shards, or sequences, of which one has to be right
_HELD_OUT = 20  # one in so many videos or pictures of packed shards is for validation


@dataclass(frozen=True)
class Info:
    """One object through its video, or in its picture.

    Attributes:
        boxes_xywh: float64 (n, 4) left, top, width, height in pixels, one per frame; nan or
            without an area where the object is absent.
        visible: bool (n,): something of it is to be seen.
        unknown: bool (n,): nobody knows whether it is to be seen; None for nowhere.
    """

    boxes_xywh: np.ndarray
    visible: np.ndarray
    unknown: np.ndarray | None = None

    @property
    def is_enough(self) -> bool:
        """Whether a video shows enough of the object.

        Source: MCG-NJU/MixFormerV2 @ 10414383, the sampler's test of a sequence.
        """
        return len(self.visible) >= _FEWEST_FRAMES and len(self.visible_frames) >= _FEWEST_VISIBLE

    @cached_property
    def visible_frames(self) -> np.ndarray:
        """int64, ascending: where it is to be seen."""
        return np.flatnonzero(self.visible)

    @cached_property
    def absent_frames(self) -> np.ndarray:
        """int64, ascending: where it is known not to be."""
        known = True if self.unknown is None else ~self.unknown
        return np.flatnonzero(~self.visible & known)


class Source(ABC):
    """Objects by number, each with its frames; safe to hand to worker processes."""

    is_video: ClassVar[bool]
    name: str
    chances: np.ndarray | None = None  # float (n,), cumulative up to 1; None for all alike

    @abstractmethod
    def __len__(self) -> int:
        """How many objects there are."""

    @abstractmethod
    def info(self, index: int) -> Info:
        """Where object `index` is. Raises InputError if its files do not fit together."""

    @abstractmethod
    def picture(self, index: int, frame: int) -> int | Path:
        """What stands for the picture of that frame; the same for all objects in it."""

    @abstractmethod
    def group(self, index: int) -> int:
        """A number that objects share when one may be seen in the pictures of the other."""

    @abstractmethod
    def encoded(self, picture: int | Path) -> bytes:
        """The picture's file. Raises InputError if it cannot be read."""

    def image(self, index: int, frame: int) -> np.ndarray:
        """The picture of that frame: (h, w, 3) RGB uint8. Raises InputError if it is damaged."""
        return decode(self.encoded(self.picture(index, frame)), self.describe(index, frame))

    def describe(self, index: int, frame: int) -> str:
        """The picture of that frame in words, for messages."""
        return f"frame {frame} of {self.name}, object {index}"

    def choose(self, rng: np.random.Generator) -> int:
        """Draw an object."""
        if self.chances is None:
            return int(rng.integers(len(self)))
        return int(np.searchsorted(self.chances, rng.random(), side="right"))


class Packed(Source):
    """What the two readers of packed shards share: their pictures.

    Attributes:
        rows: the pictures; `picture` returns a position in this list.
    """

    rows: list[Row]

    def __init__(self, config: SourceConfig) -> None:
        self.name = config.path
        self._split = config.split
        if self._split not in (None, "train", "val"):
            raise InputError(f"Packed shards have no split {self._split!r}; there are train, val.")

    def encoded(self, picture: int | Path) -> bytes:
        """See `Source.encoded`."""
        assert isinstance(picture, int)
        return self.rows[picture].encoded()

    def describe(self, index: int, frame: int) -> str:
        """See `Source.describe`."""
        position = self.picture(index, frame)
        assert isinstance(position, int)
        row = self.rows[position]
        return f"the picture at byte {row.offset} of {row.file}"

    def _keeps(self, name: str) -> bool:
        held_out = zlib.crc32(os.fsencode(name)) % _HELD_OUT == 0
        return self._split is None or held_out == (self._split == "val")

    def _require_items(self, what: str, config: SourceConfig) -> None:
        """Shards without anything to draw, or that are no pictures at all, show at once."""
        if not len(self):
            part = "" if self._split is None else f", split {self._split},"
            raise InputError(f"{config.path}{part} holds no {what} that can be used.")
        reasons = []
        for row in self.rows[:_LOOKED_AT]:
            try:
                size = decode(
                    row.encoded(), f"the picture at byte {row.offset} of {row.file}"
                ).shape
            except InputError as error:
                reasons.append(str(error))
                continue
            if size[:2] == row.size:
                return
            reasons.append(f"{row.file.name} does not fit to the .jsonl file beside it.")
        raise InputError(f"None of the first pictures in {config.path} can be used. {reasons[0]}")


class Stills(Packed):
    """Every labelled object of packed shards, each in its one picture."""

    is_video = False

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config)
        self.rows, owners, boxes, names = [], [], [], []
        self._groups: list[int] = []  # of each picture
        videos: dict[str, int] = {}
        for number, row in enumerate(read_shards(Path(config.path))):
            # Pictures of a video look alike: they are held out together.
            if not self._keeps(row.video or f"{row.file.stem}/{number}"):
                continue
            own = len(self.rows)
            large = [o.box_xywh for o in row.objects if min(o.box_xywh[2:]) >= config.min_side]
            if not large:
                continue
            owners += [own] * len(large)
            boxes += large
            names += [row.video or ""] * len(large)
            self._groups.append(own if row.video is None else videos.setdefault(row.video, own))
            self.rows.append(row)
        self._owners = np.array(owners, np.int64)
        self._boxes = np.array(boxes, np.float64).reshape(-1, 1, 4)
        self._require_items("object", config)
        self.chances = _chances(names, config.emphasis)

    def __len__(self) -> int:
        return len(self._owners)

    def info(self, index: int) -> Info:
        """See `Source.info`."""
        return Info(self._boxes[index], np.ones(1, bool))

    def picture(self, index: int, frame: int) -> int:
        """See `Source.picture`."""
        return int(self._owners[index])

    def group(self, index: int) -> int:
        """See `Source.group`."""
        return self._groups[self.picture(index, 0)]


class Tracks(Packed):
    """The objects with an id in the videos of packed shards."""

    is_video = True

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config)
        videos: dict[str, list[Row]] = {}
        for row in read_shards(Path(config.path)):
            if row.video is not None and self._keeps(_film(row)):
                videos.setdefault(row.video, []).append(row)
        self.rows, names = [], []
        self._first: list[int] = []  # row of the track's first frame
        self._infos: list[Info] = []
        for name, rows in videos.items():
            rows.sort(key=lambda row: row.frame or 0)
            partial = np.array([row.partial for row in rows])
            first = len(self.rows)
            for boxes in _tracks(rows).values():
                visible = np.isfinite(boxes[:, 2])
                side = np.median(boxes[visible, 2:].min(axis=1))
                info = Info(boxes, visible, partial & ~visible)
                if info.is_enough and side >= config.min_side:
                    self._first.append(first)
                    self._infos.append(info)
                    names.append(name)
            if first in self._first[-1:]:
                self.rows.extend(rows)
        self._require_items(f"track of {_FEWEST_FRAMES} frames or more", config)
        self.chances = _chances(names, config.emphasis)

    def __len__(self) -> int:
        return len(self._first)

    def info(self, index: int) -> Info:
        """See `Source.info`."""
        return self._infos[index]

    def picture(self, index: int, frame: int) -> int:
        """See `Source.picture`."""
        return self._first[index] + frame

    def group(self, index: int) -> int:
        """See `Source.group`."""
        return self._first[index]


def _film(row: Row) -> str:
    """What a row's video is a part of, if of anything: parts look alike and are held out together.

    Videos without labels are packed in parts, and so are their names.
    """
    assert row.video is not None
    return row.source if row.partial and row.source else row.video


def _tracks(rows: Sequence[Row]) -> dict[int | str, np.ndarray]:
    """Boxes (n, 4) of each object with an id in the n frames of a video, nan where it is absent."""
    tracks: dict[int | str, np.ndarray] = {}
    for frame, row in enumerate(rows):
        for labelled in row.objects:
            if labelled.id is not None:
                boxes = tracks.setdefault(labelled.id, np.full((len(rows), 4), np.nan))
                boxes[frame] = labelled.box_xywh
    return tracks


def open_labelled(
    kind: str, root: str | Path, split: str | None, sequences: str | None = None
) -> Dataset:
    """A data set of `trackers.datasets` whose boxes are known; None for its split for training.

    Raises:
        InputError: it cannot be opened, or its boxes are kept from everybody.
    """
    splits = dataset_class(kind).splits
    chosen = split or ("train" if "train" in splits else splits[0])
    dataset = open_dataset(kind, root, split=chosen, sequences=sequences)
    if dataset.hidden:
        raise InputError(f"Nobody but its server knows the boxes of {dataset.title}, {chosen}.")
    return dataset


class Sequences(Source):
    """The sequences of a data set of `trackers.datasets`."""

    is_video = True

    def __init__(self, config: SourceConfig) -> None:
        self._dataset = open_labelled(config.kind, config.path, config.split, config.sequences)
        self.name = f"{self._dataset.title} in {config.path}"
        self.chances = _chances(self._dataset.names, config.emphasis)
        self._recent: OrderedDict[int, tuple[Info, tuple[Path, ...]]] = OrderedDict()
        self._check()

    def _check(self) -> None:
        """Wrong folders show now rather than when the first sample is drawn."""
        reasons = []
        for index in range(min(_LOOKED_AT, len(self))):
            try:
                return self._check_first(index)
            except InputError as error:
                reasons.append(error)
        raise reasons[0]

    def _check_first(self, index: int) -> None:
        info = self.info(index)
        if not len(info.visible_frames):
            raise InputError(f"{self._dataset.names[index]} never shows its object.")
        frame = int(info.visible_frames[0])
        box, size = info.boxes_xywh[frame], self.image(index, frame).shape[:2]
        if not is_inside(box, size):
            raise InputError(
                f"The first box of {self._dataset.names[index]}, {box.tolist()}, lies outside of "
                f"its frame, {size[1]} x {size[0]}; frames and boxes do not fit together."
            )

    def __len__(self) -> int:
        return len(self._dataset)

    def _open(self, index: int) -> tuple[Info, tuple[Path, ...]]:
        if index in self._recent:
            self._recent.move_to_end(index)
            return self._recent[index]
        name = self._dataset.names[index]
        try:
            sequence = self._dataset[name]
        except OSError as error:
            raise InputError(f"The sequence {name} cannot be read: {error}.") from error
        found = Info(sequence.boxes_xywh, sequence.visible), sequence.frames
        self._recent[index] = found
        if len(self._recent) > _OPEN:
            self._recent.popitem(last=False)
        return found

    def info(self, index: int) -> Info:
        """See `Source.info`."""
        return self._open(index)[0]

    def picture(self, index: int, frame: int) -> Path:
        """See `Source.picture`."""
        return self._open(index)[1][frame]

    def group(self, index: int) -> int:
        """See `Source.group`."""
        return index

    def encoded(self, picture: int | Path) -> bytes:
        """See `Source.encoded`."""
        return _read(picture)

    def describe(self, index: int, frame: int) -> str:
        """See `Source.describe`."""
        return f"the frame {self.picture(index, frame)}"


class CocoPhotographs(Source):
    """The objects of COCO, each in its one picture."""

    is_video = False

    def __init__(self, config: SourceConfig) -> None:
        self.name = f"COCO in {config.path}"
        self._coco = open_coco(Path(config.path), config.split or "train2017")
        if config.emphasis:
            raise InputError("The photographs of COCO have no names for an emphasis to match.")
        big = self._coco.boxes_xywh[:, 2:].min(axis=1) >= config.min_side
        self._used = np.flatnonzero(big)
        if not len(self._used):
            raise InputError(f"{config.path} holds no object of {config.min_side} pixels or more.")
        self.image(0, 0)

    def __len__(self) -> int:
        return len(self._used)

    def info(self, index: int) -> Info:
        """See `Source.info`."""
        return Info(self._coco.boxes_xywh[self._used[index]][None], np.ones(1, bool))

    def picture(self, index: int, frame: int) -> Path:
        """See `Source.picture`."""
        return self._coco.files[self.group(index)]

    def group(self, index: int) -> int:
        """See `Source.group`."""
        return int(self._coco.images[self._used[index]])

    def encoded(self, picture: int | Path) -> bytes:
        """See `Source.encoded`."""
        return _read(picture)

    def describe(self, index: int, frame: int) -> str:
        """See `Source.describe`."""
        return f"the picture {self.picture(index, frame)}"


def _read(path: int | Path) -> bytes:
    assert not isinstance(path, int)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The picture {path} cannot be read: {error.strerror}.") from error


def _chances(names: Sequence[str], emphasis: Mapping[str, float]) -> np.ndarray | None:
    """Cumulative chances of items by the first pattern that their name matches."""
    if not emphasis:
        return None
    weights = np.array(
        [next((w for p, w in emphasis.items() if fnmatch(name, p)), 1.0) for name in names]
    )
    if not weights.sum() > 0:
        raise InputError("The emphasis given leaves nothing to draw from.")
    total = np.cumsum(weights)
    return total / total[-1]


_KINDS: dict[str, Callable[[SourceConfig], Source]] = {
    "stills": Stills,
    "tracks": Tracks,
    "clips": Tracks,  # a name of its own, so that a recipe can weigh them by themselves
    "coco": CocoPhotographs,
}


LAYOUTS = {
    "stills": "shards of pictures and their objects: NAME.bin with NAME.jsonl",
    "tracks": "shards of videos with followed objects, also of a packed data set: the same",
    "clips": "shards of videos without labels, regions followed by flow: the same",
    "coco": "COCO 2017: train2017/*.jpg with annotations/instances_train2017.json, or zip files",
}
"""What the kinds that are not in `list_datasets()` look like, in a few words."""


def list_kinds() -> list[str]:
    """What `SourceConfig.kind` may be."""
    return [*_KINDS, *list_datasets()]


def find_sources(text: str) -> list[tuple[str, str]]:
    """Kind and folder of each source that words of a command line name.

    Args:
        text: KIND=PATH; or a folder, if it is called like a kind, as `/data/GOT-10k`, holds packed
            shards, or holds such folders.

    Raises:
        InputError: it is none of these.
    """
    kind, equals, path = text.partition("=")
    if equals and path:
        return [(kind, path)]
    folder = Path(text)
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for folders in ([folder], inside):
        kinds = [(_kind_of(path), str(path)) for path in folders if path.is_dir()]
        if found := [(kind, path) for kind, path in kinds if kind is not None]:
            return found
    missing = "" if folder.is_dir() else ", and there is no folder of that name"
    raise InputError(
        f"--data takes KIND=PATH such as stills=DIR, not {text!r}{missing}; or a folder that holds "
        "packed shards, or whose name, or those of the folders in it, are kinds (see list)."
    )


def _kind_of(folder: Path) -> str | None:
    called = {re.sub(r"[\W_]", "", kind): kind for kind in list_kinds()}
    kind = called.get(re.sub(r"[\W_]", "", folder.absolute().name.lower()))
    if next(folder.glob("*.jsonl"), None) is None:
        return kind
    if kind in PACKED:
        return kind
    labelled = next((row.objects[0] for row in read_shards(folder) if row.objects), None)
    return "stills" if labelled is None or labelled.id is None else "tracks"


def open_sources(config: DataConfig) -> list[Source]:
    """Open every source of the configuration.

    Raises:
        InputError: one cannot be used; says which and why.
    """
    known = list_kinds()
    for each in config.sources:
        if each.kind not in known:
            raise InputError(
                f"Nothing is known of data of the kind {each.kind!r}; there are {', '.join(known)}."
            )
        if each.kind in _KINDS and each.sequences is not None:
            raise InputError(f"No sequences can be chosen from {each.path}, of kind {each.kind}.")
        if each.kind not in _KINDS and each.min_side:
            raise InputError(f"min_side is for packed shards and coco, not for {each.kind}.")
    return [_KINDS.get(each.kind, Sequences)(each) for each in config.sources]
