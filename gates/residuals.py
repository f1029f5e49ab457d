"""Truth minus answer over time and over the values of every column, so that a changed relationship shows.

A good model's residuals are zero on average wherever one looks. Many bins are looked at, so what chance alone would
find is held down (Benjamini and Hochberg, "Controlling the false discovery rate", 1995). Whether a column relates to
the label otherwise than on an earlier split is asked by Cochran's Q ("The combination of estimates from different
experiments", 1954): a shift that all bins share is the label's, one that they do not share is the column's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from gates.evidence import AnswerResiduals, ColumnResiduals, MeanResidual, ResidualBin, Residuals
from gates.metrics import Floats
from schemas.features import Label, LabelKind

MISSING = "missing"
OTHERS = "other values"

_FEWEST_ROWS = 30
"""A bin with fewer is shown and not judged."""
_MOST_VALUES = 12
"""A number with more different values is cut into tenths; of words the most frequent stand alone."""
_PARTS = 10
_TIME_PARTS = 12
_MOST_CLASSES = 8

_FIRST_SECOND, _LAST_SECOND = 1e8, 1e10
"""Times between are Unix seconds of 1973 to 2286, as `ingest.query` writes dates and moments."""
_LONG_SECONDS = 7 * 86_400

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answered:
    """Rows of a split with what the model says of them.

    Attributes:
      split: its name.
      columns: raw values, one row each.
      truth: `[rows]`: index of the class, or the target.
      answers: `[rows, classes]` probabilities, or `[rows]` predictions.
    """

    split: str
    columns: pd.DataFrame
    truth: Floats
    answers: Floats


@dataclass(frozen=True)
class _Errors:
    """Residuals `[rows]` of one class or number, and the variance that each has if the model is right (or NaN)."""

    values: Floats
    variance: Floats

    @classmethod
    def of(cls, rows: Answered, kind: LabelKind, index: int) -> _Errors:
        if kind is LabelKind.REGRESSION:
            return cls(rows.truth - rows.answers, np.zeros(len(rows.truth)))
        share = rows.answers[:, index]
        return cls((rows.truth == index) - share, share * (1 - share))

    def take(self, chosen: npt.NDArray[np.bool_]) -> _Errors:
        return _Errors(self.values[chosen], self.variance[chosen])


@dataclass(frozen=True)
class _Measured:
    """A mean residual with its standard error; NaN where too few rows are there."""

    rows: int
    mean: float
    error: float

    @classmethod
    def of(cls, errors: _Errors) -> _Measured:
        rows = len(errors.values)
        mean = float(errors.values.mean()) if rows else float("nan")
        if rows < _FEWEST_ROWS:
            return cls(rows, mean, float("nan"))
        # Where a class was never seen the residuals hardly differ, and yet the next row may hold it.
        variance = max(float(errors.values.var(ddof=1)), float(errors.variance.mean()))
        return cls(rows, mean, float(np.sqrt(variance / rows)))

    @property
    def is_judged(self) -> bool:
        return bool(self.error > 0)

    def shown(self, level: float) -> MeanResidual:
        if not self.is_judged:
            return MeanResidual(self.rows, self.mean, None, None)
        low, high = stats.t.interval(level, self.rows - 1, loc=self.mean, scale=self.error)
        return MeanResidual(self.rows, self.mean, float(low), float(high))

    def p_value(self) -> float | None:
        if not self.is_judged:
            return None
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.rows - 1))


@dataclass(frozen=True)
class _Binned:
    """The bins of a column: names, and the bin of each row of both splits."""

    names: tuple[str, ...]
    codes: Codes
    earlier: Codes


def residuals(
    label: Label,
    rows: Answered,
    earlier: Answered | None,
    columns: Sequence[str],
    time: str | None = None,
    level: float = 0.95,
) -> Residuals:
    """Measures residuals on a split and holds them against those on an earlier one.

    Args:
      label: what is predicted.
      rows: those looked at.
      earlier: rows of another split; None where there is none to compare with.
      columns: names of those to look over; the frames hold them.
      time: the column that orders the rows; passed over where a frame lacks it.
      level: of the intervals; 1 minus it is the share of false finds that is put up with.
    """
    binned = {name: _bins(rows.columns[name], _column(earlier, name)) for name in columns}
    answers: list[AnswerResiduals] = []
    found: list[ColumnResiduals] = []
    for answer, index in _answers(label, rows.truth):
        ours = _Errors.of(rows, label.kind, index)
        theirs = None if earlier is None else _Errors.of(earlier, label.kind, index)
        in_time = [
            part
            for split, errors in ((earlier, theirs), (rows, ours))
            if split is not None and errors is not None
            for part in _over_time(split, errors, time, level)
        ]
        before = None if theirs is None else _Measured.of(theirs).shown(level)
        answers.append(AnswerResiduals(answer, _Measured.of(ours).shown(level), before, tuple(in_time)))
        found += [
            _by_column(name, answer, bins, rows.split, ours, theirs, level) for name, bins in binned.items()
        ]
    return Residuals(
        label=label.name,
        split=rows.split,
        earlier_split=None if earlier is None else earlier.split,
        level=level,
        time=time if any(one.over_time for one in answers) else None,
        **_judged(answers, found, level),
    )


def _column(rows: Answered | None, name: str) -> pd.Series:
    return pd.Series(dtype=object) if rows is None else rows.columns[name]


def _answers(label: Label, truth: Floats) -> list[tuple[str, int]]:
    """The classes looked at with their indices: of two the positive one, of many the most frequent."""
    if label.kind is LabelKind.REGRESSION:
        return [("", 0)]
    if label.kind is LabelKind.BINARY:
        return [(label.classes[1], 1)]
    counts = np.bincount(truth.astype(np.int64), minlength=len(label.classes))
    return [
        (label.classes[index], int(index)) for index in np.argsort(-counts, kind="stable")[:_MOST_CLASSES]
    ]


def _bins(values: pd.Series, earlier: pd.Series) -> _Binned:
    """The same bins for both splits."""
    split_at = len(values)
    both = pd.concat([values.astype(_plain(values)), earlier.astype(_plain(values))], ignore_index=True)
    known = both.notna().to_numpy()
    numeric = pd.api.types.is_numeric_dtype(both)
    codes, names = _cut(both[known].to_numpy(np.float64)) if numeric else _most_frequent(both[known])
    every = np.full(len(both), len(names), np.int64)
    every[known] = codes
    return _Binned((*names, MISSING), every[:split_at], every[split_at:])


def _plain(values: pd.Series) -> Any:
    return np.float64 if pd.api.types.is_numeric_dtype(values) else object


def _cut(values: Floats) -> tuple[Codes, list[str]]:
    """Codes and names of single values where they are few, of tenths where they are many."""
    single, codes = np.unique(values, return_inverse=True)
    if len(single) <= _MOST_VALUES:
        return codes.astype(np.int64), [f"{value:.12g}" for value in single]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _PARTS + 1)))
    codes = np.searchsorted(edges[1:-1], values, side="right")
    return codes.astype(np.int64), [f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)]


def _most_frequent(values: pd.Series) -> tuple[Codes, list[str]]:
    counts = values.value_counts()
    single = [value for value in counts.index[:_MOST_VALUES] if counts[value] > 0]
    place = {value: number for number, value in enumerate(single)}
    codes = values.map(place).fillna(len(single)).to_numpy(np.int64)
    return codes, [*map(str, single), OTHERS]


def _over_time(rows: Answered, errors: _Errors, time: str | None, level: float) -> Iterator[ResidualBin]:
    """Bins of about equally many rows in the order of time; rows without a time are left out."""
    if time is None or time not in rows.columns:
        return
    values = rows.columns[time]
    known = values.notna().to_numpy()
    if not known.any():
        return
    moments, ranks = np.unique(values[known].to_numpy(), return_inverse=True)
    shown = _shown(moments)
    edges = np.unique(np.quantile(ranks, np.linspace(0, 1, _TIME_PARTS + 1)))
    codes = np.searchsorted(edges[1:-1], ranks, side="right")
    there = errors.take(known)
    for code in np.unique(codes):
        chosen = codes == code
        first, last = shown[ranks[chosen].min()], shown[ranks[chosen].max()]
        name = first if first == last else f"{first} to {last}"
        yield _bin(name, _Measured.of(there.take(chosen)), None, rows.split, level)


def _shown(moments: npt.NDArray[Any]) -> list[str]:
    """Moments in order as a person reads them: to the day where they span weeks, else to the minute."""
    if moments.dtype.kind == "O":
        return [str(moment)[:16].replace("T", " ").removesuffix(" 00:00") for moment in moments]
    if not (moments[0] >= _FIRST_SECOND and moments[-1] <= _LAST_SECOND):
        return [f"{moment:.12g}" for moment in moments]
    letters = 10 if moments[-1] - moments[0] > _LONG_SECONDS else 16
    dates = moments.astype("datetime64[s]").astype(str)
    return [date[:letters].replace("T", " ") for date in dates]


def _by_column(
    name: str,
    answer: str,
    bins: _Binned,
    split: str,
    ours: _Errors,
    theirs: _Errors | None,
    level: float,
) -> ColumnResiduals:
    there = [code for code in range(len(bins.names)) if (bins.codes == code).any()]
    now = [_Measured.of(ours.take(bins.codes == code)) for code in there]
    before = [None if theirs is None else _Measured.of(theirs.take(bins.earlier == code)) for code in there]
    made = [
        _bin(bins.names[code], one, earlier, split, level)
        for code, one, earlier in zip(there, now, before, strict=True)
    ]
    pairs = {
        place: (one, earlier)
        for place, (one, earlier) in enumerate(zip(now, before, strict=True))
        if earlier is not None and one.is_judged and earlier.is_judged
    }
    if len(pairs) < 2:
        return ColumnResiduals(name, answer, tuple(made), None, None, has_changed=False)
    moved, size, p_value = _apart(list(pairs.values()))
    for place, change in zip(pairs, moved, strict=True):
        made[place] = replace(made[place], change=float(change))
    return ColumnResiduals(name, answer, tuple(made), size, p_value, has_changed=False)


def _apart(pairs: Sequence[tuple[_Measured, _Measured]]) -> tuple[Floats, float, float]:
    """How much more each bin has moved than all do, how far that is for a row beyond chance, and Q's p-value."""
    rows = np.array([now.rows for now, _ in pairs], np.float64)
    shift = np.array([now.mean - before.mean for now, before in pairs])
    variance = np.array([now.error**2 + before.error**2 for now, before in pairs])
    moved = shift - np.average(shift, weights=1 / variance)
    p_value = float(stats.chi2.sf((moved**2 / variance).sum(), len(pairs) - 1))
    size = float(np.sqrt(max(0.0, np.average(moved**2 - variance, weights=rows))))
    return moved, size, p_value


def _bin(name: str, now: _Measured, earlier: _Measured | None, split: str, level: float) -> ResidualBin:
    before = None if earlier is None or not earlier.rows else earlier.shown(level)
    return ResidualBin(name, now.shown(level), before, now.p_value(), is_away=False, change=None, split=split)


def _judged(
    answers: Sequence[AnswerResiduals], columns: Sequence[ColumnResiduals], level: float
) -> dict[str, Any]:
    """Corrects all p-values for how many there are, and orders the columns."""
    of_bins = _corrected([b.p_value for b in _every_bin(answers, columns)])
    of_columns = _corrected([column.p_value for column in columns])
    next_bin = iter(of_bins)

    def judged(bins: Sequence[ResidualBin]) -> tuple[ResidualBin, ...]:
        corrected = ((one, next(next_bin)) for one in bins)
        return tuple(replace(one, p_value=p, is_away=_is_found(p, level)) for one, p in corrected)

    told = tuple(replace(one, over_time=judged(one.over_time)) for one in answers)
    found = [
        replace(column, bins=judged(column.bins), p_value=p, has_changed=_is_found(p, level))
        for column, p in zip(columns, of_columns, strict=True)
    ]
    return {"answers": told, "columns": tuple(sorted(found, key=_rank))}


def _every_bin(
    answers: Sequence[AnswerResiduals], columns: Sequence[ColumnResiduals]
) -> Iterator[ResidualBin]:
    for answer in answers:
        yield from answer.over_time
    for column in columns:
        yield from column.bins


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    known = [place for place, p in enumerate(p_values) if p is not None]
    found: list[float | None] = [None] * len(p_values)
    if known:
        adjusted = stats.false_discovery_control([p_values[place] for place in known])
        for place, p in zip(known, adjusted, strict=True):
            found[place] = float(p)
    return found


def _is_found(p_value: float | None, level: float) -> bool:
    return p_value is not None and p_value <= 1 - level


def _rank(column: ColumnResiduals) -> tuple[bool, float, float]:
    worst = max((distance(one) for one in column.bins), default=0.0)
    return not column.has_changed, -(column.change or 0.0) if column.has_changed else 0.0, -worst


def distance(one: ResidualBin) -> float:
    """How far a bin is surely away from zero: the nearer end of its interval, 0 where that may be zero."""
    low, high = one.residual.low, one.residual.high
    if not one.is_away or low is None or high is None or low <= 0 <= high:
        return 0.0
    return min(abs(low), abs(high))


def worst_bins(found: Residuals, most: int) -> list[tuple[ColumnResiduals, ResidualBin]]:
    """The bins of columns that are surely farthest away from zero."""
    away = [(column, one) for column in found.columns for one in column.bins if distance(one) > 0]
    return sorted(away, key=lambda pair: -distance(pair[1]))[:most]


def changed_columns(found: Residuals) -> tuple[ColumnResiduals, ...]:
    """Those that relate to the label otherwise than on the earlier split, the largest change first."""
    return tuple(column for column in found.columns if column.has_changed)


def most_changed(column: ColumnResiduals) -> ResidualBin:
    """The bin that most of a column's change comes from.

    Raises:
      ValueError: if no bin could be compared.
    """
    compared = [one for one in column.bins if one.change is not None]
    return max(compared, key=lambda one: one.residual.rows * (one.change or 0.0) ** 2)


def tell_bin(found: Residuals, column: ColumnResiduals, one: ResidualBin) -> str:
    """A bin in one sentence."""
    ends = sorted(abs(end) for end in (one.residual.low, one.residual.high) if end is not None)
    between = f" (between {ends[0]:.3g} and {ends[1]:.3g})" if ends else ""
    return (
        f"Where {column.column} is {one.name} ({one.residual.rows:,} rows), "
        f"{_apart_in_words(found, column.answer, one.residual.mean)}{between}."
    )


def tell_change(found: Residuals, column: ColumnResiduals) -> str:
    """A changed relationship in one or two sentences."""
    one = most_changed(column)
    before, change = one.earlier, one.change
    assert before is not None, "compared bins have rows in both splits"
    assert change is not None, "only compared bins are chosen from"
    moved = one.residual.mean - before.mean
    return (
        f"{column.column} relates to {found.label} otherwise in {found.split} than in {found.earlier_split}: "
        f"where it is {one.name} ({one.residual.rows:,} rows), "
        f"{_apart_in_words(found, column.answer, one.residual.mean)}. "
        f"That moved by {moved:+.3g} from {found.earlier_split} on, all its values together by {moved - change:+.3g}."
    )


def tell_all_rows(found: Residuals) -> Iterator[str]:
    """One sentence for each class: all rows together, and those of the earlier split."""
    for one in found.answers:
        words = f"On all {one.all_rows.rows:,} rows of {found.split}, "
        words += _apart_in_words(found, one.answer, one.all_rows.mean)
        if one.earlier is not None:
            words += f"; in {found.earlier_split} the difference was {one.earlier.mean:+.3g}"
        yield f"{words}."


def _apart_in_words(found: Residuals, answer: str, mean: float) -> str:
    if not answer:
        side = "above" if mean > 0 else "below"
        return f"{found.label} is {abs(mean):.3g} {side} what the model answers"
    side = "above" if mean > 0 else "below"
    return f"the share of {found.label} = {answer} is {abs(mean):.3g} {side} what the model answers"
