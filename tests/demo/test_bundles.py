"""A project goes from one server to another as a zip, and nothing else gets in that way."""

from __future__ import annotations

import json
import math
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from demo import zips
from demo.bundles import holds_project, pack
from demo.files import Files
from demo.guards import AtWork
from demo.jobs import Jobs
from demo.project import Settings
from demo.sessions import Session
from demo.workspace import Options, Workspace
from media import InputError
from media.masks import load_mask, save_mask
from tests.demo.square import COUNT, HEIGHT, WIDTH, run_here, square_box

pytestmark = pytest.mark.usefixtures("colour_models")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    options = Options(tmp_path / "work", max_upload_mb=1, settings=Settings(device="cpu"))
    space = Workspace(options, Jobs(lambda: run_here))
    yield space
    space.close()


@pytest.fixture
def session(workspace: Workspace, clip: Path) -> Session:
    session = workspace.open(clip, "my clip.mp4")
    x0, y0, _, _ = square_box(2)
    session.point(2, x0 + 9, y0 + 9, 1)
    session.draw_box(7, *square_box(7))
    session.paint(7, [{"points": [[100, 80], [120, 80]], "radius": 4, "add": True}])
    session.decide(1, "segment")
    session.add()
    session.draw_box(4, 100, 10, 140, 40)
    session.rename(2, "nothing")
    session.limit(1, 12)
    session.adjust(steady=0.3, exports=["coco"], resolution=320)
    return session


def packed(session: Session, place: Path) -> Path:
    place.write_bytes(b"".join(pack(session)))
    return place


def test_a_project_goes_on_elsewhere(
    workspace: Workspace, session: Session, tmp_path: Path
) -> None:
    job = session.start(workspace.jobs)
    while job.active:
        time.sleep(0.01)
    assert job.state == "done", job.error
    client = TestClient(Files(Starlette(), workspace, AtWork()))
    answer = client.get(f"/media/{session.id}/project.zip")
    assert answer.status_code == 200 and "project.zip" in answer.headers["content-disposition"]
    assert client.get(f"/media/{'0' * 32}/project.zip").status_code == 404
    (tmp_path / "project (1).zip").write_bytes(answer.content)
    with zipfile.ZipFile(tmp_path / "project (1).zip") as archive:
        names = archive.namelist()
        assert {"project.json", "source.mp4", "tracks.json", "masks/00003.png"} <= set(names)
        for name in names:
            for secret in (session.id, job.id, str(tmp_path)):
                assert secret.encode() not in archive.read(name), f"{name} tells {secret}"
    options = Options(tmp_path / "elsewhere", settings=Settings(device="cpu"))
    other = Workspace(options, Jobs(lambda: run_here))
    again = other.open(tmp_path / "project (1).zip", "project (1).zip")
    assert again.id != session.id and again.name == "my clip.mp4" and again.job is None
    assert again.document == session.document and again.settings == session.settings
    assert again.frame_index == session.frame_index and not again.view()["undo"]
    assert again.source.read_bytes() == session.source.read_bytes()
    for thing in session.document.things:
        for frame in thing.marks:
            assert np.array_equal(again.mask_at(thing, frame), session.mask_at(thing, frame))
    job = again.start(other.jobs)
    while job.active:
        time.sleep(0.01)
    assert job.state == "done", job.error
    other.close()


def change(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.update(changes)


def thing(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record["document"]["things"][1].update(changes)


def mark(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record["document"]["things"][1]["marks"]["4"].update(changes)


@pytest.mark.parametrize(
    "spoil",
    [
        change(mixcut=99),
        change(source="../../source.mp4"),
        change(source="project.json"),
        change(source="/etc/passwd"),
        change(name=7),
        change(frame="one"),
        change(document=[]),
        change(settings={"steady": "much"}),
        change(settings={"dilate": "much"}),
        lambda record: record["document"].update(imported="../x.json"),
        lambda record: record["document"].update(imported="0" * 32 + ".json"),
        lambda record: record["document"].update(start=9, stop=4),
        lambda record: record["document"].update(active=5),
        thing(id=1),
        thing(id="2"),
        thing(name="x" * 999),
        thing(name=None),
        thing(color="url(x)"),
        thing(do="rm"),
        thing(marks={str(COUNT): {"points": [], "box": [1, 1, 9, 9], "mask": ""}}),
        thing(extra=1),
        mark(mask="../../session.json"),
        mark(mask="0" * 32 + ".png"),
        mark(points=[[WIDTH, 5, 1]]),
        mark(points=[[5, 5, 7]]),
        mark(points=[[5, math.nan, 1]]),
        mark(box=[1, 1, math.nan, 9]),
        mark(box=None),
        mark(choice="a"),
    ],
)
def test_what_the_page_would_not_have_made_is_refused(
    spoil: Callable[[dict[str, Any]], object], workspace: Workspace, session: Session,
    tmp_path: Path,
) -> None:  # fmt: skip
    good, bad = packed(session, tmp_path / "good.zip"), tmp_path / "bad.zip"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "project.json":
                record = json.loads(data)
                spoil(record)
                data = json.dumps(record).encode()
            target.writestr(name, data)
        target.writestr("../evil.txt", "x")
    refused(workspace, bad)


def refused(workspace: Workspace, path: Path, says: str | None = None) -> None:
    before = set(workspace.options.root.rglob("*"))
    with pytest.raises(InputError, match=says) as caught:
        workspace.open(path, path.name)
    assert str(workspace.options.root) not in str(caught.value)
    assert set(workspace.options.root.rglob("*")) == before, "nothing is left behind"
    assert not (workspace.options.root.parent / "evil.txt").exists()


def test_bombs_and_damaged_zips_are_refused(
    workspace: Workspace, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(session, tmp_path / "x.zip")
    whole = path.read_bytes()
    workspace.open(path, "x.zip")

    def again(name: str, data: bytes) -> Path:
        with (
            zipfile.ZipFile(path) as good,
            zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_DEFLATED) as bad,
        ):
            for known in good.namelist():
                bad.writestr(known, data if known == name else good.read(known))
        return tmp_path / "y.zip"

    refused(workspace, again("source.mp4", bytes(2**21)), "holds more than the 1 MB")
    refused(workspace, again("project.json", bytes(2**24 + 1)), "holds more than a project")
    (painted,) = (session.folder / "marks").glob("*.png")
    save_mask(tmp_path / "mask.png", np.ones((HEIGHT, WIDTH + 1), bool))
    data = (tmp_path / "mask.png").read_bytes()
    refused(workspace, again(f"marks/{painted.name}", data), "of one size")
    assert load_mask(painted).any()
    refused(workspace, again("source.mp4", b"no video"), r"^my clip\.mp4")
    spoilt = bytearray(whole)
    spoilt[whole.index(b"ftyp")] ^= 255
    path.write_bytes(spoilt)
    refused(workspace, path, "is not a project that MixCut has packed, or it is damaged")
    path.write_bytes(whole[: len(whole) // 2])
    assert not holds_project(path)
    refused(workspace, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("00000.png", b"a mask")
    refused(workspace, path, "x.zip is a zip, but no project that was saved here")
    path.write_bytes(whole)
    monkeypatch.setattr(zips, "MAX_DIRECTORY", 100)
    assert not holds_project(path)
