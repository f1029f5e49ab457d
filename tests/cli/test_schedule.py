"""`headworks schedule`: made, listed, paused, resumed and deleted by name."""

from __future__ import annotations

import pytest

from cloud.api_errors import CloudError
from tests.cli.vertex_commands import desk

DAILY = ("--cron", "0 5 * * *")


@pytest.fixture
def at(tmp_path):
    with desk(tmp_path) as at:
        yield at


def test_a_schedule_is_made_found_again_and_changed(at):
    outputs = [
        at.schedule("--parameter", "span=3", *DAILY, *more).output
        for more in ((), (), ("--time-zone", "Europe/Berlin"))
    ]
    assert [output.splitlines()[0] for output in outputs] == [
        "schedule shop-prod: made: TZ=Etc/UTC 0 5 * * *",
        "schedule shop-prod: as it was: TZ=Etc/UTC 0 5 * * *",
        "schedule shop-prod: changed: TZ=Europe/Berlin 0 5 * * *",
    ]
    assert "every run takes span 3" in outputs[0]
    assert len(at.server.schedules) == 1


def test_each_run_of_a_schedule_reads_bigquery_at_its_start_unless_a_time_is_given(at):
    at.read_bigquery()

    def scheduled(*more):
        output = at.schedule("--parameter", "span=3", *DAILY, *more).output
        (made,) = at.server.schedules.values()
        job = made["createPipelineJobRequest"]["pipelineJob"]
        cached = {
            name: task.get("cachingOptions", {}).get("enableCache", False)
            for name, task in job["pipelineSpec"]["root"]["dag"]["tasks"].items()
        }
        return output, job["runtimeConfig"]["parameterValues"]["snapshot_time"], cached

    output, time, cached = scheduled()
    assert time == "start"
    assert cached == {"StatisticsGen": False, "Trainer": True, "Importer": True}
    assert "every run reads BigQuery's tables as of its own start; no cache answers for them" in output
    assert "as it was" in scheduled()[0]
    output, time, cached = scheduled("--parameter", "snapshot_time=2026-01-31")
    assert time == "2026-01-31"
    assert set(cached.values()) == {True}
    assert (
        "every run reads BigQuery's tables as of 2026-01-31, and BigQuery keeps the past for seven days"
        in output
    )


def test_a_schedule_of_another_name_is_another(at):
    for name in ("early", "late"):
        at.schedule("--parameter", "span=3", *DAILY, "--name", name)
    assert [one["displayName"] for one in at.server.schedules.values()] == ["early", "late"]


def test_schedules_are_listed_with_their_states(at):
    assert "no schedule of shop in prod; make one with --cron" in at.call("schedule").output
    at.schedule("--parameter", "span=3", *DAILY)
    assert at.call("schedule", "--pause").output == "schedule shop-prod: paused\n"
    listed = at.call("schedule").output
    assert "shop-prod" in listed
    assert "paused" in listed
    assert at.call("schedule", "--resume").output == "schedule shop-prod: resumed\n"
    assert at.call("schedule", "--delete").output == "schedule shop-prod: deleted\n"
    assert at.server.schedules == {}


def test_what_a_submission_would_refuse_is_not_scheduled_either(at):
    at.server.permissions.clear()
    result = at.schedule("--parameter", "span=3", *DAILY)
    assert isinstance(result.exception, CloudError)
    assert "may not be written" in str(result.exception)
    assert at.made == []


@pytest.mark.parametrize(
    "arguments", [(*DAILY, "--pause"), ("--parameter", "span=3"), (*DAILY, "--max-concurrent", "0")]
)
def test_what_does_not_go_together_is_a_usage_error(at, arguments):
    assert at.call("schedule", *arguments).exit_code == 2
    assert at.server.calls == []
