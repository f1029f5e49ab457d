"""Is one model better than another on the same rows, beyond what chance explains?

The interval comes from a paired Poisson bootstrap: every resample weighs each row by a draw from Poisson(1), the same
for both models, so that what they have in common cancels (Chamandy et al., "Estimating uncertainty for massive data
streams", 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Weighted = Callable[[Floats], float]
"""From the weights of the rows, `[rows]`, to the metric."""

_SMALLEST_SHARE = 1e-7


@dataclass(frozen=True)
class Metric:
    """A metric of scores against truth.

    Attributes:
      name: as in the configuration.
      is_higher_better: whether more is better.
      prepare: from truth `[rows]` and scores to the metric as a function of row weights.
    """

    name: str
    is_higher_better: bool
    prepare: Callable[[Floats, Floats], Weighted]


@dataclass(frozen=True)
class Difference:
    """How much better one model is than another.

    Attributes:
      ours: metric of the first model.
      theirs: metric of the second.
      low: lower end of the interval of the gain; a gain is positive where the first model is better.
      high: upper end.
      level: of the interval, such as 0.95.
    """

    ours: float
    theirs: float
    low: float
    high: float
    level: float


def compare(
    metric: Metric,
    truth: Floats,
    ours: Floats,
    theirs: Floats,
    *,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 1,
) -> Difference:
    """Compares two models on the same rows.

    Args:
      metric: what is compared.
      truth: `[rows]`: index of the class, or the target.
      ours: `[rows, classes]` probabilities, or `[rows]` predictions.
      theirs: like `ours`.
      resamples: of the bootstrap.
      level: of the interval.
      seed: of the bootstrap.
    """
    first, second = metric.prepare(truth, ours), metric.prepare(truth, theirs)
    random, rows = np.random.default_rng(seed), len(truth)
    sign = 1.0 if metric.is_higher_better else -1.0
    gains = []
    for _ in range(resamples):
        weights = random.poisson(1.0, rows).astype(np.float64)
        gains.append(sign * (first(weights) - second(weights)))
    tail = (1 - level) / 2
    low, high = np.nanquantile(gains, [tail, 1 - tail])
    once = np.ones(rows)
    return Difference(first(once), second(once), float(low), float(high), level)


def _auc(truth: Floats, scores: Floats) -> Weighted:
    """Chance that a positive row scores above a negative one; ties count half (Mann and Whitney, 1947)."""
    score = scores[:, 1]
    order = np.argsort(score, kind="stable")
    is_positive = truth[order] > 0
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # of runs of equal scores

    def area(weights: Floats) -> float:
        taken = weights[order]
        positive = np.add.reduceat(np.where(is_positive, taken, 0.0), starts)
        negative = np.add.reduceat(np.where(is_positive, 0.0, taken), starts)
        below = np.cumsum(negative) - negative
        pairs = positive.sum() * negative.sum()
        return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")

    return area


def _mean(values: Floats) -> Weighted:
    return lambda weights: float(values @ weights / weights.sum())


def _log_loss(truth: Floats, scores: Floats) -> Weighted:
    given = scores[np.arange(len(truth)), truth.astype(np.int64)]
    return _mean(-np.log(np.clip(given, _SMALLEST_SHARE, 1.0)))


def _squared_error(truth: Floats, predictions: Floats) -> Weighted:
    return _mean((predictions - truth) ** 2)


AUC = Metric("auc", True, _auc)
LOG_LOSS = Metric("log_loss", False, _log_loss)
SQUARED_ERROR = Metric("mean_squared_error", False, _squared_error)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (AUC, LOG_LOSS, SQUARED_ERROR)}
