"""The command line: `python -m demo` opens the page, `track | segment | remove` do one video,
`batch` does many."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from demo.failures import EXIT_OK, explain
from demo.project import (
    EXPORTS,
    OUTPUTS,
    Box,
    ObjectPrompt,
    Point,
    Settings,
    object_color,
)
from demo.prompts import load_prompts
from media import InputError
from media.command_line import Parser, escape_what_cannot_be_shown
from media.info import Budget

# ------------------------------------------------------------------------------ values of arguments


def parse_point(text: str) -> Point:
    """`x,y` or `x,y,1` lies on the object, `x,y,0` does not."""
    try:
        x, y, *label = text.split(",")
        point = (float(x), float(y), int(label[0]) if label else 1)
        if len(label) > 1 or point[2] not in (0, 1):
            raise ValueError
    except ValueError:
        raise InputError(
            f"The point “{text}” is not x,y or x,y,1 (on the object) or x,y,0 (not on it)."
        ) from None
    return point


def parse_box(text: str) -> Box:
    """`x0,y0,x1,y1` in pixels, x1 and y1 just outside."""
    try:
        x0, y0, x1, y1 = (float(v) for v in text.split(","))
    except ValueError:
        raise InputError(f"The box “{text}” is not four numbers x0,y0,x1,y1.") from None
    return x0, y0, x1, y1


def parse_login(text: str) -> tuple[str, str]:
    """`NAME:PASSWORD`; the password may hold further colons."""
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise InputError("--auth takes a name and a password: NAME:PASSWORD.")
    return name, password


def prompts_from(args: argparse.Namespace) -> list[ObjectPrompt]:
    """The objects that --prompts, or --point, --box and --mask, describe."""
    if args.tracks or args.masks:
        if args.prompts or args.point or args.box or args.mask:
            raise InputError("Say what to follow, or give --tracks or --masks, but not both.")
        return []
    if args.prompts:
        if args.point or args.box or args.mask or args.name:
            raise InputError("Give either --prompts or --point, --box, --mask and --name.")
        return load_prompts(args.prompts)
    return [
        ObjectPrompt(
            id=1,
            name=args.name or "object",
            color=object_color(1),
            frame=args.frame,
            points=tuple(parse_point(p) for p in args.point),
            box=parse_box(args.box) if args.box else None,
            mask=args.mask,
        )
    ]


def settings_from(args: argparse.Namespace, do: str) -> Settings:
    """What the options of a run say; raises InputError where they contradict each other."""
    return Settings(
        do=do,  # type: ignore[arg-type]  # argparse allows these three only
        start=args.start,
        end=args.end,
        trim=args.trim,
        tracker=args.tracker,
        segmenter=args.segmenter,
        inpainter=args.inpainter,
        device=args.device,
        steady=args.steady,
        resolution=args.resolution,
        dilate=args.dilate,
        shadow=args.shadow,
        feather=args.feather,
        tracks=args.tracks,
        masks=args.masks,
        exports=tuple(dict.fromkeys(args.export)),
    )


# ------------------------------------------------------------------------------------------- parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    defaults = Settings()
    _add_out(parser)
    prompt = parser.add_argument_group("what to follow")
    prompt.add_argument(
        "--point", action="append", default=[], metavar="X,Y[,0|1]",
        help="a point on the object, or with ,0 one that is not; may be repeated",
    )  # fmt: skip
    prompt.add_argument("--box", metavar="X0,Y0,X1,Y1", help="a box around the object, in pixels")
    prompt.add_argument("--mask", type=Path, metavar="PNG", help="a picture, white on the object")
    prompt.add_argument(
        "--frame", type=int, default=0, metavar="N",
        help="the frame all this belongs to, from 0, in the range or beside it; followed both ways"
        " from there (default 0)",
    )  # fmt: skip
    prompt.add_argument("--name", help="what the object is called in the results")
    prompt.add_argument("--prompts", type=Path, metavar="JSON", help="several objects from a file")
    prompt.add_argument(
        "--tracks", type=Path, metavar="FILE",
        help="boxes made before, in place of following: JSON, CSV, MOT, OTB or VOT",
    )  # fmt: skip
    prompt.add_argument(
        "--masks", type=Path, metavar="PATH",
        help="masks made before, in place of following: a folder of pictures, or a zip of one, or a"
        " COCO file",
    )  # fmt: skip
    span = parser.add_argument_group("which part")
    span.add_argument("--start", type=int, metavar="N", help="first frame to work on (default 0)")
    span.add_argument("--end", type=int, metavar="N", help="the frame after the last one")
    span.add_argument("--trim", action="store_true", help="write that part only, sound included")
    how = parser.add_argument_group("how")
    for stage in ("tracker", "segmenter", "inpainter"):
        how.add_argument(
            f"--{stage}", default="auto", metavar="NAME",
            help="default auto: the best whose weights are on this machine; see"
            " `python -m checkpoints list`",
        )  # fmt: skip
    how.add_argument(
        "--device", default=defaults.device, help="auto (default), cpu, cuda, cuda:1 or mps"
    )
    how.add_argument(
        "--steady", type=float, default=defaults.steady, metavar="0-0.9",
        help="how much the mask of the frame before counts: more, less flicker "
        f"(default {defaults.steady:g})",
    )  # fmt: skip
    how.add_argument(
        "--resolution", type=int, metavar="PIXELS",
        help="longer side of what is worked on when painting away; less takes less time and memory"
        " (default: the inpainter's own choice)",
    )  # fmt: skip
    how.add_argument(
        "--dilate", type=int, metavar="PIXELS",
        help="grow the mask by this much before painting away (default: by the object's size)",
    )  # fmt: skip
    how.add_argument(
        "--shadow", action="store_true", help="also paint over the shadow beside the object"
    )
    how.add_argument(
        "--feather", type=float, default=defaults.feather, metavar="PIXELS",
        help=f"softness of a cut-out's edge (default {defaults.feather:g})",
    )  # fmt: skip
    how.add_argument(
        "--export", action="append", default=[], metavar="NAME",
        help="write this besides; may be repeated: "
        + "; ".join(f"{name} = {export.summary}" for name, export in EXPORTS.items()),
    )  # fmt: skip
    how.add_argument("--overwrite", action="store_true", help="replace results of another video")
    _add_limits(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for results")
    parser.add_argument("--traceback", action="store_true", help="show where a failure happened")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits, checked before anything is decoded")
    usual = Budget()
    limits.add_argument(
        "--max-megapixels", type=float, metavar="MP", default=usual.max_frame_pixels / 1e6,
        help=f"largest frame (default {usual.max_frame_pixels / 1e6:.1f})",
    )  # fmt: skip
    limits.add_argument(
        "--max-minutes", type=float, metavar="MIN", default=usual.max_seconds / 60,
        help=f"longest video (default {usual.max_seconds / 60:g})",
    )  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; also read by the documentation's tests."""
    parser = Parser(
        prog="python -m demo",
        description="Without a command, this opens the page in which one clicks on a thing in a "
        "video. The commands do the same from here: follow it, cut it out, or paint it away.",
    )
    parser.add_argument("--port", type=int, default=7860, help="the page's port (default 7860)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the page's address (default 127.0.0.1, this machine)"
    )
    parser.add_argument(
        "--auth", action="append", default=[], metavar="NAME:PASSWORD",
        help="ask for a name and a password; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--desktop", action="store_true",
        help="open the page in a window of its own (needs pywebview), or else in the browser",
    )  # fmt: skip
    _add_limits(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, text in (
        ("track", "follow the object: tracked.mp4, tracks.csv, tracks.json"),
        ("segment", "also cut it out: masks/, segmented.mp4"),
        ("remove", "also paint it away: removed.mp4"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("input", type=Path, help="a video, a GIF, or a folder of pictures")
        _add_run_options(command)
    text = "many videos, one folder of results each"
    batch = commands.add_parser("batch", help=text, description=text)
    batch.add_argument(
        "source", help="a folder, a video, a pattern such as 'clips/*.mp4', or a .txt list of paths"
    )
    batch.add_argument(
        "--do", choices=("track", "segment", "remove"), default="track",
        help="what to do with each video, as the commands of these names (default track)",
    )  # fmt: skip
    batch.add_argument(
        "--jobs", type=Path, metavar="CSV",
        help="one row per object: columns video, and any of box, point, mask, frame, name, start,"
        " end, tracks, masks (several points are separated by spaces)",
    )  # fmt: skip
    batch.add_argument("--json", action="store_true", help="print one JSON line per video")
    batch.add_argument("--limit", type=int, metavar="N", help="do the first N videos only")
    _add_run_options(batch)
    text = "follow a cyclist in a sample clip, cut him out and paint him away"
    sample = commands.add_parser("sample", help=text, description=text)
    _add_out(sample)
    return parser


# ----------------------------------------------------------------------------------------- commands


class Progress:
    """One bar per stage on the terminal, with frames done, speed and time left."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or self._stage != stage:
            self.close()
            self._stage = stage
            # A log file gets a line every 10 seconds instead of ten a second.
            interval = 0.2 if sys.stderr.isatty() else 10.0
            self._bar = tqdm(
                desc=stage, total=total, unit="frame", mininterval=interval, dynamic_ncols=True
            )
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def run_one(
    source: Path, out: Path, objects: list[ObjectPrompt], settings: Settings, **how: Any
) -> int:
    """Do one video and say what was written; `how` goes to `demo.run.run`."""
    from demo.run import run  # loads torch, which --help can do without

    progress = Progress()
    began = time.perf_counter()
    try:
        result = run(source, out, objects, settings, report=progress, **how)
    finally:
        progress.close()
    for note in result.notes:
        print(f"Note: {note}")
    older = [n for n in OUTPUTS if (out / n).exists() and result.folder / n not in result.outputs]
    if older:
        print(f"Note: of an earlier run is what {out} holds besides: {', '.join(older)}.")
    print(f"Done in {time.perf_counter() - began:.0f} s:")
    for path in [*result.outputs, result.folder / "run.json"]:
        print(f"  {path}")
    return EXIT_OK


def budget_from(args: argparse.Namespace) -> Budget:
    """The limits on the input.

    Raises:
        InputError: nothing could keep to one of them.
    """
    megapixels, minutes = args.max_megapixels, args.max_minutes
    for option, value in (("--max-megapixels", megapixels), ("--max-minutes", minutes)):
        if not 0 < value <= 1e6:
            raise InputError(f"{option} takes a number above 0, up to a million, not {value:g}.")
    return Budget(max_frame_pixels=round(megapixels * 1e6), max_seconds=minutes * 60)


def dispatch(args: argparse.Namespace) -> int:
    """Do what was asked for, the page without a command, and return the exit code."""
    if args.command is None:
        if not 0 < args.port < 2**16:
            raise InputError(f"--port takes a number from 1 to 65535, not {args.port}.")
        from demo.app import serve

        return serve(
            host=args.host, port=args.port, budget=budget_from(args),
            auth=[parse_login(text) for text in args.auth], desktop=args.desktop,
        )  # fmt: skip
    if args.command == "batch":
        from demo.batch import run_batch

        return run_batch(args)
    if args.command == "sample":
        from demo.sample import PROMPT, SHOT, prepare

        code = run_one(prepare(args.out), args.out, [PROMPT], SHOT)
        print("Open the page with `make page` (http://127.0.0.1:7860) to click on your own video.")
        return code
    return run_one(
        args.input, args.out, prompts_from(args), settings_from(args, args.command),
        budget=budget_from(args), overwrite=args.overwrite,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad input."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    escape_what_cannot_be_shown()
    stopped = show = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # a killed run tidies up like an interrupted one
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        args = build_parser().parse_args(argv)
        show = getattr(args, "traceback", False)
        return dispatch(args)
    except (Exception, KeyboardInterrupt) as error:
        if show:
            traceback.print_exc()
        # An import that is interrupted may raise something else.
        sentence, code = explain(KeyboardInterrupt() if stopped else error)
        hint = " Add --traceback to see where." if "unexpectedly" in sentence and not show else ""
        print(f"Error: {sentence}{hint}", file=sys.stderr)
        return code
