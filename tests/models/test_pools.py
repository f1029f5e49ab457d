"""Machines of a job that others started: TF_CONFIG as Vertex AI writes it, and folders of their own for the model."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cloud import custom_job
from models import distribution, trainer, tuner
from models.child_environment import child_environment
from models.settings import TrainSettings, TuneSettings
from schemas.features import LabelKind
from tests.models.conftest import only
from tests.models.test_distribution import saved_models, weights
from tests.models.test_trainer import arguments_of, trained
from tests.models.test_tuner import arguments

SECONDS = 300
EPOCHS = 3

SEARCHES = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from models.tuner import tuner_fn
given = json.loads(Path(sys.argv[1]).read_text())
found = tuner_fn(SimpleNamespace(**given))
found.tuner.search(**found.fit_kwargs)
if "chief" in sys.argv[1]:
    Path(sys.argv[1]).with_suffix(".summary").write_text(json.dumps(found.tuner.summary()))
"""

SERVICE = """
import json
from pathlib import Path


class Asked:
    def __init__(self, folder, **told):
        self._folder = Path(folder)
        self._write("told", told)

    def suggest(self, trial):
        rates = [0.01, 0.02]
        asked = len(list(self._folder.glob("asked-*")))
        self._write(f"asked-{trial}", None)
        if asked == len(rates):
            return None
        return {"train.learning_rate": rates[asked], "model.hidden_units": "[4]", "model.cross_layers": 1}

    def complete(self, trial, score):
        self._write(f"came-{trial}", score)

    def _write(self, name, content):
        (self._folder / name).write_text(json.dumps(content))
"""


@dataclass
class Machine:
    """A process of the job, its name, and the file of what it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> None:
        """Waits until it has ended well."""
        assert self.process.wait(SECONDS) == 0, f"{self.name}: {self.log.read_text()[-2000:]}"


@contextmanager
def started(
    commands: Mapping[str, Sequence[str]], folder: Path, **environment: str
) -> Iterator[dict[str, Machine]]:
    """A process for each role and index, such as `worker 0`; none is left."""
    cluster: dict[str, list[str]] = {}
    with ExitStack() as held:
        for name in commands:
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            cluster.setdefault(name.split()[0], []).append(f"127.0.0.1:{listener.getsockname()[1]}")
    machines = {}
    try:
        for name, command in commands.items():
            kind, index = name.split()
            log = folder / f"{kind}-{index}.log"
            task = {"type": kind, "index": int(index), "trial": ""}
            config = {
                "cluster": cluster,
                "task": task,
                "environment": "cloud",
                "job": '{"worker_pool_specs": []}',
            }
            with log.open("wb") as said:
                process = subprocess.Popen(
                    command,
                    env={**child_environment(), **environment, "TF_CONFIG": json.dumps(config)},
                    stdout=said,
                    stderr=subprocess.STDOUT,
                )
            machines[name] = Machine(name, process, log)
        yield machines
    finally:
        for machine in machines.values():
            machine.process.kill()
            machine.process.wait()


def trains(table: SimpleNamespace, shared: Path, name: str, **train: Any) -> list[str]:
    """The command of one machine: outputs are its own, the folder of the training is everyone's."""
    own = shared / name.replace(" ", "-")
    given = arguments_of(table, own, **{"epochs": EPOCHS, **train})
    given["custom_config"]["training_folder"] = str(shared / "training")
    file = shared / f"{own.name}.json"
    file.write_text(json.dumps(given))
    return [sys.executable, "-P", "-m", "models.cluster_task", str(file)]


@only(LabelKind.BINARY)
@pytest.mark.timeout(600)
def test_a_chief_and_a_worker_train_the_network_that_one_process_trains(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    trainer.run_fn(SimpleNamespace(**arguments_of(table, alone, epochs=EPOCHS)))
    # Reduction servers stand in the service's TF_CONFIG as ps, and are none of TensorFlow's.
    names = ("chief 0", "worker 0")
    commands = {name: trains(table, tmp_path, name, strategy="multi_worker") for name in names}
    reducer = [sys.executable, "-c", "import time; time.sleep(600)"]
    shown = tmp_path / "shown"
    with started({**commands, "ps 0": reducer}, tmp_path, AIP_TENSORBOARD_LOG_DIR=str(shown)) as machines:
        for name in names:
            machines[name].ended()
    assert trained(tmp_path / "chief-0")["replicas"] == 2
    for one, other in zip(weights(alone), weights(tmp_path / "chief-0"), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)
    assert saved_models(tmp_path / "worker-0") == []
    assert (tmp_path / "worker-0" / "model").is_dir(), "TFX looks for it in every process"
    assert list((tmp_path / "training").iterdir()) == []
    assert {path.parent.name for path in shown.rglob("events*")} >= {"train", "validation"}


@only(LabelKind.BINARY)
@pytest.mark.timeout(600)
def test_parameter_servers_and_workers_end_when_the_chief_has_exported(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    names = ("chief 0", "worker 0", "ps 0")
    settings = {"strategy": "parameter_server", "epochs": 8}
    commands = {name: trains(table, tmp_path, name, **settings) for name in names}
    with started(commands, tmp_path) as machines:
        for name in names:
            machines[name].ended()
    record = trained(tmp_path / "chief-0")
    assert record["history"][record["chosen_epoch"] - 1]["val_auc"] > 0.8
    assert saved_models(tmp_path) == [tmp_path / "chief-0" / "model"]


@only(LabelKind.BINARY)
@pytest.mark.timeout(600)
def test_the_machines_of_a_search_try_what_a_service_suggests(table: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "asked_service.py").write_text(SERVICE)
    (tmp_path / "asked").mkdir()
    commands = {}
    for name in ("chief 0", "worker 0"):
        given = arguments(table, tmp_path, trials=5, epochs=1, method="bayesian")
        file = tmp_path / f"{name.replace(' ', '-')}.json"
        file.write_text(json.dumps(given))
        commands[name] = [sys.executable, "-c", SEARCHES, str(file)]
    service = {"source": "asked_service.Asked", "folder": str(tmp_path / "asked")}
    paths = f"{child_environment()['PYTHONPATH']}:{tmp_path}"
    with started(
        commands, tmp_path, HEADWORKS_TUNING_SERVICE=json.dumps(service), PYTHONPATH=paths
    ) as machines:
        machines["worker 0"].ended()
        machines["chief 0"].ended()
    summary = json.loads((tmp_path / "chief-0.summary").read_text())
    assert [trial["state"] for trial in summary["trials"]] == ["completed"] * 2
    assert [trial["values"]["train.learning_rate"] for trial in summary["trials"]] == [0.01, 0.02]
    told = json.loads((tmp_path / "asked" / "told").read_text())
    assert (told["method"], told["objective"], told["is_larger_better"]) == ("bayesian", "val_auc", True)
    assert told["name"].startswith("headworks-search-")
    assert told["space"] == [
        {"name": "train.learning_rate", "kind": "number", "low": 1e-3, "high": 1e-1, "is_log": True},
        {"name": "model.hidden_units", "kind": "choice", "values": ["[4]", "[8, 4]"]},
        {"name": "model.cross_layers", "kind": "integer", "low": 0, "high": 1, "is_log": False},
    ]
    came = [json.loads(path.read_text()) for path in sorted((tmp_path / "asked").glob("came-*"))]
    assert came == [trial["score"] for trial in summary["trials"]]


def test_one_machine_may_rehearse_what_several_are_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    train = TrainSettings(strategy="multi_worker")
    monkeypatch.setenv("HEADWORKS_STRATEGY", "auto")
    assert distribution.here(train).strategy == "auto"
    monkeypatch.delenv("HEADWORKS_STRATEGY")
    assert distribution.here(train) is train


def test_a_search_over_machines_wants_one_process_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"chief": ["a:2222"], "worker": ["b:2222"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    with pytest.raises(ValueError, match=r"tune\.workers is 3, but TF_CONFIG describes the machines"):
        tuner._join_machines(TuneSettings(workers=3))


def test_a_launcher_and_the_models_mean_the_same_variables() -> None:
    assert (custom_job.STRATEGY, custom_job.TUNING_SERVICE) == (distribution.STRATEGY, tuner.SERVICE)
