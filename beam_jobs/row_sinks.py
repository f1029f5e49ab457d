"""Where a streaming job writes rows: a protocol, and sinks for a laptop.

A batch may be written again, after a crash or when a message is delivered again: a sink keeps one row of a name, the
first. The sinks are settings, which travel to workers; what they open is opened there.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from beam_jobs.rows import DeadLetter, PredictionError
from ingest.quoting import quoted

Row = dict[str, Any]
_WAIT_S = 30.0


class RowSink(Protocol):
    """Takes rows."""

    def write(self, rows: Sequence[Row]) -> None:
        """Returns when all rows are kept: all of them or, if it raises, none or some, to be written again."""


class DeadLetterSink(Protocol):
    """Takes rows that got no prediction."""

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when all are kept; may be called again with the same."""


def fitting(letter: DeadLetter, most_bytes: int) -> DeadLetter:
    """The letter with no more of its raw row than a sink takes; where that is not all of it, the reason says so."""
    size = len(letter.raw)
    if size <= most_bytes:
        return letter
    # In front: a long reason may be cut, too.
    reason = f"(only the first {most_bytes} of {size} bytes are kept here) {letter.reason}"
    return replace(letter, raw=letter.raw[:most_bytes], reason=reason)


def as_row(letter: DeadLetter) -> Row:
    """A dead letter of a message, which has no header, as a row of a table."""
    return {
        "source": letter.source,
        "position": letter.position,
        "reason": letter.reason,
        "raw": letter.raw,
    }


@dataclass(frozen=True)
class SqliteSink:
    """A table of an SQLite file; made, and given further columns, as rows bring them.

    Attributes:
      path: the file.
      table: the table.
      key: the column that names a row; the first row of a name stays.
    """

    path: str
    table: str
    key: str

    def write(self, rows: Sequence[Row]) -> None:
        """Writes rows in one transaction."""
        if not rows:
            return
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = ", ".join(map(quoted, names))
        places = ", ".join("?" for _ in names)
        values = [[_plain(row.get(name)) for name in names] for row in rows]
        with _transaction(self.path) as connection:
            self._make_columns(connection, names)
            connection.executemany(
                f"INSERT INTO {quoted(self.table)} ({columns}) VALUES ({places}) "
                f"ON CONFLICT ({quoted(self.key)}) DO NOTHING",
                values,
            )

    def _make_columns(self, connection: sqlite3.Connection, names: Sequence[str]) -> None:
        table = quoted(self.table)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({quoted(self.key)} PRIMARY KEY)")
        present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for name in names:
            if name not in present:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)}")


@dataclass(frozen=True)
class SqliteDeadLetters:
    """A table of dead letters in an SQLite file, one for each position."""

    path: str
    table: str = "dead_letters"

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Writes dead letters in one transaction."""
        SqliteSink(self.path, self.table, "position").write([as_row(letter) for letter in letters])


@dataclass(frozen=True)
class JsonLinesSink:
    """A file that rows are added to, a JSON object each. A row that is written again is there again: tell by its id."""

    path: str

    def write(self, rows: Sequence[Row]) -> None:
        """Adds rows and flushes them to disk."""
        lines = "".join(json.dumps(row, default=_plain, allow_nan=False) + "\n" for row in rows)
        try:
            with Path(self.path).open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise PredictionError(f"{self.path}: cannot be written: {error.strerror}") from error


_SQLITE = threading.Lock()


@contextmanager
def _transaction(path: str) -> Iterator[sqlite3.Connection]:
    try:
        with _SQLITE, _connection(path) as connection:  # Which commits, or rolls back what has failed.
            connection.execute("BEGIN IMMEDIATE")
            yield connection
    except sqlite3.Error as error:
        raise PredictionError(f"{path}: cannot be written: {error}") from error


@cache
def _connection(path: str) -> sqlite3.Connection:
    """One for the process: opening and closing costs more flushes than writing."""
    connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _plain(value: Any) -> Any:
    """A value as JSON and SQLite have it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, list | dict) else value
