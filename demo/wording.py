"""What the page says: tasks, stages, and the state of things in words. HTML, no gradio."""

from __future__ import annotations

import html

from demo.jobs import Job
from demo.project import EXPORTS
from demo.rates import Estimate
from demo.run import STAGES, STAGES_OF
from demo.sessions import Session
from demo.workspace import Options

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


def describe_estimate(estimate: Estimate | None) -> str:
    """What a run will take, as HTML."""
    if estimate is None:
        return ""
    time = "" if estimate.seconds is None else describe_time(estimate.seconds)
    takes = [time.removesuffix(" left"), f"{estimate.memory / 2**30:.1f} GB of memory"]
    text = f"{estimate.frames} frames: {' and '.join(part for part in takes if part)}."
    if estimate.free is not None and estimate.memory > estimate.free:
        text += (
            f" <b class='failed'>Only {estimate.free / 2**30:.1f} GB are free</b>: choose a part "
            "of the video, or a smaller size to paint at."
        )
    return f"<p>{text}</p>"


def describe_job(job: Job | None, ahead: int, session: str, left: float | None = None) -> str:
    """The state of a run, as HTML.

    Args:
        ahead: how many have to end before it begins.
        session: the id that its pictures are asked for by.
        left: seconds until it is done, if there is something to go by.
    """
    if job is None:
        return ""
    if job.state == "waiting" and ahead:
        jobs = "1 job is" if ahead == 1 else f"{ahead} jobs are"
        return f"<p role='status'>Waiting: {jobs} before yours.</p>"
    if job.active:
        if job.stop.is_set():
            return "<p role='status'>Stopping.</p>"
        p = job.progress
        if not p.stage:
            return "<p role='status'>Loading the models.</p>"
        stages = [*STAGES[: STAGES_OF[job.task]], *(f"export {name}" for name in job.exports)]
        title = TITLES.get(p.stage) or f"Writing the {EXPORTS[p.stage.split()[1]].summary}"
        numbers = [f"frame {p.done} of {p.total}"] if p.done else ["getting ready"]
        if job.pause.is_set():
            numbers.append("paused")
        elif left:
            numbers.append(describe_time(left))
        share = 100 * p.done / max(p.total, 1)
        picture = ""
        if job.picture is not None:
            url = f"media/{session}/picture.jpg?{p.stage.replace(' ', '-')}-{job.picture[0]}"
            picture = f"<img src='{url}' alt='Frame {job.picture[0]}, as it has just been made'>"
        return (
            f"<p role='status'>Step {stages.index(p.stage) + 1} of {len(stages)}: "
            f"<b>{html.escape(title)}</b></p>"
            f"<div class='bar' role='progressbar' aria-label='{p.stage}' "
            f"aria-valuenow='{share:.0f}'><i style='width: {share:.1f}%'></i></div>"
            f"<p>{', '.join(numbers)}</p>{picture}"
        )
    if job.state == "cancelled":
        return "<p role='status'>Stopped. Finished steps are kept; Run goes on from there.</p>"
    if job.state == "failed":
        return f"<p role='alert' class='failed'>{html.escape(job.error)}</p>"
    result = job.result
    assert result is not None
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in result.notes)
    return f"<p role='status'><b>Done.</b> <a href='#results'>The results are below.</a></p>{notes}"


def describe_models(rows: list[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<li>{role} with <b>{html.escape(name)}</b> <span>{html.escape(weights)}</span></li>"
        for role, name, weights in rows
    )
    return f"<p>In use on this computer:</p><ul>{cells}</ul>"
