import numpy as np
import pytest

from gates.comparison import compare
from gates.intervals import Bootstrap
from gates.metrics import AUC, LOG_LOSS, SQUARED_ERROR, Metric

ROWS = 4000
RESAMPLES = Bootstrap.draw(ROWS, 200, 0.95)


def scores(noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and probabilities of a model that sees it through noise; coarse, so that there are ties."""
    random = np.random.default_rng(0)
    truth = (random.random(ROWS) < 0.3).astype(float)
    seen = truth + np.random.default_rng(seed).normal(0, noise, ROWS)
    positive = np.round(1 / (1 + np.exp(1.5 - 3 * seen)), 2).clip(0.01, 0.99)
    return truth, np.stack([1 - positive, positive], axis=1)


def test_a_better_model_gains_beyond_the_interval_and_a_worse_one_loses():
    truth, good = scores(1.0, 1)
    _, bad = scores(1.5, 2)
    gain = compare(AUC, truth, good, bad, RESAMPLES)
    assert 0 < gain.low < gain.ours - gain.theirs < gain.high
    loss = compare(LOG_LOSS, truth, bad, good, RESAMPLES)
    assert loss.low < loss.high < 0


def test_a_model_gains_nothing_on_itself():
    truth, found = scores(1.0, 1)
    difference = compare(AUC, truth, found, found, RESAMPLES)
    assert (difference.low, difference.high) == (0.0, 0.0)


@pytest.mark.parametrize("metric", [AUC, LOG_LOSS], ids=lambda metric: metric.name)
def test_two_models_that_differ_by_chance_alone_are_told_apart_no_more_often_than_the_level_says(
    metric: Metric,
):
    told_apart, bootstrap = 0, Bootstrap.draw(600, 100, 0.95)
    for draw in range(40):
        random = np.random.default_rng(draw)
        truth = (random.random(600) < 0.4).astype(float)
        both = truth[:, None] + random.normal(0, 1.2, (600, 2))
        first, second = (np.stack([1 - p, p], axis=1) for p in (1 / (1 + np.exp(1 - 2 * both.T))))
        difference = compare(metric, truth, first, second, bootstrap)
        told_apart += not difference.low <= 0 <= difference.high
    assert told_apart <= 6


def test_of_a_target_the_squared_error_is_compared():
    random = np.random.default_rng(3)
    target = random.normal(size=ROWS)
    near, far = target + random.normal(0, 0.1, ROWS), target + random.normal(0, 1.0, ROWS)
    difference = compare(SQUARED_ERROR, target, near, far, RESAMPLES)
    assert difference.ours == pytest.approx(np.mean((near - target) ** 2))
    assert difference.low > 0
