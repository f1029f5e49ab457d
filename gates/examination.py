"""Everything that the model gate measures and judges on the rows of the test split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gates.asking import Asked, as_text
from gates.behaviour import judge_behaviour
from gates.calibration import calibrate, judge_calibration
from gates.evidence import Estimate, Gap, ModelEvidence, Residuals, WrongRow
from gates.fairness import Decisions, judge_fairness
from gates.importance import importances
from gates.intervals import Bootstrap
from gates.metrics import METRICS_OF, Floats
from gates.model import Contest, judge_answers, judge_model
from gates.residuals import Answered, residuals
from gates.settings import ModelGateSettings
from gates.slices import judge_slices, slices_by
from gates.thresholds import choose_threshold, confusions, precision_recall, roc
from gates.verdict import Outcome, Verdict
from schemas.features import FeatureSet, Label, LabelKind

_SHOWN_WRONG = 20
_DRAWN_BASELINE = "linear"


@dataclass(frozen=True)
class Validation:
    """Truth and the model's answers on the validation split, where its threshold is chosen.

    Attributes:
      truth: `[rows]`: index of the class, or the target.
      answers: `[rows, classes]` probabilities, or `[rows]` predictions.
      columns: the raw rows, whose residuals the test rows' are held against; None where they were not read.
    """

    truth: Floats
    answers: Floats
    columns: pd.DataFrame | None = None


@dataclass(frozen=True)
class Subject:
    """A model to be examined.

    Attributes:
      contest: its answers to the test rows, and those of the models it has to beat.
      columns: the raw test rows.
      validation: its answers to another split.
      asked: the model with some of the test rows.
      asked_truth: of those rows.
      features: what it reads.
      time: the column that orders the rows, if there is one.
    """

    contest: Contest
    columns: pd.DataFrame
    validation: Validation
    asked: Asked
    asked_truth: Floats
    features: FeatureSet
    time: str | None = None


@dataclass(frozen=True)
class Examination:
    """What follows, and what was measured; None where the model gave no numbers to measure."""

    verdicts: tuple[Verdict, ...]
    evidence: ModelEvidence | None


def examine(
    subject: Subject, settings: ModelGateSettings, slices: Sequence[Sequence[str]], resamples: Bootstrap
) -> Examination:
    """Judges a model by everything but the Evaluator's bounds.

    Args:
      subject: the model.
      settings: the bounds.
      slices: columns to slice the rows by, crossed where there are several.
      resamples: of the test rows.
    """
    contest = subject.contest
    finite = judge_answers(contest)
    broken = _unfinished(subject.validation)
    if not finite.passed or broken is not None:
        return Examination((finite, *(() if broken is None else (broken,))), None)
    label, truth, ours = contest.label, contest.truth, contest.ours
    # By the label, or by a column without any value, there is nothing to slice.
    able = [by for by in slices if set(by) <= set(subject.columns)]
    parts = [part for by in able for part in slices_by(subject.columns, by)]
    of_slices = judge_slices(label.kind, truth, _models(contest), parts, settings.slices, resamples)
    calibration = calibrate(label.kind, truth, ours, resamples)
    threshold = _threshold(subject, settings)
    fairness = _fairness(subject, settings, threshold, resamples)
    behaviour = [judge_behaviour(test, label, subject.asked) for test in settings.behaviour]
    verdicts = (
        finite,
        *judge_model(contest, settings, resamples),
        *judge_calibration(calibration, settings.max_calibration_error),
        *of_slices.verdicts,
        *(verdict for _, verdict in fairness),
        *(found.verdict for found in behaviour),
    )
    evidence = ModelEvidence(
        kind=label.kind.value,
        classes=label.classes,
        rows=len(truth),
        estimates=(*_estimates(contest, resamples), *of_slices.estimates),
        roc=tuple(roc(name, truth, scores) for name, scores in _drawn(contest)),
        precision_recall=tuple(precision_recall(name, truth, scores) for name, scores in _drawn(contest)),
        calibration=calibration.bins,
        calibration_error=calibration.error,
        confusion=() if threshold is None else confusions(truth, ours, threshold, settings.costs),
        threshold=threshold,
        confusion_matrix=_confusion_matrix(contest),
        importance=importances(
            label.kind, subject.asked_truth, subject.asked, [feature.name for feature in subject.features]
        ),
        wrong=tuple(_wrong(contest, subject.columns)),
        behaviour=tuple(found.result for found in behaviour),
        fairness=tuple(gap for gap, _ in fairness),
        residuals=_residuals(subject, settings.level),
    )
    return Examination(verdicts, evidence)


def _unfinished(validation: Validation) -> Verdict | None:
    """A refusal where the threshold cannot be chosen, on which other checks build."""
    broken = int((~np.isfinite(validation.answers)).sum())
    if not broken:
        return None
    words = (
        f"the model answers {broken:,} times with NaN or infinity on {len(validation.truth):,} validation rows: its "
        "weights or its preprocessing are broken; look for extreme values in the features"
    )
    return Verdict("finite answers on validation", Outcome.REFUSED, f"{broken:,}", "0", words)


def _residuals(subject: Subject, level: float) -> Residuals:
    contest, before = subject.contest, subject.validation
    earlier = None
    if before.columns is not None:
        earlier = Answered("validation", before.columns, before.truth, before.answers)
    return residuals(
        contest.label,
        Answered("test", subject.columns, contest.truth, contest.ours),
        earlier,
        [feature.name for feature in subject.features],
        subject.time,
        level,
    )


def _models(contest: Contest) -> Mapping[str, Floats]:
    """Answers by model, the candidate's first."""
    champion = {} if contest.champion is None else {"champion": contest.champion}
    return {"model": contest.ours, **champion, **{one.name: one.scores for one in contest.baselines}}


def _estimates(contest: Contest, resamples: Bootstrap) -> Iterator[Estimate]:
    metrics = METRICS_OF[contest.label.kind]
    for subject, scores in _models(contest).items():
        yield from resamples.estimates(metrics, contest.truth, scores, subject)


def _drawn(contest: Contest) -> list[tuple[str, Floats]]:
    """The models whose curves are drawn; a curve needs both classes."""
    if contest.label.kind is not LabelKind.BINARY or len(np.unique(contest.truth)) < 2:
        return []
    wanted = ("model", "champion", _DRAWN_BASELINE)
    return [(name, scores) for name, scores in _models(contest).items() if name in wanted]


def _threshold(subject: Subject, settings: ModelGateSettings) -> float | None:
    found = subject.validation
    if subject.contest.label.kind is not LabelKind.BINARY:
        return None
    return choose_threshold(found.truth, found.answers, settings.costs)


def _fairness(
    subject: Subject, settings: ModelGateSettings, threshold: float | None, resamples: Bootstrap
) -> list[tuple[Gap, Verdict]]:
    if threshold is None:
        return []
    decisions = Decisions(subject.contest.truth > 0, subject.contest.ours[:, 1] >= threshold)
    return [
        judge_fairness(
            one,
            subject.columns.get(one.column, pd.Series([None] * len(subject.columns))),
            decisions,
            settings.slices.min_rows,
            resamples,
        )
        for one in settings.fairness
    ]


def _confusion_matrix(contest: Contest) -> tuple[tuple[int, ...], ...]:
    if contest.label.kind is not LabelKind.MULTICLASS:
        return ()
    from sklearn.metrics import confusion_matrix

    labels = range(len(contest.label.classes))
    found = confusion_matrix(contest.truth, contest.ours.argmax(axis=1), labels=list(labels))
    return tuple(tuple(int(count) for count in row) for row in found)


def _wrong(contest: Contest, columns: pd.DataFrame) -> Iterator[WrongRow]:
    """The rows whose true class got least, or whose error is largest."""
    label, truth, ours = contest.label, contest.truth, contest.ours
    if label.kind is LabelKind.REGRESSION:
        how_wrong = np.abs(ours - truth)
    else:
        given = ours[np.arange(len(truth)), truth.astype(np.int64)]
        how_wrong = np.where(ours.argmax(axis=1) == truth, 0.0, 1 - given)
    for place in np.argsort(-how_wrong, kind="stable")[:_SHOWN_WRONG]:
        if how_wrong[place] > 0:
            values = as_text(columns.iloc[int(place)].to_dict())
            yield WrongRow(values, *_said(label, float(truth[place]), ours[place]))


def _said(label: Label, truth: float, answer: Floats) -> tuple[str, str, float]:
    """The truth, the answer, and the answer's score (the prediction itself for regression)."""
    if label.kind is LabelKind.REGRESSION:
        return f"{truth:g}", f"{float(answer):g}", float(answer)
    best = int(answer.argmax())
    return label.classes[int(truth)], label.classes[best], float(answer[best])
