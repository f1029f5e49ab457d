"""What is refused before anything is made, each with the words that say what to change."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cloud.submission_checks import (
    SubmissionError,
    check_environment,
    check_image,
    check_job,
    check_root,
    parameter_values,
    secrets,
)
from pipeline import environment
from tests.cloud.compiled_job import CODE, ENVIRONMENT, bigquery_job, job, write_environment
from tests.cloud.pipeline_service import serving

IMAGE = "europe-west1-docker.pkg.dev/my-project/images/headworks@sha256:" + "0" * 64
PEM = "-----BEGIN " + "PRIVATE KEY-----\nMIIE"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def place(tmp_path):
    return environment.load(write_environment(tmp_path), "prod")


def edited(place, **settings):
    return replace(place, settings=replace(place.settings, **settings))


@pytest.mark.parametrize("key", ["project", "region", "root", "service_account"])
def test_what_the_environment_does_not_say_has_no_default(tmp_path, key):
    lines = [line for line in ENVIRONMENT.splitlines() if not line.startswith(f"{key}:")]
    place = environment.load(write_environment(tmp_path, text="\n".join(lines)), "prod")
    with pytest.raises(
        SubmissionError, match=rf"^{key}: missing in environment prod; set it in .*prod\.yaml$"
    ):
        check_environment(place)


def test_all_that_is_missing_is_told_at_once(tmp_path):
    place = environment.load(write_environment(tmp_path, text="labels: {}\n"), "prod")
    with pytest.raises(SubmissionError) as raised:
        check_environment(place)
    assert len(str(raised.value).splitlines()) == 4


def test_a_root_that_is_no_bucket_is_refused(place):
    with pytest.raises(SubmissionError, match=r"root: '/tmp/x': Vertex AI writes to gs://"):
        check_environment(edited(place, root="/tmp/x"))
    check_environment(place)


def test_a_job_that_fits_passes(place):
    check_job(job(IMAGE), edited(place, image=IMAGE), "job.json", CODE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda job: job.pop("pipelineSpec"), "holds no pipelineSpec"),
        (lambda job: job["pipelineSpec"].update(schemaVersion="1.0"), "schemaVersion '1.0'"),
        (
            lambda job: job["labels"].update({"headworks-environment": "dev"}),
            "compiled for environment dev, not prod",
        ),
        (
            lambda job: job["labels"].update({"headworks-code": "f" * 16}),
            f"code f{{16}}, and the code here is {CODE}; compile it again",
        ),
        (lambda job: job["labels"].clear(), "without a note of its code"),
        (
            lambda job: job["runtimeConfig"].update(gcsOutputDirectory="gs://my-bucket/headworks2/x"),
            "not in the environment's root gs://my-bucket/headworks ",
        ),
        (
            lambda job: job["runtimeConfig"]["parameterValues"].update(note=PEM),
            r"runtimeConfig\.parameterValues\.note: looks like a secret",
        ),
    ],
)
def test_a_job_that_does_not_fit_is_refused(place, change, told):
    changed = job(IMAGE)
    change(changed)
    with pytest.raises(SubmissionError, match=rf"^job\.json: .*{told}") as raised:
        check_job(changed, place, "job.json", CODE)
    assert PEM not in str(raised.value)


def test_an_image_by_tag_is_refused(place):
    with pytest.raises(SubmissionError, match="headworks:latest: name it by digest"):
        check_job(job("eu.gcr.io/p/headworks:latest"), place, "job.json", CODE)


def test_an_image_has_to_hold_the_code_that_the_job_was_compiled_from(server):
    check_image(job(server.push({"dev.headworks.code": CODE})))
    with pytest.raises(SubmissionError, match="does not hold Headworks"):
        check_image(job(server.push({"maintainer": "somebody"})))
    with pytest.raises(
        SubmissionError, match=f"holds code f{{16}}, and the job was compiled from code {CODE}"
    ):
        check_image(job(server.push({"dev.headworks.code": "f" * 16})))
    with pytest.raises(SubmissionError, match="never pushed there or has been deleted"):
        check_image(job(server.push({}).partition("@")[0] + "@sha256:" + "0" * 64))


def test_a_root_that_may_be_written_passes_and_is_asked_for_what_a_run_needs(server, place):
    assert check_root(place, server.endpoint) == []
    (asked,) = server.called("GET", "/iam/testPermissions")
    assert asked.path == "/storage/v1/b/my-bucket/iam/testPermissions"
    assert "storage.objects.create" in asked.query["permissions"]


def test_a_root_nobody_may_write_is_refused(server, place):
    server.permissions = ["storage.objects.get", "storage.objects.list"]
    with pytest.raises(
        SubmissionError, match=r"may not be written: storage\.objects\.create missing on my-bucket; .*runs@"
    ):
        check_root(place, server.endpoint)


def test_a_bucket_that_is_not_there_is_refused(server, place):
    server.permissions = None
    with pytest.raises(SubmissionError, match=r"root gs://.*not found: .*prod\.yaml"):
        check_root(place, server.endpoint)


def test_a_bucket_far_from_the_machines_is_a_warning(server, place):
    server.bucket["location"] = "US-EAST1"
    assert "lies in us-east1 and the run in europe-west1" in check_root(place, server.endpoint)[0]
    server.bucket.update(location="EU", locationType="multi-region")
    assert check_root(place, server.endpoint) == []


def test_a_place_that_may_not_be_looked_up_is_a_warning(server, place):
    server.refuse(r"GET /storage/v1/b/my-bucket$", 403, "PERMISSION_DENIED", "no", times=-1)
    assert "storage.buckets.get" in check_root(place, server.endpoint)[0]


def test_parameters_are_values_of_their_types():
    given = ["span=3", "epochs=-1", "strategy=a=b", "is_new=yes"]
    assert parameter_values(job(IMAGE), given) == {
        "span": 3,
        "epochs": -1,
        "strategy": "a=b",
        "is_new": True,
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["span=3", "epoch=4"], "parameter epoch: does not exist; did you mean epochs?"),
        (["span=3", "zzz=4"], "there are epochs, is_new, span, strategy"),
        (["span=three"], "parameter span: 'three': want a whole number"),
        (["span=3.5"], "want a whole number"),
        (["span=3", "is_new=perhaps"], "want true or false"),
        (["span"], "write it as NAME=VALUE"),
        ([], "parameter span: has no value; add --parameter span=VALUE"),
    ],
)
def test_a_parameter_that_is_none_or_of_another_type_is_refused(given, told):
    with pytest.raises(SubmissionError) as raised:
        parameter_values(job(IMAGE), given)
    assert told in str(raised.value)


def test_a_snapshot_time_may_be_given_and_stays_open_otherwise():
    given = ["span=3", "snapshot_time=2026-01-31T06:00:00Z"]
    assert parameter_values(bigquery_job(IMAGE), given)["snapshot_time"] == "2026-01-31T06:00:00Z"
    assert parameter_values(bigquery_job(IMAGE), ["span=3"]) == {"span": 3}


@pytest.mark.parametrize(("kind", "text", "value"), [("NUMBER_DOUBLE", "0.5", 0.5), ("LIST", "[1]", [1])])
def test_numbers_and_lists_are_read_too(kind, text, value):
    spec = {"pipelineSpec": {"root": {"inputDefinitions": {"parameters": {"x": {"parameterType": kind}}}}}}
    assert parameter_values(spec, [f"x={text}"]) == {"x": value}
    with pytest.raises(SubmissionError, match="want a "):
        parameter_values(spec, ["x=true"])


@pytest.mark.parametrize(
    "planted",
    [
        {"db_password": "hunter2"},
        {"apiKey": "abc"},
        {"private-key": "abc"},
        {"env": [{"name": "DB_TOKEN", "value": "abc"}]},
        {"args": ["--password=abc"]},
        {"note": "AIza" + "x" * 35},
        {"uri": "postgres://me:" + "hunter2@host/db"},
        {"config": json.dumps({"inner": {"secret": "abc"}})},
        {"note": PEM},
    ],
)
def test_what_looks_like_a_secret_is_found_and_not_repeated(planted):
    (found,) = secrets({"spec": planted})
    assert found.startswith("spec.")
    assert "abc" not in found


@pytest.mark.parametrize(
    "harmless",
    [
        {"tokenizer": "words", "max_tokens": 5, "password": "", "key": "flight_id", "monkey": "x"},
        {"token": "projects/p/secrets/token/versions/3"},
        {"password": "{{$.inputs.parameters['password']}}"},
        {"uri": "gs://bucket/a:b@c", "image": IMAGE, "at": "https://host:80/a@b"},
        {"args": ["--json_serialized_invocation_args", "{{$}}", "--tokens=3"]},
    ],
)
def test_what_only_sounds_like_a_secret_passes(harmless):
    assert list(secrets(harmless)) == []
