"""MobileSAM (https://arxiv.org/abs/2306.14289): SAM with TinyViT-5M as its image encoder.

The encoder (TinyViT: https://arxiv.org/abs/2207.10666) is written here in full, read downwards;
prompt encoder and mask decoder are SAM's own. The module names are the keys of the official file
(ChaoningZhang/MobileSAM, weights/mobile_sam.pt), which loads without renaming.

Every frame of a video passes through the encoder, so it is written for speed at equal outputs:
maps lie channels-last throughout, batch norms are folded into the convolutions before them, linear
layers run as convolutions on a CPU, the widest layers run in strips, and activations work in place.
On two CPU cores this takes a third of the time of the plain layers. It is for inference only.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segmenters.base import WeightsSource, load_weights, register
from segmenters.sam import SamSegmenter

# The classifier of TinyViT's pretraining is still in the official file; masks need no classes.
UNUSED_KEYS = tuple(
    f"image_encoder.{layer}.{part}"
    for layer in ("norm_head", "head")
    for part in ("weight", "bias")
)
STRIP_ROWS = 64


def gelu_(x: Tensor) -> Tensor:
    """Apply GELU in place: fresh memory for a large map costs as much as the arithmetic."""
    return torch.ops.aten.gelu_(x)


class ConvNorm(nn.Sequential):
    """Convolution (b, c, h, w) -> (b, out, h / stride, w / stride) and batch norm."""

    def __init__(
        self, channels: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out)

    def fold(self) -> None:
        """Merge the batch norm into the convolution. The official keys fit only before this."""
        self.c = fuse_conv_bn_eval(self.c, self.bn)
        del self.bn


class Linear(nn.Linear):
    """Linear layer over the last axis, as a 1x1 convolution on a CPU.

    The same sums, but oneDNN's convolution is twice as fast as MKL's matrix product on AMD CPUs
    (measured on Zen 5: 7 against 16 ms for 4096 tokens, 320 -> 1280).
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        tokens = x.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        y = F.conv2d(tokens, self.weight[:, :, None, None], self.bias)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


class MBConv(nn.Module):
    """Inverted bottleneck with a depthwise 3x3 convolution and a shortcut, on (b, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        # In strips of rows the fourfold hidden map (67 MB for a whole frame) stays in the cache.
        # Each takes one more row above and below, which the 3x3 convolution needs, and drops it
        # after.
        strips = []
        for start in range(0, x.shape[2], STRIP_ROWS):
            above = min(start, 1)
            y = gelu_(self.conv1(x[:, :, start - above : start + STRIP_ROWS + 1]))
            y = gelu_(self.conv2(y))[:, :, above : above + STRIP_ROWS]
            strips.append(gelu_(self.conv3(y) + x[:, :, start : start + STRIP_ROWS]))
        return torch.cat(strips, dim=2)


class PatchMerging(nn.Module):
    """To (b, out, h / stride, w / stride) at the end of a stage."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, out)
        self.conv2 = ConvNorm(out, out, 3, stride=stride, groups=out)
        self.conv3 = ConvNorm(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(gelu_(self.conv2(gelu_(self.conv1(x)))))


class Attention(nn.Module):
    """Self-attention of the tokens (n, window * window, c) of each window.

    A learnt bias per head depends on the distance |dy|, |dx| of two tokens.
    """

    offsets: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        token = torch.arange(window * window)
        y, x = token // window, token % window
        offsets = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, channels = x.shape
        # q, k, v lie side by side within each head
        qkv = self.qkv(self.norm(x)).view(n, tokens, self.heads, 3, channels // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[None, :, self.offsets]  # 4-D, or the fused kernel is not used
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(y.transpose(1, 2).reshape(n, tokens, channels))


class Mlp(nn.Module):
    """Two linear layers over the last axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = Linear(channels, 4 * channels)
        self.fc2 = Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu_(self.fc1(self.norm(x))))


class Block(nn.Module):
    """Window attention, depthwise 3x3 convolution, MLP, on (b, c, h, w)."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # channels-last: the permutations move no data
        x = x + self._attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.mlp(x)
        return x.permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """Attention within windows of (b, h, w, c), padded with zeros that take part as tokens."""
        b, h, w, c = x.shape
        size = self.window
        padded = F.pad(x, (0, 0, 0, -w % size, 0, -h % size))
        rows, columns = padded.shape[1] // size, padded.shape[2] // size
        windows = padded.view(b, rows, size, columns, size, c).transpose(2, 3)
        y = self.attn(windows.reshape(-1, size * size, c))
        y = y.view(b, rows, columns, size, size, c).transpose(2, 3).reshape(padded.shape)
        return y[:, :h, :w]


class Stage(nn.Module):
    """Blocks at one resolution, and the way to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(x))


class PatchEmbed(nn.Module):
    """Image (b, 3, h, w) to patches (b, out, h / 4, w / 4)."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, out // 2, 3, stride=2), nn.GELU(), ConvNorm(out // 2, out, 3, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class TinyViT(nn.Module):
    """TinyViT-5M as MobileSAM uses it: normalised (b, 3, 1024, 1024) -> features (b, 256, 64, 64).

    The last merge keeps the resolution (stride 1, where TinyViT has 2), so that the features are as
    large as those of SAM's own encoder; the neck is SAM's.
    """

    img_size = 1024

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(64)
        self.layers = nn.Sequential(
            Stage([MBConv(64) for _ in range(2)], PatchMerging(64, 128, stride=2)),
            Stage([Block(128, 4, window=7) for _ in range(2)], PatchMerging(128, 160, stride=2)),
            Stage([Block(160, 5, window=14) for _ in range(6)], PatchMerging(160, 320, stride=1)),
            Stage([Block(320, 10, window=7) for _ in range(2)]),
        )
        self.neck = nn.Sequential(
            nn.Conv2d(320, 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def fold(self) -> None:
        """Prepare loaded weights for speed; see `ConvNorm.fold`."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return self.neck(self.layers(self.patch_embed(x)))


def build_network() -> Sam:
    """Build the untrained network, with the keys of the official file."""
    grid = (64, 64)
    return Sam(
        TinyViT(),
        PromptEncoder(
            embed_dim=256,
            image_embedding_size=grid,
            input_image_size=(1024, 1024),
            mask_in_chans=16,
        ),
        MaskDecoder(
            transformer_dim=256,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048),
        ),
    ).eval()


def _build(
    device: torch.device, weights: WeightsSource, precision: torch.dtype = torch.float32
) -> SamSegmenter:
    network = build_network()
    used = load_weights(network, "mobile_sam", weights, unused=UNUSED_KEYS)
    network.image_encoder.fold()
    return SamSegmenter(network, used, device, precision)


register("mobile_sam", _build)
