"""The component as a local run and a compiled pipeline get it; what it asks of BigQuery is tested in tests/cloud."""

import json
import re
from datetime import UTC, datetime

import pytest
from tfx.extensions.google_cloud_big_query.example_gen import executor as stock
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_artifacts

from ingest.errors import DataError
from pipeline import data_plan, origins
from pipeline.check import check
from pipeline.components.bigquery_example_gen import Executor, build
from pipeline.config import ConfigError, load

CONFIG = """
name: shop
data:
  source:
    kind: bigquery
    dialect: duckdb
    sql: rows.sql
    tables: {sales: my-project.shop.sales}
    project: my-project
    temp_location: gs://bucket/temp
  split: {by: hash, columns: [id]}
  span: {last: 12, window: 4}
label: {column: sold}
features: {exclude: [id]}
"""
SCHEMA = """
feature { name: "id" type: INT }
feature { name: "size" type: FLOAT }
feature { name: "sold" type: INT int_domain { min: 0 max: 1 } }
"""
SQL = "SELECT id, size, sold FROM sales WHERE week BETWEEN $first_span AND $last_span"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "rows.sql").write_text(SQL)
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    (tmp_path / "pipeline.yaml").write_text(CONFIG)
    return lambda *overrides: load(tmp_path / "pipeline.yaml", (f"output={tmp_path}", *overrides))


def patterns(node):
    return {
        part["name"]: part["pattern"] for part in json.loads(node.exec_properties["input_config"])["splits"]
    }


def test_the_query_keeps_places_for_what_a_run_gives(project):
    node = build(
        project(),
        ["--runner=FnApiRunner"],
        span=RuntimeParameter("span", int, 12),
        snapshot_time=RuntimeParameter("snapshot_time", str),
    )
    assert list(patterns(node)) == ["train", "validation", "test"]
    for pattern in patterns(node).values():
        assert (
            "`my-project`.`shop`.`sales` AS `sales` FOR SYSTEM_TIME AS OF TIMESTAMP '$snapshot_time'"
            in pattern
        )
        assert "BETWEEN $first_span AND $last_span" in pattern
    assert isinstance(node.exec_properties["span"], RuntimeParameter)
    assert isinstance(node.exec_properties["snapshot_time"], RuntimeParameter)
    assert node.exec_properties["window"] == 4
    assert "fingerprint" not in node.exec_properties
    assert json.loads(node.exec_properties["reading"]) == {"floats": ["size"], "keys": ["id"]}


def test_a_local_run_reads_as_of_its_start_and_is_found_by_its_fingerprint(project):
    of = project()
    node = build(of, [])
    assert node.exec_properties["span"] == 12
    assert datetime.fromisoformat(node.exec_properties["snapshot_time"]) == of.read_at
    assert abs((datetime.now(UTC) - of.read_at).total_seconds()) < 60
    assert node.exec_properties["fingerprint"] == data_plan.fingerprint(of)
    origins.write(of)
    origin = origins.read_data(origins.data_path(of.root, data_plan.fingerprint(of)))
    assert (origin.first_span, origin.last_span) == (9, 12)
    assert "BETWEEN 9 AND 12" in str(origin.sql)


@pytest.fixture
def asked(project, monkeypatch):
    """What the component asks of BigQuery in a compiled pipeline that is given some parameters, and its output."""

    def asked(of=None, **given):
        node = build(
            of or project(),
            [],
            span=RuntimeParameter("span", int, 12),
            snapshot_time=RuntimeParameter("snapshot_time", str),
        )
        seen = []
        monkeypatch.setattr(
            stock.Executor, "Do", lambda self, inputs, outputs, properties: seen.append(properties)
        )
        examples = standard_artifacts.Examples()
        Executor().Do({}, {"examples": [examples]}, {**node.exec_properties, **given})
        splits = json.loads(seen[0]["input_config"])["splits"]
        return [split["pattern"] for split in splits], examples

    return asked


def test_a_run_of_a_schedule_reads_all_splits_as_of_the_one_time_at_which_its_component_starts(asked):
    before = datetime.now(UTC).replace(microsecond=0)
    queries, _ = asked(span=12, snapshot_time="start")
    after = datetime.now(UTC)
    [time] = {time for query in queries for time in re.findall(r"AS OF TIMESTAMP '([^']+)'", query)}
    assert before <= datetime.fromisoformat(time) <= after
    assert len(queries) == 3
    queries, _ = asked(span=12, snapshot_time="2026-01-31T06:00:00Z")
    assert all("AS OF TIMESTAMP '2026-01-31 06:00:00+00:00'" in query for query in queries)


@pytest.mark.parametrize(
    ("given", "read", "newest"), [(-1, "9 AND 12", 12), (7, "4 AND 7", 7), (0, "0 AND 0", 0)]
)
def test_a_run_reads_the_span_that_it_is_given_or_with_minus_one_the_configured_one(
    asked, given, read, newest
):
    queries, examples = asked(span=given, snapshot_time="2026-01-31")
    assert all(f"BETWEEN {read}" in query for query in queries)
    assert examples.span == newest


def test_a_span_below_minus_one_is_refused(asked):
    with pytest.raises(DataError, match="span -2: want 0 or more"):
        asked(span=-2, snapshot_time="2026-01-31")


def test_the_same_snapshot_time_gives_the_same_parameters_and_another_does_not(project):
    def given(moment):
        return build(project(f"data.source.snapshot={moment}"), []).exec_properties

    assert given("2026-01-31T06:00:00Z") == given("2026-01-31T06:00:00Z") != given("2026-02-01T06:00:00Z")


def test_where_and_by_whose_account_rows_are_read_can_be_said_with_the_other_beam_arguments(project):
    node = build(project(), ["--runner=DataflowRunner", "--temp_location=gs://other/temp"])
    assert list(node.executor_spec.beam_pipeline_args) == [
        "--runner=DataflowRunner",
        "--temp_location=gs://other/temp",
        "--project=my-project",
    ]


def test_tables_without_a_past_are_read_as_they_are(project):
    node = build(project("data.source.snapshot=live"), [])
    assert "snapshot_time" not in node.exec_properties
    assert not any("SYSTEM_TIME" in pattern for pattern in patterns(node).values())
    assert any("goes unnoticed" in note for note in check(project("data.source.snapshot=live")).notes)
    with pytest.raises(
        ConfigError, match=r"snapshot_time: the configuration has no use for it \(.*snapshot=live\)"
    ):
        build(project("data.source.snapshot=live"), [], snapshot_time="2026-01-31")


def test_a_query_in_bigquerys_own_sql_is_not_touched(project, tmp_path):
    own = "SELECT * FROM UNNEST([1]) AS id -- $last_span of '$snapshot_time'"
    (tmp_path / "rows.sql").write_text(f"{own}\n;\n")
    source = "{kind: bigquery, sql: rows.sql, project: my-project, temp_location: gs://bucket/temp}"
    [pattern, *_] = patterns(build(project(f"data.source={source}"), [])).values()
    assert f"(\n{own}\n\n)" in pattern


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (SQL.replace("size, ", ""), "gives no column 'size', which the schema has"),
        (SQL.replace("size", "size, week"), "gives a column 'week', which the schema lacks"),
        (
            SQL.replace("id,", "hash(id) AS id,"),
            r"rows.sql:1: HASH\(id\): the function hash is not translated",
        ),
    ],
)
def test_a_check_finds_without_the_network_what_the_query_says(project, tmp_path, sql, message):
    assert "the query was not run" in check(project()).notes[0]
    (tmp_path / "rows.sql").write_text(sql)
    with pytest.raises(DataError, match=message):
        check(project())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.split.columns=[size]",
            "size is FLOAT in the schema, which BigQuery and DuckDB do not write alike",
        ),
        ("data.split={by: folder}", "split.by: folder needs files"),
        ("data.span.last=latest", "BigQuery does not tell its spans; give a number"),
        ("data.source.tables={}", "dialect: duckdb needs PROJECT.DATASET.TABLE of each view"),
        ("data.source.tables={sales: shop.sales}", "data.source.tables.sales"),
        ("data.source.dialect=bigquery", "dialect: bigquery names its tables in the SQL"),
        ("data.source.snapshot=yesterday", "'yesterday' is not a date or time"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(project, override, message):
    with pytest.raises(ConfigError, match=message):
        build(project(override), [])
