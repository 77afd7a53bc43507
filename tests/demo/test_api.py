"""The named endpoints, used by a real client over HTTP, with models that follow by colour."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from demo.app import Page, build_page, launch
from demo.jobs import Jobs
from demo.looking import Looker
from demo.project import Settings
from demo.sessions import Session
from demo.workspace import Options, Workspace
from media.masks import decode_rle
from media.video import open_video
from tests.demo.ports import free_port
from tests.demo.square import COUNT, HEIGHT, WIDTH, red, run_here, square_box

pytestmark = pytest.mark.usefixtures("colour_models")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
    options = Options(tmp_path / "work", settings=Settings(device="cpu"))
    page = build_page(Workspace(options, Jobs(lambda: run_here)))
    yield page
    page.close()


@pytest.fixture
def url(page: Page, request: pytest.FixtureRequest) -> str:
    port = free_port()
    launch(page, "127.0.0.1", port, getattr(request, "param", ()))
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def client(url: str, tmp_path: Path) -> Client:
    return connected(url, download_files=tmp_path / "downloads")


def connected(url: str, **options: Any) -> Client:
    # Five seconds is what httpx waits for an answer, and a machine may be busy for longer.
    return Client(url, verbose=False, httpx_kwargs={"timeout": 120}, **options)


def wait(client: Client, project: str) -> dict[str, Any]:
    limit = time.monotonic() + 180
    while (status := client.predict(project, api_name="/status"))["state"] in (
        "waiting",
        "running",
    ):
        assert time.monotonic() < limit
        time.sleep(0.05)
    return status


def test_the_whole_job(client: Client, clip: Path) -> None:
    opened = client.predict(handle_file(str(clip)), api_name="/open")
    assert (opened["width"], opened["height"], opened["frames"]) == (WIDTH, HEIGHT, COUNT)
    assert opened["objects"] == [] and "Click the object" in opened["note"]
    project = opened["project"]

    def act(kind: str, **details: Any) -> dict[str, Any]:
        return client.predict(project, kind, details, api_name="/act")

    x0, y0, _, _ = square_box(3)
    found = act("point", frame=3, x=x0 + 9, y=y0 + 9, label=1)["objects"][0]
    assert np.allclose(found["box"], square_box(3), atol=2) and found["keys"] == [3]
    with open_video(clip) as video:
        assert (decode_rle(found["mask"]) == red(video[3])).mean() > 0.99
    act("rename", number=1, name="square")
    answer = act("decide", number=1, do="remove")
    shown = answer["objects"][0]
    assert (shown["name"], shown["do"]) == ("square", "remove")
    assert answer["estimate"]["frames"] == COUNT and answer["estimate"]["memory"] > 2**29
    act("set", steady=0.3)
    client.predict(project, {"exports": ["coco", "webm"]}, api_name="/run")
    status = wait(client, project)
    assert status["state"] == "done" and not status["paused"] and "painted grey" in status["notes"]
    files = {Path(f).name: Path(f) for f in client.predict(project, api_name="/fetch")}
    assert set(files) == set(status["files"]) == {
        "tracked.mp4", "segmented.mp4", "removed.mp4", "cutout.webm", "tracks.json", "tracks.csv",
        "masks_and_tracks.zip",
    }  # fmt: skip
    shown = client.predict(project, 15, api_name="/find")
    assert (shown["frame"], shown["objects"][0]["keys"]) == (15, [3, 15])
    assert np.allclose(shown["objects"][0]["box"], square_box(15), atol=2) and shown["estimate"]
    with open_video(files["removed.mp4"]) as video:
        assert len(video) == COUNT and not red(video[9]).any() and video.info.has_audio


def test_mistakes_are_sentences(client: Client, clip: Path, tmp_path: Path) -> None:
    project = client.predict(handle_file(str(clip)), api_name="/open")["project"]

    def refused(*values: Any, api_name: str) -> str:
        with pytest.raises(AppError) as caught:
            client.predict(*values, api_name=api_name)
        return str(caught.value)

    (tmp_path / "x.mp4").write_bytes(b"no video")
    assert "x.mp4" in refused(handle_file(str(tmp_path / "x.mp4")), api_name="/open")
    assert "no such project" in refused("0" * 32, api_name="/status")
    assert "no such project" in refused("../" + project, api_name="/status")
    assert "Click the object" in refused(project, {}, api_name="/run")
    assert "no setting speed" in refused(project, {"speed": 9}, api_name="/run")
    assert "outside the frame" in refused(
        project, "point", {"frame": 0, "x": 9999, "y": 0, "label": 1}, api_name="/act"
    )
    assert "another frame first" in refused(project, 3, api_name="/find")
    assert "unknown" in refused(project, "dance", {}, api_name="/act")
    assert "unknown" in refused(project, "point", {"where": 3}, api_name="/act")
    assert client.predict(project, api_name="/status") == {"state": "none"}


def test_only_the_documented_endpoints_are_public(client: Client) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]  # type: ignore[index]
    document = Path(__file__).resolve().parents[2] / "docs" / "api.md"
    assert set(named) == {"/open", "/act", "/find", "/run", "/status", "/cancel", "/fetch"}
    assert all(f"`{name}`" in document.read_text(encoding="utf-8") for name in named)


@pytest.mark.parametrize("url", [[("ann", "secret word")]], indirect=True)
def test_a_password_is_asked_for(url: str) -> None:
    with pytest.raises(Exception, match=r"auth|login|credentials|401"):
        connected(url).predict("0" * 32, api_name="/status")
    client = connected(url, auth=("ann", "secret word"))
    assert json.dumps(client.view_api(return_format="dict"))


def test_who_closes_the_server_waits_for_what_it_is_looking_at(
    client: Client, page: Page, url: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is within torch or OpenCV when Python ends would abort it."""
    project = client.predict(handle_file(str(clip)), api_name="/open")["project"]
    begun, ended = threading.Barrier(3), threading.Semaphore(0)

    def take_long(*_: Any) -> None:
        begun.wait(120)
        time.sleep(7)  # longer than Gradio waits for its server's thread
        ended.release()

    monkeypatch.setattr(Session, "look_closer", take_long)
    monkeypatch.setattr(Looker, "frame_at", take_long)
    client.submit(project, "undo", {}, api_name="/act")
    frame = f"{url}/media/{project}/frame/3.jpg"
    threading.Thread(target=httpx.get, args=(frame,), kwargs={"timeout": 120}, daemon=True).start()
    begun.wait(120)
    page.close()
    assert ended.acquire(blocking=False) and ended.acquire(blocking=False)
    page.close()
