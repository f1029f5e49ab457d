"""The search for hyperparameters: the entry point that TFX's Tuner calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import keras_tuner
from keras_tuner.errors import FailedTrialError
from tfx.components.tuner.component import TunerFnResult

from models.settings import NetworkSettings, SearchRange, TrainSettings, TuneSettings
from models.trainer import Data, Settings, TrainingError, fit, is_larger_better, load_data, monitored

_EPOCHS = "tuner/epochs"
"""Under this name Hyperband tells how long a trial may train."""


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Searches over `custom_config["tune"]`, a `TuneSettings`; the other keys are those of `trainer.run_fn`.

    The best hyperparameters come out under the settings' dotted names, which `run_fn` reads.

    Raises:
      ValueError: if there is nothing to search, or a name is not a setting.
    """
    config = fn_args.custom_config
    tune = TuneSettings(**{**config["tune"], "search": _ranges(config["tune"]["search"])})
    settings = Settings.from_config(config)
    space = search_space(tune.search)
    data = load_data(fn_args, settings.train)
    monitor = monitored(settings.train, data.features.label)
    objective = keras_tuner.Objective(monitor, "max" if is_larger_better(monitor) else "min")
    oracle = _ORACLES[tune.method](tune, objective, space, settings.train.seed)
    tuner = SettingsTuner(oracle, data, settings, tune.epochs, fn_args.working_dir)
    return TunerFnResult(tuner=tuner, fit_kwargs={})


class SettingsTuner(keras_tuner.Tuner):
    """Trains one network a trial with the trainer's own fit.

    KerasTuner builds and checks Keras 3 models only; a trial that runs by itself and returns its objective is
    the documented way round.
    """

    def __init__(
        self, oracle: keras_tuner.Oracle, data: Data, settings: Settings, epochs: int, folder: str
    ) -> None:
        self._data = data
        self._settings = settings
        self._epochs = epochs
        super().__init__(oracle=oracle, directory=folder, project_name="search")

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        values = dict(trial.hyperparameters.values)
        settings = self._settings.with_values(values)
        train = replace(settings.train, epochs=int(values.get(_EPOCHS, self._epochs)))
        try:
            fitted = fit(self._data, replace(settings, train=train))
        except TrainingError as error:
            raise FailedTrialError(str(error)) from error
        return {fitted.monitor: fitted.history[fitted.chosen][fitted.monitor]}


def search_space(search: Mapping[str, SearchRange]) -> keras_tuner.HyperParameters:
    """The hyperparameters to search, by dotted name.

    Raises:
      ValueError: if there are none, or a name is not a setting of `model` or `train`.
    """
    if not search:
        raise ValueError("tune.search is empty: name the settings to search, such as train.learning_rate")
    defaults = {
        f"{part}.{field.name}": getattr(settings, field.name)
        for part, settings in (("model", NetworkSettings()), ("train", TrainSettings()))
        for field in fields(settings)
    }
    space = keras_tuner.HyperParameters()
    for name, wanted in search.items():
        if name not in defaults:
            raise ValueError(
                f"tune.search: {name!r} is not a setting; there are {', '.join(sorted(defaults))}"
            )
        _add(space, name, wanted, is_whole=type(defaults[name]) is int)
    return space


def _add(space: keras_tuner.HyperParameters, name: str, wanted: SearchRange, *, is_whole: bool) -> None:
    if wanted.values is not None:
        # KerasTuner chooses between scalars: a list of widths travels as JSON, which the settings read.
        space.Choice(name, [json.dumps(v) if isinstance(v, list | tuple) else v for v in wanted.values])
        return
    assert wanted.min is not None, "SearchRange checks that one form is given"
    assert wanted.max is not None, "SearchRange checks that one form is given"
    sampling = "log" if wanted.log else "linear"
    if is_whole:
        space.Int(name, int(wanted.min), int(wanted.max), sampling=sampling)
    else:
        space.Float(name, wanted.min, wanted.max, sampling=sampling)


def _ranges(search: Mapping[str, Any]) -> dict[str, SearchRange]:
    return {name: SearchRange(**wanted) for name, wanted in search.items()}


_Build = Callable[[TuneSettings, keras_tuner.Objective, keras_tuner.HyperParameters, int], keras_tuner.Oracle]


def _random(tune: TuneSettings, objective: Any, space: Any, seed: int) -> keras_tuner.Oracle:
    return keras_tuner.oracles.RandomSearchOracle(
        objective, max_trials=tune.trials, seed=seed, hyperparameters=space
    )


def _bayesian(tune: TuneSettings, objective: Any, space: Any, seed: int) -> keras_tuner.Oracle:
    return keras_tuner.oracles.BayesianOptimizationOracle(
        objective, max_trials=tune.trials, seed=seed, hyperparameters=space
    )


def _hyperband(tune: TuneSettings, objective: Any, space: Any, seed: int) -> keras_tuner.Oracle:
    # It decides itself how many trials it needs; `trials` does not bound it.
    return keras_tuner.oracles.HyperbandOracle(
        objective, max_epochs=tune.epochs, seed=seed, hyperparameters=space
    )


_ORACLES: Mapping[str, _Build] = {"random": _random, "bayesian": _bayesian, "hyperband": _hyperband}
