"""Finding, checking and fetching: what ends up under a checkpoint's final name is always right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints import (
    CHECKPOINTS,
    CheckpointError,
    UsageError,
    fetch,
    find,
    first_available,
    folder,
    path,
    state,
    store,
    verify,
)
from checkpoints.registry import Checkpoint
from checkpoints.sources import Url

from .conftest import BODY, Page, Server

Toy = Callable[..., Checkpoint]
SHA = hashlib.sha256(BODY).hexdigest()
WRONG = bytes(reversed(BODY))
NOWHERE = Url("http://127.0.0.1:9/toy")


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


# ------------------------------------------------------------------------------------- looking


def test_the_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(tmp_path))
    assert folder() == tmp_path
    monkeypatch.delenv("MIXCUT_CHECKPOINTS")
    assert folder() == Path(store.__file__).parent


def test_the_bundled_tracker_is_found_wherever_the_folder_is(weights_folder: Path) -> None:
    found = path("mixformerv2_small_seed")
    assert found.parent == Path(store.__file__).parent
    assert state("mixformerv2_small_seed") == "bundled"
    assert fetch("mixformerv2_small_seed") == found
    assert verify("mixformerv2_small_seed") is None


def test_missing_present_and_damaged(toy: Toy, weights_folder: Path) -> None:
    toy()
    place = weights_folder / "toy.bin"
    weights_folder.mkdir()
    assert (state("toy"), find("toy")) == ("missing", None)
    place.write_bytes(BODY)
    assert (state("toy"), find("toy"), path("toy")) == ("present", place, place)
    place.write_bytes(BODY[:-1])
    assert (state("toy"), find("toy")) == ("damaged", None)
    place.write_bytes(WRONG)
    assert (state("toy"), find("toy")) == ("damaged", None)


def test_path_says_what_to_do(toy: Toy, weights_folder: Path) -> None:
    toy()
    with pytest.raises(CheckpointError, match=r"toy.bin is not there; run `python -m checkpoints"):
        path("toy")
    weights_folder.mkdir()
    (weights_folder / "toy.bin").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"toy.bin is damaged; run .* fetch toy`"):
        path("toy")


@pytest.mark.parametrize("ask", [find, path, state, fetch, verify, first_available])
def test_an_unknown_name_lists_the_close_ones(ask: Callable[[str], object]) -> None:
    with pytest.raises(UsageError, match=r"no checkpoint called 'mobilesam'; .*mobile_sam"):
        ask("mobilesam")
    with pytest.raises(UsageError, match=r"there are .*e2fgvi_hq"):
        ask("???")


def test_first_available(toy: Toy, weights_folder: Path) -> None:
    toy()
    assert first_available("toy", "sam_vit_h") is None
    assert first_available("toy", "mixformerv2_small_seed") == "mixformerv2_small_seed"
    weights_folder.mkdir()
    (weights_folder / "toy.bin").write_bytes(BODY)
    assert first_available("sam_vit_h", "toy", "mixformerv2_small_seed") == "toy"


def test_the_hash_is_computed_once_until_the_file_changes(
    toy: Toy, weights_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy()
    weights_folder.mkdir()
    place = weights_folder / "toy.bin"
    place.write_bytes(BODY)
    hashed: list[Path] = []
    real = store.sha256_of

    def counted(file: Path) -> str:
        hashed.append(file)
        return real(file)

    monkeypatch.setattr(store, "sha256_of", counted)
    assert find("toy") == find("toy") == place
    assert hashed == [place]
    place.write_bytes(WRONG)
    os.utime(place, ns=(1, 1))
    assert find("toy") is None
    assert hashed == [place, place]


def test_a_spoilt_note_of_hashes_does_no_harm(toy: Toy, weights_folder: Path) -> None:
    toy()
    weights_folder.mkdir()
    (weights_folder / "toy.bin").write_bytes(BODY)
    for note in ("{", "[]", '{"toy.bin": 3}', '{"toy.bin": {"stamp": null}}'):
        (weights_folder / ".verified.json").write_text(note)
        assert find("toy")


def test_verify_reads_the_file_again(toy: Toy, weights_folder: Path) -> None:
    toy()
    assert verify("toy") == "is missing"
    weights_folder.mkdir()
    place = weights_folder / "toy.bin"
    place.write_bytes(BODY)
    assert find("toy")
    before = place.stat()
    place.write_bytes(WRONG)  # same size and time: the remembered hash cannot tell
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert find("toy")
    wrong = hashlib.sha256(WRONG).hexdigest()
    assert verify("toy") == f"has the sha256 {wrong} instead of {SHA}"


# ------------------------------------------------------------------------------------ fetching


def test_fetch(server: Server, toy: Toy, weights_folder: Path) -> None:
    page = Page()
    toy(Url(server.add("/toy", page)))
    lines: list[str] = []
    place = fetch("toy", progress=False, say=lines.append)
    assert place == weights_folder / "toy.bin" and place.read_bytes() == BODY
    assert files(weights_folder) == {"toy.bin"}
    assert "licence MIT" in lines[0]
    assert fetch("toy") == place
    assert len(page.asked) == 1  # what is there is not fetched again


def test_fetch_into_another_folder(server: Server, toy: Toy, tmp_path: Path) -> None:
    toy(Url(server.add("/toy", Page())))
    place = fetch("toy", progress=False, directory=tmp_path / "a" / "b")
    assert place == tmp_path / "a" / "b" / "toy.bin"
    assert (find("toy"), find("toy", directory=place.parent)) == (None, place)


def test_a_damaged_file_is_replaced(server: Server, toy: Toy, weights_folder: Path) -> None:
    toy(Url(server.add("/toy", Page())))
    weights_folder.mkdir()
    (weights_folder / "toy.bin").write_bytes(b"half a fi")
    assert fetch("toy", progress=False).read_bytes() == BODY


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Page(status=404), "the server answers 404"),
        (Page(b"<html>Quota exceeded", content_type="text/html"), "HTML page instead of the file"),
        (Page(b"  <!DOCTYPE html>Sign in"), "what arrived is an HTML page"),
        (Page(BODY[:-5]), "has 307195 bytes instead of 307200"),
        (Page(WRONG), f"has the sha256 {hashlib.sha256(WRONG).hexdigest()} instead of {SHA}"),
    ],
)
def test_the_next_source_is_tried(
    server: Server, toy: Toy, weights_folder: Path, bad: Page, reason: str
) -> None:
    first = Url(server.add("/first", bad))
    toy(first, Url(server.add("/mirror", Page())))
    assert fetch("toy", progress=False).read_bytes() == BODY
    assert files(weights_folder) == {"toy.bin"}

    toy(first)  # and without a mirror the reason is told
    (weights_folder / "toy.bin").unlink()
    with pytest.raises(CheckpointError) as failure:
        fetch("toy", progress=False)
    assert reason in str(failure.value)
    assert files(weights_folder) == set()


def test_a_bad_beginning_from_an_earlier_run_is_fetched_anew(
    server: Server, toy: Toy, weights_folder: Path
) -> None:
    page = Page()
    toy(Url(server.add("/toy", page)))
    weights_folder.mkdir()
    (weights_folder / "toy.bin.part").write_bytes(b"x" * 999)
    assert fetch("toy", progress=False).read_bytes() == BODY
    assert page.asked == ["bytes=999-", None]


def test_a_cut_download_goes_on_in_the_next_run(
    server: Server, toy: Toy, weights_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoints.sources.ATTEMPTS", 1)
    page = Page(cuts=[1234, 0, 0])
    toy(Url(server.add("/toy", page)))
    with pytest.raises(CheckpointError, match="cut off"):
        fetch("toy", progress=False)
    assert files(weights_folder) == {"toy.bin.part"}
    assert fetch("toy", progress=False).read_bytes() == BODY
    assert page.asked[-1] == "bytes=1234-"


def test_offline_tells_what_was_tried_and_the_way_by_hand(toy: Toy, weights_folder: Path) -> None:
    toy(NOWHERE, Url("http://127.0.0.1:9/mirror"))
    with pytest.raises(CheckpointError) as failure:
        fetch("toy", progress=False)
    message = str(failure.value)
    for part in (
        "http://127.0.0.1:9/toy (no connection",
        "http://127.0.0.1:9/mirror (no connection",
        f"get it from https://toys.example and save it as {weights_folder / 'toy.bin'}",
        SHA,
    ):
        assert part in message


def test_without_a_direct_link_fetch_says_where_to_get_it(toy: Toy) -> None:
    toy()
    with pytest.raises(CheckpointError, match=r"toy has no direct link. To place it by hand, get"):
        fetch("toy")


def test_a_non_commercial_licence_must_be_accepted(
    server: Server, toy: Toy, weights_folder: Path
) -> None:
    toy(Url(server.add("/toy", Page())), licence="CC BY-NC 4.0", non_commercial=True)
    with pytest.raises(UsageError, match=r"CC BY-NC 4.0, which forbids .* --accept-licence"):
        fetch("toy", progress=False)
    assert not weights_folder.exists()
    fetch("toy", progress=False, accept_licence=True)
    assert fetch("toy")  # once there, it is not asked again


def test_a_folder_that_cannot_be_written(server: Server, toy: Toy, tmp_path: Path) -> None:
    toy(Url(server.add("/toy", Page())))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cannot be written .*choose another folder"):
        fetch("toy", progress=False, directory=tmp_path / "file" / "folder")


# ------------------------------------------------------------------- files without a known hash


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """A tiny real weight file: without a hash the format is all that can be checked."""
    import torch

    torch.save({"a": torch.ones(3)}, tmp_path / "weights.pth")
    return (tmp_path / "weights.pth").read_bytes()


def test_an_unpublished_hash_is_recorded_and_then_compared(
    server: Server, toy: Toy, weights_folder: Path, weights: bytes
) -> None:
    toy(Url(server.add("/toy", Page(weights))), sha256=None, size=None)
    lines: list[str] = []
    place = fetch("toy", progress=False, say=lines.append)
    sha256 = hashlib.sha256(weights).hexdigest()
    assert f"hash not published; recorded {sha256} in toy.bin.sha256" in lines[-1]
    assert (weights_folder / "toy.bin.sha256").read_text() == f"{sha256}  toy.bin\n"
    assert state("toy") == "present" and verify("toy") is None

    place.write_bytes(weights[:40] + b"x" + weights[41:])
    assert state("toy") == "damaged"
    assert "instead of " + sha256 in (verify("toy") or "")

    server.pages["/toy"].body = weights + b"changed upstream"
    with pytest.raises(CheckpointError, match=rf"instead of {sha256} in toy\.bin\.sha256"):
        fetch("toy", progress=False)


def test_a_file_placed_by_hand_gets_its_hash_recorded_by_verify(
    toy: Toy, weights_folder: Path, weights: bytes
) -> None:
    toy(sha256=None, size=None)
    weights_folder.mkdir()
    (weights_folder / "toy.bin").write_bytes(weights)
    assert find("toy") and not (weights_folder / "toy.bin.sha256").exists()
    assert verify("toy") is None
    assert (weights_folder / "toy.bin.sha256").exists()


@pytest.mark.parametrize("body", [b"<html>", b'{"error": "quota"}', b"", b"PK\x03\x04 cut off"])
def test_what_is_no_weight_file_is_refused_even_without_a_hash(
    server: Server, toy: Toy, weights_folder: Path, body: bytes
) -> None:
    toy(Url(server.add("/toy", Page(body))), sha256=None, size=None)
    with pytest.raises(CheckpointError, match="what arrived is"):
        fetch("toy", progress=False)
    assert files(weights_folder) == set()


# -------------------------------------------------------------------------- several processes


def test_processes_that_fetch_the_same_file_wait_for_each_other(
    server: Server, weights_folder: Path, tmp_path: Path
) -> None:
    told = [tmp_path / f"{number}.txt" for number in range(3)]
    page = Page(gate=threading.Event())
    script = textwrap.dedent(f"""
        from checkpoints import CHECKPOINTS, fetch
        from checkpoints.registry import Checkpoint
        from checkpoints.sources import Url
        CHECKPOINTS["toy"] = Checkpoint(
            "toy", "toy.bin", "tracker", "", "", "MIT", "", {SHA!r}, {len(BODY)},
            (Url({server.add("/toy", page)!r}),),
        )
        print(fetch("toy", progress=False, say=print).read_bytes() == bytes(range(256)) * 1200)
    """)
    processes = [
        subprocess.Popen(
            [sys.executable, "-u", "-c", script],
            stdout=said.open("w"),
            cwd=Path(store.__file__).parents[1],
        )
        for said in told
    ]
    limit = time.monotonic() + 120
    while sum("waiting for it" in said.read_text() for said in told) < 2:
        assert time.monotonic() < limit and all(process.poll() is None for process in processes)
        time.sleep(0.02)
    assert page.gate is not None
    page.gate.set()
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert [said.read_text().splitlines()[-1] for said in told] == ["True"] * 3
    assert len(page.asked) == 1
    assert files(weights_folder) == {"toy.bin"}


@pytest.mark.slow
def test_the_real_mobile_sam_arrives(tmp_path: Path) -> None:
    checkpoint = CHECKPOINTS["mobile_sam"]
    try:
        place = fetch("mobile_sam", progress=False, directory=tmp_path)
    except CheckpointError as error:
        pytest.skip(f"offline: {error}")
    assert store.sha256_of(place) == checkpoint.sha256
    assert files(tmp_path) == {"mobile_sam.pt"}
