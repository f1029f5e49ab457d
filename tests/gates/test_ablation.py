"""What counts as a difference: rows and seeds both, and neither alone."""

import numpy as np
import pytest

from gates.ablation import Judge
from gates.intervals import Bootstrap
from gates.metrics import AUC, SQUARED_ERROR, Floats

ROWS = 3000
RANDOM = np.random.default_rng(0)
SIGNAL = RANDOM.normal(size=ROWS)
TRUTH = (SIGNAL + RANDOM.normal(size=ROWS) > 0).astype(float)
BOOTSTRAP = Bootstrap.draw(ROWS, 200, 0.95)


def scores(strength: float, seed: int, noise: float = 0.05) -> Floats:
    """A model that follows the signal as much as that, and its own chance a little."""
    random = np.random.default_rng(seed)
    positive = 1 / (1 + np.exp(-strength * SIGNAL - noise * random.normal(size=ROWS)))
    return np.stack([1 - positive, positive], axis=1)


def contribution(without: list[Floats], whole: list[Floats]):
    judge = Judge(AUC, TRUTH, BOOTSTRAP)
    return judge.contribution("signal", ("signal",), judge.trainings(whole), judge.trainings(without))


def test_features_that_carry_the_signal_are_sure_to_help() -> None:
    found = contribution([scores(0.0, seed) for seed in (4, 5, 6)], [scores(1.0, seed) for seed in (1, 2, 3)])
    assert found.is_sure
    assert 0.2 < found.low < found.gain < found.high
    assert found.gain == pytest.approx(np.mean(found.by_seed))
    assert found.without == pytest.approx(0.5, abs=0.05)


def test_of_features_that_add_nothing_the_interval_holds_zero() -> None:
    found = contribution([scores(1.0, seed) for seed in (4, 5, 6)], [scores(1.0, seed) for seed in (1, 2, 3)])
    assert found.low < 0 < found.high
    assert not found.is_sure


def test_a_difference_no_larger_than_that_between_seeds_is_none() -> None:
    lucky, unlucky = scores(1.0, 1, noise=0.1), scores(1.0, 2, noise=0.8)
    assert contribution([unlucky], [lucky]).is_sure  # one training of each cannot know better
    assert not contribution([lucky, unlucky, unlucky], [unlucky, lucky, lucky]).is_sure


def test_a_loss_that_falls_is_a_gain() -> None:
    truth = SIGNAL
    judge = Judge(SQUARED_ERROR, truth, BOOTSTRAP)
    good, bad = judge.trainings([0.9 * truth] * 2), judge.trainings([0.1 * truth] * 2)
    found = judge.contribution("signal", ("signal",), good, bad)
    assert found.gain > 0
    assert found.is_sure
