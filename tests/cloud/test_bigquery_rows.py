"""Rows of a stream in a table of an emulator, by the real client: each once, whatever is delivered again."""

import datetime
import pickle
from dataclasses import replace

import pytest
from google.cloud import bigquery

from beam_jobs.rows import DeadLetter
from cloud.bigquery import BigQueryError, TableName
from cloud.bigquery_rows import DeadLetterTable, IdempotentTable, _statements

AT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def row(name, **more):
    return {"prediction_id": name, "flight": 7, "probability_late": 0.25, "predicted_at": AT, **more}


@pytest.fixture
def table(emulator, dataset):
    return IdempotentTable(TableName.parse(f"{dataset}.live"), emulator.connection, key=("flight",))


def held(table, columns="*"):
    found = table.connection.client().query(f"SELECT {columns} FROM {table.table.sql} ORDER BY 1").result()
    return [dict(row) for row in found]


def test_the_first_rows_make_a_table_partitioned_by_day_and_clustered_by_id_and_key(emulator, table):
    table.write([row("a"), row("b", probability_late=None)])
    made = emulator.connection.client().get_table(str(table.table))
    assert made.time_partitioning.field == "predicted_at"
    assert made.clustering_fields == ["prediction_id", "flight"]
    assert held(table) == [row("a"), row("b", probability_late=None)]


def test_what_is_delivered_again_changes_nothing(table):
    everything = [row(f"{n:04}", flight=n) for n in range(1200)]
    table.write(everything[:700])
    table.write(everything)
    table.write(list(reversed(everything)))
    assert held(table) == everything


def test_of_one_id_the_first_row_stays_within_a_batch_and_between_batches(table):
    table.write([row("a", flight=1), row("a", flight=2)])
    table.write([row("a", flight=3), row("b", flight=4)])
    assert held(table, "prediction_id, flight") == [
        {"prediction_id": "a", "flight": 1},
        {"prediction_id": "b", "flight": 4},
    ]


def test_a_double_is_looked_for_no_further_back_than_it_can_be(table):
    near = replace(table, look_back=datetime.timedelta(days=7))
    near.write([row("a")])
    near.write([row("a", predicted_at=AT + datetime.timedelta(days=6))])
    assert len(held(table)) == 1
    near.write([row("a", predicted_at=AT + datetime.timedelta(days=8))])
    assert len(held(table)) == 2, "what is older than the bound is not read"


def test_a_row_of_the_year_1_is_written_as_any_other(table):
    near = replace(table, look_back=datetime.timedelta(days=7))
    ancient = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
    for _ in range(2):
        near.write([row("a", predicted_at=ancient), row("b")])
    assert [one["prediction_id"] for one in held(table)] == ["a", "b"]


def test_a_statement_is_bounded_in_bytes_and_in_rows():
    columns = [bigquery.SchemaField("raw", "BYTES")]
    small, large = {"raw": b"x"}, {"raw": b"x" * 1_000_000}
    portions = list(_statements([*[large] * 7, *[small] * 1001], columns))
    assert [len(portion) for portion in portions] == [3, 3, 500, 500, 2]
    assert [one.row for portion in portions for one in portion] == [*[large] * 7, *[small] * 1001]


def test_a_column_that_comes_later_is_added_and_one_without_a_value_waits(table):
    table.write([row("a", gust=None)])
    table.write([row("b", gust=3, tags=["x", "y"], missing={"wind": 2})])
    table.write([row("c", tags=[])])
    found = held(table, "prediction_id, gust, tags, TO_JSON_STRING(missing) AS missing")
    assert [(one["gust"], one["tags"]) for one in found] == [(None, []), (3, ["x", "y"]), (None, [])]
    assert found[1]["missing"].replace(" ", "") == '{"wind":2}'


def test_whole_numbers_go_into_a_column_of_numbers(table):
    table.write([row("a")])
    table.write([row("b", probability_late=1)])
    assert [one["probability_late"] for one in held(table)] == [0.25, 1.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flight": "seven"}, "column flight is INT64, and the rows bring STRING"),
        ({"flight": [1]}, r"column flight is INT64, and the rows bring ARRAY<INT64>"),
        ({"prediction_id": None}, "row 1 has None as prediction_id"),
        ({"flight": 1 + 2j}, r"column flight: \(1\+2j\) is of no type"),
    ],
)
def test_a_row_that_does_not_fit_is_told_and_nothing_of_the_batch_is_written(table, wrong, message):
    table.write([row("a")])
    with pytest.raises(BigQueryError, match=message) as raised:
        table.write([row("b", flight=None), {**row("c"), **wrong}])
    assert str(table.table) in str(raised.value)
    assert len(held(table)) == 1


def test_values_of_several_types_in_a_column_are_refused(table):
    with pytest.raises(BigQueryError, match="column flight has values of different types: INT64, STRING"):
        table.write([row("a"), row("b", flight="x")])


def test_a_table_that_was_dropped_is_made_again_when_the_rows_are_tried_again(emulator, table):
    table.write([row("a")])
    emulator.connection.client().delete_table(str(table.table))
    with pytest.raises(BigQueryError):
        table.write([row("b")])
    table.write([row("b")])
    assert [one["prediction_id"] for one in held(table)] == ["b"]


def test_dead_letters_stand_once_a_position(emulator, dataset):
    table = DeadLetterTable(TableName.parse(f"{dataset}.dead"), emulator.connection)
    letters = [DeadLetter("sub", "17", "no number", b"\xff{"), DeadLetter("sub", "18", "no number", b"{")]
    table.write(letters)
    table.write(letters)
    found = (
        table.connection.client().query(f"SELECT source, position, reason FROM {table.table.sql}").result()
    )
    assert {one["position"]: (one["source"], one["reason"]) for one in found} == {
        "17": ("sub", "no number"),
        "18": ("sub", "no number"),
    }


def test_of_a_long_dead_letter_the_beginning_stands_and_the_reason_says_so(emulator, dataset):
    table = DeadLetterTable(TableName.parse(f"{dataset}.dead"), emulator.connection)
    table.write([DeadLetter("sub", str(number), "too long", b"x" * 3_000_000) for number in range(8)])
    # The emulator keeps the bytes as the base64 in which they travel.
    kept = f"SELECT COUNT(*), MAX(LENGTH(raw)) < 1500000, MIN(reason) FROM {table.table.sql}"
    [found] = table.connection.client().query(kept).result()
    assert tuple(found) == (8, True, "(only the first 1048576 of 3000000 bytes are kept here) too long")


def test_the_settings_travel_to_workers(table):
    table.write([row("a")])
    there = pickle.loads(pickle.dumps(table))
    there.write([row("a"), row("b")])
    assert len(held(table)) == 2
