"""Parquet: columns in their own types; a row has no text of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.formats.text import Item, ReadSettings
from beam_jobs.rows import Batch, PredictionError


def read_parquet(stream: BinaryIO, source: str, settings: ReadSettings) -> Iterator[Item]:
    """Reads record batches, of those columns that are to be read.

    Raises:
      PredictionError: if the file is no Parquet, names a column twice or none of those that are to be read.
    """
    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        raise PredictionError(f"{source}: this is no whole Parquet file: {error}") from error
    names = file.schema_arrow.names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PredictionError(f"{source}: the file names column {twice!r} twice")
    wanted = names if settings.columns is None else [name for name in settings.columns if name in names]
    if not wanted:
        raise PredictionError(
            f"{source}: the file has none of the columns {', '.join(settings.columns or ())}"
        )
    number = 1
    for rows in file.iter_batches(settings.rows, columns=wanted, use_threads=False):
        if rows.num_rows:
            columns = dict(zip(rows.schema.names, rows.columns, strict=True))
            yield Batch(source, range(number, number + rows.num_rows), columns)
            number += rows.num_rows
