"""Fixtures around the clip and the colour models of `square.py`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from demo import pipeline
from demo.sample import add_tone
from media.video import VideoWriter
from tests.demo.square import (
    COUNT,
    HEIGHT,
    WIDTH,
    ColourSegmenter,
    ColourTracker,
    ColourTrackers,
    GreyInpainter,
    square_frame,
)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames of a red square that moves right by 4 pixels a frame, with sound."""
    folder = tmp_path_factory.mktemp("clip")
    with VideoWriter(folder / "silent.mp4", size=(HEIGHT, WIDTH), fps=Fraction(24)) as writer:
        for index in range(COUNT):
            writer.write(square_frame(index))
    add_tone(folder / "silent.mp4", folder / "square.mp4")
    return folder / "square.mp4"


@pytest.fixture
def colour_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the three networks by colour rules."""
    monkeypatch.setattr(pipeline, "build_tracker", lambda *a, **k: ColourTracker())
    monkeypatch.setattr(pipeline, "MultiTracker", ColourTrackers)
    monkeypatch.setattr(pipeline, "build_segmenter", lambda *a, **k: ColourSegmenter())
    monkeypatch.setattr(pipeline, "build_inpainter", lambda *a, **k: GreyInpainter())
    for check in ("check_segmenter", "check_inpainter"):  # these have no weights to be missing
        monkeypatch.setattr(pipeline, check, lambda name: None)
