"""Boxes, labels and masks drawn onto a copy of a frame; everything scales with the frame."""

from __future__ import annotations

import re
from collections.abc import Sequence

import cv2
import numpy as np

from media.color import Frame
from media.errors import InputError

PALETTE = (
    "#00b7ff",
    "#ff5533",
    "#35d461",
    "#ffd21f",
    "#b46bff",
    "#ff7ac6",
    "#00d9c0",
    "#ff9a1f",
    "#5c7cff",
    "#b5e61d",
)
"""Colours for objects, bright and far apart, as "#rrggbb"."""

_SUBPIXEL = 4  # bits behind the point in coordinates given to OpenCV
_FARTHEST = 4  # frame sizes that a box may reach outside; OpenCV's integers overflow far away
_WEIGHT = 600  # of the label font, semibold

Color = str | Sequence[int]


def parse_color(color: Color) -> tuple[int, int, int]:
    """(r, g, b), 0 to 255 each, of "#rrggbb" or of three such numbers.

    Raises:
        InputError: it is neither.
    """
    if isinstance(color, str):
        if re.fullmatch(r"#[0-9a-fA-F]{6}", color):
            return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    elif len(color) == 3 and all(0 <= int(value) <= 255 for value in color):
        return int(color[0]), int(color[1]), int(color[2])
    raise InputError(f"{color!r} is not a colour: write it as #rrggbb, for instance {PALETTE[0]}.")


def draw_box(
    frame: Frame,
    box: Sequence[float] | np.ndarray | None,
    *,
    color: Color,
    label: str | None = None,
    score: float | None = None,
) -> Frame:
    """Draw a box, with a label on it, onto a copy of the frame.

    Args:
        frame: uint8 (h, w, 3) RGB.
        box: x0 y0 x1 y1 in pixels, x1 and y1 exclusive; may reach out of the frame. None, or not
            finite, draws nothing: the object is lost.
        color: "#rrggbb" or (r, g, b).
        label: Name of the object.
        score: Shown behind the name with two digits, unless nan.

    Returns:
        A new frame; a plain copy if nothing is to be seen.
    """
    picture = frame.copy()
    if box is None or not np.isfinite(np.asarray(box, dtype=float)).all():
        return picture
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in box)
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return picture
    rgb = parse_color(color)
    line = _line_width(frame)
    first, last = _subpixel([[x0, y0], [x1 - 1, y1 - 1]], frame)
    for width_, shade in ((line + 2, _darker(rgb)), (line, rgb)):
        cv2.rectangle(picture, first, last, shade, width_, cv2.LINE_AA, _SUBPIXEL)
    known_score = score is not None and np.isfinite(score)
    words = [label] if label else []
    words += [f"{score:.2f}"] if known_score else []
    if words:
        _draw_label(picture, " ".join(words), x0 - line / 2, y0 - line / 2, rgb)
    return picture


def draw_mask(
    frame: Frame, mask: np.ndarray, *, color: Color, opacity: float = 0.5, outline: bool = True
) -> Frame:
    """Tint what a mask covers, on a copy of the frame.

    Args:
        frame: uint8 (h, w, 3) RGB.
        mask: bool (h, w).
        color: "#rrggbb" or (r, g, b).
        opacity: 0 leaves the picture as it is, 1 paints it over.
        outline: Draw the contour as a line.

    Returns:
        A new frame.
    """
    picture = frame.copy()
    rgb = parse_color(color)
    shape = mask.astype(np.uint8)
    x, y, width, height = cv2.boundingRect(shape)
    if not width:
        return picture
    part = picture[y : y + height, x : x + width]
    tint = np.full_like(part, rgb)
    blend = cv2.addWeighted(part, 1 - opacity, tint, opacity, 0)
    np.copyto(part, blend, where=mask[y : y + height, x : x + width, None])
    if outline:
        contours, _ = cv2.findContours(shape, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        line = _line_width(frame)
        for width_, shade in ((line + 2, _darker(rgb)), (line, rgb)):
            cv2.drawContours(picture, contours, -1, shade, width_, cv2.LINE_AA)
    return picture


def _line_width(frame: Frame) -> int:
    return max(2, round(min(frame.shape[:2]) / 320))


def _subpixel(points: list[list[float]], frame: Frame) -> list[tuple[int, int]]:
    height, width = frame.shape[:2]
    reach = np.array([width, height]) * _FARTHEST
    fixed = np.clip(points, -reach, reach) * (1 << _SUBPIXEL)
    return [(int(x), int(y)) for x, y in np.rint(fixed)]


def _draw_label(
    picture: Frame, text: str, left: float, top: float, rgb: tuple[int, int, int]
) -> None:
    """Text on a filled box that stands on the point (left, top), or hangs from it at the edge."""
    height, width = picture.shape[:2]
    size = max(12, round(min(height, width) / 34))
    padding = max(3, size // 4)
    font = cv2.FontFace("sans")
    _, _, text_width, _ = cv2.getTextSize((width, height), text, (0, 0), font, size, _WEIGHT)
    box_height = size + 2 * padding
    x = round(min(max(left, 0), max(width - text_width - 2 * padding, 0)))
    y = round(top - box_height if top >= box_height else max(top, 0))
    right = x + text_width + 2 * padding
    cv2.rectangle(picture, (x, y), (right, y + box_height - 1), rgb, cv2.FILLED)
    ink = (0, 0, 0) if _luminance(rgb) > 0.36 else (255, 255, 255)
    baseline = y + padding + round(size * 0.83)
    cv2.putText(picture, text, (x + padding, baseline), ink, font, size, _WEIGHT)


def _darker(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    return rgb[0] // 4, rgb[1] // 4, rgb[2] // 4


def _luminance(rgb: tuple[int, int, int]) -> float:
    """Relative luminance, 0 to 1 (ITU-R BT.709, gamma 2.2)."""
    red, green, blue = ((value / 255) ** 2.2 for value in rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
