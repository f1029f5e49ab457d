"""`headworks schema`: with TFDV's own proposals for statistics of a run that was refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import statistics_pb2

from cli.main import main
from pipeline.runners import records
from pipeline.runners.events import NodeResult, NodeState, Output
from pipeline.runners.records import RunRecord, RunState

_SCHEMA = """\
# Curated by hand.
default_environment: "TRAINING"
default_environment: "SERVING"
feature { name: "pay" type: BYTES string_domain { value: "Cash" } presence { min_fraction: 1 min_count: 1 } }
feature { name: "hour" type: INT int_domain { min: 0 max: 12 } presence { min_fraction: 1 min_count: 1 } }
feature { name: "sold" type: INT not_in_environment: "SERVING" presence { min_fraction: 1 min_count: 1 } }
"""
_STATISTICS = """
datasets {
  num_examples: 10
  features { path { step: "pay" } type: STRING string_stats {
    common_stats { num_non_missing: 10 min_num_values: 1 max_num_values: 1 avg_num_values: 1 tot_num_values: 10 }
    unique: 2 rank_histogram { buckets { label: "Cash" sample_count: 8 } buckets { label: "PAID" sample_count: 2 } } } }
  features { path { step: "hour" } type: INT num_stats {
    common_stats { num_non_missing: 10 min_num_values: 1 max_num_values: 1 avg_num_values: 1 tot_num_values: 10 }
    min: 0 max: LATEST } }
  features { path { step: "sold" } type: INT num_stats {
    common_stats { num_non_missing: 10 min_num_values: 1 max_num_values: 1 avg_num_values: 1 tot_num_values: 10 }
    min: 0 max: 1 } }
}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose last run was refused: in test there is a new way to pay, and an hour after noon everywhere."""
    (tmp_path / "schema.pbtxt").write_text(_SCHEMA)
    (tmp_path / "rows.csv").write_text("pay,hour,sold\nCash,1,0\n")
    (tmp_path / "pipeline.yaml").write_text(
        "name: trips\ndata:\n  source: {kind: query, tables: {rows: rows.csv}}\n"
        "  split: {by: hash, columns: [hour], validation_fraction: 0.2, test_fraction: 0.2}\n"
        "label: {column: sold}\noutput: output\n"
    )
    statistics = tmp_path / "statistics"
    write(statistics / "Split-train", coin="Cash", latest=23)
    write(statistics / "Split-test", coin="Coin", latest=23)
    gate = NodeResult("DataGate", NodeState.FAILED, error="refused")
    add_run(
        tmp_path,
        "1-refused",
        NodeResult("StatisticsGen", NodeState.SUCCEEDED, outputs=(at(statistics),)),
        gate,
    )
    add_run(tmp_path, "2-broken", NodeResult("StatisticsGen", NodeState.FAILED, error="no disk"))
    return tmp_path


def write(folder: Path, coin: str, latest: int) -> None:
    folder.mkdir(parents=True)
    text = _STATISTICS.replace("PAID", coin).replace("LATEST", str(latest))
    found = text_format.Parse(text, statistics_pb2.DatasetFeatureStatisticsList())
    (folder / "FeatureStats.pb").write_bytes(found.SerializeToString())


def at(statistics: Path) -> Output:
    return Output("statistics", 1, "ExampleStatistics", str(statistics), 2, 1)


def add_run(project: Path, run_id: str, *nodes: NodeResult) -> None:
    record = RunRecord(run_id, "trips", "2024-01-01T00:00:00+00:00", nodes={n.node_id: n for n in nodes})
    records.save(record.ended(RunState.FAILED), project / "output" / "runs" / run_id)


def schema(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["schema", *arguments, "--config", str(project / "pipeline.yaml")])


def test_diff_tells_each_change_with_its_splits_and_writes_nothing(project: Path) -> None:
    result = schema(project, "diff")
    assert result.exit_code == 1
    assert "beside the data of run 1-refused" in result.output
    assert "pay:values (in test)\n    values that the schema does not list: 'Coin'." in result.output
    assert "hour:range (in train, test)\n    numbers from 0 to 23" in result.output
    assert (project / "schema.pbtxt").read_text() == _SCHEMA


def test_accept_writes_what_was_named_shows_it_and_keeps_the_former_file(project: Path) -> None:
    result = schema(project, "accept", "pay:values")
    assert result.exit_code == 0
    assert '+    value: "Coin"' in result.output
    text = (project / "schema.pbtxt").read_text()
    assert text.startswith("# Curated by hand.\n")
    assert '"Coin"' in text
    assert "max: 12" in text
    assert (project / "schema.pbtxt.former").read_text() == _SCHEMA


def test_all_that_is_accepted_leaves_nothing_to_tell(project: Path) -> None:
    assert schema(project, "accept", "--all").exit_code == 0
    result = schema(project, "diff")
    assert (result.exit_code, result.output) == (
        0,
        f"{project / 'schema.pbtxt'} fits the data of run 1-refused\n",
    )
    assert "nothing to accept" in schema(project, "accept", "--all").output


def test_a_name_that_is_no_change_is_refused_with_the_names_there_are(project: Path) -> None:
    result = schema(project, "accept", "payment")
    assert result.exit_code == 1
    assert "error: payment: no such change" in result.output
    assert "there are: pay:values, hour:range" in result.output
    assert (project / "schema.pbtxt").read_text() == _SCHEMA


def test_accepting_without_a_name_is_refused(project: Path) -> None:
    assert schema(project, "accept").exit_code == 2
    assert schema(project, "accept", "pay", "--all").exit_code == 2


def test_a_run_without_statistics_is_refused_by_name(project: Path) -> None:
    result = schema(project, "diff", "--run", "2-broken")
    assert result.exit_code == 1
    assert "run 2-broken has not computed statistics" in result.output
