"""E2FGVI: feature propagation along optical flow and a temporal focal transformer.

Li et al., "Towards An End-to-End Framework for Flow-Guided Video Inpainting", CVPR 2022, with the
state-dict keys of the published files (MCG-NKU/E2FGVI @ 709cbe3). The code is ours, written from
the paper and from measured numbers; the published weights are CC BY-NC 4.0.

Read downwards: pictures to features and back; flow; propagation of features along it; patches to
tokens and back; the transformer; the network; its weights; the inpainters that run it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

import checkpoints
from checkpoints import CheckpointError, WeightsRecord
from inpainting.base import Inpainter, build_network, register
from inpainting.spynet import CHANNELS, SPyNet, warp
from media import InputError
from media.device import resolve_device

HEADS = 4
WINDOW = (5, 9)  # tokens
REACH = (2, 4)  # tokens beyond its window, and windows beyond its own, that a token attends to
MAX_OFFSET = 10.0  # feature pixels by which these may depart from the flow
FIXED_SIZE = (240, 432)  # the size E2FGVI is bound to by its positional bias
PAD_TO = (60, 108)  # frames of other sizes are padded to a multiple of this for E2FGVI-HQ

Size = tuple[int, int]


@dataclass(frozen=True)
class Width:
    """How wide and deep the network is; the defaults are those of the published files."""

    encoder: int = 64  # channels of the encoder's first layer; the others are multiples of it
    features: int = 128  # channels of a frame's features, at a quarter of its size
    dim: int = 512  # of a token
    hidden: int = 40  # channels of the picture a block's feed-forward part folds its tokens into
    blocks: int = 8
    groups: int = 16  # of the deformable convolutions


SMALL = Width(encoder=32, features=64, dim=256, hidden=20, blocks=6, groups=8)
"""A quarter of the weights (9.8 million with the flow's 1.4) and of the work."""


# ---------------------------------------------------------------------------- pictures, features


class Encoder(nn.Module):
    """Pictures (n, 3, h, w) to features (n, c, h/4, w/4); h and w are multiples of 4."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        e = width.encoder
        for inputs, outputs, stride, groups in (
            (3, e, 2, 1), (e, e, 1, 1), (e, 2 * e, 2, 1), (2 * e, 4 * e, 1, 1),
            (4 * e, 6 * e, 1, 1), (10 * e, 8 * e, 1, 2), (12 * e, 6 * e, 1, 4),
            (10 * e, 4 * e, 1, 8), (8 * e, width.features, 1, 1),
        ):  # fmt: skip
            layers.append(nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:8]:
            x = layer(x)
        skip = x
        for index, layer in enumerate(self.layers[8:]):
            if index and isinstance(layer, nn.Conv2d):  # each group sees its share of both
                shares = (part.unflatten(1, (layer.groups, -1)) for part in (skip, x))
                x = torch.cat(tuple(shares), dim=2).flatten(1, 2)
            x = layer(x)
        return x


class Enlarge(nn.Module):
    """Twice the size, bilinearly, then a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


def decoder(width: Width) -> nn.Sequential:
    """Features (n, c, h/4, w/4) to pictures (n, 3, h, w), before the tanh."""
    whole, half = width.features, width.features // 2
    return nn.Sequential(
        Enlarge(whole, whole),
        nn.LeakyReLU(0.2),
        nn.Conv2d(whole, half, 3, padding=1),
        nn.LeakyReLU(0.2),
        Enlarge(half, half),
        nn.LeakyReLU(0.2),
        nn.Conv2d(half, 3, 3, padding=1),
    )


# ---------------------------------------------------------------------------- flow


class _Conv(nn.Module):
    """A convolution of the flow, under the key `conv` that E2FGVI's files give it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FlowLevel(nn.Module):
    """One level of SPyNet: keys `basic_module.{0..4}.conv`."""

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.Sequential(*(_Conv(a, b) for a, b in pairwise(CHANNELS)))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.basic_module[:-1]:
            x = F.relu(conv(x))
        return self.basic_module[-1](x)


def neighbour_flows(spynet: SPyNet, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Flows between consecutive frames (b, l, 3, h, w) in [-1, 1], as `E2FGVI.forward` has them."""
    height, width = frames.shape[-2] // 4, frames.shape[-1] // 4
    shape = (len(frames), frames.shape[1] - 1)
    if shape[1] == 0:
        empty = frames.new_zeros(*shape, 2, height, width)
        return empty, empty
    small = F.interpolate(
        (frames.flatten(0, 1) + 1) / 2, (height, width), mode="bilinear", align_corners=True
    ).unflatten(0, frames.shape[:2])
    first, second = small[:, :-1].flatten(0, 1), small[:, 1:].flatten(0, 1)
    forward, backward = (
        spynet(*pair).unflatten(0, shape) for pair in ((first, second), (second, first))
    )
    return forward, backward


# ---------------------------------------------------------------------------- propagation


class DeformableAlignment(nn.Module):
    """Fetches features of two earlier frames along the flow, and from beside where it points."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        c = width.features
        self.groups = width.groups
        self.weight = nn.Parameter(torch.empty(c, 2 * c, 3, 3))
        self.bias = nn.Parameter(torch.zeros(c))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.conv_offset = nn.Sequential(
            nn.Conv2d(3 * c + 4, c, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(c, c, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(c, c, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(c, 27 * self.groups, 3, padding=1),
        )

    def forward(self, earlier: Tensor, condition: Tensor, flow: Tensor, flow2: Tensor) -> Tensor:
        """Align.

        Args:
            earlier: (b, 2c, h, w), the features of the last frame and of the one before.
            condition: (b, 3c, h, w), last frame moved along `flow`, this one, the one before the
                last moved along `flow2`.
            flow: (b, 2, h, w), x y, from this frame to the last.
            flow2: from this frame to the one before the last.

        Returns:
            (b, c, h, w).
        """
        raw = self.conv_offset(torch.cat((condition, flow, flow2), dim=1))
        offset, mask = raw.split((18 * self.groups, 9 * self.groups), dim=1)
        # Half of the groups belong to each frame; a group has nine taps, a tap y then x.
        taps = 9 * self.groups // 2
        along = torch.cat([f.flip(1).repeat(1, taps, 1, 1) for f in (flow, flow2)], dim=1)
        offset = MAX_OFFSET * offset.tanh() + along
        # Not every device has this operation in bfloat16, which autocast may have made of these.
        earlier, offset, mask = (x.to(self.weight.dtype) for x in (earlier, offset, mask.sigmoid()))
        return deform_conv2d(earlier, offset, self.weight, self.bias, padding=1, mask=mask)


class Propagation(nn.Module):
    """Hands features from frame to frame, first back through time, then forth."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        c = width.features
        # A frame's features, those of the pass before, the aligned ones.
        inputs = {"backward_": 2 * c, "forward_": 3 * c}
        self.deform_align = nn.ModuleDict({name: DeformableAlignment(width) for name in inputs})
        self.backbone = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Conv2d(channels, c, 3, padding=1),
                    nn.LeakyReLU(0.1),
                    nn.Conv2d(c, c, 3, padding=1),
                )
                for name, channels in inputs.items()
            }
        )
        self.fusion = nn.Conv2d(2 * c, c, 1)

    def forward(self, features: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        """Propagate.

        Args:
            features: (b, l, c, h, w).
            forward: (b, l - 1, 2, h, w), the flows from frame i to i + 1.
            backward: the same from i + 1 to i.

        Returns:
            The shape of `features`.
        """
        frames = features.unbind(1)
        # Running back through time, step s would need the flow of frame l - 1 - s. The published
        # weights were trained with that of frame s - 1 (upstream issues 25, 33, 58), so it is kept.
        back = self._pass("backward_", [(f,) for f in frames[::-1]], forward)[::-1]
        forth = self._pass("forward_", list(zip(frames, back, strict=True)), backward)
        joined = [self.fusion(torch.cat(pair, dim=1)) for pair in zip(back, forth, strict=True)]
        return torch.stack(joined, dim=1) + features

    def _pass(self, name: str, frames: Sequence[tuple[Tensor, ...]], flows: Tensor) -> list[Tensor]:
        """Visit frames, each given by its own features and what else is known about it."""
        results: list[Tensor] = []
        for step, known in enumerate(frames):
            aligned = torch.zeros_like(known[0])
            if step:
                last, flow = results[-1], flows[:, step - 1]
                second, flow2, moved2 = aligned, torch.zeros_like(flow), aligned
                if step > 1:
                    second = results[-2]
                    flow2 = flow + warp(flows[:, step - 2], flow)
                    moved2 = warp(second, flow2)
                condition = torch.cat((warp(last, flow), known[0], moved2), dim=1)
                aligned = self.deform_align[name](
                    torch.cat((last, second), dim=1), condition, flow, flow2
                )
            joined = torch.cat((*known, aligned), dim=1)
            results.append(aligned + self.backbone[name](joined))
        return results


# ---------------------------------------------------------------------------- patches, tokens

PATCH = 7 * 7
_unfold = partial(F.unfold, kernel_size=7, padding=3, stride=3)
_fold = partial(F.fold, kernel_size=7, padding=3, stride=3)  # sums where patches overlap


def grid_of(height: int, width: int) -> Size:
    """Rows and columns of tokens for features of this size."""
    return -(-height // 3), -(-width // 3)


class SoftSplit(nn.Module):
    """Features (b, t, c, h, w) to tokens (b, t, rows, columns, dim), one per 7x7 patch."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.embedding = nn.Linear(width.features * PATCH, width.dim)

    def forward(self, features: Tensor) -> Tensor:
        patches = _unfold(features.flatten(0, 1)).transpose(1, 2)
        tokens = self.embedding(patches).unflatten(1, grid_of(*features.shape[-2:]))
        return tokens.unflatten(0, features.shape[:2])


class SoftComposite(nn.Module):
    """Tokens (b, t, rows, columns, dim) to features (b, t, c, h, w), overlaps summed up."""

    def __init__(self, width: Width, fixed: Size | None) -> None:
        super().__init__()
        c = width.features
        self.embedding = nn.Linear(width.dim, c * PATCH)
        if fixed:
            self.bias = nn.Parameter(torch.zeros(c, *fixed))
        else:
            self.bias_conv = nn.Conv2d(c, c, 3, padding=1)
        self.fixed = fixed

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        patches = self.embedding(tokens.flatten(2, 3).flatten(0, 1)).transpose(1, 2)
        features = _fold(patches, size)
        features = features + self.bias if self.fixed else self.bias_conv(features)
        return features.unflatten(0, tokens.shape[:2])


# ---------------------------------------------------------------------------- transformer


def _shifted_windows(grid: Sequence[int], shift: Size, device: torch.device) -> Tensor:
    """Where the tokens of each window lie after a shift that wraps around the grid.

    Returns:
        int64 (window rows, window columns, 45): positions in the flattened grid.
    """
    rows, columns = (
        (torch.arange(length, device=device) + by).remainder(length).view(-1, window)
        for length, by, window in zip(grid, shift, WINDOW, strict=True)
    )
    return (rows[:, None, :, None] * grid[1] + columns[None, :, None, :]).flatten(2)


_DIAGONALS = tuple(product((REACH[0], -REACH[0]), (REACH[1], -REACH[1])))


def _outside_window() -> Tensor:
    """Which tokens of the four diagonally shifted windows, one after another, lie outside of it."""
    places = product(_DIAGONALS, range(WINDOW[0]), range(WINDOW[1]))
    outside = (
        y + dy not in range(WINDOW[0]) or x + dx not in range(WINDOW[1])
        for (dy, dx), y, x in places
    )
    return torch.tensor([index for index, out in enumerate(outside) if out])


def near_tokens(grid: Sequence[int], device: torch.device) -> Tensor:
    """What the windows see near by: their own 45 tokens, and the 120 of the ring round them.

    Returns:
        int64 (window rows, window columns, 165): positions in the flattened grid.
    """
    own = _shifted_windows(grid, (0, 0), device)
    shifted = [_shifted_windows(grid, shift, device) for shift in _DIAGONALS]
    ring = torch.cat(shifted, dim=-1)[..., _outside_window().to(device)]
    return torch.cat((own, ring), dim=-1)


class FocalAttention(nn.Module):
    """Attention through time from a window's tokens to those in it, round it, and far away.

    In each frame a window sees its own tokens; a ring of tokens round it; and one pooled token of
    each window near it. The ring wraps around the border of the picture, and the four places it is
    made of overlap, so that some of its tokens count twice: both as published.
    """

    valid_ind_rolled: Tensor

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.qkv = nn.Linear(width.dim, 3 * width.dim)
        self.proj = nn.Linear(width.dim, width.dim)
        self.register_buffer("valid_ind_rolled", _outside_window())

    def forward(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Attend.

        Args:
            tokens: (b, t, rows, columns, dim).
            pooled: (b, t, rows/5, columns/9, dim).

        Returns:
            The shape of `tokens`.
        """
        grid = tokens.shape[2:4]
        queries, keys, values = self.qkv(tokens).flatten(2, 3).chunk(3, dim=-1)
        _, far_keys, far_values = self.qkv(pooled).chunk(3, dim=-1)
        near = near_tokens(grid, tokens.device)
        own = near[..., : WINDOW[0] * WINDOW[1]]
        result = torch.empty_like(queries)
        # Window by window, so that memory does not grow with their number.
        for row, column in product(range(near.shape[0]), range(near.shape[1])):
            # Upstream gives places beyond the picture zero keys and the logit -100; exp(-100) is
            # nothing, so they are left out.
            far = (
                slice(None), slice(None),
                slice(max(row - REACH[0], 0), row + REACH[0] + 1),
                slice(max(column - REACH[1], 0), column + REACH[1] + 1),
            )  # fmt: skip
            some = near[row, column]
            attended = F.scaled_dot_product_attention(
                split_heads(queries[:, :, own[row, column]]),
                split_heads(torch.cat((keys[:, :, some], far_keys[far].flatten(2, 3)), dim=2)),
                split_heads(torch.cat((values[:, :, some], far_values[far].flatten(2, 3)), dim=2)),
            )
            attended = attended.transpose(1, 2).flatten(2).unflatten(1, (tokens.shape[1], -1))
            result[:, :, own[row, column]] = attended
        return self.proj(result).view_as(tokens)


def split_heads(tokens: Tensor) -> Tensor:
    """(b, t, n, dim) to (b, heads, t * n, dim / heads)."""
    return tokens.flatten(1, 2).unflatten(2, (HEADS, -1)).transpose(1, 2)


class FusionFeedForward(nn.Module):
    """A feed-forward part whose hidden layer mixes neighbours: patches folded and taken again."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        hidden = width.hidden * PATCH
        self.conv1 = nn.Sequential(nn.Linear(width.dim, hidden))
        self.conv2 = nn.Sequential(nn.GELU(), nn.Linear(hidden, width.dim))

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        patches = self.conv1(tokens.flatten(2, 3).flatten(0, 1)).transpose(1, 2)
        overlap = _fold(patches.new_ones(1, PATCH, patches.shape[2]), size)
        patches = _unfold(_fold(patches, size) / overlap)
        return self.conv2(patches.transpose(1, 2)).view_as(tokens)


class Block(nn.Module):
    """One block of the temporal focal transformer."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.pool_layers = nn.ModuleList([nn.Linear(WINDOW[0] * WINDOW[1], 1)])
        self.norm1 = nn.LayerNorm(width.dim)
        self.attn = FocalAttention(width)
        self.norm2 = nn.LayerNorm(width.dim)
        self.mlp = FusionFeedForward(width)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        """Tokens (b, t, rows, columns, dim) of features of `size` to the same shape."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attn(normed, self.pool(normed))
        return tokens + self.mlp(self.norm2(tokens), size)

    def pool(self, normed: Tensor) -> Tensor:
        """Each window of (b, t, rows, columns, dim) as one token."""
        windows = normed.unflatten(3, (-1, WINDOW[1])).unflatten(2, (-1, WINDOW[0]))
        windows = windows.permute(0, 1, 2, 4, 6, 3, 5).flatten(5)
        return self.pool_layers[0](windows).squeeze(-1)


# ---------------------------------------------------------------------------- the network


class E2FGVI(nn.Module):
    """Paints what is missing in some consecutive frames, with the help of frames far away.

    The network is never told where the holes are: it sees grey there.
    """

    def __init__(self, size: Size | None = None, width: Width | None = None) -> None:
        """Build without training.

        Args:
            size: (height, width) of the frames: E2FGVI, bound to it; None: E2FGVI-HQ.
            width: None = as published.
        """
        super().__init__()
        width = width or Width()
        self.size = size
        self.encoder = Encoder(width)
        self.decoder = decoder(width)
        self.feat_prop_module = Propagation(width)
        self.ss = SoftSplit(width)
        self.sc = SoftComposite(width, (size[0] // 4, size[1] // 4) if size else None)
        self.transformer = nn.ModuleList(Block(width) for _ in range(width.blocks))
        self.update_spynet = SPyNet(FlowLevel)

    def forward(
        self, masked_frames: Tensor, num_local: int, *, paint_references: bool = True
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Paint.

        Args:
            masked_frames: (b, t, 3, h, w) RGB in [-1, 1], 0 where something is to be painted;
                `num_local` consecutive frames, then reference frames of any other times.
            num_local: how many are consecutive, at least 1.
            paint_references: False leaves the reference frames out of the result, which is all the
                same otherwise.

        Returns:
            The frames (b * t, 3, h, w) in [-1, 1], painted all over; and the flows between
            consecutive frames, i to i + 1 and i + 1 to i, each (b, num_local - 1, 2, h/4, w/4), x
            y, in feature pixels.

        Raises:
            InputError: The network does not work at this size.
        """
        self._check_size(*masked_frames.shape[-2:])
        frames, device = masked_frames.shape[:2], masked_frames.device
        features = self.encoder(masked_frames.flatten(0, 1)).unflatten(0, frames)
        size = features.shape[-2:]
        with torch.autocast(device.type, enabled=False):  # a flow in bfloat16 is too coarse
            flows = neighbour_flows(self.update_spynet, masked_frames[:, :num_local])
        local = self.feat_prop_module(features[:, :num_local], *flows)
        features = torch.cat((local, features[:, num_local:]), dim=1)
        tokens = self.ss(features)
        for block in self.transformer:
            tokens = block(tokens, size)
        wanted = slice(None) if paint_references else slice(num_local)
        features = features[:, wanted] + self.sc(tokens[:, wanted], size)
        return self.decoder(features.flatten(0, 1)).tanh(), flows

    def _check_size(self, height: int, width: int) -> None:
        if self.size is not None:
            if (height, width) != self.size:
                raise InputError(
                    f"E2FGVI works on frames of {self.size[1]}x{self.size[0]} pixels only and "
                    f"these are {width}x{height}; scale them, or use E2FGVI-HQ."
                )
            return
        rows, columns = grid_of(height // 4, width // 4)
        if height % 4 or width % 4 or rows % WINDOW[0] or columns % WINDOW[1]:
            raise InputError(
                f"E2FGVI-HQ works on frames whose height is a multiple of {PAD_TO[0]} and whose "
                f"width is a multiple of {PAD_TO[1]}, and these are {width}x{height}; pad them."
            )


# ---------------------------------------------------------------------------- weights

Weights = str | Path | Mapping[str, Tensor] | None

_TITLES = {
    "e2fgvi": "E2FGVI",
    "e2fgvi_hq": "E2FGVI-HQ",
    "e2fgvi_hq_small": "the small E2FGVI-HQ",
}
_SIGNS = {  # an entry that only this one has, and its shape
    "e2fgvi": ("sc.bias", (128, 60, 108)),
    "e2fgvi_hq": ("sc.bias_conv.bias", (128,)),
    "e2fgvi_hq_small": ("sc.bias_conv.bias", (64,)),
}


def find_weights(name: str) -> Path:
    """The file in the checkpoints folder with weights of an inpainter.

    Raises:
        CheckpointError: The file is missing or damaged, or there is none to be had.
    """
    if name not in checkpoints.CHECKPOINTS:
        raise CheckpointError(
            f"There are no published weights of {_TITLES[name]}; train it with "
            "`python -m inpainting train`, and give the file."
        )
    return checkpoints.path(name)


def load_weights(name: str, weights: Weights = None) -> tuple[E2FGVI, WeightsRecord]:
    """Build `e2fgvi`, `e2fgvi_hq` or `e2fgvi_hq_small` with weights, loaded strictly.

    Args:
        name: which of them.
        weights: a file, a state dict, or None for the file in the checkpoints folder.

    Raises:
        CheckpointError: The file is missing, damaged, or holds another network.
    """
    if isinstance(weights, Mapping):
        source, state = "The given state dict", dict(weights)
        record = WeightsRecord.of_tensors(state)
    else:
        path = find_weights(name) if weights is None else Path(weights)
        source, state = str(path), checkpoints.load_state_dict(path)
        record = WeightsRecord.of_file(name if weights is None else str(path), path)
    for other, (key, shape) in _SIGNS.items():
        if other != name and key in state and state[key].shape == shape:
            raise CheckpointError(
                f"{source} holds the weights of {_TITLES[other]}, not of {_TITLES[name]}; "
                f"choose the inpainter {other!r} for it."
            )
    with torch.device("meta"):  # no time spent on numbers that are overwritten
        network = cast(E2FGVI, build_network(name))
    wanted = network.state_dict()
    if difference := checkpoints.difference(wanted, state):
        raise CheckpointError(f"{source} does not hold weights of {_TITLES[name]}: {difference}.")
    state = {key: tensor.to(wanted[key].dtype, copy=True) for key, tensor in state.items()}
    network.load_state_dict(state, assign=True)
    return network, record


# ---------------------------------------------------------------------------- inpainters


def _build(
    name: str,
    *,
    device: str = "auto",
    weights: Weights = None,
    dilate: int | None = None,
    mode: Literal["fast", "reference"] = "fast",
    **options: Any,
) -> Inpainter:
    """See `build_inpainter`.

    Args:
        mode: "fast" or "reference", the published protocol.
        options: what `FastInpainter` or `PublishedInpainter` takes.
    """
    # Late: the network alone, as training needs it, comes without OpenCV.
    from inpainting.fast import FastInpainter
    from inpainting.published import PublishedInpainter

    modes = {"fast": FastInpainter, "reference": PublishedInpainter}
    if mode not in modes:
        raise InputError(f"There is no mode {mode!r}; choose fast or reference.")
    place = resolve_device(device)
    network, record = load_weights(name, weights)
    return modes[mode](network, weights=str(record), device=place, dilate=dilate, **options)


for _name, _network in (
    ("e2fgvi", partial(E2FGVI, FIXED_SIZE)),
    ("e2fgvi_hq", E2FGVI),
    ("e2fgvi_hq_small", partial(E2FGVI, width=SMALL)),
):
    register(_name, network=_network, weights=partial(find_weights, _name))(partial(_build, _name))
