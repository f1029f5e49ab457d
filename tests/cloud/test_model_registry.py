"""The real client library against a Model Registry on the loopback: what is sent, and what comes of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from cloud import model_evaluation
from cloud.model_registry import Upload, choose, label_value, read, register, versions
from cloud.vertex_api import RegistryError, Rehearsal, Vertex
from cloud.vertex_pipelines import Target
from pipeline.environment import RegistrySettings
from tests.cloud.model_service import serving

PLACE = "projects/my-project/locations/europe-west1"
MODEL = f"{PLACE}/models/rain"
IMAGE = "europe-west1-docker.pkg.dev/my-project/repo/headworks@sha256:" + "ab" * 32
KEY = f"{PLACE}/keyRings/ring/cryptoKeys/key"
UPLOAD = Upload(RegistrySettings("rain", aliases=("champion", "newest")), IMAGE, {"team": "weather"}, KEY)
EVIDENCE = {
    "kind": "binary",
    "classes": ["dry", "wet day"],
    "threshold": 0.4,
    "estimates": [
        {"subject": "model", "metric": "auc", "value": 0.75, "slice": ""},
        {"subject": "model", "metric": "log_loss", "value": 0.5, "slice": ""},
        {"subject": "model", "metric": "brier", "value": 0.2, "slice": ""},
        {"subject": "majority", "metric": "auc", "value": 0.5, "slice": ""},
        {"subject": "model", "metric": "auc", "value": 0.625, "slice": "place = sea"},
        {"subject": "model", "metric": "auc", "value": float("nan"), "slice": "place = hill"},
        {"subject": "model", "metric": "auc", "value": 0.6, "slice": "place = sea, hour = 2"},
    ],
    "confusion": [
        {
            "threshold": 0.4,
            "true_positives": 6,
            "false_positives": 2,
            "true_negatives": 8,
            "false_negatives": 4,
        },
        {
            "threshold": 0.9,
            "true_positives": 0,
            "false_positives": 0,
            "true_negatives": 10,
            "false_negatives": 10,
        },
    ],
    "confusion_matrix": [],
}


@pytest.fixture(scope="module")
def service():
    with serving() as served:
        yield served


@pytest.fixture
def server(service):
    service.clear()
    return service


@pytest.fixture
def api(server):
    target = Target("my-project", "europe-west1", server.endpoint)
    return Vertex(target, poll_seconds=0.01, sleep=lambda _: None)


def pushed(tmp_path, version=1, content="first", **facts):
    """A version folder with the manifest of a push; nothing here loads its model."""
    folder = tmp_path / "serving" / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    features = [{"name": "humidity", "dtype": "float", "kind": "numeric", "is_required": True}]
    label = {"name": "rain", "dtype": "bytes", "kind": "binary", "classes": ["dry", "wet day"]}
    manifest = {
        "version": version,
        "pipeline": "Rain of Summer",
        "run_id": "20260101T000000-AB12",
        "config_hash": "c" * 64,
        "data_fingerprint": "d" * 64,
        "git_revision": "e" * 40 + "-dirty",
        "rows": {
            "features": {"features": features, "label": label},
            "columns": {"humidity": "float"},
            "key": [],
            "null_values": [""],
        },
        "files": {"saved_model.pb": {"sha256": content}},
        **facts,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return replace(read(str(folder)), uri=f"gs://bucket/rain/serving/{version}")


@pytest.fixture
def evaluation(tmp_path):
    (tmp_path / "evidence.json").write_text(json.dumps(EVIDENCE))
    return model_evaluation.read(tmp_path)


def test_the_first_version_makes_the_model_and_says_where_it_comes_from(server, api, tmp_path):
    candidate = pushed(tmp_path)
    registered = register(api, candidate, UPLOAD)
    (method, body), (moved, aliases) = server.changes
    assert (method, moved) == ("models:upload", "rain@1:mergeVersionAliases")
    assert body == {
        "modelId": "rain",
        "model": {
            "displayName": "rain",
            "versionDescription": "version 1 of Rain of Summer, run 20260101T000000-AB12",
            "artifactUri": "gs://bucket/rain/serving/1",
            "encryptionSpec": {"kmsKeyName": KEY},
            "labels": {
                "team": "weather",
                "headworks-pipeline": "rain-of-summer",
                "headworks-version": "1",
                "headworks-content": candidate.content,
                "headworks-run": "20260101t000000-ab12",
                "headworks-config": "c" * 32,
                "headworks-data": "d" * 32,
                "headworks-revision": "e" * 40 + "-dirty",
            },
            "containerSpec": {
                "imageUri": IMAGE,
                "command": ["python", "-m", "cloud.prediction_server"],
                "env": [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "2"}],
                "ports": [{"containerPort": 8080}],
                "predictRoute": "/predict",
                "healthRoute": "/health",
            },
        },
    }
    assert aliases == {"versionAliases": ["champion", "newest"]}
    assert registered.resource == f"{MODEL}@1"


def test_later_versions_join_the_model_and_take_the_aliases_but_not_default(server, api, tmp_path):
    register(api, pushed(tmp_path), UPLOAD)
    told: list[str] = []
    second = register(api, pushed(tmp_path, 2, "second"), UPLOAD, tell=told.append)
    _, body = server.changes[2]
    assert body["parentModel"] == MODEL
    assert "modelId" not in body
    assert second.version == "2"
    assert [one.aliases for one in versions(api, "rain")] == [("default",), ("champion", "newest")]
    assert told == [
        f"registered: {MODEL}@2: version 2 of Rain of Summer",
        "aliases: champion, newest moved to version 2",
    ]


def test_default_moves_where_the_settings_say_so(api, tmp_path):
    upload = replace(UPLOAD, settings=RegistrySettings("rain", aliases=("default",)))
    register(api, pushed(tmp_path), upload)
    register(api, pushed(tmp_path, 2, "second"), upload)
    assert [one.aliases for one in versions(api, "rain")] == [(), ("default",)]


def test_the_same_version_is_found_not_uploaded_again_and_another_of_its_number_is_not_it(
    server, api, tmp_path
):
    register(api, pushed(tmp_path), UPLOAD)
    sent = len(server.changes)
    assert register(api, pushed(tmp_path), UPLOAD).version == "1"
    assert len(server.changes) == sent
    assert register(api, pushed(tmp_path, 1, "emptied folder, other model"), UPLOAD).version == "2"


def test_a_version_registered_again_takes_no_alias_from_a_later_one(server, api, tmp_path):
    register(api, pushed(tmp_path), UPLOAD)
    register(api, pushed(tmp_path, 2, "second"), UPLOAD)
    told: list[str] = []
    register(api, pushed(tmp_path), UPLOAD, tell=told.append)
    assert told[-1] == "aliases: champion, newest stay where they are, for version 2 is newer"
    assert [one.aliases for one in versions(api, "rain")] == [("default",), ("champion", "newest")]


def test_an_upload_that_broke_off_is_finished_the_next_time(server, api, tmp_path, evaluation):
    server.refusals["POST"] = [(503, "UNAVAILABLE", "try later")]
    with pytest.raises(RegistryError, match="model rain: the service failed: try later; run the same again"):
        register(api, pushed(tmp_path), UPLOAD, evaluation)
    server.refusals["POST"] = []
    register(api, pushed(tmp_path), replace(UPLOAD, settings=RegistrySettings("rain")))
    register(api, pushed(tmp_path), UPLOAD, evaluation)
    assert len(server.models[MODEL]) == 1
    assert [name for name, _ in server.changes[-3:]] == [
        "evaluations:import",
        "slices:batchImport",
        "rain@1:mergeVersionAliases",
    ]


def test_the_figures_of_the_model_gate_become_the_evaluation_once(server, api, tmp_path, evaluation):
    register(api, pushed(tmp_path), UPLOAD, evaluation)
    register(api, pushed(tmp_path), UPLOAD, evaluation)
    imported = [body for name, body in server.changes if name == "evaluations:import"]
    assert len(imported) == 1
    found = imported[0]["modelEvaluation"]
    assert found["displayName"] == "run 20260101T000000-AB12"
    assert found["metricsSchemaUri"] == (
        "gs://google-cloud-aiplatform/schema/modelevaluation/classification_metrics_1.0.0.yaml"
    )
    metrics = found["metrics"]
    assert (metrics["auRoc"], metrics["logLoss"], "brier" in metrics) == (0.75, 0.5, False)
    assert metrics["confusionMatrix"] == {
        "annotationSpecs": [{"id": "0", "displayName": "dry"}, {"id": "1", "displayName": "wet day"}],
        "rows": [[8, 2], [4, 6]],
    }
    at_threshold, none_positive = metrics["confidenceMetrics"]
    assert at_threshold["confidenceThreshold"] == 0.4
    assert (at_threshold["precision"], at_threshold["recall"]) == (0.75, 0.6)
    assert "precision" not in none_positive
    ((_, slices),) = [sent for sent in server.changes if sent[0] == "slices:batchImport"]
    sea = slices["modelEvaluationSlices"][0]
    assert sea["slice"]["sliceSpec"] == {"configs": {"place": {"value": {"stringValue": "sea"}}}}
    assert sea["metrics"] == {"auRoc": 0.625}
    assert len(slices["modelEvaluationSlices"]) == 1


def test_a_regressions_squared_error_is_its_root_in_the_registry(tmp_path):
    estimates = [{"subject": "model", "metric": "mean_squared_error", "value": 9.0, "slice": ""}]
    text = json.dumps({"kind": "regression", "classes": [], "estimates": estimates})
    (tmp_path / "evidence.json").write_text(text)
    found = model_evaluation.read(tmp_path / "evidence.json")
    assert found.metrics == {"rootMeanSquaredError": 3.0}
    assert found.schema_uri.endswith("/regression_metrics_1.0.0.yaml")


def test_figures_that_are_none_are_named(tmp_path):
    with pytest.raises(
        RegistryError, match=r"nothing\.json: cannot be read: .*; name a verdict of ModelGate"
    ):
        model_evaluation.read(tmp_path / "nothing.json")
    (tmp_path / "evidence.json").write_text('{"rows": 3}')
    with pytest.raises(RegistryError, match="no figures of a model gate"):
        model_evaluation.read(tmp_path)


def test_what_takes_long_is_awaited_and_its_failure_told(server, api, tmp_path):
    server.looks = 3
    assert register(api, pushed(tmp_path), UPLOAD).version == "1"
    server.failure = {"code": 9, "message": "the image cannot be pulled"}
    with pytest.raises(RegistryError, match=r"model rain: .*the image cannot be pulled") as raised:
        register(api, pushed(tmp_path, 2, "second"), UPLOAD)
    assert "\n" not in str(raised.value)


def test_what_takes_too_long_goes_on_without_us(server, api, tmp_path):
    server.looks = 1_000_000
    hurried = Vertex(
        Target("my-project", "europe-west1", server.endpoint), wait_seconds=0.05, poll_seconds=0.01
    )
    with pytest.raises(RegistryError, match=r"model rain: not done after 0\.05 s; .*operations/1 goes on"):
        register(hurried, pushed(tmp_path), UPLOAD)
    assert register(api, pushed(tmp_path), UPLOAD).version == "1"


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        (403, "PERMISSION_DENIED", r"not allowed: .*roles/aiplatform\.user"),
        (409, "ALREADY_EXISTS", "in conflict: .*run the same again"),
        (429, "RESOURCE_EXHAUSTED", "a quota is used up: .*ask for more"),
        (400, "INVALID_ARGUMENT", "not accepted: The service says no"),
    ],
)
def test_a_refusal_is_one_sentence(server, api, tmp_path, code, status, message):
    server.refusals["POST"] = [(code, status, "The service says no.")]
    with pytest.raises(RegistryError, match=message) as raised:
        register(api, pushed(tmp_path), UPLOAD)
    assert "\n" not in str(raised.value)
    assert server.models == {}


def test_reading_is_tried_again(server, api):
    server.refusals["GET"] = [(503, "UNAVAILABLE", "busy"), (429, "RESOURCE_EXHAUSTED", "busy")]
    assert versions(api, "rain") == []


def test_a_rehearsal_notes_what_a_first_upload_sends_and_sends_nothing(server, api, tmp_path, evaluation):
    rehearsal = Rehearsal(Target("my-project", "europe-west1"))
    register(rehearsal, pushed(tmp_path), UPLOAD, evaluation)
    register(api, pushed(tmp_path), UPLOAD, evaluation)
    assert [call.method for call in rehearsal.calls] == [call.method for call in api.calls]
    for noted, (_, sent) in zip(rehearsal.calls, server.changes, strict=True):
        in_path = {name: noted.request[name] for name in ("parent", "name") if name in noted.request}
        assert {**in_path, **sent} == noted.request


def test_a_version_that_the_service_cannot_read_is_refused_before_it_is_sent(server, api, tmp_path):
    local = replace(pushed(tmp_path), uri=str(tmp_path))
    with pytest.raises(RegistryError, match="Vertex AI reads models from gs://BUCKET/FOLDER"):
        register(api, local, UPLOAD)
    assert server.calls == []
    shutil.rmtree(tmp_path / "serving")
    with pytest.raises(RegistryError, match="no pushed model here"):
        read(str(tmp_path / "serving"))


def test_versions_go_by_number_or_alias(api, tmp_path):
    with pytest.raises(RegistryError, match="model rain: not in the registry; upload a version first"):
        choose(versions(api, "rain"), "rain", None)
    register(api, pushed(tmp_path), UPLOAD)
    register(api, pushed(tmp_path, 2, "second"), UPLOAD)
    known = versions(api, "rain")
    assert [choose(known, "rain", name).version for name in (None, "1", "champion", "default")] == list(
        "2121"
    )
    with pytest.raises(RegistryError, match="no version 7; there are 1 default, 2 champion newest"):
        choose(known, "rain", "7")


def test_an_alias_that_the_service_would_refuse_is_named():
    with pytest.raises(RegistryError, match=r"registry\.aliases: 'The Best' is no alias"):
        replace(UPLOAD, settings=RegistrySettings("rain", aliases=("The Best",)))


def test_any_text_makes_a_label():
    assert label_value("Zürich/2026:Ä") == "z-rich-2026--"
    assert len(label_value("a" * 99)) == 63
