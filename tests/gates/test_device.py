import numpy as np
import pytest

from gates.device import UNTREATED, Failed, Judged, Ran, Served, judge_devices, judge_rows
from gates.intervals import Bootstrap
from gates.settings import DeviceBudget
from gates.verdict import Outcome
from schemas.features import DType, Label, LabelKind
from tflite import variants

ROWS = 4000
LABEL = Label("late", DType.INT, LabelKind.BINARY, ("0", "1"))
RANDOM = np.random.default_rng(7)
SIGNAL = RANDOM.normal(size=ROWS)
TRUTH = (SIGNAL + RANDOM.normal(size=ROWS) > 0).astype(np.float64)


def scores(logits):
    positive = 1 / (1 + np.exp(-logits))
    return np.stack([1 - positive, positive], axis=1)


SERVER = scores(SIGNAL)


def ran(name="int8", answers=SERVER, size=40_000, p99=0.05):
    return Ran(name, answers, size, size // 2, 3.0, 0.02, p99, 1_000_000)


BUDGET = DeviceBudget()
EXACT = ran("float32", size=160_000)


def judge(
    *found, asked=None, budget=BUDGET, truth=TRUTH, answers=SERVER, label=LABEL, threshold=None
) -> Judged:
    served = Served(label, truth, answers, 1_700_000, threshold)
    names = [one.name for one in found] if asked is None else asked
    return judge_devices(served, found, names, budget, 1e-5, Bootstrap.draw(len(truth), 100, 0.95))


def verdict(judged, name):
    return next(one for one in judged.verdicts if one.name == name)


def test_the_smallest_model_inside_the_budget_is_recommended():
    judged = judge(EXACT, ran("int8"), ran("float16", size=80_000))
    assert judged.evidence.recommended == "int8"
    assert "smallest of the 3" in judged.evidence.reason
    assert all(one.passed for one in judged.verdicts)


def test_a_model_that_lost_quality_is_reported_and_not_blessed():
    worse = scores(SIGNAL + RANDOM.normal(size=ROWS))
    judged = judge(EXACT, ran("int8", worse))
    figures = judged.evidence.variants[1]
    assert not figures.is_blessed
    assert "max_auc_drop" in figures.fault
    assert figures.low < figures.drop < figures.high
    assert judged.evidence.recommended == "float32"
    assert verdict(judged, "device model int8").outcome is Outcome.WARNED


@pytest.mark.parametrize(
    ("budget", "key"),
    [
        (DeviceBudget(max_bytes=39_999), "tflite.budget.max_bytes"),
        (DeviceBudget(max_p99_milliseconds=0.04), "tflite.budget.max_p99_milliseconds"),
    ],
)
def test_where_none_fits_the_stage_is_refused_and_every_variant_says_why(budget, key):
    judged = judge(EXACT, ran(), budget=budget)
    refusal = verdict(judged, "device models")
    assert refusal.outcome is Outcome.REFUSED
    assert refusal.reason.count(key) == 2
    assert judged.evidence.recommended is None


def test_a_bound_itself_is_inside_the_budget():
    judged = judge(EXACT, ran(), budget=DeviceBudget(max_bytes=40_000, max_p99_milliseconds=0.05))
    assert judged.evidence.recommended == "int8"


def test_other_preprocessing_on_the_device_is_refused_even_inside_the_budget():
    nudged = SERVER.copy()
    nudged[17] += (-2e-5, 2e-5)
    judged = judge(ran("float32", nudged))
    assert verdict(judged, "same answers on the device").outcome is Outcome.REFUSED
    assert verdict(judged, "device models").passed


def test_swapped_classes_are_refused():
    judged = judge(ran("float32", SERVER[:, ::-1]))
    assert not verdict(judged, "same answers on the device").passed
    assert not judged.evidence.variants[0].is_blessed


def test_a_model_that_answers_nan_or_not_at_all_is_not_blessed():
    broken = SERVER.copy()
    broken[3] = np.nan
    judged = judge(EXACT, ran("int8", broken), Failed("int16x8", "GATHER cannot be had in 16 bits"))
    assert judged.evidence.failed == {
        "int8": "it answers 2 times with NaN or infinity",
        "int16x8": "GATHER cannot be had in 16 bits",
    }
    assert verdict(judged, "device models").figure == "1 of 3"


def test_without_the_float32_model_nothing_vouches_for_the_preprocessing():
    judged = judge(Failed("float32", "GATHER fails"), ran("int8"))
    assert "GATHER fails" in verdict(judged, "same answers on the device").reason
    assert not verdict(judged, "same answers on the device").passed


def test_decisions_are_counted_at_the_threshold_that_serves():
    nudged = scores(SIGNAL + 1e-6)
    row = int(np.argmin(np.abs(SIGNAL - 1.0)))
    threshold = float((SERVER[row, 1] + nudged[row, 1]) / 2)
    assert judge(EXACT, ran("int8", nudged)).evidence.variants[1].flips == 0
    assert judge(EXACT, ran("int8", nudged), threshold=threshold).evidence.variants[1].flips == 1


def test_a_regression_is_judged_by_its_loss_as_a_share():
    label = Label("price", DType.FLOAT, LabelKind.REGRESSION)
    truth = SIGNAL + RANDOM.normal(size=ROWS)
    judged = judge(
        ran("float32", SIGNAL), ran("int8", SIGNAL * 1.2), truth=truth, answers=SIGNAL, label=label
    )
    first, second = judged.evidence.variants
    assert (first.drop, first.flips) == (0.0, None)
    assert second.drop == pytest.approx((second.value - judged.evidence.value) / judged.evidence.value)
    assert not second.is_blessed


def test_float32_vouches_for_the_preparation_but_ships_only_if_it_is_asked_for():
    judged = judge(EXACT, ran("int8", size=90_000), asked=["int8"], budget=DeviceBudget(max_bytes=80_000))
    assert [one.name for one in judged.evidence.variants] == ["int8"]
    assert verdict(judged, "same answers on the device").passed
    assert verdict(judged, "device models").outcome is Outcome.REFUSED
    assert variants.UNTREATED.name == UNTREATED


@pytest.mark.parametrize(
    ("rows", "refused", "outcome"),
    [
        (1000, 0, Outcome.PASSED),
        (1000, 10, Outcome.WARNED),
        (1000, 11, Outcome.REFUSED),
        (1, 1, Outcome.REFUSED),
        (0, 0, Outcome.REFUSED),
    ],
)
def test_rows_that_the_client_refuses_are_counted_against_a_bound(rows, refused, outcome):
    found = judge_rows(rows, refused, "column 'carrier' is missing" if refused else "", 0.01)
    assert found.outcome is outcome
    assert ("'carrier' is missing" in found.reason) == bool(refused)


def test_a_file_that_learns_is_never_the_one_to_ship():
    judged = judge(ran("trainable+float32", size=10), EXACT)
    assert judged.evidence.recommended == "float32"
    alone = judge(ran("trainable+float32", size=10), EXACT, asked=["trainable+float32"])
    assert not verdict(alone, "device models").passed
