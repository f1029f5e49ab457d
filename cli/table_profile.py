"""What the columns of a table look like: counts, ranges and, where there are few, the values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from ingest.errors import DataError
from ingest.query import Column, describe
from ingest.quoting import quoted
from ingest.tables import Database
from schemas.features import DType

AMOUNT = r"[-+]?[$€£¥]? ?[-+]?(\d{1,3}(,\d{3})+|[1-9]\d*|0)(\.\d+)? ?[%$€£¥]?"
"""A number as people write it: $1,234.50, 12 %, 3.5 €."""

COMMA_AMOUNT = r"[-+]?[$€£¥]? ?[-+]?(\d{1,3}([. ]\d{3})+|[1-9]\d*|0)(,\d+)? ?[%$€£¥]?"
"""The same where a comma comes before the decimals: 1.234,50 €, 3,5."""

TIME_FORMATS = tuple(
    f"{date}{time}"
    for date in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%d %b %Y", "%Y%m%d")
    for time in ("", " %H:%M", " %H:%M:%S")
)
"""Dates as people write them. Of day and month, the first is the day unless a row says otherwise."""

FEWEST_ROWS = 100
FEWEST_OF_A_CLASS = 10
SAME_NUMBER = 0.999999

_COLUMNS_AT_ONCE = 20
"""Different values are counted in memory."""

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
      unparsed_times: rows of a text that are no date or time.
      time_format: how they are written, where DuckDB does not read them by itself.
      are_amounts: text of which every value is a number with a sign of currency, percent, thousands or a decimal comma.
      has_decimal_commas: amounts of which a comma comes before the decimals, 1.234,50.
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
    unparsed_times: int = 0
    time_format: str | None = None
    are_amounts: bool = False
    has_decimal_commas: bool = False
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


@dataclass(frozen=True)
class Giveaway:
    """A column that says what the label is, in every row, and how."""

    name: str
    reason: str


def amount(text: str, has_decimal_commas: bool = False) -> str:
    """SQL that takes from a text what makes an amount of a number."""
    if has_decimal_commas:
        return f"replace(regexp_replace({text}, '[.$€£¥% ]', '', 'g'), ',', '.')"
    return f"regexp_replace({text}, '[,$€£¥% ]', '', 'g')"


def readable_columns(database: Database, table: str) -> tuple[tuple[Column, ...], tuple[Unreadable, ...]]:
    """Divides a table's columns into those that can become features and those that cannot."""
    columns: list[Column] = []
    unreadable: list[Unreadable] = []
    for known in database.tables[0].columns:
        query = f"SELECT {quoted(known.name)} FROM {quoted(table)}"
        try:
            (column,) = describe(database, query, {}, table)
        except DataError:
            unreadable.append(Unreadable(known.name, f"type {known.type}, which no feature can hold"))
            continue
        columns.append(column)
    numbers = [column for column in columns if column.dtype is not DType.BYTES and not column.is_time]
    if not _fit(database, table, numbers):
        too_large = {column.name for column in numbers if not _fit(database, table, [column])}
        columns = [column for column in columns if column.name not in too_large]
        unreadable += [
            Unreadable(name, "a number too large for a feature, which has 64 bits, or 32 for a fraction")
            for name in sorted(too_large)
        ]
    return tuple(columns), tuple(unreadable)


def _fit(database: Database, table: str, columns: Sequence[Column]) -> bool:
    """Whether every value can be converted to what a feature holds."""
    values = ", ".join(f"max({column.expression()})" for column in columns)
    try:
        database.connection.execute(f"SELECT {values or 'NULL'} FROM {quoted(table)}").fetchall()
    except (duckdb.ConversionException, duckdb.OutOfRangeException):
        return False
    return True


def profile(database: Database, table: str, columns: Sequence[Column]) -> tuple[ColumnProfile, ...]:
    """Looks at every row of a table, in a pass for some columns and one more for each of few values."""
    return tuple(
        known
        for start in range(0, len(columns), _COLUMNS_AT_ONCE)
        for known in _profile_some(database, table, columns[start : start + _COLUMNS_AT_ONCE])
    )


def _profile_some(database: Database, table: str, columns: Sequence[Column]) -> Iterator[ColumnProfile]:
    parts = ", ".join(part for column in columns for part in _parts(column))
    row = database.connection.execute(f"SELECT count(*), {parts} FROM {quoted(table)}").fetchall()[0]
    rows, values = row[0], iter(row[1:])
    for column in columns:
        yield _profile(database, table, column, rows, values)


def _parts(column: Column) -> Iterator[str]:
    """SQL aggregates, always as many, in the order in which `_profile` takes them."""
    name, value = quoted(column.name), column.expression()
    is_number = column.dtype is not DType.BYTES and not column.is_list
    is_text = column.dtype is DType.BYTES and not column.is_list and not column.sql_type.startswith("BLOB")
    yield f"count({name if column.is_list else value})"  # NaN is no value
    yield f"count(DISTINCT {name if column.is_list else value})"
    text = f"CAST({name} AS VARCHAR)"
    finite = f"CAST({value} AS DOUBLE)" if is_number else f"TRY_CAST({amount(text)} AS DOUBLE)"
    for function in ("min", "max", "var_pop"):
        yield f"{function}({finite}) FILTER (isfinite({finite}))" if is_number or is_text else "NULL"
    yield f"coalesce(bool_and({finite} = floor({finite})), false)" if is_number else "false"
    yield f"count({text}) FILTER (TRY_CAST({text} AS TIMESTAMP) IS NULL)" if is_text else "NULL"
    whens = " ".join(
        f"WHEN bool_and(try_strptime({text}, '{form}') IS NOT NULL) THEN '{form}'" for form in TIME_FORMATS
    )
    yield f"CASE {whens} END" if is_text else "NULL"
    amounts = f"regexp_full_match({text}, '{AMOUNT}')"
    yield f"coalesce(bool_and({amounts}), false)" if is_text else "false"
    commas = f"bool_and(regexp_full_match({text}, '{COMMA_AMOUNT}')) AND bool_or(contains({text}, ','))"
    yield f"coalesce({commas}, false)" if is_text else "false"
    number = f"TRY_CAST({amount(text, has_decimal_commas=True)} AS DOUBLE)"
    yield f"var_pop({number}) FILTER (isfinite({number}))" if is_text else "NULL"
    yield f"coalesce(avg(1 + length({text}) - length(replace({text}, ' ', ''))), 0)" if is_text else "0"


def _profile(
    database: Database, table: str, column: Column, rows: int, values: Iterator[Any]
) -> ColumnProfile:
    present, distinct = next(values), next(values)
    low, high, variance = next(values), next(values), next(values)
    is_whole, unparsed_times, time_format = next(values), next(values), next(values)
    are_times = unparsed_times == 0 and present > 0
    are_amounts, are_comma_amounts = next(values), next(values)
    comma_variance, words = next(values), next(values)
    has_decimal_commas = are_comma_amounts and not are_amounts
    has_few = distinct <= MOST_VALUES and not column.is_list
    return ColumnProfile(
        column=column,
        rows=rows,
        present=present,
        distinct=distinct,
        low=low,
        high=high,
        variance=comma_variance if has_decimal_commas else variance,
        is_whole=is_whole,
        are_times=are_times or time_format is not None,
        unparsed_times=0 if time_format else unparsed_times or 0,
        time_format=None if are_times else time_format,
        are_amounts=are_amounts or are_comma_amounts,
        has_decimal_commas=has_decimal_commas,
        words=float(words),
        counts=_counts(database, table, column) if has_few else (),
    )


def _counts(database: Database, table: str, column: Column) -> tuple[tuple[str, int], ...]:
    query = (
        f"SELECT CAST({column.expression()} AS VARCHAR), count(*) FROM {quoted(table)} "
        f"WHERE {column.expression()} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return tuple((str(value), rows) for value, rows in database.connection.execute(query).fetchall())


def giveaways(
    database: Database,
    table: str,
    profiles: Sequence[ColumnProfile],
    label: ColumnProfile,
    *,
    is_regression: bool,
) -> tuple[Giveaway, ...]:
    """Finds the columns that tell the label in every row: the label in disguise, or known only after it.

    Where chance could do the same, because rows or classes are few, it finds none.
    """
    is_told_by_chance = not is_regression and label.counts[1][1] < FEWEST_OF_A_CLASS
    if label.present < FEWEST_ROWS or is_told_by_chance:
        return ()
    found = []
    for column in profiles:
        if column.name == label.name or column.column.is_list or not column.present:
            continue
        reason = (_tells_number if is_regression else _tells_class)(database, table, column, label)
        if reason:
            found.append(Giveaway(column.name, reason))
    return tuple(found)


def _tells_number(database: Database, table: str, column: ColumnProfile, label: ColumnProfile) -> str | None:
    values = (column.column.dtype, label.column.dtype)
    if DType.BYTES in values or column.missing:
        return None
    query = f"SELECT abs(corr({_number(column)}, {_number(label)})) FROM {quoted(table)}"
    (correlation,) = database.connection.execute(query).fetchall()[0]
    if correlation is not None and correlation > SAME_NUMBER:
        return f"{label.name} is a multiple of it"
    return None


def _number(profile: ColumnProfile) -> str:
    """SQL of a column's finite values."""
    value = f"CAST({profile.column.expression()} AS DOUBLE)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def _tells_class(database: Database, table: str, column: ColumnProfile, label: ColumnProfile) -> str | None:
    value, known = column.column.expression(), label.column.expression()

    def tells(key: str) -> bool:
        query = (
            f"SELECT count(*), max(classes) FROM (SELECT count(DISTINCT {known}) AS classes FROM {quoted(table)} "
            f"WHERE {known} IS NOT NULL GROUP BY {key})"
        )
        groups, most_classes = database.connection.execute(query).fetchall()[0]
        return bool(most_classes == 1 and label.present >= FEWEST_OF_A_CLASS * groups)

    if column.missing and tells(f"{value} IS NULL"):
        return f"whether it has a value says what {label.name} is"
    if column.counts and tells(value):
        return f"each of its values goes with one value of {label.name}"
    if column.column.dtype is DType.BYTES or column.missing:
        return None
    query = (
        f"SELECT min({value}) AS low, max({value}) FROM {quoted(table)} WHERE {known} IS NOT NULL "
        f"GROUP BY {known} ORDER BY low"
    )
    ranges = database.connection.execute(query).fetchall()
    if all(high < low for (_, high), (low, _) in itertools.pairwise(ranges)):
        return f"its ranges for the values of {label.name} do not overlap"
    return None
