"""What the model owes to each raw column: what its loss grows by when the column is shuffled among the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gates.asking import Asked
from gates.evidence import Importance
from gates.metrics import METRICS_OF, Floats
from schemas.features import LabelKind

_REPEATS = 2
_SEED = 1
_MOST_COLUMNS = 60


def importances(
    kind: LabelKind, truth: Floats, asked: Asked, columns: Sequence[str]
) -> tuple[Importance, ...]:
    """Permutation importance (Breiman, "Random forests", 2001) of every column, the largest first.

    Of more than 60 columns only the first 60, as they come, are shuffled: the model answers all rows twice for each.

    Args:
      kind: of the label.
      truth: `[rows]` of the rows that are asked about.
      asked: the model and the rows.
      columns: those to shuffle.
    """
    metric = METRICS_OF[kind][0]
    sign = 1.0 if metric.is_higher_better else -1.0
    as_it_is = metric.prepare(truth, asked.plainly()).value
    random = np.random.default_rng(_SEED)
    orders = [random.permutation(len(truth)) for _ in range(_REPEATS)]
    found = []
    for column in columns[:_MOST_COLUMNS]:
        losses = [
            sign * (as_it_is - metric.prepare(truth, asked.shuffled(column, order)).value) for order in orders
        ]
        found.append(Importance(column, float(np.mean(losses)), min(losses), max(losses)))
    return tuple(sorted(found, key=lambda one: -one.loss))
