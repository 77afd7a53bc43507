"""Paint a thing away, through a whole clip."""

from inpainting.base import (
    Frame,
    FrameSource,
    Inpainter,
    Mask,
    MaskSource,
    build_inpainter,
    build_network,
    check_inpainter,
    list_inpainters,
    register,
)
from inpainting.forecast import Estimate, estimate

__all__ = [
    "Estimate",
    "Frame",
    "FrameSource",
    "Inpainter",
    "Mask",
    "MaskSource",
    "build_inpainter",
    "build_network",
    "check_inpainter",
    "estimate",
    "list_inpainters",
    "register",
]
