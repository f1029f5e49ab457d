"""Every row of a batch is read as the model's columns, or becomes a dead letter that says why."""

from datetime import date
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.decoding import Decoder, _text_to_float, _text_to_int, check_carried
from beam_jobs.rows import Batch, PredictionError
from ingest.query import Column
from schemas.features import DType


def decoded(pushed, columns, carry=(), **fields):
    rows = len(next(iter(columns.values())))
    batch = Batch("days.csv", range(1, rows + 1), columns, **fields)
    return Decoder(pushed, carry).decode(batch)


def from_csv(pushed, carry=(), **columns):
    binary = {name: pa.array(values, pa.binary()) for name, values in columns.items()}
    raw = [b",".join(v or b"" for v in row) for row in zip(*columns.values(), strict=True)]
    return decoded(pushed, binary, carry, is_text=True, raw=raw)


def reasons(dead):
    return {letter.position: letter.reason for letter in dead}


def example(serialized):
    features = tf.train.Example.FromString(serialized).features.feature
    return {
        name: list(getattr(feature, feature.WhichOneof("kind")).value) if feature.WhichOneof("kind") else []
        for name, feature in features.items()
    }


def test_fields_of_a_csv_file_become_the_types_of_the_model(pushed):
    rows, dead = from_csv(
        pushed,
        day=[b"mon", b"tue"],
        humidity=[b" 40.5 ", b"1e2"],
        gusts=[b"3", None],
        place=["Öl".encode(), b"x"],
    )
    assert dead == []
    assert example(rows.examples[0]) == {"humidity": [40.5], "gusts": [3], "place": ["Öl".encode()]}
    assert example(rows.examples[1])["gusts"] == []
    assert rows.carried.to_pydict() == {"day": ["mon", "tue"]}


@pytest.mark.parametrize(
    ("column", "field", "reason"),
    [
        ("humidity", b"damp", "humidity is b'damp', not a number"),
        ("humidity", b"1_0", "humidity is b'1_0', not a number"),
        ("humidity", None, "misses humidity, which the model requires"),
        ("humidity", b"nan", "misses humidity, which the model requires"),
        ("humidity", b"-Infinity", "misses humidity, which the model requires"),
        ("gusts", b"2.5", "gusts is b'2.5', not a whole number"),
        ("gusts", b"0x1F", "gusts is b'0x1F', not a whole number"),
        ("gusts", b"9223372036854775808", "gusts is b'9223372036854775808', not a whole number"),
        ("place", b"\xe9t\xe9", "place is b'\\xe9t\\xe9', not text in UTF-8"),
        ("day", None, "misses day, which names the row"),
        ("day", b"", "misses day, which names the row"),
    ],
)
def test_a_field_that_cannot_be_used_takes_its_row_alone(pushed, column, field, reason):
    good = {"day": b"d", "humidity": b"1", "gusts": b"2", "place": b"p"}
    columns = {name: [value, field if name == column else value, value] for name, value in good.items()}
    rows, dead = from_csv(pushed, **columns)
    assert reasons(dead) == {"2": reason}
    assert rows.rows.tolist() == [0, 2]
    assert dead[0].raw == b",".join(columns[name][1] or b"" for name in columns)


def test_whole_numbers_may_be_written_as_pandas_and_spreadsheets_write_them(pushed):
    rows, dead = from_csv(
        pushed,
        day=[b"a"] * 4,
        humidity=[b"1"] * 4,
        gusts=[b"12.0", b"true", b"False", b"+7"],
        place=[b"p"] * 4,
    )
    assert dead == []
    assert [example(e)["gusts"] for e in rows.examples] == [[12], [1], [0], [7]]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("0123456789+-.eExX_ nainftru", max_size=8).map(str.encode), min_size=1, max_size=6))
def test_reading_a_column_at_once_and_value_by_value_agree(pushed, fields):
    rows, dead = from_csv(
        pushed,
        ("hour",),
        day=[b"d"] * len(fields),
        humidity=[b"1"] * len(fields),
        hour=fields,
        gusts=fields,
    )
    expected = [one for one in map(_whole_or_none, fields) if one is not None]
    assert (rows.carried["hour"].to_pylist() if rows else []) == expected
    assert len(dead) == len(fields) - len(expected)


def _whole_or_none(field):
    try:
        return _text_to_int(field)
    except (ValueError, OverflowError):
        return None


@settings(max_examples=300, deadline=None)
@given(st.text("0123456789+-.eExX_ nainfty", max_size=8))
def test_numbers_read_at_once_and_value_by_value_agree(pushed, text):
    rows, dead = from_csv(pushed, day=[b"d"], humidity=[text.encode()])
    try:
        with np.errstate(over="ignore"):
            value = float(np.float32(_text_to_float(text.encode())))
    except (ValueError, OverflowError):
        value = np.nan
    assert bool(dead) == (not np.isfinite(value))
    if rows:
        assert example(rows.examples[0])["humidity"] == [value]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"humidity": "40"}, "humidity is '40', not a number"),
        ({"humidity": True}, "humidity is True, not a number"),
        ({"humidity": float("nan")}, "misses humidity, which the model requires"),
        ({"humidity": None}, "misses humidity, which the model requires"),
        ({"gusts": 1.5}, "gusts is 1.5, not a whole number"),
        ({"gusts": 2**63}, "gusts is 9223372036854775808, not a whole number"),
        ({"gusts": [1]}, "gusts is [1], not a whole number"),
        ({"place": 7}, "place is 7, not text in UTF-8"),
        ({"place": "\ud800"}, "place is '\\ud800', not text in UTF-8"),
        ({"place": {"deep": {}}}, "place is {'deep': {}}, not text in UTF-8"),
        ({"humidity": 10**400}, "not a number"),
    ],
)
def test_a_json_value_of_another_type_takes_its_row_alone(pushed, values, reason):
    good = {"day": "d", "humidity": 1, "gusts": 2, "place": "p"}
    columns = {name: [value, values.get(name, value)] for name, value in good.items()}
    rows, dead = decoded(pushed, columns, raw=[b"{}", b"{bad}"])
    assert [letter.position for letter in dead] == ["2"]
    assert reason in dead[0].reason
    assert dead[0].raw == b"{bad}"
    assert rows.rows.tolist() == [0]


def test_columns_with_types_of_their_own_are_cast_where_nothing_is_lost(pushed):
    rows, dead = decoded(
        pushed,
        {
            "day": pa.array(["a", "b"]).dictionary_encode(),
            "humidity": pa.array([Decimal("40.5"), Decimal("7")]),
            "gusts": pa.array([3.0, 2.5]),
            "place": pa.array([b"x", None], pa.large_binary()),
        },
    )
    assert reasons(dead) == {"2": "gusts is 2.5, not a whole number"}
    assert dead[0].raw == b'{"day": "b", "humidity": "7.0", "gusts": 2.5, "place": null}'
    assert example(rows.examples[0]) == {"humidity": [40.5], "gusts": [3], "place": [b"x"]}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_a_timestamp_becomes_the_unix_seconds_that_training_had(pushed, unit, zone):
    at = pa.array([1_370_044_800, None, -1], pa.timestamp("s")).cast(pa.timestamp(unit, zone))
    columns = {"day": ["a", "b", "c"], "humidity": at, "gusts": at, "hour": at}
    rows, dead = decoded(pushed, {name: pa.array(v) for name, v in columns.items()}, ("hour",))
    assert reasons(dead) == {"2": "misses humidity, which the model requires"}
    assert rows.carried["hour"].to_pylist() == [1_370_044_800, -1]
    assert [example(e)["gusts"] for e in rows.examples] == [[1_370_044_800], [-1]]
    assert example(rows.examples[0])["humidity"] == [np.float32(1_370_044_800)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_time_is_rounded_as_the_query_of_training_rounds_it(pushed, unit):
    ticks = pa.array([0, 1, 999, 1_000_001, 10**10 + 7, -1000, -(10**6), -(10**9) - 1000, -(10**10)])
    times = pa.table({"gusts": ticks.cast(pa.timestamp(unit))})
    column = Column("gusts", "TIMESTAMP", DType.INT, is_time=True)
    with duckdb.connect() as database:
        trained = database.register("times", times).sql(f"SELECT {column.expression()} FROM times").fetchall()
    days, ones = pa.array(["a"] * len(times)), pa.array([1.0] * len(times))
    rows, _ = decoded(pushed, {"day": days, "humidity": ones, "gusts": times["gusts"].combine_chunks()})
    assert [example(e)["gusts"] for e in rows.examples] == [list(row) for row in trained]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_becomes_the_unix_seconds_of_its_midnight_in_utc(pushed, kind):
    days = pa.array([date(2013, 6, 1), date(1969, 12, 31)], kind)
    rows, _ = decoded(pushed, {"day": pa.array(["a", "b"]), "humidity": pa.array([1.0, 1.0]), "gusts": days})
    assert [example(e)["gusts"] for e in rows.examples] == [[1_370_044_800], [-86_400]]


@pytest.mark.parametrize("kind", [pa.time32("s"), pa.time64("us"), pa.duration("s")])
def test_a_time_of_day_and_a_duration_are_no_numbers(pushed, kind):
    times = pa.array([7, None], pa.int32() if kind == pa.time32("s") else pa.int64()).cast(kind)
    columns = {"day": pa.array(["a", "b"]), "humidity": pa.array([1.0, 1.0]), "gusts": times}
    rows, dead = decoded(pushed, columns)
    assert reasons(dead) == {"1": f"gusts is of type {kind}, not a whole number"}
    assert rows.carried.to_pydict() == {"day": ["b"]}


def test_a_text_column_for_numbers_spoils_only_the_rows_that_have_a_value(pushed):
    columns = {"day": pa.array(["a", "b"]), "humidity": pa.array([1.0, 2.0]), "gusts": pa.array(["3", None])}
    rows, dead = decoded(pushed, columns)
    assert reasons(dead) == {"1": "gusts is of type string, not a whole number"}
    assert rows.carried.to_pydict() == {"day": ["b"]}


def test_of_examples_the_first_value_counts_and_the_record_goes_on_as_it_came(pushed):
    columns = {
        "day": pa.array([[b"a"], [b"b"]]),
        "humidity": pa.array([[1.0, 2.0], []], pa.list_(pa.float32())),
    }
    rows, dead = decoded(pushed, columns, raw=[b"r1", b"r2"], examples=[b"r1", b"r2"])
    assert reasons(dead) == {"2": "misses humidity, which the model requires"}
    assert list(rows.examples) == [b"r1"]
    assert rows.carried.to_pydict() == {"day": ["a"]}


def test_examples_of_other_types_than_the_models_go_on_in_its_types_where_nothing_is_lost(pushed):
    columns = {
        "day": pa.array([[b"a"], [b"b"], [b"c"]]),
        "humidity": pa.array([[40], [41], [42]], pa.list_(pa.int64())),
        "gusts": pa.array([[3.0], [2.5], []], pa.list_(pa.float32())),
        "place": pa.array([[b"x"], [b"y"], [b"z"]]),
    }
    records = [b"r1", b"r2", b"r3"]
    rows, dead = decoded(pushed, columns, raw=records, examples=records)
    assert reasons(dead) == {"2": "gusts is 2.5, not a whole number"}
    assert dead[0].raw == b"r2"
    assert [example(e) for e in rows.examples] == [
        {"humidity": [40.0], "gusts": [3], "place": [b"x"]},
        {"humidity": [42.0], "gusts": [], "place": [b"z"]},
    ]


def test_a_column_that_is_not_there_counts_as_missing(pushed):
    rows, dead = from_csv(pushed, day=[b"a"], humidity=[b"1"])
    assert dead == []
    assert example(rows.examples[0])["place"] == []
    assert reasons(from_csv(pushed, day=[b"a"])[1]) == {"1": "misses humidity, which the model requires"}


def test_carried_columns_keep_their_type_and_unknown_ones_become_text(pushed):
    rows, dead = from_csv(
        pushed, ("hour", "note"), day=[b"a"], humidity=[b"1"], hour=[b"7"], note=[b"caf\xe9"]
    )
    assert dead == []
    assert rows.carried.to_pydict() == {"day": ["a"], "hour": [7], "note": ["caf�"]}
    rows, _ = decoded(pushed, {"day": ["a"], "humidity": [1.0], "note": [{"b": 1}]}, ("note",), raw=[b""])
    assert rows.carried["note"].to_pylist() == ['{"b": 1}']


def test_an_unknown_column_is_carried_in_the_words_of_its_value_whatever_its_type(pushed):
    at = pa.array([1_370_044_800], pa.timestamp("s"))
    base = {"day": pa.array(["a"]), "humidity": pa.array([1.0])}
    rows, _ = decoded(pushed, {**base, "at": at, "tags": pa.array([[b"x", b"y"]])}, ("at", "tags"))
    assert rows.carried.to_pylist() == [{"day": "a", "at": "2013-06-01 00:00:00", "tags": '["x", "y"]'}]
    columns = {"day": pa.array([[b"a"]]), "humidity": pa.array([[1.0]]), "note": pa.array([[b"x"]])}
    rows, _ = decoded(pushed, columns, ("note",), raw=[b"r"], examples=[b"r"])
    assert rows.carried["note"].to_pylist() == ["x"]


def test_a_carried_column_must_not_have_the_name_of_an_answer(pushed):
    with pytest.raises(PredictionError, match="column 'prediction' cannot be carried"):
        check_carried(pushed, ["prediction"], ["prediction"])
