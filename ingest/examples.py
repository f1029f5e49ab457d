"""Rows to examples on disk: DuckDB streams Arrow batches, threads encode, one gzip file a split.

Memory does not grow with the table: a few batches are under way at any time. Equal plans give
byte-identical files, in the order in which DuckDB's single query thread meets the rows; several threads
would not promise one order.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ingest import splits
from ingest.errors import DataError
from ingest.plan import Plan
from ingest.query import Column, bind, describe, run_error
from ingest.quoting import quoted
from ingest.records import to_examples, to_frames
from ingest.tables import Database, connect

FILE_NAME = "data_tfrecord-00000-of-00001.gz"

_PROGRESS = logging.getLogger("headworks.progress")
_BATCH_ROWS = 16_384
_ENCODERS = 2
_BATCHES_UNDER_WAY = 4
_GZIP_LEVEL = 1
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Written:
    """What was written: rows per split, and the columns that became features."""

    rows: Mapping[str, int]
    columns: tuple[Column, ...]


def write_examples(
    plan: Plan, folder: Path, *, memory_limit_mb: int = 1024, scratch: Path | None = None
) -> Written:
    """Writes `folder/Split-<name>/data_tfrecord-00000-of-00001.gz` for train, validation and test.

    Nothing appears under these names before all of it is written.

    Args:
      plan: what to read and how to split it.
      folder: created if absent; must hold no split yet.
      memory_limit_mb: what DuckDB may hold before it spills to disk.
      scratch: where unpacked and spilled data goes; the machine's temporary folder by default.

    Raises:
      DataError: if the data, the SQL or the split is at fault, or the disk is.
    """
    with connect(plan.tables, plan.null_values, memory_limit_mb=memory_limit_mb, scratch=scratch) as database:
        columns = describe(database, plan.sql, plan.params, plan.sql_source, plan.floats)
        features = splits.written(columns, plan.split)
        sql = bind(plan.sql, plan.params, plan.sql_source)
        try:
            split = splits.resolve(database, sql, columns, plan.split)
            rows = splits.check(database, sql, columns, split)
            selection = ", ".join(f"{column.expression()} AS {quoted(column.name)}" for column in features)
            route = f"{splits.expression(split, columns)} AS {quoted(splits.SPLIT_COLUMN)}"
            query = f"SELECT {selection}, {route} FROM ({sql}\n)"
            with _published(folder) as partial:
                _stream(database, query, rows, partial, plan.sql_source)
        except duckdb.Error as error:
            raise run_error(plan.sql, plan.sql_source, error) from error
    return Written(rows, features)


@contextlib.contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """A folder whose content moves to `folder` if all goes well, and vanishes if not."""
    partial = folder / _PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)  # Left behind by a process that was killed.
        for name in splits.SPLITS:
            if (folder / f"Split-{name}").exists():
                raise DataError(f"{folder}: already holds examples; name an empty folder")
            (partial / f"Split-{name}").mkdir(parents=True)
        yield partial
        for name in splits.SPLITS:
            (partial / f"Split-{name}").replace(folder / f"Split-{name}")
    except OSError as error:
        raise DataError(f"{folder}: cannot write examples: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _stream(database: Database, query: str, rows: Mapping[str, int], folder: Path, source: str) -> None:
    """Runs the query and writes each row to its split's file."""
    total, done = sum(rows.values()), 0
    values = collections.Counter[str]()
    database.connection.execute("SET threads = 1")
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(_gzip_file(folder / f"Split-{name}" / FILE_NAME)) for name in rows}
        pool = stack.enter_context(ThreadPoolExecutor(_ENCODERS))
        batches = _routed(database.connection.sql(query).to_arrow_reader(_BATCH_ROWS), values)
        for encoded in _encoded(batches, pool):
            files[encoded.split].write(encoded.frames)
            done += encoded.rows
            _PROGRESS.info("examples", extra={"done": done, "total": total, "unit": "rows"})
    if done != total:
        raise DataError(
            f"{source}: the query first gave {total} rows, then {done}; it must not depend on time or chance"
        )
    empty = [name for name, count in values.items() if not count]
    if empty:
        raise DataError(
            f"{source}: column {empty[0]!r} has no value in any of {total} rows; leave it out of the "
            "query or repair its source"
        )


@contextlib.contextmanager
def _gzip_file(path: Path) -> Iterator[IO[bytes]]:
    """A gzip file on disk, in full, when the block ends; its bytes depend on the content only."""
    with path.open("wb") as file:
        with gzip.GzipFile(
            filename="", fileobj=file, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0
        ) as packed:
            yield packed  # type: ignore[misc]  # typeshed does not count GzipFile as IO[bytes]
        file.flush()
        os.fsync(file.fileno())


def _routed(
    reader: pa.RecordBatchReader, values: collections.Counter[str]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of each batch by split, without the split's column; counts values by column in `values`."""
    for batch in reader:
        route = batch.column(batch.num_columns - 1)
        features = batch.select(range(batch.num_columns - 1))
        for name, column in zip(features.schema.names, features.columns, strict=True):
            found = column.flatten() if pa.types.is_list(column.type) else column
            values[name] += len(found) - found.null_count
        for name in splits.SPLITS:
            mask = pc.equal(route, name)
            count = mask.true_count
            if count:
                yield name, features if count == len(mask) else features.filter(mask)


@dataclass(frozen=True)
class _Encoded:
    split: str
    rows: int
    frames: pa.Buffer


def _encoded(batches: Iterator[tuple[str, pa.RecordBatch]], pool: ThreadPoolExecutor) -> Iterator[_Encoded]:
    """Encodes batches on the pool's threads; gives them in the order in which they came."""

    def encode(split: str, batch: pa.RecordBatch) -> _Encoded:
        return _Encoded(split, batch.num_rows, to_frames(to_examples(batch)))

    under_way: collections.deque[Future[_Encoded]] = collections.deque()
    for split, batch in batches:
        under_way.append(pool.submit(encode, split, batch))
        if len(under_way) > _BATCHES_UNDER_WAY:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
