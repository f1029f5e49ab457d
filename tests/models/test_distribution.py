"""One switch, the same network: alone, in a cluster of real processes, and where the cluster cannot be had."""

import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models import distribution, trainer
from models.cluster import CLUSTER, ClusterError
from models.distribution import ClusterConfigError
from models.settings import ClusterSettings, TrainSettings
from schemas.features import LabelKind
from tests.models.conftest import only, serialized
from tests.models.test_trainer import arguments_of, trained


def train(table: SimpleNamespace, folder: Path, **settings: Any) -> dict[str, Any]:
    """The record of a training by `run_fn` into a folder."""
    trainer.run_fn(SimpleNamespace(**arguments_of(table, folder, **settings)))
    return trained(folder)


def weights(folder: Path) -> list[np.ndarray]:
    loaded = tf.saved_model.load(str(folder / "model"))
    return [variable.numpy() for variable in loaded.network.variables]


def scores(folder: Path, table: SimpleNamespace) -> np.ndarray:
    rows = tf.constant([serialized(row) for row in table.rows[:50]])
    found = tf.saved_model.load(str(folder / "model")).signatures["serving_default"](examples=rows)
    return np.asarray(found["scores"])


def saved_models(folder: Path) -> list[Path]:
    return [path.parent for path in folder.rglob("saved_model.pb")]


@pytest.fixture(scope="module")
def alone(table: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in one process, with dropout off and more epochs than a cluster needs to be killed in."""
    folder = tmp_path_factory.mktemp("alone")
    train(table, folder, epochs=EPOCHS)
    return folder


EPOCHS = 16
TWO_WORKERS = {"strategy": "multi_worker", "cluster": {"workers": 2, "restarts": 2}}


def kill_a_worker(training: Path, after_epochs: int, killed: list[int]) -> None:
    """Kills worker 1 as soon as a checkpoint of that many epochs is there."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        states = list(training.glob(f"*/checkpoints/1/ckpt-{after_epochs}.index"))
        processes = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        for process in processes if states else []:
            try:
                environment = Path(f"/proc/{process}/environ").read_text(errors="replace")
                command = Path(f"/proc/{process}/cmdline").read_text()
            except OSError:
                continue
            if '"index": 1' in environment and "models.cluster_task" in command:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return
        time.sleep(0.01)


@only(LabelKind.BINARY)
@pytest.mark.timeout(600)
def test_two_workers_train_the_network_that_one_process_trains_though_one_is_killed_in_between(
    table: SimpleNamespace, alone: Path, tmp_path: Path
) -> None:
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "training", 3, killed))
    killer.start()
    record = train(table, tmp_path, epochs=EPOCHS, **TWO_WORKERS)
    killer.join()
    assert killed, "no worker was there to be killed"
    assert record["replicas"] == 2
    assert 3 <= record["resumed_after_epochs"] < EPOCHS
    expected = trained(alone)["history"]
    assert len(record["history"]) == EPOCHS
    for before, after in zip(expected, record["history"], strict=True):
        assert after == pytest.approx(before, abs=1e-4)
    for single, both in zip(weights(alone), weights(tmp_path), strict=True):
        np.testing.assert_allclose(both, single, atol=1e-4)
    assert saved_models(tmp_path) == [tmp_path / "model"]
    assert list((tmp_path / "training").iterdir()) == []


@only(LabelKind.BINARY)
@pytest.mark.timeout(600)
def test_parameter_servers_share_the_embeddings_and_the_network_learns(
    table: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = {"workers": 2, "parameter_servers": 2}
    with caplog.at_level("INFO", logger="models.trainer"):
        record = train(
            table, tmp_path, strategy="parameter_server", cluster=cluster, min_shard_bytes=16, epochs=8
        )
    history = record["history"]
    assert history[record["chosen_epoch"] - 1]["val_auc"] > max(0.8, history[0]["val_auc"])
    [line] = [line for line in caplog.messages if "variables in parts" in line]
    assert "deep_company_id/embeddings over 2 parameter servers" in line
    assert saved_models(tmp_path) == [tmp_path / "model"]
    assert np.isfinite(scores(tmp_path, table)).all()
    assert scores(tmp_path, table).std() > 0.01


@only(LabelKind.BINARY)
def test_an_error_of_one_task_is_the_error_of_the_training(table: SimpleNamespace, tmp_path: Path) -> None:
    arguments = arguments_of(table, tmp_path, **TWO_WORKERS)
    arguments["train_files"] = [str(tmp_path / "nothing-*")]
    with pytest.raises(ClusterError, match=r"(?s)worker \d exited with 1.*split 'train': no file matches"):
        trainer.run_fn(SimpleNamespace(**arguments))


@only(LabelKind.BINARY)
def test_a_cluster_of_ones_own_within_another_is_refused(
    table: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CLUSTER, config())
    with pytest.raises(ClusterConfigError, match=r"take out train\.cluster"):
        train(table, tmp_path, **TWO_WORKERS)


def config(**changes: Any) -> str:
    cluster = {"worker": ["127.0.0.1:9999"], **changes.pop("cluster", {})}
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0, **changes}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "TF_CONFIG is not set"),
        ("{", "TF_CONFIG cannot be read"),
        ('{"cluster": {}}', "TF_CONFIG cannot be read"),
        (config(index=1), "the task is worker 1, but the cluster has 1 of that role"),
        (config(type="boss"), "no role 'boss'; there are chief, worker, ps, evaluator"),
        (config(cluster={"worker": ["localhost"]}), "the address 'localhost' is no host:port"),
    ],
    ids=["absent", "no JSON", "no task", "no such index", "no such role", "no port"],
)
def test_a_cluster_that_is_not_described_well_is_refused_in_words(
    text: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CLUSTER, raising=False)
    if text is not None:
        monkeypatch.setenv(CLUSTER, text)
    with pytest.raises(ClusterConfigError, match=message):
        distribution.build(TrainSettings(strategy="multi_worker"))


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv(CLUSTER, config(cluster={"worker": [f"127.0.0.1:{port}"]}))
        with pytest.raises(ClusterConfigError, match=f"worker 0 cannot listen on 127.0.0.1:{port}"):
            distribution.build(TrainSettings(strategy="multi_worker"))


def test_parameter_servers_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLUSTER, config(cluster={"chief": ["127.0.0.1:9998"]}))
    with pytest.raises(ClusterConfigError, match="needs tasks of the role 'ps'"):
        distribution.build(TrainSettings(strategy="parameter_server"))


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_a_gpu_that_is_missing_is_named() -> None:
    with pytest.raises(ClusterConfigError, match="mirrored, but TensorFlow sees no GPU"):
        distribution.build(TrainSettings(strategy="mirrored"))


def test_a_tpu_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(ClusterConfigError, match="no TPU answers as 'local'"):
        distribution.build(TrainSettings(strategy="tpu"))


def test_a_worker_that_waits_in_vain_for_the_export_says_what_it_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ClusterConfigError, match=r"saved_model.pb: the chief has not exported"):
        distribution.wait_for_export(distribution.Export(tmp_path), seconds=0.0)
    (tmp_path / "saved_model.pb").touch()
    distribution.wait_for_export(distribution.Export(tmp_path), seconds=0.0)


def test_a_machine_that_does_not_see_the_export_sees_the_folder_of_the_training_go(tmp_path: Path) -> None:
    kept = tmp_path / "training"
    export = distribution.Export(tmp_path / "elsewhere", kept)
    assert not export.is_done(), "the chief has not begun"
    kept.mkdir()
    assert not export.is_done()
    kept.rmdir()
    assert export.is_done()
    assert distribution.Export(tmp_path / "elsewhere", kept, was_kept=True).is_done()


class FourReplicas:
    num_replicas_in_sync = 4


@pytest.mark.parametrize(
    ("settings", "batch_size", "learning_rate"),
    [
        ({}, 64, 0.1),
        ({"batch_size_is": "replica"}, 256, 0.1),
        ({"batch_size_is": "replica", "scale_learning_rate": "linear"}, 256, 0.4),
        ({"batch_size_is": "replica", "scale_learning_rate": "sqrt"}, 256, 0.2),
    ],
)
def test_the_learning_rate_follows_the_rows_of_a_step(
    settings: dict[str, Any], batch_size: int, learning_rate: float
) -> None:
    train = TrainSettings(batch_size=64, learning_rate=0.1, **settings)
    where = distribution.Distribution("mirrored", FourReplicas())
    assert where.batch_size(train) == batch_size
    assert where.learning_rate(train) == pytest.approx(learning_rate)


def test_settings_of_a_cluster_survive_their_way_through_json() -> None:
    train = TrainSettings(strategy="parameter_server", cluster=ClusterSettings(3, 1))
    assert TrainSettings(**json.loads(json.dumps(asdict(train)))) == train
