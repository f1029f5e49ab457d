"""Anomalies, numbers of rows, missing and new values: what stops a run and what does not."""

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from gates.data import (
    Missing,
    NewValues,
    judge_anomalies,
    judge_missing,
    judge_new_values,
    judge_rows,
    judge_rows_counted,
    missing_shares,
)
from gates.settings import AnomalyRule, DataGateSettings
from gates.verdict import Outcome

ERROR, WARNING = anomalies_pb2.AnomalyInfo.ERROR, anomalies_pb2.AnomalyInfo.WARNING
UNSEEN = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"
SETTINGS = DataGateSettings()


def unseen_values(severity: int = ERROR) -> anomalies_pb2.Anomalies:
    found = anomalies_pb2.Anomalies()
    info = found.anomaly_info["color"]
    info.severity = severity
    info.path.step.append("color")
    info.reason.add(
        type=anomalies_pb2.AnomalyInfo.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
        short_description="Unexpected string values",
        description="Examples contain values missing from the schema: mauve (7%).",
    )
    return found


def outcomes(found: anomalies_pb2.Anomalies, *rules: AnomalyRule) -> list[Outcome]:
    return [verdict.outcome for verdict in judge_anomalies({"test": found}, rules)]


def test_an_error_is_refused_with_column_split_kind_and_both_descriptions():
    [verdict] = judge_anomalies({"test": unseen_values()}, ())
    assert verdict.outcome is Outcome.REFUSED
    for part in ("'color'", "test split", UNSEEN, "Unexpected string values", "mauve", "data_gate.rules"):
        assert part in verdict.reason


def test_a_warning_of_tfdv_is_a_warning():
    assert outcomes(unseen_values(WARNING)) == [Outcome.WARNED]


def test_data_without_an_anomaly_passes():
    assert outcomes(anomalies_pb2.Anomalies()) == [Outcome.PASSED]


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (AnomalyRule("warn", "color", UNSEEN), Outcome.WARNED),
        (AnomalyRule("warn", "color"), Outcome.WARNED),
        (AnomalyRule("warn", kind=UNSEEN), Outcome.WARNED),
        (AnomalyRule("warn", "colo"), Outcome.REFUSED),
        (AnomalyRule("warn", "color", "FEATURE_TYPE_NOT_PRESENT"), Outcome.REFUSED),
        (AnomalyRule("quarantine", "color"), Outcome.REFUSED),
    ],
)
def test_a_rule_says_what_follows_from_the_column_and_the_kind_that_it_names(rule, outcome):
    assert outcomes(unseen_values(), rule) == [outcome]


def test_a_rule_may_make_an_error_of_a_warning_and_the_first_that_fits_counts():
    rules = (AnomalyRule("fail", "color"), AnomalyRule("warn"))
    assert outcomes(unseen_values(WARNING), *rules) == [Outcome.REFUSED]


def test_each_of_two_reasons_of_one_column_needs_its_own_rule():
    found = unseen_values()
    found.anomaly_info["color"].reason.add(type=anomalies_pb2.AnomalyInfo.FEATURE_TYPE_LOW_FRACTION_PRESENT)
    assert outcomes(found, AnomalyRule("warn", kind=UNSEEN)) == [Outcome.WARNED, Outcome.REFUSED]


def test_names_are_unique_where_one_kind_is_found_twice():
    found = unseen_values()
    found.anomaly_info["color"].reason.add(type=anomalies_pb2.AnomalyInfo.ENUM_TYPE_UNEXPECTED_STRING_VALUES)
    names = [verdict.name for verdict in judge_anomalies({"test": found}, ())]
    assert names == [f"{UNSEEN} of color in test", f"{UNSEEN} of color in test (2)"]


def test_a_finding_on_the_whole_dataset_and_missing_data_are_refused():
    found = anomalies_pb2.Anomalies(data_missing=True)
    found.dataset_anomaly_info.severity = ERROR
    found.dataset_anomaly_info.short_description = "Low num examples in dataset."
    assert outcomes(found) == [Outcome.REFUSED, Outcome.REFUSED]


def refused(verdicts) -> list[str]:
    return [verdict.reason for verdict in verdicts if not verdict.passed]


def test_a_split_with_too_few_rows_is_refused_by_name():
    [reason] = refused(judge_rows({"train": 900, "validation": 49, "test": 50}, {}, SETTINGS))
    assert "validation" in reason
    assert "49" in reason


@pytest.mark.parametrize("rows", [300, 2000])
def test_a_jump_of_the_number_of_rows_is_refused_and_a_growth_is_not(rows):
    before = {"train": 800, "test": 200}
    assert refused(judge_rows({"train": 1200, "test": 250}, before, SETTINGS)) == []
    [reason] = refused(judge_rows({"train": rows - 100, "test": 100}, before, SETTINGS))
    assert f"{rows:,} rows" in reason
    assert "1,000 accepted before" in reason


def test_where_a_split_begins_is_no_jump():
    assert refused(judge_rows({"train": 300, "test": 700}, {"train": 800, "test": 200}, SETTINGS)) == []


def test_rows_that_statistics_did_not_see_are_refused():
    [reason] = refused(judge_rows_counted({"train": 900, "test": 100}, {"train": 900, "test": 99}))
    assert "test split has 100 rows, and StatisticsGen counted 99" in reason


def test_missing_values_are_counted_with_what_is_not_a_number():
    found = statistics_pb2.DatasetFeatureStatistics(num_examples=100)
    column = found.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT)
    column.path.step.append("size")
    column.num_stats.common_stats.num_missing, column.num_stats.common_stats.num_non_missing = 10, 90
    for _ in range(2):
        column.num_stats.histograms.add(num_nan=5)
    assert missing_shares(found) == {"size": 0.15}


TRAIN = Missing({"size": 0.1, "note": 0.0}, 5000)


def test_a_column_that_stopped_being_filled_is_refused_and_one_nobody_uses_is_not():
    splits = {"train": TRAIN, "test": Missing({"size": 0.5, "note": 1.0}, 1000)}
    [reason] = refused(judge_missing(splits, None, ["size"], SETTINGS))
    assert "'size' has no value in 50.0% of the test split and in 10.0% of train" in reason


def test_a_column_that_a_split_lacks_altogether_is_missing_there():
    splits = {"train": TRAIN, "test": Missing({}, 1000)}
    assert refused(judge_missing(splits, None, ["size"], SETTINGS))


def test_a_change_that_chance_explains_is_not_refused():
    splits = {"train": TRAIN, "test": Missing({"size": 0.4}, 30)}
    assert refused(judge_missing(splits, Missing({"size": 0.4}, 30), ["size"], SETTINGS)) == []


def test_a_column_that_is_filled_in_no_split_any_more_is_refused_for_the_data_before():
    now = {split: Missing({"size": 0.95}, 1000) for split in ("train", "validation", "test")}
    [verdict] = judge_missing(now, Missing({"size": 0.02}, 1000), ["size"], SETTINGS)
    assert verdict.name == "missing values of size since the data accepted before"
    assert "95.0% of train and in 2.0% of the train split accepted before" in verdict.reason
    gone = {split: Missing({}, 1000) for split in now}
    assert refused(judge_missing(gone, Missing({"size": 0.02}, 1000), ["size"], SETTINGS))


def test_a_column_that_the_data_before_did_not_have_is_new_and_not_refused():
    now = {split: Missing({"size": 0.0}, 1000) for split in ("train", "test")}
    [verdict] = judge_missing(now, Missing({}, 1000), ["size"], SETTINGS)
    assert verdict.outcome is Outcome.PASSED


def test_new_values_are_refused_with_the_most_frequent_of_them():
    new = {"test": {"color": NewValues(100, 11, ("mauve", "teal")), "shape": NewValues(100, 10)}}
    [reason] = refused(judge_new_values(new, SETTINGS))
    for part in ("11.0%", "'color'", "test", "mauve, teal"):
        assert part in reason
