"""Serve a tracker to the VOT toolkit, through the TraX protocol (PyPI `vot-trax`).

The toolkit starts a process per tracker and speaks to it on its standard input and output: here is
a frame with a box, here the next frame. docs/evaluation.md tells it how to start ours.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from media import InputError
from trackers.base import Track, Tracker
from trackers.boxes import xywh_to_xyxy, xyxy_to_xywh
from trackers.datasets.files import read_frame
from trackers.evaluation.run import Contestant


def answer(track: Track) -> tuple[list[float], dict[str, float]]:
    """Left, top, width, height in pixels, and properties, as the toolkit takes them.

    `confidence` is what its long-term experiments sort frames by; a tracker without scores gives
    none.
    """
    confidence = {} if math.isnan(track.score) else {"confidence": track.score}
    return xyxy_to_xywh(track.box.astype(np.float64)).tolist(), confidence


def serve(contestant: Contestant) -> None:
    """Follow objects for the toolkit until it says goodbye.

    Args:
        contestant: which tracker.

    Raises:
        InputError: `vot-trax` is not installed, nobody is there to speak to, a frame or a box
            cannot be used, or as `Contestant.build`.
    """
    try:
        import trax
    except ImportError:
        raise InputError(
            "The VOT toolkit speaks to trackers through TraX: install it with "
            "`pip install vot-trax` beside the tracker."
        ) from None
    if sys.stdin.isatty():
        raise InputError(
            "This command is started by the VOT toolkit, not by hand; docs/evaluation.md says how."
        )
    tracker = contestant.build()
    # Masks and polygons are turned into the rectangle around them before they get here.
    server = trax.Server([trax.Region.RECTANGLE], [trax.Image.PATH], tracker_name=contestant.name)
    try:
        _converse(server, trax, tracker)
    except InputError as error:
        server.quit(str(error))
        raise
    except trax.TraxException as error:
        raise InputError(f"The connection to the VOT toolkit broke: {error}.") from error
    server.quit()


def _converse(server: Any, trax: Any, tracker: Tracker) -> None:
    while True:
        request = server.wait()
        if request.type not in (trax.TraxStatus.INITIALIZE, trax.TraxStatus.FRAME):
            return
        frame = read_frame(Path(request.image[trax.ImageChannel.COLOR].path()))
        if request.type == trax.TraxStatus.INITIALIZE:
            region, _ = request.objects[0]
            tracker.initialize(frame, xywh_to_xyxy(np.array(region.bounds(), np.float64)))
            server.status([(region, {})])
            continue
        rectangle, properties = answer(tracker.track(frame))
        server.status([(trax.Rectangle.create(*rectangle), properties)])
