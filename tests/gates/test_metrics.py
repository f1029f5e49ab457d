import numpy as np
import pytest
import sklearn.metrics

from gates.metrics import METRICS_OF, Metric
from schemas.features import LabelKind

ROWS = 4000
WEIGHTS = np.random.default_rng(5).poisson(1.0, (ROWS, 3)).astype(np.float32)
BINARY = {
    "auc": lambda y, s, w: sklearn.metrics.roc_auc_score(y, s[:, 1], sample_weight=w),
    "average_precision": lambda y, s, w: sklearn.metrics.average_precision_score(y, s[:, 1], sample_weight=w),
    "log_loss": lambda y, s, w: sklearn.metrics.log_loss(y, s, sample_weight=w),
    "accuracy": lambda y, s, w: sklearn.metrics.accuracy_score(y, s.argmax(axis=1), sample_weight=w),
    "brier": lambda y, s, w: sklearn.metrics.brier_score_loss(y, s[:, 1], sample_weight=w),
}
MULTICLASS = {name: BINARY[name] for name in ("log_loss", "accuracy")}
REGRESSION = {
    "mean_squared_error": lambda y, s, w: sklearn.metrics.mean_squared_error(y, s, sample_weight=w),
    "mean_absolute_error": lambda y, s, w: sklearn.metrics.mean_absolute_error(y, s, sample_weight=w),
    "r_squared": lambda y, s, w: sklearn.metrics.r2_score(y, s, sample_weight=w),
}


def answers(kind: LabelKind, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and answers; with few digits there are ties, with many more different scores than are told apart."""
    random = np.random.default_rng(1)
    if kind is LabelKind.REGRESSION:
        truth = random.normal(1000, 30, ROWS)
        return truth, np.round(truth + random.normal(0, 10, ROWS), digits)
    classes = 2 if kind is LabelKind.BINARY else 3
    truth = random.integers(0, classes, ROWS).astype(float)
    logits = random.normal(0, 1, (ROWS, classes)) + 1.2 * np.eye(classes)[truth.astype(int)]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rounded = np.round(shares, digits).clip(0.01, 0.99)
    return truth, rounded / rounded.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("digits", [2, 9])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (LabelKind.BINARY, BINARY),
        (LabelKind.MULTICLASS, MULTICLASS),
        (LabelKind.REGRESSION, REGRESSION),
    ],
    ids=["binary", "multiclass", "regression"],
)
def test_the_metrics_are_those_of_scikit_learn_with_and_without_weights(kind, expected, digits):
    truth, found = answers(kind, digits)
    assert [metric.name for metric in METRICS_OF[kind]] == list(expected)
    for metric in METRICS_OF[kind]:
        statistic = metric.prepare(truth, found)
        assert statistic.value == pytest.approx(expected[metric.name](truth, found, None), abs=1e-9)
        weighted = [expected[metric.name](truth, found, weights) for weights in WEIGHTS.T]
        np.testing.assert_allclose(statistic.weighted(WEIGHTS), weighted, rtol=2e-5)


def test_more_scores_than_are_told_apart_change_a_resample_by_next_to_nothing():
    random = np.random.default_rng(2)
    truth = (random.random(30_000) < 0.2).astype(float)
    positive = 1 / (1 + np.exp(2 - 2 * truth + random.normal(size=30_000)))
    scores = np.stack([1 - positive, positive], axis=1)
    weights = random.poisson(1.0, (30_000, 1)).astype(np.float32)
    for metric in METRICS_OF[LabelKind.BINARY][:2]:
        expected = BINARY[metric.name](truth, scores, weights[:, 0])
        assert metric.prepare(truth, scores).weighted(weights)[0] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("metric", METRICS_OF[LabelKind.BINARY][:1], ids=lambda metric: metric.name)
def test_of_one_class_alone_there_is_no_area(metric: Metric):
    truth, found = np.zeros(50), np.full((50, 2), 0.5)
    statistic = metric.prepare(truth, found)
    assert np.isnan(statistic.value)
    assert np.isnan(statistic.weighted(np.ones((50, 2), np.float32))).all()
