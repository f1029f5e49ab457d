"""A job's rows in a table of an emulator, by the real client: all or nothing, and never twice."""

import datetime
import uuid
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloud.bigquery import BigQueryError, TableName
from cloud.bigquery_sink import JobTable

AT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)
SCHEMA = pa.schema(
    [
        ("flight", pa.int64()),
        ("tail", pa.string()),
        ("probability_late", pa.float64()),
        ("legs", pa.list_(pa.string())),
        ("predicted_at", pa.timestamp("us", "UTC")),
    ]
)


def rows(flights, tail="N1"):
    return pa.RecordBatch.from_pylist(
        [
            {
                "flight": n,
                "tail": None if n == 2 else tail,
                "probability_late": n / 10,
                "legs": ["a"] * (n % 3),
                "predicted_at": AT,
            }
            for n in flights
        ],
        SCHEMA,
    )


@pytest.fixture
def table(emulator, dataset):
    return JobTable(
        TableName.parse(f"{dataset}.predictions"), SCHEMA, "monday", emulator.connection, ("flight",)
    )


def put(table, batches, folder):
    """The job's rows, from a file a batch."""
    files = [folder / f"{uuid.uuid4().hex}.parquet" for _ in batches]
    for file, batch in zip(files, batches, strict=True):
        pq.write_table(pa.Table.from_batches([batch]), file)
    return table.replace([str(file) for file in files])


def held(table):
    found = table.connection.client().query(f"SELECT * FROM {table.table.sql}").result()
    return sorted((dict(row) for row in found), key=lambda row: (row["job_id"], row["flight"]))


def tables(emulator, dataset):
    return [one.table_id for one in emulator.connection.client().list_tables(dataset)]


def test_a_job_makes_its_table_partitioned_by_day_and_clustered_by_job_and_key(emulator, table, tmp_path):
    assert put(table, [rows([1, 2]), rows([3])], tmp_path) == 3
    made = emulator.connection.client().get_table(str(table.table))
    assert made.time_partitioning.field == "predicted_at"
    assert made.clustering_fields == ["job_id", "flight"]
    assert held(table)[1] == {
        "flight": 2,
        "tail": None,
        "probability_late": 0.2,
        "legs": ["a", "a"],
        "predicted_at": AT,
        "job_id": "monday",
    }


def test_the_same_job_again_replaces_its_rows_and_no_others(emulator, dataset, table, tmp_path):
    assert put(table, [rows([1, 2, 3])], tmp_path) == 3
    put(replace(table, job_id="tuesday"), [rows([1])], tmp_path)
    assert put(table, [rows([3, 4], tail="N2")], tmp_path) == 2
    assert [(row["job_id"], row["flight"], row["tail"]) for row in held(table)] == [
        ("monday", 3, "N2"),
        ("monday", 4, "N2"),
        ("tuesday", 1, "N1"),
    ]
    assert tables(emulator, dataset) == ["predictions"], "a staging table stayed"


def test_a_job_that_has_no_rows_any_more_leaves_none(table, tmp_path):
    assert put(table, [rows([1, 2]), rows([3])], tmp_path) == 3
    assert put(table, [], tmp_path) == 0
    assert held(table) == []


def test_files_on_cloud_storage_are_loaded_from_there(emulator, table):
    folder = emulator.buckets / "bucket" / "temp"
    folder.mkdir(parents=True)
    for name, flights in {"a": [1, 2], "b": [3]}.items():
        pq.write_table(pa.Table.from_batches([rows(flights)]), folder / f"{name}.parquet")
    files = ["gs://bucket/temp/a.parquet", "gs://bucket/temp/b.parquet"]
    assert table.replace(files) == 3
    assert table.replace(files) == 3, "done again, as when a worker is tried again"
    assert [row["flight"] for row in held(table)] == [1, 2, 3]


def test_a_file_that_cannot_be_loaded_leaves_the_table_as_it_was(emulator, dataset, table, tmp_path):
    put(table, [rows([1, 2])], tmp_path)
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    pq.write_table(pa.Table.from_batches([rows([7, 8])]), good)
    bad.write_bytes(good.read_bytes()[:200])
    with pytest.raises(BigQueryError, match=f"table {table.table}: ") as raised:
        table.replace([str(good), str(bad)])
    assert "\n" not in str(raised.value)
    assert [row["flight"] for row in held(table)] == [1, 2]
    assert tables(emulator, dataset) == ["predictions"]


def test_fewer_rows_than_the_job_wrote_are_not_put_in(table, tmp_path):
    put(table, [rows([1, 2])], tmp_path)
    pq.write_table(pa.Table.from_batches([rows([3])]), tmp_path / "short.parquet")
    with pytest.raises(
        BigQueryError, match="nothing was put in: 1 rows were loaded of the 2 that job monday"
    ):
        table.replace([str(tmp_path / "short.parquet")], 2)
    assert [row["flight"] for row in held(table)] == [1, 2]


def test_a_table_that_cannot_take_the_rows_is_refused_before_anything_is_written(emulator, dataset, table):
    client = emulator.connection.client()
    client.query(f"CREATE TABLE {table.table.sql} (flight STRING)").result()
    with pytest.raises(BigQueryError, match="column flight is STRING there and INT64 here"):
        table.prepare()
    lacking = replace(table, table=TableName.parse(f"{dataset}.other"))
    client.query(f"CREATE TABLE {lacking.table.sql} (flight INT64)").result()
    with pytest.raises(
        BigQueryError, match=r"has no column tail; add it \(ALTER TABLE .* ADD COLUMN tail STRING"
    ):
        lacking.prepare()
    strict = replace(table, table=TableName.parse(f"{dataset}.strict"))
    strict.prepare()
    with pytest.raises(BigQueryError, match="job_id is to hold the job's id"):
        replace(table, schema=SCHEMA.append(pa.field("job_id", pa.string()))).prepare()


def test_a_type_that_bigquery_lacks_is_named(table):
    with pytest.raises(BigQueryError, match="column span: BigQuery has no type for Arrow's duration"):
        replace(table, schema=pa.schema([("span", pa.duration("s"))])).prepare()
