"""Drift: what counts as one, and what chance or a spike explains."""

import numpy as np
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

from gates.drift import JENSEN_SHANNON, L_INFINITY, PREVIOUS, Deciles, Distance, deciles, judge_drift
from gates.settings import DriftSettings
from gates.verdict import Outcome

SETTINGS = DriftSettings()


def of(values: np.ndarray) -> Deciles:
    return Deciles(tuple(np.quantile(values, np.linspace(0, 1, 11), method="inverted_cdf")))


def numbers(here: np.ndarray, there: np.ndarray, value: float) -> Distance:
    return Distance("size", JENSEN_SHANNON, value, (len(here), len(there)), 20, (of(here), of(there)))


def outcomes(what: str, *found: Distance, settings: DriftSettings = SETTINGS) -> dict[str, Outcome]:
    return {verdict.name: verdict.outcome for verdict in judge_drift({what: found}, settings)}


@pytest.fixture
def draws() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_value_that_changed_its_share_is_told_between_splits_and_refused_since_before():
    moved = Distance("color", L_INFINITY, 0.3, (5000, 1000), 4)
    assert outcomes("test", moved) == {"drift of color in test": Outcome.WARNED}
    assert outcomes(PREVIOUS, moved) == {"drift of color since the data accepted before": Outcome.REFUSED}


def test_the_reason_says_where_how_much_and_what_to_do():
    [verdict] = judge_drift({PREVIOUS: [Distance("color", L_INFINITY, 0.3, (5000, 1000), 4)]}, SETTINGS)
    for part in (
        "'color' in train",
        "accepted before",
        "0.30",
        "data_gate.drift.categorical 0.10",
        "overrides",
    ):
        assert part in verdict.reason


def test_columns_may_have_bounds_of_their_own():
    moved = Distance("color", L_INFINITY, 0.3, (5000, 1000), 4)
    assert outcomes("test", moved, settings=DriftSettings(columns={"color": 0.4})) == {
        "drift in test": Outcome.PASSED
    }


def test_few_rows_are_not_judged_and_that_is_said():
    [verdict] = judge_drift({"test": [Distance("color", L_INFINITY, 0.9, (5000, 499), 4)]}, SETTINGS)
    assert verdict.outcome is Outcome.PASSED
    assert "1 with fewer than data_gate.drift.min_rows 500" in verdict.reason


def test_a_change_that_chance_explains_is_none():
    many_values = Distance("color", L_INFINITY, 0.12, (500, 500), 1000)
    assert many_values.noise > 0.12
    assert outcomes("test", many_values) == {"drift in test": Outcome.PASSED}


def test_the_noise_of_two_samples_covers_their_distance(draws):
    shares = np.full(20, 0.05)
    for _ in range(50):
        one, other = (draws.multinomial(600, shares) / 600 for _ in range(2))
        middle = (one + other) / 2
        divergence = sum(float(np.sum(side * np.log2(side / middle))) / 2 for side in (one, other))
        assert divergence < Distance("size", JENSEN_SHANNON, divergence, (600, 600), 20).noise
        assert np.abs(one - other).max() < Distance("size", L_INFINITY, 0.0, (600, 600), 20).noise


def test_a_divergence_counts_only_where_the_deciles_prove_it(draws):
    spikes = draws.choice([1.0, 2.0, 3.0], 2000)
    assert outcomes("test", numbers(spikes[:1000], spikes[1000:], 0.2)) == {"drift in test": Outcome.PASSED}
    moved = numbers(spikes[:1000] + 1.0, spikes[1000:], 0.4)
    assert outcomes("test", moved)["drift of size in test"] is Outcome.WARNED


def test_a_proven_distance_is_never_more_than_the_true_one(draws):
    from scipy.stats import ks_2samp

    for shift in (0.0, 0.2, 0.5, 2.0):
        one, other = draws.normal(size=3000), draws.normal(shift, size=3000)
        proven = of(one).proven_distance(of(other))
        assert proven <= ks_2samp(one, other).statistic
        assert proven > 0 or shift < 0.5


@pytest.mark.parametrize("factor", [1.609, 1 / 1.609])
def test_kilometres_for_miles_are_found_though_the_divergence_is_small(draws, factor):
    miles = np.round(draws.gamma(0.5, 4.0, 4000), 1)
    [verdict] = judge_drift({PREVIOUS: [numbers(factor * miles[:2000], miles[2000:], 0.07)]}, SETTINGS)
    assert verdict.name == "scale of size since the data accepted before"
    assert verdict.outcome is Outcome.REFUSED
    assert "unit" in verdict.reason


def test_redraws_of_one_column_keep_their_scale(draws):
    for _ in range(100):
        miles = np.round(draws.gamma(0.5, 4.0, 1000), 1)
        assert numbers(miles[:500], miles[500:], 0.0).factor < SETTINGS.max_factor


def lognormal(draws: np.random.Generator, rows: int, sigma: float) -> np.ndarray:
    return np.exp(sigma * draws.normal(size=rows))


@pytest.mark.parametrize("sigma", [1.0, 3.0, 5.0])
def test_redraws_of_a_column_of_any_spread_are_not_refused(draws, sigma):
    for _ in range(150):
        redrawn = numbers(lognormal(draws, 500, sigma), lognormal(draws, 500, sigma), 0.0)
        assert outcomes(PREVIOUS, redrawn) == {"drift since the data accepted before": Outcome.PASSED}


@pytest.mark.parametrize("factor", [1.609, 1 / 1.609])
def test_a_change_of_unit_is_found_in_a_widely_spread_column_of_enough_rows(draws, factor):
    there, here = (lognormal(draws, 7888, 2.0) for _ in range(2))
    assert outcomes(PREVIOUS, numbers(factor * here, there, 0.0)) == {
        "scale of size since the data accepted before": Outcome.REFUSED
    }


def test_deciles_about_zero_tell_no_scale(draws):
    spread = of(draws.normal(size=1000)).spread()
    assert spread.shape == (9,)
    assert np.isinf(spread[3:6]).any()
    empty = of(np.zeros(1000))
    assert numbers(np.zeros(1000), np.zeros(1000), 0.0).noise_factor == np.inf
    assert np.isinf(empty.spread()).all()


def test_deciles_come_from_the_quantiles_and_not_from_equal_bins():
    column = statistics_pb2.FeatureNameStatistics()
    column.num_stats.histograms.add(type=statistics_pb2.Histogram.STANDARD).buckets.add(high_value=9)
    quantiles = column.num_stats.histograms.add(type=statistics_pb2.Histogram.QUANTILES)
    for low in range(10):
        quantiles.buckets.add(low_value=low, high_value=low + 1)
    found = deciles(column)
    assert found is not None
    assert found.edges == tuple(float(edge) for edge in range(11))
    assert deciles(statistics_pb2.FeatureNameStatistics()) is None
