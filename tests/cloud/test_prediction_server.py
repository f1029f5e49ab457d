"""The prediction server over real HTTP: its answers, its refusals, and the process that a container runs."""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial

import pyarrow.parquet as pq
import pytest
import requests
from werkzeug.serving import make_server

from beam_jobs import batch
from beam_jobs.decoding import Decoder
from beam_jobs.endpoint import EndpointModel, EndpointSettings
from beam_jobs.pushed import PushedModel
from beam_jobs.rows import Batch, PredictionError
from cloud.prediction_container import LARGEST_REQUEST_BYTES, Container
from cloud.prediction_server import Loading, application, load
from tests.beam_jobs.pushed_model import NUMBERS, chance, push

ROWS = [
    {"day": "monday", "humidity": 40.25, "gusts": 3, "place": "sea"},
    {"day": "tuesday", "humidity": 71, "gusts": None, "hour": 12},
    {"day": "wednesday", "humidity": 1e-3},
]


@contextmanager
def listening(container, loading):
    server = make_server("127.0.0.1", 0, application(container, loading), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving_version(folder, tmp_path):
    container = Container(str(folder))
    loading = Loading(partial(load, container, tmp_path), lambda: None)
    with listening(container, loading) as url:
        loading.start()
        while requests.get(f"{url}/health", timeout=5).status_code != 200:
            time.sleep(0.01)
        yield url


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    version = push(folder / "serving", 7, threshold=0.6)
    with serving_version(version, folder) as url:
        yield url, version


def predict(served, body):
    return ask(f"{served[0]}/predict", body)


def ask(url, body):
    return requests.post(url, json=body, timeout=30)


def test_rows_get_the_answers_of_a_batch_job_bit_for_bit(served, tmp_path):
    answer = predict(served, {"instances": ROWS})
    assert answer.status_code == 200
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "days.jsonl").write_text(lines)
    job = batch.BatchJob(
        PushedModel.read(str(served[1])),
        (str(tmp_path / "days.jsonl"),),
        str(tmp_path / "out"),
        job_id="days",
    )
    batch.run(job)
    expected = pq.read_table(tmp_path / "out/days/predictions").to_pylist()
    found = answer.json()["predictions"]
    for rows in (expected, found):
        for row in rows:
            assert row.pop("predicted_at")
    assert found == expected
    assert [row["prediction"] for row in found] == ["wet day", "wet day", "dry"]
    assert found[0]["model_version"] == 7


def test_a_row_needs_no_key(served):
    (found,) = predict(served, {"instances": [{"humidity": 40.25, "gusts": 3}]}).json()["predictions"]
    assert found["day"] is None
    assert found["probability_wet_day"] == pytest.approx(chance(40.25, 3))


def test_bad_instances_refuse_the_request_and_are_all_named(served):
    bad = [ROWS[0], {"humidity": "damp"}, {"gusts": 1}, 5, {"humidity": 1, "gusts": 1.5}]
    answer = predict(served, {"instances": bad})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["faults"] == [
        {"instance": 1, "error": "humidity is 'damp', not a number"},
        {"instance": 2, "error": "misses humidity, which the model requires"},
        {"instance": 3, "error": "is 5, not an object of columns"},
        {"instance": 4, "error": "gusts is 1.5, not a whole number"},
    ]
    assert error["message"].startswith(
        "4 of 5 instances cannot be predicted: instances[1] humidity is 'damp', not a number; instances[2]"
    )


def test_who_asks_for_it_gets_the_other_answers_and_faults_in_their_places(served):
    body = {"instances": [{"humidity": "damp"}, ROWS[0]], "parameters": {"bad_rows": "answer"}}
    first, second = predict(served, body).json()["predictions"]
    assert first == {"error": "humidity is 'damp', not a number"}
    assert second["day"] == "monday"


def test_examples_get_the_models_own_answers_so_jobs_that_ask_an_endpoint_are_exact(served):
    url, version = served
    pushed = PushedModel.read(str(version))
    names = {name: [row.get(name) for row in ROWS] for name in ("day", "humidity", "gusts", "place")}
    decoded, _ = Decoder(pushed).decode(Batch("here", range(1, 4), names))
    assert decoded is not None
    way = EndpointModel(EndpointSettings(f"{url}/predict"), pushed.features.label.classes)
    assert (way.answer(decoded.examples).scores == pushed.load().predict(decoded.examples)).all()
    way.close()
    broken = [{"b64": "%"}, {"b64": base64.b64encode(b"no example").decode()}, {"b64": ""}]
    answer = predict(served, {"instances": broken, "parameters": {"bad_rows": "answer"}}).json()
    assert [sorted(one) for one in answer["predictions"]] == [["error"], ["error"], ["classes", "scores"]]
    assert predict(served, {"instances": [{"b64": ""}, ROWS[0]]}).status_code == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request is not JSON"),
        (b"[" * 100_000, "the request is not JSON"),
        (b"[]", "the request has no instances"),
        (b'{"instances": []}', "the request has no instances"),
        (b'{"instances": [{}], "parameters": {"threshold": 1}}', "bad_rows is the only one"),
        (b'{"instances": [{}], "parameters": {"bad_rows": "skip"}}', "want refuse or answer"),
    ],
)
def test_a_request_that_is_none_is_told_so(served, body, message):
    answer = requests.post(f"{served[0]}/predict", data=body, timeout=30)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_other_pages_and_requests_that_are_too_large_are_refused(served):
    assert requests.get(f"{served[0]}/", timeout=5).status_code == 404
    assert "error" in requests.get(f"{served[0]}/predict", timeout=5).json()
    large = b" " * (LARGEST_REQUEST_BYTES + 1)
    assert requests.post(f"{served[0]}/predict", data=large, timeout=30).status_code == 413


def test_a_model_of_numbers_answers_numbers(tmp_path):
    with serving_version(push(tmp_path / "serving", features=NUMBERS, threshold=None), tmp_path) as url:
        (row,) = predict((url,), {"instances": [{"humidity": 50, "gusts": 1}]}).json()["predictions"]
        (raw,) = predict((url,), {"instances": [{"b64": ""}]}).json()["predictions"]
    assert row["prediction"] == pytest.approx(0.6)
    assert raw == {"prediction": 0.0}


def test_nothing_is_answered_before_the_model_is_loaded_and_one_that_cannot_be_ends_the_container(tmp_path):
    given_up = threading.Event()
    may_go_on = threading.Event()

    def no_model():
        may_go_on.wait(20)
        raise PredictionError("no model")

    container = Container(str(tmp_path))
    loading = Loading(no_model, given_up.set)
    with listening(container, loading) as url:
        loading.start()
        assert requests.get(f"{url}/health", timeout=5).status_code == 503
        assert requests.post(f"{url}/predict", json={"instances": [{}]}, timeout=5).status_code == 503
        may_go_on.set()
        assert given_up.wait(20)


def test_a_version_in_a_bucket_is_copied_and_checked(storage, tmp_path):
    version = push(tmp_path / "serving", with_warm_up=False)
    bucket = storage.bucket("my-bucket")
    for path in version.rglob("*"):
        if path.is_file():
            bucket.blob(f"models/1/{path.relative_to(version)}").upload_from_filename(str(path))
    container = Container("gs://my-bucket/models/1")
    answering = load(container, tmp_path / "copy", storage)
    (found,) = answering.answer({"instances": [{"humidity": 40}]})["predictions"]
    assert found["probability_wet_day"] == pytest.approx(chance(40))
    bucket.blob("models/1/saved_model.pb").upload_from_string(b"other")
    with pytest.raises(PredictionError, match=r"saved_model\.pb missing or not what was pushed"):
        load(container, tmp_path / "again", storage)
    with pytest.raises(PredictionError, match="no pushed model here"):
        load(Container("gs://my-bucket/models/2"), tmp_path / "none", storage)


@contextmanager
def process(**told):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "AIP_HTTP_PORT": str(port), **told}
    command = [sys.executable, "-m", "cloud.prediction_server"]
    started = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield started, f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        started.communicate(timeout=30)


def test_the_containers_process_serves_and_one_without_a_model_ends(tmp_path):
    version = push(tmp_path / "serving")
    with process(AIP_STORAGE_URI=str(version), AIP_PREDICT_ROUTE="/ask") as (started, url):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and started.poll() is None:
            try:
                if requests.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            except requests.ConnectionError:
                time.sleep(0.1)
        (found,) = ask(f"{url}/ask", {"instances": ROWS[:1]}).json()["predictions"]
    assert found["day"] == "monday"
    with process(AIP_STORAGE_URI=str(tmp_path / "nothing")) as (started, _):
        _, said = started.communicate(timeout=120)
        assert started.returncode != 0
    assert "no pushed model here" in said
