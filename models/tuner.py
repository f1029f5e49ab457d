"""The search for hyperparameters: the entry point that TFX's Tuner calls."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras_tuner
import tensorflow as tf
import tf_keras
from keras_tuner.errors import FailedTrialError

from models import distribution, trial_workers
from models.callbacks import TrainingError, is_larger_better, monitored
from models.cluster import CLUSTER
from models.oracles import Service, build_oracle, write_whole
from models.search_space import described, plain_values, search_space
from models.settings import SearchRange, TrainSettings, TuneSettings
from models.trainer import Data, Settings, compiled_network, fit, identity, load_data
from schemas.features import FeatureSet

_PROGRESS = logging.getLogger("headworks.progress")

_EPOCHS = "tuner/epochs"
"""Under this name Hyperband tells how long a trial may train."""

_RECORD = "record.json"
"""What a trial leaves in its folder beside KerasTuner's own file."""

_ARGUMENTS = (
    "train_files",
    "eval_files",
    "transform_graph_path",
    "base_model",
    "working_dir",
    "custom_config",
)
"""What is read of what TFX hands over; no more reaches the processes of a search. None names the test split."""

_PAUSE_SECONDS = 0.2
"""Before a worker asks the chief again, who may just have nothing to give."""

_ONE_PROCESS = {"multi_worker": "auto", "parameter_server": "auto"}
"""Strategies that need several processes, and what a trial uses instead."""

_COMPLETED = "COMPLETED"

SERVICE = "HEADWORKS_TUNING_SERVICE"
"""Environment variable with a service that chooses the trials, as JSON: `source`, the dotted path of a function that
makes `oracles.Suggestions`, and its further arguments."""

_ORACLE = "KERASTUNER_ORACLE_IP"


class SearchError(RuntimeError):
    """A search that found nothing."""


def tuner_fn(fn_args: Any) -> Any:
    """Searches over `custom_config["tune"]`, a `TuneSettings`; the other keys are those of `trainer.run_fn`.

    The best hyperparameters come out under the settings' dotted names, which `run_fn` reads. Under
    `training_folder` the search keeps what its trials came to, and goes on from there when it is started again
    with the same settings, code and data; `SettingsTuner.forget` clears it away.

    Returns:
      TFX's `TunerFnResult`.

    Raises:
      ValueError: if there is nothing to search, or a name is not a setting that can be searched.
    """
    from tfx.components.tuner.component import TunerFnResult

    return TunerFnResult(tuner=build_tuner(fn_args), fit_kwargs={})


def build_tuner(fn_args: Any) -> SettingsTuner:
    """The tuner that `fn_args` describes; in a process of a search it takes that process's part.

    Where TF_CONFIG describes a cluster with workers, its chief hands out the trials and they run them.

    Raises:
      ValueError: if there is nothing to search, or several processes are wanted here within such a cluster.
      ClusterConfigError: if TF_CONFIG cannot be read.
    """
    given: dict[str, Any] = {name: getattr(fn_args, name, None) for name in _ARGUMENTS}
    arguments = SimpleNamespace(**given)
    config = given["custom_config"]
    tune = TuneSettings(**{**config["tune"], "search": _ranges(config["tune"]["search"])})
    settings = Settings.from_config(config)
    settings = replace(settings, train=distribution.here(settings.train))
    _join_machines(tune)
    folder = (
        Path(config.get("training_folder") or given["working_dir"]) / f"search-{search_identity(arguments)}"
    )
    objective = objective_name(tune, settings.train, FeatureSet.from_json(config["features"]))
    direction = "max" if is_larger_better(objective) else "min"
    oracle = build_oracle(
        tune,
        keras_tuner.Objective(objective, direction),
        search_space(tune.search, objective),
        settings.train.seed,
        _service(f"headworks-{folder.name}", tune.method),
    )
    return SettingsTuner(
        oracle,
        lambda: load_data(arguments, settings.train),
        settings,
        tune,
        folder,
        given,
    )


def _join_machines(tune: TuneSettings) -> None:
    """Tells KerasTuner, which takes it from the environment, of the part that TF_CONFIG gives this machine."""
    text = os.environ.get(CLUSTER)
    if not text:
        return
    task = distribution.read_task(text)
    if "worker" not in task.cluster:
        return
    if tune.workers > 1:
        raise ValueError(
            f"tune.workers is {tune.workers}, but {CLUSTER} describes the machines of this search: set tune.workers: 1"
        )
    [chief] = task.cluster.get("chief", task.cluster["worker"][:1])
    host, _, port = chief.rpartition(":")
    is_local = host in ("localhost", "127.0.0.1")
    os.environ.update(
        {
            "KERASTUNER_TUNER_ID": "chief" if task.is_chief else task.name,
            # A machine may not know itself by the name that others call it.
            _ORACLE: host if is_local or not task.is_chief else "0.0.0.0",
            "KERASTUNER_ORACLE_PORT": port,
            # gRPC would ask a proxy for the other machine.
            "no_grpc_proxy": host,
        }
    )


def _service(name: str, method: str) -> Service | None:
    """The service that chooses the trials of the search of this name, if the environment names one."""
    text = os.environ.get(SERVICE)
    if not text:
        return None
    known = json.loads(text)
    module, _, function = known.pop("source").rpartition(".")

    def make(oracle: Any) -> Any:
        # By its path, as TFX finds this module: what speaks to a service is none of the models.
        return getattr(importlib.import_module(module), function)(
            name=name,
            method=method,
            space=described(oracle.get_space()),
            objective=oracle.objective.name,
            is_larger_better=oracle.objective.direction == "max",
            **known,
        )

    return make


def objective_name(tune: TuneSettings, train: TrainSettings, features: FeatureSet) -> str:
    """The validation metric by which trials are compared."""
    return monitored(train, features.label) if tune.objective == "auto" else tune.objective


def search_identity(fn_args: Any) -> str:
    """Names a search by what decides its outcome, as `trainer.identity` names a training.

    How many processes run the trials, and how many of the best are used, may change while it is under way.
    """
    config = fn_args.custom_config
    tune = {name: value for name, value in config["tune"].items() if name not in ("workers", "ensemble")}
    known = {**vars(fn_args), "custom_config": {**config, "tune": tune}, "hyperparameters": None}
    return identity(SimpleNamespace(**known))


class SettingsTuner(keras_tuner.Tuner):
    """Trains one network a trial with the trainer's own fit.

    KerasTuner builds and checks Keras 3 models only; a trial that runs by itself and returns its objective is
    the documented way round.

    Args:
      oracle: chooses the trials.
      load: reads the training and the validation split; not called in a process that runs no trial.
      settings: which trials vary.
      tune: the search.
      folder: keeps its state.
      arguments: for `build_tuner` in other processes.
    """

    def __init__(
        self,
        oracle: Any,
        load: Callable[[], Data],
        settings: Settings,
        tune: TuneSettings,
        folder: Path,
        arguments: Mapping[str, Any],
    ) -> None:
        self._load = load
        self._data: Data | None = None
        self._settings = settings
        self._tune = tune
        self._arguments = arguments
        self._folder = folder
        super().__init__(oracle=oracle, directory=str(folder.parent), project_name=folder.name)

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Runs what is left of the trials.

        Raises:
          SearchError: if no trial succeeded; the message says why the first did not.
          ValueError: if there is no such metric as the objective; the message lists those that there are.
          TrialWorkersError: if a process of a parallel search failed.
        """
        if _ORACLE in os.environ:
            self.take_part()
            if self._is_worker():
                return  # What came of the search, the chief knows.
        elif self._tune.workers > 1:
            trial_workers.run(self._arguments, self._tune.workers, self._folder / "processes", self._tell)
            self.oracle.reload()
        else:
            super().search(*args, **kwargs)
        if not any(trial.status == _COMPLETED for trial in self.oracle.trials.values()):
            causes = [trial["cause"] for trial in self.trials() if trial["cause"]]
            raise SearchError(f"none of {len(self.oracle.trials)} trials succeeded; {next(iter(causes), '')}")

    def take_part(self) -> None:
        """Plays the part in a parallel search that KerasTuner's environment variables name."""
        super().search()

    def on_search_begin(self) -> None:
        self._data = self._load()
        known = _validation_metrics(self._data, self._settings)
        if self.oracle.objective.name not in known:
            raise ValueError(
                f"tune.objective: {self.oracle.objective.name} is no metric of this label; there are "
                f"{', '.join(known)}"
            )

    def pre_create_trial(self) -> None:
        if self._is_worker():
            time.sleep(_PAUSE_SECONDS)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        assert self._data is not None, "read when the search begins"
        values = trial.hyperparameters.values
        record = Path(self.get_trial_dir(trial.trial_id)) / _RECORD
        tf_keras.backend.clear_session()  # else the graphs of all trials stay in memory
        try:
            settings = self._settings.with_values(plain_values(values))
            train = _for_trial(settings.train, int(values.get(_EPOCHS, self._tune.epochs)))
            fitted = fit(self._data, replace(settings, train=train))
        except (TrainingError, ValueError, tf.errors.OpError) as error:
            write_whole(record, {"cause": str(error)})
            raise FailedTrialError(str(error)) from error
        metrics = fitted.history[fitted.chosen]
        write_whole(
            record, {"metrics": metrics, "epochs": len(fitted.history), "seconds": round(fitted.seconds, 3)}
        )
        return {name: value for name, value in metrics.items() if name == self.oracle.objective.name}

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[Any]:
        """Those of the best trials that succeeded, with values as the settings take them."""
        best = []
        for trial in self.oracle.get_best_trials(num_trials):
            if trial.status == _COMPLETED:
                found = trial.hyperparameters.copy()
                found.values = plain_values(found.values)
                best.append(found)
        return best

    def ensemble(self) -> list[dict[str, Any]]:
        """Values of the `tune.ensemble` best trials, best first, by dotted name; each once."""
        found: list[dict[str, Any]] = []
        for best in self.get_best_hyperparameters(len(self.oracle.trials)):
            if best.values not in found:
                found.append(best.values)
        return found[: self._tune.ensemble]

    def trials(self) -> list[dict[str, Any]]:
        """Every trial in the order of their start, as JSON takes it.

        Each has `name`, `state`, `values` by dotted name, `score` (None where it failed), `epochs`, `seconds`,
        `metrics` of the epoch that was kept, and `cause` of a failure (None where there is none).
        """
        return [self._told(trial) for trial in self.oracle.trials.values()]

    def summary(self) -> dict[str, Any]:
        """What the run's report shows of the search: `objective`, `is_larger_better`, `method` and `trials`."""
        return {
            "objective": self.oracle.objective.name,
            "is_larger_better": is_larger_better(self.oracle.objective.name),
            "method": self._tune.method,
            "trials": self.trials(),
        }

    def forget(self) -> None:
        """Clears away what the search has kept."""
        shutil.rmtree(self._folder)

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()
        write_whole(Path(self._get_tuner_fname()), self.get_state())

    def _get_tuner_fname(self) -> str:
        # One name for all parts, so that a search goes on with any number of processes.
        return str(Path(self.project_dir) / "tuner.json")

    def _told(self, trial: Any) -> dict[str, Any]:
        path = Path(self._folder) / f"trial_{trial.trial_id}" / _RECORD
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {
            "name": trial.trial_id,
            "state": trial.status.lower(),
            "values": plain_values(trial.hyperparameters.values),
            "score": trial.score,
            "epochs": record.get("epochs"),
            "seconds": record.get("seconds"),
            "metrics": record.get("metrics", {}),
            "cause": record.get("cause") or trial.message,
        }

    def _tell(self) -> None:
        """Tells the run's display how many trials are done."""
        done = len(list(self._folder.glob(f"trial_*/{_RECORD}")))
        total = None if self._tune.method == "hyperband" else self._tune.trials
        _PROGRESS.info("trials", extra={"done": done, "total": total, "unit": "trials"})


def _for_trial(train: TrainSettings, epochs: int) -> TrainSettings:
    """Settings of a trial, which trains in one process; what the data can teach, the Trainer checks."""
    strategy: Any = _ONE_PROCESS.get(train.strategy, train.strategy)
    return replace(train.lasting(epochs), strategy=strategy, cluster=None, checks=False)


def _validation_metrics(data: Data, settings: Settings) -> Sequence[str]:
    """Names that the history of a training holds for the validation split."""
    network = compiled_network(data, replace(settings, train=_for_trial(settings.train, 1)), steps=1)
    figures = network.evaluate(data.validation.batches(64).take(1), return_dict=True, verbose=0)
    return [f"val_{name}" for name in figures]


def _ranges(search: Mapping[str, Any]) -> dict[str, SearchRange]:
    return {name: SearchRange(**wanted) for name, wanted in search.items()}
