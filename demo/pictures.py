"""Pictures as the page gets them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from demo.exports import soften
from media.draw import parse_color

MAX_SHOWN = 1600  # pixels of the longer side of the picture that is sent to the page
MIN_SOFT = 1.0  # pixels from which an edge is seen to be soft
MAX_SURVEY = 640  # pixels of the longer side of the map of objects


def data_url(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"


def to_jpeg(frame: np.ndarray, side: int = MAX_SHOWN) -> bytes:
    """A frame, RGB uint8 (h, w, 3), as a JPEG the page can show, at most `side` pixels long."""
    scale = min(1.0, side / max(frame.shape[:2]))
    if scale < 1:
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return data.tobytes()


def mask_url(mask: np.ndarray, color: str) -> str:
    """A mask, bool (h, w), as a see-through layer: tinted inside, with a solid edge."""
    scale = min(1.0, MAX_SHOWN / max(mask.shape))
    size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    width = 1 + max(size) // 600
    # Beyond the frame counts as outside, so that an object that is cut off has its edge there, too.
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    core = cv2.erode(small, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    layer = Image.fromarray(2 * small - core)  # 0 outside, 1 inside, 2 on the edge
    layer.putpalette([0, 0, 0, *parse_color(color), *parse_color(color)])
    return data_url(layer, "PNG", transparency=bytes((0, 105, 255)), compress_level=1)


def outline(mask: np.ndarray) -> str:
    """The outlines of a mask, bool (h, w), as a path of SVG in its pixels."""
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    turns = (cv2.approxPolyDP(line, 0.5, True)[:, 0] + 0.5 for line in lines)
    return "".join(f"M{'L'.join(f'{x:g},{y:g}' for x, y in points)}Z" for points in turns)


def soft_edge(mask: np.ndarray, feather: float) -> str:
    """Where the edge of a soft cut-out begins and ends, like `outline`; empty if it is hard."""
    if feather < MIN_SOFT:
        return ""
    opacity = soften(mask, feather)
    return outline(opacity > 0.05 * 255) + outline(opacity > 0.95 * 255)


def survey_url(masks: Sequence[np.ndarray]) -> str:
    """A picture in which a pixel is 0 or the number, from 1, of the mask that lies there on top."""
    height, width = masks[0].shape if masks else (1, 1)
    scale = min(1.0, MAX_SURVEY / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    labels = np.zeros(size[::-1], np.uint8)
    for number, mask in enumerate(masks, start=1):
        labels[cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0] = number
    return data_url(Image.fromarray(labels), "PNG")
