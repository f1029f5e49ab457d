import numpy as np
import pytest

from gates.baselines import Baseline
from gates.model import Contest, judge_model
from gates.verdict import Verdict
from schemas.features import LabelKind

ROWS = 3000
TRUTH = (np.random.default_rng(0).random(ROWS) < 0.3).astype(float)


def answers(noise: float, seed: int) -> np.ndarray:
    """Probabilities of a model that sees the truth through noise."""
    seen = TRUTH + np.random.default_rng(seed).normal(0, noise, ROWS)
    positive = 1 / (1 + np.exp(1.5 - 3 * seen))
    return np.stack([1 - positive, positive], axis=1)


def judged(ours: np.ndarray, champion: np.ndarray | None = None, must_beat=("majority", "linear")):
    baselines = (
        Baseline("majority", "always the same shares", np.tile([0.7, 0.3], (ROWS, 1))),
        Baseline("linear", "logistic regression", answers(1.0, 7)),
    )
    contest = Contest(LabelKind.BINARY, TRUTH, ours, baselines, champion)
    return {verdict.name: verdict for verdict in judge_model(contest, must_beat, resamples=100, level=0.95)}


def test_a_model_better_than_every_baseline_passes() -> None:
    assert all(verdict.passed for verdict in judged(answers(0.6, 1)).values())


def test_a_constant_predictor_is_refused_against_the_majority() -> None:
    verdict: Verdict = judged(np.tile([0.6, 0.4], (ROWS, 1)))["against majority"]
    assert not verdict.passed
    assert "auc is 0.5; always the same shares (majority) reaches 0.5" in verdict.reason


def test_a_model_ahead_within_chance_only_is_refused_and_the_interval_is_told() -> None:
    verdict = judged(answers(1.0, 8))["against linear"]
    assert not verdict.passed
    assert "(95% interval); the model must be better beyond the interval" in verdict.reason


def test_a_baseline_that_need_not_be_beaten_is_shown() -> None:
    verdict = judged(answers(1.5, 1), must_beat=("majority",))["against linear"]
    assert verdict.passed
    assert verdict.bound == "shown only"


@pytest.mark.parametrize(("noise", "seed", "passed"), [(0.6, 3, True), (0.62, 4, True), (0.9, 5, False)])
def test_a_model_worse_than_the_champion_within_chance_passes_and_beyond_it_fails(
    noise, seed, passed
) -> None:
    assert judged(answers(noise, seed), answers(0.6, 2))["against the champion"].passed is passed


def test_swapped_scores_lose_to_everything() -> None:
    assert not any(verdict.passed for verdict in judged(answers(0.6, 1)[:, ::-1], answers(0.6, 2)).values())


def test_an_answer_that_is_no_number_is_refused_by_name() -> None:
    broken = answers(0.6, 1)
    broken[5] = np.nan
    [verdict] = judged(broken).values()
    assert not verdict.passed
    assert "answers 2 times with NaN" in verdict.reason
