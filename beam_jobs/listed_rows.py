"""The rows that a query lists, as rows to predict for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from ingest.locations import Table
from ingest.query import Column, bind, describe, run_error
from ingest.quoting import quoted
from ingest.tables import connect
from schemas.features import DType

_CHUNK_ROWS = 16_384


def listed(
    tables: Sequence[Table],
    sql: str,
    source: str,
    *,
    null_values: Sequence[str] = ("",),
    params: Mapping[str, Any] | None = None,
    memory_limit_mb: int = 1024,
) -> Iterator[pa.Table]:
    """The rows that a query lists, some thousands at a time.

    Args:
      tables: what the SQL may read; none, if it makes its rows itself.
      sql: one SELECT statement, whose columns are the model's inputs and the key.
      source: what to call the SQL in errors, such as its file.
      null_values: texts that mean "no value" in CSV files.
      params: values of the `$name`s in the SQL.
      memory_limit_mb: what DuckDB may hold before it spills to disk.

    Yields:
      Tables of whole numbers, doubles, texts and binary, or lists of these. A date or time is in Unix seconds, as the
      model takes it.

    Raises:
      DataError: if the SQL or a file is at fault.
    """
    with connect(tables, null_values, memory_limit_mb=memory_limit_mb) as database:
        columns = describe(database, sql, params or {}, source)
        selection = ", ".join(f"{_expression(column)} AS {quoted(column.name)}" for column in columns)
        query = f"SELECT {selection} FROM ({bind(sql, params or {}, source)}\n)"
        try:
            for batch in database.connection.sql(query).to_arrow_reader(_CHUNK_ROWS):
                yield pa.Table.from_batches([batch])
        except duckdb.Error as error:
            raise run_error(sql, source, error) from error


def _expression(column: Column) -> str:
    """The column as the model takes it; numbers keep their digits, so that they can be looked up."""
    if column.dtype is DType.FLOAT and not column.is_list:
        value = f"CAST({quoted(column.name)} AS DOUBLE)"
        return f"CASE WHEN NOT isnan({value}) THEN {value} END"
    return column.expression()
