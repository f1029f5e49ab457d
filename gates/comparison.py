"""Is one model better than another on the same rows, beyond what the choice of rows explains?"""

from __future__ import annotations

from dataclasses import dataclass

from gates.intervals import Bootstrap
from gates.metrics import Floats, Metric


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


def compare(metric: Metric, truth: Floats, ours: Floats, theirs: Floats, bootstrap: Bootstrap) -> Difference:
    """Compares two models on the same rows by a paired bootstrap.

    Args:
      metric: what is compared.
      truth: `[rows]`: index of the class, or the target.
      ours: `[rows, classes]` probabilities, or `[rows]` predictions.
      theirs: like `ours`.
      bootstrap: of these rows.
    """
    first, second = metric.prepare(truth, ours), metric.prepare(truth, theirs)
    sign = 1.0 if metric.is_higher_better else -1.0
    gains = sign * (first.weighted(bootstrap.weights) - second.weighted(bootstrap.weights))
    low, high = bootstrap.interval(gains)
    return Difference(first.value, second.value, low, high, bootstrap.level)
