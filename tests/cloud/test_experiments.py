"""The real client library against a Vertex AI on the loopback: what reaches the wire, and what errors say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import aiplatform

from cloud.experiments import Destination, ExperimentError, log, metrics, parameters
from gates.evidence import Estimate
from report.comparison import ComparedRun, Training
from report.page import Epoch
from tests.cloud.vertex_service import VertexService, serving

HERE = Destination.parse("my-project/europe-west1/late")
RUN = ComparedRun(
    "20260101T000000-AB12",
    "/out/runs/20260101T000000-AB12",
    "flights",
    "2026-01-01T00:00:00+00:00",
    "succeeded",
    "pushed as version 1",
    parameters={"train.epochs": 3, "train.tpu": None, "model.wide": True, "model.hidden_units": [64, 32]},
    fingerprint="f00d",
    estimates=(Estimate("model", "auc", 0.7, 0.65, 0.75, 50),),
    metrics={"auc": 0.71, "recall": math.nan},
    model_bytes=10,
)


@pytest.fixture
def server():
    with serving() as served:
        yield served


def logged(server: VertexService, *runs: ComparedRun, to: Destination = HERE) -> list[str]:
    connection = {
        "api_endpoint": server.endpoint,
        "api_transport": "rest",
        "credentials": AnonymousCredentials(),
    }
    return list(log(runs, to, connection))


def test_a_run_becomes_one_of_the_experiment_with_parameters_metrics_and_state(server):
    assert logged(server, RUN) == [
        f"Vertex AI Experiments: {RUN.run_id} logged to my-project/europe-west1/late"
    ]
    stored = server.metadata("late-20260101t000000-ab12")
    assert stored["_params"] == {
        "pipeline": "flights",
        "data_fingerprint": "f00d",
        "train.epochs": 3,
        "model.wide": True,
        "model.hidden_units": "[64, 32]",
    }
    assert stored["_metrics"] == {"auc": 0.7, "auc_low": 0.65, "auc_high": 0.75, "model_bytes": 10}
    assert stored["_state"] == "COMPLETE"
    ((method, parent, body),) = server.calls
    assert (method, parent.rpartition("/")[2]) == ("addContextChildren", "late")
    assert [child.rpartition("/")[2] for child in body["childContexts"]] == ["late-20260101t000000-ab12"]


def test_a_run_that_is_there_already_gets_its_values_anew_and_stays_one(server):
    logged(server, RUN)
    told = logged(server, replace(RUN, state="failed", metrics={"recall": 0.5}))
    assert told == [f"Vertex AI Experiments: {RUN.run_id} logged again to my-project/europe-west1/late"]
    stored = server.metadata("late-20260101t000000-ab12")
    assert stored["_metrics"]["recall"] == 0.5
    assert stored["_state"] == "FAILED"
    assert len(server.calls) == 1


def test_curves_go_to_the_tensorboard_that_is_named(server):
    board = "projects/my-project/locations/europe-west1/tensorboards/7"
    server.resources[board] = {"name": board}
    epochs = (Epoch(1, {"val_auc": 0.6}), Epoch(2, {"val_auc": 0.7}, is_kept=True))
    training = Training(epochs, "val_auc", 3.0, 17, 100)
    logged(server, replace(RUN, training=training), to=replace(HERE, tensorboard=board))
    written = [
        (value["step"], value["scalar"]["value"])
        for method, _, body in server.calls
        if method.startswith("write")
        for series in body["timeSeriesData"]
        for value in series["values"]
    ]
    assert written == [("1", 0.6), ("2", 0.7)]


def test_a_lacking_permission_is_one_line_that_names_the_destination(server):
    server.refusal = (403, "PERMISSION_DENIED", "Permission 'aiplatform.contexts.get' denied")
    with pytest.raises(ExperimentError, match=r"aiplatform\.contexts\.get") as raised:
        logged(server, RUN)
    assert str(raised.value).startswith("my-project/europe-west1/late: not allowed: ")
    assert len(str(raised.value).splitlines()) == 1


def test_lacking_credentials_are_one_line_that_says_how_to_get_them(monkeypatch):
    def nobody(*_, **__):
        raise DefaultCredentialsError("Your default credentials were not found.\nSee the documentation.")

    monkeypatch.setattr("google.auth.default", nobody)
    monkeypatch.setattr(aiplatform.initializer.global_config, "_credentials", None)
    with pytest.raises(ExperimentError, match="gcloud auth application-default login") as raised:
        list(log([RUN], HERE))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["late", "my-project/europe-west1", "a//late", "a/b/c/d", "a/b/Late"])
def test_a_destination_of_another_form_is_refused(text):
    with pytest.raises(ExperimentError, match=text):
        Destination.parse(text)


def test_what_has_no_value_is_not_logged():
    assert "train.tpu" not in parameters(RUN)
    assert "recall" not in metrics(RUN)
