"""Frames in and out: video files, masks, drawing. Every stage reads frames through this package."""

from media.errors import InputError

__all__ = ["InputError"]
