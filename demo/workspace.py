"""All sessions of a server, the models they share, and their runs; where they lie and how long.

Everything is in one folder that is private to this user of the machine; a server that is started
again finds there what an earlier one has left, and goes on.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from checkpoints import CheckpointError
from demo.bundles import adopt, holds_project, unpack
from demo.jobs import Jobs
from demo.pipeline import Models, choose_models
from demo.project import Settings, link
from demo.rates import Estimate, Rates
from demo.run import STAGES, STAGES_OF
from demo.sessions import RECORD, Session
from media import InputError
from media.video import Budget

MAX_AWAKE = 32  # sessions that have frames and a decoder at hand, about 13 MB each
SEEN = "embeddings"  # what the segmenter has seen of frames, below the root folder

logger = logging.getLogger(__name__)


def _defaults() -> Settings:
    """How runs of the page are done until somebody chooses: with a video to see masks alone."""
    return Settings(do="segment", exports=("matte",))


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
    settings: Settings = field(default_factory=_defaults)
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
    RECORDED = re.compile(r"[0-9a-f]{32}")  # what a session's folder is called

    def __init__(self, options: Options, jobs: Jobs | None = None) -> None:
        self.options = options
        self.jobs = jobs or Jobs()
        self._sessions: dict[str, Session] = {}
        self._root = private_folder(options.root)
        self.models = Models(options.settings, cache=self._root / SEEN)
        self._finding = threading.Lock()
        self._rates = Rates(self._root / "rates.json")
        # Of several servers that share the folder, the first takes up what was interrupted.
        self._lock = FileLock(self._root / ".lock")
        with suppress(Timeout):
            self._lock.acquire(blocking=False)
        self.sweep()
        if self._lock.is_locked:
            self._go_on()

    def _go_on(self) -> None:
        """Take up the runs that were under way when an earlier server ended."""
        for path in sorted(self._root.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime):
            with suppress(OSError, ValueError, KeyError, TypeError):
                job = json.loads(path.read_text(encoding="utf-8"))["job"]
                if job is not None and job["state"] in ("waiting", "running"):
                    self.find(path.parent.name)

    def open(self, upload: Path, name: str) -> Session:
        """Begin a session with an uploaded file, a video or a project, which stays where it is.

        Args:
            name: the user's name for the file, for messages only; nothing on disk is called that.

        Raises:
            InputError: the file is no video that can be read, and no project.
        """
        folder = self._root / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        suffix = Path(name).suffix.lower()
        source = folder / f"source{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"
        options = self.options
        try:
            bundle = None
            if holds_project(upload):
                bundle = unpack(upload, folder, options.max_upload_mb << 20)
                source, name = bundle.source, bundle.name
            elif suffix == ".zip":
                raise InputError(
                    f"{name} is a zip, but no project that was saved here; boxes and masks go to "
                    "“Boxes or masks made before”, once there is a video."
                )
            else:
                link(upload, source)
            session = Session(
                folder, source, name, self.models, options.budget, self._rates, options.settings
            )
            if bundle is not None:
                adopt(session, bundle)
        except InputError as error:
            shutil.rmtree(folder, ignore_errors=True)
            text = str(error).replace(str(source), name).replace(source.name, name)
            raise InputError(text) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._sessions[session.id] = session
        session.save()
        for other in sorted(self._sessions.values(), key=lambda s: s.used)[:-MAX_AWAKE]:
            other.rest()
        return session

    def find(self, session_id: str | None) -> Session | None:
        """A session of this server, or one that an earlier server has left."""
        if not session_id or not self.RECORDED.fullmatch(session_id):
            return None
        with self._finding:
            session = self._sessions.get(session_id)
            if session is None and (self._root / session_id / RECORD).is_file():
                try:
                    session = self._sessions[session_id] = Session.restore(
                        self._root / session_id,
                        self.models,
                        self.jobs,
                        self.options.budget,
                        self._rates,
                        self.options.settings,
                    )
                except (InputError, OSError, KeyError, TypeError, ValueError):
                    logger.exception("A project cannot be opened.")
        if session is not None:
            session.touch()
        return session

    def estimate(self, session: Session) -> Estimate | None:
        """What the run that is asked for now will take; None while there is nothing to run."""
        document = session.document
        if not session.ready:
            return None
        frames = (document.stop or session.frame_count) - document.start
        settings = choose_models(session.settings)
        return self._rates.estimate(document.task(), frames, session.info.size, settings)

    def seconds_left(self, session: Session) -> float | None:
        """Until its run is done; None before there is something to go by."""
        job = session.job
        if job is None or not job.active:
            return None
        progress = job.progress
        left = progress.seconds_left
        stages = [*STAGES[: STAGES_OF[job.task]], *(f"export {name}" for name in job.exports)]
        if left is None or progress.stage not in stages:
            return None
        settings = choose_models(session.settings)
        later = [
            self._rates.of(stage, session.info.size, settings)
            for stage in stages[stages.index(progress.stage) + 1 :]
        ]
        return left + progress.total * sum(seconds or 0.0 for seconds in later)

    def sweep(self) -> None:
        """Remove what nobody has used for `keep_hours`, of this server or an earlier one."""
        for session in list(self._sessions.values()):
            job = session.job
            if job is not None and job.active and not job.pause.is_set():
                session.touch()
            elif time.monotonic() - session.used > self.REST_SECONDS:
                session.rest()
        limit = time.time() - self.options.keep_hours * 3600
        for folder in self._root.iterdir():  # sessions, shelves, and Gradio's uploads
            if re.fullmatch(r"[0-9a-f]{32,64}", folder.name) and folder.stat().st_mtime < limit:
                gone = self._sessions.pop(folder.name, None)
                if gone is not None:
                    if gone.job is not None:  # paused, and forgotten
                        self.jobs.cancel(gone.job)
                    gone.rest()
                shutil.rmtree(folder, ignore_errors=True)
        for file in (self._root / SEEN).glob("*"):
            with suppress(OSError):
                if file.stat().st_mtime < limit:
                    file.unlink()

    def close(self) -> None:
        """End the runs; the next server takes them up."""
        for session in self._sessions.values():
            session.freeze()
        self.jobs.close()
        self._lock.release()
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
