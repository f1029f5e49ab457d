"""What a model must do whatever its metrics are: columns that must not matter, directions, rows it must get right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gates.asking import Asked, Value, as_text, decisive
from gates.evidence import BehaviourResult
from gates.metrics import Floats
from gates.settings import BehaviourTest, Direction, Invariance, MinimumFunctionality, NamedRow
from gates.verdict import Outcome, Verdict
from schemas.features import Label, LabelKind

_SHOWN = 10
_SEED = 1
_NOTHING = 1e-6
"""A mean change this small is a matter of rounding."""
_Z = 1.96


@dataclass(frozen=True)
class Behaved:
    """What a test found, and what follows."""

    result: BehaviourResult
    verdict: Verdict


def judge_behaviour(test: BehaviourTest, label: Label, asked: Asked) -> Behaved:
    """Runs one test.

    Args:
      test: as configured and checked.
      label: what is predicted.
      asked: the model, and the rows that invariance and direction are tested on.
    """
    match test:
        case Invariance():
            return _invariance(test, label, asked)
        case Direction():
            return _direction(test, label, asked)
        case MinimumFunctionality():
            return _rows(test, label, asked)


def _invariance(test: Invariance, label: Label, asked: Asked) -> Behaved:
    order = np.random.default_rng(_SEED).permutation(len(asked.columns))
    before, after = asked.plainly(), asked.shuffled(test.column, order)
    change = np.abs(after - before)
    largest = change if change.ndim == 1 else change.max(axis=1)
    wrong = largest > test.max_change
    figure = f"{largest.max(initial=0.0):.3g}"
    given = asked.columns[test.column].iloc[order] if test.column in asked.columns else None
    failing = _failing(
        asked.columns, largest, wrong, _told(label, before, after), None if given is None else given.tolist()
    )
    words = f"shuffling {test.column} among {len(order):,} rows changes an answer by at most {figure}"
    if failing:
        words += (
            f"; {test.max_change:g} is allowed, and {int(wrong.sum()):,} rows change by more: the model reads "
            f"{test.column}, which must not matter; put it under features.exclude"
        )
    return _behaved(test, not failing, figure, f"at most {test.max_change:g}", words, failing)


def _direction(test: Direction, label: Label, asked: Asked) -> Behaved:
    nothing = pd.Series([None] * len(asked.columns))
    column = asked.columns.get(test.column, nothing)
    changed: list[Value]
    if test.add is None:
        changed, told = [test.set] * len(column), f"{test.column} = {test.set}"
    else:
        changed = [None if pd.isna(value) else value + test.add for value in column]
        told = f"{test.add:+g} to {test.column}"
    before, after = asked.plainly(), asked.replaced(test.column, changed)
    change = decisive(label.kind, after) - decisive(label.kind, before)
    mean, margin = float(change.mean()), _Z * float(change.std()) / max(1.0, np.sqrt(len(change)))
    sign = 1.0 if test.expect in ("increase", "not_decrease") else -1.0
    if test.expect in ("increase", "decrease"):
        has_passed = sign * mean - margin > _NOTHING
    else:
        has_passed = sign * mean + margin >= -_NOTHING
    against = np.maximum(0.0, -sign * change)
    failing = (
        ()
        if has_passed
        else _failing(asked.columns, against, against > 0, _told(label, before, after), changed)
    )
    what = "the prediction" if label.kind is LabelKind.REGRESSION else f"the score of {label.classes[-1]!r}"
    must = test.expect.replace("_", " ")
    words = f"{told} changes {what} by {mean:+.4g} ± {margin:.2g} on average over {len(change):,} rows"
    if not has_passed:
        words += f"; it must {must}: the model has learned this the wrong way round, or not at all"
    return _behaved(test, has_passed, f"{mean:+.4g}", must, words, failing)


def _rows(test: MinimumFunctionality, label: Label, asked: Asked) -> Behaved:
    answers = asked.of([row.values for row in test.rows])
    scores = decisive(label.kind, answers)
    failing = []
    for row, answer, score in zip(test.rows, answers, scores, strict=True):
        if fault := _fault(row, answer, float(score), label):
            failing.append({**as_text(row.values), "fault": fault})
    right = len(test.rows) - len(failing)
    words = f"{right} of {len(test.rows)} named rows are answered as they must be"
    if failing:
        words += f"; the first that is not: {failing[0]['fault']}"
    figure = f"{right} of {len(test.rows)}"
    return _behaved(test, not failing, figure, "all", words, tuple(failing[:_SHOWN]))


def _fault(row: NamedRow, answer: Floats, score: float, label: Label) -> str:
    """What is wrong with an answer; empty where nothing is."""
    faults = []
    if row.expect is not None:
        said = label.classes[int(answer.argmax())]
        if said != row.expect:
            faults.append(f"says {said} with {answer.max():.3g}, must say {row.expect}")
    if row.min is not None and not score >= row.min:
        faults.append(f"gives {score:.4g}, must give at least {row.min:g}")
    if row.max is not None and not score <= row.max:
        faults.append(f"gives {score:.4g}, must give at most {row.max:g}")
    return "; ".join(faults)


def _told(label: Label, before: Floats, after: Floats) -> list[dict[str, str]]:
    pairs = zip(decisive(label.kind, before), decisive(label.kind, after), strict=True)
    return [{"before": f"{old:.4g}", "after": f"{new:.4g}"} for old, new in pairs]


def _failing(
    columns: pd.DataFrame,
    how_wrong: Floats,
    wrong: npt.NDArray[np.bool_],
    told: Sequence[Mapping[str, str]],
    changed: Sequence[Any] | None,
) -> tuple[dict[str, str], ...]:
    """The rows that are most wrong, as they were, with the value they got and both answers."""
    worst = np.argsort(-how_wrong, kind="stable")[: min(_SHOWN, int(wrong.sum()))]
    return tuple(
        {
            **as_text(columns.iloc[place].to_dict()),
            **({} if changed is None else as_text({"changed to": changed[place]})),
            **told[place],
        }
        for place in worst
    )


def _behaved(
    test: BehaviourTest,
    has_passed: bool,
    figure: str,
    bound: str,
    words: str,
    failing: tuple[Mapping[str, str], ...],
) -> Behaved:
    result = BehaviourResult(test.name, test.kind, has_passed, figure, failing)
    verdict = Verdict(f"behaviour {test.name}", Outcome.of(has_passed), figure, bound, words)
    return Behaved(result, replace(verdict, reason=f"{test.name}: {words}"))
