"""Runs on Vertex AI: what the client library sends, what is done twice only once, what a refusal says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.auth.exceptions import DefaultCredentialsError

from cloud.api_errors import CloudError
from cloud.vertex_pipelines import JobRequest, Target, follow, job_request, recent, status, submit
from pipeline import environment
from tests.cloud.compiled_job import CODE, bigquery_job, job, write_environment
from tests.cloud.pipeline_service import serving

IMAGE = "europe-west1-docker.pkg.dev/my-project/images/headworks@sha256:" + "0" * 64
JOBS = "/v1/projects/my-project/locations/europe-west1/pipelineJobs"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def target(server):
    return Target("my-project", "europe-west1", server.endpoint)


@pytest.fixture
def settings(tmp_path):
    return environment.load(write_environment(tmp_path), "prod").settings


@pytest.fixture
def request_(settings):
    return job_request(job(IMAGE), settings, {"span": 3})


def quickly(request: JobRequest, target: Target, waits: list[float] | None = None):
    return submit(request, target, sleep=(waits if waits is not None else []).append)


def test_a_run_is_made_with_all_that_the_environment_says(server, target, request_):
    run = quickly(request_, target).run
    (call,) = server.called("POST", JOBS)
    assert call.query["pipelineJobId"] == [request_.job_id]
    spec = call.body.pop("pipelineSpec")
    assert call.body == {
        "displayName": "shop",
        "labels": {
            "team": "data",
            "headworks-code": CODE,
            "headworks-pipeline": "shop",
            "headworks-environment": "prod",
            "headworks-digest": request_.digest,
        },
        "runtimeConfig": {
            "gcsOutputDirectory": "gs://my-bucket/headworks/shop/runs",
            "parameterValues": {"span": 3},
            "failurePolicy": 2,  # PIPELINE_FAILURE_POLICY_FAIL_FAST
        },
        "serviceAccount": "runs@my-project.iam.gserviceaccount.com",
        "network": "projects/123/global/networks/inside",
        "encryptionSpec": {
            "kmsKeyName": "projects/my-project/locations/europe-west1/keyRings/ring/cryptoKeys/key"
        },
    }
    assert spec == job(IMAGE)["pipelineSpec"]
    assert run.page == (
        "https://console.cloud.google.com/vertex-ai/pipelines/locations/europe-west1/runs/"
        f"{request_.job_id}?project=my-project"
    )


def test_what_the_environment_leaves_out_is_not_sent(server, target, settings):
    settings = replace(settings, network=None, kms_key=None)
    quickly(job_request(job(IMAGE), settings, {}), target)
    (call,) = server.called("POST", JOBS)
    assert not {"network", "encryptionSpec"} & set(call.body)


def test_nothing_runs_as_an_account_that_nobody_named(settings):
    with pytest.raises(CloudError, match="there are no defaults"):
        job_request(job(IMAGE), replace(settings, service_account=None), {})


def test_the_id_follows_from_the_work(settings, request_):
    assert request_.job_id == f"shop-span3-{request_.digest[:12]}"
    assert job_request(job(IMAGE), settings, {"span": 3}) == request_
    other = job(IMAGE)
    other["pipelineSpec"]["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"]["maxRetryCount"] = 3
    ids = {
        job_request(compiled, changed, values).job_id
        for compiled, changed, values in [
            (job(IMAGE), settings, {"span": 3}),
            (job(IMAGE), settings, {"span": 4}),
            (job(IMAGE), settings, {"span": 3, "epochs": 1}),
            (job(IMAGE), replace(settings, service_account="other@my-project"), {"span": 3}),
            (other, settings, {"span": 3}),
        ]
    }
    assert len(ids) == 5


@pytest.fixture
def at(settings, monkeypatch):
    """A request of a job that reads BigQuery, made at a time."""

    def at(now, run_id=None, **values):
        monkeypatch.setattr("cloud.snapshots.now", lambda: now)
        return job_request(bigquery_job(IMAGE), settings, {"span": 3, **values}, run_id)

    return at


def test_bigquery_is_read_as_of_the_minute_of_the_request_where_nobody_says_when(at):
    request = at("2026-01-31T06:00:00+00:00")
    assert request.job["runtimeConfig"]["parameterValues"] == {
        "span": 3,
        "snapshot_time": request.snapshot_time,
    }
    assert request.snapshot_time == "2026-01-31T06:00:00+00:00"
    assert request.job_id == f"shop-span3-20260131-{request.digest[:12]}"


def test_the_same_asked_for_again_on_the_same_day_is_the_run_that_is_there(server, target, at):
    first = quickly(at("2026-01-31T06:00:00+00:00"), target)
    again = quickly(at("2026-01-31T23:59:00+00:00"), target)
    assert (again.is_new, again.run.run_id) == (False, first.run.run_id)
    assert again.run.snapshot_time == "2026-01-31T06:00:00+00:00"
    assert len(server.jobs) == 1
    assert quickly(at("2026-02-01T00:00:00+00:00"), target).is_new


def test_a_name_that_was_given_means_the_same_run_on_any_day(server, target, at):
    quickly(at("2026-01-31T23:59:00+00:00", "nightly"), target)
    assert not quickly(at("2026-02-01T00:00:00+00:00", "nightly"), target).is_new
    with pytest.raises(CloudError, match="does something else"):
        quickly(at("2026-02-01T00:00:00+00:00", "nightly", epochs=1), target)


def test_a_snapshot_time_that_was_given_is_part_of_the_work(at):
    now = "2026-01-31T06:00:00+00:00"
    requests = [at(now), *(at(now, snapshot_time=time) for time in (now, "2026-01-30"))]
    assert len({request.job_id for request in requests}) == 3
    assert [request.snapshot_time for request in requests] == [now, None, None]
    later = at("2026-02-01T06:00:00+00:00", snapshot_time="2026-01-30")
    assert later == requests[2]


@pytest.mark.parametrize("run_id", ["Late", "1st", "a_b", "", "a" * 128])
def test_a_run_id_that_the_service_would_not_take_is_refused(settings, run_id):
    with pytest.raises(CloudError, match="run id"):
        job_request(job(IMAGE), settings, {}, run_id)


def test_the_same_work_is_not_done_twice(server, target, request_):
    assert quickly(request_, target).is_new
    again = quickly(request_, target)
    assert not again.is_new
    assert again.run.state == "pending"
    assert len(server.jobs) == 1


def test_an_id_that_other_work_has_is_refused(server, target, settings):
    quickly(job_request(job(IMAGE), settings, {"span": 3}, "nightly"), target)
    with pytest.raises(CloudError, match=r"run nightly: is there already and does something else .*--run-id"):
        quickly(job_request(job(IMAGE), settings, {"span": 4}, "nightly"), target)


def test_a_run_whose_answer_got_lost_is_found_again(server, target, request_):
    server.refuse("POST", 503, "UNAVAILABLE", "try again", happens=True)
    waits: list[float] = []
    assert quickly(request_, target, waits).run.run_id == request_.job_id
    assert len(waits) == 1
    assert len(server.jobs) == 1


def test_a_busy_service_is_asked_again_but_not_for_ever(server, target, request_):
    server.refuse("POST", 429, "RESOURCE_EXHAUSTED", "Quota exceeded for concurrent runs", times=-1)
    with pytest.raises(
        CloudError, match=r"a quota is used up: Quota exceeded for concurrent runs; .*quotas of"
    ):
        quickly(request_, target)
    assert len(server.called("POST", JOBS)) == 5
    assert server.jobs == {}


@pytest.mark.parametrize(
    ("code", "status", "message", "reason", "told"),
    [
        (
            403,
            "PERMISSION_DENIED",
            "No aiplatform.x",
            "",
            "not allowed: No aiplatform.x; .*roles/aiplatform.user",
        ),
        (
            403,
            "PERMISSION_DENIED",
            "Disabled",
            "SERVICE_DISABLED",
            "not enabled: Disabled; .*gcloud services",
        ),
        (404, "NOT_FOUND", "No such location", "", "not found: No such location; look at project, region"),
        (400, "INVALID_ARGUMENT", "Bad spec", "", "not accepted: Bad spec"),
        (401, "UNAUTHENTICATED", "Invalid credentials", "", "no credentials: .*gcloud auth"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_tried_again(
    server, target, request_, code, status, message, reason, told
):
    server.refuse("POST", code, status, message, times=-1, reason=reason)
    with pytest.raises(CloudError, match=told) as raised:
        quickly(request_, target)
    assert str(raised.value).startswith(
        f"run {request_.job_id} in projects/my-project/locations/europe-west1 was not made: "
    )
    assert "\n" not in str(raised.value)
    assert len(server.called("POST", JOBS)) == 1


def test_a_region_where_nobody_answers_is_told(request_):
    with pytest.raises(CloudError, match=r"no connection: .*look at the region"):
        quickly(request_, Target("my-project", "europe-west1", "http://127.0.0.1:9"))


def test_lacking_credentials_say_how_to_get_them(monkeypatch, request_):
    def nobody(*_, **__):
        raise DefaultCredentialsError("Your default credentials were not found.\nSee the documentation.")

    monkeypatch.setattr("google.auth.default", nobody)
    with pytest.raises(CloudError, match=r"no credentials: .*gcloud auth application-default login"):
        quickly(request_, Target("my-project", "europe-west1"))


def test_runs_of_this_pipeline_and_environment_are_listed_the_newest_first(
    server, target, settings, request_
):
    quickly(request_, target)
    newer = quickly(job_request(job(IMAGE), settings, {"span": 4}), target).run
    quickly(job_request(job(IMAGE, environment="dev"), settings, {"span": 3}, "elsewhere"), target)
    assert [run.run_id for run in recent(target, "shop", "prod", 20)] == [newer.run_id, request_.job_id]
    assert len(recent(target, "shop", "prod", 1)) == 1
    asked = server.called("GET", JOBS)[0].query
    assert asked["orderBy"] == ["create_time desc"]
    assert "pipelineSpec" not in asked["readMask"][0]


def test_a_run_shows_its_tasks_without_the_graph_around_them(server, target, request_):
    name = f"projects/my-project/locations/europe-west1/pipelineJobs/{request_.job_id}"
    quickly(request_, target)
    server.jobs[name] |= {
        "state": "PIPELINE_STATE_FAILED",
        "error": {"code": 9, "message": "The DAG failed"},
        "startTime": "2026-01-01T00:01:00Z",
        "endTime": "2026-01-01T01:01:00Z",
        "jobDetail": {
            "taskDetails": [
                {"taskId": "1", "taskName": "shop", "state": "FAILED"},
                {
                    "taskId": "2",
                    "parentTaskId": "1",
                    "taskName": "StatisticsGen",
                    "state": "SUCCEEDED",
                    "startTime": "2026-01-01T00:01:00Z",
                    "endTime": "2026-01-01T00:03:00.500Z",
                },
                {
                    "taskId": "3",
                    "parentTaskId": "1",
                    "taskName": "Trainer",
                    "state": "FAILED",
                    "error": {"code": 3, "message": "exited with 1"},
                    "executorDetail": {"containerDetail": {"mainJob": "projects/1/customJobs/77"}},
                },
            ]
        },
    }
    found = status(target, request_.job_id)
    assert (found.state, found.error, found.seconds) == ("failed", "The DAG failed", 3600)
    assert found.has_ended
    assert not found.is_success
    assert [(task.name, task.state, task.seconds) for task in found.tasks] == [
        ("StatisticsGen", "succeeded", 120.5),
        ("Trainer", "failed", None),
    ]
    (failed,) = found.failed_tasks
    assert (failed.error, failed.job) == ("exited with 1", "projects/1/customJobs/77")


def test_a_run_is_followed_to_its_end_over_answers_that_fail(server, target, request_):
    quickly(request_, target)
    server.refuse("GET", 503, "UNAVAILABLE", "try again")
    (known,) = server.jobs.values()
    states = []
    for run in follow(target, request_.job_id, 0.0, sleep=lambda _: None):
        states.append(run.state)
        known["state"] = "PIPELINE_STATE_SUCCEEDED"
    assert states == ["pending", "succeeded"]


def test_a_run_that_is_not_there_is_told(target):
    with pytest.raises(CloudError, match=r"run none in .*: not found: "):
        status(target, "none")
