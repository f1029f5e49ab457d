"""What model may be pushed: better than what anybody gets without it, and no worse than the one that serves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gates.baselines import Baseline
from gates.comparison import AUC, LOG_LOSS, SQUARED_ERROR, Difference, Metric, compare
from gates.verdict import Verdict
from schemas.features import LabelKind

Floats = npt.NDArray[np.float64]

METRIC_OF: Mapping[LabelKind, Metric] = {
    LabelKind.BINARY: AUC,
    LabelKind.MULTICLASS: LOG_LOSS,
    LabelKind.REGRESSION: SQUARED_ERROR,
}


@dataclass(frozen=True)
class Contest:
    """Models and the rows on which they are compared.

    Attributes:
      kind: of the label.
      truth: `[rows]`: index of the class, or the target.
      ours: the candidate's answers: `[rows, classes]` probabilities, or `[rows]` predictions.
      baselines: naive models on the same rows.
      champion: the serving model's answers on the same rows, if there is one.
    """

    kind: LabelKind
    truth: Floats
    ours: Floats
    baselines: Sequence[Baseline] = ()
    champion: Floats | None = None


def judge_model(
    contest: Contest, must_beat: Collection[str], *, resamples: int, level: float
) -> tuple[Verdict, ...]:
    """Judges a model by its answers.

    Args:
      contest: the models and the rows.
      must_beat: names of the baselines that the model has to beat; the others are shown.
      resamples: of the bootstrap.
      level: of its interval, such as 0.95.
    """
    broken = int((~np.isfinite(contest.ours)).sum())
    if broken:
        words = f"the model answers {broken:,} times with NaN or infinity on {len(contest.truth):,} test rows"
        return (Verdict("finite answers", False, f"{broken:,}", "0", words),)
    return tuple(_comparisons(contest, must_beat, resamples, level))


def _comparisons(
    contest: Contest, must_beat: Collection[str], resamples: int, level: float
) -> Iterator[Verdict]:
    metric = METRIC_OF[contest.kind]
    for baseline in contest.baselines:
        found = compare(
            metric, contest.truth, contest.ours, baseline.scores, resamples=resamples, level=level
        )
        yield _against_baseline(metric, baseline, found, baseline.name in must_beat)
    if contest.champion is not None:
        found = compare(
            metric, contest.truth, contest.ours, contest.champion, resamples=resamples, level=level
        )
        yield _against_champion(metric, found)


def _against_baseline(metric: Metric, baseline: Baseline, found: Difference, is_bound: bool) -> Verdict:
    has_won = found.low > 0
    better = "better" if metric.is_higher_better else "lower"
    bound = f"{better} than {found.theirs:.4g}, beyond chance" if is_bound else "shown only"
    words = (
        f"{metric.name} is {found.ours:.4g}; {baseline.told} ({baseline.name}) reaches {found.theirs:.4g} on the "
        f"same rows: {_gain(found)}"
    )
    if is_bound and not has_won:
        words += "; the model must be better beyond the interval, or it is not worth serving"
    return Verdict(f"against {baseline.name}", has_won or not is_bound, f"{found.ours:.4g}", bound, words)


def _against_champion(metric: Metric, found: Difference) -> Verdict:
    is_worse = found.high < 0
    words = f"{metric.name} is {found.ours:.4g}; the champion's on the same rows is {found.theirs:.4g}: {_gain(found)}"
    if is_worse:
        words += "; the model is worse than the one that serves, beyond the interval"
    bound = f"not worse than {found.theirs:.4g}, beyond chance"
    return Verdict("against the champion", not is_worse, f"{found.ours:.4g}", bound, words)


def _gain(found: Difference) -> str:
    return f"a gain between {found.low:+.4g} and {found.high:+.4g} ({found.level:.0%} interval)"
