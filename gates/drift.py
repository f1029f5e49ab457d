"""Drift: how far a column's distribution has moved, beyond what chance explains.

The distances are TFDV's, made by `pipeline/distances.py`: L-infinity for text, Jensen-Shannon divergence (base 2) over
deciles for numbers. The divergence interpolates between deciles, so where many rows share a value it jumps between two
samples of one distribution, however large (to 0.2, on columns of the examples). It counts only where the deciles
themselves prove that the distributions differ. It sees no change from miles to kilometres, which the deciles do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from tensorflow_metadata.proto.v0 import statistics_pb2

from gates.settings import DriftSettings
from gates.verdict import Outcome, Verdict

Floats = npt.NDArray[np.float64]

L_INFINITY = "L-infinity"
JENSEN_SHANNON = "Jensen-Shannon"
PREVIOUS = "previous"
"""What train is compared with when it is not compared with validation or test."""

_ALPHA = 1e-4
_SKETCH_ERROR = 0.01
"""Largest error of the rank of TFDV's quantiles."""
_FEWEST_DECILES = 3
_AGREEING = 0.8
"""Share of the deciles that have to move in one direction: in a small sample one may fall on the other side."""


@dataclass(frozen=True)
class Deciles:
    """A numeric column of one split.

    Attributes:
      edges: the smallest value, the nine deciles, the largest value.
    """

    edges: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return self.edges[len(self.edges) // 2]

    def proven_distance(self, other: Deciles) -> float:
        """The Kolmogorov-Smirnov distance that the deciles prove; the true one is not smaller."""
        return max(_proven(self.edges, other.edges), _proven(other.edges, self.edges))

    def factor(self, other: Deciles) -> float:
        """How many times larger this column is than the other, by the median of the deciles' ratios.

        1 where the deciles do not agree on the direction.
        """
        ours, theirs = (np.array(one.edges[1:-1]) for one in (self, other))
        usable = ours * theirs > 0
        if usable.sum() < _FEWEST_DECILES:
            return 1.0
        ratios = np.log(ours[usable] / theirs[usable])
        middle = float(np.median(ratios))
        return math.exp(middle) if (ratios * middle > 0).mean() >= _AGREEING else 1.0

    def spread(self) -> Floats:
        """`[9]`: how fast the logarithm of the values' size grows with the rank, at each decile.

        Infinite where that has no meaning: beside 0, or where the sign changes.
        """
        inner = np.array(self.edges[1:-1])
        before, after = np.r_[inner[:1], inner[:-1]], np.r_[inner[1:], inner[-1:]]
        ranks = np.r_[1, np.full(len(inner) - 2, 2), 1] / (len(self.edges) - 1)
        usable = before * after > 0
        growth = np.full(len(inner), np.inf)
        growth[usable] = np.abs(np.log(after[usable] / before[usable])) / ranks[usable]
        return growth


def _proven(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest difference of ranks at one place: at least i of 10 of the one lie there, at most j of the other."""
    parts = len(one) - 1
    proven = max(
        (i - j for i in range(1, parts + 1) for j in range(parts) if one[i] < other[j] and i > j), default=0
    )
    return max(0.0, proven / parts - 2 * _SKETCH_ERROR)


def deciles(column: statistics_pb2.FeatureNameStatistics) -> Deciles | None:
    """The deciles in a column's statistics, if there are any."""
    if not column.HasField("num_stats"):
        return None
    for histogram in column.num_stats.histograms:
        if histogram.type == statistics_pb2.Histogram.QUANTILES and histogram.buckets:
            edges = [histogram.buckets[0].low_value, *(bucket.high_value for bucket in histogram.buckets)]
            return Deciles(tuple(edges)) if np.isfinite(edges).all() else None
    return None


@dataclass(frozen=True)
class Distance:
    """How far one column of some rows lies from the same column of others.

    Attributes:
      column: its name.
      measure: `L_INFINITY` or `JENSEN_SHANNON`.
      value: the distance.
      rows: with a value, on either side.
      values: how many different values, or ranges, the distance looks at.
      deciles: on either side; None for text.
    """

    column: str
    measure: str
    value: float
    rows: tuple[int, int]
    values: int
    deciles: tuple[Deciles, Deciles] | None = None

    @property
    def noise(self) -> float:
        """The distance that two samples of one distribution hardly ever exceed."""
        rows, others = self.rows
        if self.measure == L_INFINITY:  # Hoeffding (1963), for any of the values
            return math.sqrt(math.log(2 * self.values / _ALPHA) * (rows + others) / (2 * rows * others))
        # The divergence is asymptotically the two-sample chi-square statistic, scaled (Lin, 1991).
        critical = float(stats.chi2.ppf(1 - _ALPHA, max(1, self.values - 1)))
        return critical * (rows + others) / (8 * rows * others * math.log(2))

    @property
    def is_proven(self) -> bool:
        """Whether the deciles bear the distance out, beyond chance (Smirnov, 1948)."""
        if self.deciles is None:
            return True
        rows, others = self.rows
        noise = math.sqrt(math.log(2 / _ALPHA) * (rows + others) / (2 * rows * others))
        return self.deciles[0].proven_distance(self.deciles[1]) > noise

    @property
    def factor(self) -> float:
        """How many times larger the column is here than there, where the deciles agree on the direction."""
        return 1.0 if self.deciles is None else self.deciles[0].factor(self.deciles[1])

    @property
    def noise_factor(self) -> float:
        """The factor, or its inverse, that two samples of one distribution hardly ever exceed.

        By the asymptotic error of a quantile, and TFDV's own: the wider a column is spread, the less its deciles tell.
        """
        if self.deciles is None:
            return 1.0
        here, there = (one.spread() for one in self.deciles)
        ranks = np.arange(1, len(here) + 1) / (len(here) + 1)
        errors = np.sqrt(ranks * (1 - ranks)) * np.hypot(
            *(s / math.sqrt(n) for s, n in zip((here, there), self.rows, strict=True))
        )
        noise = float(stats.norm.isf(_ALPHA / 2)) * errors + _SKETCH_ERROR * (here + there)
        usable = noise[np.isfinite(noise)]
        return math.exp(float(np.median(usable))) if len(usable) else math.inf


def judge_drift(distances: Mapping[str, Sequence[Distance]], settings: DriftSettings) -> tuple[Verdict, ...]:
    """Judges how far validation and test lie from train, and train from the train split accepted before.

    Args:
      distances: by what is compared: the name of a split, or `PREVIOUS`.
      settings: bounds and severities.

    Returns:
      Two verdicts a column that drifts in shape and in scale, and one for each comparison in which none does.
    """
    return tuple(verdict for what, found in distances.items() for verdict in _compared(what, found, settings))


def _compared(what: str, found: Sequence[Distance], settings: DriftSettings) -> Iterator[Verdict]:
    severity = settings.from_previous if what == PREVIOUS else settings.between_splits
    judged = [one for one in found if min(one.rows) >= settings.min_rows]
    drifting = [
        verdict for one in judged for verdict in (_shape(what, one, settings), _scale(what, one, settings))
    ]
    failed = [verdict for verdict in drifting if verdict is not None]
    for name, figure, bound, words in failed:
        yield Verdict(name, Outcome(severity), figure, bound, words)
    if not failed:
        pair = "train and the data accepted before" if what == PREVIOUS else f"train and the {what} split"
        few = len(found) - len(judged)
        words = f"no column drifts between {pair}"
        if few:
            words += f"; {few} with fewer than data_gate.drift.min_rows {settings.min_rows:,} values are not judged"
        yield Verdict(f"drift {_where(what)}", Outcome.PASSED, f"0 of {len(judged)} columns", "none", words)


_Finding = tuple[str, str, str, str]


def bound_of(one: Distance, settings: DriftSettings) -> float:
    """The largest distance that a column may have."""
    by_measure = settings.categorical if one.measure == L_INFINITY else settings.numeric
    return settings.columns.get(one.column, by_measure)


def _shape(what: str, one: Distance, settings: DriftSettings) -> _Finding | None:
    is_text = one.measure == L_INFINITY
    bound = bound_of(one, settings)
    if one.value <= max(bound, one.noise) or not one.is_proven:
        return None
    key = "categorical" if is_text else "numeric"
    key = f"columns.{one.column}" if one.column in settings.columns else key
    words = f"column {one.column!r} {_moved(what)}: {one.measure} distance {one.value:.2f}"
    if is_text:
        words += ", the largest change of a value's share"
    words += f", more than data_gate.drift.{key} {bound:.2f}{_medians(one, what)}"
    words += ": if the world changed, retrain on newer rows and answer for it under overrides; if not, repair the data"
    return f"drift of {one.column} {_where(what)}", f"{one.value:.2f}", f"at most {bound:.2f}", words


def _scale(what: str, one: Distance, settings: DriftSettings) -> _Finding | None:
    factor = one.factor
    size = max(factor, 1 / factor)
    if size <= max(settings.max_factor, one.noise_factor):
        return None
    direction = "larger" if factor > 1 else "smaller"
    words = (
        f"column {one.column!r} {_moved(what)}: its deciles are {size:.2f} times {direction}, more than "
        f"data_gate.drift.max_factor {settings.max_factor:.2f}{_medians(one, what)}: if its unit has changed "
        "(a kilometre for a mile is 1.61), convert it back; if the world has, retrain on newer rows"
    )
    bound = f"at most {settings.max_factor:.2f}"
    return f"scale of {one.column} {_where(what)}", f"{size:.2f}", bound, words


def _where(what: str) -> str:
    return "since the data accepted before" if what == PREVIOUS else f"in {what}"


def _moved(what: str) -> str:
    if what == PREVIOUS:
        return "in train has drifted from the data accepted before"
    return f"in the {what} split has drifted from train"


def _medians(one: Distance, what: str) -> str:
    if one.deciles is None:
        return ""
    here, there = (f"{side.median:.4g}" for side in one.deciles)
    return f" (median {here}, {'before' if what == PREVIOUS else 'in train'} {there})"
