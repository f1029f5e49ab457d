"""Ways to choose the next trial, KerasTuner's own and a service's, with a state that survives a kill at any moment.

KerasTuner writes its files in place, and starts a trial again that had ended in the moment before the kill.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import keras_tuner

from models.settings import TuneSettings

_RUNNING = "RUNNING"
_INITIAL_SHARE = 3
"""Of so many trials one is drawn at random before the Gaussian process chooses."""


class Suggestions(Protocol):
    """A service that chooses the values of trials."""

    def suggest(self, trial: str) -> Mapping[str, Any] | None:
        """Values by name for a trial, the same again if asked again; None: there is no more to try."""

    def complete(self, trial: str, score: float | None) -> None:
        """Takes what a trial came to; None: it failed."""


Service = Callable[[Any], Suggestions]
"""Makes the suggestions for an oracle, whose space, objective and number of trials are known by then."""


def build_oracle(
    tune: TuneSettings, objective: Any, space: Any, seed: int, service: Service | None = None
) -> Any:
    """The `keras_tuner.Oracle` of `tune.method`, or the one that asks a service.

    Args:
      tune: the search.
      objective: a `keras_tuner.Objective`.
      space: the `keras_tuner.HyperParameters` to search.
      seed: of its draws.
      service: that chooses instead of KerasTuner.
    """
    shared = {
        "objective": objective,
        "hyperparameters": space,
        # KerasTuner takes 0 for no seed.
        "seed": seed + 1,
        # A learning rate that diverges is an answer, however often it is drawn: the search goes on.
        "max_consecutive_failed_trials": None,
    }
    if service is not None:
        return _Suggested(service, max_trials=tune.trials, **shared)
    return _ORACLES[tune.method](tune, shared)


def write_whole(path: Path, content: Any) -> None:
    """Writes JSON so that whoever reads, or is started after a kill, finds the old file or the new one."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


_Base: Any = keras_tuner.Oracle if TYPE_CHECKING else object


class _Kept(_Base):
    """What an oracle does differently here."""

    trials: dict[str, Any]
    start_order: list[str]
    end_order: list[str]

    def save(self) -> None:
        write_whole(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial: Any) -> None:
        write_whole(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state())

    def reload(self) -> None:
        """Takes over what had ended; what had begun is run again."""
        super().reload()
        # A trial whose file was written and whose start was not noted: its number is given anew.
        self.trials = {number: self.trials[number] for number in self.start_order}
        unfinished = [number for number, trial in self.trials.items() if trial.status == _RUNNING]
        for number in unfinished:
            self.trials[number].metrics = type(self.trials[number].metrics)()
        self._retry_queue = unfinished[::-1]
        ended = (number for number in self.trials if number not in unfinished)
        self.end_order = list(dict.fromkeys([*self.end_order, *ended]))

    def get_best_trials(self, num_trials: int | None = 1) -> list[Any]:
        """The best ones. TFX asks for as many as `max_trials`, which is None for Hyperband: all of them."""
        best: list[Any] = super().get_best_trials(len(self.trials) if num_trials is None else num_trials)
        return best


class _Random(_Kept, keras_tuner.oracles.RandomSearchOracle):
    """Draws at random."""


class _Bayesian(_Kept, keras_tuner.oracles.BayesianOptimizationOracle):
    """Asks a Gaussian process."""


class _Hyperband(_Kept, keras_tuner.oracles.HyperbandOracle):
    """Gives many a short trial, and the best of them longer ones."""


_Oracle: Any = keras_tuner.Oracle


class _Suggested(_Kept, _Oracle):
    """Asks a service. What is tried and what came of it is kept here as ever, and told to the service."""

    def __init__(self, service: Service, **shared: Any) -> None:
        super().__init__(**shared)
        self._service = service
        self._suggestions: Suggestions | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        values = self._asked().suggest(trial_id)
        return {"status": "STOPPED"} if values is None else {"status": "RUNNING", "values": dict(values)}

    def end_trial(self, trial: Any) -> None:
        super().end_trial(trial)
        ended = self.trials[trial.trial_id]
        self._asked().complete(ended.trial_id, ended.score if ended.status == "COMPLETED" else None)

    def _asked(self) -> Suggestions:
        if self._suggestions is None:
            self._suggestions = self._service(self)
        return self._suggestions


def initial_points(trials: int, dimensions: int) -> int:
    """Random trials that a Bayesian search begins with.

    KerasTuner's own number, three for each hyperparameter, leaves a search of usual length no trial to choose.
    """
    return max(2, min(3 * dimensions, trials // _INITIAL_SHARE))


def _random(tune: TuneSettings, shared: Mapping[str, Any]) -> Any:
    return _Random(max_trials=tune.trials, **shared)


def _bayesian(tune: TuneSettings, shared: Mapping[str, Any]) -> Any:
    points = initial_points(tune.trials, len(tune.search))
    return _Bayesian(max_trials=tune.trials, num_initial_points=points, **shared)


def _hyperband(tune: TuneSettings, shared: Mapping[str, Any]) -> Any:
    return _Hyperband(max_epochs=tune.epochs, **shared)


_ORACLES: Mapping[str, Callable[[TuneSettings, Mapping[str, Any]], Any]] = {
    "random": _random,
    "bayesian": _bayesian,
    "hyperband": _hyperband,
}
