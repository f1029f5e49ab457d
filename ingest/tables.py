"""Tables as DuckDB views: files are checked in full, then joined to one view a table.

CSV files are converted to Parquet in the connection's own folder before the query sees them. A broken row is
thus reported with its file and line before anything is written, the query can go over the data several times
at little cost, and DuckDB knows how many rows there are, without which it may put the largest table of a join
in memory. Packed files are unpacked there first, which verifies their checksum.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from ingest.csv_files import ColumnType, Csv, inspect_csv, parse, scan
from ingest.errors import DataError, csv_error, first_line
from ingest.locations import Table
from ingest.quoting import literal, literals, quoted
from ingest.unpacking import unpacked

_CONVERSION_MEMORY_MB = 256
_DETECTION_MEMORY_MB = 256
"""Enough for any file. To detect types, DuckDB keeps as much of a file in memory as it may."""
_FIRST_ROWS_BYTES = 1 << 20
_NAMED_FILES = 3
_UNKNOWN = "?"
"""The type of a column that has no value in a file: any other file may decide it."""

_WIDER: Mapping[frozenset[str], str] = {
    frozenset({"BIGINT", "DOUBLE"}): "DOUBLE",
    frozenset({"DATE", "TIMESTAMP"}): "TIMESTAMP",
}


@dataclass(frozen=True)
class DataFile:
    """A file of a table, after it was checked.

    Attributes:
      path: Parquet.
      name: what the user calls it.
      columns: in the order of the file.
      rows: number of rows.
      csv: where it was converted from, if it was.
    """

    path: Path
    name: str
    columns: tuple[ColumnType, ...]
    rows: int
    csv: Csv | None = None


@dataclass(frozen=True)
class OpenTable:
    """A table of the connection, with its files and the columns that hold for all of them."""

    name: str
    files: tuple[DataFile, ...]
    columns: tuple[ColumnType, ...]

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class Database:
    """A DuckDB connection with one view a table, and nothing else within its reach."""

    connection: duckdb.DuckDBPyConnection
    tables: tuple[OpenTable, ...]
    null_values: tuple[str, ...]

    @property
    def file_names(self) -> str:
        """The files of all tables, for a message; of many, the first few."""
        names = [file.name for table in self.tables for file in table.files]
        return ", ".join(names[:_NAMED_FILES]) + (", …" if len(names) > _NAMED_FILES else "")

    def is_void(self, column: str) -> bool:
        """Whether a column of that name is in the files but has no value in any of them."""
        types = [
            known.type
            for table in self.tables
            for file in table.files
            for known in file.columns
            if known.name == column
        ]
        return bool(types) and all(type_ == _UNKNOWN for type_ in types)

    def misfit(self, column: str, type_: str) -> DataError | None:
        """The first value of a CSV column that is not of the DuckDB type `type_`, with file and line."""
        for table in self.tables:
            for file in table.files:
                if any(known.name == column for known in file.columns):
                    misfit = _misfit(self.connection, file, ColumnType(column, type_), self.null_values)
                    if misfit:
                        return misfit
        return None


@contextlib.contextmanager
def connect(
    tables: Sequence[Table],
    null_values: Sequence[str] = ("",),
    *,
    memory_limit_mb: int = 1024,
    conversion_memory_mb: int = _CONVERSION_MEMORY_MB,
    threads: int | None = None,
    scratch: Path | None = None,
) -> Iterator[Database]:
    """Opens tables for SQL.

    Args:
      tables: names and files.
      null_values: texts that mean "no value" in CSV files; the empty text always does.
      memory_limit_mb: what DuckDB may hold for the query before it spills to disk.
      conversion_memory_mb: what it may hold while CSV files become Parquet; more is faster, and all of it is used.
      threads: of DuckDB; as many as there are cores by default.
      scratch: where unpacked files and spilled data go; the machine's temporary folder by default.

    Raises:
      DataError: if a file cannot be read in full or the files of a table disagree.
    """
    nulls = tuple(dict.fromkeys(("", *null_values)))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headworks-", dir=scratch)))
        cores = threads or os.cpu_count() or 1
        conversion_mb = min(memory_limit_mb, conversion_memory_mb)
        connection = stack.enter_context(_database(conversion_mb, cores, folder / "spill"))
        detection_mb = min(memory_limit_mb, _DETECTION_MEMORY_MB)
        with _database(detection_mb, cores, folder / "detection") as detecting:
            databases = _Databases(connection, detecting)
            opened = tuple(_open(databases, table, nulls, folder / str(i)) for i, table in enumerate(tables))
        connection.execute(f"SET memory_limit = '{memory_limit_mb}MB'")
        _lock(connection, opened)
        yield Database(connection, opened, nulls)


@dataclass(frozen=True)
class _Databases:
    """Where rows are read, and a second database where types are detected: each has a memory limit of its own."""

    reading: duckdb.DuckDBPyConnection
    detecting: duckdb.DuckDBPyConnection


def _database(memory_limit_mb: int, threads: int, spill: Path) -> duckdb.DuckDBPyConnection:
    settings: dict[str, Any] = {
        "memory_limit": f"{memory_limit_mb}MB",
        "temp_directory": str(spill),
        "threads": threads,
        "autoinstall_known_extensions": False,
    }
    connection = duckdb.connect(config=settings)
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


def _lock(connection: duckdb.DuckDBPyConnection, tables: Iterable[OpenTable]) -> None:
    """Leaves only the declared files readable: what the SQL reads is then what the fingerprint covers."""
    files = [file for table in tables for file in table.files]
    paths = [file.path for file in files] + [file.csv.path for file in files if file.csv]
    connection.execute(f"SET allowed_paths = [{literals(map(str, paths))}]")
    connection.execute("SET enable_external_access = false")


def _open(databases: _Databases, table: Table, nulls: tuple[str, ...], folder: Path) -> OpenTable:
    connection = databases.reading
    files = tuple(
        _inspect(databases, path, name, nulls, folder) for path, name in unpacked(table.paths, folder)
    )
    opened = OpenTable(table.name, files, _common_columns(connection, table.name, files, nulls))
    if not opened.rows:
        raise DataError(
            f"{files[0].name}: table {table.name!r} has a header but no rows; copy the file again"
        )
    scans = " UNION ALL ".join(_scan(group, opened.columns) for group in _alike(files))
    connection.execute(f"CREATE VIEW {quoted(table.name)} AS {scans}")
    return opened


def _inspect(databases: _Databases, path: Path, name: str, nulls: tuple[str, ...], folder: Path) -> DataFile:
    if path.suffix.lower() == ".parquet":
        return _inspect_parquet(databases.reading, path, name)
    try:
        folder.mkdir(exist_ok=True)
        csv, converted = _convert(databases, path, name, nulls, folder)
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise DataError(f"{name}: cannot be converted in {folder}: {first_line(error)}") from error
    except duckdb.Error as error:
        raise csv_error(name, error) from error
    return _with_counts(databases.reading, DataFile(converted, name, csv.columns, 0, csv))


def _convert(
    databases: _Databases, path: Path, name: str, nulls: tuple[str, ...], folder: Path
) -> tuple[Csv, Path]:
    """The file as Parquet, and what it was read as.

    To find the types takes as long as to convert, and both read every row. So a large file is converted while its
    types are looked for, to those that its first rows have; mostly they are right, and else it is converted again.
    """
    if path.stat().st_size < 2 * _FIRST_ROWS_BYTES:
        csv = inspect_csv(databases.detecting, path, name, nulls)
        return csv, _to_parquet(databases.reading, csv, nulls, folder)
    with ThreadPoolExecutor(max_workers=1) as pool:
        found = pool.submit(inspect_csv, databases.detecting, path, name, nulls)
        early = None
        with contextlib.suppress(duckdb.Error):  # what is wrong comes up again below, with its line
            guessed = _guess(databases.reading, path, name, nulls, folder)
            early = (guessed, _to_parquet(databases.reading, guessed, nulls, folder))
        csv = found.result()
    if early and early[0] == csv:
        return early
    return csv, _to_parquet(databases.reading, csv, nulls, folder)


def _guess(
    connection: duckdb.DuckDBPyConnection, path: Path, name: str, nulls: tuple[str, ...], folder: Path
) -> Csv:
    """How the file would be read if all of its rows were like the first."""
    first_rows = folder / "first_rows.csv"
    with path.open("rb") as file:
        first_rows.write_bytes(b"".join(file.readlines(_FIRST_ROWS_BYTES)))
    return replace(inspect_csv(connection, first_rows, name, nulls), path=path)


def _to_parquet(
    connection: duckdb.DuckDBPyConnection, csv: Csv, nulls: tuple[str, ...], folder: Path
) -> Path:
    converted = folder / f"{len(list(folder.glob('*.parquet')))}.parquet"
    connection.execute(f"COPY (FROM {scan(csv, nulls)}) TO {literal(str(converted))} (FORMAT parquet)")
    return converted


def _inspect_parquet(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> DataFile:
    try:
        relation = connection.sql(f"FROM read_parquet({literal(str(path))})")
        columns = tuple(map(ColumnType, relation.columns, map(str, relation.types)))
        return _with_counts(connection, DataFile(path, name, columns, 0))
    except duckdb.Error as error:
        raise DataError(f"{name}: cannot be read as Parquet: {first_line(error)}") from error


def _with_counts(connection: duckdb.DuckDBPyConnection, file: DataFile) -> DataFile:
    """The file with its number of rows, and without a type for columns that have no value."""
    counts = ", ".join(f"count({quoted(column.name)})" for column in file.columns)
    query = f"SELECT count(*), {counts} FROM read_parquet({literal(str(file.path))})"
    rows, *values = connection.execute(query).fetchall()[0]
    columns = tuple(
        known if count else replace(known, type=_UNKNOWN)
        for known, count in zip(file.columns, values, strict=True)
    )
    return replace(file, columns=columns, rows=rows)


def _common_columns(
    connection: duckdb.DuckDBPyConnection, table: str, files: Sequence[DataFile], nulls: tuple[str, ...]
) -> tuple[ColumnType, ...]:
    first, *others = files
    names = [column.name for column in first.columns]
    for other in others:
        found = [column.name for column in other.columns]
        for absent, present, where in ((names, found, other), (found, names, first)):
            for name in absent:
                if name not in present:
                    raise DataError(
                        f"{where.name}: table {table!r}: column {name!r} is missing, but "
                        f"{(first if where is other else other).name} has it; give all files the same header"
                    )
    return tuple(_common_type(connection, table, name, files, nulls) for name in names)


def _common_type(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    column: str,
    files: Sequence[DataFile],
    nulls: tuple[str, ...],
) -> ColumnType:
    common, witness = _UNKNOWN, files[0]
    for file in files:
        type_ = next(known.type for known in file.columns if known.name == column)
        if common == _UNKNOWN:
            common, witness = type_, file
        elif type_ not in (_UNKNOWN, common):
            wider = _WIDER.get(frozenset({type_, common}))
            if wider is None:
                raise _retyped(connection, table, column, (witness, common), (file, type_), nulls)
            common = wider
    return ColumnType(column, "VARCHAR" if common == _UNKNOWN else common)


def _retyped(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    column: str,
    one: tuple[DataFile, str],
    other: tuple[DataFile, str],
    nulls: tuple[str, ...],
) -> DataError:
    """Names the row that made one of two files' columns text, where that is what happened."""
    (text_file, text_type), (typed_file, type_) = (one, other) if one[1] == "VARCHAR" else (other, one)
    misfit = _misfit(connection, text_file, ColumnType(column, type_), nulls)
    return DataError(
        f"{text_file.name}: table {table!r}: column {column!r} is {text_type} here but {type_} in "
        f"{typed_file.name}{f'; {misfit}' if misfit else ''}"
    )


def _misfit(
    connection: duckdb.DuckDBPyConnection, file: DataFile, wanted: ColumnType, nulls: tuple[str, ...]
) -> DataError | None:
    """The first value of a column that is not of the wanted type, if there is one."""
    if file.csv is None:
        return None
    forced = tuple(wanted if known.name == wanted.name else known for known in file.csv.columns)
    try:
        parse(connection, replace(file.csv, columns=forced), nulls)
    except duckdb.Error as error:
        return csv_error(file.name, error)
    return None


def _alike(files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    """Neighbouring files that one scan can read; those without rows have nothing to read."""
    with_rows = (file for file in files if file.rows)
    for _, group in itertools.groupby(with_rows, key=lambda file: file.columns):
        yield list(group)


def _scan(files: Sequence[DataFile], columns: Sequence[ColumnType]) -> str:
    names = ", ".join(f"{quoted(column.name)}::{column.type} AS {quoted(column.name)}" for column in columns)
    return f"SELECT {names} FROM read_parquet([{literals(str(file.path) for file in files)}])"
