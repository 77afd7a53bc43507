"""What every data set offers, and the registry that opens one by its name."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from collections.abc import Sequence as Series
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import numpy as np

from media import InputError
from trackers.datasets.archives import as_folder
from trackers.datasets.files import read_frame, read_names

# How results are scored; see `trackers.evaluation.metrics.PROTOCOLS`.
Scoring = Literal["otb", "lasot", "uav", "got10k", "folder"]


@dataclass(frozen=True)
class Sequence:
    """The frames of one video and the box of one object in them; reads frames when asked.

    Attributes:
        name: unique in its data set.
        frames: (n) picture files in order.
        boxes_xywh: float64 (n, 4) left, top, width, height in pixels, as in the data set's files;
            nan or an area of 0 where the object is absent.
        shown: bool (n,), False where the data set's own labels say that nothing is to be seen of
            the object; None where it has no such labels.
        size: (height, width) of the frames, where the data set's own files tell it.
        hidden: only the data set's server knows the boxes; `boxes_xywh` is the first one, (1, 4).

    Raises:
        InputError: there is no frame, the numbers of boxes and frames differ, or the first box is
            empty.
    """

    name: str
    frames: tuple[Path, ...]
    boxes_xywh: np.ndarray
    shown: np.ndarray | None = None
    size: tuple[int, int] | None = None
    hidden: bool = False
    visible: np.ndarray = field(init=False)  # bool, one per box: it has an area, and is shown

    def __post_init__(self) -> None:
        n, boxes = len(self.frames), len(self.boxes_xywh)
        if n == 0:
            raise InputError(f"The sequence {self.name} has no frames.")
        if boxes != (1 if self.hidden else n):
            wanted = "the first box only is" if self.hidden else "one line per frame is"
            raise InputError(
                f"The sequence {self.name} has {n} frames but {boxes} lines of ground truth; "
                f"{wanted} expected."
            )
        visible = np.logical_and(*(self.boxes_xywh[:, 2:] > 0).T)
        if not visible[0]:
            raise InputError(
                f"The sequence {self.name} begins with an empty box, so there is nothing to follow."
            )
        if self.shown is not None:
            if len(self.shown) != boxes:
                raise InputError(
                    f"The sequence {self.name} has {boxes} boxes, but labels of what can be seen "
                    f"for {len(self.shown)} frames."
                )
            visible &= self.shown
        object.__setattr__(self, "visible", visible)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        """Read frame `index`: (h, w, 3) RGB uint8. Raises InputError if the file is damaged."""
        return read_frame(self.frames[index])


class Dataset(ABC):
    """Sequences by name. A file in this package describes one data set, or several alike.

    Args:
        root: the folder of the data set, as its authors lay it out.
        split: one of `splits`.
        names: which sequences, in this order; None for all.
    """

    title: str  # as people write it
    layout: ClassVar[str]  # what `root` looks like, in a few words
    scoring: ClassVar[Scoring]
    splits: ClassVar[tuple[str, ...]] = ("all",)
    hidden_split: ClassVar[str | None] = None  # whose boxes only the data set's server knows
    key: ClassVar[str]  # its name in `list_datasets()`; set by `register`

    def __init__(self, root: Path, split: str, names: Series[str] | None = None) -> None:
        self.root = root
        self.split = split
        known = self.find_names()
        if not known:
            raise InputError(
                f"{root} holds no sequence of {self.title}: {self.layout} is expected."
            )
        unknown = sorted(set(names or ()) - set(known))
        if unknown:
            raise InputError(
                f"There is no sequence {unknown[0]} in the {split} split of {self.title}."
            )
        self.names = tuple(known if names is None else dict.fromkeys(names))

    @property
    def hidden(self) -> bool:
        """Whether only the data set's server can score this split."""
        return self.split == self.hidden_split

    @abstractmethod
    def find_names(self) -> Collection[str]:
        """The names of all sequences of this split, in order."""

    @abstractmethod
    def __getitem__(self, name: str) -> Sequence:
        """The sequence of that name.

        Raises:
            InputError: its files are missing or do not fit together.
        """

    def __len__(self) -> int:
        return len(self.names)


Class = TypeVar("Class", bound=type[Dataset])
_registry: dict[str, type[Dataset]] = {}


def register(key: str) -> Callable[[Class], Class]:
    """Register the class below the decorator for `open_dataset`."""

    def add(dataset: Class) -> Class:
        dataset.key = key
        _registry[key] = dataset
        return dataset

    return add


def list_datasets() -> list[str]:
    """Names for `open_dataset`, sorted."""
    package = importlib.import_module("trackers.datasets")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"trackers.datasets.{module.name}")
    return sorted(_registry)


def dataset_class(name: str) -> type[Dataset]:
    """The class behind a name. Raises InputError if there is no such data set."""
    names = list_datasets()
    if name not in names:
        raise InputError(f"There is no data set called {name!r}; there are {', '.join(names)}.")
    return _registry[name]


def open_dataset(
    name: str, root: str | Path, *, split: str | None = None, sequences: str | Path | None = None
) -> Dataset:
    """Open a data set where it lies.

    Args:
        name: one of `list_datasets()`.
        root: its folder, as its authors lay it out, or a zip file or LMDB that holds the same.
        split: which part; None for the one results are published on, the first of its `splits`.
        sequences: a text file with one name per line, to use only these.

    Raises:
        InputError: there is no such data set, split, folder or sequence.
    """
    cls = dataset_class(name)
    if split is not None and split not in cls.splits:
        raise InputError(f"{cls.title} has no split {split!r}; there are {', '.join(cls.splits)}.")
    try:
        folder = as_folder(root)
    except InputError as error:
        raise InputError(f"{error} Give the one that holds {cls.title}.") from error
    names = None if sequences is None else read_names(Path(sequences))
    return cls(folder, split or cls.splits[0], names)
