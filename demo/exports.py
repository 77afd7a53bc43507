"""Tracks as files that other tools read."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demo.project import ObjectPrompt, TrackPoint, Tracks, write_json
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
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(buffer.getvalue(), encoding="utf-8")
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_tracks_json(path: Path) -> Tracks:
    """Read back what `write_tracks_json` wrote."""
    tracks = Tracks()
    for frame in json.loads(path.read_text(encoding="utf-8"))["frames"]:
        for item in frame["objects"]:
            score = float("nan") if item["score"] is None else item["score"]
            box = None if item["box"] is None else tuple(item["box"])
            tracks.put(frame["index"], item["id"], TrackPoint(box=box, score=score))
    return tracks
