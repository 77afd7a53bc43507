"""Which frames are drawn: the rules of the two samplers, and their chances."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from checkpoints.training.shards import ShardWriter
from tests.trackers.training.data.scenes import SIZE, encode, scene
from trackers.training.data import DataConfig, SourceConfig, open_sources
from trackers.training.data.sampling import Pick, Unusable, causal, pick, trident_pro

VISIBLE = np.setdiff1d(np.arange(300), [0, 40, 41, 42, 150, 299])


def test_causal_keeps_its_rules() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        base, earlier, later = causal(VISIBLE, 300, 50, rng)
        # A base with nothing before it costs a draw, after which the gap is 55, and so on.
        assert 1 <= base < 299 and base - 60 <= earlier < base < later < base + 60
        assert {base, earlier, later} <= set(VISIBLE.tolist())


def test_causal_draws_evenly() -> None:
    rng = np.random.default_rng(1)
    drawn = [causal(np.arange(8), 8, 3, rng) for _ in range(14000)]
    bases = Counter(base for base, _, _ in drawn)
    # Upstream: base of [1, L - 1), earlier of [base - 3, base), later of [base + 1, base + 3)
    assert set(bases) == {1, 2, 3, 4, 5, 6}
    assert all(abs(n / len(drawn) - 1 / 6) < 0.015 for n in bases.values())
    at_four = [draw for draw in drawn if draw[0] == 4]
    for place, expected in ((1, {1, 2, 3}), (2, {5, 6})):
        found = Counter(draw[place] for draw in at_four)
        assert set(found) == expected
        assert all(abs(n / len(at_four) - 1 / len(expected)) < 0.05 for n in found.values())


def test_causal_widens_its_reach() -> None:
    # The object shows in frames that are further apart than the gap.
    rng = np.random.default_rng(0)
    base, earlier, later = causal(np.array([10, 100, 190]), 200, 20, rng)
    assert (base, earlier, later) == (100, 10, 190)
    with pytest.raises(Unusable):
        causal(np.array([10, 100]), 200, 20, rng)
    with pytest.raises(Unusable):
        causal(np.array([], int), 200, 20, rng)


def test_trident_pro_keeps_its_rules() -> None:
    rng = np.random.default_rng(0)
    drawn = [trident_pro(VISIBLE, 300, 50, rng) for _ in range(4000)]
    for template, online, search in drawn:
        assert template in VISIBLE and search in VISIBLE and 0 <= online < 300
        if template >= search:
            assert search <= online < search + 50
        else:
            assert search - 50 <= online < search
    # The online template may be a frame without the object.
    assert {online for _, online, _ in drawn} & {40, 41, 42, 150}
    with pytest.raises(Unusable):
        trident_pro(np.array([], int), 10, 50, rng)


def draws(n: int, *sources: SourceConfig, **options: object) -> list[Pick]:
    config = DataConfig(sources=sources, **options)  # type: ignore[arg-type]
    opened = open_sources(config)
    chances = np.cumsum([each.weight for each in sources]) / sum(each.weight for each in sources)
    found = []
    for i in range(n):
        try:
            found.append(pick(opened, chances, config, np.random.default_rng(i)))
        except Unusable:
            continue
    return found


def test_causal_samples_of_videos_and_pictures(tracks: Path, stills: Path) -> None:
    found = draws(
        600,
        SourceConfig("tracks", str(tracks), weight=3),
        SourceConfig("stills", str(stills), weight=1),
        max_gap=9,
    )
    assert len(found) == 600 and all(each.label == 1 for each in found)
    assert abs(sum(each.template.source == 0 for each in found) / 600 - 0.75) < 0.06
    for each in found:
        if each.template.source == 0:
            frames = each.online.frame, each.template.frame, each.search.frame
            assert frames[0] < frames[1] < frames[2] and not {12, 13, 14} & set(frames)
            assert each.search.box_xywh is not None
            assert each.search.box_xywh[0] == 10 + 2 * each.search.frame
        else:
            assert each.template == each.online == each.search


def test_trident_pro_samples(tracks: Path, stills: Path) -> None:
    video, picture = SourceConfig("tracks", str(tracks)), SourceConfig("stills", str(stills))
    found = draws(1500, video, picture, sampler="trident_pro", max_gap=9)
    assert abs(np.mean([each.label for each in found]) - 0.5) < 0.04
    for each in found:
        same = (each.template.source, each.template.item) == (each.search.source, each.search.item)
        if each.label:
            assert same and each.search.box_xywh is not None
        elif each.template.source == 0:
            # The video has frames without the object: they are taken, with a box in the middle.
            assert same and each.search.box_xywh is None and each.search.frame in (12, 13, 14)
        else:
            assert not same
    others = [each for each in found if not each.label and each.template.source == 1]
    assert {each.search.source for each in others} == {0, 1}


def test_positive_share(stills: Path) -> None:
    found = draws(
        400, SourceConfig("stills", str(stills)), sampler="trident_pro", positive_share=0.9
    )
    assert abs(np.mean([each.label for each in found]) - 0.9) < 0.05


def test_the_target_is_never_its_own_stranger(stills: Path, tmp_path: Path) -> None:
    """Of two objects in one picture, neither is what the other is not."""
    with ShardWriter(tmp_path / "two") as writer:
        boxes = [{"box": [10, 10, 20, 20]}, {"box": [50, 50, 20, 20]}]
        record = {"source": "s", "video": None, "frame": None, "objects": boxes}
        for seed in range(2):
            writer.add(encode(scene(None, seed)), SIZE, record)
    source = SourceConfig("stills", str(tmp_path / "two"))
    found = draws(200, source, sampler="trident_pro", positive_share=0.0)
    assert found
    opened = open_sources(DataConfig(sources=(source,)))[0]
    for each in found:
        assert opened.group(each.template.item) != opened.group(each.search.item)


def test_emphasis_and_repetition(tracks: Path) -> None:
    weighted = SourceConfig("tracks", str(tracks), emphasis={"v0": 10, "v[1-3]": 0})
    found = draws(600, weighted)
    items = Counter(each.template.item for each in found)
    assert set(items) == {0, 4, 5} and abs(items[0] / 600 - 10 / 12) < 0.05
    again = draws(600, weighted)
    assert [each.search.frame for each in again] == [each.search.frame for each in found]
