"""`headworks submit`: what is printed, what is made, and that nothing is where a check refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cli import vertex_options
from cloud.api_errors import CloudError
from pipeline.layers import ConfigError
from tests.cli.vertex_commands import desk
from tests.cloud.compiled_job import CODE, ENVIRONMENT, job


@pytest.fixture
def at(tmp_path):
    with desk(tmp_path) as at:
        yield at


def test_a_job_is_submitted_once_and_its_page_is_told(at):
    first, again = (at.submit("--parameter", "span=3") for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output
    assert ": submitted\nhttps://console.cloud.google.com/vertex-ai/pipelines/" in first.output
    assert ": already submitted; pending" in again.output
    (made,) = at.server.jobs.values()
    assert made["runtimeConfig"]["parameterValues"] == {"span": 3}


def test_an_ended_run_says_how_to_do_it_once_more(at):
    at.submit("--parameter", "span=3")
    next(iter(at.server.jobs.values()))["state"] = "PIPELINE_STATE_FAILED"
    assert (
        "already submitted; failed\nto do the same once more, give it another --run-id"
        in at.submit("--parameter", "span=3").output
    )
    at.submit("--parameter", "span=3", "--run-id", "again")
    assert len(at.server.jobs) == 2


def test_what_reads_bigquery_is_submitted_once_a_day_and_told_as_of_when(at, monkeypatch):
    at.read_bigquery()

    def submitted(minute, *more):
        monkeypatch.setattr("cloud.snapshots.now", lambda: minute)
        return at.submit("--parameter", "span=3", *more).output

    told = "BigQuery's tables are read as of 2026-01-31T06:00:00+00:00; the same submitted again is this run until"
    first = submitted("2026-01-31T06:00:00+00:00")
    assert first.startswith("run shop-span3-20260131-")
    assert told in first
    again = submitted("2026-01-31T06:01:00+00:00")
    assert "already submitted; pending" in again
    assert told in again
    assert "until" not in submitted("2026-01-31T06:02:00+00:00", "--run-id", "again")
    assert "as of" not in submitted("2026-01-31T06:03:00+00:00", "--parameter", "snapshot_time=2026-01-30")
    assert ": submitted" in submitted("2026-02-01T06:00:00+00:00")
    times = [made["runtimeConfig"]["parameterValues"]["snapshot_time"] for made in at.server.jobs.values()]
    assert times == [
        "2026-01-31T06:00:00+00:00",
        "2026-01-31T06:02:00+00:00",
        "2026-01-30",
        "2026-02-01T06:00:00+00:00",
    ]


def test_without_a_file_the_configuration_is_compiled(at, monkeypatch):
    import cloud.compiled_pipeline

    compiled = job(at.server.push({"dev.headworks.code": CODE}))
    images = []

    def compile_pipeline(_, place, *__):
        images.append(place.settings.image)
        return compiled

    monkeypatch.setattr(cloud.compiled_pipeline, "compile_pipeline", compile_pipeline)
    image = "eu.gcr.io/p/i@sha256:" + "0" * 64
    result = at.call("submit", "--parameter", "span=3", "--image", image)
    assert result.exit_code == 0, result.output
    assert len(at.server.jobs) == 1
    assert images == [image]


def test_a_dry_run_asks_nobody_and_tells_machines_hours_and_what_they_rest_on(tmp_path):
    more = """\
training: {machine: {type: n1-standard-8, accelerator: NVIDIA_TESLA_T4}, workers: 3}
beam: {runner: dataflow, nodes: [StatisticsGen], max_workers: 8}
registry:
  {model: shop, aliases: [newest], endpoint: front, traffic_percent: 10,
   service_account: front@my-project.iam.gserviceaccount.com}
"""
    durations = tmp_path / "run.json"
    durations.write_text(
        json.dumps({"run_id": "r1", "nodes": {"Trainer": {"state": "succeeded", "seconds": 3600}}})
    )
    with desk(tmp_path, ENVIRONMENT + more) as at:
        result = at.submit("--parameter", "span=3", "--dry-run", "--durations", durations)
        assert result.exit_code == 0, result.output
        assert at.server.calls == []
    for told in (
        "would make run shop-span3-",
        "runs as: runs@my-project.iam.gserviceaccount.com",
        "parameters: span=3",
        "4 CPUs, 16 GiB",
        "Dataflow: 1-8 x n2-standard-4",
        "custom job: 3 x n1-standard-8 with 1 x NVIDIA_TESLA_T4",
        "Model Registry: a version of shop, aliases newest",
        "endpoint front: 1 to 1 x n1-standard-2 with 10 % of the traffic",
        "machine-hours: 5,",
        "rests on run r1 of a machine like this one",
        "without StatisticsGen, of which no duration is known",
        "nothing was made",
    ):
        assert told in result.output


def test_a_dry_run_without_any_earlier_run_says_so(at, monkeypatch):
    monkeypatch.chdir(at.folder)
    result = at.submit("--parameter", "span=3", "--dry-run")
    assert "machine-hours: not known; no run to estimate them from, see --durations" in result.output


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda at: at.server.permissions.clear(), "may not be written: storage.objects.create"),
        (lambda at: at.spec.write_text(json.dumps(job(at.server.push({})))), "does not hold Headworks"),
        (
            lambda at: at.spec.write_text(json.dumps(job(at.server.push({}), "f" * 16))),
            "does not hold Headworks",
        ),
        (lambda at: at.spec.write_text("pipelineSpec: yaml"), "cannot be read as JSON"),
        (lambda at: at.spec.write_text("[]"), "holds no job"),
        (lambda at: at.spec.unlink(), "cannot be read as JSON"),
    ],
)
def test_where_a_check_refuses_nothing_is_made(at, spoil, told):
    spoil(at)
    result = at.submit("--parameter", "span=3")
    assert isinstance(result.exception, CloudError)
    assert told in str(result.exception)
    assert at.made == []


def test_a_file_older_than_the_code_is_refused(at, monkeypatch):
    monkeypatch.setattr("pipeline.source_digest.code_digest", lambda: "f" * 16)
    result = at.call("submit", "--spec", at.spec, "--parameter", "span=3")
    told = f"was compiled from code {CODE}, and the code here is ffffffffffffffff; compile it again"
    assert told in str(result.exception)
    assert at.server.calls == []


def test_an_environment_that_is_not_there_is_refused(at):
    at.config.parent.joinpath("environments", "prod.yaml").rename(at.folder / "environments" / "prd.yaml")
    result = at.submit("--parameter", "span=3")
    assert isinstance(result.exception, ConfigError)
    assert "did you mean prd?" in str(result.exception)
    assert at.server.calls == []


def test_checks_of_what_others_may_look_at_can_be_left_out(at):
    at.server.permissions = None
    at.server.blobs.clear()
    result = at.submit("--parameter", "span=3", "--skip-check", "root", "--skip-check", "image")
    assert result.exit_code == 0, result.output
    assert at.made == ["POST /v1/projects/my-project/locations/europe-west1/pipelineJobs"]


def test_a_bucket_far_away_is_a_warning(at):
    at.server.bucket["location"] = "US-EAST1"
    result = at.submit("--parameter", "span=3")
    assert result.exit_code == 0
    assert "warning: root gs://my-bucket/headworks: the bucket lies in us-east1" in result.stderr


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELLED", 1)])
def test_who_waits_learns_how_it_ended(at, state, code):
    at.submit("--parameter", "span=3")
    next(iter(at.server.jobs.values()))["state"] = f"PIPELINE_STATE_{state}"
    result = at.submit("--parameter", "span=3", "--wait", "--poll-seconds", "0")
    assert result.exit_code == code
    assert f": {state.lower()}" in result.output.splitlines()[-1]


@pytest.mark.parametrize("option", ["--durations", "--image"])
def test_what_does_not_go_together_is_a_usage_error(at, option):
    assert at.submit(option, "x").exit_code == 2


def test_neither_help_nor_a_refusal_of_the_environment_loads_googles_clients(at):
    assert vertex_options.SKIPPABLE
    (at.folder / "environments" / "prod.yaml").write_text("labels: {}\n")
    code = f"""
import sys
from click.testing import CliRunner
from cli.submit import submit
assert CliRunner().invoke(submit, ["--help"]).exit_code == 0
assert "pydantic" not in sys.modules
result = CliRunner().invoke(submit, [{str(at.config)!r}, "--env", "prod"])
assert "service_account: missing" in str(result.exception), result.exception
heavy = ("google.cloud.aiplatform_v1", "google.cloud.aiplatform", "google.cloud.storage", "tensorflow", "tfx")
assert not [name for name in heavy if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
