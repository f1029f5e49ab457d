import numpy as np
import pytest

from gates.settings import CostSettings
from gates.thresholds import choose_threshold, confusion_at, confusions, precision_recall, roc

RANDOM = np.random.default_rng(0)
POSITIVE = RANDOM.random(20_000)
TRUTH = (RANDOM.random(20_000) < POSITIVE).astype(float)
SCORES = np.stack([1 - POSITIVE, POSITIVE], axis=1)


@pytest.mark.parametrize(("false_positive", "false_negative"), [(1.0, 1.0), (4.0, 1.0), (1.0, 4.0)])
def test_of_calibrated_scores_the_threshold_is_the_share_of_the_costs(false_positive, false_negative):
    costs = CostSettings(false_positive=false_positive, false_negative=false_negative)
    expected = false_positive / (false_positive + false_negative)
    assert choose_threshold(TRUTH, SCORES, costs) == pytest.approx(expected, abs=0.05)


def test_no_threshold_costs_less_than_the_chosen_one():
    costs = CostSettings(false_positive=2.0, false_negative=3.0)
    chosen = choose_threshold(TRUTH, SCORES, costs)
    shown = confusions(TRUTH, SCORES, chosen, costs)
    best = min(shown, key=lambda one: one.cost)
    assert best.threshold == chosen
    assert 40 <= len(shown) <= 51


def test_rows_of_one_score_are_on_one_side():
    scores = np.tile([0.6, 0.4], (10, 1))
    for positives, calls_all in ((9, True), (1, False)):
        truth = (np.arange(10) < positives).astype(float)
        threshold = choose_threshold(truth, scores, CostSettings())
        assert (threshold <= 0.4) is calls_all


def test_the_four_kinds_of_answers_are_counted_and_the_errors_cost():
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    found = confusion_at(np.array([1.0, 0.0, 1.0, 0.0]), scores, 0.5, CostSettings(1.0, 5.0))
    counts = (found.true_positives, found.false_positives, found.true_negatives, found.false_negatives)
    assert (counts, found.cost) == ((1, 1, 1, 1), 1.5)


def test_curves_are_short_ascending_and_reach_both_ends():
    for curve in (roc("model", TRUTH, SCORES), precision_recall("model", TRUTH, SCORES)):
        assert len(curve.x) == len(curve.y) <= 200
        assert list(curve.x) == sorted(curve.x)
        assert (curve.x[0], curve.x[-1]) == (0.0, 1.0)
    area = np.trapezoid(roc("model", TRUTH, SCORES).y, roc("model", TRUTH, SCORES).x)
    assert area == pytest.approx(5 / 6, abs=0.01)
