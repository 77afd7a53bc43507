"""What only pays on a GPU: crops cut out there, and the network's kernels launched all at once.

Everything here also runs on the CPU, where it is tested and saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from trackers.crops import SquareCrop, normalize_


def extract_crops(frame: torch.Tensor, windows: Sequence[SquareCrop]) -> torch.Tensor:
    """As `SquareCrop.extract`, on the device of the frame and for all windows at once.

    OpenCV's INTER_LINEAR reads between the centres of pixels, and within the window: at its border
    the outermost pixel is repeated. What lies outside of the frame is black, and so are the frame's
    last row and column, see `SquareCrop`. OpenCV rounds more often on the way: one grey level.

    Args:
        frame: (h, w, 3) uint8.
        windows: n of one `size`.

    Returns:
        (n, 3, size, size) float32, whole grey levels from 0 to 255.
    """
    height, width = frame.shape[:2]
    size = windows[0].size
    places = torch.tensor([(w.left, w.top, w.side) for w in windows], dtype=torch.int32)
    left, top, side = places.to(frame.device, non_blocking=True)[:, :, None].unbind(1)  # (n, 1)
    at = torch.arange(size, device=frame.device) + 0.5
    at = (at * (side / size) - 0.5).clamp(min=0)  # (n, size) in pixels of the window
    first = torch.minimum(at.int(), side - 1)
    both = torch.stack([first, torch.minimum(first + 1, side - 1)])  # (2, n, size)
    shares = torch.stack([1 - (at - first), at - first])

    def along(offset: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        where = both + offset
        inside = (where >= 0) & (where < length - 1)
        return where.clamp(0, length - 1), shares * inside

    (columns, across), (rows, down) = along(left, width), along(top, height)
    lines = [
        sum(
            frame[rows[i][:, :, None], columns[j][:, None]] * across[j][:, None, :, None]
            for j in range(2)
        )
        * down[i][:, :, None, None]
        for i in range(2)
    ]
    return (lines[0] + lines[1]).add(0.5).floor().permute(0, 3, 1, 2)


class FrameBuffer:
    """As `crops.CropBuffer`, but the whole frame goes to the device, which cuts it up.

    Args:
        device: where the network wants the crops.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._frame = torch.empty(0)

    def fill(self, frame: np.ndarray, windows: Sequence[SquareCrop]) -> torch.Tensor:
        """Cut windows out of a frame: (n, 3, size, size) float32, normalised."""
        if frame.shape != self._frame.shape:
            pinned = self._device.type == "cuda"
            self._frame = torch.empty(frame.shape, dtype=torch.uint8, pin_memory=pinned)
        np.copyto(self._frame.numpy(), frame)
        return normalize_(extract_crops(self._frame.to(self._device, non_blocking=True), windows))


Inputs = Sequence[torch.Tensor]


class Recording:
    """A function of tensors, recorded once for their shapes and from then on replayed.

    On a GPU that is a CUDA graph: one launch in place of some hundred, which take longer than the
    computation. The function has to do the same whatever the numbers are, and may not look at them.

    Args:
        function: what to record.
        inputs: its tensors; those of later calls have their shapes.
    """

    def __init__(self, function: Callable[[Inputs], torch.Tensor], inputs: Inputs) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if not self._inputs[0].is_cuda:
            self._output = function(self._inputs)
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries choose their kernels in the first runs
                function(self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = function(self._inputs)

    def __call__(self, changed: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Run with new inputs, None where the last ones still hold. The result lasts one call."""
        for kept, new in zip(self._inputs, changed, strict=True):
            if new is not None:
                kept.copy_(new)
        if self._graph is None:
            self._output.copy_(self._function(self._inputs))
        else:
            self._graph.replay()
        return self._output
