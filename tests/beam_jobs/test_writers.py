import base64
import csv
import datetime
import gzip
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs import writers
from beam_jobs.formats.text import ReadSettings
from beam_jobs.readers import READERS
from beam_jobs.rows import DeadLetter, PredictionError
from beam_jobs.writers import (
    MOST_KINDS,
    ROWS_FORMATS,
    DeadLettersFormat,
    Reason,
    RowsFormat,
    add_reason,
    kind_of,
)

TIME = datetime.datetime(2026, 5, 4, 3, 2, 1, 500_000, datetime.UTC)
SCHEMA = pa.schema(
    [("id", pa.string()), ("n", pa.int32()), ("p", pa.float64()), ("at", pa.timestamp("us", tz="UTC"))]
)
BATCH = pa.RecordBatch.from_pylist(
    [{"id": 'a "quoted", one', "n": 1, "p": 0.1, "at": TIME}, {"id": None, "n": None, "p": None, "at": None}],
    schema=SCHEMA,
)


def written(name: str, *batches: pa.RecordBatch) -> bytes:
    stream = io.BytesIO()
    sink = RowsFormat(name, batches[0].schema).sink(stream)
    for batch in batches:
        sink.write(batch)
    sink.close()
    assert sink.rows == sum(batch.num_rows for batch in batches)
    assert not stream.closed
    return gzip.decompress(stream.getvalue()) if name.endswith(".gz") else stream.getvalue()


@pytest.mark.parametrize("name", ["csv", "csv.gz"])
def test_csv_has_one_header_and_tells_null_from_empty_text(name):
    empty = pa.RecordBatch.from_pylist([{"id": ""}], schema=SCHEMA)

    text = written(name, BATCH, empty).decode()

    assert text.splitlines()[2:] == [",,,", '"",,,']
    assert list(csv.reader(io.StringIO(text)))[:2] == [
        ["id", "n", "p", "at"],
        ['a "quoted", one', "1", "0.1", "2026-05-04 03:02:01.500000Z"],
    ]


@pytest.mark.parametrize("name", ["jsonl", "jsonl.gz"])
def test_json_lines_are_json_by_the_book(name):
    extra = pa.RecordBatch.from_pydict(
        {"f": [float("nan"), 1.5], "b": pa.array([b"\xff", None], pa.binary()), "l": [[1], None]}
    )

    assert [json.loads(line) for line in written(name, BATCH).splitlines()] == [
        {"id": 'a "quoted", one', "n": 1, "p": 0.1, "at": "2026-05-04T03:02:01.500000Z"},
        {"id": None, "n": None, "p": None, "at": None},
    ]
    assert [json.loads(line) for line in written(name, extra).splitlines()] == [
        {"f": None, "b": base64.b64encode(b"\xff").decode(), "l": [1]},
        {"f": 1.5, "b": None, "l": None},
    ]


def test_parquet_keeps_types_and_does_not_make_a_row_group_of_each_batch():
    file = pq.ParquetFile(io.BytesIO(written("parquet", *[BATCH] * 50)))

    assert file.read().equals(pa.Table.from_batches([BATCH] * 50))
    assert file.num_row_groups == 1


def test_parquet_does_not_hold_back_more_than_a_row_group(monkeypatch):
    monkeypatch.setattr(writers, "_ROW_GROUP", 6)

    file = pq.ParquetFile(io.BytesIO(written("parquet", *[BATCH] * 7)))

    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [6, 6, 2]


@pytest.mark.parametrize("name", ["tfrecord", "tfrecord.gz"])
def test_tfrecords_are_examples(name):
    data = io.BytesIO(written(name, BATCH))

    (batch,) = READERS["tfrecord"](data, "f", ReadSettings())

    assert {name: column.to_pylist() for name, column in batch.columns.items()} == {  # type: ignore[union-attr]
        "id": [[b'a "quoted", one'], None],
        "n": [[1], None],
        "p": [[pytest.approx(0.1)], None],
        "at": [[b"2026-05-04 03:02:01.500000Z"], None],
    }


@pytest.mark.parametrize("name", ROWS_FORMATS)
def test_equal_rows_give_equal_bytes(name):
    assert written(name, BATCH) == written(name, BATCH)
    assert RowsFormat(name, SCHEMA).suffix == f".{name}"


def test_an_unknown_format_and_a_column_that_it_cannot_hold_are_errors():
    nested = pa.schema([("many", pa.list_(pa.int64()))])

    with pytest.raises(
        PredictionError, match="output format 'xml' is unknown; want one of csv, jsonl, parquet"
    ):
        RowsFormat("xml", SCHEMA)
    with pytest.raises(
        PredictionError, match=r"column 'many' of type list<item: int64> cannot be written as csv"
    ):
        RowsFormat("csv", nested)
    assert RowsFormat("parquet", nested).suffix == ".parquet"


def dead(*letters: DeadLetter) -> tuple[list[dict[str, Any]], dict[str, Reason]]:
    stream = io.BytesIO()
    sink = DeadLettersFormat().sink(stream)
    for letter in letters:
        sink.write(letter)
    sink.close()
    assert sink.rows == len(letters)
    return [json.loads(line) for line in stream.getvalue().splitlines()], sink.reasons


def test_dead_letters_keep_the_row_as_it_came():
    texts, _ = dead(
        DeadLetter("f.csv", "3", "no", 'é\n"x"'.encode()), DeadLetter("\udcff", "id", "\ud800", b"\xff\0")
    )

    assert texts == [
        {"source": "f.csv", "position": "3", "reason": "no", "raw": 'é\n"x"'},
        {"source": "\udcff", "position": "id", "reason": "\ud800", "raw_base64": "/wA="},
    ]


def test_reasons_are_counted_by_what_they_say_without_values():
    _, reasons = dead(
        DeadLetter("f", "1", "wind_gust_6h is 'x', not a number", b""),
        DeadLetter("f", "2", "wind_gust_6h is 'it is', not a number", b""),
        DeadLetter("f", "3", "the row has 2 values where the header names 13 columns", b""),
        DeadLetter("f", "4", "the model answers [nan, 0.5]", b""),
    )

    assert reasons == {
        "wind_gust_6h is …, not a number": Reason(2, "f: row 1: wind_gust_6h is 'x', not a number"),
        "the row has … values where the header names … columns": Reason(
            1, "f: row 3: the row has 2 values where the header names 13 columns"
        ),
        "the model answers …": Reason(1, "f: row 4: the model answers [nan, 0.5]"),
    }


def test_there_is_an_end_to_kinds_of_reasons():
    reasons: dict[str, Reason] = {}
    for number in range(3 * MOST_KINDS):
        add_reason(reasons, kind_of(f"column{'x' * number} is odd"), Reason(1, ""))

    assert len(reasons) == MOST_KINDS + 1
    assert reasons["other reasons"].rows == 2 * MOST_KINDS
