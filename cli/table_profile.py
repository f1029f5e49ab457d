"""What the columns of a table look like: counts, ranges and, where there are few, the values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.errors import DataError
from ingest.query import Column, describe
from ingest.quoting import quoted
from ingest.tables import Database
from schemas.features import DType

AMOUNT = r"[-+]?[$€£¥]? ?[-+]?(\d{1,3}(,\d{3})+|[1-9]\d*|0)(\.\d+)? ?[%$€£¥]?"
"""A number as people write it: $1,234.50, 12 %, 3.5 €."""

TIME_FORMATS = tuple(
    f"{date}{time}"
    for date in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%d %b %Y", "%Y%m%d")
    for time in ("", " %H:%M", " %H:%M:%S")
)
"""Dates as people write them. Of day and month, the first is the day unless a row says otherwise."""

MOST_VALUES = 100
"""A column with more different values is not looked at value by value."""


@dataclass(frozen=True)
class ColumnProfile:
    """One column.

    Attributes:
      column: as the query gives it.
      rows: rows of the table.
      present: rows that have a value.
      distinct: different values, missing ones not counted.
      low: the smallest value, for numbers.
      high: the largest value, for numbers.
      variance: of the values, for numbers.
      is_whole: every value is a whole number.
      are_times: text of which every value reads as a date or time.
      time_format: how they are written, where DuckDB does not read them by itself.
      are_amounts: text of which every value is a number with a sign of currency, percent or thousands.
      words: average number of words, for text.
      counts: rows by value as text, the most frequent first, where there are at most `MOST_VALUES`.
    """

    column: Column
    rows: int
    present: int
    distinct: int
    low: float | None = None
    high: float | None = None
    variance: float | None = None
    is_whole: bool = False
    are_times: bool = False
    time_format: str | None = None
    are_amounts: bool = False
    words: float = 0.0
    counts: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column.name

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return self.rows - self.present


@dataclass(frozen=True)
class Unreadable:
    """A column that no feature can hold, and why."""

    name: str
    reason: str


def amount(text: str) -> str:
    """SQL that takes from a text what makes an amount of a number."""
    return f"regexp_replace({text}, '[,$€£¥% ]', '', 'g')"


def readable_columns(database: Database, table: str) -> tuple[tuple[Column, ...], tuple[Unreadable, ...]]:
    """Divides a table's columns into those that can become features and those that cannot."""
    columns: list[Column] = []
    unreadable: list[Unreadable] = []
    for known in database.tables[0].columns:
        query = f"SELECT {quoted(known.name)} FROM {quoted(table)}"
        try:
            columns.extend(describe(database, query, {}, table))
        except DataError:
            unreadable.append(Unreadable(known.name, f"type {known.type}, which no feature can hold"))
    return tuple(columns), tuple(unreadable)


def profile(database: Database, table: str, columns: Sequence[Column]) -> tuple[ColumnProfile, ...]:
    """Looks at every row of a table, in one pass and one more for each column of few values."""
    parts = ", ".join(part for column in columns for part in _parts(column))
    row = database.connection.execute(f"SELECT count(*), {parts} FROM {quoted(table)}").fetchall()[0]
    rows, values = row[0], iter(row[1:])
    return tuple(_profile(database, table, column, rows, values) for column in columns)


def _parts(column: Column) -> Iterator[str]:
    """SQL aggregates, always as many, in the order in which `_profile` takes them."""
    name, value = quoted(column.name), column.expression()
    is_number = column.dtype is not DType.BYTES and not column.is_list
    is_text = column.dtype is DType.BYTES and not column.is_list and not column.sql_type.startswith("BLOB")
    yield f"count({name})"
    yield f"count(DISTINCT {name})"
    text = f"CAST({name} AS VARCHAR)"
    finite = f"CAST({value} AS DOUBLE)" if is_number else f"TRY_CAST({amount(text)} AS DOUBLE)"
    for function in ("min", "max", "var_pop"):
        yield f"{function}({finite}) FILTER (isfinite({finite}))" if is_number or is_text else "NULL"
    yield f"coalesce(bool_and({finite} = floor({finite})), false)" if is_number else "false"
    yield f"coalesce(bool_and(TRY_CAST({text} AS TIMESTAMP) IS NOT NULL), false)" if is_text else "false"
    whens = " ".join(
        f"WHEN bool_and(try_strptime({text}, '{form}') IS NOT NULL) THEN '{form}'" for form in TIME_FORMATS
    )
    yield f"CASE {whens} END" if is_text else "NULL"
    amounts = f"regexp_full_match({text}, '{AMOUNT}')"
    yield f"coalesce(bool_and({amounts}), false)" if is_text else "false"
    yield f"coalesce(avg(1 + length({text}) - length(replace({text}, ' ', ''))), 0)" if is_text else "0"


def _profile(
    database: Database, table: str, column: Column, rows: int, values: Iterator[Any]
) -> ColumnProfile:
    present, distinct = next(values), next(values)
    low, high, variance = next(values), next(values), next(values)
    is_whole, are_times, time_format = next(values), next(values), next(values)
    are_amounts, words = next(values), next(values)
    has_few = distinct <= MOST_VALUES and not column.is_list
    return ColumnProfile(
        column=column,
        rows=rows,
        present=present,
        distinct=distinct,
        low=low,
        high=high,
        variance=variance,
        is_whole=is_whole,
        are_times=are_times or time_format is not None,
        time_format=None if are_times else time_format,
        are_amounts=are_amounts,
        words=float(words),
        counts=_counts(database, table, column) if has_few else (),
    )


def _counts(database: Database, table: str, column: Column) -> tuple[tuple[str, int], ...]:
    query = (
        f"SELECT CAST({column.expression()} AS VARCHAR), count(*) FROM {quoted(table)} "
        f"WHERE {quoted(column.name)} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return tuple((str(value), rows) for value, rows in database.connection.execute(query).fetchall())
