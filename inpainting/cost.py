"""What an inpainter costs on a clip: seconds per frame, and the memory it has ever held."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from inpainting.base import Mask, build_inpainter, check_clip
from media import InputError
from media.device import peak_rss_mb, resolve_device
from media.masks import load_mask
from media.pictures import SUFFIXES
from media.video import open_video


@dataclass(frozen=True)
class Cost:
    """One inpainter on one clip.

    Attributes:
        method: the inpainter.
        frames: how many were painted, at `size` (height, width).
        wall_seconds: by the clock, per frame, without loading weights.
        cpu_seconds: of all threads, per frame.
        memory_mb: the most memory its process has held, weights and libraries included.
        device_mb: the most memory of a GPU that tensors took; None without one.
    """

    method: str
    frames: int
    size: tuple[int, int]
    wall_seconds: float
    cpu_seconds: float
    memory_mb: float
    device_mb: float | None


class MaskPictures:
    """The masks of a folder in the order of their names, read when asked for."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; name one with a mask for each frame.")
        self._files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Mask:
        return load_mask(self._files[index])


def check_files(frames: Path, masks: Path) -> None:
    """Raise InputError unless there are frames, and a mask for each, before anything is loaded."""
    with open_video(frames) as clip:
        check_clip(clip, MaskPictures(masks), 0, None)


def measure(
    method: str, frames: Path, masks: Path, *, limit: int, device: str, weights: Path | None
) -> Cost:
    """Paint a clip in a process of its own, whose memory is then that of this inpainter alone.

    Args:
        method: one of `inpainting.list_inpainters()`.
        frames: a folder of pictures, or a video.
        masks: a folder with a mask for each frame.
        limit: how many frames are painted at most.
        device: see `media.device.resolve_device`.
        weights: a file; None: those in the checkpoints folder.

    Raises:
        InputError: the clip or the method cannot be used.
        checkpoints.CheckpointError: there are no weights.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as alone:
        return alone.submit(_measure, method, frames, masks, limit, device, weights).result()


def _measure(
    method: str, frames: Path, masks: Path, limit: int, device: str, weights: Path | None
) -> Cost:
    inpainter = build_inpainter(method, device=device, weights=weights)
    with open_video(frames) as clip:
        wall, cpu = time.perf_counter(), time.process_time()
        count, size = 0, (0, 0)
        for picture in inpainter.inpaint(clip, MaskPictures(masks), stop=limit):
            count, size = count + 1, picture.shape[:2]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if not count:
        raise InputError(f"{frames} holds no frame to paint.")
    return Cost(method, count, size, wall / count, cpu / count, peak_rss_mb(), _device_mb(device))


def _device_mb(device: str) -> float | None:
    import torch

    place = resolve_device(device)
    return torch.cuda.max_memory_allocated(place) / 1e6 if place.type == "cuda" else None


def as_markdown(costs: Sequence[Cost]) -> str:
    """A Markdown table."""
    lines = [
        "| inpainter | frames | size | s/frame | CPU s/frame | memory, MB | GPU memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in costs:
        gpu = "" if c.device_mb is None else f"{c.device_mb:.0f}"
        lines.append(
            f"| {c.method} | {c.frames} | {c.size[1]}x{c.size[0]} | {c.wall_seconds:.3f} "
            f"| {c.cpu_seconds:.3f} | {c.memory_mb:.0f} | {gpu} |"
        )
    return "\n".join(lines) + "\n"
