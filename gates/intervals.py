"""Intervals by the Poisson bootstrap: every resample weighs each row by a draw from Poisson(1).

The weights are the same for whatever is measured on the rows, so that what two models, or a slice and the whole, have
in common cancels (Chamandy et al., "Estimating uncertainty for massive data streams", 2012).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gates.evidence import Estimate
from gates.metrics import Floats, Metric, Weights


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of some rows.

    Attributes:
      weights: `[rows, resamples]`.
      level: of the intervals, such as 0.95.
    """

    weights: Weights
    level: float

    @classmethod
    def draw(cls, rows: int, resamples: int, level: float, seed: int = 1) -> Bootstrap:
        """Draws the weights; the same arguments give the same."""
        random = np.random.default_rng(seed)
        weights = np.empty((rows, resamples), np.float32)
        for start in range(0, rows, 10_000):  # NumPy draws integers of eight bytes
            part = weights[start : start + 10_000]
            part[:] = random.poisson(1.0, part.shape)
        return cls(weights, level)

    def of(self, chosen: npt.NDArray[np.bool_]) -> Bootstrap:
        """The same resamples of some of the rows; `chosen` is `[rows]`."""
        return Bootstrap(self.weights[chosen], self.level)

    def interval(self, resampled: Floats) -> tuple[float, float]:
        """Ends of the percentile interval; NaN where no resample is defined."""
        if np.isnan(resampled).all():
            return float("nan"), float("nan")
        tail = (1 - self.level) / 2
        low, high = np.nanquantile(resampled, [tail, 1 - tail])
        return float(low), float(high)

    def estimates(
        self,
        metrics: Sequence[Metric],
        truth: Floats,
        scores: Floats,
        subject: str,
        *,
        slice_name: str = "",
        is_judged: bool = True,
    ) -> Iterator[Estimate]:
        """Metrics with their intervals; none that is not defined on these rows, such as an AUC of one class."""
        for metric in metrics:
            found = metric.prepare(truth, scores)
            low, high = self.interval(found.weighted(self.weights))
            if np.isfinite([found.value, low, high]).all():
                yield Estimate(
                    subject, metric.name, found.value, low, high, len(truth), slice_name, is_judged
                )
