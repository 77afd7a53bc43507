"""Scores against tables worked out by hand, and against the GOT-10k toolkit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from media import InputError
from trackers.datasets import Sequence
from trackers.datasets.files import read_boxes
from trackers.evaluation.metrics import (
    PROTOCOLS,
    Scores,
    centre_error,
    columns,
    mean_scores,
    overlap,
    score,
)

NAN = float("nan")
GOLDEN = Path(__file__).parents[2] / "golden" / "got10k"


def sequence(
    boxes: list[list[float]] | np.ndarray,
    shown: list[bool] | np.ndarray | None = None,
    size: tuple[int, int] | None = None,
) -> Sequence:
    frames = tuple(Path(f"{i}.jpg") for i in range(len(boxes)))
    labels = None if shown is None else np.array(shown, bool)
    return Sequence("s", frames, np.array(boxes, np.float64), labels, size)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 10, 10], 1 / 3),  # shared 50, together 150
        ([0, 0, 10, 10], [10, 0, 10, 10], 0.0),  # they touch
        ([0, 0, 10, 10], [90, 90, 5, 5], 0.0),
        ([0, 0, 10, 10], [2, 2, 5, 4], 0.2),  # inside: 20 of 100
        ([0.5, 0, 3, 1], [0, 0, 1, 1], 0.5 / 3.5),  # half a pixel counts half
        ([0, 0, 0, 5], [0, 0, 10, 10], 0.0),
    ],
)
def test_overlap(first: list[float], second: list[float], wanted: float) -> None:
    pair = np.array([first], float), np.array([second], float)
    assert overlap(*pair)[0] == pytest.approx(wanted)
    assert overlap(*pair, last_pixel=0.0)[0] == pytest.approx(wanted)


def test_centre_error() -> None:
    first, second = np.array([[0, 0, 10, 10.0]]), np.array([[3, 4, 10, 10.0]])
    assert centre_error(first, second, 1.0)[0] == 5.0
    # A wider box moves the centre by half of what it is wider; in x by 4 / 8, in y by 3 / 4.
    wider, truth = np.array([[0, 3, 16, 4.0]]), np.array([[0, 0, 8, 4.0]])
    assert centre_error(wider, truth, truth[:, 2:])[0] == pytest.approx(np.hypot(0.5, 0.75))


def test_success_and_precision_by_hand() -> None:
    # Overlaps 1, 1/3, 0.5, 0; centre errors 0, 5, 2.5, 90.5; per width of 10: 0, 0.5, 0.25, 9.05.
    truth = sequence([[0, 0, 10, 10]] * 4)
    found = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 5, 10], [90, 0, 11, 10]])
    scores = score(found, truth, "otb")
    # Above 0: 3 of 4; above 0.05 ... 0.30 (6 thresholds): 3; 0.35 ... 0.45 (3): 2; 0.5 is not
    # above 0.5, so 0.5 ... 0.95 (10): 1; above 1.0: none.
    assert (scores.success * 4).tolist() == [3] * 7 + [2] * 3 + [1] * 10 + [0]
    assert scores.auc == pytest.approx((7 * 3 + 3 * 2 + 10) / 4 / 21)
    assert scores.success_at(0.5) == scores.success_at(0.75) == 0.25
    assert scores.precision[[0, 2, 3, 4, 5, 50]].tolist() == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert scores.precision_20 == 0.75
    assert scores.normalized[[0, 24, 25, 50]].tolist() == [0.25, 0.25, 0.5, 0.75]
    assert scores.normalized_20 == 0.25
    assert scores.overlap == pytest.approx((1 + 1 / 3 + 0.5) / 4)


def test_first_box_is_the_given_one() -> None:
    scores = score(np.array([[80, 80, 1, 1], [0, 0, 9, 9]]), sequence([[0, 0, 9, 9]] * 2), "otb")
    assert scores.overlap == 1.0 and scores.precision[0] == 1.0


def test_a_box_without_area_repeats_the_one_before() -> None:
    truth = sequence([[0, 0, 10, 10]] * 4)
    found = np.array([[0, 0, 10, 10], [0, 0, 5, 10], [7, 7, 0, 9], [8, 8, 3, 0]])
    assert score(found, truth, "otb").overlap == pytest.approx((1 + 3 * 0.5) / 4)


@pytest.mark.parametrize(
    ("scoring", "success", "precision", "normalized"),
    [
        ("otb", 0.5, 0.5, 1.0),  # the two invalid frames miss, but hit the normalised error
        ("uav", 0.5, 1.0, 1.0),
        ("lasot", 0.5, 0.5, 0.75),  # of the two, the one that is labelled out of view misses
        ("folder", 1.0, 1.0, 1.0),  # they do not count
    ],
)
def test_invalid_frames(scoring: str, success: float, precision: float, normalized: float) -> None:
    absent = [NAN] * 4 if scoring == "uav" else [0.0, 0, 0, 0]
    truth = [[0, 0, 10, 10], [0, 0, 10, 10], absent, [5, 5, 10, 10]]
    shown = [True, True, True, False]
    if scoring != "lasot":
        truth[3] = absent
    given = sequence(truth, shown if scoring == "lasot" else None)
    scores = score(np.array([[0, 0, 10, 10]] * 4), given, scoring)
    assert scores.success_at(0.5) == success
    assert scores.success[0] == success  # an overlap of -1 is not above 0
    assert scores.precision_20 == precision and scores.normalized_20 == normalized
    assert scores.overlap == 1.0


def test_got10k_by_hand() -> None:
    # The frame is 20 wide: both boxes end there, so 10 of the truth's width stays, 5 of the
    # other's. The first frame and the covered one are left out.
    truth = sequence(
        [[0, 0, 10, 10], [10, 0, 20, 10], [0, 0, 10, 10], [0, 0, 10, 10]],
        shown=[True, True, False, True],
        size=(50, 20),
    )
    found = np.array([[9, 9, 1, 1], [15, 0, 9, 10], [9, 9, 1, 1], [0, 0, 10, 10]])
    scores = score(found, truth, "got10k")
    assert scores.overlap == pytest.approx((0.5 + 1) / 2) and scores.weight == 2
    assert len(scores.success) == 101
    assert scores.success_at(0.5) == 0.5 and scores.success_at(0.75) == 0.5
    assert scores.success[49] == 1.0 and scores.success[100] == 0.0
    assert list(columns(scores, "got10k")) == ["AO", "SR.5", "SR.75"]


def test_a_got10k_sequence_with_nothing_to_score_weighs_nothing() -> None:
    boxes = np.array([[0, 0, 9, 9]] * 2)
    empty = score(boxes, sequence(boxes, shown=[True, False]), "got10k")
    full = score(boxes, sequence(boxes), "got10k")
    assert empty.weight == 0 and mean_scores([empty, full]).overlap == 1.0


def flat(value: float, weight: float) -> Scores:
    return Scores(np.full(21, value), np.full(51, value), np.full(51, value), value, weight)


def test_mean_is_by_sequence_or_by_weight() -> None:
    assert mean_scores([flat(0.2, 1), flat(0.6, 1)]).auc == pytest.approx(0.4)
    mean = mean_scores([flat(0.2, 30), flat(0.6, 10)])
    assert mean.overlap == pytest.approx(0.3) and mean.precision_20 == pytest.approx(0.3)


def made_up(n: int, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth and a result that wobbles around it, in whole pixels."""
    i = np.arange(n)
    truth = np.stack(
        [
            100 + 40 * np.sin(i / 7 + phase),
            80 + 30 * np.cos(i / 5),
            40 + 8 * np.sin(i / 11),
            30 + 6 * np.cos(i / 13),
        ],
        axis=1,
    ).round(1)
    off = [12 * np.sin(i / 3), 9 * np.cos(i / 4 + phase), 6 * np.sin(i / 9), 4 * np.cos(i / 2)]
    return truth, (truth + np.stack(off, axis=1)).astype(int).astype(float)


PAIRS = [made_up(50, 0.0), made_up(80, 1.0), made_up(30, 2.0)]


def test_otb_family_as_the_got10k_toolkit() -> None:
    """Numbers from got10k 0.1.3, ExperimentOTB._calc_metrics and _calc_curves."""
    found = [score(result, sequence(truth), "otb") for truth, result in PAIRS]
    aucs = [0.49142857142857127, 0.49821428571428567, 0.5396825396825397]
    assert [scores.auc for scores in found] == pytest.approx(aucs, abs=1e-12)
    mean = mean_scores(found)
    assert mean.auc == pytest.approx(0.5097751322751323, abs=1e-12)
    assert mean.success_at(0.5) == pytest.approx(0.5188888888888888, abs=1e-12)
    assert mean.success_at(0.75) == pytest.approx(0.065, abs=1e-12)
    assert mean.precision[[5, 8, 10]] == pytest.approx(
        [0.10666666666666667, 0.30666666666666664, 0.4825], abs=1e-12
    )


def test_got10k_as_its_toolkit() -> None:
    """Numbers from got10k 0.1.3, rect_iou and ExperimentGOT10k._evaluate."""
    found = [
        score(result, sequence(truth, np.r_[True, np.arange(1, len(truth)) % 9 > 0], (110, 150)),
              "got10k")
        for truth, result in PAIRS
    ]  # fmt: skip
    values = columns(mean_scores(found), "got10k")
    wanted = [0.4225577630502536, 0.41134751773049644, 0.03546099290780142]
    assert list(values.values()) == pytest.approx(wanted, abs=1e-12)


REAL = {"otb_DragonBaby": (360, 640), "otb_Skiing": (360, 640)}  # and their (height, width)


def real(name: str, shared: Callable[[str], Path]) -> tuple[np.ndarray, Sequence]:
    """A result file of ours, and the truth of that sequence with every frame shown."""
    truth = read_boxes(shared(f"data/eval/tracking/{name}/groundtruth.txt"))
    return read_boxes(GOLDEN / f"{name}.txt"), sequence(truth, [True] * len(truth), REAL[name])


def test_real_results_as_the_toolkit_reports_on_otb(shared: Callable[[str], Path]) -> None:
    """All of its figures, of each sequence and of both; see record.py beside them."""
    wanted = json.loads((GOLDEN / "figures.json").read_text())["ExperimentOTB"]
    scores = {name: score(*real(name, shared), "otb") for name in REAL}
    rows = [(scores[name], wanted["seq_wise"][name]) for name in REAL]
    for found, row in [*rows, (mean_scores(list(scores.values())), wanted["overall"])]:
        assert found.success == pytest.approx(row["success_curve"], abs=1e-12)
        assert found.precision == pytest.approx(row["precision_curve"], abs=1e-12)
        assert found.auc == pytest.approx(row["success_score"], abs=1e-12)
        assert found.precision_20 == pytest.approx(row["precision_score"], abs=1e-12)
        assert found.success_at(0.5) == pytest.approx(row["success_rate"], abs=1e-12)


def test_real_results_as_the_toolkit_reports_on_got10k(shared: Callable[[str], Path]) -> None:
    wanted = json.loads((GOLDEN / "figures.json").read_text())["ExperimentGOT10k"]
    scores = {name: score(*real(name, shared), "got10k") for name in REAL}
    for name, found in scores.items():
        row = wanted["seq_wise"][name]
        assert found.overlap == pytest.approx(row["ao"], abs=1e-12)
        assert found.success_at(0.5) == pytest.approx(row["sr"], abs=1e-12)
        assert found.weight == row["length"]
    mean = mean_scores(list(scores.values()))
    assert mean.overlap == pytest.approx(wanted["overall"]["ao"], abs=1e-12)
    assert mean.success == pytest.approx(wanted["overall"]["succ_curve"], abs=1e-12)


def test_all_protocols_score_a_perfect_result_alike() -> None:
    truth = PAIRS[0][0].round()  # fractions make overlaps of 1.0000000000000002
    for scoring, protocol in PROTOCOLS.items():
        scores = score(truth, sequence(truth, shown=np.ones(len(truth), bool)), scoring)
        assert scores.overlap == pytest.approx(1.0)
        assert scores.auc == pytest.approx(1 - 1 / protocol.bins)  # nothing is above 1
        assert scores.precision[0] == scores.normalized[0] == 1.0


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([[0, 0, 9, 9]], "has 1 boxes for 2 frames"),
        ([[0, 0, 9, 9], [0, 0, NAN, 9]], "boxes that are none"),
        ([[0, 0, 9, 9], [0, 0, -1, 9]], "boxes that are none"),
    ],
)
def test_results_that_cannot_be_scored(found: list[list[float]], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        score(np.array(found), sequence([[0, 0, 9, 9]] * 2), "otb")


def test_rows_beyond_the_last_frame_are_ignored() -> None:
    boxes = [[0, 0, 9, 9]] * 2
    assert score(np.array([*boxes, [50, 50, 1, 1]]), sequence(boxes), "otb").overlap == 1.0
