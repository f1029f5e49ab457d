"""Settings of the training that a run of a compiled pipeline may give."""

import json
from typing import Any

import pytest

from pipeline.components.trainer import Executor, TunerExecutor, with_parameters

TRAIN = {"epochs": 4, "strategy": "auto", "batch_size": 32}


def given(**parameters: Any) -> dict[str, Any]:
    """Execution properties as a container has them."""
    config = {"train": TRAIN, "features": "{}"}
    return {"run_fn": "models.trainer.run_fn", "custom_config": json.dumps(config), **parameters}


def test_what_a_run_gives_lands_where_the_training_looks():
    found = with_parameters(given(home="gs://b/shop", epochs=7, strategy="mirrored"))
    assert set(found) == {"run_fn", "custom_config"}
    assert json.loads(found["custom_config"]) == {
        "train": {"epochs": 7, "strategy": "mirrored", "batch_size": 32},
        "features": "{}",
        "training_folder": "/gcs/b/shop/training",
        "outputs_follow": True,
    }


@pytest.mark.parametrize("parameters", [{}, {"epochs": None, "strategy": ""}])
def test_what_a_run_does_not_give_stays_as_configured(parameters):
    found = json.loads(with_parameters(given(home="/home/shop", **parameters))["custom_config"])
    assert found["train"] == TRAIN
    assert found["training_folder"] == "/home/shop/training"


@pytest.mark.parametrize("executor", [Executor, TunerExecutor])
def test_trainer_and_tuner_work_with_them(executor, monkeypatch):
    seen = []
    monkeypatch.setattr(
        executor.__mro__[1], "Do", lambda *given: seen.append(json.loads(given[3]["custom_config"]))
    )
    properties = given(home="/home/shop", strategy="mirrored")
    executor().Do({}, {}, properties)
    assert seen[0]["train"]["strategy"] == "mirrored"
    assert properties == given(home="/home/shop", strategy="mirrored"), "left as they were"
