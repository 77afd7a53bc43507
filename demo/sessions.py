"""What the page keeps on the server: each person's video, where they pointed, and their run.

A session is one uploaded video. It is known by a random id that only its own browser holds, and
everything of it lies in a folder of that name, below a folder that is private to this user of the
machine. No gradio here.
"""

from __future__ import annotations

import base64
import getpass
import io
import itertools
import os
import re
import shutil
import stat
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from checkpoints import CheckpointError
from demo.jobs import Job, Jobs
from demo.pipeline import Models, find_mask
from demo.project import Box, ObjectPrompt, Point, Settings, Task, link, object_color
from media import InputError
from media.draw import parse_color
from media.video import Budget, VideoReader, open_video
from segmenters import Embedding
from segmenters.cleanup import mask_box

COLOR = object_color(1)
MAX_SHOWN = 1600  # pixels of the longer side of the picture that is sent to the page


# --------------------------------------------------------------------------------------- pictures


def data_url(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"


def frame_url(frame: np.ndarray) -> str:
    """A frame, RGB uint8 (h, w, 3), as a JPEG the page can show."""
    picture = Image.fromarray(frame)
    picture.thumbnail((MAX_SHOWN, MAX_SHOWN))
    return data_url(picture, "JPEG", quality=88)


def mask_url(mask: np.ndarray, color: str) -> str:
    """A mask, bool (h, w), as a see-through layer: tinted inside, with a solid edge."""
    scale = min(1.0, MAX_SHOWN / max(mask.shape))
    size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    width = 1 + max(size) // 600
    # Beyond the frame counts as outside, so that an object that is cut off has its edge there, too.
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    core = cv2.erode(small, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    layer = Image.fromarray(2 * small - core)  # 0 outside, 1 inside, 2 on the edge
    layer.putpalette([0, 0, 0, *parse_color(color), *parse_color(color)])
    return data_url(layer, "PNG", transparency=bytes((0, 105, 255)), compress_level=1)


# ---------------------------------------------------------------------------------------- session


@dataclass(frozen=True)
class Pointed:
    """Where the user pointed, on one frame."""

    frame: int
    points: tuple[Point, ...] = ()
    box: Box | None = None


@dataclass(frozen=True)
class Found:
    """What the segmenter made of it; the box is the one that would be followed."""

    pointed: Pointed
    mask_url: str
    box: Box | None


class Session:
    """One video that somebody uploaded. Several threads may use it.

    Args:
        folder: for everything of this session; its name is the session's id.
        source: the video, inside `folder`.
        name: what the user calls it.
        models: shared with the other sessions.

    Raises:
        InputError: the source cannot be read as a video, or is larger than `budget`.
    """

    def __init__(
        self, folder: Path, source: Path, name: str, models: Models, budget: Budget
    ) -> None:
        self.id, self.name = folder.name, name
        self.folder, self.source = folder, source
        self.job: Job | None = None
        self.frame_index = 0
        self._models, self._budget = models, budget
        self._steps: list[Pointed] = []  # one for every click, for undo
        self._reader: VideoReader | None = None
        self._frame: tuple[int, np.ndarray] | None = None
        self._embedded: tuple[int, Embedding] | None = None
        self._found: Found | None = None
        self._views = itertools.count(1)
        self._reading = threading.Lock()
        self._looking = threading.Lock()  # apart, so that scrubbing need not wait for the model
        self.touch()
        with open_video(source, budget=budget) as reader:
            self.info = reader.info
            self.frame_count = len(reader)
        self._frame_at(0)

    def touch(self) -> None:
        """Note that somebody uses this session: it is not to be tidied away yet."""
        self.used = time.monotonic()
        files = self.job.files if self.job is not None else []
        for folder in {self.folder, *(file.parent for file in files)}:
            with suppress(OSError):
                os.utime(folder)

    def rest(self) -> None:
        """Let go of whatever can be had again when it is needed."""
        with self._looking, self._reading:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._frame = self._embedded = None

    def _frame_at(self, index: int) -> np.ndarray:
        with self._reading:
            if self._frame is None or self._frame[0] != index:
                if self._reader is None:
                    self._reader = open_video(self.source, budget=self._budget)
                self._frame = index, self._reader[index]
            return self._frame[1]

    # ------------------------------------------------------------------------- what the user does

    @property
    def pointed(self) -> Pointed | None:
        return self._steps[-1] if self._steps else None

    def seek(self, index: int) -> None:
        """Show another frame; one that does not exist becomes the nearest that does."""
        self.frame_index = min(max(index, 0), self.frame_count - 1)

    def point(self, frame: int, x: float, y: float, label: int) -> None:
        """Add a point, label 1 on the object and 0 beside it; on another frame, start over.

        Raises:
            InputError: the first point is not on the object.
        """
        before = self._on(frame)
        if not label and before.box is None and not before.points:
            raise InputError("Click on the object first, then on what does not belong to it.")
        self._step(replace(before, points=(*before.points, (x, y, label))))

    def draw_box(self, frame: int, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a box around the object; it takes the place of an earlier one."""
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        self._step(replace(self._on(frame), box=box))

    def undo(self) -> None:
        """Take back the last click and show the frame of the one before."""
        if self._steps:
            frame = self._steps.pop().frame
            self.seek(self._steps[-1].frame if self._steps else frame)

    def clear(self) -> None:
        self._steps.clear()

    def _on(self, frame: int) -> Pointed:
        return self.pointed if self.pointed and self.pointed.frame == frame else Pointed(frame)

    def _step(self, pointed: Pointed) -> None:
        self._prompt(pointed).check(self.info.size, self.frame_count)
        self._steps.append(pointed)
        try:
            self.find()
        except BaseException:
            self._steps.pop()
            raise
        self.seek(pointed.frame)

    # ---------------------------------------------------------------------------- what comes of it

    @staticmethod
    def _prompt(pointed: Pointed) -> ObjectPrompt:
        return ObjectPrompt(
            id=1, name="object", color=COLOR,
            frame=pointed.frame, points=pointed.points, box=pointed.box,
        )  # fmt: skip

    def prepare(self) -> None:
        """Let the segmenter look at the frame that is shown, so that the first click is quick."""
        with self._looking:
            self._embed(self.frame_index)

    def _embed(self, index: int) -> Embedding:
        if self._embedded is None or self._embedded[0] != index:
            self._embedded = index, self._models.segmenter().encode(self._frame_at(index))
        return self._embedded[1]

    def find(self) -> Found | None:
        """The mask at the place that was pointed at; None if there is none."""
        with self._looking:
            pointed = self.pointed
            if pointed is None:
                return None
            if self._found is None or self._found.pointed != pointed:
                embedding = self._embed(pointed.frame)
                mask = find_mask(self._models.segmenter(), embedding, self._prompt(pointed))
                box = mask_box(mask) if pointed.box is None else pointed.box
                x0, y0, x1, y1 = (0.0,) * 4 if box is None else (float(v) for v in box)
                self._found = Found(
                    pointed,
                    mask_url(mask, COLOR) if mask.any() else "",
                    None if box is None else (x0, y0, x1, y1),
                )
            return self._found

    def view(self) -> dict[str, Any]:
        """What the picture on the page shows."""
        index = self.frame_index
        height, width = self.info.size
        pointed = self.pointed
        here = pointed is not None and pointed.frame == index
        found = self.find() if here else None
        return {
            "frame": frame_url(self._frame_at(index)),
            "index": index, "count": self.frame_count, "width": width, "height": height,
            "mask": found.mask_url if found else "",
            "box": list(found.box) if found and found.box else [],
            "points": [list(p) for p in pointed.points] if here and pointed else [],
            "note": self._note(pointed, found, here),
            "stamp": next(self._views),  # no two alike, so that the page always notices
        }  # fmt: skip

    def _note(self, pointed: Pointed | None, found: Found | None, here: bool) -> str:
        if pointed is None:
            return "Click the object, or drag a box around it."
        if not here:
            return f"You pointed at frame {pointed.frame}. A click here starts over on this frame."
        if found is None or not found.mask_url:
            return "Nothing was found here. Click somewhere else on the object, or drag a box."
        return "Found it. Add points until the colour fits, then press Run."

    def start(self, jobs: Jobs, do: Task, settings: Settings) -> Job:
        """Run the pipeline for what was pointed at.

        Raises:
            InputError: nothing was pointed at, a run is under way, or too many others wait.
        """
        if self.job is not None and self.job.active:
            raise InputError("This video is being worked on; wait for it to end or cancel it.")
        if self.pointed is None:
            raise InputError("Click the object in the picture first.")
        self.job = jobs.submit(
            self.source, self.folder / "results", [self._prompt(self.pointed)],
            replace(settings, do=do), shelves=self.folder.parent, budget=self._budget,
        )  # fmt: skip
        return self.job


# -------------------------------------------------------------------------------------- workspace


@dataclass(frozen=True)
class Options:
    """How the page is run.

    Attributes:
        root: folder for uploads and results, private to this user of the machine.
        keep_hours: how long a video and its results stay after they were last used.
        max_upload_mb: largest file that is taken.
    """

    root: Path
    keep_hours: float = 24.0
    max_upload_mb: int = 2048
    settings: Settings = field(default_factory=Settings)
    budget: Budget = field(default_factory=Budget)

    @classmethod
    def from_environment(cls) -> Options:
        """$MIXCUT_WORK (the folder), $MIXCUT_KEEP_HOURS and $MIXCUT_MAX_UPLOAD_MB.

        Raises:
            InputError: a number is not a number.
        """

        def number(name: str, default: float) -> float:
            text = os.environ.get(name, "")
            try:
                value = float(text) if text else default
            except ValueError:
                value = 0.0
            if not value > 0:  # also refuses nan
                raise InputError(f"{name} is “{text}”; set it to a number above 0.")
            return value

        user = getpass.getuser()
        root = os.environ.get("MIXCUT_WORK") or Path(tempfile.gettempdir()) / f"mixcut-{user}"
        return cls(
            Path(root).absolute(),
            keep_hours=number("MIXCUT_KEEP_HOURS", cls.keep_hours),
            max_upload_mb=int(number("MIXCUT_MAX_UPLOAD_MB", cls.max_upload_mb)),
        )


def private_folder(path: Path) -> Path:
    """Create a folder that only this user can look into, or check that it is one.

    Raises:
        InputError: it belongs to somebody else, is open to others, or cannot be created.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise InputError(
            f"{path} cannot be created ({error.strerror}); set MIXCUT_WORK to another folder."
        ) from error
    if hasattr(os, "getuid") and (
        not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077
    ):
        raise InputError(
            f"{path} is not a folder that only you can open; remove it, or set MIXCUT_WORK to "
            "another one."
        )
    return path


def weights_text(model: object) -> str:
    """Which weights a model holds, in a few words; empty if it does not tell."""
    weights = getattr(model, "weights", "")
    name, sha256 = getattr(weights, "name", str(weights)), getattr(weights, "sha256", None)
    return f"{name}, sha256 {sha256[:12]}" if sha256 else name


class Workspace:
    """All sessions, the models they share, and their jobs.

    Args:
        jobs: the queue; a test may bring one of its own.

    Raises:
        InputError: the root folder cannot be used.
    """

    REST_SECONDS = 1800.0

    def __init__(self, options: Options, jobs: Jobs | None = None) -> None:
        self.options = options
        self.jobs = jobs or Jobs()
        self.models = Models(options.settings)
        self._sessions: dict[str, Session] = {}
        self._root = private_folder(options.root)
        self.sweep()

    def open(self, upload: Path, name: str) -> Session:
        """Begin a session with an uploaded file, which stays where it is.

        Args:
            name: the user's name for the file, for messages only; nothing on disk is called that.

        Raises:
            InputError: the file is no video that can be read.
        """
        folder = self._root / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        suffix = Path(name).suffix.lower()
        source = folder / f"source{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"
        try:
            link(upload, source)
            session = Session(folder, source, name, self.models, self.options.budget)
        except InputError as error:
            shutil.rmtree(folder, ignore_errors=True)
            text = str(error).replace(str(source), name).replace(source.name, name)
            raise InputError(text) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._sessions[session.id] = session
        return session

    def find(self, session_id: str | None) -> Session | None:
        session = self._sessions.get(session_id or "")
        if session is not None:
            session.touch()
        return session

    def leave(self, session: Session) -> None:
        """Its page shows another video now; what it has done stays until it is swept away."""
        if session.job is not None:
            self.jobs.cancel(session.job)
        session.rest()

    def sweep(self) -> None:
        """Remove what nobody has used for `keep_hours`, of this server or an earlier one."""
        for session in list(self._sessions.values()):
            if session.job is not None and session.job.active:
                session.touch()
            elif time.monotonic() - session.used > self.REST_SECONDS:
                session.rest()
        limit = time.time() - self.options.keep_hours * 3600
        for folder in self._root.iterdir():  # sessions, shelves, and Gradio's uploads
            if re.fullmatch(r"[0-9a-f]{32,64}", folder.name) and folder.stat().st_mtime < limit:
                gone = self._sessions.pop(folder.name, None)
                if gone is not None:
                    gone.rest()
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        self.jobs.close()
        for session in self._sessions.values():
            session.rest()

    def models_in_use(self) -> list[tuple[str, str, str]]:
        """(role, name, weights or what is wrong with them) of the models a run would use."""
        settings = self.models.settings
        rows = []
        for role, name, build in (
            ("follow", settings.tracker, self.models.tracker),
            ("cut out", settings.segmenter, self.models.segmenter),
            ("paint away", settings.inpainter, self.models.inpainter),
        ):
            try:
                weights = weights_text(build())
            except (CheckpointError, InputError) as error:
                weights = str(error)
            rows.append((role, name, weights))
        return rows
