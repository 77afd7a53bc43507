"""Our few transformer parts against timm's, which training machines need not have."""

from __future__ import annotations

import timm.layers
import torch

from trackers.models.layers import DropPath, Mlp, PatchEmbed


def test_patch_embedding_equals_timm() -> None:
    theirs = timm.layers.PatchEmbed(img_size=64, patch_size=16, in_chans=3, embed_dim=24)
    ours = PatchEmbed(24)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


def test_mlp_equals_timm() -> None:
    theirs = timm.layers.Mlp(24, 48)
    ours = Mlp(24, 48)
    ours.load_state_dict(theirs.state_dict())
    tokens = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(tokens), theirs(tokens))


def test_stochastic_depth_equals_timm() -> None:
    ours, theirs = DropPath(0.4).train(), timm.layers.DropPath(0.4).train()
    x = torch.randn(64, 3, 8)
    torch.manual_seed(1)
    mine = ours(x)
    torch.manual_seed(1)
    torch.testing.assert_close(mine, theirs(x))
    assert torch.equal(ours.eval()(x), x)
