"""What each idea behind steady masks is worth, and what a window does for small objects.

    python -m benchmarks.steady parts DAVIS --cache DIR [--boxes BOXES]
    python -m benchmarks.steady jumps DAVIS --cache DIR
    python -m benchmarks.steady window DAVIS --cache DIR --out DIR

DAVIS and BOXES are folders as `python -m segmenters evaluate` takes them. `parts` cuts objects out
the way `demo` does, without each of its parts, with parts that it has not, and with one part after
another. Specks, which `demo` drops, are left in, and a tracker that jumps to something else is
believed, so that each part is measured by itself; two rows show what these do. `jumps` turns the
camera away from objects and back, so that the tracker does jump. `window` puts objects as small as
asked for into a film of 1920x1080, and cuts them out of whole frames and of windows. MobileSAM,
float32.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from demo.pipeline import find_candidates, look_closer
from demo.project import KeyFrame
from media import InputError
from media.command_line import run_program
from media.draw import draw_mask
from media.files import replacing
from media.flow import dense_flow
from segmenters import Candidate, Prompt, build_segmenter, evaluation, region, steady
from segmenters.cache import CachedSegmenter
from segmenters.cleanup import choose_candidate, clean_mask, mask_box
from segmenters.evaluation import Scores, find_clips, region_similarity, true_prompts
from trackers import build_tracker

FILM = 1080, 1920  # height and width of what small objects are put into
VIEW = 400  # width of what a camera that turns sees
SIDES = 50, 100, 200, 400  # of objects, in its pixels

# ------------------------------------------------------------------------------- part by part


class Boxed(steady.Steadier):
    """Chooses by the tracked box as well."""

    def settle(
        self, frame: np.ndarray, candidates: Sequence[Candidate], **where: Any
    ) -> steady.SteadyMask:
        choose = partial(choose_candidate, box=where["box"])
        with patch.object(steady, CHOICE, choose):
            return super().settle(frame, candidates, **where)


class Cleaned(steady.Steadier):
    """Cleans what comes out."""

    def __init__(self, *, max_hole: float = 0.0, min_island: float = 0.0) -> None:
        super().__init__()
        self.max_hole, self.min_island = max_hole, min_island

    def settle(
        self, frame: np.ndarray, candidates: Sequence[Candidate], **where: Any
    ) -> steady.SteadyMask:
        settled = super().settle(frame, candidates, **where)
        mask = clean_mask(settled.mask, max_hole=self.max_hole, min_island=self.min_island)
        return replace(settled, mask=mask)


@dataclass(frozen=True)
class Variant:
    """The product's way, less a part of it or with one more."""

    title: str
    instead: Mapping[str, Any] = field(default_factory=dict)  # of names of `segmenters.steady`
    steadier: Callable[[], steady.Steadier] = steady.Steadier
    asked: tuple[int, ...] = (
        0,
        1,
    )  # which of `boxes_to_ask`: the larger one, the tracked one itself
    region: region.Region = "auto"

    def boxes_to_ask(self, box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
        """See `segmenters.steady.boxes_to_ask`."""
        both = steady.boxes_to_ask(box, size)
        return tuple(both[index] for index in self.asked)


Name = Literal[
    "default", "larger", "itself", "window", "choice", "flow", "trust", "0", "0.3", "0.9",
    "specks", "demo", "box", "islands", "holes", "alone", "1", "2", "3", "4",
]  # fmt: skip
CHOICE = "choose_candidate"
BEST = {CHOICE: lambda found, **_: found[0]}
BELIEVED = 0.0, 1.0  # in place of `steady.ASTRAY`: no answer is astray
PLAIN = {"clean_mask": lambda mask, **_: mask, "ASTRAY": BELIEVED}
STILL = {"dense_flow": lambda frame, _: np.zeros((*frame.shape[:2], 2), np.float32)}
LARGER = (0,)
UNSMOOTHED = partial(steady.Steadier, inertia=0)
VARIANTS: dict[Name, Variant] = {
    "default": Variant("all parts"),
    "larger": Variant("asked about the larger box alone", asked=LARGER),
    "itself": Variant("asked about the tracked box alone", asked=(1,)),
    "window": Variant("without windows: whole frames", region="never"),
    "choice": Variant("best score in place of a choice by the mask before", BEST),
    "flow": Variant("the frame before where it was, not moved by flow", STILL),
    "trust": Variant(
        "smoothed as much where flow errs", steadier=partial(steady.Steadier, tolerance=np.inf)
    ),
    "0": Variant("without smoothing (`--steady 0`)", steadier=UNSMOOTHED),
    "0.3": Variant(
        "`--steady 0.3` (as it is: 0.6)", steadier=partial(steady.Steadier, inertia=0.3)
    ),
    "0.9": Variant("`--steady 0.9`", steadier=partial(steady.Steadier, inertia=0.9)),
    "specks": Variant("all parts, and specks dropped (below .5 %)", {"clean_mask": clean_mask}),
    "demo": Variant(
        "**as it is**: specks dropped, jumps not believed",
        {"clean_mask": clean_mask, "ASTRAY": steady.ASTRAY},
    ),
    "box": Variant("all parts, and chosen by the tracked box as well", steadier=Boxed),
    "islands": Variant(
        "all parts, and islands dropped (below a tenth)", steadier=partial(Cleaned, min_island=0.1)
    ),
    "holes": Variant(
        "all parts, and pinholes filled (up to .3 %)", steadier=partial(Cleaned, max_hole=0.003)
    ),
    "alone": Variant("nothing: each whole frame alone, best score, box as it is"),
    "1": Variant("+ a margin round tracked boxes", BEST, UNSMOOTHED, LARGER, region="never"),
    "2": Variant("+ windows", BEST, UNSMOOTHED, LARGER),
    "3": Variant("+ choice by the mask before", steadier=UNSMOOTHED, asked=LARGER),
    "4": Variant("+ the tracked box itself as well", steadier=UNSMOOTHED),
    # + smoothing is "default", and then "specks" and "demo"
}


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is worked out once for the same arguments: most variants ask the same."""
    known: dict[int, Any] = {}

    def ask(*arguments: Any) -> Any:
        key = hash(pickle.dumps([a for a in arguments if not isinstance(a, CachedSegmenter)]))
        if key not in known:
            known[key] = function(*arguments)
        return known[key]

    return ask


def parts(
    root: Path,
    *,
    boxes: Path | None = None,
    cache: Path | None = None,
    only: list[Name] | None = None,
    sequence: list[str] | None = None,
    device: str = "auto",
) -> int:
    """Score steady masks with all their parts, without each of them, and with others.

    J, F, J&F and steadiness, means over the sequences; then each sequence's J&F / steadiness.

    Args:
        root: Folder of annotated sequences.
        boxes: A tracker's boxes, BOXES/NAME.txt, in place of those round the true masks.
        cache: Folder to keep what frames look like to the model. A frame takes 4 MiB.
        only: Which variant, in place of all: 0 to 0.9 are weights of the frame before, 1 to 4
            what there is when parts are added to nothing in turn.
        sequence: Which sequence, in place of all.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    chosen = only or list(VARIANTS)
    model = CachedSegmenter(build_segmenter("mobile_sam", device=device), folder=cache, disk=2**40)
    table: dict[Name, dict[str, Scores]] = {name: {} for name in chosen}
    asked = [(clip, number) for clip in find_clips(root, sequence or ()) for number in clip.objects]
    for clip, number in asked:
        title = clip.name if len(clip.objects) == 1 else f"{clip.name} {number}"
        if boxes is None:
            places = [p.box if p else None for p in true_prompts(clip, number, "box")]
        else:
            places = evaluation.read_boxes(boxes, clip, number)
        answer, flow = remembered(region.answer), remembered(dense_flow)
        for name in tqdm(chosen, desc=title, unit="variant", leave=False):
            variant = VARIANTS[name]
            masks = evaluation.cut_out_steadily(
                model,
                clip,
                places,
                steadier=variant.steadier(),
                tracked=boxes is not None,
                region=variant.region,
            )
            if name == "alone":
                prompts = (None if box is None else Prompt(box=box) for box in places)
                masks = evaluation.cut_out_alone(model, clip, prompts)
            instead: dict[str, Any] = {"dense_flow": flow, **PLAIN, **variant.instead}
            with (
                patch.multiple(
                    evaluation,
                    answer=answer,
                    dense_flow=flow,
                    boxes_to_ask=variant.boxes_to_ask,
                ),
                patch.multiple(steady, **instead),
            ):
                table[name][title] = evaluation.score(clip, number, masks)
    print(f"| | J | F | J&F | steady | {' | '.join(table[chosen[0]])} |")
    print("|---|" + "--:|" * (4 + len(asked)))
    for name, found in table.items():
        mean = Scores.over(list(found.values()))
        _print_row(
            [VARIANTS[name].title],
            [mean.region.mean, mean.boundary.mean, mean.both, mean.steadiness],
            [f"{own.both:.3f} / {own.steadiness:.3f}" for own in found.values()],
        )
    return 0


def _print_row(titles: Sequence[str], values: Iterable[float], more: Sequence[str] = ()) -> None:
    print(f"| {' | '.join([*titles, *(f'{value:.3f}' for value in values), *more])} |", flush=True)


# ------------------------------------------------------------------------------------- jumps


def turned(clip: evaluation.Clip, number: int, way: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames and true masks as of a camera that turns away from its object, and back.

    What is seen is a window of `VIEW` pixels' width, which has the object in its middle at first.

    Args:
        way: 1 turns to the right, -1 to the left.
    """
    middle: float | None = None
    for index in range(min(len(clip), 60)):
        frame, truth = clip.frame(index), clip.truth(index, number)[0]
        if middle is None:
            left, _, width, _ = cv2.boundingRect(truth.astype(np.uint8))
            middle = left + width / 2
        away = 10 * (min(max(index - 4, 0), 20) - max(index - 34, 0))
        x = round(middle - VIEW / 2 + way * max(away, 0))
        x = min(max(x, 0), frame.shape[1] - VIEW)
        yield np.ascontiguousarray(frame[:, x : x + VIEW]), truth[:, x : x + VIEW]


def jumps(
    root: Path,
    *,
    cache: Path | None = None,
    sequence: list[str] | None = None,
    device: str = "auto",
) -> int:
    """IoU where a camera turns away from its object, if a tracker that jumps is believed, if not.

    The bundled tracker follows what the true mask of the first frame shows, which counts as drawn
    by hand. A frame in which the object cannot be seen counts as right if its mask is empty.

    Args:
        root: Folder of annotated sequences.
        cache: Folder to keep what frames look like to the model. A frame takes 4 MiB.
        sequence: Which sequence, in place of all.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    model = CachedSegmenter(build_segmenter("mobile_sam", device=device), folder=cache, disk=2**40)
    tracker = build_tracker("mixformerv2_small", device=device)
    table = []
    print("| sequence | camera turns | frames | believed | not believed |")
    print("|---|---|--:|--:|--:|")
    for clip, way in product(find_clips(root, sequence or ()), (1, -1)):
        limits = BELIEVED, steady.ASTRAY
        two = steady.Steadier(), steady.Steadier()
        scores: list[list[float]] = []
        for frame, truth in turned(clip, clip.objects[0], way):
            if not scores:
                box = mask_box(truth)
                if box is None:
                    raise InputError(f"The first frame of {clip.name} shows no annotated object.")
                tracker.initialize(frame, box)
                for steadier in two:
                    steadier.hold(frame, truth)
                scores.append([1.0, 1.0])
                continue
            track, size = tracker.track(frame), frame.shape[:2]
            if track.lost:
                masks = [np.zeros(size, bool)] * 2
                for steadier in two:
                    steadier.forget()
            else:
                masks = []
                boxes = steady.boxes_to_ask(track.box, size)
                part = region.choose_window(boxes[0], size)
                answers = region.answer(model, frame, [(Prompt(box=box), part) for box in boxes])
                candidates = [candidate for found in answers for candidate in found]
                for steadier, limit in zip(two, limits, strict=True):
                    with patch.object(steady, "ASTRAY", limit):
                        settled = steadier.settle(frame, candidates, box=boxes[0], window=part)
                    masks.append(settled.mask)
            scores.append([region_similarity(mask, truth) for mask in masks])
        table.append(np.mean(scores, axis=0))
        direction = "right" if way > 0 else "left"
        _print_row([clip.name, direction, str(len(scores))], table[-1])
    if table:
        _print_row([f"mean of {len(table)}", "", ""], np.mean(table, axis=0))
    return 0


# ------------------------------------------------------------------------------ small objects


def in_a_film(frame: np.ndarray, mask: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A frame and its mask, scaled, amid mirror images that show the object no second time."""
    hole = cv2.dilate(mask.astype(np.uint8), np.ones((25, 25), np.uint8))
    pictures = frame, cv2.inpaint(frame, hole, 5, cv2.INPAINT_TELEA), mask.astype(np.float32)
    height, width = (round(scale * side) for side in mask.shape)
    small, empty, shape = (
        cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures
    )
    top, left = (FILM[0] - height) // 2, (FILM[1] - width) // 2
    edges = top, FILM[0] - height - top, left, FILM[1] - width - left
    film = cv2.copyMakeBorder(empty, *edges, cv2.BORDER_REFLECT_101)
    film[top : top + height, left : left + width] = small
    return film, cv2.copyMakeBorder(shape, *edges, cv2.BORDER_CONSTANT) > 0.5


def draw(film: np.ndarray, masks: Sequence[np.ndarray], path: Path) -> None:
    """The film round the first mask, plain and with each mask, side by side."""
    left, top, width, height = cv2.boundingRect(masks[0].astype(np.uint8))
    x, y, reach = left + width // 2, top + height // 2, max(width, height)
    part = np.s_[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach]
    shown = (draw_mask(film[part], mask[part], color="#ff3060") for mask in masks)
    row = np.hstack([film[part], *shown])
    with replacing(path) as made:
        scaled = cv2.resize(row, (320 * row.shape[1] // row.shape[0], 320))
        Image.fromarray(scaled).save(made, format="PNG")


def window(
    root: Path,
    *,
    cache: Path | None = None,
    out: Path | None = None,
    side: list[int] | None = None,
    context: float = region.CONTEXT,
    sequence: list[str] | None = None,
    device: str = "auto",
) -> int:
    """IoU of small objects with the truth, out of the whole frame and of a window round them.

    The middle frame of each sequence. Asked as in demo on the frame where the user points: with the
    box round the true mask; with a click at its most inner point, window round the first answer.

    Args:
        root: Folder of annotated sequences.
        cache: Folder to keep what frames look like to the model. A frame takes 4 MiB.
        out: Folder for pictures: plain, truth, box (frame, window), click (frame, window).
        side: Longer side of the object in pixels, in place of 50, 100, 200 and 400.
        context: Side of the window in longer sides of the box.
        sequence: Which sequence, in place of all.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    model = CachedSegmenter(build_segmenter("mobile_sam", device=device), folder=cache, disk=2**40)
    by_side: dict[int, list[list[float]]] = {size: [] for size in side or SIDES}
    print("| longer side | frame | box: frame | window | click: frame | window |")
    print("|--:|---|--:|--:|--:|--:|")
    for clip in find_clips(root, sequence or ()):
        index = len(clip) // 2
        click = list(true_prompts(clip, clip.objects[0], "point"))[index]
        if click is None or click.points is None:
            raise InputError(f"Frame {index} of {clip.name} shows no annotated object.")
        frame, (mask, _) = clip.frame(index), clip.truth(index, clip.objects[0])
        for size, rows in by_side.items():
            scale = size / max(cv2.boundingRect(mask.astype(np.uint8))[2:])
            if (np.multiply(mask.shape, scale) > FILM).any():
                continue  # the frame does not fit in
            film, truth = in_a_film(frame, mask, scale)
            middle, new_middle = np.array([mask.shape, FILM])[:, ::-1] / 2
            x, y = (click.points[0] + 0.5 - middle) * scale + new_middle
            left, top, width, height = cv2.boundingRect(truth.astype(np.uint8))
            box = KeyFrame(box=(left, top, left + width, top + height))
            found = []
            with patch.object(region, "CONTEXT", context):
                for key in (box, KeyFrame(points=((x, y, 1),))):
                    _, coarse = find_candidates(model, model.encode(film), key)
                    closer, _ = look_closer(model, film, key, coarse)
                    found += [clean_mask(coarse.mask), clean_mask(closer.mask)]
            rows.append([region_similarity(one, truth) for one in found])
            _print_row([str(size), f"{clip.name} {index}"], rows[-1])
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                draw(film, [truth, *found], out / f"{clip.name}_{index}_{size}.png")
    for size, rows in by_side.items():
        _print_row([str(size), f"mean of {len(rows)}"], np.mean(rows, axis=0) if rows else ())
    return 0


if __name__ == "__main__":
    sys.exit(run_program("python -m benchmarks.steady", __doc__, (parts, jumps, window)))
