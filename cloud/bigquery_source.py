"""Rows of a BigQuery table as batches, through the Storage Read API.

A table has no order. Its rows come in streams, which workers read side by side; the service holds the table as it was
when the reading began.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from beam_jobs.rows import Batch
from cloud.bigquery import BigQueryError, Connection, TableName, explained

ROWS = 1024


@dataclass(frozen=True)
class Stream:
    """A part of a table, to be read by one worker.

    Attributes:
      source: the table.
      name: of the stream, as the service calls it.
      number: of the stream within the reading, from 1; None if it is the only one.
      schema: of its rows.
    """

    source: TableName
    name: str
    number: int | None
    schema: pa.Schema


@dataclass(frozen=True)
class Reading:
    """How a table is read.

    The position of a row is its number within the reading, `STREAM/ROW` if there are several streams.

    Attributes:
      connection: the way there.
      rows: in a batch, at most.
      columns: to read, where the table has them; empty for all.
      streams: at most; the service gives fewer for a small table.
    """

    connection: Connection
    rows: int = ROWS
    columns: tuple[str, ...] = ()
    streams: int = 64

    def begin(self, table: TableName) -> list[Stream]:
        """The streams that hold the rows, each once.

        Raises:
          BigQueryError: if the table is not there or has none of the columns, or reading is not allowed.
        """
        from google.cloud.bigquery_storage_v1 import types

        options = types.ReadSession.TableReadOptions(selected_fields=self._selected(table))
        session = types.ReadSession(
            table=f"projects/{table.project}/datasets/{table.dataset}/tables/{table.table}",
            data_format=types.DataFormat.ARROW,
            read_options=options,
        )
        with explained(f"table {table}"):
            opened = self.connection.reader().create_read_session(
                parent=f"projects/{self.connection.project}",
                read_session=session,
                max_stream_count=self.streams,
                timeout=self.connection.patience_s,
            )
        is_alone = len(opened.streams) == 1
        schema = pa.ipc.read_schema(pa.py_buffer(opened.arrow_schema.serialized_schema))
        return [
            Stream(table, stream.name, None if is_alone else number, schema)
            for number, stream in enumerate(opened.streams, start=1)
        ]

    def read(self, stream: Stream) -> Iterator[Batch]:
        """The rows of a stream, from its beginning; holds a page of the service's at a time.

        Raises:
          BigQueryError: if the service stops answering, or the reading began more than six hours ago.
        """
        first = 1
        with explained(f"table {stream.source}"):
            for answer in self.connection.reader().read_rows(stream.name):
                message = pa.py_buffer(answer.arrow_record_batch.serialized_record_batch)
                records = pa.ipc.read_record_batch(message, stream.schema)
                for offset in range(0, records.num_rows, self.rows):
                    piece = records.slice(offset, self.rows)
                    yield self._batch(stream, piece, first)
                    first += piece.num_rows

    def _selected(self, table: TableName) -> list[str]:
        """The columns to ask for; the service refuses those that are not there, and gives all where none is named."""
        if not self.columns:
            return []
        with explained(f"table {table}"):
            found = self.connection.client().get_table(str(table), retry=self.connection.retry)
        held = {column.name for column in found.schema}
        names = [name for name in dict.fromkeys(self.columns) if name in held]
        if not names:
            raise BigQueryError(
                f"table {table} has none of the columns {', '.join(self.columns)}; it has {', '.join(sorted(held))}"
            )
        return names

    def _batch(self, stream: Stream, records: pa.RecordBatch, first: int) -> Batch:
        columns = dict(zip(records.schema.names, records.columns, strict=True))
        return Batch(str(stream.source), _positions(stream, first, records.num_rows), columns)


def _positions(stream: Stream, first: int, count: int) -> Sequence[str] | range:
    numbers = range(first, first + count)
    return numbers if stream.number is None else [f"{stream.number}/{number}" for number in numbers]


class ReadBatches(beam.PTransform):
    """Rows of a table → `Batch`es, read by as many workers as there are streams.

    Nothing is asked of the service before the pipeline runs.
    """

    def __init__(self, source: TableName, reading: Reading) -> None:
        super().__init__()
        self._source = source
        self._reading = reading

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Batch]:
        return (
            begin
            | "Source" >> beam.Create([self._source])
            | "Begin reading" >> beam.FlatMap(self._reading.begin).with_output_types(Stream)
            # Streams go to all workers, and the reading begins once even if a worker is tried again.
            | "Spread streams" >> beam.Reshuffle()
            | "Read streams" >> beam.FlatMap(self._reading.read).with_output_types(Batch)
        )
