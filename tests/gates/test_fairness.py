import numpy as np
import pandas as pd
import pytest

from gates.fairness import Decisions, judge_fairness
from gates.intervals import Bootstrap
from gates.settings import FairnessSettings
from gates.verdict import Outcome
from schemas.features import DType, Label, LabelKind

ROWS = 6000
LATE = Label("late", DType.BYTES, LabelKind.BINARY, ("no", "yes"))
RESAMPLES = Bootstrap.draw(ROWS, 200, 0.95)


def judged(found_in_b: float, seed: int = 0, **settings):
    """Positives of group a are found with 0.8, those of b with `found_in_b`; group c is small and ignored."""
    random = np.random.default_rng(seed)
    group = random.choice(["a", "b", "c"], ROWS, p=[0.5, 0.48, 0.02])
    is_positive = random.random(ROWS) < 0.5
    chance = np.select([group == "a", group == "b"], [0.8, found_in_b], 0.0)
    is_called = is_positive & (random.random(ROWS) < chance)
    chosen = FairnessSettings(column="group", max_gap=0.1, **settings)
    return judge_fairness(chosen, pd.Series(group), Decisions(is_positive, is_called), 500, RESAMPLES)


def test_a_group_whose_positives_are_missed_is_refused_by_name():
    gap, verdict = judged(0.5)
    assert not verdict.passed
    assert "where group = a and 0.5" in verdict.reason
    assert "where group = b" in verdict.reason
    assert gap.by_group["b"] == pytest.approx(0.5, abs=0.05)


def test_a_small_group_is_shown_and_not_judged():
    gap, verdict = judged(0.8)
    assert verdict.passed
    assert gap.by_group["c"] == 0.0


def test_groups_that_differ_within_the_bound_by_noise_pass():
    assert sum(not judged(0.71, seed)[1].passed for seed in range(20)) <= 1


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("selection_rate", 0.4), ("false_positive_rate", 0.0), ("true_positive_rate", 0.8)],
)
def test_each_rate_is_a_share_of_its_own_rows(metric, expected):
    gap, _ = judged(0.8, metric=metric)
    assert gap.by_group["a"] == pytest.approx(expected, abs=0.04)


def test_a_named_group_that_no_row_has_is_told():
    _, verdict = judged(0.8, groups=("a", "z"))
    assert verdict.outcome is Outcome.WARNED
    assert "group = z" in verdict.reason


def test_a_proven_gap_is_not_hidden_by_a_small_group_that_is_further_off():
    """Of a 0.8 is found, of b 0.64, and of thirty-five rows of c 0.83."""
    random = np.random.default_rng(0)
    group = np.repeat(["a", "b", "c"], [3000, 2965, 35])
    is_positive = np.ones(ROWS, bool)
    is_called = random.random(ROWS) < np.where(group == "a", 0.8, 0.64)
    is_called[-35:] = np.arange(35) < 29
    settings = FairnessSettings(column="group", max_gap=0.1)
    _, verdict = judge_fairness(settings, pd.Series(group), Decisions(is_positive, is_called), 30, RESAMPLES)
    assert verdict.outcome is Outcome.REFUSED
    assert "where group = a" in verdict.reason
    assert "where group = b" in verdict.reason
