"""E2FGVI with the same results from less work.

What is computed for one frame (features, tokens of a reference frame) or for a pair (flow) is kept
for the windows that follow. The last block, the composite and the decoder run only for the frames
and the part of the picture that are wanted. Kernels are laid out so that nothing is transposed, and
keys that upstream attends to twice are looked at once and counted twice.

Read downwards: patches; the parts of the network and what stands in for each; which parts of its
inputs a part of a picture depends on; the network.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpainting.deformable import deform_conv2d
from inpainting.e2fgvi import (
    E2FGVI,
    MAX_OFFSET,
    PATCH,
    REACH,
    WINDOW,
    Block,
    DeformableAlignment,
    Enlarge,
    FocalAttention,
    FusionFeedForward,
    Size,
    SoftComposite,
    SoftSplit,
    grid_of,
    near_tokens,
    split_heads,
)
from inpainting.view import Box, union

FRAMES = 4  # that go through a layer at a time where frames do not need each other

# ---------------------------------------------------------------------------- patches

# A patch is 7x7 pixels, 3 apart. Here pictures and patches have their channels last, and a picture
# has a border: 3 pixels before it, and behind it what fills up the last patch.


def _unfold(picture: Tensor) -> Tensor:
    """(n, 3 rows + 4, 3 columns + 4, c) or larger by 2 to patches (n, rows * columns, 49 c)."""
    patches = picture.unfold(1, 7, 3).unfold(2, 7, 3).permute(0, 1, 2, 4, 5, 3)
    return patches.flatten(3).flatten(1, 2)


def _fold(patches: Tensor, grid: Size) -> Tensor:
    """(n, rows * columns, 49 c) to their sums (n, 3 rows + 6, 3 columns + 6, c) in float32."""
    rows, columns = grid
    patches = patches.view(len(patches), rows, columns, 7, 7, -1).transpose(2, 3)
    c = patches.shape[-1]
    total = torch.zeros(
        len(patches), rows + 2, 3, columns + 2, 3, c, dtype=torch.float32, device=patches.device
    )
    for y in range(3):  # seven pixels reach over three cells of three pixels
        for x in range(3):
            part = patches[:, :, 3 * y : 3 * y + 3, :, 3 * x : 3 * x + 3]
            to = total[:, y : y + rows, : part.shape[2], x : x + columns, : part.shape[4]]
            to += part
    return total.view(len(patches), 3 * rows + 6, 3 * columns + 6, c)


@lru_cache(maxsize=8)
def _shares(grid: Size, size: Size, device: torch.device) -> Tensor:
    """One over the number of patches that cover a pixel, 0 on the border of the picture."""
    ones = torch.ones(1, grid[0] * grid[1], PATCH, device=device)
    counts = _fold(ones, grid)
    inside = torch.zeros_like(counts)
    inside[:, 3 : 3 + size[0], 3 : 3 + size[1]] = 1
    return inside / counts.clamp(min=1)


def _channels_last_rows(linear: nn.Linear) -> nn.Linear:
    """A layer that makes patches, with the channels of each pixel together."""
    linear.weight = nn.Parameter(
        linear.weight.unflatten(0, (-1, PATCH)).transpose(0, 1).flatten(0, 1), requires_grad=False
    )
    linear.bias = nn.Parameter(
        linear.bias.unflatten(0, (-1, PATCH)).t().flatten(), requires_grad=False
    )
    return linear


def _channels_last_columns(linear: nn.Linear) -> nn.Linear:
    """The same for a layer that reads patches."""
    linear.weight = nn.Parameter(
        linear.weight.unflatten(1, (-1, PATCH)).transpose(1, 2).flatten(1), requires_grad=False
    )
    return linear


# ---------------------------------------------------------------------------- parts


class QuickAlignment(nn.Module):
    """`DeformableAlignment` with our own deformable convolution."""

    def __init__(self, part: DeformableAlignment) -> None:
        super().__init__()
        self.weight, self.bias, self.groups = part.weight, part.bias, part.groups
        self.conv_offset = part.conv_offset

    def forward(self, earlier: Tensor, condition: Tensor, flow: Tensor, flow2: Tensor) -> Tensor:
        raw = self.conv_offset(torch.cat((condition, flow, flow2), dim=1)).float()
        offset, mask = raw.split((18 * self.groups, 9 * self.groups), dim=1)
        taps = 9 * self.groups // 2
        along = torch.cat([f.flip(1).repeat(1, taps, 1, 1) for f in (flow, flow2)], dim=1)
        offset = MAX_OFFSET * offset.tanh() + along
        return deform_conv2d(earlier, offset, self.weight, self.bias, mask.sigmoid()).float()


class QuickSplit(nn.Module):
    """`SoftSplit`, frame by frame."""

    def __init__(self, part: SoftSplit) -> None:
        super().__init__()
        self.embedding = _channels_last_columns(part.embedding)

    def forward(self, features: Tensor) -> Tensor:
        size = features.shape[-2:]
        rows, columns = grid = grid_of(*size)
        border = (0, 0, 3, 3 * columns + 1 - size[1], 3, 3 * rows + 1 - size[0])
        pictures = features.flatten(0, 1).permute(0, 2, 3, 1)
        tokens = [self.embedding(_unfold(F.pad(p, border))) for p in pictures.split(FRAMES)]
        return torch.cat(tokens).float().unflatten(1, grid).unflatten(0, features.shape[:2])


class QuickComposite(nn.Module):
    """`SoftComposite`, frame by frame, of a part of the picture."""

    def __init__(self, part: SoftComposite) -> None:
        super().__init__()
        self.embedding = _channels_last_rows(part.embedding)
        self.fixed = part.fixed
        if part.fixed:
            self.bias = part.bias
        else:
            self.bias_conv = part.bias_conv

    def forward(self, tokens: Tensor, size: Size, corner: Size = (0, 0)) -> Tensor:
        """Tokens of a part whose first feature lies at `corner` to its features of `size`."""
        grid = tokens.shape[2:4]
        (y, x), (height, width) = corner, size
        done = []
        for some in tokens.flatten(2, 3).flatten(0, 1).split(FRAMES):
            picture = _fold(self.embedding(some), (grid[0], grid[1]))
            features = picture[:, 3 : 3 + height, 3 : 3 + width].permute(0, 3, 1, 2)
            if self.fixed:
                features = features + self.bias[:, y : y + height, x : x + width]
            else:
                features = self.bias_conv(features).float()
            done.append(features)
        return torch.cat(done).unflatten(0, tokens.shape[:2])


class QuickFeedForward(nn.Module):
    """`FusionFeedForward`, frame by frame."""

    def __init__(self, part: FusionFeedForward) -> None:
        super().__init__()
        self.conv1 = _channels_last_rows(cast(nn.Linear, part.conv1[0]))
        self.conv2 = _channels_last_columns(cast(nn.Linear, part.conv2[1]))

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        grid = (tokens.shape[2], tokens.shape[3])
        shares = _shares(grid, (size[0], size[1]), tokens.device)
        done = []
        for some in tokens.flatten(2, 3).flatten(0, 1).split(FRAMES):
            patches = self.conv1(some)
            picture = (_fold(patches, grid) * shares).to(patches.dtype)
            done.append(self.conv2(F.gelu(_unfold(picture[:, :-2, :-2]))))
        return torch.cat(done).view_as(tokens)


class QuickAttention(nn.Module):
    """`FocalAttention` that looks at each key once, asked by some of the tokens only.

    A key that upstream lists k times weighs k times as much: log k is added to its logit.
    """

    def __init__(self, part: FocalAttention) -> None:
        super().__init__()
        self.qkv, self.proj = part.qkv, part.proj

    def forward(
        self,
        tokens: Tensor,
        pooled: Tensor,
        frames: Sequence[int] | None = None,
        windows: tuple[range, range] | None = None,
    ) -> Tensor:
        """See `FocalAttention.forward`.

        Args:
            frames: whose tokens attend; None = all.
            windows: rows and columns of windows whose tokens attend; None = all.

        Returns:
            (b, len(frames), 5 len(windows[0]), 9 len(windows[1]), dim).
        """
        t, rows, columns, dim = tokens.shape[1:]
        bands, ranks = windows or (range(rows // WINDOW[0]), range(columns // WINDOW[1]))
        chosen = tokens if frames is None else tokens[:, list(frames)]
        top, left = bands.start * WINDOW[0], ranks.start * WINDOW[1]
        chosen = chosen[
            :, :, top : bands.stop * WINDOW[0], left : ranks.stop * WINDOW[1]
        ]  # fmt: skip
        weight, bias = self.qkv.weight, self.qkv.bias
        queries = F.linear(chosen, weight[:dim], bias[:dim])
        both = F.linear(tokens.flatten(2, 3), weight[dim:], bias[dim:])
        far = F.linear(pooled, weight[dim:], bias[dim:])
        result = torch.empty_like(queries)
        for band in bands:
            for rank in ranks:
                near, weights = _unique_near(rows, columns, band, rank, tokens.device)
                beyond = far[
                    :, :,
                    max(band - REACH[0], 0) : band + REACH[0] + 1,
                    max(rank - REACH[1], 0) : rank + REACH[1] + 1,
                ].flatten(2, 3)  # fmt: skip
                seen = torch.cat((both[:, :, near], beyond), dim=2)
                keys, values = seen.chunk(2, dim=-1)
                weights = F.pad(weights, (0, beyond.shape[2])).repeat(t).to(queries.dtype)
                y, x = band * WINDOW[0] - top, rank * WINDOW[1] - left
                here = (slice(None), slice(None), slice(y, y + WINDOW[0]), slice(x, x + WINDOW[1]))
                own = queries[here].flatten(2, 3)
                attended = F.scaled_dot_product_attention(
                    split_heads(own),
                    split_heads(keys),
                    split_heads(values),
                    attn_mask=weights.expand(1, 1, own.shape[1] * own.shape[2], -1),
                )
                result[here] = attended.transpose(1, 2).reshape(result[here].shape)
        return self.proj(result)


@lru_cache(maxsize=512)
def _unique_near(
    rows: int, columns: int, band: int, rank: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The tokens near a window, each once, and the logarithm of how often upstream lists it."""
    listed = near_tokens((rows, columns), torch.device("cpu"))[band, rank]
    near, counts = listed.unique(return_counts=True)
    return near.to(device), counts.float().log().to(device)


def _alignments(network: E2FGVI) -> None:
    parts = network.feat_prop_module.deform_align
    for name, part in list(parts.items()):
        parts[name] = QuickAlignment(cast(DeformableAlignment, part))


def _patches(network: E2FGVI) -> None:
    network.ss = cast(SoftSplit, QuickSplit(network.ss))
    network.sc = cast(SoftComposite, QuickComposite(network.sc))
    for block in network.transformer:
        block.mlp = QuickFeedForward(cast(FusionFeedForward, block.mlp))


def _attention(network: E2FGVI) -> None:
    for block in network.transformer:
        block.attn = QuickAttention(cast(FocalAttention, block.attn))


def _channels_last(network: E2FGVI) -> None:
    # The encoder's layers join channels in groups, and are slower that way.
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and not name.startswith("encoder"):
            module.to(memory_format=torch.channels_last)


KERNELS: dict[str, Callable[[E2FGVI], None]] = {
    "alignment": _alignments,
    "patches": _patches,
    "attention": _attention,
    "channels last": _channels_last,
}


def quicken(network: E2FGVI, kernels: Sequence[str] | None = None) -> E2FGVI:
    """A copy of the network, for inference, whose parts compute the same in less time.

    Args:
        network: is left as it is.
        kernels: keys of `KERNELS`; None = all that are quicker where the network is.
    """
    device = next(network.parameters()).device
    if kernels is None:
        # torchvision's operator is slow on the CPU only.
        kernels = [name for name in KERNELS if name != "alignment" or device.type == "cpu"]
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for name in kernels:
        KERNELS[name](network)
    return network


# ---------------------------------------------------------------------------- parts of a picture


def _part(picture: Tensor, box: Box) -> Tensor:
    rows, columns = box.slices
    return picture[..., rows, columns]


def _halfway(start: int, stop: int, length: int) -> Tensor:
    """Where the pixels of a picture twice as long come from in one of this length."""
    places = torch.arange(start, stop, dtype=torch.float64)
    return places * ((length - 1) / max(2 * length - 1, 1))


def _before_enlarging(box: Box, size: Size) -> Box:
    """The part of a picture of `size` that this part of one twice its size depends on."""
    (y0, y1), (x0, x1) = (
        (int(places[0]), min(int(places[-1]) + 2, length))
        for places, length in (
            (_halfway(box.y0, box.y1, size[0]), size[0]),
            (_halfway(box.x0, box.x1, size[1]), size[1]),
        )
    )
    return Box(y0, x0, y1, x1)


def _enlarge(picture: Tensor, corner: Size, size: Size, box: Box) -> Tensor:
    """This part of a picture at twice its size, bilinearly, the corners of both aligned.

    Args:
        picture: (n, c, h, w), the part of it that starts at `corner`.
        corner: y, x.
        size: of the whole picture.
        box: the part wanted of the enlarged one.
    """
    result = picture.permute(0, 2, 3, 1)
    for axis in (0, 1):
        places = _halfway(box[axis], box[axis + 2], size[axis])
        low = places.floor()
        share = (places - low).to(picture.dtype).to(picture.device)
        first = low.long().to(picture.device) - corner[axis]
        second = first.add(1).clamp(max=result.shape[1 + axis] - 1)
        share = share.view(-1, 1, 1) if axis == 0 else share.view(-1, 1)
        result = result.index_select(1 + axis, first).lerp(
            result.index_select(1 + axis, second), share
        )
    return result.permute(0, 3, 1, 2)


class Needs(NamedTuple):
    """What a part of the picture depends on, from the picture backwards."""

    box: Box  # of the picture
    large: Box  # of the map as large as the picture, before the last two convolutions
    middle: Box  # of the map of half its size
    features: Box  # of the features
    tokens: tuple[range, range]  # windows of the transformer, rows and columns


def needs(box: Box, size: Size, *, everything: bool = False) -> Needs:
    """What a part of a picture of this size depends on; `everything` = work on all of it."""
    height, width = size
    features = (height // 4, width // 4)
    half = (2 * features[0], 2 * features[1])
    rows, columns = grid_of(*features)
    if everything:
        box = Box(0, 0, height, width)
    large = box.grown(2, size)
    middle = _before_enlarging(large, half).grown(2, half)
    wanted = _before_enlarging(middle, features)
    # The convolution after the composite looks one further; a feature lies in patches whose
    # tokens are at most one beside its own; and the feed-forward part mixes tokens two apart.
    around = wanted.grown(1, features)
    spans = []
    for start, stop, count, window in (
        (around.y0, around.y1, rows, WINDOW[0]),
        (around.x0, around.x1, columns, WINDOW[1]),
    ):
        first, last = max((start - 1) // 3 - 2, 0), min((stop + 2) // 3 + 2, count - 1)
        spans.append(range(first // window, last // window + 1))
    return Needs(box, large, middle, wanted, (spans[0], spans[1]))


# ---------------------------------------------------------------------------- the network

Value = TypeVar("Value")


class _Store:
    """What was computed, the last used things first to stay."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        return cast(Value, self._values[key])

    def shrink(self, most: int) -> None:
        while len(self._values) > most:
            self._values.popitem(last=False)

    def clear(self) -> None:
        self._values.clear()


class FastE2FGVI:
    """Paints windows of one clip, all at the same view of it, and remembers what they share.

    Kept is what belongs to as many frames as the last window had, whatever the length of the clip.
    The flow, where things are, and sums are in float32 also when the rest multiplies in
    bfloat16.
    """

    def __init__(
        self,
        network: E2FGVI,
        *,
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.float32,
        partial: bool = True,
    ) -> None:
        """Set up.

        Args:
            network: is copied.
            device: where to compute.
            precision: what the large layers multiply in.
            partial: work out only what the wanted part of the picture depends on.
        """
        self.size = network.size
        self._device = torch.device(device)
        self._network = quicken(network.to(self._device))
        self._precision, self._partial = precision, partial
        if precision != torch.float32:
            for name, module in self._network.named_modules():
                if isinstance(module, nn.Conv2d | nn.Linear) and "update_spynet" not in name:
                    module.to(precision)
        self._features, self._derived = _Store(), _Store()

    def forget(self) -> None:
        """Another clip, or another view of it, follows."""
        self._features.clear()
        self._derived.clear()

    @torch.inference_mode()
    def paint(
        self,
        picture: Callable[[int], Tensor],
        local: Sequence[int],
        references: Sequence[int],
        boxes: dict[int, Box],
    ) -> dict[int, Tensor]:
        """Paint parts of some frames of a window.

        Args:
            picture: gives a frame by its number: float32 (3, h, w) in [-1, 1], 0 where something is
                to be painted. Asked once for each frame as long as it is remembered.
            local: numbers of consecutive frames.
            references: of others, which only help.
            boxes: which part is wanted, for some of the local frames.

        Returns:
            For each of `boxes` float32 (3, h, w) of that part, in [-1, 1].
        """
        with self._multiplying(self._precision):
            entries = [self._entry(index, picture) for index in local]
            size = entries[0][0].shape[-2:]
            none = torch.zeros(0, 2, *size, device=self._device)
            flows = [
                [self._flow(*pair, picture)[None] for pair in pairs]
                for pairs in (pairwise(local), ((b, a) for a, b in pairwise(local)))
            ]
            forward, backward = (torch.cat((none, *way)) for way in flows)
            features = torch.stack([entry[0] for entry in entries])[None].float()
            features = self._network.feat_prop_module(features, forward[None], backward[None])
            tokens = torch.cat(
                (self._network.ss(features), *(self._tokens(i, picture) for i in references)), dim=1
            )
            painted = self._finish(features[0], tokens, list(local), boxes)
        self._features.shrink(len(local) + len(references))
        self._derived.shrink(2 * len(local) + len(references))
        return painted

    def _multiplying(self, precision: torch.dtype) -> AbstractContextManager[None]:
        if self._precision == torch.float32:
            return nullcontext()
        kind, lower = self._device.type, precision != torch.float32
        return torch.autocast(kind, dtype=self._precision, enabled=lower)

    def _entry(self, index: int, picture: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
        """Features (c, h/4, w/4) of a frame, and the frame at their size for the flow."""

        def make() -> tuple[Tensor, Tensor]:
            image = picture(index).to(self._device)[None]
            features = self._network.encoder(image)
            small = F.interpolate(
                (image + 1) / 2, features.shape[-2:], mode="bilinear", align_corners=True
            )
            return features[0], small

        return self._features.get(index, make)

    def _tokens(self, index: int, picture: Callable[[int], Tensor]) -> Tensor:
        """Tokens (1, 1, rows, columns, dim) of a reference frame."""
        features, _ = self._entry(index, picture)
        return self._derived.get(index, lambda: self._network.ss(features[None, None]))

    def _flow(self, first: int, second: int, picture: Callable[[int], Tensor]) -> Tensor:
        """Flow (2, h/4, w/4) between neighbours."""
        images = [self._entry(index, picture)[1] for index in (first, second)]

        def make() -> Tensor:
            with self._multiplying(torch.float32):
                return self._network.update_spynet(*images)[0]

        return self._derived.get((first, second), make)

    def _finish(
        self, features: Tensor, tokens: Tensor, local: list[int], boxes: dict[int, Box]
    ) -> dict[int, Tensor]:
        """The transformer, the composite and the decoder, for what is wanted."""
        size = (features.shape[-2], features.shape[-1])
        blocks = cast("list[Block]", list(self._network.transformer))
        for block in blocks[:-1]:
            tokens = block(tokens, size)
        whole = (4 * size[0], 4 * size[1])
        everything = not self._partial
        need = needs(union(list(boxes.values())), whole, everything=everything)
        frames = [local.index(index) for index in boxes]
        tokens, part = self._last(blocks[-1], tokens, size, frames, need.tokens)
        composite = self._network.sc(tokens, part.size, part.corner)[0]
        painted = {}
        for number, (index, box) in enumerate(boxes.items()):
            need = needs(box, whole, everything=everything)
            wanted = need.features
            mixed = _part(features[frames[number]], wanted)
            mixed = mixed + _part(composite[number], wanted.seen_from(part.corner))
            picture = self._decode(mixed[None], need, size)
            painted[index] = _part(picture[0], box.seen_from(need.box.corner))
        return painted

    def _last(
        self,
        block: Block,
        tokens: Tensor,
        size: Size,
        frames: list[int],
        windows: tuple[range, range],
    ) -> tuple[Tensor, Box]:
        """The last block for some frames and windows, and the features that those cover."""
        normed = block.norm1(tokens)
        attention = cast(QuickAttention, block.attn)
        attended = attention(normed, block.pool(normed), frames, windows)
        (y0, y1), (x0, x1) = (
            (span.start * window, span.stop * window)
            for span, window in zip(windows, WINDOW, strict=True)
        )
        tokens = tokens[:, frames, y0:y1, x0:x1] + attended
        part = Box(3 * y0, 3 * x0, min(3 * y1, size[0]), min(3 * x1, size[1]))
        return tokens + block.mlp(block.norm2(tokens), part.size), part

    def _decode(self, features: Tensor, need: Needs, size: Size) -> Tensor:
        """Features (1, c, h, w), as far as needed, to that part of the picture."""
        first, _, second, _, third, _, fourth = self._network.decoder
        first, third = cast(Enlarge, first), cast(Enlarge, third)
        half = (2 * size[0], 2 * size[1])
        x = _enlarge(features.float(), need.features.corner, size, need.middle)
        x = F.leaky_relu(second(F.leaky_relu(first.conv(x), 0.2)), 0.2)
        # What the convolutions saw beyond an edge that is none spoils two pixels, which were extra.
        kept = _before_enlarging(need.large, half)
        x = _part(x, kept.seen_from(need.middle.corner))
        x = _enlarge(x.float(), kept.corner, half, need.large)
        x = fourth(F.leaky_relu(third.conv(x), 0.2))
        return _part(x, need.box.seen_from(need.large.corner)).float().tanh()
