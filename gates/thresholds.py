"""Where to draw the line between the two classes, and what is right and wrong on either side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gates.evidence import Confusion, Curve
from gates.metrics import Floats
from gates.settings import CostSettings

_SHOWN_THRESHOLDS = 50
_POINTS = 200


def choose_threshold(truth: Floats, scores: Floats, costs: CostSettings) -> float:
    """The threshold of the positive class with the least mean cost; a row counts as positive from there on.

    Args:
      truth: `[rows]` of 0 and 1: of the validation split, so that the test split stays a test.
      scores: `[rows, 2]`.
      costs: of the two errors.
    """
    score = scores[:, 1]
    order = np.argsort(-score, kind="stable")
    ranked, is_positive = score[order], truth[order] > 0
    false_positives = np.concatenate([[0], np.cumsum(~is_positive)])
    misses = is_positive.sum() - np.concatenate([[0], np.cumsum(is_positive)])
    cost = costs.false_positive * false_positives + costs.false_negative * misses
    # Only between different scores can a line be drawn; the first and the last call nobody or everybody positive.
    is_line = np.concatenate([[True], np.diff(ranked) != 0, [True]])
    best = int(np.flatnonzero(is_line)[np.argmin(cost[is_line])])
    if best == 0:
        return float(np.nextafter(ranked[0], np.inf))
    if best == len(ranked):
        return float(ranked[-1])
    return float(ranked[best - 1] + ranked[best]) / 2


def confusion_at(truth: Floats, scores: Floats, threshold: float, costs: CostSettings) -> Confusion:
    """Counts right and wrong answers at a threshold, and their mean cost."""
    is_positive, is_called = truth > 0, scores[:, 1] >= threshold
    false_positives = int((is_called & ~is_positive).sum())
    false_negatives = int((~is_called & is_positive).sum())
    cost = costs.false_positive * false_positives + costs.false_negative * false_negatives
    return Confusion(
        threshold,
        int((is_called & is_positive).sum()),
        false_positives,
        int((~is_called & ~is_positive).sum()),
        false_negatives,
        cost / len(truth),
    )


def confusions(truth: Floats, scores: Floats, chosen: float, costs: CostSettings) -> tuple[Confusion, ...]:
    """Confusion at thresholds all over the scores, the chosen one among them, ascending."""
    spread = np.quantile(scores[:, 1], np.linspace(0, 1, _SHOWN_THRESHOLDS))
    return tuple(
        confusion_at(truth, scores, float(threshold), costs) for threshold in np.unique([*spread, chosen])
    )


def roc(subject: str, truth: Floats, scores: Floats) -> Curve:
    """False against true positive rate."""
    from sklearn.metrics import roc_curve

    false_rate, true_rate, _ = roc_curve(truth, scores[:, 1])
    return _thinned(subject, false_rate, true_rate)


def precision_recall(subject: str, truth: Floats, scores: Floats) -> Curve:
    """Recall against precision."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores[:, 1])
    return _thinned(subject, recall[::-1], precision[::-1])


def _thinned(subject: str, x: Floats, y: Floats) -> Curve:
    """At most some points, spread over x, with both ends."""
    if len(x) > _POINTS:
        places: npt.NDArray[np.int64] = np.searchsorted(x, np.linspace(x[0], x[-1], _POINTS - 1))
        kept = np.unique([*np.minimum(places, len(x) - 1), len(x) - 1])
        x, y = x[kept], y[kept]
    return Curve(subject, tuple(map(float, x)), tuple(map(float, y)))
