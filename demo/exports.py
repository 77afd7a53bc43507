"""Tracks, masks and cut-outs as files that other tools read.

`tracks.json` and `tracks.csv` are written in every run; what else there is, by name, is listed in
`demo.project.EXPORTS`. `demo/imports.py` reads them back.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo.pipeline import write_video
from demo.project import ObjectPrompt, TrackPoint, Tracks, write_json, write_whole
from media.files import replacing_folder
from media.masks import MaskFolder, MaskUnion, encode_rle
from media.video import VideoReader

CSV_HEADER = ("frame", "time", "object", "x0", "y0", "x1", "y1", "score", "lost")


def _score(value: float) -> float | None:
    """Scores are kept to four places; a model without one gives nan, which JSON does not have."""
    return None if np.isnan(value) else round(float(value), 4)


def _rows(tracks: Tracks, reader: VideoReader) -> Iterator[tuple[int, int, float, int, TrackPoint]]:
    for frame in sorted(tracks.points):
        pts = int(reader.pts[frame])
        for object_id, point in sorted(tracks.points[frame].items()):
            yield frame, pts, float(pts * reader.info.time_base), object_id, point


def write_tracks_json(
    path: Path, tracks: Tracks, reader: VideoReader, objects: Sequence[ObjectPrompt]
) -> None:
    """Version 1: `video`, `objects` and one entry per frame; the box of a lost object is null.

    Boxes are x0 y0 x1 y1 in pixels of the shown frame, times in seconds, `pts` in `time_base`.
    """
    info = reader.info
    frames: dict[int, dict[str, Any]] = {}
    for frame, pts, time, object_id, point in _rows(tracks, reader):
        entry = frames.setdefault(
            frame, {"index": frame, "pts": pts, "time": round(time, 6), "objects": []}
        )
        box = None if point.box is None else [round(v, 2) for v in point.box]
        entry["objects"].append(
            {"id": object_id, "box": box, "score": _score(point.score), "lost": point.lost}
        )
    write_json(
        path,
        {
            "version": 1,
            "video": {
                "name": info.path.name,
                "height": info.size[0],
                "width": info.size[1],
                "frame_count": len(reader),
                "fps": str(info.fps),
                "time_base": str(info.time_base),
            },
            "objects": [{"id": o.id, "name": o.name, "color": o.color} for o in objects],
            "frames": list(frames.values()),
        },
    )


def write_tracks_csv(path: Path, tracks: Tracks, reader: VideoReader) -> None:
    """One row per frame and object; a lost object's box is left empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for frame, _, time, object_id, point in _rows(tracks, reader):
        box = [""] * 4 if point.box is None else [f"{v:.2f}" for v in point.box]
        score = _score(point.score)
        writer.writerow(
            [frame, f"{time:.6f}", object_id, *box, "" if score is None else score, int(point.lost)]
        )
    write_whole(path, [buffer.getvalue()])


# --------------------------------------------------------------------------------- other exports


@dataclass(frozen=True)
class Material:
    """What a run has made, for an export to take from.

    Attributes:
        span: the frames that were worked on.
        masks: per object; empty where a run was not asked for masks.
        feather: softness of a cut-out's edge, in pixels.
        tick: called with the number of frames that are done.
    """

    reader: VideoReader
    tracks: Tracks
    objects: Sequence[ObjectPrompt]
    span: range
    masks: Mapping[int, MaskFolder]
    feather: float
    tick: Callable[[int], None]


def _write_mot(path: Path, material: Material) -> None:
    """MOTChallenge: frame from 1, id, left, top, width, height, score, -1, -1, -1; lost: no row."""
    lines = []
    for frame, _, _, object_id, point in _rows(material.tracks, material.reader):
        if point.box is not None:
            score = 1.0 if np.isnan(point.score) else point.score
            box = ",".join(f"{v:.2f}" for v in _xywh(point.box))
            lines.append(f"{frame + 1},{object_id},{box},{score:.4f},-1,-1,-1\n")
    write_whole(path, lines)


def _write_per_object(folder: Path, material: Material, lost: str) -> None:
    """One file per object and one line per frame of the range: left,top,width,height from 0."""
    with replacing_folder(folder) as part:
        for prompt in material.objects:
            points = (material.tracks.at(index).get(prompt.id) for index in material.span)
            boxes = (None if point is None else point.box for point in points)
            lines = (
                (lost if box is None else ",".join(f"{v:.2f}" for v in _xywh(box))) + "\n"
                for box in boxes
            )
            write_whole(part / f"object_{prompt.id}.txt", lines)


def _xywh(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0, y0, x1 - x0, y1 - y0


def _write_coco(path: Path, material: Material) -> None:
    """COCO: an image per frame, a category per object, masks as compressed run lengths."""
    height, width = material.reader.info.size
    images = [
        {"id": i, "file_name": f"{i:05d}.png", "height": height, "width": width, "frame_index": i}
        for i in material.span
    ]
    categories = [{"id": o.id, "name": o.name} for o in material.objects]

    def lines() -> Iterator[str]:  # one annotation at a time: a long video has many
        yield '{"info": {"description": ' + json.dumps(material.reader.info.path.name) + "},\n"
        yield f'"images": {json.dumps(images)},\n"categories": {json.dumps(categories)},\n'
        yield '"annotations": ['
        count = 0
        for done, index in enumerate(material.span, start=1):
            for object_id, folder in material.masks.items():
                mask = folder[index]
                if not mask.any():
                    continue
                count += 1
                ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                x, y = int(xs[0]), int(ys[0])
                annotation = {
                    "id": count, "image_id": index, "category_id": object_id, "iscrowd": 0,
                    "bbox": [x, y, int(xs[-1]) + 1 - x, int(ys[-1]) + 1 - y],
                    "area": int(mask.sum()), "segmentation": encode_rle(mask),
                }  # fmt: skip
                yield ("\n" if count == 1 else ",\n") + json.dumps(annotation)
            material.tick(done)
        yield "\n]}\n"

    write_whole(path, lines())


GREEN = (0, 177, 64)  # of the screens in studios
_KEPT_EDGE = 2  # pixels beyond the soft edge whose colour stays, for whoever scales the picture


def soften(mask: np.ndarray, feather: float) -> np.ndarray:
    """A mask, bool (h, w), as the opacity of a cut-out: uint8 (h, w), with a soft edge."""
    opaque = mask.astype(np.uint8) * 255
    return cv2.GaussianBlur(opaque, (0, 0), feather) if feather else opaque


def _cut_outs(material: Material) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (frame index, uint8 (h, w, 4) RGBA): the objects, with see-through surroundings.

    Where some are to be cut out and others painted away, those that are to be cut out.
    """
    reach = _KEPT_EDGE + round(3 * material.feather)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    frames = material.reader.frames(material.span.start, material.span.stop)
    own = [material.masks[o.id] for o in material.objects if o.do == "segment"]
    together = MaskUnion(own or material.masks.values())
    for index, frame in zip(material.span, frames, strict=False):
        mask = together[index]
        near = cv2.dilate(mask.astype(np.uint8), kernel) > 0
        yield index, np.dstack([frame * near[..., None], soften(mask, material.feather)])


def _write_matte(path: Path, material: Material) -> None:
    """White where the objects are, for programs that take the alpha channel as a second video."""
    together = MaskUnion(material.masks.values())
    mattes = ((i, np.repeat(together[i][..., None] * np.uint8(255), 3, 2)) for i in material.span)
    _write_video(path, material, mattes)


def _write_cutout(path: Path, material: Material) -> None:
    _write_video(path, material, _cut_outs(material))


def _write_green(path: Path, material: Material) -> None:
    """In front of a green screen, for programs that take no alpha channel."""

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        for index, rgba in _cut_outs(material):
            alpha = rgba[..., 3:].astype(np.float32) / 255
            yield index, (rgba[..., :3] * alpha + np.array(GREEN) * (1 - alpha)).astype(np.uint8)

    _write_video(path, material, frames())


def _write_video(path: Path, material: Material, frames: Iterator[tuple[int, np.ndarray]]) -> None:
    # Always the range alone: there is nothing cut out before and after it.
    write_video(path, material.reader, frames, material.span, trim=True, tick=material.tick)


WRITERS: dict[str, Callable[[Path, Material], None]] = {
    "mot": _write_mot,
    "otb": lambda path, material: _write_per_object(path, material, "nan,nan,nan,nan"),
    "vot": lambda path, material: _write_per_object(path, material, "0"),
    "coco": _write_coco,
    "matte": _write_matte,
    "webm": _write_cutout,
    "mov": _write_cutout,
    "green": _write_green,
}
"""How each of `demo.project.EXPORTS` is written."""
