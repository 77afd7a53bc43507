"""Linear layers on the CPU with weights that are laid out for it once, not anew for each frame.

PyTorch hands float32 linear layers to MKL. On AMD processors that is half as fast as oneDNN, which
PyTorch carries as well, and oneDNN on weights in its own layout is the fastest of the ways here.
Same weights, same arithmetic; sums are taken in another order.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_AT_ONCE = 192  # inputs that MKL adds up one after another


def packing_available() -> bool:
    """Whether this PyTorch has the operators; they are those its compiler uses, without a promise.

    Without them everything works as well, but slower. They have been tried on x86 only.
    """
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in operators)
    )


class PackedLinears(TorchFunctionMode):
    """Within this context, `F.linear` with weights that need no gradient uses packed copies.

    They are made when first used, and again when the weights were changed. They take as much memory
    as the weights, and live as long as this object.

    Args:
        exact: add up as many inputs at a time as MKL does. oneDNN adds up all of them, which for
            3072 doubles the rounding; so trackers take a tenth more time, and their boxes stay
            with those of PyTorch's own layers where a frame's rounding decides about the next ones.
    """

    def __init__(self, *, exact: bool = False) -> None:
        super().__init__()
        self._exact = exact
        # By address, shape and strides: version, packed pieces, and the weight, for its address.
        self._packed: dict[tuple[object, ...], tuple[int, list[torch.Tensor], torch.Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and not kwargs and len(args) == 3 and self._can_pack(*args[:2]):
            x, weight, bias = args
            linear = torch.ops.mkldnn._linear_pointwise
            first, *others = pieces = self._pack(weight)
            inputs, *more = x.split(-(-x.shape[-1] // len(pieces)), dim=-1)
            total = linear(inputs, first, bias, "none", [], "")
            for inputs, piece in zip(more, others, strict=True):
                total += linear(inputs, piece, None, "none", [], "")
            return total
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _can_pack(x: torch.Tensor, weight: torch.Tensor) -> bool:
        return (
            weight.device.type == "cpu"
            and x.dtype == weight.dtype == torch.float32
            and not weight.requires_grad
            and not weight.is_inference()  # has no version
            and x.numel() > 0
        )

    def _pack(self, weight: torch.Tensor) -> list[torch.Tensor]:
        """The packed copy of a weight, or of a part of one: a network slices some of its own."""
        key = (weight.data_ptr(), weight.shape, weight.stride())
        known = self._packed.get(key)
        if known is None or known[0] != weight._version:
            inputs = weight.shape[1]
            count = -(-inputs // _AT_ONCE) if self._exact else 1
            pack = torch.ops.mkldnn._reorder_linear_weight
            packed = [pack(part.contiguous()) for part in weight.split(-(-inputs // count), dim=1)]
            known = self._packed[key] = weight._version, packed, weight
        return known[1]
