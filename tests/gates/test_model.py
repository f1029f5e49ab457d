import numpy as np
import pytest

from gates.baselines import Baseline
from gates.intervals import Bootstrap
from gates.model import Contest, judge_answers, judge_model
from gates.settings import ModelGateSettings
from gates.verdict import Verdict
from schemas.features import DType, Label, LabelKind

ROWS = 3000
RESAMPLES = Bootstrap.draw(ROWS, 100, 0.95)
LATE = Label("late", DType.BYTES, LabelKind.BINARY, ("no", "yes"))
COLOR = Label("color", DType.BYTES, LabelKind.MULTICLASS, ("red", "green", "blue"))
PRICE = Label("price", DType.FLOAT, LabelKind.REGRESSION)
TRUTH = (np.random.default_rng(0).random(ROWS) < 0.3).astype(float)
COLORS = np.random.default_rng(0).integers(0, 3, ROWS).astype(float)


def answers(noise: float, seed: int) -> np.ndarray:
    """Probabilities of a model that sees the truth through noise."""
    seen = TRUTH + np.random.default_rng(seed).normal(0, noise, ROWS)
    positive = 1 / (1 + np.exp(1.5 - 3 * seen))
    return np.stack([1 - positive, positive], axis=1)


def colors(noise: float, seed: int = 1) -> np.ndarray:
    logits = 2 * np.eye(3)[COLORS.astype(int)] + np.random.default_rng(seed).normal(0, noise, (ROWS, 3))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def judged(contest: Contest, **settings) -> dict[str, Verdict]:
    chosen = ModelGateSettings(**{"must_beat": ("majority", "linear"), **settings})
    return {verdict.name: verdict for verdict in judge_model(contest, chosen, RESAMPLES)}


def against(ours: np.ndarray, champion: np.ndarray | None = None, **settings) -> dict[str, Verdict]:
    baselines = (
        Baseline("majority", "always the same shares", np.tile([0.7, 0.3], (ROWS, 1))),
        Baseline("linear", "logistic regression", answers(1.0, 7)),
    )
    return judged(Contest(LATE, TRUTH, ours, baselines, champion), **settings)


def refused(verdicts: dict[str, Verdict]) -> set[str]:
    return {name for name, verdict in verdicts.items() if not verdict.passed}


def test_a_model_better_than_every_baseline_passes() -> None:
    assert refused(against(answers(0.6, 1))) == set()


def test_a_constant_predictor_is_refused_by_name_and_against_the_majority() -> None:
    found = against(np.tile([0.6, 0.4], (ROWS, 1)))
    assert "the same answer: a constant has learned nothing" in found["answers differ between rows"].reason
    assert "auc is 0.5; always the same shares (majority) reaches 0.5" in found["against majority"].reason
    assert {"answers differ between rows", "against majority"} <= refused(found)


def test_a_majority_predictor_whose_scores_say_nothing_is_refused() -> None:
    noise = np.random.default_rng(4).uniform(0.1, 0.3, ROWS)
    found = refused(against(np.stack([1 - noise, noise], axis=1)))
    assert found == {"against majority", "against linear"}


def test_a_model_ahead_within_chance_only_is_refused_and_the_interval_is_told() -> None:
    verdict = against(answers(1.0, 8))["against linear"]
    assert not verdict.passed
    assert "(95% interval); the model must be better beyond the interval" in verdict.reason


def test_a_baseline_that_need_not_be_beaten_is_shown() -> None:
    verdict = against(answers(1.5, 1), must_beat=("majority",))["against linear"]
    assert verdict.passed
    assert verdict.bound == "shown only"


@pytest.mark.parametrize(("noise", "seed", "passed"), [(0.6, 3, True), (0.62, 4, True), (0.9, 5, False)])
def test_a_model_worse_than_the_champion_within_chance_passes_and_beyond_it_fails(
    noise, seed, passed
) -> None:
    assert against(answers(noise, seed), answers(0.6, 2))["against the champion"].passed is passed


def test_what_another_seed_costs_is_tolerated_even_where_the_interval_is_narrower() -> None:
    champion = answers(0.6, 2)
    ours = champion.copy()
    worse = np.flatnonzero(TRUTH)[:6]
    ours[worse] = [0.9, 0.1]  # always the same few rows: a small loss that is beyond doubt
    assert against(ours, champion)["against the champion"].passed
    verdict = against(ours, champion, champion_tolerance=0.0)["against the champion"]
    assert not verdict.passed
    assert "beyond the interval" in verdict.reason


def test_swapped_scores_lose_to_everything_and_are_named() -> None:
    found = against(answers(0.6, 1)[:, ::-1], answers(0.6, 2))
    assert refused(found) == {
        "order of the classes",
        "against majority",
        "against linear",
        "against the champion",
    }
    assert "the scores of the two classes are swapped" in found["order of the classes"].reason


def test_of_several_classes_the_swapped_ones_are_named() -> None:
    assert refused(judged(Contest(COLOR, COLORS, colors(1.0)))) == set()
    found = judged(Contest(COLOR, COLORS, colors(1.0)[:, [0, 2, 1]]))
    assert refused(found) == {"order of the classes"}
    assert "green from blue, blue from green" in found["order of the classes"].reason


def test_an_answer_that_is_no_number_is_refused_by_name() -> None:
    broken = answers(0.6, 1)
    broken[5] = np.nan
    verdict = judge_answers(Contest(LATE, TRUTH, broken))
    assert not verdict.passed
    assert "answers 2 times with NaN or infinity on 3,000 test rows" in verdict.reason
    assert judge_answers(Contest(LATE, TRUTH, answers(0.6, 1))).passed


def test_a_champion_that_cannot_answer_is_refused_with_what_to_do() -> None:
    contest = Contest(LATE, TRUTH, answers(0.6, 1), champion_fault="it reads 'tariff', which is not there")
    verdict = judged(contest)["against the champion"]
    assert not verdict.passed
    assert "the champion cannot answer these rows: it reads 'tariff'" in verdict.reason
    assert "--rebaseline --owner NAME --reason TEXT" in verdict.reason


@pytest.mark.parametrize(
    ("label", "truth", "good", "leaking"),
    [
        (LATE, TRUTH, answers(0.6, 1), answers(0.05, 1)),
        (COLOR, COLORS, colors(1.5), colors(0.1)),
        (PRICE, COLORS, COLORS + np.random.default_rng(1).normal(0, 0.5, ROWS), COLORS + 0.001),
    ],
    ids=["auc", "accuracy", "r_squared"],
)
def test_a_model_too_good_to_be_true_is_taken_for_a_leak_only_where_a_bound_is_set(
    label, truth, good, leaking
) -> None:
    name = "too good to be true"
    assert judged(Contest(label, truth, good), too_good=0.98)[name].passed
    verdict = judged(Contest(label, truth, leaking), too_good=0.98)[name]
    assert not verdict.passed
    assert "probably knows the label" in verdict.reason
    assert name not in judged(Contest(label, truth, leaking))


def test_where_the_test_rows_hold_one_class_nothing_is_taken_for_measured() -> None:
    ours = answers(0.6, 1)
    verdicts = judged(Contest(LATE, np.zeros(ROWS), ours, (), ours), must_beat=())
    assert refused(verdicts) == {"order of the classes", "against the champion"}
    assert "the 3,000 test rows hold 1 of the 2 classes of 'late'" in verdicts["order of the classes"].reason


def test_an_honest_model_of_many_classes_is_not_taken_for_swapped() -> None:
    """With few rows a class, some other order is always better on the rows on which it was found."""
    names = tuple(f"class {place}" for place in range(20))
    label = Label("kind", DType.BYTES, LabelKind.MULTICLASS, names)
    for seed in range(10):
        random = np.random.default_rng(seed)
        truth = random.integers(0, 20, 500).astype(float)
        logits = np.eye(20)[truth.astype(int)] + random.normal(0, 1, (500, 20))
        ours = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        found = judge_model(
            Contest(label, truth, ours), ModelGateSettings(must_beat=()), Bootstrap.draw(500, 100, 0.95, seed)
        )
        assert all(verdict.passed for verdict in found), seed
