"""What TensorBoard's HParams plugin makes of the logs: asked of the plugin itself, not read from our files."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from tensorboard import program

from models.settings import NetworkSettings, TrainSettings
from models.tracking import hparams_callback, hyperparameters

EXPERIMENT = "/data/plugin/hparams/experiment"
GROUPS = "/data/plugin/hparams/session_groups"


def train(logs: Path, settings: TrainSettings) -> None:
    """Trains as the Trainer does: TensorBoard's own callback and ours write into one folder."""
    network = tf_keras.Sequential([tf_keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    x, y = np.zeros((8, 2), np.float32), np.zeros((8, 1), np.float32)
    network.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=2,
        verbose=0,
        callbacks=[
            tf_keras.callbacks.TensorBoard(str(logs), write_graph=False),
            hparams_callback(NetworkSettings(), settings, logs),
        ],
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real TensorBoard on the loopback over links to trainings, as `headworks compare` makes them."""
    root = tmp_path_factory.mktemp("logs")
    train(root / "7", TrainSettings(batch_size=256))
    for _ in range(2):  # The second training is the first one going on.
        train(root / "8", TrainSettings(batch_size=512, epoch_rows=1000))
    train(root / "9", TrainSettings(batch_size=256))
    linked = tmp_path_factory.mktemp("linked")
    (linked / "first").symlink_to(root / "7")
    (linked / "second").symlink_to(root / "8")
    (linked / "first again").symlink_to(root / "9")
    board = program.TensorBoard()
    board.configure(logdir=str(linked), load_fast="false", reload_interval=1, host="127.0.0.1", port=0)
    return board.launch().rstrip("/")


def ask(server: str, path: str, question: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        server + path, json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def loaded(server: str) -> dict[str, Any]:
    """What the plugin knows, once the server has read all logs in its own time."""
    for _ in range(120):
        experiment = ask(server, EXPERIMENT, {"experimentName": "", "includeMetrics": True})
        if len(experiment.get("metricInfos", ())) >= 3 and experiment["hparamInfos"]:
            return experiment
        time.sleep(0.25)
    pytest.fail(f"TensorBoard has not read the logs in 30 s: {experiment}")


def test_each_training_is_a_session_with_its_settings_and_the_metrics_beside_them(server):
    experiment = loaded(server)
    names = {info["name"]: info["type"] for info in experiment["hparamInfos"]}
    assert names["train.batch_size"] == "DATA_TYPE_FLOAT64"
    assert names["train.schedule"] == "DATA_TYPE_STRING"
    assert names["model.wide"] == "DATA_TYPE_BOOL"
    metrics = [info["name"] for info in experiment["metricInfos"]]
    assert {"group": "validation", "tag": "epoch_loss"} in metrics
    found = ask(
        server,
        GROUPS,
        {
            "experimentName": "",
            "allowedStatuses": ["STATUS_SUCCESS"],
            "colParams": [
                {"metric": {"group": "validation", "tag": "epoch_loss"}},
                {"hparam": "train.batch_size"},
            ],
            "startIndex": 0,
            "sliceSize": 10,
        },
    )
    sessions = {group["sessions"][0]["name"]: group for group in found["sessionGroups"]}
    assert len(found["sessionGroups"]) == 3, "a repeated training is no part of another one"
    assert set(sessions) == {"first", "second", "first again"}
    assert sessions["first"]["hparams"]["train.batch_size"] == 256
    assert sessions["second"]["hparams"]["train.epoch_rows"] == 1000
    assert all(group["metricValues"][0]["value"] >= 0 for group in sessions.values())


def test_settings_become_values_of_one_type_each():
    settings = {"model": {"hidden_units": (64, 32)}, "train": {"cluster": {"workers": 2}, "tpu": None}}
    assert hyperparameters(settings) == {"model.hidden_units": "[64, 32]", "train.cluster.workers": 2}
