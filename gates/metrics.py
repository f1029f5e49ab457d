"""Metrics of scores against truth, prepared once and then asked for under many weightings of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.features import LabelKind

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]
"""`[rows, weightings]`: how often each row counts."""

_SMALLEST_SHARE = 1e-7
_RANKS = 4096
"""Runs of neighbouring scores that a resample tells apart; the value itself tells all."""


@dataclass(frozen=True)
class Statistic:
    """A metric of some scores.

    Attributes:
      value: on the rows as they are; NaN where it is not defined.
      weighted: from weights `[rows, weightings]` to the metric under each, `[weightings]`.
    """

    value: float
    weighted: Callable[[Weights], Floats]


@dataclass(frozen=True)
class Metric:
    """A metric of scores against truth.

    Attributes:
      name: as shown.
      is_higher_better: whether more is better.
      prepare: from truth `[rows]` (index of the class, or the target) and scores (`[rows, classes]` probabilities, or
        `[rows]` predictions) to the metric.
    """

    name: str
    is_higher_better: bool
    prepare: Callable[[Floats, Floats], Statistic]


@dataclass(frozen=True)
class _Ranking:
    """Rows in runs of equal (or neighbouring) scores of the positive class, ascending."""

    runs: int
    matrix: object
    """Sparse `[2 · runs, rows]`: a run's negative rows, then its positive ones."""

    @classmethod
    def of(cls, truth: Floats, scores: Floats, most: int | None = None) -> _Ranking:
        from scipy.sparse import csr_matrix

        _, run, counts = np.unique(scores[:, 1], return_inverse=True, return_counts=True)
        runs = len(counts)
        if most is not None and runs > most:
            runs = most
            run = ((np.cumsum(counts) - counts) * most // len(truth))[run]
        rows = np.arange(len(truth))
        where = run + runs * (truth > 0)
        ones = np.ones(len(truth), np.float32)
        return cls(runs, csr_matrix((ones, (where, rows)), shape=(2 * runs, len(truth))))

    def counts(self, weights: Weights) -> tuple[Floats, Floats]:
        """Weight of the negative and of the positive rows, `[runs, weightings]` each."""
        found = np.asarray(self.matrix @ weights, np.float64)  # type: ignore[operator]
        return found[: self.runs], found[self.runs :]


def _ranked(formula: Callable[[Floats, Floats], Floats]) -> Callable[[Floats, Floats], Statistic]:
    """A metric of the order of the rows; `formula` takes the weights of negative and positive rows by run."""

    def prepare(truth: Floats, scores: Floats) -> Statistic:
        once = np.ones((len(truth), 1), np.float32)
        exact = float(formula(*_Ranking.of(truth, scores).counts(once))[0])
        ranking = _Ranking.of(truth, scores, _RANKS)
        shift = exact - formula(*ranking.counts(once))[0]
        return Statistic(exact, lambda weights: formula(*ranking.counts(weights)) + shift)

    return prepare


def _area(negative: Floats, positive: Floats) -> Floats:
    """Chance that a positive row scores above a negative one; ties count half (Mann and Whitney, 1947)."""
    below = np.cumsum(negative, axis=0) - negative
    pairs = positive.sum(axis=0) * negative.sum(axis=0)
    return _ratio((positive * (below + negative / 2)).sum(axis=0), pairs)


def _average_precision(negative: Floats, positive: Floats) -> Floats:
    """Mean of the precision at every threshold, weighted by the recall that it adds."""
    hits = np.cumsum(positive[::-1], axis=0)
    taken = hits + np.cumsum(negative[::-1], axis=0)
    precision = _ratio(hits, taken)
    return _ratio(np.nansum(positive[::-1] * precision, axis=0), positive.sum(axis=0))


def _ratio(above: Floats, below: Floats) -> Floats:
    """NaN where nothing is below."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _mean(values: Floats) -> Statistic:
    narrow = values.astype(np.float32)

    def weighted(weights: Weights) -> Floats:
        return _ratio(np.asarray(narrow @ weights, np.float64), weights.sum(axis=0, dtype=np.float64))

    return Statistic(float(values.mean()) if len(values) else float("nan"), weighted)


def _log_loss(truth: Floats, scores: Floats) -> Statistic:
    given = scores[np.arange(len(truth)), truth.astype(np.int64)]
    return _mean(-np.log(np.clip(given, _SMALLEST_SHARE, 1.0)))


def _accuracy(truth: Floats, scores: Floats) -> Statistic:
    return _mean((scores.argmax(axis=1) == truth).astype(np.float64))


def _brier(truth: Floats, scores: Floats) -> Statistic:
    return _mean((scores[:, 1] - truth) ** 2)


def _squared_error(truth: Floats, predictions: Floats) -> Statistic:
    return _mean((predictions - truth) ** 2)


def _absolute_error(truth: Floats, predictions: Floats) -> Statistic:
    return _mean(np.abs(predictions - truth))


def _r_squared(truth: Floats, predictions: Floats) -> Statistic:
    centred = truth - truth.mean() if len(truth) else truth
    parts = np.stack([(predictions - truth) ** 2, centred**2, centred]).astype(np.float32)

    def weighted(weights: Weights) -> Floats:
        wrong, square, plain = np.asarray(parts @ weights, np.float64)
        total = weights.sum(axis=0, dtype=np.float64)
        return 1 - _ratio(wrong, square - _ratio(plain**2, total))

    spread = float((centred**2).sum())
    value = 1 - float(((predictions - truth) ** 2).sum()) / spread if spread else float("nan")
    return Statistic(value, weighted)


AUC = Metric("auc", True, _ranked(_area))
AVERAGE_PRECISION = Metric("average_precision", True, _ranked(_average_precision))
LOG_LOSS = Metric("log_loss", False, _log_loss)
ACCURACY = Metric("accuracy", True, _accuracy)
BRIER = Metric("brier", False, _brier)
SQUARED_ERROR = Metric("mean_squared_error", False, _squared_error)
ABSOLUTE_ERROR = Metric("mean_absolute_error", False, _absolute_error)
R_SQUARED = Metric("r_squared", True, _r_squared)

METRICS_OF: Mapping[LabelKind, tuple[Metric, ...]] = {
    LabelKind.BINARY: (AUC, AVERAGE_PRECISION, LOG_LOSS, ACCURACY, BRIER),
    LabelKind.MULTICLASS: (LOG_LOSS, ACCURACY),
    LabelKind.REGRESSION: (SQUARED_ERROR, ABSOLUTE_ERROR, R_SQUARED),
}
"""What is measured; the first is what decides."""

PLAUSIBLE: Mapping[LabelKind, Metric] = {
    LabelKind.BINARY: AUC,
    LabelKind.MULTICLASS: ACCURACY,
    LabelKind.REGRESSION: R_SQUARED,
}
"""What `model_gate.too_good` is held against."""
