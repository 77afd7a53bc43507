"""A sheet of samples to look at: what the network sees, and where the box is."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw

from trackers.boxes import xywh_to_xyxy
from trackers.crops import normalize_
from trackers.training.data.batches import Batch

_TARGET, _NONE = "#35d461", "#ff5533"
_COLUMNS = 4


def draw_batch(batch: Batch, *, most: int = 16) -> Image.Image:
    """Draw samples side by side: first template, online template, search crop with its box.

    Args:
        batch: whose first samples are drawn.
        most: how many.

    Returns:
        An RGB picture; boxes are green where the crop holds the target, else red.
    """
    n = min(len(batch), most)
    side, small = batch.search.shape[-1], batch.template.shape[-1]
    columns = min(n, _COLUMNS)
    cell = (small + side + 6, max(side, 2 * small) + 4)
    sheet = Image.new("RGB", (columns * cell[0], -(-n // columns) * cell[1]))
    pen = ImageDraw.Draw(sheet)
    for i in range(n):
        left, top = i % columns * cell[0], i // columns * cell[1]
        sheet.paste(_picture(batch.template[i]), (left, top))
        sheet.paste(_picture(batch.online_template[i]), (left, top + small))
        sheet.paste(_picture(batch.search[i]), (left + small + 2, top))
        found = Image.new("L", (side, side), 0)
        x0, y0, x1, y1 = (xywh_to_xyxy(batch.boxes_xywh[i].cpu()) * side).tolist()
        ImageDraw.Draw(found).rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=255, width=2)
        pen.bitmap((left + small + 2, top), found, _TARGET if batch.labels[i] > 0.5 else _NONE)
    return sheet


def _picture(tensor: torch.Tensor) -> Image.Image:
    black, white = (normalize_(torch.full((1, 3, 1, 1), value))[0] for value in (0.0, 255.0))
    pixels = (tensor.float().cpu() - black) / (white - black) * 255
    return Image.fromarray(pixels.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
