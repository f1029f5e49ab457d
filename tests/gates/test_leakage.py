"""Leaks that are planted are named; ordinary tables raise no alarm."""

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets

from gates.baselines import Rows
from gates.leakage import (
    Target,
    TimeRange,
    judge_columns,
    judge_keys,
    judge_repeats,
    judge_shared_rows,
    judge_time,
)
from gates.settings import LeakageSettings
from gates.verdict import Outcome
from schemas.features import LabelKind, SchemaError, feature_set

SETTINGS = LeakageSettings()
BINARY = Target(LabelKind.BINARY, ("0", "1"))
NUMBER = Target(LabelKind.REGRESSION, ())


def late_flights(rows: int = 3000) -> tuple[pd.DataFrame, np.ndarray]:
    """Flights whose lateness is hardly known before they leave, and what is known afterwards."""
    random = np.random.default_rng(5)
    departs = random.integers(300, 1300, rows).astype(float)
    lasts = random.integers(60, 360, rows).astype(float)
    wind = random.gamma(2.0, 5.0, rows)
    delay = random.normal(0.0, 30.0, rows) + wind + departs / 60
    after = {"leaves_late": delay + random.normal(0.0, 12.0, rows), "arrives": departs + lasts + delay}
    columns = pd.DataFrame({"departs": departs, "lasts": lasts, "wind": wind, **after})
    return columns, (delay > 40).astype(float)


def refused(target: Target, columns: pd.DataFrame, truth: np.ndarray) -> dict[str, str]:
    findings = judge_columns(target, Rows(columns, truth), SETTINGS)
    return {v.name.removeprefix("leak of the label in "): v.reason for v in findings.verdicts if not v.passed}


def test_a_table_without_a_leak_passes_and_its_columns_are_measured():
    columns, truth = late_flights()
    findings = judge_columns(BINARY, Rows(columns[["departs", "lasts", "wind"]], truth), SETTINGS)
    assert [verdict.passed for verdict in findings.verdicts] == [True]
    assert set(findings.alone) == set(findings.gain) == {"departs", "lasts", "wind"}
    assert findings.alone["wind"] > findings.alone["lasts"]


@pytest.mark.parametrize("leak", ["leaves_late", "arrives"])
def test_what_is_known_only_afterwards_is_named_though_it_may_say_little_alone(leak):
    columns, truth = late_flights()
    assert set(refused(BINARY, columns[["departs", "lasts", "wind", leak]], truth)) == {leak}


def test_two_leaks_do_not_hide_each_other():
    columns, truth = late_flights()
    columns["noise"] = np.random.default_rng(1).normal(size=len(truth))
    assert "arrives" in refused(BINARY, columns, truth)


def test_a_text_column_that_nearly_is_the_label_is_told_with_what_its_values_say():
    columns, truth = late_flights()
    random = np.random.default_rng(2)
    paid = np.where(truth > 0, "card", np.where(random.random(len(truth)) < 0.15, "card", "cash"))
    table = columns[["departs", "lasts", "wind"]].assign(paid=pd.Series(paid, dtype="category"))
    reasons = refused(BINARY, table, truth)
    assert set(reasons) == {"paid"}
    for part in ("share of '1'", "cash 0.0 %", "drop the column", "overrides"):
        assert part in reasons["paid"]


def test_the_label_under_another_name_is_refused_in_an_easy_table_too():
    table = datasets.load_breast_cancer(as_frame=True)
    truth = table.target.to_numpy(float)
    assert refused(BINARY, table.data, truth) == {}
    assert set(refused(BINARY, table.data.assign(again=truth), truth)) == {"again"}


def test_ordinary_tables_raise_no_alarm():
    random, regression = np.random.default_rng(0), datasets.load_diabetes(as_frame=True)
    twice = pd.concat([regression.data, regression.data], ignore_index=True)
    target = np.tile(regression.target.to_numpy(float), 2) + random.normal(0, 5, len(twice))
    assert refused(NUMBER, twice, target) == {}
    numbers, smooth = datasets.make_friedman1(2000, noise=1.0, random_state=0)
    assert refused(NUMBER, pd.DataFrame(numbers).rename(columns=str), smooth) == {}
    made, classes = datasets.make_classification(2000, 10, n_informative=5, n_classes=3, random_state=0)
    several = Target(LabelKind.MULTICLASS, ("a", "b", "c"))
    assert refused(several, pd.DataFrame(made).rename(columns=str), classes.astype(float)) == {}


def test_the_sum_that_gives_a_number_away_is_refused():
    numbers, truth = datasets.make_friedman1(2000, noise=3.0, random_state=0)
    table = (
        pd.DataFrame(numbers)
        .rename(columns=str)
        .assign(total=truth + np.random.default_rng(0).normal(size=2000) / 9)
    )
    assert set(refused(NUMBER, table, truth)) == {"total"}


def test_few_rows_or_few_of_a_class_are_not_judged_and_that_is_said():
    columns, truth = late_flights(400)
    [verdict] = judge_columns(BINARY, Rows(columns, truth), SETTINGS).verdicts
    assert (verdict.name, verdict.outcome) == ("leak of the label", Outcome.WARNED)
    assert "not judged, because train has 400 rows" in verdict.reason
    columns, _ = late_flights()
    rare = (np.arange(3000) % 110 == 0).astype(float)
    [verdict] = judge_columns(BINARY, Rows(columns.assign(again=rare), rare), SETTINGS).verdicts
    assert verdict.outcome is Outcome.WARNED
    assert "28 are of class '1'" in verdict.reason


def test_of_several_classes_those_that_are_too_rare_are_told():
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 2000).astype(float)
    truth[:10] = 2
    several = Target(LabelKind.MULTICLASS, ("a", "b", "c"))
    [verdict] = judge_columns(several, Rows(pd.DataFrame({"x": truth * 0}), truth), SETTINGS).verdicts
    assert "1 classes with fewer than 30 rows" in verdict.reason


def good_columns(count: int) -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(4)
    truth = (random.random(4000) < 0.5).astype(float)
    columns = {f"good_{place}": 2.3 * truth + random.normal(size=4000) for place in range(count)}
    return pd.DataFrame(columns), truth


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_columns_that_are_all_good_are_not_refused(count):
    columns, truth = good_columns(count)
    [verdict] = judge_columns(BINARY, Rows(columns, truth), SETTINGS).verdicts
    assert verdict.outcome is (Outcome.WARNED if count < 3 else Outcome.PASSED)
    assert f"has AUC {verdict.figure}" in verdict.reason


@pytest.mark.parametrize("count", [0, 1])
def test_one_of_few_columns_that_is_the_label_is_refused(count):
    columns, truth = good_columns(count)
    assert set(refused(BINARY, columns.assign(again=truth), truth)) == {"again"}


def test_a_wide_table_is_searched_among_its_best_columns():
    random = np.random.default_rng(6)
    columns, truth = late_flights()
    noise = pd.DataFrame(random.normal(size=(len(truth), 40))).rename(columns=lambda place: f"noise_{place}")
    table = pd.concat([noise, columns[["departs", "leaves_late"]]], axis=1)
    findings = judge_columns(BINARY, Rows(table, truth), SETTINGS)
    assert [v.name for v in findings.verdicts] == ["leak of the label in leaves_late"]
    assert len(findings.alone) == 42
    assert len(findings.gain) == 30
    assert "leaves_late" in findings.gain


def test_a_feature_that_no_served_row_can_carry_is_refused_with_the_schema():
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    text = """
      feature { name: "tip" type: FLOAT not_in_environment: "SERVING" }
      feature { name: "y" type: INT bool_domain {} }"""
    with pytest.raises(SchemaError, match="'tip' is absent in the SERVING environment"):
        feature_set(text_format.Parse(text, schema_pb2.Schema()), "y")


def hashes(values) -> np.ndarray:
    return np.asarray(values, np.uint64)


def failed(verdicts) -> dict[str, str]:
    return {verdict.name: verdict.reason for verdict in verdicts if not verdict.passed}


def test_a_key_may_stand_once_and_in_one_split():
    assert failed(judge_keys({"train": hashes([1, 2]), "test": hashes([3])}, ["id"])) == {}
    found = failed(judge_keys({"train": hashes([1, 2, 2]), "test": hashes([2, 3])}, ["id", "day"]))
    assert set(found) == {"repeated keys in train", "keys of test in train"}
    assert "1 keys id + day of the test split are in the train split too" in found["keys of test in train"]


def test_rows_of_test_that_are_in_train_are_refused():
    train, test = hashes(range(1000)), hashes(range(5000, 5200))
    assert failed(judge_shared_rows({"train": train, "test": test}, SETTINGS)) == {}
    leaked = hashes([*test[:100], *train[:100]])
    found = failed(judge_shared_rows({"train": train, "test": leaked}, SETTINGS))
    assert "50.0% of the rows of the test split" in found["rows of test in train"]


def test_rows_of_test_that_are_in_validation_are_refused():
    splits = {"train": hashes(range(1000)), "validation": hashes(range(2000, 2500))}
    test = hashes(range(5000, 5500))
    assert failed(judge_shared_rows({**splits, "test": test}, SETTINGS)) == {}
    copied = hashes([*test, *splits["validation"][:200]])
    found = failed(judge_shared_rows({**splits, "test": copied}, SETTINGS))
    assert set(found) == {"rows of test in validation"}
    assert (
        "28.6% of the rows of the test split stand in validation too" in found["rows of test in validation"]
    )


@pytest.mark.parametrize("values", [3, 300, 3000, 300_000])
def test_natural_twins_of_tables_of_few_values_are_no_leak(values):
    random = np.random.default_rng(values)
    for _ in range(5):
        skewed = (values * random.random(6000) ** 3).astype(np.uint64)
        splits = {"train": skewed[:4000], "validation": skewed[4000:4500], "test": skewed[4500:]}
        assert failed(judge_shared_rows(splits, SETTINGS)) == {}
        assert failed(judge_repeats(splits, SETTINGS)) == {}


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("values", [30_000, 10**9])
def test_a_batch_that_was_loaded_again_is_refused(values, times):
    rows = np.random.default_rng(1).integers(values, size=4000).astype(np.uint64)
    found = failed(judge_repeats({"train": np.concatenate([rows, *[rows[:800]] * (times - 1)])}, SETTINGS))
    assert "a batch was loaded twice" in found["repeated rows in train"]


def test_a_later_split_may_begin_where_the_earlier_ends_and_not_before():
    ranges = {"train": TimeRange(0, 10), "validation": TimeRange(10, 12), "test": TimeRange(11, 20)}
    found = failed(judge_time(ranges, "day"))
    assert set(found) == {"order of validation and test"}
    assert "begins at day 11 and the validation split ends at 12" in found["order of validation and test"]


def test_dates_as_text_are_in_order_too():
    ranges = {"train": TimeRange("2013-01-01", "2013-08-31"), "test": TimeRange("2013-09-01", "2013-12-31")}
    assert failed(judge_time(ranges, "day")) == {}
