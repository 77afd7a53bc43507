"""A sheet of samples to look at: what is given, what was painted, what was there."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from inpainting.training.data.batches import Batch
from inpainting.training.losses import composite

_GAP = 4  # pixels between pictures


def draw_sheet(batch: Batch, painted: Tensor, *, most: int = 4) -> Image.Image:
    """Three rows per sample: masked, painted (the holes alone), true; a column per frame.

    Args:
        batch: whose first samples are drawn.
        painted: (b, t, 3, h, w) in [-1, 1], or the first samples of it.
        most: how many samples.

    Returns:
        An RGB picture.
    """
    count = min(len(painted), len(batch), most)
    truth, holes = batch.truth[:count], batch.holes[:count]
    rows = torch.stack((truth * (1 - holes), composite(painted[:count], truth, holes), truth), 1)
    pixels = ((rows.float().clamp(-1, 1) + 1) / 2 * 255).byte().cpu()
    pixels = torch.nn.functional.pad(pixels, (0, _GAP, 0, _GAP))
    b, three, t, c, h, w = pixels.shape
    sheet = pixels.permute(0, 1, 4, 2, 5, 3).reshape(b * three * h, t * w, c)
    return Image.fromarray(sheet.numpy())
