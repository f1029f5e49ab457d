"""Which split a row belongs to: by time, by a column that says so, or by the hash of a key.

A split is data; `resolve` fixes what depends on the rows, `expression` is SQL that gives the split's name
for a row, and `check` reports what is wrong with the result before anything is written.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.errors import DataError
from ingest.query import Column
from ingest.quoting import literal, quoted
from ingest.tables import Database
from schemas.features import DType

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")

SPLIT_COLUMN = "__headworks_split__"
"""Name of the column with the split while rows are routed; it is not written."""

_HASH_DIGITS = 8
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class TimeBoundaries:
    """Earlier rows train, later rows test.

    Attributes:
      column: a date or time, or a number that grows with time.
      validation_from: the first value of validation: ISO 8601, in UTC where it has no zone, or a number.
      test_from: the first value of test.
    """

    column: str
    validation_from: str
    test_from: str


@dataclass(frozen=True)
class TimeFractions:
    """The latest rows test, those before validate. Rows of one moment stay together, in the later split."""

    column: str
    validation: float
    test: float

    def __post_init__(self) -> None:
        _check_fractions(self.validation, self.test)


@dataclass(frozen=True)
class ColumnSplit:
    """A column names each row's split. It is not written: it would be a feature that knows the split."""

    column: str


@dataclass(frozen=True)
class HashSplit:
    """Rows with equal keys go to one split, the same in every run, on every machine, with any other rows.

    Position = first 8 hexadecimal digits of the MD5 of the keys as text (joined by U+001F, NULL as U+0000),
    as a fraction of 16^8: below `test` it is test, below `test + validation` validation, else train.
    """

    columns: tuple[str, ...]
    validation: float
    test: float

    def __post_init__(self) -> None:
        _check_fractions(self.validation, self.test)
        if not self.columns:
            raise DataError("split: a hash split needs at least one key column")


Split = TimeBoundaries | TimeFractions | ColumnSplit | HashSplit
Resolved = TimeBoundaries | ColumnSplit | HashSplit


def resolve(database: Database, sql: str, columns: Sequence[Column], split: Split) -> Resolved:
    """Fixes the boundaries that depend on the data.

    Args:
      sql: the query, without parameters.
      columns: what it gives.

    Raises:
      DataError: if a column is missing or cannot be split by.
    """
    for name in _columns_of(split):
        _column(columns, name)
    if not isinstance(split, TimeFractions):
        return split
    time = quoted(split.column)
    rows = _one_row(database, f"SELECT count({time}) FROM ({sql}\n)")[0]

    def latest(fraction: float) -> str:
        # Sorting spills to disk where a quantile would hold every value in memory.
        query = (
            f"SELECT CAST({time} AS VARCHAR) FROM ({sql}\n) WHERE {time} IS NOT NULL ORDER BY {time} "
            f"LIMIT 1 OFFSET {rows - round(rows * fraction)}"
        )
        found = database.connection.execute(query).fetchall()
        if not found:
            raise DataError(f"split: {fraction:.3g} of {rows} rows is less than one row; raise the fraction")
        return str(found[0][0])

    return TimeBoundaries(split.column, latest(split.validation + split.test), latest(split.test))


def expression(split: Resolved, columns: Sequence[Column]) -> str:
    """SQL that gives 'train', 'validation' or 'test', or NULL where the row's column does not say."""
    match split:
        case TimeBoundaries():
            time = quoted(split.column)
            validation, test = boundaries(split, _column(columns, split.column))
            return (
                f"CASE WHEN {time} >= {test} THEN '{TEST}' WHEN {time} >= {validation} THEN '{VALIDATION}' "
                f"WHEN {time} IS NOT NULL THEN '{TRAIN}' END"
            )
        case ColumnSplit():
            names = ", ".join(literal(name) for name in SPLITS)
            value = f"CAST({quoted(split.column)} AS VARCHAR)"
            return f"CASE WHEN {value} IN ({names}) THEN {value} END"
        case HashSplit():
            keys = ", ".join(f"coalesce(CAST({quoted(name)} AS VARCHAR), chr(0))" for name in split.columns)
            digits = f"substr(md5(concat_ws({literal(_SEPARATOR)}, {keys})), 1, {_HASH_DIGITS})"
            position = f"CAST('0x' || {digits} AS BIGINT)"
            size = 16**_HASH_DIGITS
            return (
                f"CASE WHEN {position} < {round(split.test * size)} THEN '{TEST}' "
                f"WHEN {position} < {round((split.test + split.validation) * size)} THEN '{VALIDATION}' "
                f"ELSE '{TRAIN}' END"
            )


def boundaries(split: TimeBoundaries, column: Column) -> tuple[str, str]:
    """The first values of validation and test, as SQL of the column's type.

    Raises:
      DataError: if a boundary is not of the column's type, or they are in the wrong order.
    """
    validation = _moment(split.validation_from, column)
    test = _moment(split.test_from, column)
    if validation.order > test.order:
        raise DataError(
            f"split: validation_from {split.validation_from} is later than test_from {split.test_from}"
        )
    return validation.sql, test.sql


def check(database: Database, sql: str, columns: Sequence[Column], split: Resolved) -> Mapping[str, int]:
    """Counts the rows of each split.

    Raises:
      DataError: if a split is empty or a row belongs to none; the message says where the data lies.
    """
    query = f"SELECT {expression(split, columns)} AS split, count(*) FROM ({sql}\n) GROUP BY 1"
    counts: dict[str | None, int] = dict(database.connection.execute(query).fetchall())
    lost = counts.pop(None, 0)
    if lost:
        raise _lost_rows(database, sql, split, lost)
    for name in SPLITS:
        if not counts.get(name):
            raise DataError(f"split: {name} is empty: {_reason(database, sql, split, counts)}")
    return {name: counts[name] for name in SPLITS}


def written(columns: Sequence[Column], split: Split) -> tuple[Column, ...]:
    """The columns that become features."""
    return tuple(
        column for column in columns if not (isinstance(split, ColumnSplit) and column.name == split.column)
    )


def _lost_rows(database: Database, sql: str, split: Resolved, lost: int) -> DataError:
    if not isinstance(split, ColumnSplit):
        column = _columns_of(split)[0]
        return DataError(
            f"split: column {column!r} is NULL in {lost} rows, which have no place in time; leave them out "
            f"of the query (WHERE {column} IS NOT NULL)"
        )
    value = f"CAST({quoted(split.column)} AS VARCHAR)"
    names = ", ".join(literal(name) for name in SPLITS)
    query = (
        f"SELECT DISTINCT {value} FROM ({sql}\n) WHERE {value} IS NULL OR {value} NOT IN ({names}) "
        "ORDER BY 1 LIMIT 3"
    )
    others = ", ".join(repr(row[0]) for row in database.connection.execute(query).fetchall())
    return DataError(
        f"split: column {split.column!r} names no split in {lost} rows ({others}); want {', '.join(SPLITS)}"
    )


def _reason(database: Database, sql: str, split: Resolved, counts: Mapping[str | None, int]) -> str:
    if isinstance(split, TimeBoundaries):
        time = quoted(split.column)
        low, high = _one_row(database, f"SELECT min({time}), max({time}) FROM ({sql}\n)")
        return (
            f"validation starts at {split.validation_from} and test at {split.test_from}, but {split.column} "
            f"goes from {low} to {high}"
        )
    rows = ", ".join(f"{name} {counts.get(name, 0)}" for name in SPLITS)
    if isinstance(split, HashSplit):
        keys = ", ".join(split.columns)
        return f"the rows are {rows}; the key {keys} has too few values, or a fraction is too small"
    return f"the rows are {rows}; column {split.column!r} has to name all three"


def _one_row(database: Database, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = database.connection.execute(query).fetchall()[0]
    return row


def _columns_of(split: Split) -> tuple[str, ...]:
    return split.columns if isinstance(split, HashSplit) else (split.column,)


def _column(columns: Sequence[Column], name: str) -> Column:
    for column in columns:
        if column.name == name:
            return column
    known = ", ".join(column.name for column in columns)
    raise DataError(f"split: the query gives no column {name!r}; it gives {known}")


@dataclass(frozen=True)
class _Moment:
    """A boundary: as SQL of the column's type, and as a number to compare it by."""

    sql: str
    order: float


def _moment(text: str, column: Column) -> _Moment:
    if column.is_list or (column.dtype is DType.BYTES):
        raise DataError(
            f"split: column {column.name!r} is {column.sql_type}; a time split needs a date, time or number"
        )
    try:
        if not column.is_time:
            number = int(text) if column.dtype is DType.INT else float(text)
            return _Moment(_constant(str(number), column), number)
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        want = "an ISO 8601 date or time" if column.is_time else "a number"
        raise DataError(
            f"split: the boundary {text!r} is not {want}, as column {column.name!r} ({column.sql_type}) needs"
        ) from error
    utc = moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    # The connection's time zone is UTC, so no zone is written.
    return _Moment(_constant(utc.replace(tzinfo=None).isoformat(" "), column), utc.timestamp())


def _constant(text: str, column: Column) -> str:
    return f"CAST({literal(text)} AS {column.sql_type})"


def _check_fractions(validation: float, test: float) -> None:
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DataError(
            f"split: fractions validation {validation}, test {test}: want both above 0 and their sum below 1"
        )
