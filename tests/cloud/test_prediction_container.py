"""The contract with Vertex AI: what the registry says is what the server reads."""

import pytest
from google.cloud.aiplatform_v1 import ModelContainerSpec

from beam_jobs.rows import PredictionError
from cloud.prediction_container import Container, container_spec

STORED = {"AIP_STORAGE_URI": "gs://caip-tenant-1/models/7/"}


def test_what_the_registry_is_told_is_what_the_service_understands_and_the_server_takes():
    spec = ModelContainerSpec(container_spec("europe-docker.pkg.dev/p/r/i@sha256:" + "0" * 64))
    told = {
        **STORED,
        "AIP_HTTP_PORT": str(spec.ports[0].container_port),
        "AIP_HEALTH_ROUTE": spec.health_route,
        "AIP_PREDICT_ROUTE": spec.predict_route,
        "AIP_MODE": "PREDICTION",
    }
    assert Container.of(told) == Container("gs://caip-tenant-1/models/7", 8080, "/health", "/predict")
    assert list(spec.command) == ["python", "-m", "cloud.prediction_server"]


def test_the_service_may_choose_port_and_routes():
    told = {**STORED, "AIP_HTTP_PORT": "80", "AIP_HEALTH_ROUTE": "/v1/endpoints/5/deployedModels/6"}
    found = Container.of(told)
    assert (found.port, found.health_route) == (80, "/v1/endpoints/5/deployedModels/6")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "AIP_STORAGE_URI: not set; upload the model with an artifact URI"),
        ({**STORED, "AIP_HTTP_PORT": "http"}, "AIP_HTTP_PORT=http: want the number of a port"),
        ({**STORED, "AIP_PREDICT_ROUTE": "predict"}, "AIP_PREDICT_ROUTE=predict: want a path"),
        ({**STORED, "AIP_MODE": "TRAINING"}, "AIP_MODE=TRAINING: this container answers rows"),
    ],
)
def test_what_the_server_cannot_do_is_named(told, message):
    with pytest.raises(PredictionError, match=message):
        Container.of(told)
