"""Views to pixels, in two ways that agree: picture by picture, or a batch at once on any device.

Both follow OpenCV's rule for INTER_LINEAR, as `SquareCrop.extract` does, without OpenCV: bilinear
between the four nearest pixels however much a crop shrinks, no smoothing before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from trackers.crops import SquareCrop, normalize_
from trackers.training.data.augment import View

Tensors = Mapping[str, torch.Tensor]

_LARGEST_CUT = 4  # of the picture's area; larger windows are mostly padding, and never made
_BLUR_REACH = 6  # pixels; twice the largest deviation


def extract(crop: SquareCrop, frame: np.ndarray) -> torch.Tensor:
    """`SquareCrop.extract` without OpenCV, equal within 1 grey level.

    Args:
        crop: where.
        frame: (h, w, 3) uint8.

    Returns:
        (3, size, size) uint8.
    """
    window = torch.from_numpy(np.ascontiguousarray(crop.cut(frame)))
    size = (crop.size, crop.size)
    return F.interpolate(window.permute(2, 0, 1)[None], size, mode="bilinear")[0]


def cut(view: View, frame: np.ndarray) -> torch.Tensor:
    """Cut a view's crop out of its picture: (h, w, 3) uint8 to (3, size, size) uint8."""
    side = view.crop.side
    if view.warp is None and side * side <= _LARGEST_CUT * frame.shape[0] * frame.shape[1]:
        crop = extract(view.crop, frame[:, ::-1] if view.mirrored else frame)
        return crop.flip(2) if view.flipped else crop
    pixels = torch.from_numpy(frame).reshape(-1, 3)
    where = {"base": torch.zeros(1, dtype=torch.int64), **places([view], [frame.shape[:2]])}
    return cut_batch(pixels, where, view.crop.size)[0].to(torch.uint8)


def places(views: Sequence[View], sizes: Sequence[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """What `cut_batch` needs to know of n views and their pictures' (height, width)."""
    crops = [view.crop for view in views]
    found = {
        "size": torch.tensor([size[:2] for size in sizes], dtype=torch.int64),
        "corner": torch.tensor([(crop.left, crop.top) for crop in crops], dtype=torch.int64),
        "side": torch.tensor([crop.side for crop in crops], dtype=torch.int64),
        "mirrored": torch.tensor([view.mirrored for view in views]),
        "flipped": torch.tensor([view.flipped for view in views]),
    }
    warps = [view.warp for view in views if view.warp is not None]
    if warps:
        assert len(warps) == len(views)
        found["warp"] = torch.from_numpy(np.stack(warps)).float()
    return found


def looks(views: Sequence[View]) -> dict[str, torch.Tensor]:
    """What `finish` needs to know of n views."""
    colors = [view.color or (np.eye(3), np.zeros(3)) for view in views]
    found = {
        "matrix": torch.from_numpy(np.stack([matrix for matrix, _ in colors])).float(),
        "offset": torch.from_numpy(np.stack([offset for _, offset in colors])).float(),
    }
    # Told apart here, where it costs nothing: to ask a GPU would make it wait.
    blurred = [i for i, view in enumerate(views) if any(view.blur)]
    if blurred:
        found["blurred"] = torch.tensor(blurred)
        found["blur"] = torch.tensor([views[i].blur for i in blurred])
    if any(any(view.erased) for view in views):
        found["erased"] = torch.tensor([view.erased for view in views])
    return found


def cut_batch(pixels: torch.Tensor, where: Tensors, size: int) -> torch.Tensor:
    """Cut n crops out of pictures that lie one after the other.

    Args:
        pixels: (m, 3) uint8, the rows of all pictures end to end.
        where: `places` of the views, and `base` (n,): at which of the m each picture begins.
        size: side of the crops.

    Returns:
        (n, 3, size, size) float32, whole numbers in [0, 255]; not contiguous.
    """
    at = torch.arange(size, device=pixels.device, dtype=torch.float32)
    side = where["side"].view(-1, 1, 1).float()
    x, y = at.view(1, 1, -1), at.view(1, -1, 1)
    x = torch.where(where["flipped"].view(-1, 1, 1), size - 1 - x, x)
    warp = where.get("warp")
    if warp is not None:
        middle = (size - 1) / 2
        a, b, c, d = warp.flatten(1).T.reshape(4, -1, 1, 1)
        x, y = x - middle, y - middle
        x, y = a * x + b * y + middle, c * x + d * y + middle
    x, y = (x + 0.5) * (side / size) - 0.5, (y + 0.5) * (side / size) - 0.5
    if warp is None:  # as OpenCV; a warped crop may look beyond its window instead
        x, y = x.clamp(min=0).minimum(side - 1), y.clamp(min=0).minimum(side - 1)
    height, width = where["size"].T.reshape(2, -1, 1, 1)
    left, top = where["corner"].T.reshape(2, -1, 1, 1)
    columns = _taps(x, left, width, where["mirrored"].view(-1, 1, 1))
    rows = _taps(y, top, height, None)
    base = where["base"].view(-1, 1, 1)
    found = None
    for row, row_weight in rows:
        start = base + row * width
        for column, column_weight in columns:
            index = start + column
            part = pixels.index_select(0, index.view(-1)).view(*index.shape, 3)
            part = part * (row_weight * column_weight)[..., None]
            found = part if found is None else found.add_(part)
    assert found is not None
    return found.round_().permute(0, 3, 1, 2)


def _taps(
    at: torch.Tensor, start: torch.Tensor, length: torch.Tensor, mirrored: torch.Tensor | None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The two pixels next to each place along one axis of the picture, and their weights."""
    low = at.floor()
    share = at - low
    taps = []
    for step, weight in ((0, 1 - share), (1, share)):
        pixel = low.long() + step + start
        # Padding is black; the last row and column count as padding, see SquareCrop.
        weight = weight * ((pixel >= 0) & (pixel <= length - 2))
        pixel = pixel.clamp(min=0).minimum(length - 1)
        if mirrored is not None:
            pixel = torch.where(mirrored, length - 1 - pixel, pixel)
        taps.append((pixel, weight))
    return taps


def finish(crops: torch.Tensor, look: Tensors) -> torch.Tensor:
    """Change colours, blur, erase and normalise n crops.

    Args:
        crops: (n, 3, size, size) uint8 or float32 in [0, 255].
        look: `looks` of the views.

    Returns:
        (n, 3, size, size) float32, ImageNet mean 0 and deviation 1.
    """
    flat = crops.flatten(2).float()
    flat = torch.baddbmm(look["offset"][..., None], look["matrix"], flat).clamp_(0, 255)
    colored = flat.view(crops.shape)
    if "blurred" in look:
        some = look["blurred"]
        colored[some] = _blur(colored[some], look["blur"])
    finished = normalize_(colored)
    return _erase(finished, look["erased"]) if "erased" in look else finished


def _blur(images: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Gaussian, each of the n images by its own deviations (n, 2) along x and y."""
    reach = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1, device=images.device)
    kernels = torch.exp(-0.5 * (reach / sigmas.T.clamp(min=1e-3)[..., None]) ** 2)
    kernels = kernels / kernels.sum(-1, keepdim=True)
    # All channels of all images are channels of one image with a kernel each.
    x, y = kernels.repeat_interleave(images.shape[1], 1)[:, :, None, None]
    flat = F.pad(images.flatten(0, 1)[None], (_BLUR_REACH,) * 4, mode="replicate")
    flat = F.conv2d(flat, x, groups=len(x))
    return F.conv2d(flat, y.transpose(2, 3), groups=len(y)).view_as(images)


def _erase(images: torch.Tensor, erased: torch.Tensor) -> torch.Tensor:
    """Nothing, which is the mean of all pictures, in the rectangles (n, 4) x0 y0 x1 y1."""
    at = torch.arange(images.shape[-1], device=images.device)
    x0, y0, x1, y1 = erased.T[..., None]
    columns, rows = (at >= x0) & (at < x1), (at >= y0) & (at < y1)
    return images.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0.0)
