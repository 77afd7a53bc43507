"""A probability from what the network says, and a decision from probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trackers.presence import Presence, edge_entropy, likeness, presence


def test_entropy_is_zero_for_certain_edges_and_largest_for_unknown_ones() -> None:
    certain, unknown = np.eye(4, 96), np.full((4, 96), 1 / 96)
    assert edge_entropy(certain) == pytest.approx(0, abs=1e-6)
    assert edge_entropy(unknown) == pytest.approx(math.log(96))
    half = np.zeros((4, 96))
    half[:, :2] = 0.5
    assert edge_entropy(np.concatenate([certain[:2], half[:2]])) == pytest.approx(math.log(2) / 2)


def test_every_piece_of_evidence_counts_in_its_direction() -> None:
    assert presence(0.99, 2.2, 0.97) > 0.85 and presence(0.03, 3.3, 0.4) < 0.02
    assert presence(0.9, 2.5, 0.9) > presence(0.1, 2.5, 0.9)
    assert presence(0.9, 2.5, 0.9) > presence(0.9, 2.9, 0.9)
    assert presence(0.9, 2.5, 0.9) > presence(0.9, 2.5, 0.6)
    assert likeness(0.9, 2.5, 0.9, 0.8) > likeness(0.9, 2.5, 0.9, 0.2)
    for score in (0.0, 1.0):  # which have no finite log-odds
        assert 0 < presence(score, 2.5, 0.8) < 1


@pytest.mark.parametrize(
    ("probabilities", "lost"),
    [
        ([0.9, 0.0, 0.9, 0.0, 0.9], "....."),  # single bad frames are motion blur
        ([0.9, 0.9, 0.01, 0.01, 0.01, 0.01], "....LL"),
        ([0.5] * 40, "." * 40),
        ([0.2] * 40, "." * 5 + "L" * 35),
    ],
)
def test_bad_frames_in_a_row_make_a_loss(probabilities: list[float], lost: str) -> None:
    state = Presence(low=0.35, memory=0.75)
    assert "".join("L" if state.update(p) else "." for p in probabilities) == lost


def test_it_takes_several_confirmations_in_a_row_to_be_found() -> None:
    state = Presence(high=0.75, confirm=3)
    state.lose()
    checks = [0.9, 0.9, 0.7, 0.9, 0.9, 0.8]
    assert [state.check(p) for p in checks] == [False] * 5 + [True]
    assert not state.update(0.9)


def test_what_was_just_found_is_given_up_sooner() -> None:
    def frames_until_lost(state: Presence) -> int:
        return next(i for i in range(1, 100) if state.update(0.05))

    known, found = Presence(), Presence()
    for _ in range(20):
        known.update(0.95)
    found.lose()
    while not found.check(0.8):
        pass
    assert frames_until_lost(found) < frames_until_lost(known) <= 15
