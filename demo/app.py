"""The page: its layout, and which button does what.

What a person did so far is kept in `sessions.py`, all of them in `workspace.py`, what runs in the
background in `jobs.py`, what the page says stands in `wording.py`; the picture one clicks on is
`static/editor.html` and `.js`.
"""

from __future__ import annotations

import functools
import html
import os
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

import checkpoints
from demo import sample
from demo.api import add_endpoints
from demo.bundles import holds_project
from demo.files import Files
from demo.guards import AtWork, NoFetching, files_only
from demo.pictures import survey_url
from demo.project import ADJUSTABLE, EXPORTS, Settings
from demo.sessions import Session
from demo.wording import (
    describe_limits,
    describe_models,
    describe_run,
    describe_video,
)
from demo.workspace import Options, Workspace
from inpainting import list_inpainters
from media import InputError
from media.video import Budget
from segmenters import list_segmenters
from trackers import list_trackers

SAMPLES = {"sample_bunny": "Sample: rabbit", "sample_bikes": "Sample: street"}
STATIC = Path(__file__).with_name("static")
SWEEP_SECONDS = 600
AUTO = "auto"
GONE = "This project is no longer kept here; choose its video again."
RESOLUTIONS = (320, 480, 640, 960, 1280, 1920)  # pixels, to choose from

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


def devices() -> list[str]:
    """What can be computed on here."""
    import torch

    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [AUTO, "cpu", *found, *(["mps"] if torch.backends.mps.is_available() else [])]


def model_label(name: str) -> str:
    """A model's name, and whether its weights would have to be fetched first."""
    own = [w for w in checkpoints.CHECKPOINTS if w.removesuffix("_seed") == name]
    missing = own and not any(checkpoints.find(weights) for weights in own)
    return f"{name} (weights not here)" if missing else name


def chosen(values: Sequence[Any]) -> dict[str, Any]:
    """Settings as the page's components have them, in the order of `ADJUSTABLE`."""
    found = dict(zip(ADJUSTABLE, values, strict=True))
    resolution = found["resolution"]
    return {
        **found,
        "exports": tuple(found["exports"]),
        "dilate": found["dilate"] or None,
        "resolution": None if resolution in (None, AUTO) else int(resolution),
    }


def shown(settings: Settings, name: str) -> Any:
    """One of them as its component has it; the inverse of `chosen`."""
    value = getattr(settings, name)
    if name == "exports":
        return list(value)
    if name == "resolution":
        return AUTO if value is None else str(value)
    return 0 if value is None else value


class Page:
    """The components, and what happens when somebody uses them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._models_text = ""
        self._building = threading.Lock()
        self.at_work = AtWork()
        # Nothing here asks another machine for anything: no analytics, and the theme's own fonts.
        with gr.Blocks(
            title="MixCut",
            analytics_enabled=False,
            delete_cache=(3600, int(workspace.options.keep_hours * 3600)),
        ) as self.blocks:
            self._lay_out()
            self._connect()
            add_endpoints(workspace, perform)
        self.at_work.watch(self.blocks)
        self.blocks.queue(max_size=64, default_concurrency_limit=4)

    def close(self) -> None:
        """Stop serving, and end the runs; the next server takes them up."""
        self.blocks.close(verbose=False)
        self.at_work.close()
        self.workspace.close()

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
                    file_types=["video", ".gif", ".zip"], height=124, elem_id="upload",
                    show_label=False,
                )  # fmt: skip
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
                self.editor = static_html("editor", elem_id="picture")
            with gr.Column(elem_id="act"):
                heading(3, "Run")
                with gr.Row(elem_id="buttons"):
                    small = functools.partial(gr.Button, interactive=False, min_width=70)
                    self.run = gr.Button("Run", variant="primary", elem_id="run", min_width=70)
                    self.pause = small("Pause", elem_id="pause")
                    self.cancel = small("Cancel", elem_id="cancel")
                self.status = gr.HTML("", elem_id="status")
                self._lay_out_settings()
        with gr.Column(visible=False, elem_id="results") as self.results:
            gr.HTML("<h2>Results</h2>", elem_classes="heading")
            self.screen = static_html("results", elem_id="screen")
        self.models = gr.HTML("", elem_id="models")
        gr.HTML((STATIC / "help.html").read_text(encoding="utf-8"), elem_id="help")

    def _lay_out_settings(self) -> None:
        """One component for each of `ADJUSTABLE`, and a place for files made before."""
        self.settings: dict[str, Any] = {}
        closed = functools.partial(gr.Accordion, open=False, elem_classes="settings")

        def add(name: str, component: Any, *choices: Any, **options: Any) -> None:
            value = shown(self.workspace.options.settings, name)
            self.settings[name] = component(*choices, value=value, elem_id=name, **options)

        with closed("Models", elem_id="models_settings"):
            for name, known, label, info in (
                ("tracker", list_trackers(), "Following",
                 "auto: the best one whose weights are here"),
                ("segmenter", list_segmenters(), "Cutting out",
                 "mobile_sam is quick; sam_vit_h is exact"),
                ("inpainter", list_inpainters(), "Painting away",
                 "propagation is quick; e2fgvi invents more"),
            ):  # fmt: skip
                models = [(model_label(model), model) for model in known]
                add(name, gr.Dropdown, [(AUTO, AUTO), *models], label=label, info=info)
            info = "auto: a GPU if there is one"
            add("device", gr.Dropdown, devices(), label="Computing on", info=info)
        with closed("Masks and painting", elem_id="mask_settings"):
            info = "more: less flicker; 0: each frame by itself"
            add("steady", gr.Slider, 0, 0.9, step=0.1, label="Hold masks still", info=info)
            info = "in pixels; from 1 on between the dotted lines on the picture"
            add("feather", gr.Slider, 0, 10, step=0.2, label="Soft edge of cut-outs", info=info)
            info = "in pixels, 0: by the object's size; the dashed line on the picture"
            add("dilate", gr.Slider, 0, 60, step=1, label="Grow masks before painting", info=info)
            info = "pixels of the longer side; less takes less time and memory"
            sizes = [AUTO, *map(str, RESOLUTIONS)]
            add("resolution", gr.Dropdown, sizes, label="Paint at", info=info)
            info = "where other frames show that place brighter"
            add("shadow", gr.Checkbox, label="Paint over its shadow, too", info=info)
        with closed("Files to write", elem_id="file_settings"):
            info = "else the whole video"
            add("trim", gr.Checkbox, label="Write the chosen part only", info=info)
            exports = [(export.summary, name) for name, export in EXPORTS.items()]
            add("exports", gr.CheckboxGroup, exports, label="Write also")
        with closed("Boxes or masks made before", elem_id="import_settings"):
            self.imported = files_only(
                gr.File(
                    file_types=[".json", ".csv", ".txt", ".zip"], height=100, elem_id="import",
                    show_label=False,
                )
            )  # fmt: skip
            gr.HTML(
                "<p>Boxes: JSON, CSV, MOT, OTB, VOT. Masks: COCO, or a zip of pictures, one per "
                "frame. They take the place of pointing and following.</p>"
            )

    # ---------------------------------------------------------------------------------- wiring

    def _connect(self) -> None:
        run_state = [self.timer, self.run, self.pause, self.cancel, self.status]
        results = [self.results, self.screen]
        everything = [
            self.session_id, self.remembered, self.upload, self.info, self.editor,
            *self.settings.values(), *run_state, *results,
        ]  # fmt: skip
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        # Only these use the segmenter; one at a time, or they would only slow each other down.
        look = {"concurrency_id": "segmenter", "concurrency_limit": 1, **quiet}
        # Asked so often that the way through the queue is not worth it.
        direct = {"queue": False, **quiet}
        busy: dict[str, Any] = {"api_visibility": "private", "show_progress_on": self.upload}
        # Beside the clicks: on a frame that is known these need not wait for another look at it.
        prepared = {**look, "trigger_mode": "always_last", "concurrency_id": "encoder"}

        chosen = [self.settings[name] for name in ADJUSTABLE]
        begun = [self.session_id, *chosen]
        self.upload.upload(self.on_upload, [self.upload, *begun], everything, **busy)
        self.blocks.load(self.on_load, self.remembered, everything, **quiet)
        for name, button in self.samples.items():
            handler = functools.partial(self.on_sample, name)
            button.click(handler, begun, everything, **busy)
        self.blocks.load(self.on_models, None, self.models, **quiet)

        self.editor.act(
            self.on_act, self.session_id, [self.editor, *run_state, *results],
            trigger_mode="multiple", **look,
        )  # fmt: skip
        self.editor.refresh(
            self.on_refresh, self.session_id, [*run_state, *results, self.editor], **direct
        )  # fmt: skip
        self.editor.prepare(self.on_prepare, self.session_id, self.editor, **prepared)
        self.editor.survey(self.on_survey, self.session_id, self.editor, **prepared)
        self.editor.again(self.on_again, self.session_id, [self.editor, self.status], **prepared)
        self.editor.rest(self.on_rest, self.session_id, self.editor, **prepared)

        self.imported.upload(
            self.on_import, [self.session_id, self.imported], [self.imported, *everything], **quiet
        )  # fmt: skip
        gr.on(
            [component.input for component in chosen], self.on_settings, begun,
            [self.editor, self.status, *chosen], trigger_mode="always_last", **look,
        )  # fmt: skip
        # Through the same queue as what is done in the editor, and so after it.
        self.run.click(self.on_run, begun, [*run_state, *results, self.editor], **look)
        self.pause.click(self.on_pause, self.session_id, [*run_state, *results], **direct)
        self.cancel.click(
            self.on_cancel, self.session_id, [*run_state, *results, self.editor], **direct
        )
        self.timer.tick(
            self.on_tick, self.session_id, [*run_state, *results, self.editor], **direct
        )

    # -------------------------------------------------------------------------------- handlers

    def _session(self, session_id: str) -> Session:
        session = self.workspace.find(session_id)
        if session is None:
            raise InputError("Choose a video first.")
        return session

    def _run_state(self, session: Session) -> Updates:
        """The buttons and the status; once a run has ended, its results as well."""
        job = session.job
        active = job is not None and job.active
        paused = job is not None and job.pause.is_set()
        stopping = job is not None and job.stop.is_set()
        updates: Updates = {
            self.timer: gr.Timer(active=active),
            self.run: gr.Button(interactive=not active),
            self.pause: gr.Button(
                "Go on" if active and paused else "Pause", interactive=active and not stopping
            ),
            self.cancel: gr.Button(interactive=active and not stopping),
            self.status: describe_run(self.workspace, session),
        }
        return updates if active else updates | self._results(session)

    def _results(self, session: Session) -> Updates:
        job = session.shown
        if job is None:
            return {self.results: gr.Column(visible=False)}
        begin, trimmed = session.part
        return {
            self.results: gr.Column(visible=True),
            self.screen: {
                "session": session.id,
                "files": [file.name for file in job.files],
                "version": job.id,
                "comparable": session.playable,
                "begin": begin,
                "trimmed": trimmed,
                "width": session.info.size[1],
                "height": session.info.size[0],
                "fps": float(session.info.fps),
            },
        }

    def _everything(self, session: Session) -> Updates:
        return {
            self.session_id: session.id,
            self.remembered: session.id,
            self.info: describe_video(session),
            self.editor: session.view(),
            **self._settings(session),
            **self._run_state(session),
            **self._results(session),
        }

    def _settings(self, session: Session) -> Updates:
        return {self.settings[name]: shown(session.settings, name) for name in ADJUSTABLE}

    def _open(self, session_id: str, path: Path, name: str, values: Sequence[Any] = ()) -> Session:
        session = self.workspace.open(path, name)
        if not holds_project(path):  # which has its own settings
            with suppress(InputError, checkpoints.CheckpointError):  # a run would tell
                session.adjust(**chosen(values))
        before = self.workspace.find(session_id)
        if before is not None:
            before.rest()
        return session

    def on_upload(self, upload: str | None, session_id: str, *values: Any) -> Any:
        if upload is None:
            return gr.skip()
        path = Path(upload)
        try:
            return self._everything(self._open(session_id, path, path.name, values))
        except InputError as error:
            # Not gr.Error, which would leave the bad file in the component.
            gr.Warning(html.escape(str(error)))
            return {self.upload: None}

    @told
    def on_sample(self, name: str, session_id: str, *values: Any) -> Updates:
        session = self._open(session_id, checkpoints.path(name), f"{name}.mp4", values)
        if name == "sample_bikes":
            # Of its several shots, the one where a man walks by.
            session.limit(sample.SHOT.start or 0, sample.SHOT.end)
            session.settle()
            session.seek(sample.PROMPT.frame)
            session.adjust(trim=sample.SHOT.trim)
        return {**self._everything(session), self.upload: None}

    def on_load(self, remembered: str, request: gr.Request) -> Any:
        """Go on with the project in the address, or where this browser was."""
        wanted = request.query_params.get("project")
        session = self.workspace.find(wanted)
        if wanted and session is None:
            gr.Warning(GONE)
        session = session or self.workspace.find(remembered)
        return gr.skip() if session is None else self._everything(session)

    def on_models(self) -> str:
        with self._building:
            if not self._models_text:
                self._models_text = describe_models(self.workspace.models_in_use())
        return self._models_text

    def on_prepare(self, session_id: str) -> Any:
        """Look at the frame ahead of the first click, which will tell of any trouble.

        The page asks for it as often as it is shown a frame that has not been looked at, and so is
        always answered: somebody else may have looked in the meantime.
        """
        session = self.workspace.find(session_id)
        if session is None:
            return gr.skip()
        try:
            session.prepare()
        except (InputError, checkpoints.CheckpointError):
            return {**session.view(), "looking": ""}  # or it would be asked for again at once
        return session.view()

    def on_survey(self, session_id: str) -> Any:
        """Find everything on the frame that is shown now."""
        session = self.workspace.find(session_id)
        if session is None:
            return gr.skip()
        try:
            session.survey(session.frame_index)
        except (InputError, checkpoints.CheckpointError) as error:
            gr.Warning(html.escape(str(error)))
            return {**session.view(), "survey": survey_url([])}  # or it would be asked for again
        return session.view()

    def on_again(self, session_id: str) -> Any:
        """Look for the active object all over the frame that is shown now."""
        session = self.workspace.find(session_id)
        if session is None:
            return gr.skip()
        try:
            session.find_again(session.frame_index)
        except (InputError, checkpoints.CheckpointError) as error:
            gr.Warning(html.escape(str(error)))
        return {self.editor: session.view(), self.status: self._run_state(session)[self.status]}

    def on_rest(self, session_id: str) -> Any:
        """Look closely at small objects, now that nothing has been done for a moment."""
        session = self.workspace.find(session_id)
        if session is None:
            return gr.skip()
        try:
            session.look_closer()
        except (InputError, checkpoints.CheckpointError):
            return gr.skip()
        return session.view()

    def on_act(self, session_id: str, event: gr.EventData) -> Updates:
        """Whatever is done in the editor; see `static/editor.js`."""
        session = self.workspace.find(session_id)
        if session is None:
            gr.Warning(GONE)
            return {self.editor: None}
        try:
            perform(session, dict(event._data))
        except (InputError, checkpoints.CheckpointError) as error:
            gr.Warning(html.escape(str(error)))
        # In any case, or the mark of the click would stay.
        return {self.editor: session.view(), **self._run_state(session)}

    def on_import(self, session_id: str, upload: str | None) -> Any:
        updates: Updates = {self.imported: None}  # it may be sent again
        if upload is None:
            return updates
        path = Path(upload)
        try:
            if holds_project(path):
                return updates | self._everything(self._open(session_id, path, path.name))
            session = self._session(session_id)
            session.take_over(path, path.name)
            updates |= {self.editor: session.view(), **self._run_state(session)}
        except InputError as error:
            gr.Warning(html.escape(str(error)))
        return updates

    def on_settings(self, session_id: str, *values: Any) -> Any:
        """Remember what was chosen; another segmenter changes what clicks show."""
        session = self.workspace.find(session_id)
        if session is None:
            return gr.skip()
        try:
            session.adjust(**chosen(values))
        except (InputError, checkpoints.CheckpointError) as error:
            gr.Warning(html.escape(str(error)))
            return self._settings(session)
        return {self.editor: session.view(), self.status: self._run_state(session)[self.status]}

    @told
    def on_run(self, session_id: str, *values: Any) -> Updates:
        session = self._session(session_id)
        try:
            session.adjust(**chosen(values))
            session.start(self.workspace.jobs)
        except (InputError, checkpoints.CheckpointError) as error:
            gr.Warning(html.escape(str(error)))
            # Another tab may have begun what is under way.
            return {**self._run_state(session), self.editor: session.view()}
        return {**self._run_state(session), self.editor: session.view()}

    @told
    def on_pause(self, session_id: str) -> Updates:
        session = self._session(session_id)
        if session.job is not None:
            session.pause(self.workspace.jobs, not session.job.pause.is_set())
        return self._run_state(session)

    @told
    def on_cancel(self, session_id: str) -> Updates:
        session = self._session(session_id)
        if session.job is not None:
            self.workspace.jobs.cancel(session.job)
        return {**self._run_state(session), self.editor: session.view()}

    def on_refresh(self, session_id: str) -> Any:
        """Show what may have been done in another tab."""
        session = self.workspace.find(session_id)
        if session is None:
            return gr.skip()
        return {**self._run_state(session), self.editor: session.view()}

    def on_tick(self, session_id: str) -> Any:
        session = self.workspace.find(session_id)
        if session is None:
            return gr.skip()
        updates = self._run_state(session)
        if session.job is not None and not session.job.active:
            updates[self.editor] = session.view()  # with the masks and curves that are there now
        return updates


def static_html(name: str, **options: Any) -> Any:
    """A component that is drawn by `static/NAME.js` in `static/NAME.html`."""
    return gr.HTML(
        None,
        html_template=(STATIC / f"{name}.html").read_text(encoding="utf-8"),
        js_on_load=(STATIC / f"{name}.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        **options,
    )


def perform(session: Session, details: dict[str, Any]) -> None:
    """Do what an event of the editor says.

    Raises:
        InputError: it cannot be done, or the page sent something odd.
    """
    actions: dict[str, Callable[..., None]] = {
        "seek": session.seek, "point": session.point, "box": session.draw_box,
        "choose": session.choose, "survey": session.survey, "pick": session.pick,
        "paint": session.paint, "unmark": session.unmark,
        "add": session.add, "select": session.select, "show": session.show,
        "rename": session.rename, "recolor": session.recolor, "decide": session.decide,
        "delete": session.delete, "limit": session.limit, "begin": session.begin,
        "end": session.end, "undo": session.undo, "redo": session.redo, "clear": session.clear,
        "set": session.adjust,
    }  # fmt: skip
    kind = details.pop("kind", None)
    if kind not in actions:
        raise InputError("The page asked for something unknown; load it again.")
    try:
        actions[kind](**details)
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError("The page sent something unknown; load it again.") from error


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


def build_page(workspace: Workspace) -> Page:
    """The page, not yet started."""
    # The one folder that Gradio puts uploads into and serves results from; all in it have random
    # names, and nobody else on this machine can look into it.
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.options.root)
    return Page(workspace)


def launch(page: Page, host: str, port: int, auth: Sequence[tuple[str, str]] | None = None) -> None:
    """Start serving a page and return.

    Args:
        auth: names and passwords of those who may use it; None: everybody who can reach it.

    Raises:
        InputError: the port is taken.
    """
    options = page.workspace.options
    try:
        page.blocks.launch(
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
            auth=list(auth) if auth else None,
            app_kwargs={
                "middleware": [
                    Middleware(NoFetching),
                    Middleware(Files, workspace=page.workspace, at_work=page.at_work),
                ]
            },
            max_file_size=f"{options.max_upload_mb}mb",
            state_session_capacity=100,
            theme=theme(),
            css=(STATIC / "page.css").read_text(encoding="utf-8"),
        )
    except OSError as error:
        raise InputError(
            f"The page cannot be opened at {host}:{port}; choose another --port or --host."
        ) from error


def open_window(url: str) -> bool:
    """Show the page in a window of its own until that is closed; False if there can be none.

    Without pywebview, or without a screen, the page opens in the default browser instead.
    """
    command = [sys.executable, "-m", "demo.window", url]
    if subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode == 0:
        return True
    print("There is no window of its own here (it needs pywebview and a screen).", flush=True)
    webbrowser.open(url)
    return False


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    budget: Budget | None = None,
    *,
    auth: Sequence[tuple[str, str]] = (),
    desktop: bool = False,
) -> int:
    """Show the page until somebody presses Ctrl+C, or closes its window; returns the exit code."""
    options = replace(Options.from_environment(), budget=budget or Budget())
    workspace = Workspace(options)
    page = build_page(workspace)
    try:
        launch(page, host, port, auth)
        print(f"MixCut is at http://{host}:{port} (Ctrl+C ends it).", flush=True)
        if desktop and open_window(f"http://{host}:{port}"):
            return 0
        while True:
            for _ in range(SWEEP_SECONDS):
                time.sleep(1)  # a signal that another thread takes does not end a sleep
            workspace.sweep()
    except KeyboardInterrupt:
        return 0
    finally:
        page.close()
