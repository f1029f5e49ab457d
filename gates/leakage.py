"""Leaks: columns that know the label, rows that stand twice, splits that are out of order.

A column is refused where a model owes it an implausibly good score: in an easy table many columns are good, a leak
stands alone.

Rows are compared by 64-bit hashes of their values, as `pipeline/table_scan.py` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gates.baselines import Rows
from gates.settings import LeakageSettings
from gates.verdict import Outcome, Verdict
from schemas.features import LabelKind

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_SEED = 1
_FOLDS = 5
_BINS = 64
_PRIOR_ROWS = 10.0
"""Rows of the overall mean that a group's own mean is mixed with."""
_FEWEST_ROWS = 500
_FEWEST_OF_CLASS = 30
_MOST_CATEGORIES = 254
_MOST_JUDGED_ROWS = 10_000
_SHOWN_VALUES = 4
_MOST_LEAKS = 4
_FEWEST_COLUMNS = 3
"""Of fewer, a leak and a good column cannot be told apart: nothing else says how well the label can be known."""
_MOST_MEASURED = 30
"""Columns whose gain is measured: the best alone. Each costs an answer of the quick model for all judged rows."""
_PERFECT = 0.999
"""A column that says a whole label so well is the label, whatever the others can do."""
_COPIES = (2, 3, 4)
"""How often a batch that was loaded again may stand."""
_DEVIATIONS = 4.0
"""By how many standard deviations a count may exceed what is expected of it."""
_UNSEEN = 3
"""Of a count that is none, no more than this is likely to be expected (the rule of three)."""
_TRAIN = "train"
_ANY_LEAK = "leak of the label"


@dataclass(frozen=True)
class Target:
    """What is predicted: the kind of the label and its classes, none for a number."""

    kind: LabelKind
    classes: tuple[str, ...]

    @property
    def is_number(self) -> bool:
        """Whether a number is predicted, and not a class."""
        return self.kind is LabelKind.REGRESSION

    @property
    def measure(self) -> str:
        """What a score is called."""
        return "R squared" if self.is_number else "AUC"

    def bound(self, settings: LeakageSettings) -> float:
        """The score from which on a column is suspected."""
        return settings.max_r_squared if self.is_number else settings.max_auc

    def bound_key(self) -> str:
        """Name of the setting behind `bound`."""
        return f"data_gate.leakage.{'max_r_squared' if self.is_number else 'max_auc'}"

    @property
    def scored(self) -> Sequence[int]:
        """Indices of what is scored: of each class, of two the second, of numbers 0."""
        if self.is_number:
            return [0]
        return range(len(self.classes)) if len(self.classes) > 2 else [1]

    def parts(self, truth: Floats) -> list[tuple[int, Floats]]:
        """What is scored: the numbers, or for each class that has enough rows its index and who belongs to it."""
        if self.is_number:
            return [(0, truth)]
        found = [(index, (truth == index).astype(np.float64)) for index in self.scored]
        return [(index, one) for index, one in found if min(one.sum(), (1 - one).sum()) >= _FEWEST_OF_CLASS]

    def score(self, truth: Floats, answers: Floats) -> float:
        """How well answers say one of `parts`; chance where only one class is among them."""
        from sklearn.metrics import r2_score, roc_auc_score

        if self.is_number:
            return float(r2_score(truth, answers))
        return float(roc_auc_score(truth, answers)) if 0 < truth.sum() < len(truth) else 0.5


@dataclass(frozen=True)
class ColumnFindings:
    """What columns say of the label: scores alone, and what all together owe to each, where measured."""

    verdicts: tuple[Verdict, ...]
    alone: Mapping[str, float]
    gain: Mapping[str, float]


def judge_columns(target: Target, rows: Rows, settings: LeakageSettings) -> ColumnFindings:
    """Looks for columns that know the label.

    Where a quick model of all columns is implausibly good, the column it owes most to is taken away, and again, until
    the score falls off a cliff: what was taken away and brings the score back by itself is refused. Two leaks that
    stand in for each other are found that way, and many columns that are all good are not. Of fewer than three
    columns only one that practically is the label is refused. In a wide table only the best columns alone are searched.

    Args:
      target: what is predicted.
      rows: of train; text columns are pandas categories, as are numbers that are names.
      settings: the bounds.

    Returns:
      A verdict for every column that is refused, or one for all of them; a warning where nothing can be judged.
    """
    from threadpoolctl import threadpool_limits

    if why := _why_not(target, rows):
        return ColumnFindings((not_judged(why),), {}, {})
    columns = [str(name) for name in rows.columns]
    alone = {name: _alone(target, _groups(rows.columns[name]), rows.truth) for name in columns}
    model = _QuickModel(target, rows)
    # The threads of OpenMP wait for each other by spinning: beside any other work, one is many times faster.
    with threadpool_limits(1):
        gain, leaks = _peel(target, model, alone, settings)
    perfect = [name for name in columns if alone[name] >= _PERFECT and not _is_one_of_many(target)]
    refused = tuple(
        _refused(target, name, alone[name], leaks.get(name), _told(target, rows, name), settings)
        for name in dict.fromkeys([*perfect, *leaks])
    )
    return ColumnFindings(refused or (_clean(target, rows, alone, settings),), alone, gain)


def _why_not(target: Target, rows: Rows) -> str:
    """Why columns cannot be judged; empty where they can."""
    if rows.columns.empty:
        return "there is no column but text"
    if len(rows.truth) < _FEWEST_ROWS:
        return f"train has {len(rows.truth):,} rows, and fewer than {_FEWEST_ROWS:,} show no leak"
    if target.parts(rows.truth):
        return ""
    counts = {name: int((rows.truth == index).sum()) for index, name in enumerate(target.classes)}
    rarest = min(counts, key=lambda name: counts[name])
    return (
        f"of the {len(rows.truth):,} rows of train that are looked at {counts[rarest]:,} are of class {rarest!r}, and "
        f"fewer than {_FEWEST_OF_CLASS} show no leak; raise data_gate.leakage.most_rows if train has more of them"
    )


def not_judged(why: str) -> Verdict:
    """What is said where leaks of the label were not looked for."""
    words = f"whether a column gives the label away is not judged, because {why}"
    return Verdict(_ANY_LEAK, Outcome.WARNED, "not judged", "a verdict", words)


def _is_one_of_many(target: Target) -> bool:
    """Of several classes one may well be told by one column alone; a label as a whole may not."""
    return len(target.classes) > 2


@dataclass(frozen=True)
class _Scores:
    """What quick models score with a column and without it, and without the other columns that were taken away."""

    with_it: float
    without: float


def _peel(
    target: Target, model: _QuickModel, alone: Mapping[str, float], settings: LeakageSettings
) -> tuple[dict[str, float], dict[str, _Scores]]:
    """What shuffling each of the best columns costs, and the columns that are leaks."""
    left, taken = sorted(alone, key=lambda name: -alone[name]), list[str]()
    # What most columns say is no leak.
    most = max(1, min(_MOST_LEAKS, len(left) // 3)) if len(left) >= _FEWEST_COLUMNS else 0
    fitted = model.fit(left)
    first_gain = fitted.gains(left[:_MOST_MEASURED])
    while len(taken) < most and (fitted.scores > target.bound(settings)).any():
        before = fitted.scores
        gain = fitted.gains(left[:_MOST_MEASURED]) if taken else first_gain
        worst = max(gain, key=lambda name: gain[name])
        taken.append(worst)
        left.remove(worst)
        fitted = model.fit(left)
        cliff = (before > target.bound(settings)) & (before - fitted.scores > settings.max_gain)
        if cliff.any():
            part = int(np.argmax(before - fitted.scores))
            return first_gain, _leaks(model, left, taken, fitted.scores, part, settings)
    return first_gain, {}


def _leaks(
    model: _QuickModel,
    left: Sequence[str],
    taken: Sequence[str],
    scores: Floats,
    part: int,
    settings: LeakageSettings,
) -> dict[str, _Scores]:
    """Of the columns that were taken away those that, put back, bring the score back."""
    found = {
        name: _Scores(float(model.fit([*left, name]).scores[part]), float(scores[part])) for name in taken
    }
    return {name: one for name, one in found.items() if one.with_it - one.without > settings.max_gain}


def _clean(target: Target, rows: Rows, alone: Mapping[str, float], settings: LeakageSettings) -> Verdict:
    best = max(alone, key=lambda name: alone[name])
    figure, bound = f"{alone[best]:.2f}", target.bound(settings)
    outcome = Outcome.PASSED
    words = f"no column knows the label: the best alone, {best!r}, has {target.measure} {figure}"
    if alone[best] > bound and len(alone) < _FEWEST_COLUMNS:
        outcome = Outcome.WARNED
        words = (
            f"column {best!r} alone has {target.measure} {figure}, more than {target.bound_key()} {bound:.2f}, and "
            f"with fewer than {_FEWEST_COLUMNS} columns a good one cannot be told from a leak: make sure that it is "
            "known before the label is"
        )
    elif alone[best] > bound:
        words += ", and the others together do as well"
    rare = len(target.scored) - len(target.parts(rows.truth))
    if rare:
        words += f"; {rare} classes with fewer than {_FEWEST_OF_CLASS} rows in the sample are not judged"
    return Verdict(_ANY_LEAK, outcome, figure, f"at most {bound:.2f}", words)


def _refused(
    target: Target, column: str, alone: float, scores: _Scores | None, told: str, settings: LeakageSettings
) -> Verdict:
    bound = target.bound(settings)
    figure = alone if scores is None or alone > bound else scores.with_it
    words = f"column {column!r} gives the label away: alone it has {target.measure} {alone:.2f}{told}"
    if scores is not None:
        words += (
            f"; with it the columns together reach {scores.with_it:.2f}, and {scores.without:.2f} without"
        )
    words += (
        f" (bounds: {target.bound_key()} {bound:.2f}, max_gain {settings.max_gain:.2f}): drop the column if it is "
        "known only after the fact, or answer for it under overrides"
    )
    return Verdict(
        f"{_ANY_LEAK} in {column}", Outcome.REFUSED, f"{figure:.2f}", f"at most {bound:.2f}", words
    )


def _told(target: Target, rows: Rows, column: str) -> str:
    """What a column's most frequent values, or ranges, say of the label."""
    values = rows.columns[column]
    is_named = isinstance(values.dtype, pd.CategoricalDtype) or values.nunique() <= _SHOWN_VALUES
    named = values.astype(object) if is_named else pd.qcut(values, _SHOWN_VALUES, duplicates="drop")
    truth = rows.truth if target.is_number else (rows.truth == len(target.classes) - 1).astype(np.float64)
    by_value = pd.Series(truth).groupby(named.to_numpy(), observed=True).agg(["mean", "size"])
    if is_named:
        by_value = by_value.sort_values("size", ascending=False)
    shown = by_value["mean"].iloc[:_SHOWN_VALUES]
    if target.is_number:
        figures = ", ".join(f"{value} {mean:.4g}" for value, mean in shown.items())
        return f" (mean of the label: {figures})"
    figures = ", ".join(f"{value} {100 * mean:.1f} %" for value, mean in shown.items())
    return f" (share of {target.classes[-1]!r} in the sample: {figures})"


def _groups(values: pd.Series[Any]) -> Integers:
    """Each row's group: of its value, or of its range; rows without a value are a group too."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return np.asarray(values.cat.codes, np.int64) + 1
    numbers = values.to_numpy(np.float64)
    present = numbers[np.isfinite(numbers)]
    if not len(present):
        return np.zeros(len(numbers), np.int64)
    edges = np.unique(np.quantile(present, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.where(np.isnan(numbers), 0, 1 + np.searchsorted(edges, numbers, side="right"))


def _alone(target: Target, groups: Integers, truth: Floats) -> float:
    """Best score of one column, each row answered by the mean of its group in the other folds."""
    return max(target.score(one, _out_of_fold(groups, one)) for _, one in target.parts(truth))


def _out_of_fold(groups: Integers, truth: Floats) -> Floats:
    folds = np.random.default_rng(_SEED).integers(_FOLDS, size=len(truth))
    cells = groups * _FOLDS + folds
    size = (int(groups.max()) + 1) * _FOLDS
    sums = np.bincount(cells, truth, size).reshape(-1, _FOLDS)
    counts = np.bincount(cells, minlength=size).reshape(-1, _FOLDS)
    others_sum = sums.sum(axis=1, keepdims=True) - sums
    others_count = counts.sum(axis=1, keepdims=True) - counts
    means = (others_sum + _PRIOR_ROWS * truth.mean()) / (others_count + _PRIOR_ROWS)
    return np.asarray(means[groups, folds], np.float64)


class _Fitted:
    """A quick model of some columns, judged on rows that it was not fitted on."""

    def __init__(self, names: tuple[str, ...], judged: Floats, scores: Callable[[Floats], Floats]) -> None:
        """Scores it.

        Args:
          names: of the columns.
          judged: `[rows, columns]`.
          scores: what answers for such rows score, one for each part of the target.
        """
        self._names, self._judged, self._scores = names, judged, scores
        self.scores = scores(judged)

    def gains(self, names: Sequence[str]) -> dict[str, float]:
        """The most that any score loses when a column is shuffled (Breiman, 2001)."""
        order = np.random.default_rng(_SEED).permutation(len(self._judged))
        found = {}
        for name in names:
            place = self._names.index(name)
            shuffled = self._judged.copy()
            shuffled[:, place] = self._judged[order, place]
            found[name] = float((self.scores - self._scores(shuffled)).max())
        return found


class _QuickModel:
    """Gradient-boosted trees, fitted on one half of the rows and judged on the other."""

    def __init__(self, target: Target, rows: Rows) -> None:
        self._target = target
        self._values, self._is_category = _encoded(rows.columns)
        self._places = {str(name): place for place, name in enumerate(rows.columns)}
        self._truth = rows.truth
        self._indices = [index for index, _ in target.parts(rows.truth)]
        order = np.random.default_rng(_SEED).permutation(len(rows.truth))
        half = len(order) // 2
        self._fitted_on, self._judged_on = order[:half], order[half : half + _MOST_JUDGED_ROWS]

    def fit(self, names: Sequence[str]) -> _Fitted:
        """A model of some columns."""
        judged = self._values[self._judged_on][:, self._chosen(names)]
        model = self._fit(names)
        return _Fitted(tuple(names), judged, lambda values: self._scores(model, values))

    def _chosen(self, names: Sequence[str]) -> Integers:
        return np.array([self._places[name] for name in names], np.int64)

    def _fit(self, names: Sequence[str]) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        build = HistGradientBoostingRegressor if self._target.is_number else HistGradientBoostingClassifier
        places = self._chosen(names)
        model = build(
            # Every iteration grows one tree a class.
            max_iter=100 if len(self._target.classes) <= 2 else 30,
            categorical_features=self._is_category[places],
            early_stopping=False,
            random_state=_SEED,
        )
        return model.fit(self._values[self._fitted_on][:, places], self._truth[self._fitted_on])

    def _scores(self, model: Any, values: Floats) -> Floats:
        truth = self._truth[self._judged_on]
        if self._target.is_number:
            return np.array([self._target.score(truth, model.predict(values))])
        answers = model.predict_proba(values)
        by_class = dict(zip(model.classes_.astype(int).tolist(), answers.T, strict=True))
        return np.array(
            [
                self._target.score((truth == index).astype(np.float64), by_class[index])
                for index in self._indices
            ]
        )


def _encoded(columns: pd.DataFrame) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Numbers as they are, and categories by rank of their frequency, the rarest as one."""
    encoded, is_category = [], []
    for name in columns:
        values = columns[name]
        is_category.append(isinstance(values.dtype, pd.CategoricalDtype))
        if is_category[-1]:
            rank = {value: place for place, value in enumerate(values.value_counts().index)}
            ranked = values.astype(object).map(rank).to_numpy(np.float64)
            encoded.append(np.minimum(ranked, _MOST_CATEGORIES))
        else:
            numbers = values.to_numpy(np.float64)
            encoded.append(np.where(np.isfinite(numbers), numbers, np.nan))
    return np.column_stack(encoded), np.array(is_category)


def judge_keys(keys: Mapping[str, Hashes], names: Sequence[str]) -> Iterator[Verdict]:
    """Refuses a key that stands twice, within a split or in two.

    Args:
      keys: by split, in the order of the splits: a hash of the key of each row.
      names: of the columns that make the key.
    """
    told = " + ".join(names)
    seen: dict[str, Hashes] = {}
    for split, hashes in keys.items():
        unique = np.unique(hashes)
        repeated = len(hashes) - len(unique)
        words = f"{repeated:,} rows of the {split} split repeat the key {told} of another row of it"
        if repeated:
            words += ": the same rows were loaded twice, or data.key does not name a row"
        yield _none(f"repeated keys in {split}", repeated, words)
        for earlier, known in seen.items():
            shared = int(np.isin(unique, known, assume_unique=True).sum())
            words = f"{shared:,} keys {told} of the {split} split are in the {earlier} split too"
            if shared:
                words += ": the model would be judged on rows it learned from; split by the key"
            yield _none(f"keys of {split} in {earlier}", shared, words)
        seen[split] = unique


def _none(name: str, count: int, words: str) -> Verdict:
    return Verdict(name, Outcome.of(count == 0), f"{count:,}", "none", words)


def judge_shared_rows(content: Mapping[str, Hashes], settings: LeakageSettings) -> Iterator[Verdict]:
    """Refuses a split of which many rows are in an earlier one too, more than chance explains.

    In a table of few values rows have natural twins. Only rows whose like stands once in the earlier split are
    therefore counted, and what is expected of them follows from how many rows stand there twice (Good, 1953).

    Args:
      content: by split, in the order of the splits: a hash of the features and the label of each row.
      settings: the bound.
    """
    seen: list[_Once] = []
    for split, hashes in content.items():
        if not len(hashes):
            continue
        for earlier in seen:
            yield _shared(split, hashes, earlier, settings)
        seen.append(_Once.of(split, hashes))


@dataclass(frozen=True)
class _Once:
    """Rows of a split that stand in it once, and how many stand there twice.

    Attributes:
      split: its name.
      hashes: of the rows that stand once, ascending.
      twice: how many different rows stand twice.
      rows: of the split.
    """

    split: str
    hashes: Hashes
    twice: int
    rows: int

    @classmethod
    def of(cls, split: str, hashes: Hashes) -> _Once:
        unique, counts = np.unique(hashes, return_counts=True)
        return cls(split, unique[counts == 1], int((counts == 2).sum()), len(hashes))

    def expected(self, more: int = 0) -> float:
        """The share of other rows of the same kind that chance finds among these, were there more of them."""
        return 2 * (self.twice + more) / self.rows


def _shared(split: str, hashes: Hashes, earlier: _Once, settings: LeakageSettings) -> Verdict:
    shared = float(np.isin(hashes, earlier.hashes).mean())
    natural = earlier.expected()
    # None seen does not mean that none were to be expected (the rule of three).
    likely = earlier.expected(_UNSEEN)
    noise = _DEVIATIONS * float(np.sqrt(likely / len(hashes) + 2 * likely / earlier.rows))
    passed = shared - natural <= max(settings.max_shared_rows, noise)
    words = (
        f"{shared:.1%} of the rows of the {split} split stand in {earlier.split} too, once, with the same features and "
        f"label, where chance explains {natural:.1%}"
    )
    if not passed:
        harm = "learned from" if earlier.split == _TRAIN else "was chosen by"
        words += (
            f"; the difference is more than data_gate.leakage.max_shared_rows {settings.max_shared_rows:.1%}: the "
            f"model would be judged on rows it {harm}; look for rows that were loaded into both"
        )
    bound = f"at most {settings.max_shared_rows:.1%} beyond chance"
    return Verdict(f"rows of {split} in {earlier.split}", Outcome.of(passed), f"{shared:.1%}", bound, words)


def judge_repeats(dated: Mapping[str, Hashes], settings: LeakageSettings) -> Iterator[Verdict]:
    """Refuses a split in which a batch of rows stands twice.

    In a table of few values rows have natural twins. How many rows occur twice is then tied to how many occur once and
    three times: counts that are mixed from Poisson distributions keep (k! f_k)² ≤ (k-1)! f_(k-1) · (k+1)! f_(k+1), by
    the inequality of Cauchy and Schwarz. A batch that was loaded twice breaks it.

    Args:
      dated: by split: a hash of the features, the label and the time of each row.
      settings: the bound.
    """
    for split, hashes in dated.items():
        if not len(hashes):
            continue
        _, counts = np.unique(hashes, return_counts=True)
        times, excess = _unnatural(np.bincount(counts, minlength=max(_COPIES) + 2))
        share = times * excess / len(hashes)
        passed = share <= settings.max_shared_rows
        repeated = int(counts[counts > 1].sum())
        words = f"{repeated:,} of {len(hashes):,} rows of the {split} split are alike to the last column"
        if not passed:
            words += (
                f"; {share:.1%} of the rows stand {times} times more often than chance explains (bound "
                f"data_gate.leakage.max_shared_rows {settings.max_shared_rows:.1%}): a batch was loaded twice; remove "
                "the copy, or make the query distinct"
            )
        bound = f"at most {settings.max_shared_rows:.1%} beyond chance"
        yield Verdict(f"repeated rows in {split}", Outcome.of(passed), f"{share:.1%}", bound, words)


def _unnatural(frequencies: Integers) -> tuple[int, float]:
    """How often the most unnaturally frequent rows stand, and how many of them chance does not explain."""
    found = (2, 0.0)
    for times in _COPIES:
        fewer, here, more = frequencies[times - 1 : times + 2]
        natural = np.sqrt((times + 1) / times * fewer * (more + _UNSEEN))
        excess = float(here - natural - _DEVIATIONS * np.sqrt(here))
        if times * excess > found[0] * found[1]:
            found = (times, excess)
    return found


@dataclass(frozen=True)
class TimeRange:
    """First and last value of the time column in a split, as they stand in the data."""

    first: float | str
    last: float | str


def judge_time(ranges: Mapping[str, TimeRange], column: str) -> Iterator[Verdict]:
    """Refuses a split that begins before an earlier one ends.

    Args:
      ranges: by split, in the order they have to keep.
      column: the time.
    """
    earlier: tuple[str, TimeRange] | None = None
    for split, found in ranges.items():
        if earlier is not None:
            before, its = earlier
            passed = _not_after(its.last, found.first)
            words = f"the {split} split begins at {column} {found.first} and the {before} split ends at {its.last}"
            if not passed:
                words += (
                    f": rows of {before} are younger than rows of {split}, so the model learns from the future it is "
                    "judged on; split by time"
                )
            yield Verdict(
                f"order of {before} and {split}",
                Outcome.of(passed),
                str(found.first),
                f"not before {its.last}",
                words,
            )
        earlier = (split, found)


def _not_after(one: float | str, other: float | str) -> bool:
    return one <= other if isinstance(one, str) == isinstance(other, str) else False  # type: ignore[operator]
