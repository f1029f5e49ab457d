"""The predictions of a job into a table: all of them at once, in place of what the same job wrote before.

The job's Parquet files are loaded into a table of their own, and one MERGE
takes out the job's old rows and puts in the new. Nobody sees a part of them, and a job that runs again doubles nothing.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cloud.bigquery import BigQueryError, Connection, TableName, ensure_table, explained, fields

if TYPE_CHECKING:
    from google.cloud import bigquery

_STAGED_FOR = datetime.timedelta(days=1)
_FILES_A_LOAD = 10_000
"""BigQuery's bound."""
_ROWS_A_GROUP = 1 << 16


@dataclass(frozen=True)
class JobTable:
    """The rows of one job within a table.

    Attributes:
      table: theirs and of other jobs; made if it is not there, partitioned by day of `time_column` and clustered by
        `job_column` and `key`.
      schema: of the rows, without `job_column`.
      job_id: names the job; what stands in the table under the same id is replaced.
      connection: the way there.
      key: columns that readers look rows up by.
      job_column: the column that holds the job's id.
      time_column: a timestamp; None, or a column the rows lack: no partitions.
    """

    table: TableName
    schema: pa.Schema
    job_id: str
    connection: Connection
    key: tuple[str, ...] = ()
    job_column: str = "job_id"
    time_column: str | None = "predicted_at"

    def prepare(self) -> None:
        """Makes the table, or sees that it takes the rows; says so before a job has worked for hours.

        Raises:
          BigQueryError: if the table cannot be made, or has not the columns of the rows.
        """
        if self.job_column in self.schema.names:
            raise BigQueryError(
                f"column {self.job_column} is to hold the job's id and is among the rows' own"
            )
        columns = fields(self.schema)
        by_name = {column.name: column for column in columns}
        is_timed = self.time_column in by_name and by_name[self.time_column].field_type == "TIMESTAMP"
        ensure_table(
            self.table,
            [*columns, *fields(pa.schema([(self.job_column, pa.string())]))],
            self.connection,
            partition_by=self.time_column if is_timed else None,
            cluster_by=(self.job_column, *self.key),
        )

    def replace(self, files: Sequence[str], rows: int | None = None) -> int:
        """Puts the rows of Parquet files in the place of those the job wrote before, in one statement.

        May be done again, also with other files of the same rows.

        Args:
          files: all on Cloud Storage or all on this machine; none: the job has no rows any more.
          rows: how many they hold; None: not known.

        Returns:
          How many rows the job now has.

        Raises:
          BigQueryError: if the rows could not be loaded or put in, or are not so many; the table is then as it was.
        """
        self.prepare()
        staging = self.table.beside(f"{self.table.table}_staging_{uuid.uuid4().hex}")
        client = self.connection.client()
        with explained(f"table {self.table}"):
            self._make_staging(client, staging)
            try:
                self._load(client, staging, files)
                loaded = int(client.get_table(str(staging), retry=self.connection.retry).num_rows)
                if rows is not None and loaded != rows:
                    raise BigQueryError(
                        f"table {self.table}: nothing was put in: {loaded} rows were loaded of the {rows} that job "
                        f"{self.job_id} wrote; run it again, and report it if that stays so"
                    )
                self._merge(client, staging)
                return loaded
            finally:
                client.delete_table(str(staging), not_found_ok=True, retry=self.connection.retry)

    def _make_staging(self, client: bigquery.Client, staging: TableName) -> None:
        from google.cloud import bigquery

        wanted = bigquery.Table(str(staging), fields(self.schema))
        # Should this process die, the service removes the table.
        wanted.expires = datetime.datetime.now(datetime.UTC) + _STAGED_FOR
        client.create_table(wanted, retry=self.connection.retry)

    def _load(self, client: bigquery.Client, staging: TableName, files: Sequence[str]) -> None:
        settings = self._load_settings()
        if not any(name.startswith("gs://") for name in files):
            for name in files:
                with Path(name).open("rb") as file:
                    client.load_table_from_file(file, str(staging), job_config=settings).result()
            return
        for start in range(0, len(files), _FILES_A_LOAD):
            uris = list(files[start : start + _FILES_A_LOAD])
            client.load_table_from_uri(
                uris, str(staging), job_config=settings, retry=self.connection.retry
            ).result()

    def _load_settings(self) -> bigquery.LoadJobConfig:
        from google.cloud import bigquery
        from google.cloud.bigquery.format_options import ParquetOptions

        settings = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            schema=fields(self.schema),
        )
        settings.parquet_options = ParquetOptions()
        # Else a list becomes a record with a list inside.
        settings.parquet_options.enable_list_inference = True
        return settings

    def _merge(self, client: bigquery.Client, staging: TableName) -> None:
        from google.cloud import bigquery

        names = [f"`{name}`" for name in self.schema.names]
        job = f"`{self.job_column}`"
        statement = (
            f"MERGE {self.table.sql} AS held USING {staging.sql} AS made ON FALSE\n"
            f"WHEN NOT MATCHED BY TARGET THEN INSERT ({', '.join([*names, job])}) "
            f"VALUES ({', '.join([*(f'made.{name}' for name in names), '@job'])})\n"
            f"WHEN NOT MATCHED BY SOURCE AND held.{job} = @job THEN DELETE"
        )
        settings = bigquery.QueryJobConfig(
            query_parameters=[bigquery.ScalarQueryParameter("job", "STRING", self.job_id)]
        )
        client.query(statement, job_config=settings, retry=self.connection.retry).result()
