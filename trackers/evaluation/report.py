"""Score results and compare trackers: a table, success and precision plots, one HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from media import InputError
from media.files import replacing
from trackers.datasets import Dataset, Sequence
from trackers.datasets.base import Scoring
from trackers.evaluation.metrics import PIXELS, PROTOCOLS, Scores, columns, mean_scores, score
from trackers.evaluation.results import Results


@dataclass(frozen=True)
class TrackerReport:
    """One tracker on one data set."""

    label: str
    by_sequence: dict[str, Scores]
    fps: dict[str, float]  # frames a second by sequence, where times were kept
    missing: dict[str, str]  # sequences without a score, and why

    @property
    def scores(self) -> Scores:
        """The mean over its sequences."""
        return mean_scores(list(self.by_sequence.values()))

    @property
    def mean_fps(self) -> float:
        """Mean over the sequences, nan where nobody measured."""
        return float(np.mean(list(self.fps.values()))) if self.fps else float("nan")


def score_results(dataset: Dataset, all_results: Series[Results]) -> list[TrackerReport]:
    """Score trackers, the best first.

    Args:
        dataset: reads each sequence once.
        all_results: of the trackers to compare.

    Raises:
        InputError: only the data set's server knows the truth, or a tracker has no usable result.
    """
    if dataset.hidden:
        raise InputError(
            f"Only the server of {dataset.title} can score its {dataset.split} split; upload the"
            " .zip file that `evaluate` writes."
        )
    reports = [TrackerReport(results.label, {}, {}, {}) for results in all_results]
    for name in dataset.names:
        sequence: Sequence | InputError
        try:
            sequence = dataset[name]
        except InputError as error:
            sequence = error
        for report, results in zip(reports, all_results, strict=True):
            try:
                _score_one(report, results, name, sequence, dataset.scoring)
            except InputError as error:
                report.missing[name] = str(error)
    for report in reports:
        if not report.by_sequence:
            reason = next(iter(report.missing.values()))
            raise InputError(f"{report.label} has no result that can be scored: {reason}")
    return sorted(reports, key=lambda r: -_headline(r.scores, dataset.scoring))


def _score_one(
    report: TrackerReport,
    results: Results,
    name: str,
    sequence: Sequence | InputError,
    scoring: Scoring,
) -> None:
    if isinstance(sequence, InputError):
        raise sequence
    if not results.has(name):
        raise InputError(f"There is no result for {name}.")
    report.by_sequence[name] = score(results.boxes(name), sequence, scoring)
    seconds = results.seconds(name)
    if seconds is not None and seconds[1:].sum() > 0:
        report.fps[name] = (len(seconds) - 1) / seconds[1:].sum()


def _headline(scores: Scores, scoring: Scoring) -> float:
    return next(iter(columns(scores, scoring).values()))


# ------------------------------------------------------------------------------------------ tables


def summary(reports: Series[TrackerReport], scoring: Scoring) -> list[list[str]]:
    """A row of text per tracker below a row of titles; numbers in percent."""
    rows = [["tracker", *columns(reports[0].scores, scoring), "fps", "sequences"]]
    for report in reports:
        values = [f"{100 * v:.1f}" for v in columns(report.scores, scoring).values()]
        count, total = len(report.by_sequence), len(report.by_sequence) + len(report.missing)
        share = str(count) if count == total else f"{count} of {total}"
        rows.append([report.label, *values, _number(report.mean_fps), share])
    return rows


def details(reports: Series[TrackerReport], scoring: Scoring) -> list[list[str]]:
    """A row of text per sequence; per tracker its first score, P and PNorm in percent, and fps."""
    title = next(iter(columns(reports[0].scores, scoring)))
    titles = (title, "P", "PNorm", "fps")
    rows = [["sequence", *(f"{report.label} {t}" for report in reports for t in titles)]]
    for name in dict.fromkeys(name for report in reports for name in report.by_sequence):
        row = [name]
        for report in reports:
            scores = report.by_sequence.get(name)
            row += (
                ["-"] * 3
                if scores is None
                else [
                    f"{100 * _headline(scores, scoring):.1f}",
                    f"{100 * scores.precision_20:.1f}",
                    f"{100 * scores.normalized_20:.1f}",
                ]
            )
            row.append(_number(report.fps.get(name, float("nan"))))
        rows.append(row)
    return rows


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}"


def as_text(rows: Series[Series[str]]) -> str:
    """Columns side by side, the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _as_html(rows: Series[Series[str]]) -> str:
    def line(row: Series[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows[1:])
    return f"<table><thead>{line(rows[0], 'th')}</thead><tbody>\n{body}\n</tbody></table>"


# ------------------------------------------------------------------------------------------- plots


def write_plots(reports: Series[TrackerReport], dataset: Dataset, folder: Path) -> list[Path]:
    """Write success.png and precision.png; returns where they are."""
    scores = {report.label: report.scores for report in reports}
    overlaps = np.linspace(0, 1, PROTOCOLS[dataset.scoring].bins)
    success = {k: (s.success, _headline(s, dataset.scoring)) for k, s in scores.items()}
    precision = {k: (s.precision, s.precision_20) for k, s in scores.items()}
    paths = [folder / "success.png", folder / "precision.png"]
    _plot(paths[0], f"Success on {dataset.title}", "overlap threshold", overlaps, success)
    _plot(
        paths[1], f"Precision on {dataset.title}", "centre error threshold, px", PIXELS, precision
    )
    return paths


def _plot(
    path: Path,
    title: str,
    label: str,
    thresholds: np.ndarray,
    curves: Mapping[str, tuple[np.ndarray, float]],
) -> None:
    """Draw one curve per tracker, the best first in the legend, with its score in percent."""
    from matplotlib.figure import Figure  # late: nobody else needs it; Figure needs no display

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (curve, value) in sorted(curves.items(), key=lambda item: -item[1][1]):
        axes.plot(thresholds, curve, label=f"{name} [{100 * value:.1f}]")
    axes.set(title=title, xlabel=label, ylabel="share of frames")
    axes.set(xlim=(thresholds[0], thresholds[-1]), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }} img {{ max-width: 49% }}
</style></head><body><h1>{title}</h1>
{summary}
<p>Percent; one-pass evaluation; protocol: {protocol}.</p>
{images}
<h2>By sequence</h2>
{details}
{missing}
</body></html>
"""


def write_report(reports: Series[TrackerReport], dataset: Dataset, folder: str | Path) -> Path:
    """Write report.html, which holds the plots, and the plots as pictures.

    Args:
        reports: the trackers to compare, at least one.
        dataset: what they were scored on.
        folder: is made if it is not there.

    Returns:
        The page.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    images = [
        f'<img alt="{path.stem} plot" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}">'
        for path in write_plots(reports, dataset, place)
    ]
    gaps = [f"{r.label}: {reason}" for r in reports for reason in r.missing.values()]
    missing = "".join(f"<li>{escape(gap)}</li>" for gap in gaps)
    part = "" if dataset.split == "all" else f" {dataset.split}"
    page = place / "report.html"
    with replacing(page) as unfinished:
        unfinished.write_text(
            _PAGE.format(
                title=escape(f"{dataset.title}{part}: {len(dataset)} sequences"),
                summary=_as_html(summary(reports, dataset.scoring)),
                protocol=escape(dataset.scoring),
                images="\n".join(images),
                details=_as_html(details(reports, dataset.scoring)),
                missing=f"<h2>Not scored</h2><ul>{missing}</ul>" if missing else "",
            ),
            encoding="utf-8",
        )
    return page
