"""BigQuery as sources and sinks see it: names of tables, the way to the service, schemas, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as arrow

from beam_jobs.rows import PredictionError

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud import bigquery, bigquery_storage_v1

_NAME = re.compile(
    r"(?P<project>(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9])[.:](?P<dataset>\w+)\.(?P<table>[\w-]+)"
)
_EMULATOR = "BIGQUERY_EMULATOR_HOST"
_ALIASES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
"""The service answers with legacy names of types."""
_CLUSTERED = frozenset({"STRING", "INT64", "BOOL", "DATE", "DATETIME", "TIMESTAMP", "NUMERIC", "BIGNUMERIC"})
"""Types that a table can be clustered by."""
_MOST_CLUSTERED = 4


class BigQueryError(PredictionError):
    """BigQuery did not do what was asked; the message is one sentence that says what to change."""


@dataclass(frozen=True)
class TableName:
    """A table by its full name."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"

    @property
    def sql(self) -> str:
        """The name as it stands in a statement."""
        return f"`{self}`"

    def beside(self, table: str) -> TableName:
        """Another table of the same dataset."""
        return TableName(self.project, self.dataset, table)

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Reads `PROJECT.DATASET.TABLE` (or `PROJECT:DATASET.TABLE`).

        Raises:
          BigQueryError: if it is not of that form.
        """
        found = _NAME.fullmatch(text)
        if found is None:
            raise BigQueryError(f"{text}: write the table as PROJECT.DATASET.TABLE")
        return cls(**found.groupdict())


@dataclass(frozen=True)
class Connection:
    """The way to BigQuery; holds no open client, so it travels to workers.

    Attributes:
      project: the project that jobs run in and are billed to.
      location: of the datasets, such as `EU`; None leaves it to the service.
      endpoint: another address of the REST service, such as an emulator's; asked without credentials.
      storage_endpoint: `host:port` of an emulator's Storage Read API, which gRPC speaks without encryption.
      patience_s: how long one request is repeated while the service fails or does not answer.
    """

    project: str
    location: str | None = None
    endpoint: str | None = None
    storage_endpoint: str | None = None
    patience_s: float = 120.0

    def client(self) -> bigquery.Client:
        """The client for tables and jobs, one a process."""
        return _client(self)

    def reader(self) -> bigquery_storage_v1.BigQueryReadClient:
        """The client that reads rows, one a process."""
        return _reader(self)

    @property
    def retry(self) -> Retry:
        """What is tried again, and for how long: by default the library would go on for ten minutes."""
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(self.patience_s)


@lru_cache(maxsize=8)
def _client(connection: Connection) -> bigquery.Client:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    emulated = connection.endpoint is not None or _EMULATOR in os.environ
    with explained(f"project {connection.project}"):
        return bigquery.Client(
            project=connection.project,
            location=connection.location,
            credentials=AnonymousCredentials() if emulated else None,
            client_options={"api_endpoint": connection.endpoint} if connection.endpoint else None,
        )


@lru_cache(maxsize=8)
def _reader(connection: Connection) -> bigquery_storage_v1.BigQueryReadClient:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

    if connection.storage_endpoint is None:
        with explained(f"project {connection.project}"):
            return BigQueryReadClient()
    import grpc
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    unbounded = [("grpc.max_receive_message_length", -1)]
    channel = grpc.insecure_channel(connection.storage_endpoint, options=unbounded)
    return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))


def fields(schema: pa.Schema) -> list[bigquery.SchemaField]:
    """BigQuery's columns for Arrow's.

    Raises:
      BigQueryError: for a column of a type that has no counterpart.
    """
    from google.cloud import bigquery

    found = []
    for field in schema:
        is_list = arrow.is_list(field.type) or arrow.is_large_list(field.type)
        kind = _type(field.type.value_type if is_list else field.type)
        if kind is None:
            raise BigQueryError(f"column {field.name}: BigQuery has no type for Arrow's {field.type}")
        found.append(bigquery.SchemaField(field.name, kind, mode="REPEATED" if is_list else "NULLABLE"))
    return found


def _type(type_: pa.DataType) -> str | None:
    if arrow.is_dictionary(type_):
        return _type(type_.value_type)
    if arrow.is_decimal(type_):
        return "NUMERIC" if type_.scale <= 9 and type_.precision - type_.scale <= 29 else "BIGNUMERIC"
    if arrow.is_timestamp(type_):
        return "TIMESTAMP" if type_.tz else "DATETIME"
    of_kind = {
        "BOOL": arrow.is_boolean,
        "INT64": arrow.is_integer,
        "FLOAT64": arrow.is_floating,
        "STRING": lambda t: arrow.is_string(t) or arrow.is_large_string(t),
        "BYTES": lambda t: arrow.is_binary(t) or arrow.is_large_binary(t),
        "DATE": arrow.is_date,
        "TIME": arrow.is_time,
    }
    return next((name for name, holds in of_kind.items() if holds(type_)), None)


def columns_of(table: TableName, connection: Connection) -> dict[str, bigquery.SchemaField] | None:
    """The columns of a table by name, their types as GoogleSQL calls them; None if there is no such table."""
    from google.api_core.exceptions import NotFound

    with explained(f"table {table}"):
        try:
            found = connection.client().get_table(str(table), retry=connection.retry)
        except NotFound:
            return None
    return {column.name: _renamed(column) for column in found.schema}


def add_columns(table: TableName, columns: Sequence[bigquery.SchemaField], connection: Connection) -> None:
    """Adds the columns that a table has not; of the rows that are there they hold nothing."""
    there = columns_of(table, connection) or {}
    with explained(f"table {table}"):
        for column in columns:
            if column.name not in there:
                statement = (
                    f"ALTER TABLE {table.sql} ADD COLUMN IF NOT EXISTS `{column.name}` {_described(column)}"
                )
                connection.client().query(statement, retry=connection.retry).result()


def ensure_table(
    table: TableName,
    columns: Sequence[bigquery.SchemaField],
    connection: Connection,
    partition_by: str | None = None,
    cluster_by: Sequence[str] = (),
) -> None:
    """Makes the table if it is not there; else sees that it takes the columns.

    Args:
      table: to hold rows.
      columns: of the rows.
      connection: the way there.
      partition_by: column whose day chooses a row's partition, of a table that is made.
      cluster_by: columns it is made to be clustered by: the first four of a type that allows it.

    Raises:
      BigQueryError: if it cannot be made, or has no such column, or one of another type; naming it.
    """
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    client = connection.client()
    with explained(f"table {table}"):
        try:
            existing = client.get_table(str(table), retry=connection.retry)
        except NotFound:
            wanted = bigquery.Table(str(table), columns)
            if partition_by is not None:
                wanted.time_partitioning = bigquery.TimePartitioning(field=partition_by)
            by_name = {column.name: column for column in columns}
            clustered = [name for name in cluster_by if _is_clustered(by_name[name])]
            wanted.clustering_fields = clustered[:_MOST_CLUSTERED] or None
            existing = client.create_table(wanted, exists_ok=True, retry=connection.retry)
    _check_columns(table, existing.schema, columns)


def _is_clustered(column: bigquery.SchemaField) -> bool:
    return column.mode != "REPEATED" and column.field_type in _CLUSTERED


def _check_columns(
    table: TableName, there: Sequence[bigquery.SchemaField], wanted: Sequence[bigquery.SchemaField]
) -> None:
    by_name = {column.name.lower(): column for column in there}
    for column in wanted:
        found = by_name.pop(column.name.lower(), None)
        if found is None:
            raise BigQueryError(
                f"table {table} has no column {column.name}; add it (ALTER TABLE {table.sql} ADD COLUMN "
                f"{column.name} {_described(column)}) or name another table"
            )
        if _described(found) != _described(column):
            raise BigQueryError(
                f"table {table}: column {column.name} is {_described(found)} there and {_described(column)} "
                "here; name another table, or change the column"
            )
    required = [column.name for column in by_name.values() if column.mode == "REQUIRED"]
    if required:
        raise BigQueryError(f"table {table} requires {', '.join(required)}, which predictions do not have")


def _renamed(column: bigquery.SchemaField) -> bigquery.SchemaField:
    from google.cloud import bigquery

    kind = _ALIASES.get(column.field_type, column.field_type)
    return bigquery.SchemaField(column.name, kind, mode=column.mode, fields=column.fields)


def _described(column: bigquery.SchemaField) -> str:
    kind = _ALIASES.get(column.field_type, column.field_type)
    return f"ARRAY<{kind}>" if column.mode == "REPEATED" else kind


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns errors of Google's libraries into one sentence about what was being read or written.

    Raises:
      BigQueryError: for lacking credentials, connection, permission, quota, and whatever else was refused.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise BigQueryError(f"{what}: {_meaning(error)}") from error


def _meaning(error: BaseException) -> str:
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests.exceptions import RequestException

    if isinstance(error, api.RetryError) and error.cause is not None:
        return f"{_meaning(error.cause)} (tried again until time was up)"
    said = _first_line(error)
    lower = said.lower()
    if isinstance(error, TransportError | RequestException | api.ServiceUnavailable | api.ServerError):
        return f"BigQuery did not answer or failed: {said}; try again later"
    if isinstance(error, GoogleAuthError | api.Unauthorized):
        return (
            f"no credentials: {said}; log in with `gcloud auth application-default login`, "
            "or set GOOGLE_APPLICATION_CREDENTIALS"
        )
    if isinstance(error, api.TooManyRequests) or _reason(error) in {"quotaExceeded", "rateLimitExceeded"}:
        return f"a quota is used up: {said}; run again later, write in larger pieces, or ask for more quota"
    if _reason(error) == "responseTooLarge":
        return f"the answer is too large: {said}; select fewer columns or rows"
    if isinstance(error, api.Forbidden):
        return (
            f"not allowed: {said}; the account needs roles/bigquery.jobUser and roles/bigquery.readSessionUser "
            "on the project, and roles/bigquery.dataEditor on the dataset (dataViewer if it is only read)"
        )
    if isinstance(error, api.NotFound) and "location" in lower:
        return f"not found where it was looked for: {said}; give the location of the dataset"
    if isinstance(error, api.NotFound):
        return f"not found: {said}; look at project, dataset and table, or make the dataset"
    if "serialize access" in lower or "concurrent update" in lower:
        return f"somebody else is writing it: {said}; run again"
    if isinstance(error, api.Conflict):
        return f"is there already: {said}"
    return f"refused: {said}"


def _reason(error: BaseException) -> str | None:
    details = getattr(error, "errors", None) or ()
    return next((one.get("reason") for one in details if isinstance(one, dict)), None)


def _first_line(error: BaseException) -> str:
    said = next(iter(str(getattr(error, "message", "") or error).splitlines()), type(error).__name__)
    # The library puts method and address before what the service says, and repeats it after.
    said = re.sub(r"^(?:GET|POST|PUT|PATCH|DELETE) \S+: ", "", said)
    return re.sub(r"; reason: .*", "", said).rstrip(".;: ")
