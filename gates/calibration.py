"""Do probabilities mean what they say? Rows of similar score against the share of them that came true.

The expected calibration error is the mean distance between the two over ten bins of equally many rows (Naeini et al.,
"Obtaining well calibrated probabilities using Bayesian binning", 2015); with several classes, of the class that scores
highest (Guo et al., "On calibration of modern neural networks", 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gates.evidence import CalibrationBin
from gates.intervals import Bootstrap
from gates.metrics import Floats
from gates.verdict import Outcome, Verdict
from schemas.features import LabelKind

_BINS = 10
_SEED = 1


@dataclass(frozen=True)
class Calibration:
    """Bins by ascending score, and the expected calibration error with its interval; None for regression."""

    bins: tuple[CalibrationBin, ...]
    error: float | None = None
    low: float | None = None
    high: float | None = None


def calibrate(kind: LabelKind, truth: Floats, scores: Floats, bootstrap: Bootstrap) -> Calibration:
    """Compares scores with what came true.

    Noise alone makes the error of a perfect model larger than 0, and that of its resamples larger again. The interval
    is therefore the basic one, which takes off what the resamples add (Davison and Hinkley, "Bootstrap methods", 1997),
    and begins no higher than the error less what chance gives a perfect model with these scores.

    Args:
      kind: of the label.
      truth: `[rows]`: index of the class, or the target.
      scores: `[rows, classes]` probabilities, or `[rows]` predictions.
      bootstrap: of these rows.
    """
    predicted, observed = _claims(kind, truth, scores)
    bins = _bins(predicted)
    counts = np.bincount(bins)
    found = tuple(
        CalibrationBin(
            float(predicted[bins == place].mean()), float(observed[bins == place].mean()), int(rows)
        )
        for place, rows in enumerate(counts)
    )
    if kind is LabelKind.REGRESSION:
        return Calibration(found)
    error = sum(one.rows * abs(one.predicted - one.observed) for one in found) / len(truth)
    lowest, highest = bootstrap.interval(_errors(predicted - observed, bins, bootstrap))
    low = min(2 * error - highest, error - _by_chance(predicted, bins, bootstrap))
    return Calibration(found, error, max(0.0, low), max(error, 2 * error - lowest))


def judge_calibration(found: Calibration, bound: float | None) -> Iterator[Verdict]:
    """Refuses only where the whole interval is above the bound; without a bound the error is shown."""
    if found.error is None or found.low is None or found.high is None:
        return
    figure = f"{found.error:.4f}"
    words = (
        f"the expected calibration error is {figure} (between {found.low:.4f} and {found.high:.4f}): scores are "
        f"that far from the share of rows that come true, on average"
    )
    is_off = bound is not None and found.low > bound
    if is_off:
        words += (
            f"; model_gate.max_calibration_error is {bound:g}: do not take these scores for probabilities; "
            "less train.label_smoothing or more regularisation may help"
        )
    limit = "shown only" if bound is None else f"at most {bound:g}, beyond the interval"
    yield Verdict("calibration error", Outcome.of(not is_off), figure, limit, words)


def _claims(kind: LabelKind, truth: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """What was claimed of each row, and what came true."""
    match kind:
        case LabelKind.BINARY:
            return scores[:, 1], truth
        case LabelKind.MULTICLASS:
            return scores.max(axis=1), (scores.argmax(axis=1) == truth).astype(np.float64)
        case LabelKind.REGRESSION:
            return scores, truth


def _bins(predicted: Floats) -> npt.NDArray[np.int64]:
    """`[rows]`: the bin of each row, of equally many rows but for ties, which stay together."""
    edges = np.quantile(predicted, np.linspace(0, 1, _BINS + 1)[1:-1])
    _, bins = np.unique(np.searchsorted(edges, predicted, side="right"), return_inverse=True)
    return np.asarray(bins, np.int64)


def _errors(differences: Floats, bins: npt.NDArray[np.int64], bootstrap: Bootstrap) -> Floats:
    """The error of every resample."""
    from scipy.sparse import csr_matrix

    rows = np.arange(len(differences))
    by_bin = csr_matrix(
        (differences.astype(np.float32), (bins, rows)), shape=(bins.max() + 1, len(differences))
    )
    total = bootstrap.weights.sum(axis=0, dtype=np.float64)
    return np.asarray(np.abs(by_bin @ bootstrap.weights).sum(axis=0) / total, np.float64)


def _by_chance(predicted: Floats, bins: npt.NDArray[np.int64], bootstrap: Bootstrap) -> float:
    """The largest error, at the interval's level, of a model whose scores are exactly right."""
    random = np.random.default_rng(_SEED)
    errors = [
        np.abs(np.bincount(bins, (random.random(len(predicted)) < predicted) - predicted)).sum()
        for _ in range(bootstrap.weights.shape[1])
    ]
    _, highest = bootstrap.interval(np.asarray(errors) / len(predicted))
    return highest
