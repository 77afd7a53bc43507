"""How good masks are, by the protocol of DAVIS (https://davischallenge.org), and how steady.

J is the intersection over union with the true mask, F the agreement of the two outlines; both as in
davisvideochallenge/davis2017-evaluation @ 30b698a. As there for the semi-supervised task, the first
and the last frame of a sequence do not count. Steadiness is no measure of DAVIS: the intersection
over union of consecutive masks once the motion between the frames is taken out, so that what is
left is flicker. It says nothing about being right: a mask that stays on the wrong thing is steady.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from media import InputError
from media.cuts import CutDetector
from media.flow import dense_flow, warp
from media.masks import load_mask
from segmenters.base import Prompt, Segmenter
from segmenters.cleanup import mask_box
from segmenters.region import Region, answer, choose_window, is_within
from segmenters.steady import Steadier, boxes_to_ask

BOUNDARY = 0.008  # tolerance of F as a share of the frame's diagonal
VOID = 255  # in annotations with several objects: neither object nor background


# ----------------------------------------------------------------------------------- measures


def region_similarity(mask: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """J: intersection over union of two bool (h, w) masks in [0, 1]; 1 if both are empty.

    `void` marks pixels that do not count.
    """
    counts = True if void is None else ~void
    union = ((mask | truth) & counts).sum()
    return float((mask & truth & counts).sum() / union) if union else 1.0


def boundary_accuracy(mask: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """F: harmonic mean of the shares of each outline that lie near the other, in [0, 1].

    Near is within 0.8 % of the diagonal. Masks are bool (h, w); `void` counts as background.
    """
    if void is not None:
        mask, truth = mask & ~void, truth & ~void
    radius = int(np.ceil(BOUNDARY * np.hypot(*mask.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    found, wanted = _outline(mask), _outline(truth)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = (found & cv2.dilate(wanted.astype(np.uint8), disk).astype(bool)).sum() / found.sum()
    recall = (wanted & cv2.dilate(found.astype(np.uint8), disk).astype(bool)).sum() / wanted.sum()
    both = precision + recall
    return float(2 * precision * recall / both) if both else 0.0


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the one to the right, below, or both; bool (h, w)."""
    right_and_below = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    outline = mask ^ right_and_below[:-1, 1:]
    outline |= mask ^ right_and_below[1:, :-1]
    outline |= mask ^ right_and_below[1:, 1:]
    return outline


def steadiness(
    before: np.ndarray, now: np.ndarray, mask_before: np.ndarray, mask_now: np.ndarray
) -> float:
    """IoU in [0, 1] of a mask with that of the frame before, moved along by optical flow.

    Args:
        before: RGB uint8 (h, w, 3), the frame before.
        now: The frame, of the same size.
        mask_before: Bool (h, w).
        mask_now: Bool (h, w).
    """
    flow = dense_flow(now, before)
    moved = warp(mask_before.astype(np.float32), flow) > 0.5
    return region_similarity(moved, mask_now)


@dataclass(frozen=True)
class Statistics:
    """What DAVIS reports of a measure over the frames of a sequence.

    Attributes:
        mean: Over all frames.
        recall: Share of frames above 0.5.
        decay: Mean of the first quarter less that of the last; negative when it gets better.
    """

    mean: float
    recall: float
    decay: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistics:
        """From one value per frame, at least one."""
        array = np.asarray(values, float)
        # Quarters share their end frames. The official code keeps the bounds in 8 bits, which goes
        # wrong beyond 256 frames; this does not.
        bounds = np.round(np.linspace(1, len(array), 5) + 1e-10).astype(int) - 1
        first, last = array[: bounds[1] + 1], array[bounds[3] :]
        return cls(
            float(array.mean()), float((array > 0.5).mean()), float(first.mean() - last.mean())
        )

    @classmethod
    def over(cls, several: Sequence[Statistics]) -> Statistics:
        """The mean over several objects."""
        rows = np.array([(s.mean, s.recall, s.decay) for s in several])
        return cls(*rows.mean(axis=0).tolist())


# ---------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Clip:
    """An annotated sequence, read frame by frame when asked.

    Attributes:
        name: Of the sequence.
        frames: (n) pictures in order.
        annotations: By frame index; a sequence need not have one for each frame.
    """

    name: str
    frames: tuple[Path, ...]
    annotations: dict[int, Path]

    def __len__(self) -> int:
        return len(self.frames)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of a frame, without reading its pixels."""
        with _open(self.frames[index], pixels=False) as picture:
            return picture.height, picture.width

    def frame(self, index: int) -> np.ndarray:
        """RGB uint8 (h, w, 3)."""
        return np.asarray(_open(self.frames[index]).convert("RGB"))

    def truth(self, index: int, object_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The true mask of an object and the pixels that do not count, both bool (h, w)."""
        labels = self._labels(index)
        void = (labels == VOID) & (object_id != VOID)
        return labels == object_id, void

    @cached_property
    def objects(self) -> tuple[int, ...]:
        """The objects' values in the annotations; in those that are black and white, 255."""
        found: set[int] = set()
        for index in self.annotations:
            found |= set(np.unique(self._labels(index)).tolist())
        return tuple(sorted(found - {0, VOID})) or ((VOID,) if VOID in found else ())

    def _labels(self, index: int) -> np.ndarray:
        picture, (height, width) = _open(self.annotations[index]), self.size(index)
        if picture.size != (width, height):
            raise InputError(
                f"{self.annotations[index]} has {picture.width}x{picture.height} pixels, but its "
                f"frame {width}x{height}; give annotations of the frames' size."
            )
        if picture.mode in ("P", "L"):
            labels = np.asarray(picture)
            # Grey edges of a black-and-white picture are no objects.
            if picture.mode == "L" and labels.max() == VOID:
                labels = np.where(labels > 127, np.uint8(VOID), np.uint8(0))
        else:
            labels = np.where(np.asarray(picture.convert("L")) > 0, np.uint8(VOID), np.uint8(0))
        return labels


def _open(path: Path, *, pixels: bool = True) -> Image.Image:
    try:
        picture = Image.open(path)
        if pixels:
            picture.load()
    except Exception as error:  # on damaged data Pillow raises almost anything
        raise InputError(f"{path} cannot be read as a picture.") from error
    return picture


def find_clips(root: Path, names: Sequence[str] = ()) -> list[Clip]:
    """Find the annotated sequences in a folder.

    Args:
        root: With JPEGImages/480p/NAME, JPEGImages/NAME (both as DAVIS has them), or
            NAME/JPEGImages, and Annotations beside it in the same way.
        names: Which sequences; all if none is named.

    Raises:
        InputError: There is none, or not one of those named.
    """
    pictures = root / "JPEGImages"
    if (pictures / "480p").is_dir():
        pictures /= "480p"
    inside_out = not pictures.is_dir()
    folders = sorted(root.glob("*/JPEGImages") if inside_out else pictures.glob("*/"))
    clips = {}
    for folder in folders:
        name = folder.parent.name if inside_out else folder.name
        masks = Path(str(folder).replace("JPEGImages", "Annotations"))
        clip = _read_clip(name, folder, masks)
        if clip.annotations:
            clips[name] = clip
    if not clips:
        raise InputError(
            f"{root} holds no annotated sequence: JPEGImages/NAME and Annotations/NAME are "
            "expected, or NAME/JPEGImages and NAME/Annotations."
        )
    unknown = [name for name in names if name not in clips]
    if unknown:
        raise InputError(f"There is no sequence {unknown[0]} in {root}.")
    return [clips[name] for name in names or clips]


def _read_clip(name: str, frames: Path, annotations: Path) -> Clip:
    files = sorted(file for file in frames.iterdir() if file.suffix.lower() in (".jpg", ".png"))
    masks = {file.stem: file for file in annotations.glob("*.png")}
    found = {index: masks[file.stem] for index, file in enumerate(files) if file.stem in masks}
    return Clip(name, tuple(files), found)


def read_boxes(folder: Path, clip: Clip, object_id: int) -> list[np.ndarray | None]:
    """Read the boxes that a tracker found, one per frame.

    Args:
        folder: With NAME.txt or NAME_OBJECT.txt (x, y, width, height per line, as `python -m
            trackers evaluate` writes them) or NAME/tracks.csv (of `python -m demo`).
        clip: The sequence.
        object_id: Which object.

    Returns:
        Float32 (4,), x0 y0 x1 y1 in pixels, per frame; None where the object is lost, which it is
        as well where its box lies beside the frame.

    Raises:
        InputError: There is no such file, it cannot be read, or it is one of other frames.
    """
    several = len(clip.objects) > 1
    plain = folder / (f"{clip.name}_{object_id}.txt" if several else f"{clip.name}.txt")
    table = folder / clip.name / "tracks.csv"
    number = 1 + clip.objects.index(object_id)
    if not plain.is_file() and not table.is_file():
        raise InputError(f"There are no boxes of {clip.name}: neither {plain} nor {table}.")
    try:
        if plain.is_file():
            lines = plain.read_text(encoding="utf-8").replace(",", " ").splitlines()
            left, top, width, height = np.array([line.split() for line in lines], np.float32).T
            boxes = np.stack([left, top, left + width, top + height], axis=1)
        else:
            with table.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["object"]) == number]
            corners = ("x0", "y0", "x1", "y1")
            boxes = np.array([[row[c] or "nan" for c in corners] for row in rows], np.float32)
    except (ValueError, KeyError) as error:
        raise InputError(f"The boxes of {clip.name} in {folder} cannot be read.") from error
    if len(boxes) != len(clip):
        raise InputError(
            f"{clip.name} has {len(clip)} frames, but there are {len(boxes)} boxes in {folder}."
        )
    size = clip.size(0)
    return [box if is_within(box, size) else None for box in boxes]  # not so for nan, either


def read_masks(folder: Path, clip: Clip, object_id: int) -> Iterator[np.ndarray]:
    """Read masks that are made: FOLDER/NAME/*.png, with several objects FOLDER/NAME_OBJECT/*.png.

    Yields:
        Bool (h, w) per frame; empty where there is no file.

    Raises:
        InputError: There is no such folder, or a mask has another size than the frame.
    """
    several = len(clip.objects) > 1
    made = folder / (f"{clip.name}_{object_id}" if several else clip.name)
    if not made.is_dir():
        raise InputError(f"There are no masks of {clip.name}: {made} is missing.")
    size = clip.size(0)
    for index, frame in enumerate(clip.frames):
        file = made / f"{frame.stem}.png"
        if not file.is_file():
            file = made / f"{index:05d}.png"
        yield load_mask(file, size=size) if file.is_file() else np.zeros(size, bool)


# --------------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Scores:
    """Of one object, or the mean over several.

    Attributes:
        region: J.
        boundary: F.
        steadiness: Mean over consecutive frames; nan if the object is nowhere.
    """

    region: Statistics
    boundary: Statistics
    steadiness: float

    @property
    def both(self) -> float:
        """J&F, the mean of the two means."""
        return (self.region.mean + self.boundary.mean) / 2

    @classmethod
    def over(cls, several: Sequence[Scores]) -> Scores:
        """The mean over several objects."""
        return cls(
            Statistics.over([scores.region for scores in several]),
            Statistics.over([scores.boundary for scores in several]),
            float(np.nanmean([scores.steadiness for scores in several])),
        )


def score(clip: Clip, object_id: int, masks: Iterable[np.ndarray]) -> Scores:
    """Score the masks of one object, taken one by one.

    Args:
        clip: The sequence.
        object_id: One of `clip.objects`.
        masks: Bool (h, w), one per frame; empty where the object is lost.

    Raises:
        InputError: No frame between the first and the last is annotated.
    """
    region, boundary, steady = [], [], []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for index, mask in zip(range(len(clip)), masks, strict=True):
        frame = clip.frame(index)
        if before is not None and (before[1].any() or mask.any()):
            steady.append(steadiness(before[0], frame, before[1], mask))
        before = frame, mask
        if index in clip.annotations and 0 < index < len(clip) - 1:
            truth, void = clip.truth(index, object_id)
            region.append(region_similarity(mask, truth, void))
            boundary.append(boundary_accuracy(mask, truth, void))
    if not region:
        raise InputError(f"{clip.name} has no annotation between its first and its last frame.")
    return Scores(
        Statistics.of(region),
        Statistics.of(boundary),
        float(np.mean(steady)) if steady else float("nan"),
    )


# ------------------------------------------------------------------------------------- prompting


def true_prompts(
    clip: Clip, object_id: int, kind: Literal["box", "point"]
) -> Iterator[Prompt | None]:
    """Prompt each frame with the box round the true mask, or with its deepest point.

    That point is the one farthest from the outline. None where nothing is annotated.
    """
    for index in range(len(clip)):
        truth = clip.truth(index, object_id)[0] if index in clip.annotations else None
        box = None if truth is None else mask_box(truth)
        if truth is None or box is None:
            yield None
        elif kind == "box":
            yield Prompt(box=box)
        else:
            depth = cv2.distanceTransform(np.pad(truth, 1).astype(np.uint8), cv2.DIST_L2, 5)
            y, x = np.unravel_index(depth[1:-1, 1:-1].argmax(), truth.shape)
            yield Prompt(points=np.array([[x, y]], np.float32))


def cut_out_alone(
    segmenter: Segmenter, clip: Clip, prompts: Iterable[Prompt | None]
) -> Iterator[np.ndarray]:
    """Bool (h, w) per frame: each by itself, the candidate with the best score, as it is."""
    for index, prompt in zip(range(len(clip)), prompts, strict=True):
        frame = clip.frame(index)
        if prompt is None:
            yield np.zeros(frame.shape[:2], bool)
        else:
            yield segmenter.predict(segmenter.encode(frame), [prompt])[0][0].mask


def cut_out_steadily(
    segmenter: Segmenter,
    clip: Clip,
    boxes: Iterable[np.ndarray | None],
    *,
    steadier: Steadier,
    tracked: bool,
    region: Region = "auto",
) -> Iterator[np.ndarray]:
    """Bool (h, w) per frame, prompted with boxes, as `demo` does; empty where there is no box.

    What was decided before a cut says nothing about the shot behind it.

    Args:
        segmenter: Finds the candidates.
        clip: The sequence.
        boxes: Float (4,), x0 y0 x1 y1 in pixels, per frame; None where the object is lost.
        steadier: Makes masks of them.
        tracked: Whether the boxes are those of a tracker, which are asked about twice; see
            `boxes_to_ask`.
        region: Whether to look closer at the object.
    """
    cuts = CutDetector()
    for index, box in zip(range(len(clip)), boxes, strict=True):
        frame = clip.frame(index)
        size = frame.shape[:2]
        if cuts.is_cut(frame) or box is None:
            steadier.forget()
        if box is None:
            yield np.zeros(size, bool)
            continue
        boxes_asked = boxes_to_ask(box, size) if tracked else (box,)
        window = choose_window(boxes_asked[0], size, region=region)
        answers = answer(segmenter, frame, [(Prompt(box=one), window) for one in boxes_asked])
        candidates = [candidate for answer in answers for candidate in answer]
        yield steadier.settle(frame, candidates, box=boxes_asked[0], window=window).mask
