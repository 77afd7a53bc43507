"""Half precision: close to float32, norms untouched, and refused where there is none."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, Sam
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from torch.nn import functional as F

from checkpoints import WeightsRecord
from media import InputError
from segmenters import build_segmenter
from segmenters.attention import fuse_attention
from segmenters.hourglass import HourglassConfig, apply_to_sam_encoder
from segmenters.mobile_sam import TinyViT
from segmenters.sam import SamSegmenter

CPU = torch.device("cpu")


def vit() -> nn.Module:
    encoder = ImageEncoderViT(
        img_size=1024,
        embed_dim=48,
        depth=3,
        num_heads=2,
        use_rel_pos=True,
        global_attn_indexes=(1,),
        window_size=14,
    )
    fuse_attention(encoder)
    return encoder


def clustered_vit() -> nn.Module:
    encoder = vit()
    assert isinstance(encoder, ImageEncoderViT)
    return apply_to_sam_encoder(encoder, HourglassConfig(1, 64))


def tiny_vit() -> nn.Module:
    encoder = TinyViT().eval()
    encoder.fold()
    return encoder


@pytest.mark.parametrize("build", [vit, clustered_vit, tiny_vit])
@torch.inference_mode()
def test_half_precision_is_close_to_float32(small_sam: Sam, build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = copy.copy(small_sam)
    network._modules = dict(small_sam._modules)
    network.image_encoder = build().eval()
    frame = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    weights = WeightsRecord("small", "")
    plain = SamSegmenter(network, weights, CPU)
    wanted = plain.encode(frame).features
    halved = copy.deepcopy(network)
    norms: list[torch.dtype] = []
    half = SamSegmenter(halved, weights, CPU, torch.bfloat16)
    for module in halved.image_encoder.modules():
        if isinstance(module, nn.LayerNorm | LayerNorm2d):
            assert module.weight.dtype == torch.float32
            module.register_forward_hook(lambda module, inputs, out: norms.append(out.dtype))
        elif isinstance(module, nn.Linear | nn.Conv2d):
            assert module.weight.dtype == torch.bfloat16
    found = half.encode(frame).features
    assert found.dtype == torch.float32 and set(norms) == {torch.float32}
    assert not torch.equal(found, wanted)
    assert F.cosine_similarity(found, wanted).min() > 0.98
    assert half.settings != plain.settings  # or a cache would mix them up
    decoder = halved.mask_decoder.parameters()
    assert {parameter.dtype for parameter in decoder} == {torch.float32}


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r"no precision 'int8'; choose one of float32, bfloat16"):
        build_segmenter("mobile_sam", device="cpu", precision="int8")  # type: ignore[arg-type]
