"""Rows of a stream into tables, each once: a row whose id is there already is left out.

One MERGE takes a batch of rows, so that it is in the table as a whole or not at all and may be written again. Two
writers that bring a new id at the same moment could both put it in, as a MERGE that only inserts waits for no other:
a pipeline gives an id to one writer (`beam_jobs.streaming.BatchByBucket`). A statement may outlive its writer, a worker
that Dataflow has replaced or a job that was killed; if what it brings is written anew meanwhile, there are two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_jobs.row_sinks import as_row, fitting
from beam_jobs.rows import DeadLetter
from cloud.bigquery import (
    BigQueryError,
    Connection,
    TableName,
    add_columns,
    columns_of,
    ensure_table,
    explained,
)

if TYPE_CHECKING:
    from google.cloud import bigquery

Row = Mapping[str, Any]

_ROWS_A_STATEMENT = 500
_STATEMENT_BYTES = 5_000_000
"""Of the rows of a statement, as they travel: BigQuery takes a request of 10 MB, and a single row is below that."""
_RAW_BYTES = 1 << 20
"""What a dead letter keeps of its row; more than that is no row that is read (`beam_jobs.messages.LONGEST_BYTES`)."""

_KINDS: Sequence[tuple[type | tuple[type, ...], str]] = (
    (bool, "BOOL"),  # A bool is an int and a datetime is a date: the narrower stands first.
    (int, "INT64"),
    (float, "FLOAT64"),
    (str, "STRING"),
    (bytes, "BYTES"),
    (datetime, "TIMESTAMP"),
    (date, "DATE"),
    (Decimal, "NUMERIC"),
    (Mapping, "JSON"),
)
_TAKES: Mapping[str, frozenset[str]] = {
    "FLOAT64": frozenset({"INT64", "FLOAT64"}),
    "NUMERIC": frozenset({"INT64", "NUMERIC"}),
    "BIGNUMERIC": frozenset({"INT64", "NUMERIC"}),
    "TIMESTAMP": frozenset({"TIMESTAMP", "STRING"}),
    "DATE": frozenset({"DATE", "STRING"}),
    "JSON": frozenset({"JSON", "STRING", "INT64", "FLOAT64", "BOOL"}),
}
"""Kinds of values that a column takes, where there are more than its own."""


@dataclass(frozen=True)
class IdempotentTable:
    """A table that keeps the first row of an id.

    It is made when the first rows come, partitioned by day of `time_column` and clustered by the id and `key`; its
    columns follow from their values, and a column that comes later is added.

    Attributes:
      table: its name.
      connection: the way there.
      id_column: text that names a row.
      time_column: a timestamp; rows without it make a table without partitions.
      key: columns that readers look rows up by.
      look_back: how much older than a batch's oldest row its double can be; bounds what a write has to read. None:
        any age.
    """

    table: TableName
    connection: Connection
    id_column: str = "prediction_id"
    time_column: str = "predicted_at"
    key: tuple[str, ...] = ()
    look_back: timedelta | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Puts in the rows whose ids are not there, all of a statement or none.

        Raises:
          BigQueryError: if a row has no id, a value is of another type than its column, or the service refuses.
        """
        firsts = self._first_of_each(rows)
        if not firsts:
            return
        try:
            columns = self._columns(_brought(self.table, firsts))
            for some in _statements(firsts, columns):
                self._merge(some, columns)
        except BigQueryError:
            # The table may have been changed or dropped: whoever tries again looks anew.
            _columns_there.cache_clear()
            raise

    def _first_of_each(self, rows: Iterable[Row]) -> list[Row]:
        found: dict[str, Row] = {}
        for number, row in enumerate(rows):
            name = row.get(self.id_column)
            if not isinstance(name, str) or not name:
                raise BigQueryError(
                    f"table {self.table}: row {number} has {name!r} as {self.id_column}; it has to be a text"
                )
            found.setdefault(name, row)
        return list(found.values())

    def _merge(self, rows: Sequence[Travelling], columns: Sequence[bigquery.SchemaField]) -> None:
        from google.cloud import bigquery

        parameters: list[bigquery.ArrayQueryParameter | bigquery.ScalarQueryParameter] = [
            bigquery.ArrayQueryParameter("rows", "STRUCT", [row.record for row in rows])
        ]
        condition = f"held.`{self.id_column}` = came.`{self.id_column}`"
        if (since := self._since([row.row for row in rows])) is not None:
            condition += f" AND held.`{self.time_column}` >= @since"
            parameters.append(bigquery.ScalarQueryParameter("since", "TIMESTAMP", since))
        names = [f"`{column.name}`" for column in columns]
        statement = (
            f"MERGE {self.table.sql} AS held USING UNNEST(@rows) AS came ON {condition}\n"
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) "
            f"VALUES ({', '.join(f'came.{name}' for name in names)})"
        )
        settings = bigquery.QueryJobConfig(query_parameters=parameters)
        with explained(f"table {self.table}"):
            client = self.connection.client()
            client.query(statement, job_config=settings, retry=self.connection.retry).result()

    def _since(self, rows: Sequence[Row]) -> datetime | None:
        """From when on doubles of the rows are looked for; None: from the beginning."""
        times = [row[self.time_column] for row in rows if isinstance(row.get(self.time_column), datetime)]
        if self.look_back is None or len(times) < len(rows):
            return None
        with suppress(OverflowError):  # A message may say that it is of the year 1.
            return min(times) - self.look_back
        return None

    def _columns(self, brought: Sequence[bigquery.SchemaField]) -> list[bigquery.SchemaField]:
        """The table's columns for those the rows brought; makes what is missing."""
        there = _columns_there(self)
        if there is None or any(column.name not in there for column in brought):
            _columns_there.cache_clear()
            self._make(brought)
            # What was just added may not be told yet.
            there = {column.name: column for column in brought} | {**(_columns_there(self) or {})}
        for column in brought:
            _check(self.table, there[column.name], column)
        return [there[column.name] for column in brought]

    def _make(self, brought: Sequence[bigquery.SchemaField]) -> None:
        if columns_of(self.table, self.connection) is not None:
            add_columns(self.table, brought, self.connection)
            return
        by_name = {column.name: column for column in brought}
        time = by_name.get(self.time_column)
        ensure_table(
            self.table,
            brought,
            self.connection,
            partition_by=self.time_column if time is not None and time.field_type == "TIMESTAMP" else None,
            cluster_by=[name for name in (self.id_column, *self.key) if name in by_name],
        )


@dataclass(frozen=True)
class DeadLetterTable:
    """A table of dead letters, one for each position; of a long row the beginning, and the reason says so."""

    table: TableName
    connection: Connection

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Puts in the letters whose positions are not there."""
        rows = [as_row(fitting(letter, _RAW_BYTES)) for letter in letters]
        IdempotentTable(self.table, self.connection, "position").write(rows)


@lru_cache(maxsize=64)
def _columns_there(table: IdempotentTable) -> Mapping[str, bigquery.SchemaField] | None:
    return columns_of(table.table, table.connection)


def _brought(table: TableName, rows: Sequence[Row]) -> list[bigquery.SchemaField]:
    """The columns that hold a value in some row."""
    from google.cloud import bigquery

    found = []
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if row.get(name) is not None]
        kinds = {_kind(table, name, value) for value in values if not _is_empty_list(value)}
        if kinds == {("INT64", False), ("FLOAT64", False)}:
            kinds = {("FLOAT64", False)}
        if len(kinds) > 1:
            names = ", ".join(sorted(kind for kind, _ in kinds))
            raise BigQueryError(f"table {table}: column {name} has values of different types: {names}")
        for kind, is_list in kinds:
            found.append(bigquery.SchemaField(name, kind, mode="REPEATED" if is_list else "NULLABLE"))
    return found


def _kind(table: TableName, name: str, value: Any) -> tuple[str, bool]:
    """BigQuery's type for a value, and whether it is an array of it."""
    if isinstance(value, list | tuple):
        kinds = {_kind(table, name, one) for one in value}
        return (kinds.pop()[0], True) if len(kinds) == 1 and ("JSON", False) not in kinds else ("JSON", False)
    for type_, kind in _KINDS:
        if isinstance(value, type_):
            return kind, False
    raise BigQueryError(f"table {table}: column {name}: {value!r} is of no type that BigQuery has")


def _is_empty_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and not value


def _check(table: TableName, there: bigquery.SchemaField, brought: bigquery.SchemaField) -> None:
    is_json = there.field_type == "JSON"
    is_alike = is_json or (there.mode == "REPEATED") == (brought.mode == "REPEATED")
    if is_alike and brought.field_type in _TAKES.get(there.field_type, {there.field_type}):
        return
    raise BigQueryError(
        f"table {table}: column {there.name} is {_described(there)}, and the rows bring {_described(brought)}; "
        "name another table, or change the column"
    )


def _described(column: bigquery.SchemaField) -> str:
    return f"ARRAY<{column.field_type}>" if column.mode == "REPEATED" else str(column.field_type)


class Travelling(NamedTuple):
    """A row, and as a part of a statement's parameter."""

    row: Row
    record: bigquery.StructQueryParameter


def _statements(
    rows: Sequence[Row], columns: Sequence[bigquery.SchemaField]
) -> Iterator[Sequence[Travelling]]:
    """The rows in portions, each for a statement: bounded in number and bytes."""
    from google.cloud import bigquery

    portion: list[Travelling] = []
    size = 0
    for row in rows:
        values = [_value(column, row.get(column.name)) for column in columns]
        record = bigquery.StructQueryParameter(None, *values)
        added = len(json.dumps(record.to_api_repr()["parameterValue"]))
        if portion and (len(portion) == _ROWS_A_STATEMENT or size + added > _STATEMENT_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(Travelling(row, record))
        size += added
    yield portion


def _value(
    column: bigquery.SchemaField, value: Any
) -> bigquery.ScalarQueryParameter | bigquery.ArrayQueryParameter:
    from google.cloud import bigquery

    if column.mode == "REPEATED":
        return bigquery.ArrayQueryParameter(column.name, column.field_type, list(value or ()))
    return bigquery.ScalarQueryParameter(column.name, column.field_type, value)
