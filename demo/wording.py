"""What the page says: tasks, stages, and the state of things in words. HTML, no gradio."""

from __future__ import annotations

import html

from demo.jobs import Job
from demo.project import EXPORTS
from demo.rates import Estimate
from demo.run import STAGES, STAGES_OF
from demo.sessions import Session
from demo.workspace import Options, Workspace

# The pipeline's stages as the user reads them.
TITLES = {
    "follow": "Following the object",
    "draw boxes": "Drawing the boxes",
    "cut out": "Cutting it out",
    "draw masks": "Drawing the masks",
    "paint away": "Painting it away",
}


def describe_video(session: Session) -> str:
    info = session.info
    height, width = info.size
    facts = [
        f"{width}x{height}",
        f"{session.frame_count} frame{'s' if session.frame_count != 1 else ''}",
        f"{float(info.fps):.4g} fps",
        f"{info.duration:.1f} s",
        "with sound" if info.has_audio else "no sound",
    ]
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in info.notes)
    return f"<p><b>{html.escape(session.name)}</b></p><p>{', '.join(facts)}</p>{notes}"


def describe_limits(options: Options) -> str:
    budget = options.budget
    return (
        f"Up to {options.max_upload_mb / 1024:.3g} GB, {budget.max_seconds / 60:.0f} minutes, "
        f"{budget.max_frame_pixels / 1e6:.1f} megapixels a frame."
    )


def describe_time(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    return f"about {round(seconds / 60)} min left"


def describe_estimate(estimate: Estimate | None, of: str = "") -> str:
    """What a run will take, as HTML; `of` says which."""
    if estimate is None:
        return ""
    time = "" if estimate.seconds is None else describe_time(estimate.seconds)
    takes = [time.removesuffix(" left"), f"{estimate.memory / 2**30:.1f} GB of memory"]
    text = f"{of}{estimate.frames} frames: {' and '.join(part for part in takes if part)}."
    if estimate.free is not None and estimate.memory > estimate.free:
        text += (
            f" <b class='failed'>Only {estimate.free / 2**30:.1f} GB are free</b>: choose a part "
            "of the video, or a smaller size to paint at."
        )
    return f"<p>{text}</p>"


def describe_run(workspace: Workspace, session: Session) -> str:
    """How the run stands, what the next one will take, and of what the results are, as HTML."""
    job, shown = session.job, session.shown
    if job is None:
        return describe_estimate(workspace.estimate(session))
    if job.active:
        ahead, left = workspace.jobs.ahead_of(job), workspace.seconds_left(session)
        text = _describe_active(job, ahead, left)
    else:
        text = _describe_ended(job)
        if session.changed:
            text += describe_estimate(workspace.estimate(session), "Next run: ")
    if shown is None:
        return text
    of = "are from an earlier run" if shown is not job else "are from before your last changes"
    if shown is job and not session.changed:
        return f"{text}<p><a href='#results'>The results are below.</a></p>"
    return f"{text}<p><a href='#results'>The results below</a> {of}.</p>"


def _describe_active(job: Job, ahead: int, left: float | None) -> str:
    """How far a run is.

    Args:
        ahead: how many have to end before it begins.
        left: seconds until it is done, if there is something to go by.
    """
    if job.stop.is_set():
        return "<p role='status'>Stopping.</p>"
    paused = job.pause.is_set()
    if job.state == "waiting" and paused:
        return (
            "<p role='status'>It is paused; others may run meanwhile. It goes on from the last "
            "finished step.</p>"
        )
    if job.state == "waiting" and ahead:
        jobs = "1 job is" if ahead == 1 else f"{ahead} jobs are"
        return f"<p role='status'>Waiting: {jobs} before yours.</p>"
    p = job.progress
    if not p.stage:
        return f"<p role='status'>Loading the models{', paused' if paused else ''}.</p>"
    stages = [*STAGES[: STAGES_OF[job.task]], *(f"export {name}" for name in job.exports)]
    title = TITLES.get(p.stage) or f"Writing the {EXPORTS[p.stage.split()[1]].summary}"
    title = html.escape(title)
    numbers = [f"frame {p.done} of {p.total}"] if p.done else ["getting ready"]
    if paused:
        numbers.append("paused")
    elif left:
        numbers.append(describe_time(left))
    share = 100 * p.done / max(p.total, 1)
    return (
        f"<p role='status'>Step {stages.index(p.stage) + 1} of {len(stages)}: <b>{title}</b></p>"
        f"<div class='bar' role='progressbar' aria-label='{title}' aria-valuenow='{share:.0f}'>"
        f"<i style='width: {share:.1f}%'></i></div><p>{', '.join(numbers)}</p>"
    )


def _describe_ended(job: Job) -> str:
    if job.state == "cancelled":
        return "<p role='status'>Stopped. Finished steps are kept; Run goes on from there.</p>"
    if job.state == "failed":
        return f"<p role='alert' class='failed'>{html.escape(job.error)}</p>"
    notes = job.result.notes if job.result is not None else []
    return "<p role='status'><b>Done.</b></p>" + "".join(
        f"<p>{html.escape(note)}</p>" for note in notes
    )


def describe_models(rows: list[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<li>{role} with <b>{html.escape(name)}</b> <span>{html.escape(weights)}</span></li>"
        for role, name, weights in rows
    )
    return f"<p>In use on this computer:</p><ul>{cells}</ul>"
