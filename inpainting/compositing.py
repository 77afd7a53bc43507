"""Masks, seams and smooth fills: what any inpainter needs to put its pixels back into a frame."""

from __future__ import annotations

import cv2
import numpy as np

from inpainting.base import Mask

SOFT_EDGE = 2  # pixels by which an object's anti-aliased outline reaches beyond its mask


def dilation_for(mask: Mask) -> int:
    """Pixels to grow a mask by: 2 % of the diagonal of its largest connected part, and 2 more.

    Masks miss more of a large object's outline (motion blur, hair, coarse mask grids) than of a
    small one's.
    """
    if not mask.any():
        return 0
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    largest = stats[1:][stats[1:, cv2.CC_STAT_AREA].argmax()]
    diagonal = np.hypot(largest[cv2.CC_STAT_WIDTH], largest[cv2.CC_STAT_HEIGHT])
    return SOFT_EDGE + round(0.02 * float(diagonal))


def grow(mask: Mask, pixels: int) -> Mask:
    """Grow a mask by a disc of this radius."""
    if pixels <= 0 or not mask.any():
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    near = tuple(slice(max(s[0] - pixels, 0), s[-1] + pixels + 1) for s in (rows, columns))
    grown = np.zeros_like(mask, bool)
    grown[near] = cv2.dilate(mask[near].astype(np.uint8), kernel)
    return grown


def hole_of(mask: Mask, dilate: int | None = None) -> tuple[Mask, int]:
    """What is painted over to make a masked thing disappear.

    Args:
        dilate: pixels to grow the mask by; None: as many as `dilation_for` says.

    Returns:
        The hole, and the pixels by which it is larger.
    """
    pixels = dilation_for(mask) if dilate is None else dilate
    return grow(mask, pixels), pixels


def feather(hole: Mask, width: int) -> np.ndarray:
    """Opacity of the fill: 0 outside the hole, rising to 1 over `width` pixels inside its border.

    Returns:
        float32 (h, w) in [0, 1]; with `width` 0 it is the hole itself. The image's own border is no
        border of the hole.
    """
    if width <= 0:
        return hole.astype(np.float32)
    padded = np.pad(hole, 1, mode="edge").astype(np.uint8)
    if padded.all():
        return np.ones(hole.shape, np.float32)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.minimum(depth / (width + 1), 1).astype(np.float32)


def meet(image: np.ndarray, fill: np.ndarray, hole: Mask) -> np.ndarray:
    """Shift a fill's colours so that it meets the picture round the hole without a step.

    By how much the fill, which goes on beyond the hole, misses the picture there is spread into it
    like a soap film. A difference beyond 30 is no other light but another thing, and has no say.

    Args:
        image: float32 (h, w, 3), the picture.
        fill: float32 (h, w, 3), known outside the hole as well.
        hole: bool (h, w).

    Returns:
        float32 (h, w, 3).
    """
    known = (~hole).astype(np.float32)[..., None]
    missed = image - fill
    known *= np.abs(missed).max(axis=2, keepdims=True) < 30
    share = cv2.blur(known, (7, 7))[..., None]  # what differs from pixel to pixel is texture
    smooth = cv2.blur(missed * known, (7, 7)) / np.maximum(share, 1e-6)
    return fill + diffuse(smooth.astype(np.float32), (known[..., 0] > 0) & ~hole)


def diffuse(values: np.ndarray, known: Mask, *, rounds: int = 16) -> np.ndarray:
    """Fill the unknown pixels as smoothly as a soap film spanned by the known ones.

    Laplace's equation with the known pixels as its boundary, solved from coarse to fine: each size
    starts from the half-size solution and relaxes it.

    Args:
        values: float32 (h, w, c).
        known: bool (h, w). With none at all the result is 0.
        rounds: relaxation steps on each size.

    Returns:
        float32 (h, w, c), equal to `values` where known.
    """
    height, width = known.shape
    if known.all():
        return values
    if not known.any():
        return np.zeros_like(values)
    weight = known.astype(np.float32)[..., None]
    if min(height, width) <= 2:
        filled = np.where(known[..., None], values, values[known].mean(axis=0))
    else:
        half = ((width + 1) // 2, (height + 1) // 2)
        share = _halve(weight)
        coarse = _halve(values * weight) / np.maximum(share, 1e-6)
        coarse = diffuse(coarse.astype(np.float32), share[..., 0] > 0, rounds=rounds)
        guess = cv2.resize(coarse, (2 * half[0], 2 * half[1]), interpolation=cv2.INTER_LINEAR)
        guess = guess.reshape(2 * half[1], 2 * half[0], -1)[:height, :width]
        filled = np.where(known[..., None], values, guess)
    # Relax only the rectangle that holds the unknown pixels.
    y0, y1 = _span(~known, axis=0)
    x0, x1 = _span(~known, axis=1)
    part = np.ascontiguousarray(filled[y0:y1, x0:x1], np.float32)
    fixed = known[y0:y1, x0:x1, None]
    original = part.copy()
    for _ in range(rounds):
        around = cv2.filter2D(part, -1, _NEIGHBOURS, borderType=cv2.BORDER_REPLICATE)
        part = np.where(fixed, original, around.reshape(part.shape))
    filled[y0:y1, x0:x1] = part
    return filled.astype(np.float32)


_NEIGHBOURS = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], np.float32) / 12


def _halve(image: np.ndarray) -> np.ndarray:
    """Mean of each 2x2 block; an odd last row or column counts twice."""
    height, width, channels = image.shape
    padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    blocks = padded.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels)
    return blocks.mean(axis=(1, 3))


def _span(mask: Mask, axis: int) -> tuple[int, int]:
    """From one before a mask's first row (axis 0) or column (1) to one after its last."""
    places = np.nonzero(mask)[axis]
    return max(int(places.min()) - 1, 0), min(int(places.max()) + 2, mask.shape[axis])
