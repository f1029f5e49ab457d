"""Schedules on Vertex AI: one of a name, changed in place, and what the client library sends."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from cloud.api_errors import CloudError
from cloud.vertex_pipelines import Target, job_request
from cloud.vertex_schedules import ScheduleRequest, change, put, schedules
from pipeline import environment
from tests.cloud.compiled_job import job, write_environment
from tests.cloud.pipeline_service import serving

IMAGE = "europe-west1-docker.pkg.dev/my-project/images/headworks@sha256:" + "0" * 64
PARENT = "projects/my-project/locations/europe-west1"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def target(server):
    return Target("my-project", "europe-west1", server.endpoint)


@pytest.fixture
def wanted(tmp_path):
    settings = environment.load(write_environment(tmp_path), "prod").settings
    return ScheduleRequest(
        "shop-prod", "0 5 * * *", "Europe/Berlin", 2, job_request(job(IMAGE), settings, {"span": 3})
    )


def test_a_schedule_is_made_with_the_run_that_it_repeats(server, target, wanted):
    done = put(wanted, target)
    assert done.outcome == "made"
    (call,) = server.called("POST", "/schedules")
    assert call.path == f"/v1/{PARENT}/schedules"
    request = call.body.pop("createPipelineJobRequest")
    assert call.body == {
        "displayName": "shop-prod",
        "cron": "TZ=Europe/Berlin 0 5 * * *",
        "maxConcurrentRunCount": "2",
        "maxConcurrentActiveRunCount": "2",
    }
    assert request["parent"] == PARENT
    assert request["pipelineJob"]["serviceAccount"] == "runs@my-project.iam.gserviceaccount.com"
    assert request["pipelineJob"]["runtimeConfig"]["parameterValues"] == {"span": 3}
    # Each run gets an id of its own.
    assert "pipelineJobId" not in request


def test_the_same_again_changes_nothing(server, target, wanted):
    put(wanted, target)
    assert put(wanted, target).outcome == "as it was"
    assert len(server.called("POST", "/schedules")) == 1
    assert not [call for call in server.calls if call.method == "PATCH"]


@pytest.mark.parametrize("what", ["cron", "max_concurrent", "job"])
def test_what_is_other_is_changed_in_place(server, target, wanted, what):
    put(wanted, target)
    other = replace(
        wanted.job, digest="f" * 32, job={**wanted.job.job, "labels": {"headworks-digest": "f" * 32}}
    )
    changes = {"cron": "30 6 * * 1", "max_concurrent": 3, "job": other}
    done = put(replace(wanted, **{what: changes[what]}), target)
    assert done.outcome == "changed"
    (call,) = [call for call in server.calls if call.method == "PATCH"]
    assert call.path == f"/v1/{PARENT}/schedules/1"
    assert set(call.query["updateMask"][0].split(",")) == {
        "cron",
        "createPipelineJobRequest",
        "maxConcurrentRunCount",
        "maxConcurrentActiveRunCount",
    }
    assert len(server.schedules) == 1


def test_a_schedule_whose_answer_got_lost_is_not_made_twice(server, target, wanted):
    server.refuse("POST", 503, "UNAVAILABLE", "try again", happens=True)
    assert put(wanted, target, sleep=lambda _: None).outcome == "as it was"
    assert len(server.schedules) == 1


def test_of_two_of_a_name_none_is_touched(server, target, wanted):
    put(wanted, target)
    (made,) = server.schedules.values()
    server.schedules[f"{PARENT}/schedules/2"] = {**made, "name": f"{PARENT}/schedules/2"}
    with pytest.raises(CloudError, match="there are 2 of that name; delete all but one: https://"):
        put(wanted, target)


def test_schedules_of_this_pipeline_and_environment_are_listed(target, wanted):
    put(wanted, target)
    (found,) = schedules(target, "shop", "prod")
    assert (found.name, found.cron, found.state) == ("shop-prod", "TZ=Europe/Berlin 0 5 * * *", "active")
    assert schedules(target, "shop", "dev") == []


def test_a_schedule_is_paused_resumed_and_deleted_by_its_name(server, target, wanted):
    put(wanted, target)
    states = []
    for what in ("pause", "resume"):
        change(target, "shop-prod", what)
        states += [one["state"] for one in server.schedules.values()]
    assert states == ["PAUSED", "ACTIVE"]
    change(target, "shop-prod", "delete")
    assert server.schedules == {}
    with pytest.raises(CloudError, match="there is none of that name"):
        change(target, "shop-prod", "delete")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("cron", "0 5 * *", "want five fields"),
        ("cron", "@daily", "want five fields"),
        ("time_zone", "Europe/Berln", "did you mean Europe/Berlin?"),
        ("time_zone", "", "not in the IANA time zone database"),
    ],
)
def test_times_that_can_be_seen_to_be_wrong_are_refused_here(wanted, field, value, told):
    with pytest.raises(CloudError) as raised:
        replace(wanted, **{field: value})
    assert told in str(raised.value)


def test_times_that_the_service_refuses_are_told_in_its_words(server, target, wanted):
    server.refuse("POST", 400, "INVALID_ARGUMENT", "Cron minute 61 is out of range", times=-1)
    with pytest.raises(CloudError, match=r"^schedule shop-prod in .*: not accepted: Cron minute 61"):
        put(replace(wanted, cron="61 5 * * *"), target, sleep=time.sleep)
