"""The page's job for programs: named endpoints for `gradio_client`, described in docs/api.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from checkpoints import CheckpointError
from demo.guards import files_only
from demo.jobs import Job
from demo.sessions import Session
from demo.workspace import Workspace
from media import InputError
from media.masks import encode_rle


def add_endpoints(workspace: Workspace, perform: Callable[[Session, dict[str, Any]], None]) -> None:
    """Add the endpoints to the Blocks that are being laid out.

    Args:
        perform: does what the editor's events ask for.
    """

    def session_of(project: str) -> Session:
        session = workspace.find(project)
        if session is None:
            raise InputError("There is no such project; open a video first.")
        return session

    def open_video(video: str) -> dict[str, Any]:
        """Begin a project with an uploaded video; what comes back is as for `act`."""
        if not video:
            raise gr.Error("Send a video.", print_exception=False)
        path = Path(video)
        return _told(lambda: _describe(workspace.open(path, path.name)))

    def act(project: str, kind: str, details: dict[str, Any]) -> dict[str, Any]:
        """Do what a person does in the editor, and tell what is there then.

        Args:
            project: its id.
            kind: point, box, seek, add, select, rename, decide, limit, undo, ... (docs/api.md).
            details: the arguments, such as frame, x, y and label of a point.
        """

        def work() -> dict[str, Any]:
            session = session_of(project)
            perform(session, {"kind": kind, **details})
            return described(session)

        return _told(work)

    def find(project: str, frame: int) -> dict[str, Any]:
        """Look for the active object all over a frame; found, it has a key frame there.

        Args:
            project: its id.
            frame: where a run has lost the object.
        """

        def work() -> dict[str, Any]:
            session = session_of(project)
            session.find_again(frame)
            return described(session)

        return _told(work)

    def described(session: Session) -> dict[str, Any]:
        session.look_closer()
        estimate = workspace.estimate(session)
        return _describe(session) | {"estimate": None if estimate is None else asdict(estimate)}

    def run(project: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Begin a run; what comes back is as for `status`.

        Args:
            project: its id.
            settings: any of trim, exports, tracker, segmenter, inpainter, device, steady,
                resolution, dilate, shadow, feather; what is left out stays as it was.
        """

        def work() -> dict[str, Any]:
            session = session_of(project)
            session.adjust(**settings)
            return _status(session.start(workspace.jobs))

        return _told(work)

    def status(project: str) -> dict[str, Any]:
        """How far the project's run is: state, stage, done, total, error, notes, files."""
        return _told(lambda: _status(session_of(project).job))

    def cancel(project: str) -> dict[str, Any]:
        """End the project's run; finished stages are kept."""

        def work() -> dict[str, Any]:
            job = session_of(project).job
            if job is not None:
                workspace.jobs.cancel(job)
            return _status(job)

        return _told(work)

    def fetch(project: str) -> list[str]:
        """The files of the last run."""

        def work() -> list[str]:
            job = session_of(project).job
            return [] if job is None else [str(file) for file in job.files]

        return _told(work)

    looking: dict[str, Any] = {"concurrency_id": "segmenter", "concurrency_limit": 1}
    gr.api(act, api_name="act", **looking)
    gr.api(find, api_name="find", concurrency_id="encoder", concurrency_limit=1)
    gr.api(run, api_name="run")
    gr.api(status, api_name="status", queue=False)
    gr.api(cancel, api_name="cancel", queue=False)
    # Files come and go through components, which check where they lie.
    with gr.Row(visible=False):
        upload = files_only(gr.File(file_types=["video", ".gif"], label="video"))
        project, files = gr.Textbox(label="project"), gr.Files(label="files")
        answer, ask = gr.JSON(label="project"), gr.Button()
    ask.click(open_video, upload, answer, api_name="open", **looking)
    ask.click(fetch, project, files, api_name="fetch")


def _told(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (InputError, CheckpointError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    except (TypeError, ValueError, KeyError) as error:
        raise gr.Error(f"The request is not understood: {error}.", print_exception=False) from error


def _describe(session: Session) -> dict[str, Any]:
    """A project as JSON: like the editor's view, with masks as COCO run lengths."""
    view = session.view()
    things = []
    for thing, shown in zip(session.document.things, view["things"], strict=True):
        mask = session.mask_at(thing, view["index"])
        things.append(shown | {"mask": None if mask is None else encode_rle(mask)})
    return {
        "project": session.id, "frame": view["index"], "frames": view["count"],
        **{name: view[name] for name in ("width", "height", "fps", "start", "stop")},
        "objects": things, "active": view["active"], "candidates": view["candidates"],
        "note": view["note"],
    }  # fmt: skip


def _status(job: Job | None) -> dict[str, Any]:
    if job is None:
        return {"state": "none"}
    return {
        "state": job.state, "paused": job.pause.is_set(), "stage": job.progress.stage,
        "done": job.progress.done, "total": job.progress.total, "error": job.error,
        "notes": job.result.notes if job.result else [], "files": [f.name for f in job.files],
    }  # fmt: skip
