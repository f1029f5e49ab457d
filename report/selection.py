"""Which of the figures a table shows, and in which order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gates.evidence import (
    BehaviourResult,
    ColumnFigures,
    ColumnResiduals,
    Confusion,
    Curve,
    DataEvidence,
    Estimate,
    Residuals,
)
from gates.residuals import changed_columns, tell_all_rows, tell_bin, tell_change, worst_bins
from gates.verdict import Outcome, Verdict
from report.page import Gate, Histogram, TopValues
from report.wording import figure

WORST_FIRST = (Outcome.REFUSED, Outcome.OVERRIDDEN, Outcome.WARNED, Outcome.PASSED)

_THRESHOLDS = 11
_SENTENCES = 6
PICTURED = 12
"""Columns whose residuals are drawn: a picture costs a tenth of a second."""
_LEVELS = tuple(number / 10 for number in range(11))


@dataclass(frozen=True)
class Metric:
    """One metric and what it was estimated on."""

    name: str
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True)
class CurveTable:
    """Curves read at the same places: `rows` are a place and the value of each subject there."""

    subjects: tuple[str, ...]
    rows: tuple[tuple[float, tuple[float, ...]], ...]


def by_outcome(gates: Sequence[Gate]) -> Mapping[Outcome, tuple[tuple[str, Verdict], ...]]:
    """Gate and verdict by outcome, the worst first; outcomes that did not happen are left out."""
    found = {
        outcome: tuple((g.name, v) for g in gates for v in g.verdicts if v.outcome is outcome)
        for outcome in WORST_FIRST
    }
    return {outcome: verdicts for outcome, verdicts in found.items() if verdicts}


def by_column(data: DataEvidence | None) -> Mapping[str, ColumnFigures]:
    """What the data gate measured, by column."""
    return {entry.column: entry for entry in data.columns} if data else {}


def drift_places(data: DataEvidence) -> tuple[str, ...]:
    """All that any column was compared with."""
    return tuple(dict.fromkeys(place for entry in data.columns for place in entry.drift))


def reason_of(gates: Sequence[Gate], check: str) -> str:
    """What a check said; empty where there is none of that name."""
    return next((v.reason for g in gates for v in g.verdicts if v.name == check), "")


def on_all_rows(estimates: Sequence[Estimate]) -> tuple[Metric, ...]:
    """The metrics of model, champion and baselines on all rows."""
    return _by_metric(estimates, [e for e in estimates if not e.slice])


def on_slices(estimates: Sequence[Estimate]) -> tuple[Metric, ...]:
    """The metrics on slices, the largest slice first within each column or cross."""
    sliced = [e for e in estimates if e.slice]
    return _by_metric(estimates, sorted(sliced, key=lambda e: (_columns(e.slice), -e.rows, e.slice)))


def of_model(estimates: Sequence[Estimate], metric: str) -> Estimate | None:
    """The model's own estimate on all rows."""
    found = (e for e in estimates if not e.slice and e.metric == metric and e.subject == "model")
    return next(found, None)


def _by_metric(every: Sequence[Estimate], shown: Sequence[Estimate]) -> tuple[Metric, ...]:
    """Those shown, by metric, in the order in which metrics occur at all: a small slice may lack the first."""
    names = dict.fromkeys(estimate.metric for estimate in every)
    metrics = (Metric(name, tuple(e for e in shown if e.metric == name)) for name in names)
    return tuple(metric for metric in metrics if metric.estimates)


def _columns(slice_name: str) -> tuple[str, ...]:
    return tuple(part.partition("=")[0].strip() for part in slice_name.split(","))


def curve_table(curves: Sequence[Curve]) -> CurveTable:
    """The curves at every tenth."""
    read = [np.interp(_LEVELS, curve.x, curve.y) for curve in curves]
    rows = tuple(
        (level, tuple(float(values[place]) for values in read)) for place, level in enumerate(_LEVELS)
    )
    return CurveTable(tuple(curve.subject for curve in curves), rows)


def at_thresholds(confusion: Sequence[Confusion], chosen: float | None) -> tuple[Confusion, ...]:
    """Some of the thresholds, as evenly spread as they come, and the chosen one among them."""
    ordered = sorted(confusion, key=lambda entry: entry.threshold)
    known = np.array([entry.threshold for entry in ordered])
    wanted = np.linspace(known[0], known[-1], _THRESHOLDS)
    places = {int(np.abs(known - threshold).argmin()) for threshold in wanted}
    if (nearest := chosen_of(ordered, chosen)) is not None:
        places.add(ordered.index(nearest))
    return tuple(ordered[place] for place in sorted(places))


def chosen_of(confusion: Sequence[Confusion], chosen: float | None) -> Confusion | None:
    """The entry of the chosen threshold, or the nearest there is."""
    if chosen is None or not confusion:
        return None
    return min(confusion, key=lambda entry: abs(entry.threshold - chosen))


def share(part: int, whole: int) -> float | None:
    """A part of a whole; None of nothing."""
    return part / whole if whole else None


def columns_of(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Names of all columns of some rows, in the order of the first."""
    return tuple(dict.fromkeys(name for row in rows for name in row))


def failing_first(results: Sequence[BehaviourResult]) -> tuple[BehaviourResult, ...]:
    """Behavioural tests, those that failed first."""
    return tuple(sorted(results, key=lambda result: result.passed))


def residual_words(found: Residuals) -> Mapping[str, tuple[str, ...]]:
    """What the residuals come to, in sentences by title."""
    words = {
        "All rows": tuple(tell_all_rows(found)),
        "Changed relationships": tuple(
            tell_change(found, one) for one in changed_columns(found)[:_SENTENCES]
        ),
        "Farthest from zero": tuple(tell_bin(found, *pair) for pair in worst_bins(found, _SENTENCES)),
    }
    return {title: told for title, told in words.items() if told}


def residuals_of(found: Residuals, answer: str) -> tuple[ColumnResiduals, ...]:
    """Those of one class, the most telling columns first."""
    return tuple(column for column in found.columns if column.answer == answer)


def distribution_rows(
    distribution: Histogram | TopValues,
) -> tuple[tuple[str, Mapping[str, float]], ...]:
    """A name for each bin or value, and its share by split."""
    shares = distribution.shares
    names = distribution.values if isinstance(distribution, TopValues) else _bin_names(distribution)
    return tuple(
        (name, {split: values[place] for split, values in shares.items()}) for place, name in enumerate(names)
    )


def _bin_names(histogram: Histogram) -> tuple[str, ...]:
    edges = histogram.edges
    if histogram.is_whole:
        return tuple(f"{math.ceil(low):,}" for low in edges[:-1])
    names = [f"{figure(low)} to {figure(high)}" for low, high in itertools.pairwise(edges)]
    if histogram.is_open_below:
        names[0] = f"below {figure(edges[1])}"
    if histogram.is_open_above:
        names[-1] = f"from {figure(edges[-2])}"
    return tuple(names)
