"""OpenCV's trackers as baselines: `opencv:CSRT`, `opencv:KCF`, `opencv:Nano`."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import checkpoints
from checkpoints import WeightsRecord
from media import InputError
from trackers.base import Track, check_box, check_frame
from trackers.boxes import xywh_to_xyxy

PREFIX = "opencv:"
FOLDER_VARIABLE = "MIXCUT_BASELINES"


class OpenCvTracker:
    """One of OpenCV's trackers behind our interface. See `trackers.base.Tracker`.

    OpenCV takes whole pixels and starts anew when corrected: it cannot keep what was learnt. A
    frame in which it reports a failure is lost, at the last box.

    Args:
        create: makes a new OpenCV tracker.
        weights: which files it reads.
        scored: whether it has a score; those that have none answer -1 when asked for it.
    """

    _tracker: Any = None
    _size: tuple[int, int]
    _box: np.ndarray

    def __init__(
        self, create: Callable[[], Any], weights: WeightsRecord, *, scored: bool = False
    ) -> None:
        self._create = create
        self.weights = weights
        self._scored = scored

    def initialize(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """See `Tracker.initialize`."""
        check_frame(frame)
        height, width = frame.shape[:2]
        self._size = height, width
        self._box = check_box(box, self._size).astype(np.float32)
        # Rounded corners; at least a pixel, inside the frame, or OpenCV fails.
        x0, y0 = np.round(self._box[:2]).clip(0, (width - 1, height - 1)).astype(int).tolist()
        x1, y1 = np.round(self._box[2:]).clip((x0 + 1, y0 + 1), (width, height)).astype(int)
        self._tracker = self._create()
        self._tracker.init(_bgr(frame), (x0, y0, int(x1) - x0, int(y1) - y0))

    def track(self, frame: np.ndarray) -> Track:
        """See `Tracker.track`."""
        if self._tracker is None:
            raise RuntimeError("initialize(frame, box) has to come first")
        check_frame(frame, self._size)
        found, box_xywh = self._tracker.update(_bgr(frame))
        if found:
            self._box = xywh_to_xyxy(np.array(box_xywh, np.float32))
        score = float(self._tracker.getTrackingScore()) if self._scored else math.nan
        return Track(self._box, score, lost=not found)

    def correct(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> None:
        """See `Tracker.correct`."""
        self.initialize(frame, box)


def _bgr(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[..., ::-1])


def list_baselines() -> list[str]:
    """Names for `build_baseline`."""
    return [f"{PREFIX}{name}" for name in ("CSRT", "KCF", "Nano")]


def build_baseline(name: str, *, folder: str | Path | None = None) -> OpenCvTracker:
    """Build one of OpenCV's trackers.

    Args:
        name: one of `list_baselines()`.
        folder: where the two files of NanoTrack lie, `*backbone*.onnx` and `*head*.onnx`; None for
            the folder $MIXCUT_BASELINES, or else that of the checkpoints.

    Raises:
        InputError: there is no such tracker, or its files are missing.
    """
    import cv2  # here, so that `import trackers.evaluation` is light

    nano: Any = cv2  # whose stubs leave its parameters out
    if name not in list_baselines():
        raise InputError(f"There is no {name}; there are {', '.join(list_baselines())}.")
    if name == f"{PREFIX}Nano":
        backbone, head = _nano_files(folder)
        parameters = nano.TrackerNano_Params()
        parameters.backbone, parameters.neckhead = str(backbone), str(head)
        digest = hashlib.sha256(backbone.read_bytes() + head.read_bytes()).hexdigest()[:12]
        record = WeightsRecord(f"{backbone.name} and {head.name}", digest)

        def create() -> Any:
            # OpenCV 5 warns twice per tracker that its new engine has no choice of devices.
            level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
            try:
                return nano.TrackerNano.create(parameters)
            finally:
                cv2.utils.logging.setLogLevel(level)

        return OpenCvTracker(create, record, scored=True)
    plain = cv2.TrackerCSRT.create if name == f"{PREFIX}CSRT" else _create_kcf
    return OpenCvTracker(plain, WeightsRecord(f"none, OpenCV {cv2.__version__}", "none"))


def _create_kcf() -> Any:
    """KCF that never gives up, as its paper has it (Henriques et al., TPAMI 2015).

    By default OpenCV's stands still below a response of 0.5, often after a few frames.
    """
    import cv2

    kcf: Any = cv2  # whose stubs leave its parameters out
    parameters = kcf.TrackerKCF_Params()
    parameters.detect_thresh = 0.0
    return kcf.TrackerKCF.create(parameters)


def _nano_files(folder: str | Path | None) -> tuple[Path, Path]:
    place = Path(folder or os.environ.get(FOLDER_VARIABLE) or checkpoints.folder())
    found = [sorted(place.glob(f"*{part}*.onnx")) for part in ("backbone", "head")]
    if any(len(files) != 1 for files in found):
        raise InputError(
            f"NanoTrack needs one *backbone*.onnx and one *head*.onnx in {place}; name another "
            f"folder with --baselines or {FOLDER_VARIABLE}."
        )
    return found[0][0], found[1][0]
