"""Where the files lie, whether they are whole, and how a missing one gets there."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from checkpoints.errors import CheckpointError, UsageError
from checkpoints.formats import FormatError, oddity, weight_kind
from checkpoints.registry import CHECKPOINTS, Checkpoint
from checkpoints.sources import Source, SourceError

logger = logging.getLogger(__name__)

State = Literal["bundled", "present", "damaged", "missing"]
_PACKAGE = Path(__file__).resolve().parent
_REMEMBERED = ".verified.json"


def folder() -> Path:
    """Where downloaded files live: $MIXCUT_CHECKPOINTS, else this package's own folder."""
    chosen = os.environ.get("MIXCUT_CHECKPOINTS")
    return Path(chosen).expanduser() if chosen else _PACKAGE


def get(name: str) -> Checkpoint:
    """The registry's entry. Raises UsageError with the close matches for an unknown name."""
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    close = difflib.get_close_matches(name, CHECKPOINTS, n=4, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}" if close else f"there are {', '.join(CHECKPOINTS)}"
    raise UsageError(f"There is no checkpoint called {name!r}; {hint}?")


def _place(checkpoint: Checkpoint, directory: Path | None) -> Path:
    return (_PACKAGE if checkpoint.bundled else directory or folder()) / checkpoint.file


# ---------------------------------------------------------------------------- is it the file?


def sha256_of(path: Path) -> str:
    """The file's sha256, lower case."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _remembered(directory: Path) -> dict[str, dict[str, object]]:
    try:
        known = json.loads((directory / _REMEMBERED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(path: Path, sha256: str) -> None:
    """Note the hash beside the file's size and time, so that it is computed once and not each run.

    A convenience: a read-only folder, or two processes of which one note is lost, do no harm.
    """
    known = _remembered(path.parent)
    known[path.name] = {"stamp": _stamp(path), "sha256": sha256}
    note = path.parent / f"{_REMEMBERED}.{os.getpid()}"
    try:
        note.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(note, path.parent / _REMEMBERED)
    except OSError:
        note.unlink(missing_ok=True)


def _sha256_once(path: Path) -> str:
    known = _remembered(path.parent).get(path.name)
    if isinstance(known, dict) and known.get("stamp") == _stamp(path):
        return str(known.get("sha256"))
    sha256 = sha256_of(path)
    _remember(path, sha256)
    return sha256


def _record(path: Path) -> Path:
    """The side file with the hash of a first download, in the format of `sha256sum`."""
    return path.with_name(path.name + ".sha256")


def _recorded(path: Path) -> str | None:
    try:
        return _record(path).read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        return None


def _problem(
    checkpoint: Checkpoint, path: Path, expected: str | None, sha256: Callable[[Path], str]
) -> str | None:
    """What is wrong with the file, to be read after its name, or None."""
    odd = oddity(path)
    if odd:
        return odd
    size = path.stat().st_size
    if checkpoint.size is not None and size != checkpoint.size:
        return f"has {size} bytes instead of {checkpoint.size}"
    if expected is None:
        try:
            weight_kind(path)
        except FormatError as error:
            return str(error)
        return None
    actual = sha256(path)
    if actual == expected:
        return None
    known = expected if checkpoint.sha256 else f"{expected} in {checkpoint.file}.sha256"
    return f"has the sha256 {actual} instead of {known}"


def _expected(checkpoint: Checkpoint, place: Path) -> str | None:
    return checkpoint.sha256 or _recorded(place)


def _check(checkpoint: Checkpoint, place: Path, sha256: Callable[[Path], str]) -> str | None:
    return _problem(checkpoint, place, _expected(checkpoint, place), sha256)


# ------------------------------------------------------------------------------------- looking


def state(name: str, *, directory: Path | None = None) -> State:
    """Whether the file is there and whole. Raises UsageError for an unknown name."""
    checkpoint = get(name)
    place = _place(checkpoint, directory)
    if not place.is_file():
        return "missing"
    if _check(checkpoint, place, _sha256_once):
        return "damaged"
    return "bundled" if checkpoint.bundled else "present"


def find(name: str, *, directory: Path | None = None) -> Path | None:
    """The local file, or None when it is missing or damaged (the latter is logged).

    Cheap: the size is compared each time, the sha256 computed once and then remembered as long as
    size and time of change stay the same.

    Args:
        name: A name of `CHECKPOINTS`.
        directory: Instead of `folder()`.

    Raises:
        UsageError: Unknown name.
    """
    checkpoint = get(name)
    place = _place(checkpoint, directory)
    if not place.is_file():
        return None
    problem = _check(checkpoint, place, _sha256_once)
    if problem:
        logger.warning("%s is left aside: it %s.", place, problem)
        return None
    return place


def path(name: str) -> Path:
    """Like `find`, but says what to do when the file cannot be used.

    Raises:
        UsageError: Unknown name.
        CheckpointError: Missing or damaged; the sentence names the command that fetches it.
    """
    place = find(name)
    if place:
        return place
    place = _place(get(name), None)
    lack = "is damaged" if place.is_file() else "is not there"
    raise CheckpointError(f"{place} {lack}; run `python -m checkpoints fetch {name}`.")


def first_available(*names: str) -> str | None:
    """The first of these checkpoints that is there and whole. Raises UsageError as `find`."""
    return next((name for name in names if find(name)), None)


def verify(name: str, *, directory: Path | None = None) -> str | None:
    """Read the whole file again and compare.

    A file without a published hash that was placed by hand gets its hash recorded here.

    Returns:
        None when it is as it should be, else what is wrong, to be read after the file's name.

    Raises:
        UsageError: Unknown name.
    """
    checkpoint = get(name)
    place = _place(checkpoint, directory)
    if not place.is_file():
        return "is missing"
    problem = _check(checkpoint, place, sha256_of)
    if problem is None and _expected(checkpoint, place) is None:
        _write_record(place)
    return problem


def _write_record(place: Path) -> str:
    sha256 = sha256_of(place)
    _record(place).write_text(f"{sha256}  {place.name}\n", encoding="utf-8")
    return sha256


# ------------------------------------------------------------------------------------ fetching


def fetch(
    name: str,
    *,
    accept_licence: bool = False,
    progress: bool = True,
    directory: Path | None = None,
    say: Callable[[str], None] = logger.info,
) -> Path:
    """Get the file if it is not there yet.

    The sources are tried in order. Each writes a `.part`, which gets the final name only after its
    size and sha256 were found right, so a file with the final name is always whole. Processes that
    fetch the same file wait for each other.

    Args:
        name: A name of `CHECKPOINTS`.
        accept_licence: The user has agreed to a non-commercial licence.
        progress: Show a progress bar on stderr.
        directory: Where to put it instead of `folder()`.
        say: Takes lines that a person wants to read meanwhile: licence, source, recorded hash.

    Returns:
        Where the file is.

    Raises:
        UsageError: Unknown name, or a non-commercial licence that was not accepted.
        CheckpointError: Offline, damaged everywhere, no direct link, or the folder is read-only.
    """
    checkpoint = get(name)
    place = _place(checkpoint, directory)
    found = find(name, directory=directory)
    if found:
        return found
    if checkpoint.bundled:
        raise CheckpointError(f"{place} belongs to the repository; restore it from there.")
    if checkpoint.non_commercial and not accept_licence:
        raise UsageError(
            f"{name} is under {checkpoint.licence}, which forbids commercial use: read "
            f"{checkpoint.upstream} and add --accept-licence if you agree."
        )
    if not checkpoint.sources:
        raise CheckpointError(_by_hand(checkpoint, place, "has no direct link"))
    say(f"{name}: licence {checkpoint.licence}, {checkpoint.upstream}")
    if checkpoint.caution:
        say(f"{name}: {checkpoint.caution}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _alone(place, say):
            # Another process may have been quicker.
            return find(name, directory=directory) or _fetch(checkpoint, place, progress, say)
    except OSError as error:
        raise CheckpointError(
            f"{place} cannot be written ({error.strerror or error}); free some space, or choose "
            "another folder with --dir or MIXCUT_CHECKPOINTS."
        ) from error


@contextmanager
def _alone(place: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the file's lock; the system frees it even when the process is killed."""
    from filelock import FileLock, Timeout

    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Another process is fetching {place.name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(checkpoint: Checkpoint, place: Path, progress: bool, say: Callable[[str], None]) -> Path:
    part = place.with_name(place.name + ".part")
    failures = []
    for source in checkpoint.sources:
        say(f"{checkpoint.name}: from {source}")
        reason = _try(source, checkpoint, place, part, progress)
        if reason is None:
            os.replace(part, place)
            if _expected(checkpoint, place) is None:
                sha256 = _write_record(place)
                say(
                    f"{checkpoint.name}: hash not published; recorded {sha256} in "
                    f"{_record(place).name}, later checks compare with it"
                )
            return place
        failures.append(f"{source} ({reason})")
    raise CheckpointError(
        _by_hand(checkpoint, place, f"could not be fetched; tried {'; '.join(failures)}")
    )


def _try(
    source: Source, checkpoint: Checkpoint, place: Path, part: Path, progress: bool
) -> str | None:
    """Fill `part` from one source and check it. Returns why not, or None."""
    while True:
        resumed = part.exists()
        try:
            source.save(part, progress=progress)
        except SourceError as error:
            return str(error)
        problem = _problem(checkpoint, part, _expected(checkpoint, place), sha256_of)
        if problem is None:
            return None
        part.unlink()
        if not resumed:
            return f"what arrived {problem}"
        # The beginning came from an earlier run and may be at fault: once more from scratch.


def _by_hand(checkpoint: Checkpoint, place: Path, lack: str) -> str:
    sha256 = f" (sha256 {checkpoint.sha256})" if checkpoint.sha256 else ""
    return (
        f"{checkpoint.name} {lack}. To place it by hand, get it from {checkpoint.upstream} and "
        f"save it as {place}{sha256}."
    )
