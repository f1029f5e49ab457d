"""The SQL that turns tables into rows, checked before it runs, and the features that its columns become.

| DuckDB type | feature | value |
|---|---|---|
| integers, BOOLEAN | INT | 64-bit; false is 0 |
| FLOAT, DOUBLE, DECIMAL | FLOAT | 32-bit; NaN is missing, infinities stay |
| VARCHAR, ENUM, UUID, JSON | BYTES | UTF-8 |
| BLOB | BYTES | as it is |
| DATE, TIMESTAMP (any) | INT | Unix seconds in UTC, rounded down |
| list or array of one of these | the same | several values; NULLs and NaNs inside are dropped |

A NULL is a missing value: the feature has no value in that row.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from ingest.errors import DataError, first_line
from ingest.quoting import quoted
from ingest.tables import Database
from schemas.features import DType

_SIGNED = frozenset({"tinyint", "smallint", "integer", "bigint", "hugeint"})
_INTEGERS = _SIGNED | {f"u{signed}" for signed in _SIGNED} | {"boolean"}
_FLOATS = frozenset({"float", "double", "decimal"})
_TEXTS = frozenset({"varchar", "enum", "uuid"})
_TIMES = frozenset(
    {"date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"}
)
_LISTS = frozenset({"list", "array"})

_NAMED = 20

_UNKNOWN_NAMES = (
    re.compile(r"Referenced column \"(?P<name>.+?)\" not found"),
    re.compile(r"does not have a column named \"(?P<name>.+?)\""),
    re.compile(r"Table with name (?P<name>.+?) does not exist"),
    re.compile(r"Referenced table \"(?P<name>.+?)\" not found"),
)


@dataclass(frozen=True)
class Column:
    """A column of the query's result.

    Attributes:
      name: the feature's name.
      sql_type: DuckDB's type, as SQL.
      dtype: the feature's value type in tf.Example.
      is_list: whether a row has any number of values.
      is_time: whether it is a date or time, written as Unix seconds.
    """

    name: str
    sql_type: str
    dtype: DType
    is_list: bool = False
    is_time: bool = False

    def expression(self) -> str:
        """SQL that gives the column as BIGINT, FLOAT, VARCHAR or BLOB, or a list of one of these."""
        if not self.is_list:
            return self._converted(quoted(self.name))
        value = self._converted("x")
        return f"[{value} FOR x IN {quoted(self.name)} IF {value} IS NOT NULL]"

    def widened(self) -> Column:
        """The column with its whole numbers as FLOAT; any other as it is."""
        return replace(self, dtype=DType.FLOAT) if self.dtype is DType.INT and not self.is_time else self

    def as_csv_example_gen(self) -> Column:
        """The column as TFX's CsvExampleGen reads it: what is no number is text."""
        is_text = self.is_time or self.sql_type in ("BOOLEAN", "TIME")
        return replace(self, dtype=DType.BYTES, is_time=False) if is_text else self

    def _converted(self, value: str) -> str:
        if self.is_time:
            return f"CAST(floor(epoch({value})) AS BIGINT)"
        if self.dtype is DType.INT:
            return f"CAST({value} AS BIGINT)"
        if self.dtype is DType.FLOAT:
            return f"CASE WHEN NOT isnan(CAST({value} AS DOUBLE)) THEN CAST({value} AS FLOAT) END"
        return value if self.sql_type.startswith("BLOB") else f"CAST({value} AS VARCHAR)"


def bind(sql: str, params: Mapping[str, int], source: str) -> str:
    """The SQL with its parameters (`$first_span`) replaced by their values.

    DuckDB streams a query without parameters only; the values are integers, so nothing can be injected.

    Args:
      sql: one SELECT statement.
      params: a value for each parameter.
      source: what to call the SQL in errors, such as its file.

    Raises:
      DataError: if the SQL is not one SELECT, or has a parameter without a value.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise _query_error(sql, source, error, ()) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise DataError(f"{source}: want one SELECT statement, found {kinds}")
    tokens = list(_tokens(sql))
    for dollar, name in itertools.pairwise(tokens):
        if dollar.text == "$" and name.text not in params:
            raise DataError(
                f"{source}:{name.line}: no value for the parameter ${name.text}; known are "
                f"{', '.join(f'${known}' for known in params) or 'none (no span range is given)'}"
            )
    for known, value in params.items():
        sql = _replace_parameter(sql, known, value)
    return without_end(sql)


def without_end(sql: str) -> str:
    """The statement without the semicolon that ends it and what stands behind."""
    encoded = sql.encode()
    starts = [start for start, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment]
    end = next((start for start in reversed(starts) if encoded[start : start + 1] == b";"), None)
    if end is None or starts[-1] != end:
        return sql
    return without_end(encoded[:end].decode())


def describe(
    database: Database, sql: str, params: Mapping[str, int], source: str, floats: Collection[str] = ()
) -> tuple[Column, ...]:
    """The columns that a query gives, without running it.

    Args:
      database: the tables.
      sql: one SELECT statement.
      params: values of its parameters.
      source: what to call the SQL in errors, such as its file.
      floats: columns that are FLOAT even where this delivery of the data has whole numbers only.

    Raises:
      DataError: if the SQL is wrong, names a column twice, or gives a column no feature can hold.
    """
    bound = bind(sql, params, source)
    try:
        relation = database.connection.sql(bound)
        found = list(zip(relation.columns, relation.types, strict=True))
    except duckdb.Error as error:
        raise _query_error(sql, source, error, _names(database)) from error
    seen: set[str] = set()
    for name, _ in found:
        if name.lower() in seen:
            raise DataError(f"{source}: the query gives two columns named {name!r}; rename one with AS")
        seen.add(name.lower())
    columns = (_column(name, type_, source) for name, type_ in found)
    return tuple(column.widened() if column.name in floats else column for column in columns)


def check_columns(
    database: Database, columns: Sequence[Column], expected: Mapping[str, DType], source: str
) -> None:
    """Compares the query's columns with the curated schema's.

    Raises:
      DataError: naming the missing, extra or retyped column, and for the last the first value that does not
        fit.
    """
    found = {column.name: column for column in columns}
    for name in expected:
        if name not in found:
            raise DataError(
                f"{source}: the query gives no column {name!r}, which the schema has"
                + _advice(
                    name,
                    found,
                    f"put it back into the query or {database.file_names}, or take it out of the schema",
                )
            )
    for name, column in found.items():
        if name not in expected:
            raise DataError(
                f"{source}: the query gives a column {name!r}, which the schema lacks"
                + _advice(name, expected, "add it to the schema or leave it out of the query")
            )
        if column.dtype is not expected[name]:
            if database.is_void(name):
                raise DataError(
                    f"{source}: column {name!r} has no value in any row of {database.file_names}; leave it out "
                    "of the query and the schema, or look at where it comes from"
                )
            wanted = {DType.INT: "BIGINT", DType.FLOAT: "DOUBLE", DType.BYTES: "VARCHAR"}[expected[name]]
            misfit = database.misfit(name, wanted)
            raise DataError(
                f"{source}: column {name!r} is {column.sql_type}, which is {column.dtype}, but "
                f"{expected[name]} in the schema{f'; {misfit}' if misfit else ''}; correct the data, CAST the "
                "column in the query, or give it the other type in the schema"
            )


def run_error(sql: str, source: str, error: duckdb.Error) -> DataError:
    """What to say when a query that was described without fault fails on a row."""
    return _query_error(sql, source, error, ())


def normalized(sql: str) -> str:
    """The SQL without comments and with one space between tokens, so that only what matters is left."""
    return " ".join(token.text for token in _tokens(sql)).rstrip("; ")


def _column(name: str, type_: Any, source: str) -> Column:
    is_list = type_.id in _LISTS
    element = type_.children[0][1] if is_list else type_
    kinds = ((_INTEGERS | _TIMES, DType.INT), (_FLOATS, DType.FLOAT), (_TEXTS | {"blob"}, DType.BYTES))
    for ids, dtype in kinds:
        if element.id in ids:
            return Column(name, str(type_), dtype, is_list, element.id in _TIMES)
    if str(element) == '"NULL"':
        raise DataError(f"{source}: column {name!r} is NULL in every row; leave it out or CAST it to a type")
    raise DataError(
        f"{source}: column {name!r} has type {type_}, which no feature can hold; CAST it to a number, a "
        "text, a time, or a list of these"
    )


@dataclass(frozen=True)
class _Token:
    text: str
    line: int


def _tokens(sql: str) -> Iterator[_Token]:
    """The SQL's tokens without comments. DuckDB counts in bytes."""
    encoded = sql.encode()
    starts = duckdb.tokenize(sql)
    ends = [start for start, _ in starts[1:]] + [len(encoded)]
    for (start, kind), end in zip(starts, ends, strict=True):
        if kind != duckdb.token_type.comment:
            yield _Token(encoded[start:end].decode().strip(), encoded.count(b"\n", 0, start) + 1)


def _replace_parameter(sql: str, name: str, value: int) -> str:
    encoded = sql.encode()
    starts = [start for start, _ in duckdb.tokenize(sql)]
    for start in reversed(starts):
        if re.match(rb"\$%s\b" % name.encode(), encoded[start:]):
            encoded = encoded[:start] + str(int(value)).encode() + encoded[start + 1 + len(name.encode()) :]
    return encoded.decode()


def _names(database: Database) -> tuple[str, ...]:
    tables = (table.name for table in database.tables)
    columns = (column.name for table in database.tables for column in table.columns)
    return tuple(dict.fromkeys((*tables, *columns)))


def _query_error(sql: str, source: str, error: duckdb.Error, names: Iterable[str]) -> DataError:
    message = str(error)
    for pattern in _UNKNOWN_NAMES:
        if match := pattern.search(message):
            name = match["name"]
            line = next(
                (token.line for token in _tokens(sql) if token.text.strip('"').lower() == name.lower()), 1
            )
            kind = "table" if pattern.pattern.startswith(("Table", "Referenced table")) else "column"
            known = list(names)
            advice = _nearest(name, known) or (f"; known are {', '.join(known[:_NAMED])}" if known else "")
            return DataError(f"{source}:{line}: there is no {kind} {name!r}{advice}")
    if isinstance(error, duckdb.OutOfMemoryException):
        return DataError(f"{source}: the query needs more memory or disk than allowed: {first_line(error)}")
    line_number = re.search(r"^LINE (\d+):", message, re.MULTILINE)
    where = f"{source}:{line_number[1]}" if line_number else source
    return DataError(f"{where}: {first_line(error)}")


def _advice(name: str, names: Iterable[str], otherwise: str) -> str:
    """What to do about a name: perhaps it is misspelt."""
    nearest = _nearest(name, names)
    return f"{nearest} If not, {otherwise}" if nearest else f"; {otherwise}"


def _nearest(name: str, names: Iterable[str]) -> str:
    folded = {known.lower(): known for known in names}
    close = [repr(folded[match]) for match in difflib.get_close_matches(name.lower(), folded, n=3)]
    return f"; did you mean {' or '.join(close)}?" if close else ""
