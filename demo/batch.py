"""The headless command for many videos: one folder of results each, one line each, no surprises."""

from __future__ import annotations

import argparse
import csv
import glob
import json
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demo.cli import (
    Progress,
    budget_from,
    parse_box,
    parse_point,
    prompts_from,
    settings_from,
)
from demo.failures import EXIT_FAILED, EXIT_OK, Cancelled, explain
from demo.pipeline import Models
from demo.project import ObjectPrompt, Settings, object_color, object_name
from demo.run import check_models, run
from media import InputError
from media.info import Budget
from media.pictures import SUFFIXES

VIDEO_SUFFIXES = {
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".3gp", ".wmv", ".flv", ".gif",
}  # fmt: skip
PICTURE_SUFFIXES = set(SUFFIXES) - {".gif"}  # each of which is a video by itself
COLUMNS = (
    "video", "box", "point", "mask", "frame", "name", "start", "end", "tracks", "masks",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One video, what to follow in it, and where its results go."""

    video: Path
    folder: Path
    objects: list[ObjectPrompt]
    settings: Settings


def find_videos(source: str) -> list[Path]:
    """Videos that `source` names: a folder, a file, a pattern, or a .txt list of paths.

    In a folder its videos count, and each subfolder that holds pictures counts as one.

    Raises:
        InputError: there are none.
    """
    path = Path(source)
    if not source:
        found = []  # and not the working folder, which an empty path stands for
    elif path.is_dir():
        found = [
            p
            for p in sorted(path.iterdir())
            if (_holds_pictures(p) if p.is_dir() else p.suffix.lower() in VIDEO_SUFFIXES)
        ]
        if not found and _holds_pictures(path):
            found = [path]
    elif path.suffix.lower() == ".txt" and path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as a list of paths in UTF-8.") from error
        names = dict.fromkeys(line.strip() for line in lines)
        found = [path.parent / name for name in names if name and not name.startswith("#")]
    elif path.exists():
        found = [path]
    else:
        found = [Path(p) for p in sorted(glob.glob(source))]
    if not found:
        raise InputError(
            f"No video was found at “{source}”; give a folder with videos, a file, a pattern or a "
            ".txt list of paths."
        )
    return found


def _holds_pictures(folder: Path) -> bool:
    return any(p.suffix.lower() in PICTURE_SUFFIXES for p in folder.iterdir())


def plan(args: argparse.Namespace) -> list[Job]:
    """The list of jobs, checked as far as that goes without opening a video."""
    settings = settings_from(args, args.do)
    videos = find_videos(args.source)
    if args.jobs:
        if args.prompts or args.point or args.box or args.mask or args.frame or args.name:
            raise InputError("Give either --jobs or a prompt for all videos, not both.")
        if args.tracks or args.masks:
            raise InputError("With --jobs, tracks and masks are columns of that file.")
        return _name_folders(args.out, _jobs_from_csv(args.jobs, videos, settings))
    if args.tracks or args.masks:
        raise InputError("Each video has tracks or masks of its own: name them with --jobs.")
    objects = prompts_from(args)
    return _name_folders(args.out, [(video, objects, settings) for video in videos])


def _jobs_from_csv(
    path: Path, videos: list[Path], settings: Settings
) -> list[tuple[Path, list[ObjectPrompt], Settings]]:
    """Rows of the same video are objects of that video, in order."""
    by_name = {key: v for v in videos for key in (v.name, v.stem, str(v))}
    jobs: dict[Path, tuple[list[ObjectPrompt], Settings]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            unknown = set(rows.fieldnames or ()) - set(COLUMNS)
            if "video" not in (rows.fieldnames or ()) or unknown:
                raise InputError(
                    f"{path} needs a column “video” and may have {', '.join(COLUMNS[1:])}"
                    + (f"; it also has {', '.join(sorted(map(str, unknown)))}." if unknown else ".")
                )
            for line, row in enumerate(rows, start=2):
                if None in row:
                    raise InputError(f"{path}, line {line}: there are more values than columns.")
                video = by_name.get(row["video"] or "")
                if video is None:
                    raise InputError(f"{path}, line {line}: there is no video “{row['video']}”.")
                objects, span = jobs.get(video, ([], settings))
                try:
                    if row.get("start"):
                        span = replace(span, start=_frame(row["start"]))
                    if row.get("end"):
                        span = replace(span, end=_frame(row["end"]))
                    if row.get("tracks"):
                        span = replace(span, tracks=path.parent / row["tracks"])
                    if row.get("masks"):
                        span = replace(span, masks=path.parent / row["masks"])
                    jobs[video] = (objects, span)
                    if span.tracks or span.masks:
                        continue
                    number = len(objects) + 1
                    objects.append(
                        ObjectPrompt(
                            id=number,
                            name=row.get("name") or object_name(number),
                            color=object_color(number),
                            frame=_frame(row.get("frame") or "0"),
                            points=tuple(parse_point(p) for p in (row.get("point") or "").split()),
                            box=parse_box(row["box"]) if row.get("box") else None,
                            mask=path.parent / row["mask"] if row.get("mask") else None,
                        )
                    )
                except InputError as error:
                    raise InputError(f"{path}, line {line}: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    if not jobs:
        raise InputError(f"{path} names no video.")
    return [(video, objects, span) for video, (objects, span) in jobs.items()]


def _frame(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"“{text}” is not the number of a frame.") from None


def _name_folders(out: Path, jobs: list[tuple[Path, list[ObjectPrompt], Settings]]) -> list[Job]:
    """Results go to OUT/<name without ending>; two videos of the same name keep their endings."""
    stems = [video.stem for video, _, _ in jobs]
    names = [
        video.name.replace(".", "_") if stems.count(video.stem) > 1 else video.stem
        for video, _, _ in jobs
    ]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"Two videos are called {twice}; their results would share one folder.")
    return [Job(v, out / n, o, s) for n, (v, o, s) in zip(names, jobs, strict=True)]


def run_batch(args: argparse.Namespace) -> int:
    """Run every job; a failing video never stops the others.

    Returns 0 if all were done (now or earlier) and 1 if any failed.

    Raises:
        InputError, checkpoints.CheckpointError: what would fail all of them, before the first.
    """
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit takes a number from 1, not {args.limit}.")
    jobs, budget = plan(args)[: args.limit], budget_from(args)
    models = Models(settings_from(args, args.do))
    for job in jobs:
        check_models(models, job.settings, job.objects)
    failures = 0
    for number, job in enumerate(jobs, start=1):
        if not args.json:
            print(f"[{number}/{len(jobs)}] {job.video}")
        line = _run_job(job, args, budget, models)
        failures += line["status"] == "failed"
        if args.json:
            print(json.dumps(line), flush=True)
        else:
            print("  " + (line["error"] or f"{line['status']}, {line['seconds']} s, {job.folder}"))
    return EXIT_FAILED if failures else EXIT_OK


def _run_job(job: Job, args: argparse.Namespace, budget: Budget, models: Models) -> dict[str, Any]:
    progress = None if args.json else Progress()
    line: dict[str, Any] = {
        "video": str(job.video), "out": str(job.folder), "status": "done", "error": None,
    }  # fmt: skip
    began = time.perf_counter()
    try:
        result = run(
            job.video, job.folder, job.objects, job.settings, budget=budget,
            overwrite=args.overwrite, report=progress, models=models,
        )  # fmt: skip
        line["status"] = "done" if result.seconds else "skipped"
        line.update(frames=result.frames, notes=result.notes)
    except (KeyboardInterrupt, Cancelled):
        raise
    except Exception as error:
        if args.traceback:
            traceback.print_exc(file=sys.stderr)
        line["error"], _ = explain(error)
        line["status"] = "failed"
    finally:
        if progress:
            progress.close()
    line["seconds"] = round(time.perf_counter() - began, 1)
    return line
