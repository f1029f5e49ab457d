"""A whole job by way of Vertex AI on the loopback, whose answers a real SavedModel gives."""

import base64
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from beam_jobs.batch import BatchJob
from beam_jobs.pushed import PushedModel
from cloud.vertex_scoring import VertexBatch, score
from tests.beam_jobs.prediction_service import saved_model
from tests.beam_jobs.pushed_model import chance, push
from tests.cloud.batch_service import serving

MODEL = "projects/my-project/locations/europe-west1/models/77@2"
OUT = "bucket/stage/daily/prediction-rain"


@pytest.fixture
def job(tmp_path):
    push(tmp_path / "serving", with_warm_up=False)
    rows = [f"d{n},{n},{n % 3}" for n in range(40)]
    (tmp_path / "days.csv").write_text("\n".join(["day,humidity,gusts", *rows, "bad,damp,1"]) + "\n")
    pushed = PushedModel.read(str(tmp_path / "serving"))
    return BatchJob(
        pushed, (str(tmp_path / "days.csv"),), str(tmp_path / "out"), job_id="daily", max_bad_fraction=0.1
    )


def read(server):
    """The object that the job submitted last reads."""
    (uri,) = server.submitted[-1]["inputConfig"]["gcsSource"]["uris"]
    return uri.removeprefix("gs://")


@pytest.fixture
def vertex(job):
    """Vertex AI, which answers what was uploaded while the client waits, in another order and without one row."""
    model = saved_model(job.model.folder)
    with serving() as server:

        def work(_seconds):
            lines = [json.loads(line) for line in server.objects[read(server)].splitlines()]
            scores = model([base64.b64decode(line["b64"]) for line in lines])
            answers = [
                {"instance": line, "prediction": {"scores": row, "classes": ["dry", "wet day"]}}
                for line, row in zip(lines, scores, strict=True)
            ]
            text = "".join(json.dumps(answer) + "\n" for answer in answers[:0:-1])
            folder = f"{OUT}-{len(server.submitted)}"
            server.objects[f"{folder}/prediction.results-00000-of-00001"] = text.encode()
            done = {"gcsOutputDirectory": f"gs://{folder}"}
            server.states = [{"state": "JOB_STATE_SUCCEEDED", "outputInfo": done}]

        connection = {
            "api_endpoint": server.endpoint,
            "api_transport": "rest",
            "credentials": AnonymousCredentials(),
        }
        options = {"api_endpoint": server.endpoint}
        client = storage.Client("my-project", AnonymousCredentials(), client_options=options)
        yield (
            server,
            VertexBatch(MODEL, "gs://bucket/stage", connection=connection, storage=client, sleep=work),
        )


def test_answers_of_vertex_are_joined_with_keys_and_rows_without_one_become_dead_letters(job, vertex):
    _, way = vertex
    told: list[str] = []
    summary = score(job, way, told.append)
    assert (summary.rows_read, summary.predicted, summary.dead_letters) == (41, 39, 2)
    rows = pq.read_table(f"{job.output}/daily/predictions").to_pylist()
    assert {row["day"]: row["probability_wet_day"] for row in rows} == {
        f"d{n}": pytest.approx(chance(n, n % 3), abs=1e-6) for n in range(1, 40)
    }
    assert "the batch prediction job has no answer for it" in summary.reasons
    assert told


def test_the_same_rows_again_take_up_the_job_that_scored_them(job, vertex):
    server, way = vertex
    score(job, way, lambda _: None)
    score(job, way, lambda _: None)
    assert len(server.submitted) == 1


def test_other_rows_of_the_same_job_leave_alone_what_an_earlier_job_of_vertex_reads(job, vertex):
    server, way = vertex
    score(job, way, lambda _: None)
    first = read(server)
    content = server.objects[first]
    with Path(job.inputs[0]).open("a") as file:
        file.write("more,1,1\n")
    assert score(job, way, lambda _: None).predicted == 40
    assert read(server) != first
    assert server.objects[first] == content
    one, other = (line["outputConfig"]["gcsDestination"] for line in server.submitted)
    assert one != other
