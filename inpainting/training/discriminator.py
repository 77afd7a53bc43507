"""T-PatchGAN: is this patch of this clip real?

Chang et al., "Free-form Video Inpainting with 3D Gated Convolution and Temporal PatchGAN", ICCV
2019, as E2FGVI (MCG-NKU/E2FGVI @ 709cbe3) trains with it, with the keys of its files (`dis_*.pth`).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import spectral_norm

CHANNELS = (32, 64, 128, 128, 128, 128)


class Discriminator(nn.Module):
    """Six convolutions over time and space; spectral norms keep all but the last one gentle.

    A spectral norm goes on by one power iteration per forward pass in training, so that passes
    change buffers, though in the same way whatever they see.
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        """Build without training.

        Args:
            channels: of the outputs of the convolutions; the default is the published one.
        """
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for index, outputs in enumerate(channels):
            last = index == len(channels) - 1
            # The first one pads space by 1 though its kernel would want 2: kept from upstream.
            around = (1, 1, 1) if index == 0 else (1, 2, 2)
            conv: nn.Module = nn.Conv3d(
                inputs, outputs, (3, 5, 5), stride=(1, 2, 2), padding=around, bias=last
            )
            layers += [conv] if last else [spectral_norm(conv), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.conv = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        """Judge clips (b, t, 3, h, w) in [-1, 1].

        Returns:
            (b, t, c, h', w'): positive where a patch looks real.
        """
        return self.conv(frames.transpose(1, 2)).transpose(1, 2)
