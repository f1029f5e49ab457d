"""The real client libraries against Vertex AI and Cloud Storage on the loopback: what is sent, what comes of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import aiplatform, storage

from beam_jobs.rows import PredictionError
from cloud.batch_prediction import (
    BatchJob,
    StoredAnswers,
    instance_line,
    parse_answers,
    read_answers,
    run,
    upload,
)
from tests.cloud.batch_service import serving

PLACE = "projects/my-project/locations/europe-west1"
JOB = BatchJob(
    "20260101T000000-AB12",
    f"{PLACE}/models/77@2",
    ("gs://bucket/in/rows.jsonl",),
    "gs://bucket/out",
    machine_type="n1-highmem-2",
    starting_replicas=2,
    max_replicas=6,
    batch_size=512,
    service_account="scorer@my-project.iam.gserviceaccount.com",
    labels={"team": "rain"},
)
DONE = {
    "state": "JOB_STATE_SUCCEEDED",
    "outputInfo": {"gcsOutputDirectory": "gs://bucket/out/prediction-rain-2026"},
    "completionStats": {"successfulCount": "9", "failedCount": "1"},
}
CLASSES = ("dry", "wet")


@pytest.fixture
def server():
    with serving() as served:
        yield served


@pytest.fixture
def client(server):
    return storage.Client(
        "my-project", AnonymousCredentials(), client_options={"api_endpoint": server.endpoint}
    )


def submitted(server, job=JOB, states=(DONE,), waits=None, told=None):
    server.states = list(states)
    connection = {
        "api_endpoint": server.endpoint,
        "api_transport": "rest",
        "credentials": AnonymousCredentials(),
    }
    return run(
        job,
        told.append if told is not None else lambda _: None,
        connection,
        sleep=waits.append if waits is not None else lambda _: None,
    )


def test_a_job_is_submitted_as_the_service_takes_it(server):
    submitted(server)
    ((post,),) = [[call for call in server.calls if call.method == "POST"]]
    assert post.path.startswith(f"/v1/{PLACE}/batchPredictionJobs")
    assert post.body == {
        "displayName": "headworks-20260101t000000-ab12",
        "model": f"{PLACE}/models/77@2",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://bucket/in/rows.jsonl"]}},
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": "gs://bucket/out"},
        },
        "dedicatedResources": {
            "machineSpec": {"machineType": "n1-highmem-2"},
            "startingReplicaCount": 2,
            "maxReplicaCount": 6,
        },
        "manualBatchTuningParameters": {"batchSize": 512},
        "serviceAccount": "scorer@my-project.iam.gserviceaccount.com",
        "labels": {"team": "rain", "headworks_job": "20260101t000000-ab12"},
    }


def test_a_job_may_leave_the_machines_to_the_service_and_read_records(server):
    submitted(
        server, replace(JOB, machine_type=None, instances_format="tf-record-gzip", service_account=None)
    )
    (body,) = server.submitted
    assert body["inputConfig"]["instancesFormat"] == "tf-record-gzip"
    assert not {"dedicatedResources", "manualBatchTuningParameters", "serviceAccount"} & body.keys()


def test_a_job_is_awaited_and_what_is_new_is_told(server):
    told: list[str] = []
    waits: list[float] = []
    running = {
        "state": "JOB_STATE_RUNNING",
        "completionStats": {"successfulCount": "4", "incompleteCount": "6"},
    }
    finished = submitted(
        server, states=[{}, {"state": "JOB_STATE_RUNNING"}, running, running, DONE], told=told, waits=waits
    )
    name = f"{PLACE}/batchPredictionJobs/1"
    assert told == [
        f"Vertex AI: {name}: submitted",
        f"Vertex AI: {name}: pending",
        f"Vertex AI: {name}: running",
        f"Vertex AI: {name}: running, 4 rows scored, 0 failed, 6 to do",
        f"Vertex AI: {name}: succeeded, 9 rows scored, 1 failed",
    ]
    assert waits == [30.0] * 4
    assert (finished.name, finished.directory) == (name, "gs://bucket/out/prediction-rain-2026")
    assert (finished.successful, finished.failed) == (9, 1)


@pytest.mark.parametrize("state", ["JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"])
def test_a_job_of_the_same_id_is_taken_up(server, state):
    submitted(server)
    server.jobs[f"{PLACE}/batchPredictionJobs/1"]["state"] = state
    told: list[str] = []
    assert submitted(server, told=told).name.endswith("/1")
    assert told[0].endswith("/1: taken up, for it is the job 20260101T000000-AB12")
    assert len(server.submitted) == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "CANCELLING", "EXPIRED", "PARTIALLY_SUCCEEDED"])
def test_a_job_that_came_to_nothing_is_submitted_again(server, state):
    submitted(server)
    server.jobs[f"{PLACE}/batchPredictionJobs/1"]["state"] = f"JOB_STATE_{state}"
    assert submitted(server).name.endswith("/2")


def test_a_job_of_another_id_is_not_taken_up(server):
    submitted(server)
    assert submitted(server, replace(JOB, job_id="another")).name.endswith("/2")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": f"{PLACE}/models/78@2"}, "its model is 77, not 78"),
        ({"sources": ("gs://bucket/in/others.jsonl",)}, "its instances is"),
        (
            {"destination": "gs://bucket/elsewhere"},
            "its destination is gs://bucket/out, not gs://bucket/elsewhere",
        ),
    ],
)
def test_a_job_of_the_same_id_that_does_other_work_is_refused(server, changed, said):
    submitted(server)
    with pytest.raises(PredictionError, match=said):
        submitted(server, replace(JOB, **changed))
    assert len(server.submitted) == 1


def test_a_project_may_be_answered_by_its_number(server):
    submitted(server)
    server.jobs[f"{PLACE}/batchPredictionJobs/1"]["model"] = "projects/12345/locations/europe-west1/models/77"
    assert submitted(server).name.endswith("/1")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"state": "JOB_STATE_FAILED", "error": {"code": 3, "message": "bad instance"}},
            "failed: bad instance",
        ),
        (
            {"state": "JOB_STATE_FAILED", "error": {"code": 8, "message": "Quota exceeded: N1_CPUS"}},
            "failed: Quota exceeded: N1_CPUS; a quota is used up: ask for more",
        ),
        ({"state": "JOB_STATE_CANCELLED"}, "cancelled: no reason is given"),
        (
            {
                "state": "JOB_STATE_PARTIALLY_SUCCEEDED",
                "partialFailures": [{"message": "shard 3 is lost"}],
                "completionStats": {"successfulCount": "9", "failedCount": "1"},
            },
            "partially succeeded, 9 rows scored, 1 failed: shard 3 is lost",
        ),
        ({"state": "JOB_STATE_SUCCEEDED"}, "succeeded, but does not say where its answers are"),
    ],
)
def test_a_job_that_does_not_succeed_is_named_with_its_reason(server, facts, said):
    with pytest.raises(PredictionError, match=said) as raised:
        submitted(server, states=[facts])
    assert str(raised.value).startswith(f"{PLACE}/batchPredictionJobs/1: ")


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            (403, "PERMISSION_DENIED", "Permission 'aiplatform.x' denied"),
            r"not allowed: .*aiplatform\.x.*roles/",
        ),
        (
            (404, "NOT_FOUND", "Model 77 is not found"),
            "not found: Model 77 is not found; look at the names",
        ),
        (
            (400, "INVALID_ARGUMENT", "Unsupported machine"),
            "not accepted: Unsupported machine",
        ),
    ],
)
def test_a_job_that_is_refused_says_what_to_do_and_is_not_tried_again(server, refusal, said):
    server.refusals["POST"] = [refusal]
    with pytest.raises(PredictionError, match=said) as raised:
        submitted(server)
    assert str(raised.value).startswith(JOB.model)
    assert "\n" not in str(raised.value)
    assert len(server.submitted) == 1


def test_a_quota_is_waited_for_a_while_and_then_named(server):
    refusal = (429, "RESOURCE_EXHAUSTED", "Quota exceeded for aiplatform.googleapis.com/custom_cpus")
    waits: list[float] = []
    server.refusals["POST"] = [refusal] * 2
    submitted(server, waits=waits)
    assert len(waits) == 2
    server.refusals["POST"] = [refusal] * 9
    with pytest.raises(PredictionError, match=r"a quota is used up: .*custom_cpus; ask for more"):
        submitted(server, replace(JOB, job_id="other"))


def test_a_submission_whose_answer_got_lost_is_not_repeated(server):
    """The service has made the job and says 503 nevertheless: to try again finds it."""
    made = replace(JOB, job_id="lost")
    submitted(server, made)
    server.jobs[f"{PLACE}/batchPredictionJobs/1"]["state"] = "JOB_STATE_PENDING"
    server.refusals["GET"] = [(503, "UNAVAILABLE", "try again")]
    assert submitted(server, made).name.endswith("/1")
    assert len(server.submitted) == 1


def test_a_look_at_the_job_may_fail_now_and_then(server):
    submitted(server)
    server.jobs[f"{PLACE}/batchPredictionJobs/1"]["state"] = "JOB_STATE_RUNNING"
    server.refusals["GET"] = [(500, "INTERNAL", "oops"), (429, "RESOURCE_EXHAUSTED", "slowly")]
    assert submitted(server, states=[{}, DONE]).successful == 9


def test_lacking_credentials_are_one_line_that_says_how_to_get_them(monkeypatch):
    def nobody(*_, **__):
        raise DefaultCredentialsError("Your default credentials were not found.\nSee the documentation.")

    monkeypatch.setattr("google.auth.default", nobody)
    monkeypatch.setattr(aiplatform.initializer.global_config, "_credentials", None)
    with pytest.raises(PredictionError, match="gcloud auth application-default login") as raised:
        run(JOB, print)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "77"}, "want projects/PROJECT/locations/LOCATION/models/ID"),
        ({"job_id": "a job"}, "has to be a label"),
        ({"sources": ("/tmp/rows.jsonl",)}, "gs://BUCKET/PATH"),
        ({"sources": ()}, "has no file of instances"),
        ({"instances_format": "csv"}, "want one of jsonl"),
        ({"starting_replicas": 9}, "9 to 6 replicas"),
    ],
)
def test_a_job_that_cannot_be_is_refused_before_anything_is_sent(changed, said):
    with pytest.raises(PredictionError, match=said):
        replace(JOB, **changed)


def test_instances_are_uploaded_in_pieces_and_appear_whole(server, client):
    examples = [bytes([number % 256]) * 100_000 for number in range(400)]
    assert upload(iter(examples), "gs://bucket/in/rows.jsonl", client) == 400
    stored = server.objects["bucket/in/rows.jsonl"]
    assert stored == b"".join(map(instance_line, examples))
    assert json.loads(stored.splitlines()[1]) == {"b64": "AQEB" * 33333 + "AQ=="}


def test_an_upload_that_breaks_off_leaves_no_object(server, client):
    def rows():
        yield b"x" * 50_000_000
        raise PredictionError("the source is gone")

    with pytest.raises(PredictionError, match="the source is gone"):
        upload(rows(), "gs://bucket/in/rows.jsonl", client)
    assert server.objects == {}


def test_an_upload_that_is_refused_says_what_to_do(server, client):
    server.refusals["storage"] = [(403, "forbidden", "no storage.objects.create")]
    with pytest.raises(
        PredictionError,
        match=r"^gs://bucket/in/rows\.jsonl: not allowed: .*no storage\.objects\.create.*roles",
    ):
        upload([b"x"], "gs://bucket/in/rows.jsonl", client)


def line(example, **content):
    instance = json.loads(instance_line(example))
    return json.dumps({"instance": instance, **content}).encode() + b"\n"


def wet(chance):
    return {"scores": [1 - chance, chance], "classes": list(CLASSES)}


def test_answers_are_read_from_every_file_and_errors_become_failures(server, client):
    folder = "bucket/out/prediction-rain-2026"
    server.objects = {
        f"{folder}/prediction.results-00000-of-00002": line(b"a", prediction=wet(0.25))
        + line(b"b", error={"status": "INVALID_ARGUMENT", "message": "cannot parse"}),
        f"{folder}/prediction.results-00001-of-00002": line(b"c", prediction=wet(0.5)),
        f"{folder}/prediction.errors_stats-00000-of-00001": b'{"error": {"message": "summed up"}, "count": 1}\n',
        f"{folder}/explanation-00000": b"else",
    }
    read = list(read_answers(f"gs://{folder}", CLASSES, client))
    by_example = {
        example: answer.failures.get(row) or answer.scores[row].tolist()
        for examples, answer in read
        for row, example in enumerate(examples)
    }
    assert by_example == {b"a": [0.75, 0.25], b"b": "Vertex AI: cannot parse", b"c": [0.5, 0.5]}


def test_a_folder_without_answers_is_refused(server, client):
    server.objects = {"bucket/out/x/else": b"1"}
    with pytest.raises(PredictionError, match=r"holds no prediction\.results-\*; it holds out/x/else"):
        list(read_answers("gs://bucket/out/x", CLASSES, client))


def test_a_line_that_is_no_answer_is_named():
    lines = [line(b"a", prediction=wet(0.5)), b'{"prediction": [0.5], "instance": [1, 2]}\n']
    with pytest.raises(PredictionError, match=r"^file:2: no answer of a batch prediction job .*\[1, 2\]"):
        list(parse_answers(lines, CLASSES, "file"))


def test_the_answers_of_another_model_are_refused():
    swapped = {"scores": [0.5, 0.5], "classes": ["wet", "dry"]}
    with pytest.raises(PredictionError, match="another model than was pushed"):
        list(parse_answers([line(b"a", prediction=swapped)], CLASSES, "file"))


def test_stored_answers_are_a_model_for_the_rows_that_were_uploaded(tmp_path):
    lines = [
        line(b"a", prediction=wet(0.25)),
        line(b"b", error={"message": "cannot parse"}),
        line(b"a", error={"message": "a machine was lost"}),
        line(b"c", error={"message": "a machine was lost"}),
        line(b"c", prediction=wet(0.5)),
    ]
    model = StoredAnswers.store(
        tmp_path / "answers.sqlite", parse_answers(lines, CLASSES, "file"), len(CLASSES)
    )
    answer = model.answer([b"c", b"missing", b"a", b"b", b"a"])
    np.testing.assert_array_equal(answer.scores[[0, 2, 4]], [[0.5, 0.5], [0.75, 0.25], [0.75, 0.25]])
    assert answer.failures == {
        1: "the batch prediction job has no answer for it",
        3: "Vertex AI: cannot parse",
    }
    model.close()


def test_a_number_s_answer_has_no_name(tmp_path):
    ((examples, answer),) = parse_answers(
        [line(b"a", prediction=[3.5]), line(b"b", prediction=4)][:1], (), "file"
    )
    assert (examples, answer.scores.tolist()) == ([b"a"], [[3.5]])
