"""Miniature packed shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints.training.shards import ShardWriter
from tests.trackers.training.data.scenes import SIZE, encode, scene


@pytest.fixture(scope="session")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures with an object each, of different shapes."""
    folder = tmp_path_factory.mktemp("stills")
    with ShardWriter(folder, most_bytes=60_000) as writer:
        for i in range(40):
            box = (10 + i, 20 + i % 30, 16 + i % 9, 34 - i % 20)
            objects = [{"box": box}]
            record = {"source": "test", "video": None, "frame": None, "objects": objects}
            writer.add(encode(scene(box, i)), SIZE, record)
    return folder


@pytest.fixture(scope="session")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 30 frames; in each, an object is absent from frame 12 to 14."""
    folder = tmp_path_factory.mktemp("tracks")
    with ShardWriter(folder, most_bytes=300_000) as writer:
        for video in range(6):
            for frame in range(30):
                absent = 12 <= frame < 15
                box = (10 + 2 * frame, 20 + video, 20 + video, 15)
                record = {
                    "source": "test",
                    "video": f"v{video}",
                    "frame": frame,
                    "objects": [] if absent else [{"id": 1, "box": box}],
                }
                image = scene(None if absent else box, 100 * video + frame)
                writer.add(encode(image), SIZE, record)
    return folder
