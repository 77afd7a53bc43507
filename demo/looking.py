"""What is seen of one video: its frames, what a click on one means, where a lost object is.

The models are shared with whoever else uses the page, and hold nothing of any video. Several
threads may look at once; those that only want frames do not wait for the ones with a model.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo.editing import Mark, Thing
from demo.pipeline import Models, find_candidates, look_closer, search, window_of
from demo.project import Box, KeyFrame
from demo.rates import Rates
from media import InputError
from media.masks import load_mask
from media.video import Budget, VideoReader, open_video
from segmenters import Embedding, Segmenter
from segmenters.cleanup import clean_mask, mask_box
from segmenters.everything import find_objects
from trackers import Track

MAX_REMEMBERED = 32  # masks of marks that are kept at hand
SURVEY_SECONDS = 6.0


@dataclass(frozen=True)
class Found:
    """What the segmenter makes of a mark.

    Attributes:
        masks: what may have been meant, from the smallest; one if there is no choice.
        chosen: which of them counts.
        box: the one that is followed: as it was drawn, else around the mask.
        coarse: whether the chosen one is small and has not been looked at closely yet.
    """

    masks: tuple[np.ndarray, ...]
    chosen: int
    box: Box | None
    coarse: bool = False

    @property
    def mask(self) -> np.ndarray:
        return self.masks[self.chosen]


class Looker:
    """Looks at one video.

    Args:
        marks: folder of the masks that were painted or chosen.
        models, rates: shared with the lookers at other videos.
        segmenter: name of the one that answers clicks.

    Raises:
        InputError: the source cannot be read as a video, or is larger than `budget`.
    """

    def __init__(
        self,
        source: Path,
        marks: Path,
        models: Models,
        budget: Budget,
        rates: Rates,
        segmenter: str,
    ) -> None:
        self.surveyed = 0.0  # how much of `survey` is done
        self._source, self._marks = source, marks
        self._models, self._budget, self._rates = models, budget, rates
        self._segmenter = segmenter
        self._reader: VideoReader | None = None
        self._frames: OrderedDict[int, np.ndarray] = OrderedDict()
        self._embedded: tuple[int, Embedding] | None = None
        self._found: OrderedDict[tuple[int, Mark], Found] = OrderedDict()
        self._survey: tuple[int, list[np.ndarray]] | None = None  # of a frame
        self._reading = threading.Lock()
        self._looking = threading.Lock()  # apart, so that scrubbing need not wait for the model
        with open_video(source, budget=budget) as reader:
            self.info = reader.info
            self.count = len(reader)
            self.times = (reader.pts - reader.pts[0]) * float(reader.info.time_base)
        self.frame_at(0)

    def rest(self) -> None:
        """Let go of whatever can be had again when it is needed."""
        with self._looking, self._reading:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._embedded = self._survey = None
            self._frames.clear()
            self._found.clear()

    def frame_at(self, index: int) -> np.ndarray:
        """A frame: RGB uint8 (h, w, 3). Raises InputError if there is none of this number."""
        if not 0 <= index < self.count:
            raise InputError(f"The video has frames 0 to {self.count - 1}.")
        with self._reading:
            if index not in self._frames:
                if self._reader is None:
                    self._reader = open_video(self._source, budget=self._budget)
                self._frames[index] = self._reader[index]
                while len(self._frames) > 2:  # the one that is shown, and the one that is embedded
                    self._frames.popitem(last=False)
            self._frames.move_to_end(index)
            return self._frames[index]

    # ------------------------------------------------------------------------- with the segmenter

    def use(self, segmenter: str) -> None:
        """Let another segmenter look.

        Raises:
            CheckpointError: its weights are missing; nothing has changed.
        """
        self._models.segmenter(segmenter)
        with self._looking:
            self._embedded = self._survey = None
            self._found.clear()
            self._segmenter = segmenter

    def prepare(self, index: int) -> None:
        """Look at a frame, so that the first click on it is quick."""
        with self._looking:
            self._embed(index)

    def state(self, index: int, marks: Iterable[Mark]) -> str:
        """What has still to be done on a frame with these marks: frame, closer, or nothing."""
        if self._embedded is None or self._embedded[0] != index:
            return "frame"
        found = (self._found.get((index, mark)) for mark in marks)
        return "closer" if any(f is not None and f.coarse for f in found) else ""

    def find(self, index: int, mark: Mark) -> Found:
        """The masks that a mark may mean, and the box that would be followed."""
        with self._looking:
            if (index, mark) not in self._found:
                self._found[index, mark] = self._look(index, mark)
                while len(self._found) > MAX_REMEMBERED:
                    self._found.popitem(last=False)
            self._found.move_to_end((index, mark))
            return self._found[index, mark]

    def look_closer(self, index: int, marks: Iterable[Mark]) -> None:
        """Refine the masks of small objects that were pointed at on a frame."""
        for mark in marks:
            found = self.find(index, mark)
            if found.coarse:
                masks = list(found.masks)
                masks[found.chosen] = self.closer(index, mark, found.chosen)
                box = mark.box or as_box(mask_box(masks[found.chosen]))
                with self._looking:
                    self._found[index, mark] = Found(tuple(masks), found.chosen, box)

    def closer(self, index: int, mark: Mark, number: int) -> np.ndarray:
        """The mask of one candidate, looked at closely if it is small."""
        segmenter, key = self._model(), _key(index, mark, self._marks)
        with self._looking:
            candidates, _ = find_candidates(segmenter, self._embed(index), key)
        # This may take as long as a whole frame does; clicks need not wait for it.
        closer, _ = look_closer(segmenter, self.frame_at(index), key, candidates[number])
        return clean_mask(closer.mask)

    def survey(self, index: int, left: Callable[[], bool]) -> None:
        """Find everything on a frame; takes some seconds, for which clicks need not wait.

        Args:
            left: whether somebody looks at another frame by now, which ends it.
        """
        with self._looking:
            if self.picks(index) is not None:
                return
            segmenter, embedding = self._model(), self._embed(index)

        def report(done: int, total: int) -> None:
            self.surveyed = done / total

        self.surveyed = 0.0
        found = find_objects(
            segmenter, embedding, seconds=SURVEY_SECONDS, progress=report, cancelled=left
        )
        if not left():
            self._survey = index, [thing.mask for thing in found[:255]]

    def picks(self, index: int) -> list[np.ndarray] | None:
        """The masks that `survey` has found on a frame, from the largest; None: it has not."""
        survey = self._survey
        return None if survey is None or survey[0] != index else survey[1]

    def _model(self) -> Segmenter:
        return self._models.segmenter(self._segmenter)

    def _embed(self, index: int) -> Embedding:
        if self._embedded is None or self._embedded[0] != index:
            segmenter, frame = self._model(), self.frame_at(index)
            began = time.perf_counter()
            self._embedded = index, segmenter.encode(frame)
            self._rates.learn_look(time.perf_counter() - began)
        return self._embedded[1]

    def _look(self, index: int, mark: Mark) -> Found:
        if mark.mask:
            painted = load_mask(self._marks / mark.mask, size=self.info.size)
            return Found((painted,), 0, as_box(mask_box(painted)))
        key = _key(index, mark, self._marks)
        candidates, best = find_candidates(self._model(), self._embed(index), key)
        masks = tuple(clean_mask(candidate.mask) for candidate in candidates)
        chosen = next(i for i, candidate in enumerate(candidates) if candidate is best)
        box = mark.box or as_box(mask_box(masks[chosen]))
        return Found(masks, chosen, box, coarse=window_of(key, best) is not None)

    # --------------------------------------------------------------------------- with the tracker

    def search(self, index: int, views: Mapping[int, Box], tracker: str) -> Track:
        """Look for an object all over a frame; takes some seconds, for which clicks need not wait.

        Args:
            views: its box on other frames; see `demo.pipeline.search`.
            tracker: name of the one that looks.

        Raises:
            InputError: this tracker cannot.
            CheckpointError: its weights are missing.
        """
        shown = ((self.frame_at(other), box) for other, box in views.items())
        return search(self.frame_at(index), shown, self._models.tracker(tracker))


def as_box(box: np.ndarray | None) -> Box | None:
    if box is None:
        return None
    x0, y0, x1, y1 = (float(v) for v in box)
    return x0, y0, x1, y1


def _key(index: int, mark: Mark, marks: Path) -> KeyFrame:
    return Thing(1, "object", "#ffffff").marked(index, mark).prompt(marks)
