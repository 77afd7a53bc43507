"""Paint a thing away, through a whole clip."""

from inpainting.base import (
    Frame,
    FrameSource,
    Inpainter,
    Mask,
    MaskSource,
    build_inpainter,
    build_network,
    list_inpainters,
    register,
)

__all__ = [
    "Frame",
    "FrameSource",
    "Inpainter",
    "Mask",
    "MaskSource",
    "build_inpainter",
    "build_network",
    "list_inpainters",
    "register",
]
