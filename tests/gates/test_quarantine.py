"""Which rows a rule sets aside."""

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from gates.quarantine import _CHECKS, SetAside, checks, judge_set_aside, rule_faults
from gates.settings import AnomalyRule

SCHEMA = text_format.Parse(
    """
    feature { name: "color" type: BYTES domain: "colors" }
    feature { name: "size" type: FLOAT float_domain { min: 0 max: 9 disallow_nan: true } }
    feature { name: "count" type: INT int_domain { min: 1 } presence { min_fraction: 1 } value_count { max: 1 } }
    feature { name: "flag" type: INT bool_domain {} }
    string_domain { name: "colors" value: "red" value: "blue" }
    """,
    schema_pb2.Schema(),
)
ALL = (AnomalyRule("quarantine"),)


def wrong(column: str, values: np.ndarray, rows: list[int], total: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for check in checks(SCHEMA, ALL):
        if check.column == column:
            rows_that_fail = np.flatnonzero(check.wrong_rows(np.array(rows), values, total)).tolist()
            found |= {check.kind: rows_that_fail} if rows_that_fail else {}
    return found


def test_a_value_outside_a_shared_domain():
    values = np.array([b"red", b"mauve", b"blue"], object)
    assert wrong("color", values, [0, 2, 3], 5) == {"ENUM_TYPE_UNEXPECTED_STRING_VALUES": [2]}


def test_numbers_outside_their_range_or_no_numbers():
    values = np.array([1.0, -1.0, 10.0, np.nan], np.float32)
    assert wrong("size", values, [0, 1, 2, 3], 4) == {
        "FLOAT_TYPE_SMALL_FLOAT": [1],
        "FLOAT_TYPE_BIG_FLOAT": [2],
        "FLOAT_TYPE_HAS_NAN": [3],
    }


def test_integers_missing_too_many_or_too_small():
    assert wrong("count", np.array([1, 0, 5, 5]), [0, 2, 3, 3], 4) == {
        "INT_TYPE_SMALL_INT": [2],
        "FEATURE_TYPE_LOW_FRACTION_PRESENT": [1],
        "FEATURE_TYPE_HIGH_NUMBER_VALUES": [3],
    }


def test_a_flag_is_zero_or_one():
    assert wrong("flag", np.array([0, 1, 2, -1]), [0, 1, 2, 3], 4) == {
        "BOOL_TYPE_BIG_INT": [2],
        "BOOL_TYPE_SMALL_INT": [3],
    }


def test_the_first_rule_that_fits_decides():
    rules = (
        AnomalyRule("fail", "size"),
        AnomalyRule("quarantine", kind="FLOAT_TYPE_HAS_NAN"),
        AnomalyRule("quarantine", "flag"),
    )
    assert {check.column for check in checks(SCHEMA, rules)} == {"flag"}


def test_a_kind_that_is_not_of_single_rows_is_a_fault_of_the_configuration():
    rules = [
        AnomalyRule("quarantine"),
        AnomalyRule("fail", kind="SCHEMA_MISSING_COLUMN"),
        AnomalyRule("quarantine", kind="INT_TYPE_BIG_INTS"),
    ]
    [fault] = rule_faults(rules)
    assert fault.startswith("data_gate.rules.2.kind: 'INT_TYPE_BIG_INTS' is no anomaly of single rows")
    assert "did you mean INT_TYPE_BIG_INT?" in fault


@pytest.mark.parametrize("kind", _CHECKS)
def test_kinds_are_named_as_tfdv_names_them(kind):
    assert kind in anomalies_pb2.AnomalyInfo.Type.keys()  # noqa: SIM118 (no mapping)


def test_more_rows_than_may_be_set_aside_are_refused_with_what_is_wrong_with_them():
    found = {
        "train": SetAside(1000, 10, {"size: above 9": 10}),
        "test": SetAside(100, 2, {"size: above 9": 2, "flag: above 1": 1}),
        "validation": SetAside(100, 0, {}),
    }
    verdicts = judge_set_aside(found, 0.01)
    assert [verdict.passed for verdict in verdicts] == [True, False, True]
    assert (
        "2 of 100 rows of the test split are set aside (size: above 9: 2, flag: above 1: 1), 2.0%"
        in verdicts[1].reason
    )
