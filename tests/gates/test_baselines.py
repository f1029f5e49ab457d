import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from gates.baselines import BaselineError, Rows, fit_baselines
from schemas.features import LabelKind

ROWS = 3000


def table(kind: LabelKind, seed: int) -> Rows:
    """The label follows `colour` most, `size` less and `noise` not at all; a tenth of each is missing."""
    random = np.random.default_rng(seed)
    colour = random.choice(["red", "green", "blue"], ROWS)
    size, noise = random.normal(size=ROWS), random.normal(size=ROWS)
    strength = 2.0 * (colour == "red") + 1.0 * size + random.normal(0, 1, ROWS)
    truth = {
        LabelKind.BINARY: (strength > 0.7).astype(float),
        LabelKind.MULTICLASS: np.digitize(strength, [0, 1.5]).astype(float),
        LabelKind.REGRESSION: 100 * strength,
    }[kind]
    columns = pd.DataFrame(
        {
            "noise": noise,
            "colour": pd.Categorical(colour, categories=["blue", "green", "red"]),
            "size": size,
            "empty": np.full(ROWS, np.nan),
        }
    )
    for name in ("noise", "colour", "size"):
        columns.loc[random.random(ROWS) < 0.1, name] = np.nan
    return Rows(columns, truth)


@pytest.mark.parametrize("kind", list(LabelKind))
def test_each_baseline_is_better_than_the_one_before(kind: LabelKind) -> None:
    classes = {LabelKind.BINARY: 2, LabelKind.MULTICLASS: 3, LabelKind.REGRESSION: 0}[kind]
    train, test = table(kind, 1), table(kind, 2)
    losses = []
    for found in fit_baselines(kind, classes, train, test):
        if kind is LabelKind.REGRESSION:
            losses.append(np.mean((found.scores - test.truth) ** 2))
        else:
            np.testing.assert_allclose(found.scores.sum(axis=1), 1.0)
            losses.append(-np.mean(np.log(found.scores[np.arange(ROWS), test.truth.astype(int)])))
    majority, one_rule, linear = losses
    assert linear < one_rule < majority


def test_the_one_rule_names_the_column_that_tells_most() -> None:
    _, rule, _ = fit_baselines(LabelKind.BINARY, 2, table(LabelKind.BINARY, 1), table(LabelKind.BINARY, 2))
    assert rule.told == "the one column colour"
    assert len(np.unique(rule.scores[:, 1])) == 4  # three colours, and none


def test_a_column_that_gives_the_label_away_is_found_by_the_one_rule() -> None:
    train, test = table(LabelKind.BINARY, 1), table(LabelKind.BINARY, 2)
    for rows in (train, test):
        rows.columns["leak"] = rows.truth * 5 + np.random.default_rng(0).normal(0, 0.1, ROWS)
    _, rule, _ = fit_baselines(LabelKind.BINARY, 2, train, test)
    assert rule.told == "the one column leak"
    assert roc_auc_score(test.truth, rule.scores[:, 1]) > 0.99


def test_a_value_or_a_class_that_training_never_saw_is_answered_all_the_same() -> None:
    train, test = table(LabelKind.MULTICLASS, 1), table(LabelKind.MULTICLASS, 2)
    keep = train.truth < 2
    train = Rows(train.columns[keep].reset_index(drop=True), train.truth[keep])
    test.columns["colour"] = test.columns["colour"].cat.rename_categories({"red": "violet"})
    for found in fit_baselines(LabelKind.MULTICLASS, 3, train, test):
        assert found.scores.shape == (ROWS, 3)
        assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("kind", list(LabelKind))
def test_boosted_trees_are_fitted_where_they_are_asked_for(kind: LabelKind) -> None:
    classes = {LabelKind.BINARY: 2, LabelKind.MULTICLASS: 3, LabelKind.REGRESSION: 0}[kind]
    train, test = table(kind, 1), table(kind, 2)
    for rows in (train, test):
        rows.columns.columns = [f'"{name}" {{feet}}' for name in rows.columns]
    assert "lightgbm" not in {found.name for found in fit_baselines(kind, classes, train, test)}
    *_, found = fit_baselines(kind, classes, train, test, optional=["majority", "lightgbm"])
    assert found.name == "lightgbm"
    assert found.scores.shape == ((ROWS,) if kind is LabelKind.REGRESSION else (ROWS, classes))


def test_without_lightgbm_its_name_is_refused_with_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    rows = table(LabelKind.BINARY, 1)
    with pytest.raises(BaselineError, match="must_beat names lightgbm, which is not installed: pip install"):
        fit_baselines(LabelKind.BINARY, 2, rows, rows, optional=["lightgbm"])
