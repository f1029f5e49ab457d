"""What model may be pushed: better than what anybody gets without it, and no worse than the one that serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gates.baselines import Baseline
from gates.comparison import Difference, compare
from gates.intervals import Bootstrap
from gates.metrics import ACCURACY, AUC, METRICS_OF, PLAUSIBLE, Floats, Metric
from gates.settings import ModelGateSettings
from gates.verdict import Outcome, Verdict
from schemas.features import Label, LabelKind

AGAINST_CHAMPION = "against the champion"

_SAME = 1e-6
"""Scores that differ by no more are one score; of predictions, as a share of the largest."""


@dataclass(frozen=True)
class Contest:
    """Models and the rows on which they are compared.

    Attributes:
      label: what is predicted.
      truth: `[rows]`: index of the class, or the target.
      ours: the candidate's answers: `[rows, classes]` probabilities, or `[rows]` predictions.
      baselines: naive models on the same rows.
      champion: the serving model's answers on the same rows, if there is one that can answer.
      champion_fault: why the serving model cannot answer; empty where it can, or where there is none.
    """

    label: Label
    truth: Floats
    ours: Floats
    baselines: Sequence[Baseline] = ()
    champion: Floats | None = None
    champion_fault: str = ""

    @property
    def metric(self) -> Metric:
        """The one that decides."""
        return METRICS_OF[self.label.kind][0]


def judge_answers(contest: Contest) -> Verdict:
    """Refuses a model that gives no numbers; of such a one nothing else can be measured."""
    broken = int((~np.isfinite(contest.ours)).sum())
    rows = f"{len(contest.truth):,} test rows"
    words = f"the model answers {rows} with finite numbers"
    if broken:
        words = (
            f"the model answers {broken:,} times with NaN or infinity on {rows}: its weights or its preprocessing are "
            "broken; look for extreme values in the features and lower train.learning_rate"
        )
    return Verdict("finite answers", Outcome.of(not broken), f"{broken:,}", "0", words)


def judge_model(contest: Contest, settings: ModelGateSettings, bootstrap: Bootstrap) -> tuple[Verdict, ...]:
    """Judges a model whose answers are finite, by itself, against the naive models and against the champion.

    Args:
      contest: the models and the rows.
      settings: the bounds.
      bootstrap: of the rows.
    """
    return (
        _differing(contest),
        *_order_of_classes(contest, bootstrap),
        *_against_baselines(contest, settings, bootstrap),
        *_against_champion(contest, settings, bootstrap),
        *_plausible(contest, settings),
    )


def _differing(contest: Contest) -> Verdict:
    spread = float(np.ptp(contest.ours, axis=0).max())
    least = _SAME
    if contest.label.kind is LabelKind.REGRESSION:
        least *= max(float(np.abs(contest.ours).max()), np.finfo(np.float64).tiny)
    words = f"the answers to {len(contest.truth):,} test rows spread over {spread:.4g}"
    if spread <= least:
        words = (
            f"the model gives all {len(contest.truth):,} test rows the same answer: a constant has learned nothing; "
            "look at the features it gets and at train.learning_rate"
        )
    return Verdict(
        "answers differ between rows",
        Outcome.of(spread > least),
        f"{spread:.4g}",
        f"above {least:.1g}",
        words,
    )


def _order_of_classes(contest: Contest, bootstrap: Bootstrap) -> Iterator[Verdict]:
    if contest.label.kind is LabelKind.BINARY:
        yield _right_way_round(contest, bootstrap)
    elif contest.label.kind is LabelKind.MULTICLASS:
        yield _classes_in_place(contest, bootstrap)


def _right_way_round(contest: Contest, bootstrap: Bootstrap) -> Verdict:
    found = AUC.prepare(contest.truth, contest.ours)
    _, high = bootstrap.interval(found.weighted(bootstrap.weights))
    if not np.isfinite(high):
        return _unmeasured(contest)
    is_swapped = high < 0.5
    words = f"rows of {contest.label.classes[1]!r} get higher scores than the others"
    if is_swapped:
        words = (
            f"auc is {found.value:.4g}, worse than a coin: rows of {contest.label.classes[1]!r} get lower scores than "
            "the others, so the scores of the two classes are swapped; compare label.classes with the data"
        )
    elif found.value <= 0.5:
        words = f"auc is {found.value:.4g}, no worse than a coin beyond the interval"
    return Verdict("order of the classes", Outcome.of(not is_swapped), f"{found.value:.4g}", "0.5", words)


def _unmeasured(contest: Contest) -> Verdict:
    classes = len(np.unique(contest.truth))
    words = (
        f"auc cannot be measured: the {len(contest.truth):,} test rows hold {classes} of the "
        f"{len(contest.label.classes)} classes of {contest.label.name!r}; give the test split rows of each"
    )
    return Verdict("order of the classes", Outcome.REFUSED, "not measured", "0.5", words)


def _classes_in_place(contest: Contest, bootstrap: Bootstrap) -> Verdict:
    """Would other names for the scores be right more often?"""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import confusion_matrix

    classes = range(len(contest.label.classes))
    # The order is looked for on one half of the rows and judged on the other: the best of many is always good at home.
    is_judged = np.arange(len(contest.truth)) % 2 == 1
    answered = contest.ours[~is_judged].argmax(axis=1)
    counts = confusion_matrix(contest.truth[~is_judged], answered, labels=list(classes))
    _, best = linear_sum_assignment(counts, maximize=True)
    ours = contest.ours[is_judged]
    found = compare(ACCURACY, contest.truth[is_judged], ours[:, best], ours, bootstrap.of(is_judged))
    is_swapped = found.low > 0
    words = f"accuracy is {found.theirs:.4g}, and no other order of the classes is better beyond the interval"
    if is_swapped:
        names = contest.label.classes
        moved = ", ".join(
            f"{names[place]} from {names[best[place]]}" for place in classes if best[place] != place
        )
        words = (
            f"accuracy is {found.theirs:.4g}, and would be {found.ours:.4g} if the scores were taken in another order "
            f"({moved}): the scores of the classes are swapped; compare label.classes with the data"
        )
    return Verdict(
        "order of the classes",
        Outcome.of(not is_swapped),
        f"{found.theirs:.4g}",
        "best as it is, beyond chance",
        words,
    )


def _against_baselines(
    contest: Contest, settings: ModelGateSettings, bootstrap: Bootstrap
) -> Iterator[Verdict]:
    for baseline in contest.baselines:
        found = compare(contest.metric, contest.truth, contest.ours, baseline.scores, bootstrap)
        yield _against_baseline(contest.metric, baseline, found, baseline.name in settings.must_beat)


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
    return Verdict(
        f"against {baseline.name}", Outcome.of(has_won or not is_bound), f"{found.ours:.4g}", bound, words
    )


def _against_champion(
    contest: Contest, settings: ModelGateSettings, bootstrap: Bootstrap
) -> Iterator[Verdict]:
    if contest.champion_fault:
        words = (
            f"the champion cannot answer these rows: {contest.champion_fault}; so nobody knows whether the model is "
            "better than the one that serves. Push it with headworks run --rebaseline --owner NAME --reason TEXT"
        )
        yield Verdict(AGAINST_CHAMPION, Outcome.REFUSED, "no answer", "the champion answers", words)
    if contest.champion is None:
        return
    metric = contest.metric
    found = compare(metric, contest.truth, contest.ours, contest.champion, bootstrap)
    tolerance = settings.champion_tolerance * (1.0 if metric.is_higher_better else abs(found.theirs))
    is_worse = not found.high >= -tolerance  # NaN is worse: what cannot be compared is not as good
    words = f"{metric.name} is {found.ours:.4g}; the champion's on the same rows is {found.theirs:.4g}: {_gain(found)}"
    if is_worse:
        words += (
            f"; the model is worse than the one that serves, beyond the interval and the {tolerance:.2g} that another "
            "seed may cost (model_gate.champion_tolerance)"
        )
    bound = f"at most {tolerance:.2g} worse than {found.theirs:.4g}, beyond chance"
    yield Verdict(AGAINST_CHAMPION, Outcome.of(not is_worse), f"{found.ours:.4g}", bound, words)


def _gain(found: Difference) -> str:
    return f"a gain between {found.low:+.4g} and {found.high:+.4g} ({found.level:.0%} interval)"


def _plausible(contest: Contest, settings: ModelGateSettings) -> Iterator[Verdict]:
    if settings.too_good is None:
        return
    metric = PLAUSIBLE[contest.label.kind]
    value = metric.prepare(contest.truth, contest.ours).value
    is_leak = value > settings.too_good
    words = f"{metric.name} on the test split is {value:.4g}"
    if is_leak:
        words += (
            f", above model_gate.too_good {settings.too_good:g}: too good to be true; a feature probably knows the "
            "label. Look at the columns with the largest importance and at what is known when the model is asked"
        )
    yield Verdict(
        "too good to be true",
        Outcome.of(not is_leak),
        f"{value:.4g}",
        f"at most {settings.too_good:g}",
        words,
    )
