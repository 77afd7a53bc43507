"""Masks from clicks and boxes: Segment Anything and its relatives behind one interface."""

from segmenters.base import (
    Candidate,
    Embedding,
    Prompt,
    Segmenter,
    build_segmenter,
    check_segmenter,
    list_segmenters,
)

__all__ = [
    "Candidate",
    "Embedding",
    "Prompt",
    "Segmenter",
    "build_segmenter",
    "check_segmenter",
    "list_segmenters",
]
