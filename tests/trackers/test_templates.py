"""The online-template rule, frame by frame, with strings for templates."""

from __future__ import annotations

import pytest

from trackers.templates import OnlineTemplates


def run(rule: OnlineTemplates[str], scores: list[float], start: int = 1) -> list[list[str]]:
    """Feed scores; the template of frame i is "i". Returns what is online after each frame."""
    seen = []
    for i, score in enumerate(scores, start):
        before = list(rule.online)
        changed = rule.step(score, lambda i=i: str(i))
        assert changed or rule.online == before
        seen.append(list(rule.online))
    return seen


def test_best_frame_of_the_interval_becomes_the_online_template() -> None:
    rule = OnlineTemplates("first", interval=4)
    assert run(rule, [0.6, 0.9, 0.7, 0.9]) == [["first"], ["first"], ["first"], ["2"]]
    # The search starts anew: 0.6 would not have beaten 0.9.
    assert run(rule, [0.6, 0.55, 0.1, 0.2], start=5)[-1] == ["5"]


def test_interval_without_a_good_frame_brings_the_first_template_back() -> None:
    rule = OnlineTemplates("first", interval=2)
    assert run(rule, [0.9, 0.1])[-1] == ["1"]
    assert run(rule, [0.5, 0.4], start=3)[-1] == ["first"]  # 0.5 does not exceed 0.5


def test_last_frame_of_the_interval_counts() -> None:
    assert run(OnlineTemplates("first", interval=3), [0.6, 0.7, 0.8])[-1] == ["3"]


def test_decay_lets_later_frames_win() -> None:
    without, fading = (
        OnlineTemplates("first", interval=3),
        OnlineTemplates("first", interval=3, decay=0.5),
    )
    assert run(without, [0.9, 0.6, 0.55])[-1] == ["1"]
    assert run(fading, [0.9, 0.6, 0.55])[-1] == ["3"]  # 0.9 -> 0.45 < 0.6 -> 0.3 < 0.55
    assert fading.max_score == -1.0
    fading.step(0.0, lambda: "never")
    assert fading.max_score == -0.5  # upstream lets the mark of "nothing yet" fade too


def test_template_is_made_only_for_the_best_frame() -> None:
    made = []
    rule = OnlineTemplates("first", interval=10)
    for i, score in enumerate([0.6, 0.55, 0.7, 0.7, 0.2]):
        rule.step(score, lambda i=i: made.append(i) or str(i))
    assert made == [0, 2]


def test_several_templates_fill_up_and_then_replace_the_oldest() -> None:
    rule = OnlineTemplates("first", interval=1, size=3)
    assert run(rule, [0.9, 0.9, 0.9, 0.9, 0.9, 0.9]) == [
        ["first", "1"],
        ["first", "1", "2"],
        ["3", "1", "2"],
        ["3", "4", "2"],
        ["3", "4", "5"],
        ["6", "4", "5"],
    ]


@pytest.mark.parametrize("size", [1, 2])
def test_correction_is_used_at_once_and_fallen_back_to(size: int) -> None:
    rule = OnlineTemplates("first", interval=2, size=size)
    run(rule, [0.99])
    rule.correct("given")
    assert "given" in rule.online
    run(rule, [0.1])  # the interval has started anew with the correction: no update yet
    assert rule.online[-1] == "given"
    run(rule, [0.1], start=3)
    assert rule.online[-1] == "given"
