"""One CSV file: its header, the types that hold for all of its rows, and how DuckDB is to read it."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from ingest.errors import DataError, convert_from
from ingest.quoting import literal, literals, quoted

_ROW_NAMES = "column1"
"""What a first column without a name is called."""

_DELIMITERS = ",;\t|"

_EXACT = {"HUGEINT": "VARCHAR"}
"""Parquet has no integer of 128 bits. What is longer than 64 is a key, which text keeps to the digit."""


@dataclass(frozen=True)
class ColumnType:
    """A column of a file and its DuckDB type."""

    name: str
    type: str


@dataclass(frozen=True)
class Csv:
    """How to read a CSV file.

    Attributes:
      path: of plain text.
      name: what the user calls it; differs from `path` where the file was unpacked.
      columns: in the order of the file.
      delimiter: between values.
      date_format, timestamp_format: how times are written, empty for ISO 8601.
    """

    path: Path
    name: str
    columns: tuple[ColumnType, ...]
    delimiter: str
    date_format: str = ""
    timestamp_format: str = ""


def inspect_csv(connection: duckdb.DuckDBPyConnection, path: Path, name: str, nulls: tuple[str, ...]) -> Csv:
    """Finds out how to read a file.

    Args:
      connection: any.
      path: of plain text.
      name: what the user calls it.
      nulls: texts that mean "no value".

    Raises:
      DataError: if the header is at fault.
      duckdb.Error: if a row is.
    """
    header, delimiter = _read_header(path, name)
    untyped = Csv(path, name, tuple(ColumnType(column, "VARCHAR") for column in header), delimiter)
    return _with_types(connection, untyped, nulls)


def parse(connection: duckdb.DuckDBPyConnection, file: Csv, nulls: tuple[str, ...]) -> None:
    """Converts every value of a file to its column's type, for the duckdb.Error if one cannot be."""
    counts = ", ".join(f"count({quoted(column.name)})" for column in file.columns)
    connection.execute(f"SELECT {counts} FROM {scan(file, nulls)}").fetchall()


def scan(file: Csv, nulls: tuple[str, ...]) -> str:
    """The file as a table function in SQL."""
    types = ", ".join(f"{literal(column.name)}: {literal(column.type)}" for column in file.columns)
    options = {"dateformat": file.date_format, "timestampformat": file.timestamp_format}
    formats = "".join(f", {option} = {literal(value)}" for option, value in options.items() if value)
    return (
        f"read_csv({literal(str(file.path))}, {_dialect(file, nulls)}, auto_detect = false, "
        f"strict_mode = true, columns = {{{types}}}{formats})"
    )


def _read_header(path: Path, name: str) -> tuple[list[str], str]:
    try:
        # Bytes that are not UTF-8 pass: those below the header are DuckDB's to find, which knows their line.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            line = file.readline()
            if not line.strip():
                raise DataError(f"{name}: the file is empty; a table needs a header and rows")
            delimiter = max(_DELIMITERS, key=line.count)
            file.seek(0)
            header = next(csv.reader(file, delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{name}:1: broken quoting in the header: {error}") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from error
    if encoding := _foreign_encoding("".join(header)):
        raise DataError(f"{name}:1: the text is not UTF-8: {convert_from(encoding)}")
    columns = [column.strip() for column in header]
    if not columns[0] and len(columns) > 1:
        columns[0] = _ROW_NAMES  # as pandas writes its index
    for position, column in enumerate(columns, start=1):
        if not column:
            raise DataError(f"{name}:1: column {position} of the header has no name")
        if column.lower() in (earlier.lower() for earlier in columns[: position - 1]):
            raise DataError(f"{name}:1: the header names column {column!r} twice (case does not count)")
    return columns, delimiter


def _foreign_encoding(decoded: str) -> str | None:
    """What a text probably is that is not UTF-8: UTF-16 is full of zeros, and surrogates stand for odd bytes."""
    if "\0" in decoded:
        return "utf-16"
    return "latin1" if any("\ud800" <= character <= "\udfff" for character in decoded) else None


def _with_types(connection: duckdb.DuckDBPyConnection, file: Csv, nulls: tuple[str, ...]) -> Csv:
    """The file with the narrowest types that hold for all of its rows.

    Types from a sample would not do even if the other rows can be converted to them: DuckDB rounds 2.5 to a
    BIGINT, cuts the time off a DATE and the zone off a TIMESTAMP.
    """
    try:
        columns, date_format, timestamp_format = connection.execute(
            f"""SELECT Columns, DateFormat, TimestampFormat FROM sniff_csv({literal(str(file.path))},
            {_dialect(file, nulls)}, strict_mode = true, sample_size = -1)"""
        ).fetchall()[0]
    except duckdb.Error:
        # The sniffer does not always say which row it stumbled over; reading everything as text does.
        parse(connection, file, nulls)
        raise
    types = (_EXACT.get(column["type"], column["type"]) for column in columns)
    named = tuple(ColumnType(known.name, type_) for known, type_ in zip(file.columns, types, strict=True))
    return replace(
        file, columns=named, date_format=date_format or "", timestamp_format=timestamp_format or ""
    )


def _dialect(file: Csv, nulls: tuple[str, ...]) -> str:
    """What is fixed rather than guessed: the first rows must not decide how the last ones are read."""
    return (
        f"delim = {literal(file.delimiter)}, quote = '\"', escape = '\"', comment = '', header = true, "
        f"skip = 0, encoding = 'utf-8', nullstr = [{literals(nulls)}]"
    )
