"""The page: its layout, and which button does what.

What a person did so far is kept in `sessions.py`, what runs in the background in `jobs.py`, what
the page says stands in `wording.py`; the picture one clicks on is `static/picture.html` and `.js`.
"""

from __future__ import annotations

import functools
import html
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

import checkpoints
from demo import sample
from demo.guards import NoFetching, files_only
from demo.jobs import ARCHIVE, Job
from demo.project import Task
from demo.sessions import Options, Session, Workspace
from demo.wording import (
    PLAYERS,
    TASKS,
    describe_job,
    describe_limits,
    describe_models,
    describe_video,
)
from media import InputError
from media.video import Budget

SAMPLES = {"sample_bunny": "Sample: rabbit", "sample_bikes": "Sample: street"}
STATIC = Path(__file__).with_name("static")
SWEEP_SECONDS = 600.0

# -------------------------------------------------------------------------------------------- page

Updates = dict[Any, Any]


def told(handler: Callable[..., Updates]) -> Callable[..., Any]:
    """Let a handler's InputError or CheckpointError appear as a message on the page."""

    @functools.wraps(handler)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except (InputError, checkpoints.CheckpointError) as error:
            gr.Warning(html.escape(str(error)))
            return gr.skip()

    return wrapped


def heading(number: int, text: str) -> None:
    gr.HTML(f"<h2><i>{number}</i>{text}</h2>", elem_classes="heading")


class Page:
    """The components, and what happens when somebody uses them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._models_text = ""
        self._building = threading.Lock()
        # Nothing here asks another machine for anything: no analytics, and the theme's own fonts.
        with gr.Blocks(
            title="MixCut",
            analytics_enabled=False,
            delete_cache=(3600, int(workspace.options.keep_hours * 3600)),
        ) as self.blocks:
            self._lay_out()
            self._connect()
        self.blocks.queue(max_size=64, default_concurrency_limit=4)

    # ---------------------------------------------------------------------------------- layout

    def _lay_out(self) -> None:
        # The session's id, in the tab and in the browser for a tab that is opened again. It is a
        # secret itself, so that encrypting it under a well-known word does no harm.
        self.session_id = gr.State("")
        self.remembered = gr.BrowserState("", storage_key="mixcut", secret="mixcut")  # noqa: S106
        self.timer = gr.Timer(0.5, active=False)
        gr.HTML(
            "<h1>MixCut</h1><p>Click a thing in a video, then follow it, cut it out, or paint it "
            "away.</p>",
            elem_id="head",
        )
        with gr.Row(elem_id="work"):
            with gr.Column(elem_id="load"):
                heading(1, "Choose a video")
                upload = gr.File(
                    file_types=["video", ".gif"], show_label=False, height=124, elem_id="upload"
                )
                self.upload = files_only(upload)
                with gr.Row(elem_id="samples"):
                    self.samples = {
                        name: gr.Button(label, size="sm", elem_id=name)
                        for name, label in SAMPLES.items()
                        if checkpoints.find(name)
                    }
                gr.HTML(describe_limits(self.workspace.options), elem_id="limits")
                self.info = gr.HTML("", elem_id="info")
            with gr.Column(elem_id="point"):
                heading(2, "Point at the object")
                self.picture = gr.HTML(
                    None,
                    html_template=(STATIC / "picture.html").read_text(encoding="utf-8"),
                    js_on_load=(STATIC / "picture.js").read_text(encoding="utf-8"),
                    apply_default_css=False,
                    elem_id="picture",
                )
                with gr.Column(visible=False, elem_id="tools") as self.tools:
                    self.slider = gr.Slider(
                        0, 1, 0, step=1, label="Frame", buttons=[], elem_id="frame"
                    )
                    with gr.Row(elem_id="marks"):
                        self.label = gr.Radio(
                            [("A click marks the object", 1), ("the background", 0)],
                            value=1,
                            show_label=False,
                            container=False,
                            elem_id="label",
                        )
                        self.undo = gr.Button("Undo", size="sm", elem_id="undo")
                        self.clear = gr.Button("Clear", size="sm", elem_id="clear")
            with gr.Column(elem_id="act"):
                heading(3, "Choose what to do")
                self.task = gr.Radio(TASKS, value="track", show_label=False, elem_id="task")
                with gr.Accordion(
                    "Only a part of the video", open=False, elem_id="part"
                ) as self.part:
                    with gr.Row():
                        number = functools.partial(
                            gr.Number, 0, precision=0, minimum=0, min_width=80
                        )
                        self.first = number(label="First frame", elem_id="first")
                        self.last = number(label="Last frame", elem_id="last")
                    self.trim = gr.Checkbox(
                        label="Leave the rest out of the results", elem_id="trim"
                    )
                with gr.Row():
                    self.run = gr.Button("Run", variant="primary", elem_id="run", min_width=80)
                    self.cancel = gr.Button(
                        "Cancel", interactive=False, elem_id="cancel", min_width=80
                    )
                self.status = gr.HTML("", elem_id="status")
        with gr.Column(visible=False, elem_id="results") as self.results:
            gr.HTML("<h2>Results</h2>", elem_classes="heading")
            self.boxes: dict[str, gr.Column] = {}
            self.players: dict[str, gr.Video] = {}
            self.downloads: dict[str, gr.DownloadButton] = {}
            with gr.Row(elem_id="players"):
                for name, label in PLAYERS.items():
                    with gr.Column(visible=False, min_width=280) as self.boxes[name]:
                        gr.HTML(f"<h3>{label}</h3>")
                        self.players[name] = gr.Video(
                            show_label=False,
                            interactive=False,
                            buttons=[],
                            elem_id=f"{name}_video",
                        )
                        self.downloads[name] = gr.DownloadButton(
                            f"Download {name}.mp4", size="sm", elem_id=f"{name}_download"
                        )
            self.archive = gr.DownloadButton(
                "Download masks and tracks (zip)", size="sm", elem_id="archive_download"
            )
        self.models = gr.HTML("", elem_id="models")

    # ---------------------------------------------------------------------------------- wiring

    def _connect(self) -> None:
        run_state = [self.timer, self.run, self.cancel, self.status]
        results = [
            self.results, *self.boxes.values(), *self.players.values(), *self.downloads.values(),
            self.archive,
        ]  # fmt: skip
        everything = [
            self.session_id, self.remembered, self.upload, self.info, self.picture, self.tools,
            self.slider, self.part, self.first, self.last, self.trim, *run_state, *results,
        ]  # fmt: skip
        shown = [self.picture, self.slider]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        # Only these use the segmenter; one at a time, or they would only slow each other down.
        look = {"concurrency_id": "segmenter", "concurrency_limit": 1, **quiet}
        # Asked so often that the way through the queue is not worth it.
        direct = {"queue": False, **quiet}
        busy: dict[str, Any] = {"api_visibility": "private", "show_progress_on": self.upload}

        loads = [
            self.upload.upload(self.on_upload, [self.session_id, self.upload], everything, **busy),
            self.blocks.load(self.on_load, self.remembered, everything, **quiet),
        ]
        for name, button in self.samples.items():
            handler = functools.partial(self.on_sample, name)
            loads.append(button.click(handler, self.session_id, everything, **busy))
        for event in loads:
            event.then(self.on_prepare, self.session_id, None, **look)
        self.blocks.load(self.on_models, None, self.models, **quiet)

        marked = [self.session_id, self.label]
        self.picture.point(self.on_point, marked, shown, trigger_mode="multiple", **look)
        self.picture.draw(self.on_draw, self.session_id, shown, trigger_mode="multiple", **look)
        self.undo.click(self.on_undo, self.session_id, shown, **look)
        self.clear.click(self.on_clear, self.session_id, shown, **look)

        latest = {"trigger_mode": "always_last", **quiet}
        by_slider = [self.session_id, self.slider]
        for event in (
            self.slider.input(self.on_seek, by_slider, shown, **latest),
            self.picture.seek(self.on_arrow, self.session_id, shown, **latest),
        ):
            event.then(self.on_prepare, self.session_id, None, trigger_mode="always_last", **look)

        asked = [self.session_id, self.task, self.first, self.last, self.trim]
        self.run.click(self.on_run, asked, [*run_state, *results], **quiet)
        self.cancel.click(self.on_cancel, self.session_id, run_state, **direct)
        self.timer.tick(self.on_tick, self.session_id, [*run_state, *results], **direct)

    # -------------------------------------------------------------------------------- handlers

    def _session(self, session_id: str) -> Session:
        session = self.workspace.find(session_id)
        if session is None:
            raise InputError("Choose a video first.")
        return session

    def _shown(self, session: Session) -> Updates:
        return {self.picture: session.view(), self.slider: session.frame_index}

    def _run_state(self, session: Session) -> Updates:
        """The buttons and the status; once a run has ended, its results as well."""
        job = session.job
        active = job is not None and job.active
        ahead = self.workspace.jobs.ahead_of(job) if job is not None else 0
        updates: Updates = {
            self.timer: gr.Timer(active=active),
            self.run: gr.Button(interactive=not active),
            self.cancel: gr.Button(
                interactive=active and job is not None and not job.stop.is_set()
            ),
            self.status: describe_job(job, ahead),
        }
        return updates if active else updates | self._results(job)

    def _results(self, job: Job | None) -> Updates:
        files = {path.stem: str(path) for path in job.files} if job is not None else {}
        updates: Updates = {
            self.results: gr.Column(visible=bool(files)),
            self.archive: gr.DownloadButton(value=files.get(Path(ARCHIVE).stem)),
        }
        for name in PLAYERS:
            updates[self.boxes[name]] = gr.Column(visible=name in files)
            updates[self.players[name]] = gr.Video(value=files.get(name))
            updates[self.downloads[name]] = gr.DownloadButton(value=files.get(name))
        return updates

    def _everything(self, session: Session) -> Updates:
        return {
            self.session_id: session.id,
            self.remembered: session.id,
            self.info: describe_video(session),
            self.tools: gr.Column(visible=True),
            self.picture: session.view(),
            self.slider: gr.Slider(
                value=session.frame_index,
                maximum=max(1, session.frame_count - 1),
                visible=session.frame_count > 1,
            ),
            self.part: gr.Accordion(open=False),
            self.first: 0,
            self.last: session.frame_count - 1,
            self.trim: False,
            **self._run_state(session),
        }

    def _open(self, session_id: str, path: Path, name: str) -> Session:
        session = self.workspace.open(path, name)
        before = self.workspace.find(session_id)
        if before is not None:
            self.workspace.leave(before)
        return session

    def on_upload(self, session_id: str, upload: str | None) -> Any:
        if upload is None:
            return gr.skip()
        path = Path(upload)
        try:
            return self._everything(self._open(session_id, path, path.name))
        except InputError as error:
            # Not gr.Error, which would leave the bad file in the component.
            gr.Warning(html.escape(str(error)))
            return {self.upload: None}

    @told
    def on_sample(self, name: str, session_id: str) -> Updates:
        session = self._open(session_id, checkpoints.path(name), f"{name}.mp4")
        if name != "sample_bikes":
            return {**self._everything(session), self.upload: None}
        session.seek(sample.PROMPT.frame)  # of its several shots, the one where a man walks by
        return {
            **self._everything(session),
            self.upload: None,
            self.part: gr.Accordion(open=True),
            self.first: sample.SHOT.start,
            self.last: (sample.SHOT.end or 0) - 1,
            self.trim: sample.SHOT.trim,
        }

    def on_load(self, remembered: str) -> Any:
        """Go on where this browser was, if the server still knows it."""
        session = self.workspace.find(remembered)
        return gr.skip() if session is None else self._everything(session)

    def on_models(self) -> str:
        with self._building:
            if not self._models_text:
                self._models_text = describe_models(self.workspace.models_in_use())
        return self._models_text

    def on_prepare(self, session_id: str) -> None:
        """Look at the frame ahead of the first click, which would tell of any trouble."""
        session = self.workspace.find(session_id)
        if session is not None:
            with suppress(InputError, checkpoints.CheckpointError):
                session.prepare()

    def _marked(self, session: Session, act: Callable[[], None]) -> Updates:
        try:
            act()
        except (InputError, checkpoints.CheckpointError) as error:
            gr.Warning(html.escape(str(error)))
        return self._shown(session)  # in any case, or the mark of the click would stay

    @told
    def on_point(self, session_id: str, label: int, event: gr.EventData) -> Updates:
        session = self._session(session_id)
        label = 0 if event.background else label
        return self._marked(session, lambda: session.point(event.frame, event.x, event.y, label))

    @told
    def on_draw(self, session_id: str, event: gr.EventData) -> Updates:
        session = self._session(session_id)
        corners = event.x0, event.y0, event.x1, event.y1
        return self._marked(session, lambda: session.draw_box(event.frame, *corners))

    @told
    def on_undo(self, session_id: str) -> Updates:
        session = self._session(session_id)
        session.undo()
        return self._shown(session)

    @told
    def on_clear(self, session_id: str) -> Updates:
        session = self._session(session_id)
        session.clear()
        return self._shown(session)

    @told
    def on_seek(self, session_id: str, index: float) -> Updates:
        session = self._session(session_id)
        session.seek(int(index))
        return {self.picture: session.view()}  # the slider is where the user holds it

    @told
    def on_arrow(self, session_id: str, event: gr.EventData) -> Updates:
        session = self._session(session_id)
        session.seek(event.index)
        return self._shown(session)

    @told
    def on_run(
        self, session_id: str, task: Task, first: int | None, last: int | None, trim: bool
    ) -> Updates:
        session = self._session(session_id)
        settings = replace(
            self.workspace.options.settings,
            start=first or None,
            end=None if last is None or last >= session.frame_count - 1 else last + 1,
            trim=trim,
        )
        session.start(self.workspace.jobs, task, settings)
        return {**self._run_state(session), self.results: gr.Column(visible=False)}

    @told
    def on_cancel(self, session_id: str) -> Updates:
        session = self._session(session_id)
        if session.job is not None:
            self.workspace.jobs.cancel(session.job)
        return self._run_state(session)

    def on_tick(self, session_id: str) -> Any:
        session = self.workspace.find(session_id)
        return gr.skip() if session is None else self._run_state(session)


# ------------------------------------------------------------------------------------------ server


def theme() -> gr.themes.Base:
    """The colours, dark enough to read; the fonts are Gradio's own files."""
    # Not weight 600, Gradio's default: its file holds a handful of letters (6.31).
    font = gr.themes.LocalFont("Source Sans Pro", weights=(400, 700))
    return gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=[font, "sans-serif"]
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        body_text_color_subdued="*neutral_500",
        checkbox_border_color_dark="*neutral_500",
    )


def build_page(workspace: Workspace) -> gr.Blocks:
    """The page as a Gradio app that has not been started."""
    # The one folder that Gradio puts uploads into and serves results from; all in it have random
    # names, and nobody else on this machine can look into it.
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.options.root)
    return Page(workspace).blocks


def launch(blocks: gr.Blocks, options: Options, host: str, port: int) -> None:
    """Start serving a page and return.

    Raises:
        InputError: the port is taken.
    """
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,
            ssr_mode=False,
            strict_cors=True,
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,
            footer_links=[],
            allowed_paths=[],
            app_kwargs={"middleware": [Middleware(NoFetching)]},
            max_file_size=f"{options.max_upload_mb}mb",
            state_session_capacity=100,
            theme=theme(),
            css=(STATIC / "page.css").read_text(encoding="utf-8"),
        )
    except OSError as error:
        raise InputError(
            f"The page cannot be opened at {host}:{port}; choose another --port or --host."
        ) from error


def serve(host: str = "127.0.0.1", port: int = 7860, budget: Budget | None = None) -> int:
    """Show the page until somebody presses Ctrl+C; returns the exit code."""
    options = replace(Options.from_environment(), budget=budget or Budget())
    workspace = Workspace(options)
    blocks = build_page(workspace)
    try:
        launch(blocks, options, host, port)
        print(f"MixCut is at http://{host}:{port} (Ctrl+C ends it).", flush=True)
        while True:
            time.sleep(SWEEP_SECONDS)
            workspace.sweep()
    except KeyboardInterrupt:
        return 0
    finally:
        blocks.close(verbose=False)
        workspace.close()
