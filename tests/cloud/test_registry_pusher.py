"""RegistryPusher as a component: what it compiles to, what it sends, and what it only writes down in a rehearsal."""

from __future__ import annotations

import json

import pytest
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
    KubeflowV2DagRunner,
    KubeflowV2DagRunnerConfig,
)
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from cloud.registry_pusher import ENDPOINT, REGISTERED, REQUESTS, Executor, RegistryPusher
from cloud.vertex_api import RegistryError, Vertex
from cloud.vertex_pipelines import Target
from pipeline.components.gate_output import GateVerdict
from pipeline.container import REHEARSAL
from pipeline.push import DESTINATION
from tests.cloud.model_service import serving
from tests.cloud.test_model_registry import EVIDENCE, IMAGE, pushed

PLACE = "projects/my-project/locations/europe-west1"
PARAMETERS = {
    "settings": json.dumps(
        {
            "model": "rain",
            "endpoint": "rain",
            "aliases": ["champion"],
            "service_account": "server@my-project.iam.gserviceaccount.com",
        }
    ),
    "project": "my-project",
    "region": "europe-west1",
    "image": IMAGE,
    "labels": json.dumps({"team": "weather"}),
    "source_digest": "abc",
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
def registered(tmp_path):
    """Has the executor register a pushed version; gives the artifact that it leaves."""
    pushed(tmp_path)
    model, verdict, made = standard_artifacts.PushedModel(), GateVerdict(), standard_artifacts.PushedModel()
    model.set_string_custom_property(DESTINATION, str(tmp_path / "serving" / "1"))
    verdict.uri = str(tmp_path)
    made.uri = str(tmp_path / "made")
    (tmp_path / "evidence.json").write_text(json.dumps(EVIDENCE))

    def run(**parameters):
        given = {"pushed_model": [model], "verdict": [verdict]}
        Executor().Do(given, {REGISTERED: [made]}, {**PARAMETERS, **parameters})
        return made

    return run


@pytest.fixture
def reached(server, monkeypatch):
    """Sends what the executor asks to the loopback, for a version that lies in a bucket."""
    api = Vertex(Target("my-project", "europe-west1", server.endpoint), poll_seconds=0.01)
    monkeypatch.setattr(Executor, "_api", lambda *_: api)
    monkeypatch.setattr("cloud.model_registry.uri_of", lambda path: f"gs://my-bucket/{path.strip('/')}")


def requests_of(artifact):
    with open(f"{artifact.uri}/{REQUESTS}") as file:  # noqa: PTH123
        return json.load(file)


def test_it_compiles_for_vertex_with_its_parameters_and_the_artifact_it_leaves(tmp_path):
    model = Importer("gs://b/pushed", standard_artifacts.PushedModel).with_id("Pushed")
    pusher = RegistryPusher(model.outputs["result"], **PARAMETERS)
    file = tmp_path / "spec.json"
    runner = KubeflowV2DagRunner(
        KubeflowV2DagRunnerConfig(default_image=IMAGE, use_pipeline_spec_2_1=True), str(tmp_path), file.name
    )
    runner.run(Pipeline("rain", "gs://b/root", components=[model, pusher]), write_out=True)
    spec = json.loads(file.read_text())["pipelineSpec"]
    component = spec["components"]["RegistryPusher"]
    assert component["outputDefinitions"]["artifacts"].keys() == {REGISTERED}
    parameters = spec["root"]["dag"]["tasks"]["RegistryPusher"]["inputs"]["parameters"]
    assert parameters["settings"]["runtimeValue"]["constant"] == PARAMETERS["settings"]
    assert "kms_key" not in parameters
    arguments = spec["deploymentSpec"]["executors"]["RegistryPusher_executor"]["container"]["args"]
    assert "cloud.registry_pusher.Executor" in arguments


def test_it_registers_evaluates_names_and_deploys_and_leaves_what_it_sent(server, reached, registered):
    made = registered(kms_key="projects/p/locations/l/keyRings/r/cryptoKeys/k")
    assert made.get_string_custom_property(REGISTERED) == f"{PLACE}/models/rain@1"
    assert made.get_string_custom_property(ENDPOINT) == f"{PLACE}/endpoints/rain"
    (model,) = server.models[f"{PLACE}/models/rain"]
    assert model["labels"]["team"] == "weather"
    assert model["encryptionSpec"]["kmsKeyName"].endswith("/k")
    assert sorted(model["versionAliases"]) == ["champion", "default"]
    kept = requests_of(made)
    assert kept["sent"] is True
    assert [call["method"] for call in kept["calls"]] == [
        "upload_model",
        "import_model_evaluation",
        "batch_import_model_evaluation_slices",
        "merge_version_aliases",
        "create_endpoint",
        "deploy_model",
    ]
    model = kept["calls"][-1]["request"]["deployedModel"]
    assert model["serviceAccount"] == "server@my-project.iam.gserviceaccount.com"
    sent = len(server.changes)
    registered()
    assert len(server.changes) == sent


def test_a_rehearsal_writes_down_what_would_be_sent_and_sends_nothing(
    server, registered, monkeypatch, reached, tmp_path
):
    made = registered()
    live = requests_of(made)["calls"]
    monkeypatch.undo()
    server.clear()
    monkeypatch.setenv(REHEARSAL, "1")
    registered()
    found = requests_of(made)
    assert found["sent"] is False
    local = json.dumps(found["calls"]).replace(str(tmp_path), f"gs://my-bucket{tmp_path}")
    assert json.loads(local) == live
    assert server.calls == []


def test_what_was_sent_before_a_refusal_is_kept_too(server, reached, registered, tmp_path):
    server.refusals["POST"] = [(403, "PERMISSION_DENIED", "no upload")]
    with pytest.raises(RegistryError, match=r"model rain: not allowed: no upload; .*roles/aiplatform\.user"):
        registered()
    kept = json.loads((tmp_path / "made" / REQUESTS).read_text())
    assert [call["method"] for call in kept["calls"]] == ["upload_model"]


def test_without_an_endpoint_it_only_registers(server, reached, registered):
    registered(settings='{"model": "rain"}')
    assert server.endpoints == {}
    assert [name for name, _ in server.changes] == [
        "models:upload",
        "evaluations:import",
        "slices:batchImport",
    ]
