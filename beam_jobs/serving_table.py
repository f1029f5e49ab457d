"""A static serving table: predictions made in advance, in an SQLite file that a service looks up by key.

For inputs of which there are few (every route at every hour), or few that matter (the most requested), a lookup
replaces the model. The file holds one table, `predictions`, with a row a key.
"""

from __future__ import annotations

import math
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from beam_jobs.core import Model, Scorer
from beam_jobs.listed_rows import listed
from beam_jobs.pushed import PushedModel
from beam_jobs.rows import Batch, PredictionError
from ingest.flushing import flush
from ingest.locations import Table
from ingest.quoting import quoted

Score = Callable[[pa.Table], Iterator[pa.RecordBatch]]
"""Rows of input columns to rows of the output, which carry the key; raises where a row cannot be scored."""

_TABLE = "predictions"
_SCORED_ROWS = 1024


@dataclass(frozen=True)
class Written:
    """A serving table.

    Attributes:
      path: of the file.
      key: columns that together name a row.
      rows: number of rows.
      size_bytes: of the file.
    """

    path: Path
    key: tuple[str, ...]
    rows: int
    size_bytes: int


def most_requested(
    requests: Table, columns: Sequence[str], top: int, *, null_values: Sequence[str] = ("",)
) -> Iterator[pa.Table]:
    """The inputs that were requested most, the first first; of equals, the smaller.

    Args:
      requests: files with a row a request; a request that lacks one of the columns does not count.
      columns: that make an input, and are the key.
      top: how many inputs.
      null_values: texts that mean "no value" in CSV files.

    Raises:
      DataError: if a file is at fault or has no such column.
      PredictionError: if there is nothing to take.
    """
    if top < 1 or not columns:
        raise PredictionError(
            f"the {top} most requested of the columns {list(columns)}: want at least one of each"
        )
    names = ", ".join(map(quoted, columns))
    is_whole = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in columns)
    sql = (
        f"SELECT {names} FROM {quoted(requests.name)} WHERE {is_whole} GROUP BY {names} "
        f"ORDER BY count(*) DESC, {names} LIMIT {top}"
    )
    return listed([requests], sql, f"most requested in {requests.name}", null_values=null_values)


def scored_by(pushed: PushedModel, model: Model, key: Sequence[str], source: str, at: datetime) -> Score:
    """Scoring with the core.

    Args:
      pushed: the version.
      model: the way to it.
      key: columns that name a row, and are carried to the output; empty: all columns.
      source: what to call the list of rows in errors.
      at: the time of prediction that the rows say.
    """
    first = 1

    def score(chunk: pa.Table) -> Iterator[pa.RecordBatch]:
        nonlocal first
        scorer = Scorer(replace(pushed, key=tuple(key) or tuple(chunk.column_names)), model)
        for rows in chunk.to_batches(max_chunksize=_SCORED_ROWS):
            columns = dict(zip(rows.schema.names, rows.columns, strict=True))
            outcome = scorer.score(Batch(source, range(first, first + rows.num_rows), columns), at)
            for dead in outcome.dead_letters:
                raise PredictionError(
                    f"{source}: row {dead.position} cannot be scored: {dead.reason}: {dead.raw.decode()}; "
                    "leave it out of the list"
                )
            if outcome.predictions is not None:
                yield outcome.predictions
            first += rows.num_rows

    return score


def write(path: Path, chunks: Iterable[pa.Table], score: Score, key: Sequence[str] = ()) -> Written:
    """Predicts for every row and writes the table; nobody sees it before it is complete, or at all if that fails.

    Args:
      path: of the file; what is there is replaced, and whoever has it open keeps what they opened.
      chunks: rows to predict for (`listed`, `most_requested`).
      score: makes the predictions.
      key: columns that together name a row; by default all of the chunks'.

    Raises:
      PredictionError: if there are no rows, a key comes twice, is not complete or has no prediction, or the file
        cannot be written.
      DataError: of the chunks.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            partial = Path(scratch) / path.name
            with closing(sqlite3.connect(partial, isolation_level=None)) as database:
                # Nobody reads the file before it is complete, and it is flushed as a whole.
                database.execute("PRAGMA journal_mode = OFF")
                database.execute("PRAGMA synchronous = OFF")
                table = _fill(database, path, chunks, score, tuple(key))
            flush(partial)
            partial.replace(path)
            flush(path.parent)
    except (OSError, sqlite3.OperationalError) as error:
        raise PredictionError(f"{path}: the serving table cannot be written: {error}") from error
    return Written(path, table.key, table.rows, path.stat().st_size)


class ServingTable:
    """A serving table that is open for lookups, from any thread."""

    def __init__(self, path: str | Path) -> None:
        """Opens it.

        Raises:
          PredictionError: if there is none.
        """
        self._path = path
        try:
            self._database = sqlite3.connect(
                f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False
            )
            columns = self._database.execute(f"PRAGMA table_info({_TABLE})").fetchall()
        except sqlite3.Error as error:
            raise PredictionError(f"{path}: no serving table can be read here: {error}") from error
        places = {place: name for _, name, _, _, _, place in columns if place}
        self.key: tuple[str, ...] = tuple(places[place] for place in sorted(places))
        """The columns of the key."""
        if not self.key:
            self.close()
            raise PredictionError(f"{path}: holds no serving table; write one again")
        self._columns = [name for _, name, *_ in columns]
        condition = " AND ".join(f"{quoted(name)} = ?" for name in self.key)
        self._query = f"SELECT * FROM {_TABLE} WHERE {condition}"

    def __enter__(self) -> ServingTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lookup(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The row of a key, or None if the table has none.

        Args:
          key: a value for each column of the key; a date or time stands for its Unix seconds (without a zone: UTC).

        Raises:
          PredictionError: if the key has other columns.
        """
        if key.keys() != set(self.key):
            raise PredictionError(
                f"{self._path}: looked up by {', '.join(sorted(key)) or 'nothing'}, but its key is "
                f"{', '.join(self.key)}"
            )
        values = [_sought(key[name]) for name in self.key]
        row = self._database.execute(self._query, values).fetchone()
        return None if row is None else dict(zip(self._columns, row, strict=True))

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


def lookup(path: str | Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of a key in a serving table, or None if it has none; a service that asks often keeps a `ServingTable`.

    Raises:
      PredictionError: if there is no table, or the key has other columns than its.
    """
    with ServingTable(path) as table:
        return table.lookup(key)


@dataclass
class _Growing:
    """A table that is being filled."""

    path: Path
    key: tuple[str, ...]
    insert: str
    rows: int = 0


def _fill(
    database: sqlite3.Connection, path: Path, chunks: Iterable[pa.Table], score: Score, key: tuple[str, ...]
) -> _Growing:
    table: _Growing | None = None
    database.execute("BEGIN")
    for chunk in chunks:
        names = key or tuple(chunk.column_names)
        _check_key(path, chunk, names)
        before = table.rows if table else 0
        for batch in score(chunk):
            if table is None:
                table = _create(database, path, batch.schema, names)
            _insert(database, table, batch)
        if (table.rows if table else 0) - before != chunk.num_rows:
            raise _unanswered(database, path, chunk, names, table)
    if table is None:
        raise PredictionError(f"{path}: there are no rows to predict for; look at what lists them")
    database.execute("COMMIT")
    return table


def _check_key(path: Path, chunk: pa.Table, key: Sequence[str]) -> None:
    """Before anything is scored: whether every row has a key."""
    for name in key:
        if name not in chunk.column_names:
            raise PredictionError(
                f"{path}: no column {name!r} to be the key; there are {', '.join(chunk.column_names)}"
            )
        column = chunk[name]
        if _sqlite_type(column.type) is None or pat.is_timestamp(column.type):
            raise PredictionError(f"{path}: column {name!r} is {column.type}, which cannot be a key")
        if column.null_count:
            row = column.is_null().index(True).as_py()
            raise PredictionError(
                f"{path}: {name} is NULL in the key {_shown(chunk.slice(row, 1).to_pylist()[0], key)}, and NULL cannot "
                "be looked up: name by --key the columns that tell rows apart and are never NULL, give it a value "
                "(COALESCE), or leave such rows out of the list"
            )


def _create(database: sqlite3.Connection, path: Path, schema: pa.Schema, key: tuple[str, ...]) -> _Growing:
    if absent := [name for name in key if name not in schema.names]:
        raise PredictionError(
            f"{path}: the predictions do not carry {', '.join(absent)} of the key; they have {', '.join(schema.names)}"
        )
    types = {field.name: _sqlite_type(field.type) for field in schema}
    for name, type_ in types.items():
        if type_ is None:
            raise PredictionError(
                f"{path}: column {name!r} is {schema.field(name).type}, which a serving table cannot hold; do not "
                "carry it"
            )
    ordered = [*key, *(name for name in schema.names if name not in key)]
    columns = ", ".join(f"{quoted(name)} {types[name]}" for name in ordered)
    places = ", ".join(map(quoted, key))
    try:
        database.execute(f"CREATE TABLE {_TABLE} ({columns}, PRIMARY KEY ({places})) STRICT, WITHOUT ROWID")
    except sqlite3.OperationalError as error:  # Such as two names that differ in capitals only.
        raise PredictionError(f"{path}: {error}; rename the column in the input") from error
    names, marks = ", ".join(map(quoted, schema.names)), ", ".join("?" * len(schema.names))
    return _Growing(path, key, f"INSERT INTO {_TABLE} ({names}) VALUES ({marks})")


def _insert(database: sqlite3.Connection, table: _Growing, batch: pa.RecordBatch) -> None:
    columns = [_cells(column) for column in batch.columns]
    before = database.total_changes
    try:
        database.executemany(table.insert, zip(*columns, strict=True))
    except sqlite3.IntegrityError as error:
        row = batch.slice(database.total_changes - before, 1).to_pylist()[0]
        raise PredictionError(
            f"{table.path}: the key {_shown(row, table.key)} comes twice ({error}): list each once (SELECT DISTINCT), "
            "or add the column that tells them apart to the key"
        ) from error
    table.rows += batch.num_rows


def _unanswered(
    database: sqlite3.Connection, path: Path, chunk: pa.Table, key: Sequence[str], table: _Growing | None
) -> PredictionError:
    condition = " AND ".join(f"{quoted(name)} = ?" for name in key)
    for row in chunk.select(list(key)).to_pylist():
        values = [row[name] for name in key]
        if (
            table is None
            or not database.execute(f"SELECT 1 FROM {_TABLE} WHERE {condition}", values).fetchone()
        ):
            return PredictionError(
                f"{path}: the key {_shown(row, key)} got no prediction; leave out of the list what the model cannot "
                "take"
            )
    return PredictionError(f"{path}: there are predictions for keys that are not in the list")


def _sqlite_type(type_: pa.DataType) -> str | None:
    """The type of column that holds values of an Arrow type, as `_cells` gives them."""
    if pat.is_integer(type_) or pat.is_boolean(type_):
        return "INTEGER"
    if pat.is_floating(type_) or pat.is_decimal(type_):
        return "REAL"
    if pat.is_string(type_) or pat.is_large_string(type_) or pat.is_timestamp(type_):
        return "TEXT"
    return "BLOB" if pat.is_binary(type_) or pat.is_large_binary(type_) else None


def _cells(column: pa.Array) -> list[Any]:
    """The values of a column as SQLite holds them; times are texts in UTC, to the microsecond."""
    if pat.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pat.is_timestamp(column.type):
        column = pc.strftime(column.cast(pa.timestamp("us", tz="UTC")), "%Y-%m-%dT%H:%M:%S+00:00")
    values: list[Any] = column.to_pylist()
    return values


def _sought(value: Any) -> Any:
    """A value of a key as it was stored: times came as Unix seconds."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return math.floor((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return float(value) if isinstance(value, Decimal) else value


def _shown(row: Mapping[str, Any], key: Sequence[str]) -> str:
    return ", ".join(f"{name}={row[name]!r}" for name in key)
