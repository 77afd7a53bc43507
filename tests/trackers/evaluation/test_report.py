"""Comparing trackers: tables, plots and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media import InputError
from trackers.datasets import Dataset
from trackers.evaluation.report import as_text, details, score_results, summary, write_report
from trackers.evaluation.results import Results


@pytest.fixture
def both(dataset: Dataset, tmp_path: Path) -> list[Results]:
    """`poor` is 12 pixels beside the truth: an overlap of 18 / 42; `<good>` is right."""
    poor, good = (Results(tmp_path, label, dataset) for label in ("poor", "<good>"))
    for name in dataset.names:
        truth = dataset[name].boxes_xywh
        good.write(name, truth, np.full(len(truth), 0.02))
        poor.write(name, truth + np.array([12, 0, 0, 0]), np.r_[5.0, np.full(len(truth) - 1, 0.01)])
    return [poor, good]


def test_best_first(dataset: Dataset, both: list[Results]) -> None:
    reports = score_results(dataset, both)
    rows = summary(reports, dataset.scoring)
    assert rows[0] == ["tracker", "AUC", "OP50", "OP75", "P", "PNorm", "fps", "sequences"]
    assert rows[1] == ["<good>", "95.2", "100.0", "100.0", "100.0", "100.0", "50.0", "2"]
    # All are above 9 thresholds (0 ... 0.4), and the first of 6 or 4 above 11 more (0.45 ... 0.95).
    auc = np.mean([(9 + 11 / n) / 21 for n in (6, 4)])
    assert rows[2][:4] == ["poor", f"{100 * auc:.1f}", "20.8", "20.8"]
    assert rows[2][6] == "100.0"  # the start's five seconds are no tracking


def test_details_and_missing(dataset: Dataset, both: list[Results]) -> None:
    (both[1].path / "b.txt").unlink()
    (both[0].path / "b.txt").write_text("1,2,3,4\n")
    (both[0].path / "a_time.txt").unlink()
    reports = score_results(dataset, both)
    assert reports[0].missing == {"b": "There is no result for b."}
    assert reports[1].missing == {"b": "The result for b has 1 boxes for 4 frames."}
    assert summary(reports, "folder")[1][-1] == "1 of 2"
    rows = details(reports, "folder")
    assert rows[0][:5] == ["sequence", "<good> AUC", "<good> P", "<good> PNorm", "<good> fps"]
    assert [row[0] for row in rows[1:]] == ["a"] and rows[1][-1] == "-"
    assert as_text(rows).splitlines()[1].startswith("a   ")


def test_nothing_to_score(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x has no result that can be scored: There is no result"):
        score_results(dataset, [Results(tmp_path, "x", dataset)])


def test_page(dataset: Dataset, both: list[Results], tmp_path: Path) -> None:
    (both[0].path / "b.txt").unlink()
    page = write_report(score_results(dataset, both), dataset, tmp_path / "report")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "precision.png", "report.html", "success.png",
    ]  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert "&lt;good&gt;" in text and "<good>" not in text
    assert text.count("data:image/png;base64,") == 2 and "http" not in text
    assert "<title>data: 2 sequences</title>" in text
    assert "poor: There is no result for b." in text
    picture = np.asarray(Image.open(page.parent / "success.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20  # curves, not an empty sheet
