import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.formats.parquet_files import read_parquet
from beam_jobs.formats.text import ReadSettings
from beam_jobs.rows import PredictionError


def parquet(table: pa.Table) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=5)
    file.seek(0)
    return file


def test_columns_come_in_their_own_types_with_numbered_rows():
    table = pa.table({"a": pa.array(range(12), pa.int32()), "b": [[1.5]] * 12, "c": ["x"] * 12})

    batches: list[Any] = list(
        read_parquet(parquet(table), "f", ReadSettings(rows=4, columns=("b", "a", "z")))
    )

    assert [number for batch in batches for number in batch.positions] == list(range(1, 13))
    assert max(len(batch) for batch in batches) <= 4
    assert {name: column.type for name, column in batches[0].columns.items()} == {
        "a": pa.int32(),
        "b": pa.list_(pa.float64()),
    }
    assert batches[0].raw_row(1) == b'{"b": [1.5], "a": 1}'


def test_a_file_without_rows_gives_none():
    assert list(read_parquet(parquet(pa.table({"a": pa.array([], pa.int64())})), "f", ReadSettings())) == []


def test_what_is_no_parquet_is_an_error_that_names_the_file():
    whole = parquet(pa.table({"a": [1]})).getvalue()
    for data in (b"", b"a,b\n1,2\n", whole[:-20], b"x" * 100):
        with pytest.raises(PredictionError, match="f: this is no whole Parquet file"):
            list(read_parquet(io.BytesIO(data), "f", ReadSettings()))


def test_none_of_the_columns_is_an_error_that_names_them():
    with pytest.raises(PredictionError, match="f: the file has none of the columns x, y"):
        list(read_parquet(parquet(pa.table({"a": [1]})), "f", ReadSettings(columns=("x", "y"))))
