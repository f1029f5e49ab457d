"""What `headworks run` says at its end."""

from dataclasses import replace
from pathlib import Path

import pytest

from cli.run import lines
from pipeline.config import Project, load
from pipeline.runners.events import NodeResult, NodeState
from pipeline.runners.records import RunRecord, RunState
from pipeline.summary_file import Summary

CONFIG = """\
name: shop
data:
  source: {kind: query, tables: {sales: sales.csv}}
  split: {by: hash, columns: [buyer]}
label: {column: churned}
"""
PUSHED = RunRecord("20260101T000000-ab12", "shop", "2026-01-01T00:00:00+00:00", RunState.SUCCEEDED).with_node(
    NodeResult("ModelPusher", NodeState.SUCCEEDED, 0.1)
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    file = tmp_path / "pipeline.yaml"
    file.write_text(CONFIG)
    return load(file)


def failed(node_id: str, error: str) -> RunRecord:
    record = replace(PUSHED, state=RunState.FAILED)
    return record.with_node(NodeResult(node_id, NodeState.FAILED, 0.1, error=f"{node_id}: {error}"))


def test_a_push_and_what_failed_after_it_are_both_told(project: Project) -> None:
    told = list(lines(project, failed("DeviceModels", "no kernel for Erf"), Summary(pushed="/srv/serving/7")))
    assert told.index("pushed: /srv/serving/7") < told.index("failed: DeviceModels: no kernel for Erf")
    assert told[-1] == "next: mend it and give the same command again; what is done comes from the cache"


def test_a_push_and_what_was_refused_after_it_are_both_told(project: Project) -> None:
    summary = Summary(pushed="/srv/serving/7", refusals=("device models: none is inside the budget",))
    told = list(lines(project, failed("DeviceModels", "RefusedError: none"), summary))
    assert told.index("pushed: /srv/serving/7") < told.index("failed: DeviceModels")
    assert "a refusal stands" in told[-1]


def test_a_failure_before_the_push_says_nothing_of_one(project: Project) -> None:
    told = list(lines(project, failed("Trainer", "the loss is not finite"), Summary()))
    assert not any("pushed" in line for line in told)


@pytest.mark.parametrize(
    ("pushed", "said"), [("/srv/serving/7", "pushed: /srv/serving/7"), (None, "not pushed")]
)
def test_a_run_that_succeeded_says_whether_it_pushed(project: Project, pushed: str | None, said: str) -> None:
    told = list(lines(project, PUSHED, Summary(pushed=pushed)))
    assert said in told
    assert told[-1].startswith("next: headworks show")
