import json

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2

from gates.data import judge_data
from gates.verdict import Verdict

ERROR = anomalies_pb2.AnomalyInfo.ERROR
WARNING = anomalies_pb2.AnomalyInfo.WARNING


def unseen_values(column: str = "color", severity: int = ERROR) -> anomalies_pb2.Anomalies:
    found = anomalies_pb2.Anomalies()
    info = found.anomaly_info[column]
    info.severity = severity
    info.path.step.append(column)
    info.reason.add(
        type=anomalies_pb2.AnomalyInfo.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
        short_description="Unexpected string values",
        description="Examples contain values missing from the schema: mauve (7%).",
    )
    return found


def refusals(*args, **kwargs) -> list[str]:
    return [verdict.reason for verdict in judge_data(*args, **kwargs) if not verdict.passed]


def test_clean_data_of_enough_rows_passes():
    assert refusals({"train": anomalies_pb2.Anomalies()}, {"train": 50}, min_rows=50) == []


def test_an_error_is_refused_with_column_split_kind_and_both_descriptions():
    [reason] = refusals({"test": unseen_values()}, {"test": 50}, min_rows=50)
    kind = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"
    for part in ("'color'", "test", kind, "Unexpected string values", "mauve"):
        assert part in reason


def test_a_warning_does_not_stop_a_run():
    assert refusals({"train": unseen_values(severity=WARNING)}, {"train": 50}, min_rows=50) == []


@pytest.mark.parametrize("ignore", ["color", "color:ENUM_TYPE_UNEXPECTED_STRING_VALUES"])
def test_an_ignored_finding_passes_but_is_still_told(ignore):
    verdicts = judge_data({"train": unseen_values()}, {"train": 50}, 50, [ignore])
    assert all(verdict.passed for verdict in verdicts)
    assert any("mauve" in verdict.reason for verdict in verdicts)


@pytest.mark.parametrize("ignore", ["colo", "color:FEATURE_TYPE_NOT_PRESENT", "shape"])
def test_ignoring_another_finding_lets_nothing_pass(ignore):
    assert len(refusals({"train": unseen_values()}, {"train": 50}, 50, [ignore])) == 1


def test_each_of_two_reasons_of_one_column_has_to_be_ignored():
    found = unseen_values()
    found.anomaly_info["color"].reason.add(type=anomalies_pb2.AnomalyInfo.FEATURE_TYPE_LOW_FRACTION_PRESENT)
    ignore = ["color:ENUM_TYPE_UNEXPECTED_STRING_VALUES"]
    [reason] = refusals({"train": found}, {"train": 50}, 50, ignore)
    assert "FEATURE_TYPE_LOW_FRACTION_PRESENT" in reason


def test_a_split_with_too_few_rows_is_refused_by_name():
    [reason] = refusals({}, {"train": 900, "validation": 49, "test": 50}, min_rows=50)
    assert "validation" in reason
    assert "49" in reason


def test_a_finding_on_the_whole_dataset_is_refused():
    found = anomalies_pb2.Anomalies()
    found.dataset_anomaly_info.severity = ERROR
    found.dataset_anomaly_info.short_description = "Low num examples in dataset."
    [reason] = refusals({"train": found}, {}, min_rows=1)
    assert "Low num examples" in reason


def test_verdicts_survive_their_text_form():
    verdicts = judge_data({"train": unseen_values()}, {"train": 3}, 50)
    assert tuple(Verdict.from_json(json.loads(json.dumps(one.to_json()))) for one in verdicts) == verdicts
