"""SPyNet: optical flow by a pyramid of six small networks, each correcting the one before.

Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017, in the
variant that BasicVSR (Chan et al., CVPR 2021, appendix) and E2FGVI fine-tuned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import checkpoints

LEVELS = 6
_STRIDE = 2 ** (LEVELS - 1)  # the coarsest level sees the image this many times smaller
CHANNELS = (8, 32, 64, 32, 16, 2)


def warp(image: Tensor, flow: Tensor, *, padding_mode: str = "zeros") -> Tensor:
    """Look up `image` at every pixel's place moved by `flow`, bilinearly.

    Args:
        image: (b, c, h, w).
        flow: (b, 2, h, w), x then y, in pixels.
        padding_mode: what lies outside the image: "zeros" or "border".

    Returns:
        (b, c, h, w): `out[..., y, x] = image[..., y + flow_y, x + flow_x]`.
    """
    height, width = image.shape[-2:]
    ys = torch.arange(height, device=flow.device, dtype=flow.dtype)
    xs = torch.arange(width, device=flow.device, dtype=flow.dtype)
    # In this order of operations: propagation in E2FGVI multiplies differences of rounding by 1e5.
    x = 2 * (flow[:, 0] + xs) / max(width - 1, 1) - 1
    y = 2 * (flow[:, 1] + ys[:, None]) / max(height - 1, 1) - 1
    grid = torch.stack((x, y), dim=-1)
    return F.grid_sample(image, grid, padding_mode=padding_mode, align_corners=True)


class BasicModule(nn.Module):
    """One level's network: five 7x7 convolutions, ReLU between them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(CHANNELS):
            layers += [nn.Conv2d(inputs, outputs, 7, padding=3), nn.ReLU(inplace=True)]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x)


class SPyNet(nn.Module):
    """Optical flow between two images.

    State-dict keys: `basic_module.{level}.basic_module.{0,2,4,6,8}.{weight,bias}`, coarsest level
    first, and the buffers `mean`, `std`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, level: Callable[[], nn.Module] = BasicModule) -> None:
        """Build without training; `level` makes a level's network, keyed as its checkpoint is."""
        super().__init__()
        self.basic_module = nn.ModuleList(level() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, reference: Tensor, support: Tensor, *, levels: int = LEVELS) -> Tensor:
        """Flow from `reference` to `support`.

        Args:
            reference: (b, 3, h, w) RGB in [0, 1], any size.
            support: the same shape.
            levels: how many of the levels to run, coarsest first; one fewer costs a quarter and
                gives the flow of the image at half its size, scaled up.

        Returns:
            (b, 2, h, w), x then y, in pixels: what `reference` shows at p, `support` shows at
            p + flow(p).
        """
        height, width = reference.shape[-2:]
        padded = (-(-height // _STRIDE) * _STRIDE, -(-width // _STRIDE) * _STRIDE)
        first, second = (self._pyramid(image, padded)[:levels] for image in (reference, support))
        flow = first[0].new_zeros(len(reference), 2, *first[0].shape[-2:])
        for level, network in enumerate(self.basic_module):
            if level == levels:
                break
            if level:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            moved = warp(second[level], flow, padding_mode="border")
            flow = flow + network(torch.cat((first[level], moved, flow), dim=1))
        scale = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]])
        flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
        return flow * scale.view(1, 2, 1, 1)

    def _pyramid(self, image: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """The normalised image at 1/32, 1/16, ... 1 of `size`."""
        image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        images = [(image - self.mean) / self.std]
        for _ in range(LEVELS - 1):
            images.append(F.avg_pool2d(images[-1], 2))
        return images[::-1]


def load_basicvsr(state: Mapping[str, object]) -> SPyNet:
    """Build the SPyNet inside BasicVSR's checkpoint (`BasicVSR_REDS4.pth`).

    The file is `{"params": {...}}`; entries that do not start with `spynet.` are BasicVSR's own.

    Raises:
        checkpoints.CheckpointError: An entry of the network is missing, or one of the file has no
            place in it.
    """
    params = cast(Mapping[str, Tensor], state.get("params", state))
    found = {
        re.sub(r"^spynet\.", "", key): value
        for key, value in params.items()
        if key.startswith("spynet.")
    }
    network = SPyNet()
    for name in ("mean", "std"):  # constants: some writers of this format leave them out
        found.setdefault(name, getattr(network, name))
    if difference := checkpoints.difference(network.state_dict(), found):
        raise checkpoints.CheckpointError(
            f"These are not the weights of a BasicVSR, whose flow is wanted: {difference}."
        )
    network.load_state_dict(found)
    return network.eval()
