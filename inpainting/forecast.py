"""What painting a clip will take, before it is begun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inpainting.base import check_name
from media import InputError
from media.device import multiplies_bfloat16, resolve_device

if TYPE_CHECKING:
    import torch

Size = tuple[int, int]


@dataclass(frozen=True)
class Estimate:
    """What a clip takes if every frame has a hole and all of each has to be looked at.

    Small holes take less. For what is not known it says None.
    """

    memory: int | None  # bytes, beside the program, its libraries and the weights
    seconds: float | None  # of one core


@dataclass(frozen=True)
class _Cost:
    """As `benchmarks/inpainting.py` measures it on one core of an AMD EPYC with AVX-512.

    Its clips are of 432x240, and what it finds grows with the pixels that a network works at.
    """

    memory: int  # bytes per such pixel
    seconds: float  # per million of such pixels and frame, in float32
    in_bfloat16: float  # the same in bfloat16, where the processor multiplies in it


_COSTS = {
    "propagation": _Cost(1420, 4.7, 4.7),
    "e2fgvi": _Cost(5450, 37.0, 25.6),
    "e2fgvi_hq": _Cost(5450, 37.0, 25.6),
}
_HELD = {"propagation": 80, "e2fgvi": 22, "e2fgvi_hq": 22, "e2fgvi_hq_small": 22}
"""How many whole frames are held at a time, four bytes a pixel with their masks."""


def estimate(
    name: str,
    *,
    size: Size,
    length: int,
    device: str | torch.device = "auto",
    resolution: int | None = None,
) -> Estimate:
    """What an inpainter takes for a clip with its default options, in fast mode.

    Args:
        name: one of `list_inpainters()`.
        size: height, width of the frames.
        length: how many there are.
        device: where it will compute. How long that takes is known of CPUs only.
        resolution: as for `build_inpainter`.

    Raises:
        InputError: No inpainter has that name, the device is not there, or a number is too small.
    """
    check_name(name)
    if min(*size, length, resolution or 1) < 1:
        raise InputError("Size, length and resolution of a clip are numbers from 1 up.")
    place = resolve_device(device)
    cost = _COSTS.get(name)
    if cost is None:
        return Estimate(None, None)
    worked_at = _pixels(name, size, resolution)
    held = _HELD[name] * 4 * size[0] * size[1]
    each = cost.in_bfloat16 if multiplies_bfloat16(place) else cost.seconds
    seconds = each * worked_at * length / 1e6 if place.type == "cpu" else None
    return Estimate(cost.memory * worked_at + held, seconds)


def _pixels(name: str, size: Size, resolution: int | None) -> int:
    """How many pixels the network works at when it has to look at whole frames."""
    # Late: the names are known without OpenCV, which these need.
    from inpainting.e2fgvi import FIXED_SIZE, PAD_TO
    from inpainting.fast import LONGEST
    from inpainting.propagation import FLOW_PIXELS
    from inpainting.view import Box, view_of

    if name == "propagation":
        if resolution is None:
            return min(size[0] * size[1], FLOW_PIXELS)
        scale = min(1.0, resolution / max(size))
        return max(round(size[0] * size[1] * scale**2), 1)
    view = view_of(
        Box(0, 0, *size), size, longest=resolution or LONGEST, pad_to=PAD_TO,
        fixed=FIXED_SIZE if name == "e2fgvi" else None,
    )  # fmt: skip
    return view.outer[0] * view.outer[1]
