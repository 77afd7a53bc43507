"""What a small network takes over from a large one is what the large one had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from media import InputError
from tests.golden.formula import fill_
from trackers import build_network
from trackers.training.distill import (
    from_vit,
    hidden_importance,
    importance_on,
    order_hidden_units,
    remapped_keys,
    with_fewer_hidden,
    without_blocks,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "mixformerv2"
REMOVED = (0, 3, 6, 9)
SMALL = {"search_size": 64, "template_size": 32, "dim": 32, "heads": 2, "feat_sz": 12}


def crops(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, size, size, generator=generator) for size in (32, 32, 64)]


def filled(name: str, **options) -> torch.nn.Module:
    network = build_network(name, **SMALL | options)
    skip = ("pos_embed_s", "pos_embed_t")
    return fill_(network, scale=0.1, skip=lambda key: key.endswith(skip)).eval()


def assert_same(first: torch.nn.Module, second: torch.nn.Module) -> None:
    """To the last bit."""
    with torch.inference_mode():
        a, b = first(*crops()), second(*crops())
    assert torch.equal(a.edge_logits, b.edge_logits)
    assert torch.equal(a.boxes_cxcywh, b.boxes_cxcywh)
    assert torch.equal(a.features[-1], b.features[-1])


def test_remap_is_the_official_one() -> None:
    golden = json.loads((GOLDEN / "remap_12to8.json").read_text())
    keys = [key for key, *_ in json.loads((GOLDEN / "state_dict_stu12.json").read_text())]
    found = remapped_keys(keys, golden["removed"])
    assert found == golden["new_key_from_old_key"]
    assert set(keys) - set(found.values()) == set(golden["dropped_keys"])
    assert remapped_keys(keys, ()) == {key: key for key in keys}


def test_a_faded_block_is_a_removed_block() -> None:
    deep = filled("mixformerv2_student12", removed_blocks=REMOVED)
    deep.set_removal_coefficient(0.0)
    shallow = build_network("mixformerv2_student8", **SMALL).eval()
    state = without_blocks(deep.state_dict(), REMOVED)
    missing, surplus = shallow.load_state_dict(state, strict=False)
    assert set(missing) == {"backbone.pos_embed_s", "backbone.pos_embed_t"} and not surplus
    assert_same(deep, shallow)


def test_a_faded_hidden_unit_is_a_removed_hidden_unit() -> None:
    """And with the blocks: the small model's stage from beginning to end."""
    whole = filled("mixformerv2_student8")
    fading = build_network(
        "mixformerv2_student8", **SMALL, removed_blocks=(0, 2, 4, 6), kept_hidden=32
    ).eval()
    importance = importance_on(whole, lambda: whole(*crops()))
    fading.load_state_dict(order_hidden_units(whole.state_dict(), importance))
    fading.set_removal_coefficient(1.0)
    with torch.inference_mode():  # the order of units changes nothing but the rounding
        difference = whole(*crops()).edge_logits - fading(*crops()).edge_logits
    assert difference.abs().max() < 1e-5

    fading.set_removal_coefficient(0.0)
    slim = build_network("mixformerv2_small", **SMALL, score_head=False).eval()
    state = with_fewer_hidden(without_blocks(fading.state_dict(), (0, 2, 4, 6)), 32)
    slim.load_state_dict(state, strict=False)
    assert slim.backbone.blocks[0].mlp.fc1.out_features == 32
    assert_same(fading, slim)


def test_what_fades_is_frozen() -> None:
    network = filled("mixformerv2_student8", removed_blocks=(0,), kept_hidden=32).train()
    network.set_removal_coefficient(0.5)
    network(*crops()).boxes_cxcywh.sum().backward()
    assert all(p.grad is None for p in network.backbone.blocks[0].parameters())
    mlp = network.backbone.blocks[1].mlp
    for grad in (mlp.fc1.weight.grad, mlp.fc1.bias.grad, mlp.fc2.weight.grad.T):
        assert grad[:32].abs().min() > 0 or grad[:32].abs().sum() > 0
        assert not grad[32:].any()


def test_the_units_that_are_kept_are_those_that_matter() -> None:
    whole = filled("mixformerv2_student8")
    importance = importance_on(whole, lambda: whole(*crops()))
    assert (
        importance.keys() == set(range(8)) and not whole.backbone.blocks[0].mlp._forward_pre_hooks
    )
    ordered = order_hidden_units(whole.state_dict(), importance)
    wrong = order_hidden_units(whole.state_dict(), {i: -v for i, v in importance.items()})
    with torch.inference_mode():
        wanted = whole(*crops()).edge_logits
        errors = []
        for state in (ordered, wrong):
            slim = build_network("mixformerv2_student8", **SMALL, mlp_ratio=2.0).eval()
            slim.load_state_dict(with_fewer_hidden(state, 64))
            errors.append((slim(*crops()).edge_logits - wanted).abs().mean())
    assert errors[0] < 0.8 * errors[1]


def test_a_unit_that_never_fires_is_unimportant() -> None:
    mlp = filled("mixformerv2_student8").backbone.blocks[0].mlp
    tokens = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mlp.fc2.weight[:, 5] *= 100
        assert hidden_importance(mlp, tokens).argmax() == 5
        mlp.fc1.bias[5] = -1e4
    assert hidden_importance(mlp, tokens)[5] == 0


def vit(depth: int = 4) -> dict[str, torch.Tensor]:
    """As MAE's encoder file."""
    network = build_network("mixvit_base", **{k: SMALL[k] for k in ("dim", "heads")}, depth=depth)
    kept = ("blocks", "patch_embed", "norm.", "cls_token", "pos_embed")
    plain = {k.removeprefix("backbone."): t for k, t in network.state_dict().items()}
    return {
        key: torch.randn_like(tensor)
        for key, tensor in plain.items()
        if key.startswith(kept) and not key.endswith(("pos_embed_s", "pos_embed_t"))
    }


@pytest.mark.parametrize("name", ["mixvit_base", "mixformerv2_student12", "grm_base"])
@pytest.mark.parametrize("form", ["mae", "timm", "prefixed"])
def test_a_plain_transformer_becomes_the_backbone(name: str, form: str) -> None:
    options = {k: SMALL[k] for k in ("search_size", "template_size", "dim", "heads")} | {"depth": 4}
    network = build_network(name, **options)
    state = plain = vit()
    if form == "mae":
        state = plain | {"mask_token": torch.zeros(1), "decoder_embed.weight": torch.zeros(2)}
    elif form == "timm":
        state = plain | {"head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)}
    else:
        state = {f"module.{key}": value for key, value in plain.items()}
    found = from_vit(state, network.state_dict(), name="vit.pth")
    assert not network.load_state_dict(found, strict=False).unexpected_keys
    learnt = [found.pop(key, None) for key in ("backbone.pos_embed_x", "backbone.pos_embed_z")]
    assert len(found) == 2 + 4 * 12
    for key, value in found.items():
        assert torch.equal(value, plain[key.removeprefix("backbone.")])
    assert (learnt[0] is not None) == (name == "grm_base")


def test_grm_begins_with_the_positions_of_the_classifier() -> None:
    options = {k: SMALL[k] for k in ("search_size", "template_size", "dim", "heads")} | {"depth": 4}
    state = vit()
    # Across the 14 columns of the grid channel 0 rises by one each, down the rows channel 1 does.
    state["pos_embed"] = table = torch.zeros(1, 197, 32)
    table[0, 0] = 1000.0  # of the class token
    table[0, 1:, 0] = torch.arange(14.0).repeat(14)
    table[0, 1:, 1] = torch.arange(14.0).repeat_interleave(14)
    found = from_vit(state, build_network("grm_base", **options).state_dict(), name="vit.pth")
    places = torch.tensor([1.25, 4.75, 8.25, 11.75])  # middles of four cells, 3.5 wide
    search, template = (found[f"backbone.pos_embed_{crop}"] for crop in "xz")
    assert search.shape == (1, 16, 32) and template.shape == (1, 4, 32)
    assert torch.allclose(search[0, :, 0], places.repeat(4), atol=0.1)
    assert torch.allclose(search[0, :, 1], places.repeat_interleave(4), atol=0.1)
    assert torch.allclose(template[0, :, 0], torch.tensor([3.0, 10.0, 3.0, 10.0]), atol=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("blocks.3.mlp.fc1.bias"), "lacks 'blocks.3.mlp.fc1.bias'"),
        (lambda s: s.update({"blocks.0.ls1.gamma": torch.zeros(3)}), "no place in the backbone"),
        (lambda s: s.update({"blocks.4.norm1.bias": torch.zeros(32)}), "deeper than the network"),
        (lambda s: s.update({"blocks.0.norm1.bias": torch.zeros(9)}), "is \\(9,\\), but"),
    ],
)
def test_another_transformer_is_refused(change, sentence: str) -> None:
    options = {k: SMALL[k] for k in ("search_size", "template_size", "dim", "heads")} | {"depth": 4}
    state = vit()
    change(state)
    with pytest.raises(InputError, match=sentence):
        from_vit(state, build_network("mixvit_base", **options).state_dict(), name="vit.pth")


def test_grm_learns_its_division_through_drawn_decisions() -> None:
    options = {k: SMALL[k] for k in ("search_size", "template_size", "dim", "heads")} | {"depth": 3}
    network = build_network("grm_base", **options).train()
    template, _, search = crops()
    torch.manual_seed(0)
    first = network(template, search)
    assert set(first.decisions.unique().tolist()) == {0.0, 1.0}
    (first.score_map.sum() + first.size_map.square().sum()).backward()
    for block in network.backbone.blocks[1:]:
        assert block.attn.divide_predict[0].weight.grad.abs().sum() > 0
    again = network(template, search)
    assert not torch.equal(first.decisions, again.decisions)  # drawn anew
    with torch.no_grad():
        share = torch.stack([network(template, search).decisions for _ in range(60)]).mean()
    assert share.item() == pytest.approx(1 - first.keep_probabilities.mean().item(), abs=0.05)
    network.eval()
    with torch.inference_mode():
        assert torch.equal(network(template, search).decisions, network(template, search).decisions)
