"""Pictures that came with a batch, to one row of pixels on the device."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from checkpoints.training.pictures import decode
from media import InputError

_log = logging.getLogger(__name__)


def decode_on(
    device: torch.device, pictures: Mapping[str, torch.Tensor], problems: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode what is still a file, by nvJPEG on a GPU, and put all pictures end to end.

    Args:
        device: where to.
        pictures: as in `preparing.Prepared`, on the host.
        problems: gets a sentence for each file that turns out to be damaged; it becomes black, for
            it is too late to draw another.

    Returns:
        On the device: (m, 3) uint8 pixels, and (n,) int64: at which pixel each picture begins.
    """
    sizes, lengths = pictures["sizes"], pictures["lengths"].tolist()
    bases = sizes.prod(dim=1).cumsum(0) - sizes.prod(dim=1)
    rows = [pictures["pixels"].to(device, non_blocking=True)]
    if lengths:
        files = list(pictures["files"].split(lengths))
        rows = [*_decode_files(files, sizes[: len(files)].tolist(), device, problems), *rows]
    return torch.cat(rows), bases.to(device, non_blocking=True)


def _decode_files(
    files: list[torch.Tensor],
    sizes: list[list[int]],
    device: torch.device,
    problems: list[str],
) -> list[torch.Tensor]:
    """The rows (h * w, 3) of each file; `sizes` are (height, width)."""
    try:
        # Late, for torchvision has announced (0.29) that it will hand decoding over to torchcodec.
        from torchvision.io import ImageReadMode, decode_jpeg

        found = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
        return [image.permute(1, 2, 0).reshape(-1, 3) for image in found]
    except (ImportError, RuntimeError) as error:
        # One bad file fails all, and nvJPEG does not know every JPEG.
        _log.warning("A batch of JPEG files is decoded one by one, on the CPU: %s", error)
        return [
            _decode_alone(file, height * width, problems).to(device)
            for file, (height, width) in zip(files, sizes, strict=True)
        ]


def _decode_alone(file: torch.Tensor, pixels: int, problems: list[str]) -> torch.Tensor:
    try:
        found = decode(file.numpy().tobytes(), f"a file of {len(file)} bytes")
        return torch.from_numpy(found).view(-1, 3)
    except InputError as error:
        problems.append(str(error))
        return torch.zeros((pixels, 3), dtype=torch.uint8)
