"""Modulated deformable convolution in a few large steps instead of a loop over pixels.

torchvision's operator visits one pixel, tap and channel after another on the CPU. Here all taps are
looked up at once, as weighted sums of four rows of a table, and multiplied at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = 9


def deform_conv2d(
    image: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor
) -> Tensor:
    """`torchvision.ops.deform_conv2d` for a kernel of 3x3, padding 1, stride 1, without gradients.

    Zhu et al., "Deformable ConvNets v2", CVPR 2019.

    Args:
        image: (b, c, h, w).
        offset: (b, 18 * groups, h, w): for each group and tap y, x in pixels. Channels last is
            quickest, for this and for the mask.
        weight: (o, c, 3, 3).
        bias: (o,).
        mask: (b, 9 * groups, h, w).

    Returns:
        (b, o, h, w), channels last, in the weight's dtype; places are computed in the offset's.
    """
    b, c, height, width = image.shape
    groups = mask.shape[1] // TAPS
    # One row of the table for each group and pixel, with a border of zeros for what lies outside.
    table = F.pad(image.permute(0, 2, 3, 1), (0, 0, 1, 2, 1, 2)).unflatten(3, (groups, -1))
    stride = width + 3
    table = table.permute(0, 3, 1, 2, 4).reshape(-1, c // groups).to(offset.dtype)

    def steps(length: int) -> Tensor:
        return torch.arange(length, device=image.device, dtype=offset.dtype)

    moved = offset.permute(0, 2, 3, 1).contiguous().unflatten(3, (groups, TAPS, 2))
    tap = steps(TAPS)
    y = moved[..., 0] + (steps(height).view(-1, 1, 1, 1) + tap.div(3).floor() - 1)
    x = moved[..., 1] + (steps(width).view(-1, 1, 1) + tap.remainder(3) - 1)
    y, x = y.clamp_(-1, height), x.clamp_(-1, width)
    top, left = y.floor(), x.floor()
    y, x = y.sub_(top), x.sub_(left)
    corner = torch.addcmul(left + (stride + 1), top, top.new_tensor(float(stride))).int()
    first = torch.arange(b * groups, device=image.device, dtype=torch.int32)
    corner += first.view(b, 1, 1, groups, 1) * ((height + 3) * stride)
    mask = mask.permute(0, 2, 3, 1).contiguous().unflatten(3, (groups, TAPS))
    lower = mask * y
    upper = mask - lower
    lower_right, upper_right = lower * x, upper * x
    shares = torch.stack(
        (upper - upper_right, upper_right, lower - lower_right, lower_right), dim=-1
    )
    beside = torch.tensor([0, 1, stride, stride + 1], device=image.device, dtype=torch.int32)
    rows = corner[..., None] + beside
    columns = F.embedding_bag(
        rows.view(-1, 4), table, mode="sum", per_sample_weights=shares.view(-1, 4)
    )
    taps = weight.unflatten(1, (groups, -1)).flatten(3).permute(1, 3, 2, 0).flatten(0, 2)
    result = torch.addmm(bias, columns.view(b * height * width, -1).to(taps.dtype), taps)
    return result.view(b, height, width, -1).permute(0, 3, 1, 2)
