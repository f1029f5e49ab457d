import numpy as np

from gates.intervals import Bootstrap
from gates.metrics import ACCURACY, AUC, METRICS_OF, SQUARED_ERROR
from schemas.features import LabelKind


def test_the_interval_of_a_mean_is_the_one_that_is_known():
    error = np.random.default_rng(0).normal(0, 2, 5000)
    [found] = Bootstrap.draw(5000, 1000, 0.95).estimates(
        [SQUARED_ERROR], np.zeros(5000), error, subject="model"
    )
    margin = 1.96 * np.std(error**2) / np.sqrt(5000)
    assert abs(found.value - found.low - margin) < 0.15 * margin
    assert abs(found.high - found.value - margin) < 0.15 * margin


def test_a_part_of_the_rows_keeps_its_weights():
    whole = Bootstrap.draw(100, 50, 0.9)
    chosen = np.arange(100) % 3 == 0
    np.testing.assert_array_equal(whole.of(chosen).weights, whole.weights[chosen])
    assert whole.of(chosen).level == 0.9


def test_the_same_rows_get_the_same_weights_every_time():
    np.testing.assert_array_equal(
        Bootstrap.draw(1000, 50, 0.9).weights, Bootstrap.draw(1000, 50, 0.95).weights
    )


def test_a_metric_that_is_not_defined_is_left_out():
    truth, scores = np.zeros(100), np.tile([0.8, 0.2], (100, 1))
    found = Bootstrap.draw(100, 50, 0.95).estimates(METRICS_OF[LabelKind.BINARY], truth, scores, "model")
    assert [one.metric for one in found] == ["log_loss", "accuracy", "brier"]


def test_what_is_certain_has_an_interval_without_width():
    truth = (np.arange(100) % 2).astype(np.float64)
    scores = np.stack([1 - truth, truth], axis=1)
    found = list(Bootstrap.draw(100, 50, 0.95).estimates([AUC, ACCURACY], truth, scores, "model"))
    assert [(one.low, one.value, one.high) for one in found] == [(1.0, 1.0, 1.0)] * 2
