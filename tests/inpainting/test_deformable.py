from __future__ import annotations

import pytest
import torch
import torchvision

from inpainting.deformable import deform_conv2d


@pytest.mark.parametrize(("groups", "layout"), [(4, torch.channels_last), (1, None)])
def test_equals_torchvision(groups: int, layout: torch.memory_format | None) -> None:
    """Also where it looks beyond the border, halfway across it, and exactly at a pixel."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    image, weight, bias = draw(2, 8, 9, 7), draw(5, 8, 3, 3), draw(5)
    offset, mask = draw(2, 18 * groups, 9, 7) * 4, draw(2, 9 * groups, 9, 7)
    offset[:, :, 0] = -0.5
    offset[:, :, 1] = 3
    offset[:, :, 2, 0] = -1e6
    expected = torchvision.ops.deform_conv2d(image, offset, weight, bias, padding=1, mask=mask)
    if layout is not None:
        offset, mask = (t.contiguous(memory_format=layout) for t in (offset, mask))
    found = deform_conv2d(image, offset, weight, bias, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    still = deform_conv2d(image, torch.zeros_like(offset), weight, bias, torch.ones_like(mask))
    plain = torch.nn.functional.conv2d(image, weight, bias, padding=1)
    torch.testing.assert_close(still, plain, rtol=0, atol=2e-5)
