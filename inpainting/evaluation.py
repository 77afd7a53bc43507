"""Paint over holes whose true content is known, and compare: the protocol, the methods, the table.

The protocol is fixed. Frames of one sequence get the holes of another: its masks, grown by a 3x3
cross four times. In a pair `frames+masks` the first name gives the frames and the second the masks.
That is the order that explains the figures known from elsewhere for the four pairs: Telea's method
27.9 dB and a copy of the nearest visible pixel 26.4 dB on every eighth frame. Here they reach 27.5
and 26.1; the other way round Telea's has 23.9. On request every sequence of frames is also painted
with a box that stands still. Everything is 432x240, at most 50 frames; results are compared as
uint8, over the whole frame, and averaged over frames. What a hole hides is blanked before any
method sees it.

VFID compares sets of videos, so it stands in the rows of means alone, where I3D's weights are
given.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import checkpoints
from inpainting.base import Frame, Mask, build_inpainter, check_inpainter, list_inpainters
from inpainting.lpips import load_lpips
from inpainting.metrics import WarpingError, psnr, ssim
from inpainting.vfid import I3D, frechet
from media import InputError
from media.device import resolve_device
from media.files import replacing

SIZE = (240, 432)
PAIRS = ("blackswan+camel", "dog+car-shadow", "camel+bmx-trees", "car-shadow+blackswan")
BOX = (80, 108)  # height, width of the box that stands still
MOST = 50  # frames of a clip

Method = Callable[[list[Frame], list[Mask]], Iterator[Frame]]


# ---------------------------------------------------------------------------- the holes


@dataclass(frozen=True)
class Clip:
    """True frames and the holes to paint over."""

    name: str
    moving: bool
    truth: list[Frame]
    holes: list[Mask]

    def blanked(self) -> list[Frame]:
        """The frames as a method gets them: black where the holes are."""
        return [
            np.where(hole[..., None], np.uint8(0), frame)
            for frame, hole in zip(self.truth, self.holes, strict=True)
        ]


def load_pair(data: Path, pair: str, *, frames: int = MOST) -> Clip:
    """The frames of one sequence with the moving masks of another.

    Args:
        data: a folder of sequences, each with JPEGImages/ and Annotations/, or DAVIS itself.
        pair: "frames+masks", the names of two sequences.
        frames: how many at most.

    Raises:
        InputError: A name is missing, there are no pictures under it, or only one that both have.
    """
    first, plus, second = pair.partition("+")
    if not plus or not first or not second:
        raise InputError(f"The pair {pair!r} is not two names FRAMES+MASKS.")
    truth = [_read(p, "RGB", Image.Resampling.BICUBIC) for p in _files(data, "JPEGImages", first)]
    masks = [_read(p, "L", Image.Resampling.NEAREST) for p in _files(data, "Annotations", second)]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    holes = [cv2.dilate((m > 0).astype(np.uint8), cross, iterations=4) > 0 for m in masks]
    count = min(frames, len(truth), len(holes))
    if count < 2:
        raise InputError(
            f"The pair {pair} has only one frame; give sequences of 2 or more, to see how steady "
            "what is painted is."
        )
    return Clip(pair, True, truth[:count], holes[:count])


def still_box(clip: Clip, *, seed: int = 0) -> Clip:
    """The same frames with one box that stands still, at a place drawn from the clip's name."""
    name = clip.name.partition("+")[0]
    random = np.random.default_rng([seed, *name.encode()])
    y, x = (
        int(random.integers(16, size - side - 15)) for size, side in zip(SIZE, BOX, strict=True)
    )
    hole = np.zeros(SIZE, bool)
    hole[y : y + BOX[0], x : x + BOX[1]] = True
    return Clip(f"{name}+box", False, clip.truth, [hole] * len(clip.truth))


def _files(data: Path, kind: str, name: str) -> list[Path]:
    tried = (data / name / kind, data / kind / "480p" / name, data / kind / name)
    for folder in tried:
        found = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        if found:
            return found[:MOST]
    raise InputError(f"There are no pictures in {tried[0]}; --data names a folder of sequences.")


def _read(path: Path, mode: str, method: Image.Resampling) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert(mode).resize(SIZE[::-1], method))
    except OSError as error:
        raise InputError(f"{path} is not a picture that can be read.") from error


# ---------------------------------------------------------------------------- the methods


def telea(frames: list[Frame], holes: list[Mask]) -> Iterator[Frame]:
    """Each frame by itself: Telea, "An Image Inpainting Technique Based on Fast Marching", 2004."""
    for frame, hole in zip(frames, holes, strict=True):
        yield cv2.inpaint(frame, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def nearest(frames: list[Frame], holes: list[Mask]) -> Iterator[Frame]:
    """Each pixel from the nearest frame in time that shows its place; Telea where none does."""
    for index, (frame, hole) in enumerate(zip(frames, holes, strict=True)):
        picture, missing = frame.copy(), hole.copy()
        for other in sorted(range(len(frames)), key=lambda i: abs(i - index)):
            shown = missing & ~holes[other]
            picture[shown] = frames[other][shown]
            missing &= ~shown
        if missing.any():
            picture = cv2.inpaint(picture, missing.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        yield picture


def _migan(device: str) -> Method:
    from inpainting.propagation import Generator

    generator = Generator(checkpoints.path("migan"), resolve_device(device))

    def paint(frames: list[Frame], holes: list[Mask]) -> Iterator[Frame]:
        for frame, hole in zip(frames, holes, strict=True):
            yield generator(frame, hole) if hole.any() else frame

    return paint


BASELINES = ("nearest", "telea", "migan")


def check_method(name: str, *, weights: Path | None = None) -> None:
    """Raise what `build_method` would, as far as is known without loading anything.

    Raises:
        InputError: There is no such method, or it takes no weights.
        checkpoints.CheckpointError: Its weights are not there.
    """
    known = (*list_inpainters(), *BASELINES)
    if name not in known:
        raise InputError(f"There is no method called {name!r}; choose from {', '.join(known)}.")
    if name in BASELINES and weights is not None:
        raise InputError(f"The method {name} takes no weights of your own; leave them out.")
    if name == "migan":
        checkpoints.path(name)
    elif name not in BASELINES and weights is None:
        check_inpainter(name)


def build_method(name: str, *, device: str = "auto", weights: Path | None = None) -> Method:
    """A method by name: an inpainter, painting exactly the holes, or one of the baselines.

    Raises:
        InputError: There is no such method, or it takes no weights.
        checkpoints.CheckpointError: Its weights are not there.
    """
    check_method(name, weights=weights)
    if name in BASELINES:
        return {"nearest": nearest, "telea": telea}.get(name) or _migan(device)
    inpainter = build_inpainter(name, device=device, weights=weights, dilate=0)
    return lambda frames, holes: inpainter.inpaint(frames, holes)


# ---------------------------------------------------------------------------- the scores


@dataclass(frozen=True)
class Score:
    """One method on one clip; `lpips` and `vfid` are None where their weights are not at hand."""

    method: str
    clip: str
    moving: bool
    frames: int
    psnr: float  # dB
    ssim: float
    lpips: float | None
    warping: float  # mean squared difference in [0, 1]
    seconds: float  # CPU time of this process per frame
    vfid: float | None = None  # of several clips
    seen: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False, compare=False)
    """What I3D sees in the painted clip and in the true one."""

    def row(self) -> dict[str, object]:
        """What is written down."""
        return {key: value for key, value in asdict(self).items() if key != "seen"}


def score(
    name: str,
    method: Method,
    clip: Clip,
    *,
    every: int = 1,
    i3d: I3D | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Score:
    """Run a method over a clip and compare what it paints with what is true.

    Pixels outside the holes are set to the true ones first: a method answers for its holes alone.

    Args:
        name: for the table.
        method: what paints.
        clip: frames and holes.
        every: score every so many frames only, from 1 up; all are painted. Does not touch the
            warping error.
        i3d: for VFID.
        tick: called after each frame.
    """
    weights = checkpoints.find("lpips_alex")
    lpips = None if weights is None else load_lpips(weights)
    psnrs, ssims, distances, steady = [], [], [], WarpingError()
    frames, busy = clip.blanked(), 0.0
    film: list[Frame] = []
    painted = iter(method(frames, clip.holes))
    for index, (truth, hole) in enumerate(zip(clip.truth, clip.holes, strict=True)):
        began = time.process_time()
        frame = next(painted)
        busy += time.process_time() - began
        frame = np.where(hole[..., None], frame, truth)
        steady.add(frame, truth)
        if i3d is not None:
            film.append(frame)
        if index % every == 0:
            psnrs.append(psnr(frame, truth))
            ssims.append(ssim(frame, truth))
            if lpips is not None:
                distances.append(lpips.between(frame, truth))
        tick()
    return Score(
        method=name,
        clip=clip.name,
        moving=clip.moving,
        frames=len(clip.truth),
        psnr=float(np.mean(psnrs)),
        ssim=float(np.mean(ssims)),
        lpips=float(np.mean(distances)) if distances else None,
        warping=steady.mean(),
        seconds=busy / len(clip.truth),
        seen=None if i3d is None else (i3d.of(film), i3d.of(clip.truth)),
    )


def mean_of(scores: Sequence[Score], clip: str) -> Score:
    """The mean of one method's scores, each clip counting the same."""

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    distances = [s.lpips for s in scores if s.lpips is not None]
    seen = [s.seen for s in scores if s.seen is not None]
    vfid = None
    if len(seen) == len(scores) > 1:
        painted, true = (np.stack(features) for features in zip(*seen, strict=True))
        vfid = frechet(painted, true)
    return Score(
        method=scores[0].method,
        clip=clip,
        moving=scores[0].moving,
        frames=sum(s.frames for s in scores),
        psnr=mean([s.psnr for s in scores]),
        ssim=mean([s.ssim for s in scores]),
        lpips=mean(distances) if len(distances) == len(scores) else None,
        warping=mean([s.warping for s in scores]),
        seconds=mean([s.seconds for s in scores]),
        vfid=vfid,
    )


def with_means(scores: Sequence[Score]) -> list[Score]:
    """Scores, and after each method's the means over its moving and over its still holes."""
    rows: list[Score] = []
    for method in dict.fromkeys(s.method for s in scores):
        own = [s for s in scores if s.method == method]
        rows += own
        for moving, title in ((True, "mean, moving holes"), (False, "mean, still boxes")):
            some = [s for s in own if s.moving == moving]
            if some:
                rows.append(mean_of(some, title))
    return rows


def as_markdown(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table; the warping error is shown in thousandths."""
    videos = any(s.vfid is not None for s in scores)
    lines = [
        "| method | clip | frames | PSNR, dB | SSIM | LPIPS | warping error, 1e-3 | CPU s/frame |"
        + " VFID |" * videos,
        "|---|---|---|---|---|---|---|---|" + "---|" * videos,
    ]
    for s in scores:
        distance = "" if s.lpips is None else f"{s.lpips:.4f}"
        whole = "" if s.vfid is None else f"{s.vfid:.4f}"
        lines.append(
            f"| {s.method} | {s.clip} | {s.frames} | {s.psnr:.2f} | {s.ssim:.4f} | {distance} "
            f"| {1000 * s.warping:.3f} | {s.seconds:.3f} |" + f" {whole} |" * videos
        )
    return "\n".join(lines) + "\n"


def claim(folder: Path) -> None:
    """Make a folder for results; an OSError, before hours are spent, if none can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_scores(scores: Sequence[Score], folder: Path) -> Path:
    """Write scores.md, .csv and .json into a folder; returns the first of them."""
    rows = [s.row() for s in scores]
    for name in ("scores.csv", "scores.json", "scores.md"):
        path = folder / name
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                writer = csv.DictWriter(file, rows[0], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            elif path.suffix == ".json":
                json.dump(rows, file, indent=1)
            else:
                file.write(as_markdown(scores))
    return folder / "scores.md"
