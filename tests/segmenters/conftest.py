"""A SAM with the real prompt encoder and decoder, random weights, and an encoder of one layer."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import Sam
from torch import nn

from checkpoints import WeightsRecord
from segmenters.mobile_sam import build_network
from segmenters.sam import SamSegmenter


class Patches(nn.Conv2d):
    img_size = 1024


@pytest.fixture(scope="session")
def small_sam() -> Sam:
    torch.manual_seed(0)
    network = build_network()
    network.image_encoder = Patches(3, 256, 16, stride=16)
    return network


@pytest.fixture(scope="session")
def small(small_sam: Sam) -> SamSegmenter:
    return SamSegmenter(small_sam, WeightsRecord("small", ""), torch.device("cpu"))
