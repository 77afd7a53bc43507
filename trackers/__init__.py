"""Follow one object through a video: trackers by name, and the networks behind them."""

from trackers.base import (
    Track,
    Tracker,
    build_network,
    build_tracker,
    list_networks,
    list_trackers,
    register,
)
from trackers.multi_tracker import MultiTracker

__all__ = [
    "MultiTracker",
    "Track",
    "Tracker",
    "build_network",
    "build_tracker",
    "list_networks",
    "list_trackers",
    "register",
]
