import numpy as np
import pytest

from gates.calibration import Calibration, calibrate, judge_calibration
from gates.intervals import Bootstrap
from schemas.features import LabelKind

BOUND = 0.05


def found(rows: int, seed: int, sharpened: float = 1.0) -> Calibration:
    """Of probabilities that are right, or, sharpened, too sure of themselves."""
    random = np.random.default_rng(seed)
    logit = random.normal(-0.5, 1.5, rows)
    truth = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    positive = 1 / (1 + np.exp(-sharpened * logit))
    scores = np.stack([1 - positive, positive], axis=1)
    return calibrate(LabelKind.BINARY, truth, scores, Bootstrap.draw(rows, 200, 0.95))


def is_refused(calibration: Calibration, bound: float | None = BOUND) -> bool:
    return not all(verdict.passed for verdict in judge_calibration(calibration, bound))


def test_the_bins_hold_equally_many_rows_and_say_what_came_true():
    bins = found(10_000, 0).bins
    assert [one.rows for one in bins] == [1000] * 10
    assert all(abs(one.predicted - one.observed) < 0.06 for one in bins)


def test_a_model_that_is_too_sure_is_refused():
    [verdict] = judge_calibration(found(5000, 0, sharpened=3.0), BOUND)
    assert not verdict.passed
    assert "model_gate.max_calibration_error is 0.05" in verdict.reason


def test_without_a_bound_the_error_is_shown():
    [verdict] = judge_calibration(found(5000, 0, sharpened=3.0), None)
    assert verdict.passed
    assert verdict.bound == "shown only"


@pytest.mark.parametrize("rows", [60, 300, 5000])
def test_a_calibrated_model_is_not_refused_for_having_few_rows(rows):
    assert sum(is_refused(found(rows, seed)) for seed in range(20)) <= 1


def test_of_several_classes_the_one_that_scores_highest_counts():
    random = np.random.default_rng(1)
    shares = random.dirichlet([1, 1, 1], 5000)
    truth = np.array([random.choice(3, p=row) for row in shares]).astype(float)
    draw = Bootstrap.draw(5000, 100, 0.95)
    assert not is_refused(calibrate(LabelKind.MULTICLASS, truth, shares, draw))
    surer = shares**4 / (shares**4).sum(axis=1, keepdims=True)
    assert is_refused(calibrate(LabelKind.MULTICLASS, truth, surer, draw))


def test_a_number_has_bins_and_no_error():
    target = np.random.default_rng(2).normal(size=1000)
    calibration = calibrate(LabelKind.REGRESSION, target, target, Bootstrap.draw(1000, 50, 0.95))
    assert calibration.error is None
    assert list(judge_calibration(calibration, BOUND)) == []
    assert all(one.predicted == pytest.approx(one.observed) for one in calibration.bins)


def test_a_constant_has_one_bin():
    scores = np.tile([0.7, 0.3], (1000, 1))
    truth = (np.arange(1000) % 10 < 3).astype(float)
    calibration = calibrate(LabelKind.BINARY, truth, scores, Bootstrap.draw(1000, 50, 0.95))
    [one] = calibration.bins
    assert one.rows == 1000
    assert calibration.error == pytest.approx(0.0)
