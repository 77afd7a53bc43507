"""What the page's handlers give back, as Gradio takes it, without a browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio.state_holder import SessionState

from demo.app import Page, build_page, shown
from demo.bundles import pack
from demo.jobs import Jobs
from demo.project import ADJUSTABLE, Settings
from demo.run import Result
from demo.sessions import Session
from demo.workspace import Options, Workspace
from tests.demo.square import square_box

pytestmark = pytest.mark.usefixtures("colour_models")


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Until it is set, no run ends."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def page(tmp_path: Path, held: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    def run(source: Path, folder: Path, *rest: Any, **options: Any) -> Result:
        assert held.wait(300)
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text("{}")
        return Result(folder, [], [], {})

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
    options = Options(tmp_path / "work", settings=Settings(device="cpu"))
    page = build_page(Workspace(options, Jobs(lambda: run)))
    yield page
    held.set()
    page.close()


def opened(page: Page, clip: Path) -> Session:
    session = page.workspace.open(clip, "clip.mp4")
    session.draw_box(0, *square_box(0))
    return session


def call(page: Page, name: str, session: Session) -> dict[Any, Any]:
    """What a handler that takes the session alone changes, by component."""
    function = next(f for f in page.blocks.fns.values() if f.name == name)
    state = SessionState(page.blocks)
    state[page.session_id._id] = session.id
    answer = asyncio.run(page.blocks.process_api(function, [None], state=state))
    return dict(zip(function.outputs, answer["data"], strict=True))


def test_a_waiting_run_is_cancelled(page: Page, clip: Path) -> None:
    opened(page, clip).start(page.workspace.jobs)
    session = opened(page, clip)
    job = session.start(page.workspace.jobs)
    assert "Stopped" in call(page, "on_cancel", session)[page.status]
    assert job.state == "cancelled"
    assert "Stopped" in call(page, "on_pause", session)[page.status], "too late, but no failure"


def test_a_project_that_is_dropped_on_either_box_is_opened(
    page: Page, clip: Path, tmp_path: Path
) -> None:
    session = opened(page, clip)
    session.adjust(steady=0.1)
    path = tmp_path / "project.zip"
    path.write_bytes(b"".join(pack(session)))
    defaults = [shown(Settings(), name) for name in ADJUSTABLE]
    for updates in (
        page.on_upload(str(path), "", *defaults),
        page.on_import(session.id, str(path)),
        page.on_import("", str(path)),
    ):
        again = page.workspace.find(updates[page.session_id])
        assert again is not None and again is not session and again.settings.steady == 0.1
        assert [thing["keys"] for thing in updates[page.editor]["things"]] == [[0]]
        assert updates[page.settings["steady"]] == 0.1
    outputs = next(f for f in page.blocks.fns.values() if f.name == "on_import").outputs
    assert set(updates) <= set(outputs), "or Gradio refuses the answer"
