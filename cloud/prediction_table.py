"""A BigQuery table as a source and as a destination of the batch job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from beam_jobs.batch import TableSource
from cloud.bigquery import Connection, TableName
from cloud.bigquery_sink import JobTable
from cloud.bigquery_source import ReadBatches, Reading

SCHEME = "bigquery://"


@dataclass(frozen=True)
class PredictionTable:
    """A table of predictions of any number of jobs (`beam_jobs.batch.Destination`).

    Attributes:
      table: its name; made if it is not there.
      connection: the way there.
      key: columns that readers look rows up by.
    """

    table: TableName
    connection: Connection
    key: tuple[str, ...] = ()

    def prepare(self, job_id: str, schema: pa.Schema) -> None:
        """Makes the table, or sees that it takes such rows."""
        self._of(job_id, schema).prepare()

    def replace(self, job_id: str, schema: pa.Schema, files: Sequence[str], rows: int) -> None:
        """Puts the rows of Parquet files, which are so many, in the place of the job's, in one statement."""
        self._of(job_id, schema).replace(files, rows)

    def _of(self, job_id: str, schema: pa.Schema) -> JobTable:
        return JobTable(self.table, schema, job_id, self.connection, self.key)


def source(name: str, rows: int, columns: tuple[str, ...]) -> TableSource:
    """The rows of `bigquery://PROJECT.DATASET.TABLE`, in batches of at most `rows`, with those columns that it has."""
    table = TableName.parse(name.removeprefix(SCHEME))
    reading = Reading(Connection(table.project), rows=rows, columns=columns)
    return TableSource(name, partial(ReadBatches, table, reading))
