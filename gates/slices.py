"""Parts of the test split: none may be served much worse than the whole where it could be served better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from gates.comparison import compare
from gates.evidence import Estimate
from gates.intervals import Bootstrap
from gates.metrics import METRICS_OF, Floats, Metric, Statistic
from gates.settings import SliceSettings
from gates.verdict import Outcome, Verdict
from schemas.features import LabelKind

MISSING = "missing"

_MOST_VALUES = 50
"""A numeric column with more is cut into quarters."""
_QUARTERS = (0.25, 0.5, 0.75)
_MOST_SHOWN = 200


@dataclass(frozen=True)
class Slice:
    """Some rows: `origin = EWR`, or `origin = EWR, month = 2` where columns are crossed."""

    name: str
    chosen: npt.NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """How many."""
        return int(self.chosen.sum())


@dataclass(frozen=True)
class SliceFindings:
    """What was measured on the slices, and what follows."""

    estimates: tuple[Estimate, ...]
    verdicts: tuple[Verdict, ...]


def values_of(column: pd.Series) -> pd.Series:
    """A column as the text that names its slices: values, or quarters of a number with many; and what is missing."""
    if not pd.api.types.is_numeric_dtype(column):
        return column.astype(object).where(column.notna(), MISSING).astype(str)
    known = column.dropna().to_numpy(np.float64)
    if len(np.unique(known)) <= _MOST_VALUES:
        names = column.map("{:.12g}".format, "ignore").astype(object)
    else:
        edges = np.unique([known.min(), *np.quantile(known, _QUARTERS), known.max()])
        ranges = [f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)]
        names = pd.cut(column, edges, labels=ranges, include_lowest=True, ordered=False).astype(object)
    return names.where(column.notna(), MISSING)


def slices_by(columns: pd.DataFrame, by: Sequence[str]) -> Iterator[Slice]:
    """The slices by one column, or by several crossed; the largest first, at most some hundreds.

    Raises:
      KeyError: for a column that is not there.
    """
    texts = [name + " = " + values_of(columns[name]).astype(str) for name in by]
    names = texts[0]
    for text in texts[1:]:
        names = names + ", " + text
    for name in names.value_counts().index[:_MOST_SHOWN]:
        yield Slice(str(name), np.asarray(names == name))


def judge_slices(
    kind: LabelKind,
    truth: Floats,
    models: Mapping[str, Floats],
    slices: Sequence[Slice],
    settings: SliceSettings,
    bootstrap: Bootstrap,
) -> SliceFindings:
    """Holds every slice that is large enough against all rows.

    A part may be hard for everybody: whoever pays in cash leaves no trace of a tip. So a large gap is refused where
    another model shows that the part can be served better, and warned of elsewhere.

    Args:
      kind: of the label.
      truth: `[rows]`: index of the class, or the target.
      models: `[rows, classes]` probabilities, or `[rows]` predictions, by name; the first is judged.
      slices: of these rows.
      settings: the bounds.
      bootstrap: of these rows.
    """
    decisive = METRICS_OF[kind][0]
    (_, ours), *others = models.items()
    rivals = [(name, scores, decisive.prepare(truth, scores).value) for name, scores in others]
    whole = decisive.prepare(truth, ours)
    of_whole = whole.weighted(bootstrap.weights)
    estimates: list[Estimate] = []
    verdicts: list[Verdict] = []
    for one in slices:
        drawn = bootstrap.of(one.chosen)
        part = _Part(decisive, one, truth[one.chosen], ours[one.chosen], drawn)
        is_judged = one.rows >= settings.min_rows and np.isfinite(part.found.value)
        estimates += drawn.estimates(
            METRICS_OF[kind], part.truth, part.ours, "model", slice_name=one.name, is_judged=is_judged
        )
        if is_judged:
            gaps = bootstrap.interval(_gap(decisive, part.found.weighted(drawn.weights), of_whole))
            better = part.better_than_ours(rivals, settings.max_gap) if gaps[0] > settings.max_gap else ()
            verdicts.append(_judged(part, whole.value, gaps, better, settings))
    return SliceFindings(tuple(estimates), tuple(verdicts))


@dataclass(frozen=True)
class _Part:
    """The rows of a slice."""

    metric: Metric
    slice: Slice
    truth: Floats
    ours: Floats
    bootstrap: Bootstrap

    @cached_property
    def found(self) -> Statistic:
        return self.metric.prepare(self.truth, self.ours)

    def better_than_ours(
        self, others: Sequence[tuple[str, Floats, float]], max_gap: float
    ) -> tuple[str, ...]:
        """Which models serve this part better beyond the interval, with their figures.

        One whose own gap is as large shows nothing: the part is hard for it too.
        """
        found = (
            (
                name,
                whole,
                compare(self.metric, self.truth, self.ours, scores[self.slice.chosen], self.bootstrap),
            )
            for name, scores, whole in others
        )
        return tuple(
            f"{name} reaches {gain.theirs:.4g}"
            for name, whole, gain in found
            if gain.high < 0 and _gap(self.metric, np.array([gain.theirs]), np.array([whole]))[0] <= max_gap
        )


def _gap(metric: Metric, part: Floats, whole: Floats) -> Floats:
    """How much worse a part is: of the metric itself, or of a loss as a share."""
    return whole - part if metric.is_higher_better else (part - whole) / whole


def _judged(
    part: _Part, whole: float, gaps: tuple[float, float], better: Sequence[str], settings: SliceSettings
) -> Verdict:
    name, value, (low, high) = part.slice.name, part.found.value, gaps
    gap = float(_gap(part.metric, np.array([value]), np.array([whole]))[0])
    outcome = Outcome.PASSED
    words = (
        f"{part.metric.name} where {name} ({part.slice.rows:,} rows) is {value:.4g}, on all rows {whole:.4g}: "
        f"a gap of {gap:+.4g} (between {low:+.4g} and {high:+.4g})"
    )
    if low > settings.max_gap:
        words += f"; model_gate.slices.max_gap is {settings.max_gap:g}"
        if better:
            outcome = Outcome.REFUSED
            words += (
                f", and this part can be served better: {', '.join(better)} there; look at its rows and labels in the "
                "training split"
            )
        else:
            outcome = Outcome.WARNED
            words += ", but no other model serves this part better: it is hard"
    bound = f"at most {settings.max_gap:g} worse than {whole:.4g}, beyond the interval"
    return Verdict(f"slice {name}", outcome, f"{value:.4g}", bound, words)
