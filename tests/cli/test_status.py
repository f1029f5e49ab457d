"""`headworks status`: the latest runs, one of them task by task, and the exit code that says how it ended."""

from __future__ import annotations

import json

import pytest

from cloud.machine_hours import read_durations
from tests.cli.vertex_commands import desk


@pytest.fixture
def at(tmp_path):
    with desk(tmp_path) as at:
        at.submit("--parameter", "span=3", "--run-id", "nightly")
        yield at


def stands(at, state: str, trainer: str, **facts: object) -> None:
    """Says how the run and its trainer stand."""
    span = {"startTime": "2026-01-01T00:01:00Z", "endTime": "2026-01-01T00:03:00Z"}
    ended = {} if state == "RUNNING" else span
    job = next(iter(at.server.jobs.values()))
    job |= {"state": f"PIPELINE_STATE_{state}", **ended}
    job["jobDetail"] = {
        "taskDetails": [
            {"taskId": "1", "taskName": "shop", "state": state},
            {"taskId": "2", "parentTaskId": "1", "taskName": "StatisticsGen", "state": "SUCCEEDED", **span},
            {"taskId": "3", "parentTaskId": "1", "taskName": "Trainer", "state": trainer, **facts},
        ]
    }


def test_runs_are_listed(at):
    result = at.call("status")
    assert result.exit_code == 0
    assert "nightly  pending" in result.output


def test_a_failed_run_names_the_task_its_error_and_its_logs_and_exits_1(at):
    stands(
        at,
        "FAILED",
        "FAILED",
        error={"code": 3, "message": "ModelGate: auc 0.61 < 0.7"},
        executorDetail={"containerDetail": {"mainJob": "projects/1/locations/l/customJobs/77"}},
    )
    result = at.call("status", "latest")
    assert result.exit_code == 1
    assert "run nightly: failed" in result.output
    assert "took 120 s" in result.output
    assert "Trainer failed: ModelGate: auc 0.61 < 0.7" in result.output
    assert "job_id%3D%2277%22" in result.output
    assert (
        "https://console.cloud.google.com/vertex-ai/pipelines/locations/europe-west1/runs/nightly"
        in result.output
    )


def test_a_run_under_way_is_no_failure(at):
    stands(at, "RUNNING", "RUNNING")
    result = at.call("status", "nightly")
    assert result.exit_code == 0
    assert "has not ended" in result.output


def test_who_watches_sees_each_change(at):
    stands(at, "SUCCEEDED", "SUCCEEDED")
    result = at.call("status", "nightly", "--watch", "--poll-seconds", "0")
    assert result.exit_code == 0
    assert result.output.startswith("StatisticsGen: succeeded\nTrainer: succeeded\nrun nightly: succeeded\n")


def test_the_json_of_a_run_serves_as_durations_of_the_next_one(at, tmp_path):
    stands(at, "SUCCEEDED", "SKIPPED")
    result = at.call("status", "nightly", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["run_id"] == "nightly"
    file = tmp_path / "past.json"
    file.write_text(result.output)
    assert read_durations(file).seconds == {"StatisticsGen": 120.0}


def test_where_nothing_ran_it_is_said(at):
    at.server.jobs.clear()
    result = at.call("status")
    assert result.exit_code == 1
    assert "no run of shop in prod yet; make one with: headworks submit" in result.output


@pytest.mark.parametrize("arguments", [("--watch",), ("--json",), ("latest", "--watch", "--json")])
def test_what_does_not_go_together_is_a_usage_error(at, arguments):
    assert at.call("status", *arguments).exit_code == 2
