"""The flights query on both engines: rows, splits and records of BigQueryExampleGen are those of QueryExampleGen.

The emulator runs the translated queries; only the way rows take from the service to Beam is another one.
"""

import gzip
import shutil
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
from apache_beam.io.tfrecordio import _TFRecordUtil
from google.cloud import bigquery
from tfx.extensions.google_cloud_big_query import utils as stock_utils
from tfx.extensions.google_cloud_big_query.example_gen import executor as stock
from tfx.types import standard_artifacts

from cloud.bigquery import fields
from ingest.errors import DataError
from ingest.examples import write_examples
from ingest.locations import resolve_table
from ingest.splits import SPLITS
from ingest.tables import connect
from pipeline import data_plan
from pipeline.bigquery_query import Reading
from pipeline.components import bigquery_example_gen
from pipeline.config import QuerySource, load
from pipeline.layers import Layer

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
DAYS = "month IN (1, 9, 10) AND day = 1"
CONFIG = """
name: flights
data:
  source:
    kind: query
    sql: flights.sql
    tables: {{flights: flights.parquet, weather: weather.parquet, planes: planes.parquet}}
  split: {{by: time, column: time_hour, validation_from: 2013-09-01, test_from: 2013-10-01}}
label: {{column: is_late}}
schema: schema.pbtxt
"""
ENVIRONMENT = """
config:
  data:
    source:
      kind: bigquery
      dialect: duckdb
      sql: flights.sql
      tables: {{flights: {dataset}.flights, weather: {dataset}.weather, planes: {dataset}.planes}}
      project: {project}
      temp_location: gs://bucket/folder
"""
SQL = """
SELECT concat_ws('-', origin, day, hour, month) AS reading,
    CASE WHEN hour % 7 > 0 THEN concat_ws('é', day, hour) END AS moment, origin, hour, temp > 40 AS is_mild,
    humid, make_timestamp(year, month, day, hour, 30, 0) AS at
FROM weather
"""
"""Short, because the emulator takes seconds for the flights query; `moment` is NULL in some rows."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three days of flights, and the files they join."""
    folder = tmp_path_factory.mktemp("flights")
    for name in ("flights.sql", "schema.pbtxt"):
        shutil.copy(FLIGHTS / name, folder)
    (folder / "pipeline.yaml").write_text(CONFIG.format())
    source = load(FLIGHTS / "pipeline.yaml").config.data.source
    assert isinstance(source, QuerySource)
    files = [resolve_table(name, [place], FLIGHTS, None) for name, place in source.tables.items()]
    with connect(files, source.null_values) as database:
        for name in source.tables:
            rows = database.connection.sql(
                f"SELECT * FROM {name} WHERE {'true' if name == 'planes' else DAYS}"
            )
            pq.write_table(rows.to_arrow_table(), folder / f"{name}.parquet")
    return folder


@pytest.fixture
def tables(emulator, dataset, folder):
    """The files as tables of a dataset."""
    client = emulator.connection.client()
    for name in ("flights", "weather", "planes"):
        file = folder / f"{name}.parquet"
        table = f"{dataset}.{name}"
        client.create_table(bigquery.Table(table, schema=fields(pq.read_schema(file))))
        with file.open("rb") as content:
            job = client.load_table_from_file(
                content, table, job_config=bigquery.LoadJobConfig(source_format="PARQUET")
            )
        job.result()
    time.sleep(1)  # The time at which a run begins has whole seconds: at its own the tables have to be there.
    return dataset


@pytest.fixture
def from_emulator(emulator, monkeypatch):
    """Asks the emulator instead of the service, as far as the executor asks by itself and by Beam."""
    client = emulator.connection.client()
    monkeypatch.setattr(stock.bigquery, "Client", lambda project: client)

    def read(query):
        return beam.Create([dict(row) for row in client.query(query).result()])

    monkeypatch.setattr(stock_utils, "ReadFromBigQuery", read)


def projects(folder, dataset, tmp_path, *overrides):
    environment = tmp_path / "prod.yaml"
    environment.write_text(ENVIRONMENT.format(dataset=dataset, project=dataset.split(".")[0]))
    file = folder / "pipeline.yaml"
    here = load(file, (f"output={tmp_path}", *overrides))
    there = load(file, (f"output={tmp_path}", *overrides), (Layer(environment, "config"),))
    return here, there


def executed(project, output, **parameters):
    """The examples as the component's executor writes them."""
    node = bigquery_example_gen.build(project, ["--runner=FnApiRunner"], **parameters)
    context = bigquery_example_gen.Executor.Context(
        beam_pipeline_args=node.executor_spec.beam_pipeline_args, tmp_dir=str(output), unique_id="1"
    )
    artifact = standard_artifacts.Examples()
    artifact.uri = str(output)
    bigquery_example_gen.Executor(context).Do({}, {"examples": [artifact]}, dict(node.exec_properties))
    return artifact


def records(folder, split):
    found = Counter[bytes]()
    for path in (folder / f"Split-{split}").iterdir():
        with gzip.open(path) as file:
            while (record := _TFRecordUtil.read_record(file)) is not None:
                found[record] += 1
    return found


def test_both_engines_give_the_same_records_of_the_flights_query(folder, tables, from_emulator, tmp_path):
    here, there = projects(folder, tables, tmp_path)
    artifact = assert_same_records(here, there, tmp_path, at_least=2000)
    assert artifact.split_names == '["train", "validation", "test"]'
    assert artifact.get_string_custom_property("input_fingerprint") == data_plan.fingerprint(there)


@pytest.mark.parametrize(
    "split",
    [
        "{by: time, column: at, validation_fraction: 0.15, test_fraction: 0.15}",
        "{by: hash, columns: [moment, is_mild, reading]}",
        "{by: column, column: origin, train: JFK, validation: LGA, test: EWR}",
    ],
)
def test_both_engines_put_a_row_into_the_same_split(split, folder, tables, from_emulator, tmp_path):
    (folder / "readings.sql").write_text(SQL)
    short = ("data.source.sql=readings.sql", f"data.split={split}")
    here, there = projects(folder, tables, tmp_path, *short)
    assert_same_records(here, there, tmp_path, at_least=200)


def assert_same_records(here, there, output, at_least):
    written = write_examples(data_plan.plan(here), output / "duckdb")
    artifact = executed(there, output / "bigquery")
    assert sum(written.rows.values()) > at_least
    for name in SPLITS:
        assert records(output / "bigquery", name) == records(output / "duckdb", name)
    return artifact


def test_a_run_reads_the_table_as_it_was_at_its_snapshot_time(emulator, tables, folder, tmp_path):
    (folder / "all.sql").write_text("SELECT * FROM flights")
    _, project = projects(folder, tables, tmp_path, "data.source.sql=all.sql")
    client = emulator.connection.client()
    before = datetime.now(UTC)
    client.query(f"DELETE FROM `{tables}.flights` WHERE month = 1").result()

    def count(moment):
        source = replace(project.config.data.source, snapshot=moment.isoformat())
        query = data_plan.bigquery_sql(project, source)
        return next(iter(client.query(f"SELECT COUNT(*) FROM (\n{query}\n)").result()))[0]

    assert count(before) > count(datetime.now(UTC)) + 500


def test_each_kind_of_column_becomes_the_value_that_duckdb_gives_it(emulator, dataset):
    columns = {
        "whole": ("3", "3"),
        "wide": ("CAST(NULL AS INT64)", "CAST(NULL AS DOUBLE)"),
        "truth": ("TRUE", "TRUE"),
        "part": ("0.1", "CAST(0.1 AS DOUBLE)"),
        "nothing": ("CAST('NaN' AS FLOAT64)", "CAST('NaN' AS DOUBLE)"),
        "exact": ("NUMERIC '1.25'", "CAST(1.25 AS DECIMAL(9, 2))"),
        "text": ("'é'", "'é'"),
        "raw": ("b'abc'", "CAST('abc' AS BLOB)"),
        "day": ("DATE '1969-12-31'", "DATE '1969-12-31'"),
        "wall": ("DATETIME '1969-12-31 23:59:59.5'", "TIMESTAMP '1969-12-31 23:59:59.5'"),
        "instant": ("TIMESTAMP '2013-01-01 05:00:00+00'", "TIMESTAMPTZ '2013-01-01 05:00:00+00'"),
        "numbers": ("[1, 2]", "[1, 2]"),
    }
    client = emulator.connection.client()
    query = "SELECT " + ", ".join(f"{theirs} AS {name}" for name, (theirs, _) in columns.items())
    found = bigquery_example_gen.described(client, query, Reading(floats=("wide",)))
    rows = [dict(row) for row in client.query(bigquery_example_gen.selection(query, found)).result()]
    [example] = bigquery_example_gen.encoded(rows, found)

    from ingest.query import describe
    from ingest.records import to_examples

    ours = "SELECT " + ", ".join(f"{text} AS {name}" for name, (_, text) in columns.items())
    with connect((), ("",)) as database:
        selected = ", ".join(f"{c.expression()} AS {c.name}" for c in describe(database, ours, {}, "query"))
        [batch] = database.connection.sql(f"SELECT {selected} FROM ({ours})").to_arrow_table().to_batches()
    assert features(example) == features(to_examples(batch)[0].as_py())


def features(record):
    from tensorflow.core.example.example_pb2 import Example

    return {name: str(feature) for name, feature in Example.FromString(record).features.feature.items()}


@pytest.mark.parametrize(
    ("query", "reading", "message"),
    [
        ("SELECT TIME '12:00:00' AS at", Reading(), "column 'at' has type TIME, which no feature can hold"),
        ("SELECT 1.5 AS x", Reading(keys=("x",)), "column 'x' is FLOAT, whose texts differ between engines"),
        ("SELECT 1 AS x", Reading(keys=("y",)), "gives no column 'y'; it gives x"),
        ("SELECT x FROM nowhere.rows", Reading(), "BigQuery refuses the query"),
    ],
)
def test_what_cannot_be_an_example_is_refused_before_a_row_is_read(emulator, query, reading, message):
    with pytest.raises(DataError, match=message):
        bigquery_example_gen.described(emulator.connection.client(), query, reading)


def test_a_row_without_a_split_stops_the_query(emulator, tables, folder, from_emulator, tmp_path):
    (folder / "readings.sql").write_text(SQL)
    split = "{by: column, column: origin, train: JFK, validation: LGA}"
    short = ("data.source.sql=readings.sql", f"data.split={split}")
    _, project = projects(folder, tables, tmp_path, *short)
    with pytest.raises(Exception, match="names no split: EWR; want JFK, LGA, test"):
        executed(project, tmp_path / "bigquery")
