"""What anybody gets without a network: the models that a trained one has to beat.

They learn from the raw columns of the training split. Columns are numbers, or pandas categories; both may be missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from schemas.features import LabelKind

Floats = npt.NDArray[np.float64]

_BINS = 10
_FEWEST_ROWS = 50
_SEED = 1


@dataclass(frozen=True)
class Rows:
    """Rows of a split.

    Attributes:
      columns: raw features.
      truth: `[rows]`: index of the class, or the target.
    """

    columns: pd.DataFrame
    truth: Floats


@dataclass(frozen=True)
class Baseline:
    """A naive model's answers.

    Attributes:
      name: of the kind.
      told: what it is, for a person.
      scores: for the test rows: `[rows, classes]` probabilities, or `[rows]` predictions.
    """

    name: str
    told: str
    scores: Floats


@dataclass(frozen=True)
class _Task:
    kind: LabelKind
    classes: int

    def constant(self, truth: Floats) -> Floats:
        """What to say of rows of which only `truth` is known: shares of the classes `[classes]`, or the mean `[1]`."""
        if self.kind is LabelKind.REGRESSION:
            return np.array([truth.mean()])
        counts = np.bincount(truth.astype(np.int64), minlength=self.classes)
        return np.asarray((counts + 1) / (len(truth) + self.classes))  # a class never seen keeps a share

    def loss(self, truth: Floats, answers: Floats) -> float:
        """Log loss, or squared error; `answers` is `[rows, classes]` or `[rows, 1]`."""
        if self.kind is LabelKind.REGRESSION:
            return float(np.mean((answers[:, 0] - truth) ** 2))
        return float(-np.mean(np.log(answers[np.arange(len(truth)), truth.astype(np.int64)])))

    def shaped(self, answers: Floats) -> Floats:
        return answers[:, 0] if self.kind is LabelKind.REGRESSION else answers


class BaselineError(RuntimeError):
    """A naive model that cannot be fitted here."""


def fit_baselines(
    kind: LabelKind, classes: int, train: Rows, test: Rows, optional: Collection[str] = ()
) -> tuple[Baseline, ...]:
    """Fits the naive models on `train` and lets them answer for `test`.

    Args:
      kind: of the label.
      classes: number of classes; 0 for regression.
      train: rows to learn from.
      test: rows to answer for.
      optional: names of more models than the three that are always fitted: `lightgbm`.

    Raises:
      BaselineError: if an optional model's package is not installed.
    """
    task = _Task(kind, classes)
    chosen = {**_BUILDERS, **{name: build for name, build in _OPTIONAL.items() if name in optional}}
    return tuple(build(task, train, test) for build in chosen.values())


def _majority(task: _Task, train: Rows, test: Rows) -> Baseline:
    constant = task.constant(train.truth)
    told = "the mean" if task.kind is LabelKind.REGRESSION else "always the same shares of the classes"
    return Baseline("majority", told, task.shaped(np.tile(constant, (len(test.truth), 1))))


def _one_rule(task: _Task, train: Rows, test: Rows) -> Baseline:
    """The best single column: one answer for each of its values, or of its ten ranges (Holte, 1993)."""
    fitted = {str(name): _rule(task, train, test, str(name)) for name in train.columns}
    best = min(fitted, key=lambda name: fitted[name][0])
    return Baseline("one_rule", f"the one column {best}", task.shaped(fitted[best][1]))


def _rule(task: _Task, train: Rows, test: Rows, column: str) -> tuple[float, Floats]:
    """The loss on train, and the answers for test."""
    groups, known = _groups(train.columns[column], train.columns[column])
    overall = task.constant(train.truth)
    answers = np.tile(overall, (len(known) + 1, 1))  # the last is for what is missing or unseen
    for group in np.unique(groups):
        truth = train.truth[groups == group]
        if len(truth) >= _FEWEST_ROWS:
            answers[group] = task.constant(truth)
    of_test, _ = _groups(test.columns[column], train.columns[column])
    return task.loss(train.truth, answers[groups]), answers[of_test]


def _groups(values: pd.Series[Any], of_train: pd.Series[Any]) -> tuple[npt.NDArray[np.int64], list[Any]]:
    """Each row's group, -1 where it has none, and the groups, as they follow from the training rows."""
    if isinstance(of_train.dtype, pd.CategoricalDtype):
        known = list(of_train.cat.categories)
        return np.asarray(pd.Categorical(values, categories=known).codes, np.int64), known
    known_numbers = of_train.dropna().to_numpy(np.float64)
    edges: Floats = np.empty(0)
    if len(known_numbers):
        edges = np.unique(np.quantile(known_numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
    numbers = values.to_numpy(np.float64)
    groups = np.where(np.isnan(numbers), -1, np.searchsorted(edges, numbers, side="right"))
    return groups, list(range(len(edges) + 1))


def _linear(task: _Task, train: Rows, test: Rows) -> Baseline:
    """Linear in scaled numbers, indicators of what is missing, and indicators of categories."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    prepared = make_column_transformer(
        (
            make_pipeline(
                SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
                StandardScaler(),
            ),
            make_column_selector(dtype_include="number"),
        ),
        (
            OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=_FEWEST_ROWS),
            make_column_selector(dtype_include="category"),
        ),
    )
    is_regression = task.kind is LabelKind.REGRESSION
    model = make_pipeline(
        prepared,
        # To the usual tolerance it takes twice as long and is no better.
        Ridge() if is_regression else LogisticRegression(tol=1e-3, max_iter=300, random_state=_SEED),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline may stop a little short
        model.fit(train.columns, train.truth)
    name, told = ("linear", "ridge regression" if is_regression else "logistic regression")
    if is_regression:
        return Baseline(name, told, np.asarray(model.predict(test.columns), np.float64))
    answers = np.zeros((len(test.truth), task.classes))
    answers[:, model[-1].classes_.astype(np.int64)] = model.predict_proba(test.columns)
    return Baseline(name, told, answers)


def _lightgbm(task: _Task, train: Rows, test: Rows) -> Baseline:
    """Boosted trees with their own defaults."""
    try:
        import lightgbm
    except ImportError as error:
        raise BaselineError(
            "model_gate.must_beat names lightgbm, which is not installed: pip install lightgbm, or take it out"
        ) from error
    settings: dict[str, Any] = {"random_state": _SEED, "verbosity": -1}
    known = {
        str(name): values.cat.categories
        for name, values in train.columns.items()
        if isinstance(values.dtype, pd.CategoricalDtype)
    }
    columns = test.columns.assign(
        **{name: pd.Categorical(test.columns[name], categories=values) for name, values in known.items()}
    )
    # By number, because LightGBM refuses names with some punctuation.
    learned, asked = (part.set_axis(range(part.shape[1]), axis=1) for part in (train.columns, columns))
    if task.kind is LabelKind.REGRESSION:
        fitted = lightgbm.LGBMRegressor(**settings).fit(learned, train.truth)
        return Baseline("lightgbm", "boosted trees", np.asarray(fitted.predict(asked), np.float64))
    model = lightgbm.LGBMClassifier(**settings).fit(learned, train.truth)
    answers = np.zeros((len(test.truth), task.classes))
    answers[:, model.classes_.astype(np.int64)] = model.predict_proba(asked)
    return Baseline("lightgbm", "boosted trees", answers)


_BUILDERS: Mapping[str, Callable[[_Task, Rows, Rows], Baseline]] = {
    "majority": _majority,
    "one_rule": _one_rule,
    "linear": _linear,
}
_OPTIONAL: Mapping[str, Callable[[_Task, Rows, Rows], Baseline]] = {"lightgbm": _lightgbm}
