from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from ingest.errors import DataError
from pipeline.components.parquet_executor import to_example


def values(value: Any) -> list[Any]:
    feature = to_example({"x": value}).features.feature["x"]
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, [0]),
        (False, [0]),
        (0.0, [0.0]),
        ("", [b""]),
        (None, []),
        (float("nan"), []),
        (Decimal("1.5"), [1.5]),
        (date(1970, 1, 2), [86400]),
        (datetime.fromisoformat("1970-01-01T00:01"), [60]),
        (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), [60]),
        (datetime.fromisoformat("1969-12-31T23:59:59.5"), [-1]),
        (["a", "b"], [b"a", b"b"]),
        ([1, None, 2], [1, 2]),
        ([], []),
    ],
)
def test_a_value_is_written_as_a_query_would_write_it(value: Any, written: list[Any]) -> None:
    assert values(value) == written


def test_a_value_that_no_example_can_hold_is_refused_with_its_column() -> None:
    with pytest.raises(DataError, match=r"column 'x' holds .* a dict"):
        to_example({"x": {"a": 1}})
