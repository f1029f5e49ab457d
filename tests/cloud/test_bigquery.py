"""Names, schemas and errors of BigQuery; the errors come over the wire from a service that refuses everything."""

import pyarrow as pa
import pytest
from google.auth.exceptions import DefaultCredentialsError

from cloud.bigquery import BigQueryError, Connection, TableName, ensure_table, fields
from tests.cloud.dataflow_service import serving

TABLE = TableName("my-project", "flights", "predictions")


@pytest.mark.parametrize(
    "text",
    ["my-project.flights.predictions", "my-project:flights.predictions", "example.com:my-project.a.b-c"],
)
def test_a_table_is_named_in_full(text):
    name = TableName.parse(text)
    assert str(name) == text.replace("my-project:", "my-project.")
    assert name.sql == f"`{name}`"


@pytest.mark.parametrize(
    "text", ["flights.predictions", "my-project.flights", "a.b.c.d", "x`y.flights.t", ""]
)
def test_anything_else_is_no_table(text):
    with pytest.raises(BigQueryError, match=r"write the table as PROJECT\.DATASET\.TABLE"):
        TableName.parse(text)


def test_columns_of_arrow_become_columns_of_bigquery():
    schema = pa.schema(
        [
            ("a", pa.int32()),
            ("b", pa.float32()),
            ("c", pa.dictionary(pa.int8(), pa.string())),
            ("d", pa.list_(pa.binary())),
            ("e", pa.timestamp("ns", "UTC")),
            ("f", pa.timestamp("us")),
            ("g", pa.date32()),
            ("h", pa.bool_()),
            ("i", pa.decimal128(38, 9)),
            ("j", pa.decimal128(38, 20)),
        ]
    )
    assert [(field.name, field.field_type, field.mode) for field in fields(schema)] == [
        ("a", "INT64", "NULLABLE"),
        ("b", "FLOAT64", "NULLABLE"),
        ("c", "STRING", "NULLABLE"),
        ("d", "BYTES", "REPEATED"),
        ("e", "TIMESTAMP", "NULLABLE"),
        ("f", "DATETIME", "NULLABLE"),
        ("g", "DATE", "NULLABLE"),
        ("h", "BOOL", "NULLABLE"),
        ("i", "NUMERIC", "NULLABLE"),
        ("j", "BIGNUMERIC", "NULLABLE"),
    ]


@pytest.mark.parametrize(
    ("code", "reason", "said", "told"),
    [
        (403, "accessDenied", "tables.get denied", r"not allowed: .*roles/bigquery\.dataEditor on"),
        (403, "quotaExceeded", "Quota exceeded: queries per day", "a quota is used up: .*run again later"),
        (403, "rateLimitExceeded", "Too many updates", r"a quota is used up: .*\(tried again until time was up\)"),
        (404, "notFound", "Not found in location EU", "where it was looked for: .*the location of the"),
        (404, "notFound", "Not found: Dataset flights", "not found: .*or make the dataset"),
        (409, "duplicate", "Already Exists: Job x", "is there already: "),
        (400, "invalidQuery", "Could not serialize access to table", "somebody else is writing it: .*run again"),
        (400, "invalid", "Field p: bad type", "refused: Field p: bad type$"),
        (401, "authError", "Invalid Credentials", "no credentials: .*gcloud auth application-default login"),
        (503, "backendError", "Backend error", "BigQuery did not answer or failed: .*try again later"),
    ],
)  # fmt: skip
def test_what_the_service_refuses_is_one_sentence_that_says_what_to_do(code, reason, said, told):
    with serving() as service:
        service.refuse(".*", code, reason, said)
        connection = Connection("my-project", endpoint=service.address, patience_s=0.3)
        with pytest.raises(BigQueryError, match=told) as raised:
            ensure_table(TABLE, fields(pa.schema([("p", pa.float64())])), connection)
    assert str(raised.value).startswith(f"table {TABLE}: ")
    assert "http" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_service_that_is_not_there_is_said_after_the_time_that_was_given():
    with serving() as service:
        nobody = service.address
    with pytest.raises(BigQueryError, match="BigQuery did not answer or failed"):
        ensure_table(TABLE, [], Connection("my-project", endpoint=nobody, patience_s=0.3))


def test_lacking_credentials_are_one_sentence(monkeypatch):
    def nobody(*_, **__):
        raise DefaultCredentialsError("Your default credentials were not found.\nSee the documentation.")

    monkeypatch.setattr("google.auth.default", nobody)
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    with pytest.raises(
        BigQueryError, match="project my-project: no credentials: Your default credentials"
    ) as raised:
        Connection("my-project").client()
    assert "\n" not in str(raised.value)
