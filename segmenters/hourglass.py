"""Fewer tokens in the middle of a vision transformer (Expedit, https://arxiv.org/abs/2210.01035).

Neighbouring tokens are alike. Before block `location` the tokens of each attention window are
clustered to fewer, the blocks from there on run on those, and after the last block each original
token is put together again from the clusters it resembled. Neither layer has parameters: any
trained weights serve unchanged, and how much to save is chosen per run.

Numbers are those of the official code, organization Expedit-LargeScale-Vision-Transformer:
Expedit-SAM @ 75a1c30 for the two layers and `apply_to_sam_encoder`, Expedit-Mask2Former @ 5d47cbe
for `apply_to_swin`.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import Tensor, nn
from torch.nn import functional as F

from media import InputError

if TYPE_CHECKING:
    from timm.models.swin_transformer import (
        SwinTransformer,
        SwinTransformerBlock,
        SwinTransformerStage,
    )


def _check_maps(**maps: Tensor) -> None:
    for name, tokens in maps.items():
        if tokens.ndim != 4:
            raise InputError(f"The {name} must be a map (b, h, w, c), not {tuple(tokens.shape)}.")


def _check_settings(
    size: Sequence[int],
    grid: Sequence[int],
    *,
    temperature: float,
    iterations: int = 0,
    window: int = 1,
    neighbours: int = 1,
    norm: int = 2,
) -> None:
    """Refuse what the two layers cannot do with tokens of `size` and clusters of `grid`."""
    (height, width), (rows, columns) = size, grid
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise InputError(
            f"{rows}x{columns} clusters do not fit a map of {height}x{width} tokens; "
            "choose at least 1 and at most as many per axis as there are tokens."
        )
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(f"The temperature of a clustering must be above 0, not {temperature}.")
    if iterations < 0:
        raise InputError(f"A clustering takes 0 or more iterations, not {iterations}.")
    if window < 1 or window % 2 == 0:
        raise InputError(f"The window of a clustering must be an odd number, not {window}.")
    if not 1 <= neighbours <= rows * columns:
        raise InputError(
            f"A token cannot be put together from {neighbours} of {rows * columns} clusters; "
            f"choose 1 to {rows * columns} neighbours."
        )
    if norm not in (1, 2):
        raise InputError(f"The norm of the weights must be 1 or 2, not {norm}.")


def neighbourhood(size: tuple[int, int], grid: tuple[int, int], window: int) -> Tensor:
    """Which clusters a token may join: those around the one that lies over it.

    Args:
        size: (height, width) of the token map.
        grid: (rows, columns) of clusters laid over it.
        window: Odd. Clusters up to `window // 2` rows and columns away are near enough; the grid
            does not wrap around.

    Returns:
        Bool (height * width, rows * columns), both in row-major order.
    """

    def along(tokens: int, clusters: int) -> Tensor:
        over = torch.arange(tokens) * clusters // tokens
        return (over[:, None] - torch.arange(clusters)).abs() <= window // 2

    rows, columns = (along(n, m) for n, m in zip(size, grid, strict=True))
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)


def cluster_tokens(
    features: Tensor, grid: tuple[int, int], *, iterations: int, temperature: float, window: int
) -> Tensor:
    """Cluster a map of tokens softly to a smaller one (paper, section 3.2).

    The first centroids are averages over a regular grid. Each iteration spreads every token over
    the centroids near it, by softmax of -temperature * squared distance, and moves each centroid to
    the mean of what it was given.

    Computed in float32 (or better) inside autocast too: squares overflow half precision.

    Args:
        features: Float (b, h, w, c). Each of the b maps is clustered by itself.
        grid: (rows, columns) of centroids, at most (h, w).
        iterations: 0 or more; 0 gives the averages.
        temperature: Above 0. Multiplies squared distances, as in the official code; the paper's tau
            is 1 / temperature.
        window: Odd, in centroids; see `neighbourhood`.

    Returns:
        Centroids (b, rows, columns, c) of the type of `features`.

    Raises:
        InputError: A setting is out of its range.
    """
    _check_maps(features=features)
    b, h, w, c = features.shape
    _check_settings((h, w), grid, temperature=temperature, iterations=iterations, window=window)
    far = ~neighbourhood((h, w), grid, window).to(features.device)
    with torch.autocast(features.device.type, enabled=False):
        full = features.to(torch.promote_types(features.dtype, torch.float32))
        pooled = F.adaptive_avg_pool2d(full.permute(0, 3, 1, 2), grid)
        centroids = pooled.flatten(2).transpose(1, 2)
        tokens = full.reshape(b, h * w, c)
        for _ in range(iterations):
            # -|token - centroid|^2 without -|token|^2, which cancels in the softmax
            norms = centroids.square().sum(-1)[:, None]
            logits = torch.baddbmm(
                norms, tokens, centroids.mT, beta=-temperature, alpha=2 * temperature
            )
            shares = logits.masked_fill(far, -torch.inf).softmax(-1)
            given = shares.sum(1)[..., None].clamp(min=1e-16)
            centroids = shares.mT @ tokens / given
        return centroids.view(b, *grid, c).to(features.dtype)


def reconstruction_weights(
    features: Tensor, centroids: Tensor, *, temperature: float, neighbours: int, norm: int = 2
) -> Tensor:
    """How much of each cluster goes into each token (paper, section 3.2).

    The weight of a cluster is exp(-temperature * squared distance), over all clusters of the map;
    the `neighbours` largest count, and more where some are equal (clusters of padding are), as in
    the official code. Two more things are kept from it: weights are divided by their L2 norm, where
    the paper's sum to 1, so that a token of many equal neighbours comes out longer; and the
    distances are not made relative to the nearest, so that a token far from every cluster
    (temperature * squared distance over about 28) shrinks, and over about 103 becomes 0.

    Args:
        features: Float (b, h, w, c), tokens before clustering.
        centroids: Float (b, rows, columns, c), what they were clustered to.
        temperature: As in `cluster_tokens`.
        neighbours: 1 to rows * columns.
        norm: 2 as in the official code, or 1 as in the paper.

    Returns:
        Float32 (or better) (b, h * w, rows * columns), not negative.

    Raises:
        InputError: A setting is out of its range, or the shapes do not belong together.
    """
    _check_maps(features=features, centroids=centroids)
    b, h, w, c = features.shape
    _, rows, columns, _ = centroids.shape
    if centroids.shape != (b, rows, columns, c):
        raise InputError(
            f"Centroids {tuple(centroids.shape)} are not those of tokens {tuple(features.shape)}: "
            "the first and the last number must be the same."
        )
    _check_settings(
        (h, w), (rows, columns), temperature=temperature, neighbours=neighbours, norm=norm
    )
    with torch.autocast(features.device.type, enabled=False):
        precision = torch.promote_types(features.dtype, torch.float32)
        tokens = features.to(precision).reshape(b, h * w, c)
        clusters = centroids.to(precision).reshape(b, rows * columns, c)
        norms = tokens.square().sum(-1)[:, :, None] + clusters.square().sum(-1)[:, None]
        distances = torch.baddbmm(norms, tokens, clusters.mT, alpha=-2).clamp(min=0)
        weights = (-temperature * distances).exp()
        least = weights.topk(neighbours, dim=-1).values[..., -1:]
        return F.normalize(weights * (weights >= least), p=norm, dim=-1)


def reconstruct_tokens(
    low_res: Tensor,
    features: Tensor,
    centroids: Tensor,
    *,
    temperature: float,
    neighbours: int,
    norm: int = 2,
) -> Tensor:
    """Put every token together from the clusters it resembled before the blocks between.

    Args:
        low_res: Float (b, rows, columns, d), what became of the clusters; any number of channels.
        features: Float (b, h, w, c), tokens before clustering.
        centroids: Float (b, rows, columns, c), what they were clustered to.
        temperature: As in `cluster_tokens`.
        neighbours: How many clusters a token is made of, 1 to rows * columns.
        norm: See `reconstruction_weights`.

    Returns:
        (b, h, w, d) of the type of `low_res`.

    Raises:
        InputError: A setting is out of its range, or the shapes do not belong together.
    """
    if low_res.ndim != 4 or low_res.shape[:3] != centroids.shape[:3]:
        raise InputError(
            f"The map {tuple(low_res.shape)} to reconstruct from is not laid out like the "
            f"centroids {tuple(centroids.shape)}."
        )
    weights = reconstruction_weights(
        features, centroids, temperature=temperature, neighbours=neighbours, norm=norm
    )
    with torch.autocast(features.device.type, enabled=False):
        tokens = weights @ low_res.to(weights.dtype).flatten(1, 2)
    return tokens.view(*features.shape[:3], -1).to(low_res.dtype)


@dataclass(frozen=True)
class HourglassConfig:
    """Where and how tokens are clustered. The defaults are those of Expedit-SAM's command line.

    Attributes:
        location: The first block that runs on clusters, from 0; counted through all stages of a
            Swin.
        clusters_per_window: What the tokens of one attention window (14x14 in SAM) become, a square
            number.
        iterations: Of clustering.
        temperature: Multiplies squared distances, so it depends on how long tokens are at
            `location`.
        window: Odd; a token may join the window x window clusters around it.
        neighbours: How many clusters a token is reconstructed from.
        norm: 2 as in the official code, or 1 as in the paper: see `reconstruction_weights`.
        official_flaws: Repeat two mistakes of the official code, to compare with it. SAM: nothing
            is reconstructed when the clustered map is as large as the original one. Swin: the mask
            of shifted windows is drawn for the shift of unclustered windows.

    Raises:
        InputError: A setting is out of its range.
    """

    location: int
    clusters_per_window: int
    iterations: int = 5
    temperature: float = 0.005
    window: int = 5
    neighbours: int = 20
    norm: int = 2
    official_flaws: bool = False

    def __post_init__(self) -> None:
        if self.location < 0:
            raise InputError(
                f"Tokens cannot be clustered before block {self.location}; blocks count from 0."
            )
        if self.clusters_per_window < 1 or self.side**2 != self.clusters_per_window:
            raise InputError(
                f"{self.clusters_per_window} clusters do not fill a square window; "
                "choose a square number such as 100, 81 or 64."
            )
        grid = (self.side, self.side)
        _check_settings(
            grid,
            grid,
            temperature=self.temperature,
            iterations=self.iterations,
            window=self.window,
            neighbours=self.neighbours,
            norm=self.norm,
        )

    @property
    def side(self) -> int:
        """Rows and columns of clusters in a window."""
        return math.isqrt(max(self.clusters_per_window, 0))

    def cluster(self, windows: Tensor) -> Tensor:
        """Centroids (n, side, side, c) of the tokens (n, window, window, c) of n windows."""
        return cluster_tokens(
            windows,
            (self.side, self.side),
            iterations=self.iterations,
            temperature=self.temperature,
            window=self.window,
        )

    def reconstruct(self, low_res: Tensor, windows: Tensor, centroids: Tensor) -> Tensor:
        """Tokens (n, window, window, d) from the clusters (n, side, side, d) of n windows."""
        return reconstruct_tokens(
            low_res,
            windows,
            centroids,
            temperature=self.temperature,
            neighbours=self.neighbours,
            norm=self.norm,
        )

    def check_place(self, depth: int, window_size: tuple[int, int]) -> None:
        """Refuse a network of `depth` blocks, or windows, that cannot be clustered so."""
        if self.location >= depth:
            raise InputError(
                f"There is no block {self.location} to cluster tokens before; this network has "
                f"{depth} blocks, so choose a location of 0 to {depth - 1}."
            )
        height, width = window_size
        if height != width:
            raise InputError(f"Tokens are clustered in square windows, not in {height}x{width}.")
        if self.side > height:
            raise InputError(
                f"{self.clusters_per_window} clusters are more than the {height}x{height} tokens "
                f"of a window; choose a square number up to {height**2}."
            )


def run_on_clusters(
    x: Tensor,
    blocks: Iterable[nn.Module],
    window_size: int,
    config: HourglassConfig,
    *,
    skip_if_as_large: bool = False,
) -> Tensor:
    """Cluster the tokens (b, h, w, c) of each window, run `blocks` on them, and reconstruct.

    Windows are zero-padded as they are for attention and clustered one by one, then laid side by
    side again: 64x64 tokens, padded to 5x5 windows of 14x14, become 50x50 for 100 clusters per
    window. Clusters of padding are tokens like any other from then on, as in the official code.
    """
    size, side = x.shape[1:3], config.side
    windows, padded = window_partition(x, window_size)
    centroids = config.cluster(windows)
    grid = tuple(length // window_size * side for length in padded)
    x = window_unpartition(centroids, side, grid, grid)
    for block in blocks:
        x = block(x)
    if skip_if_as_large and grid == size:
        return x
    low_res, _ = window_partition(x, side)
    return window_unpartition(
        config.reconstruct(low_res, windows, centroids), window_size, padded, size
    )


# ---------------------------------------------------------------- SAM: windows and global blocks


class HourglassImageEncoder(nn.Module):
    """SAM's image encoder with fewer tokens from block `config.location` on.

    Call, weights and state-dict keys are those of `ImageEncoderViT`; the modules are the very ones
    of `encoder`, which stays as it is and may be used beside this.

    Windowed blocks run on windows of clusters, global ones on the whole map of them; SAM's
    attention itself resizes its table of relative positions to what it meets.
    """

    def __init__(self, encoder: ImageEncoderViT, config: HourglassConfig) -> None:
        super().__init__()
        sizes = {block.window_size for block in encoder.blocks} - {0}
        if len(sizes) != 1:
            raise InputError(
                "Tokens are clustered per attention window; this image encoder has "
                f"{'no windowed block' if not sizes else 'windows of several sizes'}."
            )
        (window_size,) = sizes
        config.check_place(len(encoder.blocks), (window_size, window_size))
        self.window_size: int = window_size
        self.config = config
        self.img_size = encoder.img_size
        self.patch_embed = encoder.patch_embed
        self.pos_embed = encoder.pos_embed
        self.blocks = nn.ModuleList(encoder.blocks)
        for index, block in enumerate(encoder.blocks):
            if block.window_size and index >= config.location:
                self.blocks[index] = twin = copy.copy(block)  # shares its weights
                twin.window_size = config.side
        self.neck = encoder.neck

    def forward(self, x: Tensor) -> Tensor:
        """Encode normalised images (b, 3, h, w) to features (b, 256, h / 16, w / 16)."""
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        for block in self.blocks[: self.config.location]:
            x = block(x)
        x = self._run_on_fewer(x, self.blocks[self.config.location :])
        return self.neck(x.permute(0, 3, 1, 2))

    def _run_on_fewer(self, x: Tensor, blocks: nn.ModuleList) -> Tensor:
        """Run the blocks from `config.location` on with fewer tokens than (b, h, w, c)."""
        return run_on_clusters(
            x,
            blocks,
            self.window_size,
            self.config,
            skip_if_as_large=self.config.official_flaws,
        )


def apply_to_sam_encoder(
    image_encoder: ImageEncoderViT, config: HourglassConfig
) -> HourglassImageEncoder:
    """Let SAM's image encoder run with fewer tokens: the same call, the same weights.

    The result shares its weights with `image_encoder`, which is not changed: several settings of
    one encoder can be used side by side.

    Raises:
        InputError: `image_encoder` is no ViT of segment-anything, or `config` does not fit it.
    """
    if not isinstance(image_encoder, ImageEncoderViT):
        raise InputError(
            "Token clustering needs the plain image encoder of SAM (ViT-B, -L or -H), "
            f"not {type(image_encoder).__name__}."
        )
    return HourglassImageEncoder(image_encoder, config)


# Those of ViT-H are what Expedit-SAM's demo calls 1.2x and 1.5x, after the time that finding all
# masks of an image took on a V100. Those of L and B start at about the same share of the depth.
# Nobody has published what any of them does to the quality of masks.
PRESETS = {
    "sam_vit_b": {"balanced": HourglassConfig(6, 81), "fast": HourglassConfig(3, 81)},
    "sam_vit_l": {"balanced": HourglassConfig(12, 81), "fast": HourglassConfig(5, 81)},
    "sam_vit_h": {"balanced": HourglassConfig(16, 81), "fast": HourglassConfig(6, 81)},
}


# ------------------------------------------------------------------- Swin: shifted windows, stages


class ClusteredSwinBlock(nn.Module):
    """A block of timm's Swin on windows of clusters, with the very modules of the original one.

    The table of relative position biases is resized when used; the official code replaces the
    parameter by the resized one, so that what it saves fits no other Swin.

    Args:
        block: The original; its window is square.
        config: What is clustered.
    """

    def __init__(self, block: SwinTransformerBlock, config: HourglassConfig) -> None:
        super().__init__()
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2
        self.window_size = config.side
        rows, columns = (config.side // 2 if shift else 0 for shift in block.shift_size)
        self.shift = rows, columns
        self.mask_shift = block.shift_size if config.official_flaws else self.shift

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self._attend(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        """Attention within shifted windows of (b, h, w, c), which the windows divide."""
        b, h, w, c = x.shape
        attention, area = self.attn, self.window_size**2
        rows, columns = self.shift
        x = x.roll((-rows, -columns), (1, 2))
        windows, _ = window_partition(x, self.window_size)
        n, heads = len(windows), attention.num_heads
        qkv = attention.qkv(windows).view(n, area, 3, heads, -1).permute(2, 0, 3, 1, 4)
        bias = self._bias().to(qkv.dtype)
        if rows or columns:
            apart = shift_mask((h, w), self.window_size, self.mask_shift).to(x.device)
            bias = bias - 100 * apart.repeat(b, 1, 1)[:, None].to(bias.dtype)
        query, key, value = qkv
        y = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=attention.attn_drop.p if self.training else 0.0,
            scale=attention.scale,
        )
        y = attention.proj_drop(attention.proj(y.transpose(1, 2).reshape(n, area, -1)))
        y = y.view(n, self.window_size, self.window_size, c)
        y = window_unpartition(y, self.window_size, (h, w), (h, w))
        return y.roll((rows, columns), (1, 2))

    def _bias(self) -> Tensor:
        """Bias (1, heads, area, area) between the tokens of a window."""
        size = self.window_size
        table = resize_bias_table(self.attn.relative_position_bias_table, size)
        table = table.reshape(2 * size - 1, 2 * size - 1, -1)
        offset = torch.arange(size)[:, None] - torch.arange(size) + size - 1
        bias = table[offset[:, None, :, None], offset[None, :, None, :]]
        return bias.view(1, size**2, size**2, -1).permute(0, 3, 1, 2)


def resize_bias_table(table: Tensor, window: int) -> Tensor:
    """Resize Swin's relative position biases ((2 v - 1)^2, heads) to ((2 window - 1)^2, heads)."""
    old, new, heads = math.isqrt(len(table)), 2 * window - 1, table.shape[1]
    image = table.T.reshape(1, heads, old, old)
    return F.interpolate(image, (new, new), mode="bilinear").view(heads, new**2).T


def shift_mask(size: tuple[int, int], window: int, shift: tuple[int, int]) -> Tensor:
    """Which tokens of a rolled map are strangers: neighbours only because it was rolled.

    Args:
        size: (height, width) of the map, which windows divide.
        window: Tokens along a side of a window.
        shift: By how many rows and columns the map was rolled towards its start.

    Returns:
        Bool (windows, window^2, window^2), True for two strangers in one window.
    """

    def regions(length: int, rolled: int) -> Tensor:
        at = torch.arange(length)
        return (at >= length - window).int().masked_fill(at >= length - rolled, 2)

    rows, columns = map(regions, size, shift)
    windows, _ = window_partition((3 * rows[:, None] + columns)[None, :, :, None], window)
    region = windows.flatten(1)
    return region[:, :, None] != region[:, None, :]


class HourglassSwinStage(nn.Module):
    """A stage of timm's Swin with fewer tokens from its block `location` on.

    Args:
        stage: The original, whose modules are used.
        location: Counted within the stage.
        config: Its `location` is not looked at.
    """

    def __init__(self, stage: SwinTransformerStage, location: int, config: HourglassConfig) -> None:
        super().__init__()
        self.config, self.location = config, location
        blocks: list[Any] = list(stage.blocks)
        self.window_size: int = blocks[0].window_size[0]
        self.downsample = stage.downsample
        clustered = [ClusteredSwinBlock(block, config) for block in blocks[location:]]
        self.blocks = nn.Sequential(*blocks[:location], *clustered)

    def forward(self, x: Tensor) -> Tensor:
        """Run on (b, h, w, c)."""
        x = self.blocks[: self.location](self.downsample(x))
        return run_on_clusters(x, self.blocks[self.location :], self.window_size, self.config)


def apply_to_swin(swin: SwinTransformer, config: HourglassConfig) -> SwinTransformer:
    """Let one stage of timm's Swin run with fewer tokens: the same call, the same weights.

    Tokens are clustered before block `config.location`, counted through all stages, and
    reconstructed at the end of its stage. The result shares its weights with `swin`, which is not
    changed; `set_input_size` works before, not after.

    Raises:
        InputError: `swin` is not timm's, or `config` does not fit it.
    """
    from timm.models.swin_transformer import SwinTransformer

    if not isinstance(swin, SwinTransformer):
        raise InputError(f"Token clustering needs timm's Swin, not {type(swin).__name__}.")
    stages: list[Any] = list(swin.layers)
    ends = list(accumulate(len(stage.blocks) for stage in stages))
    index = min(bisect_right(ends, config.location), len(ends) - 1)
    stage = stages[index]
    config.check_place(ends[-1], stage.blocks[0].window_size)
    location = config.location - (ends[index] - len(stage.blocks))
    stages[index] = HourglassSwinStage(stage, location, config)
    twin = copy.copy(swin)  # shares all but the list of its parts
    twin._modules = {**swin._modules, "layers": nn.Sequential(*stages)}
    return twin
