"""The function behind its framework's server, asked over a socket by real CloudEvents; its state in a bucket."""

import base64
import copy
import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import functions_framework
import pytest
import requests
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask, jsonify
from google.auth import crypt, jwt

import cloud.triggers
from cloud.triggers import (
    MESSAGE_PUBLISHED,
    OBJECT_FINALIZED,
    Answer,
    Claim,
    SubmissionRefused,
    TemporaryFailure,
    TriggerError,
    Triggers,
    TriggerSettings,
    vertex_submit,
)
from tests.cloud.loopback import serving
from tests.cloud.trigger_services import COMPILED, ENVIRONMENT, Pipelines, guard_writes

MAIN = Path(__file__).resolve().parents[2] / "deploy" / "function" / "main.py"
CALLER = "scheduler@my-project.iam.gserviceaccount.com"
AUDIENCE = "https://trigger.example"
SPEC = {"displayName": "flights", "pipelineSpec": {}}
VARIABLES = {
    "HEADWORKS_NAME": "flights",
    "HEADWORKS_SPEC": "gs://my-bucket/specs/flights.json",
    "HEADWORKS_STATE": "gs://my-bucket/triggers/flights",
    "HEADWORKS_OBJECTS": "gs://landing/flights/{SPAN:3}/*.parquet gs://landing/late/{SPAN:3}/_SUCCESS",
    "HEADWORKS_CALLERS": CALLER,
    "HEADWORKS_AUDIENCE": AUDIENCE,
}


@dataclass
class Submissions:
    """In place of Vertex AI: keeps what is asked of it, and fails as it is told."""

    asked: list[Any] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def __call__(self, job, job_id, parameters):
        assert job == SPEC
        self.asked.append((job_id, parameters))
        if self.failures:
            raise self.failures.pop(0)
        return f"pipelineJobs/{job_id}"

    @property
    def ids(self):
        return [job_id for job_id, _ in self.asked]


@pytest.fixture
def bucket(monkeypatch, storage):
    guard_writes(monkeypatch)
    bucket = storage.bucket("my-bucket")
    bucket.blob("specs/flights.json").upload_from_string(json.dumps(SPEC))
    return bucket


@pytest.fixture
def submissions():
    return Submissions()


@pytest.fixture
def start(monkeypatch, bucket, submissions):
    """Starts a server of one of the function's entry points; returns its address."""
    monkeypatch.setattr(cloud.triggers, "vertex_submit", lambda variables: submissions)
    with ExitStack() as running:

        def start(target="on_event", **variables):
            for name, value in (VARIABLES | variables).items():
                monkeypatch.setenv(name, value)
            return running.enter_context(serving(functions_framework.create_app(target, str(MAIN))))

        yield start


def finalized(name, bucket="landing", id_="event-1"):
    return CloudEvent(
        {
            "type": OBJECT_FINALIZED,
            "source": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
            "subject": f"objects/{name}",
            "id": id_,
        },
        {"bucket": bucket, "name": name, "generation": "1", "size": "10"},
    )


def published(body, id_="message-1", **attributes):
    data = base64.b64encode(body if isinstance(body, bytes) else json.dumps(body).encode()).decode()
    return CloudEvent(
        {"type": MESSAGE_PUBLISHED, "source": "//pubsub.googleapis.com/projects/p/topics/t", "id": id_},
        {"message": {"data": data, "messageId": id_, "attributes": attributes}, "subscription": "s"},
    )


def post(address, event, mode=to_binary):
    headers, body = mode(event)
    return requests.post(address, data=body, headers=headers, timeout=30)


def claim(bucket, span=7):
    return json.loads(bucket.blob(f"triggers/flights/runs/{span}.json").download_as_bytes())


@pytest.mark.parametrize("mode", [to_binary, to_structured])
def test_an_object_starts_the_run_of_its_span(start, bucket, submissions, mode):
    address = start()
    answer = post(address, finalized("flights/007/a.parquet"), mode)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert submissions.asked == [("flights-span-7-1", {"span": 7})]
    assert claim(bucket)["state"] == "submitted"
    assert claim(bucket)["run"] == "pipelineJobs/flights-span-7-1"


def test_of_many_objects_and_second_deliveries_one_run_comes(start, submissions):
    address = start()
    for event in (
        finalized("flights/007/a.parquet"),
        finalized("flights/007/a.parquet"),
        finalized("flights/007/b.parquet", id_="event-2"),
        published({"span": 7}),
    ):
        assert post(address, event).status_code == 200
    assert submissions.ids == ["flights-span-7-1"]
    post(address, finalized("flights/008/a.parquet", id_="event-3"))
    assert submissions.ids == ["flights-span-7-1", "flights-span-8-1"]


@pytest.mark.parametrize(
    "name",
    [
        "flights/007/",
        "flights/007/a.parquet.tmp",
        "flights/007/_temporary/0/a.parquet",
        "flights/007/_a.parquet",
        "flights/007/.a.parquet",
        "flights/7/a.parquet",
        "other/007/a.parquet",
    ],
)
def test_objects_of_no_span_are_ignored_and_said_so(start, submissions, caplog, name):
    caplog.set_level(logging.INFO, "cloud.triggers")
    assert post(start(), finalized(name)).status_code == 200
    assert submissions.asked == []
    assert f"gs://landing/{name} belongs to no span; ignored" in caplog.text


def test_a_marker_that_the_settings_name_starts_the_run_though_it_looks_hidden(start, submissions):
    post(start(), finalized("late/012/_SUCCESS"))
    assert submissions.ids == ["flights-span-12-1"]


@pytest.mark.parametrize("mode", [to_binary, to_structured])
def test_a_message_starts_the_run_of_the_span_it_names(start, submissions, mode):
    assert post(start(), published({"span": 3}), mode).status_code == 200
    assert submissions.asked == [("flights-span-3-1", {"span": 3})]


def test_a_bucket_notification_is_an_object(start, submissions):
    address = start()
    place = {"bucketId": "landing", "objectId": "flights/004/a.parquet", "objectGeneration": "5"}
    post(address, published({}, eventType="OBJECT_DELETE", **place))
    assert submissions.asked == []
    post(address, published({}, eventType="OBJECT_FINALIZE", **place))
    assert submissions.ids == ["flights-span-4-1"]


def test_a_push_subscription_needs_no_eventarc(start, submissions):
    body: Any = {
        "message": {"data": base64.b64encode(b'{"span": 5}').decode(), "messageId": "1"},
        "subscription": "projects/p/subscriptions/s",
    }
    answer = requests.post(start() + "/projects/p/topics/t", json=body, timeout=30)
    assert answer.status_code == 200
    assert submissions.ids == ["flights-span-5-1"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"seven", "is no JSON"),
        ([7], "want an object"),
        ({"span": "7"}, "want a whole number"),
        ({"span": True}, "want a whole number"),
        ({"span": -1}, "want a whole number"),
        ({"spam": 7}, "spam: unknown"),
        ({"span": 7, "force": True}, "force: unknown"),
    ],
)
def test_a_message_that_stays_wrong_is_not_delivered_again(start, submissions, caplog, body, said):
    assert post(start(), published(body)).status_code == 200
    assert submissions.asked == []
    assert said in caplog.text


def test_what_may_pass_is_delivered_again_and_asks_for_the_same_run(start, bucket, submissions):
    address = start()
    submissions.failures = [TemporaryFailure("quota of requests a minute")]
    assert post(address, finalized("flights/007/a.parquet")).status_code == 500
    assert claim(bucket)["state"] == "free"
    assert post(address, finalized("flights/007/a.parquet")).status_code == 200
    assert submissions.ids == ["flights-span-7-1", "flights-span-7-1"]
    assert claim(bucket)["state"] == "submitted"


def test_what_the_service_refuses_is_kept_with_its_reason_and_not_tried_again(
    start, bucket, submissions, caplog
):
    address = start()
    submissions.failures = [SubmissionRefused("span: no such parameter")]
    assert post(address, finalized("flights/007/a.parquet")).status_code == 200
    assert post(address, finalized("flights/007/b.parquet", id_="event-2")).status_code == 200
    assert submissions.ids == ["flights-span-7-1"]
    assert (claim(bucket)["state"], claim(bucket)["reason"]) == ("refused", "span: no such parameter")
    assert "ask with force" in caplog.text


def test_a_spec_that_is_not_there_loses_no_span(start, bucket, submissions):
    address = start()
    bucket.blob("specs/flights.json").delete()
    assert post(address, finalized("flights/007/a.parquet")).status_code == 500
    bucket.blob("specs/flights.json").upload_from_string("{")
    assert post(address, finalized("flights/007/a.parquet")).status_code == 500
    bucket.blob("specs/flights.json").upload_from_string(json.dumps(SPEC))
    assert post(address, finalized("flights/007/a.parquet")).status_code == 200
    assert submissions.ids == ["flights-span-7-1"]


def settings():
    return TriggerSettings.of(VARIABLES)


def test_of_two_instances_one_starts_the_run(bucket, submissions, monkeypatch):
    """The second reads before the first has written, and so meets its claim only when it writes its own."""
    first = Triggers(settings(), bucket.client, submissions)
    second = Triggers(settings(), bucket.client, submissions)
    read = second.store.read

    def overtaken(span):
        stored = read(span)
        assert first.start(7, "first").started
        return stored

    monkeypatch.setattr(second.store, "read", overtaken)
    with pytest.raises(TemporaryFailure, match="another instance was quicker"):
        second.start(7, "second")
    monkeypatch.setattr(second.store, "read", read)
    assert second.start(7, "second") == Answer(
        False, Claim(7, "first", state="submitted", run="pipelineJobs/flights-span-7-1")
    )
    assert submissions.ids == ["flights-span-7-1"]


def test_a_claim_of_an_instance_that_died_is_taken_over_after_a_while(bucket, submissions):
    now = datetime.now(UTC)
    Triggers(settings(), bucket.client, submissions).store.write(Claim(7, "died"), 0)
    with pytest.raises(TemporaryFailure, match="being started for died"):
        Triggers(settings(), bucket.client, submissions, now=lambda: now).start(7, "again")
    later = Triggers(settings(), bucket.client, submissions, now=lambda: now + timedelta(minutes=11))
    assert later.start(7, "again").started
    assert submissions.ids == ["flights-span-7-1"]


@pytest.fixture
def open_job(bucket):
    """Puts a job into the bucket that reads tables as of a time."""
    job: Any = copy.deepcopy(COMPILED)
    job["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]["snapshot_time"] = {
        "parameterType": "STRING"
    }
    bucket.blob("specs/flights.json").upload_from_string(json.dumps(job))


def test_who_makes_good_for_an_instance_that_died_finds_its_run_of_an_earlier_minute(
    open_job, bucket, pipelines, vertex, monkeypatch
):
    now = datetime(2026, 1, 31, 23, 55, 30, tzinfo=UTC)
    first = Triggers(settings(), bucket.client, vertex, now=lambda: now)
    write = first.store.write

    def dies_after_its_submission(claim, generation):
        if claim.state == "submitted":
            raise KeyboardInterrupt
        return write(claim, generation)

    monkeypatch.setattr(first.store, "write", dies_after_its_submission)
    with pytest.raises(KeyboardInterrupt):
        first.start(7, "died")
    assert (claim(bucket)["state"], claim(bucket)["snapshot_time"]) == (
        "claimed",
        "2026-01-31T23:55:00+00:00",
    )
    later = datetime.now(UTC) + timedelta(minutes=11)
    answer = Triggers(settings(), bucket.client, vertex, now=lambda: later).start(7, "again")
    assert answer.claim.state == "submitted"
    [made] = pipelines.made.values()
    assert answer.claim.run == made["name"]
    values = made["runtimeConfig"]["parameterValues"]
    assert values == {"span": 7, "snapshot_time": "2026-01-31T23:55:00+00:00"}


def test_a_failure_that_passes_keeps_the_snapshot_time_and_a_further_run_has_its_own(
    open_job, bucket, pipelines, vertex
):
    def start(minute, cause, **more):
        now = datetime(2026, 1, 31, 6, minute, tzinfo=UTC)
        return Triggers(settings(), bucket.client, vertex, now=lambda: now).start(7, cause, **more).claim

    pipelines.failures = [503] * 9
    with pytest.raises(TemporaryFailure):
        start(0, "event")
    assert claim(bucket)["state"] == "free"
    pipelines.failures = []
    assert start(5, "event").snapshot_time == "2026-01-31T06:00:00+00:00"
    assert start(10, "mended", is_forced=True).snapshot_time == "2026-01-31T06:10:00+00:00"
    times = {
        name: made["runtimeConfig"]["parameterValues"]["snapshot_time"]
        for name, made in pipelines.made.items()
    }
    assert times == {
        "flights-span-7-1": "2026-01-31T06:00:00+00:00",
        "flights-span-7-2": "2026-01-31T06:10:00+00:00",
    }


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def keys(key):
    """A server of the certificate that Google would publish."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    app = Flask("keys")
    app.add_url_rule("/", view_func=lambda: jsonify({"key-1": pem}))
    with serving(app) as address:
        yield address


@pytest.fixture
def token(key):
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signer = crypt.RSASigner.from_string(pem, "key-1")

    def token(**changes):
        now = int(datetime.now(UTC).timestamp())
        says = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "email": CALLER,
            "email_verified": True,
            "iat": now - 60,
            "exp": now + 600,
        }
        return jwt.encode(signer, says | changes).decode()

    return token


@pytest.fixture
def ask(start, keys, token):
    address: list[str] = []

    def ask(body=None, path="/", said=None, **variables):
        if not address:
            address.append(start("on_request", HEADWORKS_CERTIFICATES=keys, **variables))
        headers = {"Authorization": f"Bearer {token() if said is None else said}"} if said != "" else {}
        return requests.post(address[0] + path, json=body or {}, headers=headers, timeout=30)

    return ask


def test_a_web_request_starts_a_run_and_says_which(ask, submissions):
    answer = ask({"span": 7})
    assert answer.status_code == 202
    assert answer.json()["run"] == "pipelineJobs/flights-span-7-1"
    answer = ask({"span": 7})
    assert (answer.status_code, answer.json()["started"]) == (200, False)
    assert submissions.ids == ["flights-span-7-1"]


def test_a_forced_request_starts_a_further_run_and_its_repetition_does_not(ask, submissions):
    ask({"span": 7})
    assert ask({"span": 7, "force": True, "id": "mended"}).status_code == 202
    assert ask({"span": 7, "force": True, "id": "mended"}).status_code == 200
    assert submissions.ids == ["flights-span-7-1", "flights-span-7-2"]


@pytest.mark.parametrize(
    ("said", "changes", "status"),
    [
        ("", {}, 401),
        ("nonsense", {}, 401),
        (None, {"aud": "https://other.example"}, 401),
        (None, {"exp": 1_000_000_000, "iat": 999_999_000}, 401),
        (None, {"iss": "https://other.example"}, 401),
        (None, {"email": "someone@example.com"}, 403),
        (None, {"email_verified": False}, 403),
    ],
)
def test_only_tokens_of_accounts_that_may_ask_are_heard(ask, submissions, token, said, changes, status):
    answer = ask({"span": 7}, said=token(**changes) if said is None else said)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert submissions.asked == []


def test_a_token_of_another_signer_is_not_heard(ask, submissions):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    now = int(datetime.now(UTC).timestamp())
    says = {"iss": "https://accounts.google.com", "aud": AUDIENCE, "email": CALLER, "email_verified": True}
    forged = jwt.encode(crypt.RSASigner.from_string(pem, "key-1"), says | {"iat": now, "exp": now + 600})
    assert ask({"span": 7}, said=forged.decode()).status_code == 401
    assert submissions.asked == []


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [({"span": "7"}, "/", 400), ({"span": 7, "force": "yes"}, "/", 400), ({"span": 7}, "/runs", 404)],
)
def test_a_request_that_is_wrong_is_said_to_be(ask, submissions, body, path, status):
    assert ask(body, path).status_code == status
    assert submissions.asked == []


def test_a_failure_tells_the_caller_whether_to_ask_again(ask, submissions):
    submissions.failures = [TemporaryFailure("unavailable"), SubmissionRefused("no such account")]
    assert ask({"span": 7}).status_code == 503
    answer = ask({"span": 7})
    assert (answer.status_code, answer.json()["reason"]) == (422, "no such account")


def test_objects_wait_until_no_more_arrive(bucket, submissions):
    now = datetime.now(UTC)
    waiting = TriggerSettings.of(VARIABLES | {"HEADWORKS_SETTLE_SECONDS": "300"})
    triggers = Triggers(waiting, bucket.client, submissions, now=lambda: now)
    for number, name in enumerate(
        ["flights/007/a.parquet", "flights/007/b.parquet", "flights/008/a.parquet"]
    ):
        triggers.on_event(finalized(name, id_=str(number)))
    assert triggers._start_settled("scheduler") == {"started": []}
    later = Triggers(waiting, bucket.client, submissions, now=lambda: now + timedelta(minutes=6))
    assert later._start_settled("scheduler") == {"started": [7, 8]}
    assert submissions.ids == ["flights-span-7-1", "flights-span-8-1"]
    assert list(later.store.arrivals()) == []
    later.on_event(finalized("flights/007/c.parquet", id_="late"))
    assert list(later.store.arrivals()) == []


def test_a_span_that_cannot_be_started_does_not_keep_others_waiting(ask, start, submissions):
    events = start(HEADWORKS_SETTLE_SECONDS="600")
    for span in (8, 9):
        post(events, finalized(f"flights/00{span}/a.parquet", id_=str(span)))
    submissions.failures = [TemporaryFailure("unavailable")]
    answer = ask(path="/settled", HEADWORKS_SETTLE_SECONDS="0")
    assert answer.status_code == 503
    assert answer.json()["error"] == "started spans [9], and could not start [8]"
    assert ask(path="/settled").json() == {"started": [8]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEADWORKS_NAME", None, "HEADWORKS_NAME is not set"),
        ("HEADWORKS_NAME", "Flights", "HEADWORKS_NAME: 'Flights'"),
        ("HEADWORKS_SPEC", "specs/flights.json", "HEADWORKS_SPEC"),
        ("HEADWORKS_OBJECTS", "gs://landing/flights/*.parquet", "want gs://BUCKET/… with"),
        ("HEADWORKS_SETTLE_SECONDS", "5m", "HEADWORKS_SETTLE_SECONDS"),
        ("HEADWORKS_AUDIENCE", "", "set both or none"),
    ],
)
def test_settings_that_are_wrong_name_the_variable(name, value, said):
    variables = {key: one for key, one in (VARIABLES | {name: value}).items() if one is not None}
    with pytest.raises(TriggerError, match=said):
        TriggerSettings.of(variables)


@pytest.fixture
def pipelines():
    service = Pipelines()
    with serving(service.app()) as service.address:
        yield service


@pytest.fixture
def vertex(pipelines, monkeypatch):
    monkeypatch.setattr(cloud.triggers, "_rest", lambda seconds: None)
    variables = {"HEADWORKS_ENVIRONMENT": json.dumps(ENVIRONMENT), "HEADWORKS_ENDPOINT": pipelines.address}
    return vertex_submit(variables)


def test_a_run_of_its_span_is_asked_of_vertex_ai_by_the_account_of_the_environment(pipelines, vertex):
    name = vertex(COMPILED, "flights-span-7-1", {"span": 7})
    assert name == "projects/my-project/locations/europe-west1/pipelineJobs/flights-span-7-1"
    made = pipelines.made["flights-span-7-1"]
    assert made["serviceAccount"] == "runner@my-project.iam.gserviceaccount.com"
    assert made["runtimeConfig"]["parameterValues"] == {"span": 7}
    assert made["labels"].items() >= {"team": "flights", "headworks-code": "0123456789abcdef"}.items()


def test_a_run_that_was_made_before_the_instance_died_is_the_run(pipelines, vertex):
    first = vertex(COMPILED, "flights-span-7-1", {"span": 7})
    assert vertex(COMPILED, "flights-span-7-1", {"span": 7}) == first
    assert len(pipelines.made) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_later(pipelines, vertex, status):
    pipelines.failures = [status] * 9
    with pytest.raises(TemporaryFailure):
        vertex(COMPILED, "flights-span-7-1", {"span": 7})


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_service_that_says_no_means_it(pipelines, vertex, status):
    pipelines.failures = [status]
    with pytest.raises(SubmissionRefused):
        vertex(COMPILED, "flights-span-7-1", {"span": 7})


def test_a_job_without_spans_is_refused_without_asking(pipelines, vertex):
    job = {**COMPILED, "pipelineSpec": {"root": {"inputDefinitions": {"parameters": {}}}}}
    with pytest.raises(SubmissionRefused, match="span"):
        vertex(job, "flights-span-7-1", {"span": 7})
    assert pipelines.made == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prod", "HEADWORKS_ENVIRONMENT: 'prod'"),
        ('{"project": "my-project", "zone": "a"}', "HEADWORKS_ENVIRONMENT: zone"),
        ('{"project": "my-project"}', "want project, region and service_account"),
    ],
)
def test_an_environment_that_is_wrong_names_the_key(text, said):
    with pytest.raises(TriggerError, match=said):
        vertex_submit({"HEADWORKS_ENVIRONMENT": text})
