from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from segmenters import attention
from segmenters.hourglass import HourglassConfig, apply_to_sam_encoder


@pytest.fixture
def encoder() -> ImageEncoderViT:
    """Windows of 4x4 in a grid of 10x10, one global block, tables of positions that matter."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=160,
        embed_dim=24,
        depth=3,
        num_heads=3,
        out_chans=8,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=4,
        global_attn_indexes=(1,),
    )
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    return encoder.eval()


@pytest.mark.parametrize("pairs", [1, 2 * 16**2, 2**22], ids=["one head", "few heads", "all"])
@pytest.mark.parametrize("config", [None, HourglassConfig(1, 9, neighbours=4)], ids=str)
@torch.inference_mode()
def test_the_faster_attention_gives_the_same_answer(
    encoder: ImageEncoderViT,
    config: HourglassConfig | None,
    pairs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "PAIRS", pairs)
    faster = copy.deepcopy(encoder)
    attention.fuse_attention(faster)
    assert faster.state_dict().keys() == encoder.state_dict().keys()
    images = torch.randn(2, 3, 160, 160)
    pair: list[nn.Module] = [faster, encoder]
    if config is not None:
        pair = [apply_to_sam_encoder(each, config) for each in (faster, encoder)]
    found, wanted = (each(images) for each in pair)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    for block in encoder.blocks:  # the comparison could not tell if positions meant nothing
        nn.init.zeros_(block.attn.rel_pos_h)
    assert not torch.allclose(encoder(images), wanted, atol=1e-2)


@torch.inference_mode()
def test_maps_need_not_be_square(encoder: ImageEncoderViT) -> None:
    block = encoder.blocks[1]
    x = torch.randn(2, 5, 7, 24)
    ours = attention.RelativeAttention(block.attn)
    torch.testing.assert_close(ours(x), block.attn(x), atol=1e-5, rtol=1e-4)
