"""The trainings behind `headworks ablate`. Runs in a child that has TensorFlow; what it returns is plain data.

The answers of every training are kept beside the run's record under a name that follows from all that decides them,
so that an interrupted command goes on, and another group costs only its own trainings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from gates.ablation import Ablation, Contribution, Judge
from gates.intervals import Bootstrap
from gates.metrics import METRICS_OF, Floats
from gates.settings import ModelGateSettings
from pipeline import explanations
from pipeline.finished_run import FinishedRun, find
from pipeline.runners.records import load_run
from pipeline.runners.root_folder import RootFolder
from pipeline.source_digest import source_digest

if TYPE_CHECKING:
    from models.trainer import Data, Settings

TRAININGS = "trainings"
"""Unit of the progress that is told."""

_PROGRESS = logging.getLogger("headworks.progress")
_SPLIT = "validation"


@dataclass(frozen=True)
class Plan:
    """What to train.

    Attributes:
      groups: features to leave out together, by name.
      seeds: how many trainings each network gets.
      epochs: the most of each training; None for those of the run.
    """

    groups: Mapping[str, tuple[str, ...]]
    seeds: int
    epochs: int | None

    @property
    def trainings(self) -> int:
        """How many there are, those of the whole network included."""
        return (len(self.groups) + 1) * self.seeds


def study(root: str, run_id: str, plan: Plan) -> Ablation:
    """Trains a run's network whole and without each group; writes what is known after each group.

    Args:
      root: output folder of the pipeline.
      run_id: of the run.
      plan: what to train.

    Raises:
      FinishedRunError: if the run trained no model, or something of it is gone.
      ValueError: for a group that names no feature, or all of them.
      TrainingError: if a loss is not finite.
    """
    folder = Path(root)
    run = find(folder, load_run(folder, run_id))
    trainings = _Trainings(run, plan, RootFolder(folder).run_path(run_id) / "ablation")
    for found in _measured(run, plan, trainings):
        explanations.write(folder, run_id, found)
    return found


def _measured(run: FinishedRun, plan: Plan, trainings: _Trainings) -> Iterator[Ablation]:
    """What is known with no group left out, with one, and so on."""
    metric = METRICS_OF[run.features.label.kind][0]
    settings = ModelGateSettings()
    truth = trainings.truth()
    judge = Judge(metric, truth, Bootstrap.draw(len(truth), settings.resamples, settings.level))
    whole = judge.trainings(trainings.answers(()))
    known = Ablation(
        metric=metric.name,
        is_higher_better=metric.is_higher_better,
        split=_SPLIT,
        rows=len(truth),
        level=settings.level,
        seeds=trainings.seeds,
        epochs=trainings.epochs,
        whole=float(np.mean(whole.values)),
        whole_by_seed=whole.values,
        planned=len(plan.groups),
        contributions=(),
    )
    yield known
    for name, features in plan.groups.items():
        without = judge.trainings(trainings.answers(features))
        found = judge.contribution(name, features, whole, without)
        known = dataclasses.replace(known, contributions=_sorted((*known.contributions, found)))
        yield known


def _sorted(contributions: Sequence[Contribution]) -> tuple[Contribution, ...]:
    return tuple(sorted(contributions, key=lambda one: -one.gain))


class _Trainings:
    """Trains, or reads what an earlier call has trained."""

    def __init__(self, run: FinishedRun, plan: Plan, kept: Path) -> None:
        from models.trainer import Settings

        self._run = run
        self._kept = kept
        self._total = plan.trainings
        self._done = 0
        of_run = Settings.from_config(run.learning).with_values(run.hyperparameters)
        # In this process, from random weights: those of a champion know the features that are left out.
        train = dataclasses.replace(
            of_run.train, strategy="none", cluster=None, warm_start=None, checks=False
        )
        if plan.epochs is not None:
            train = train.lasting(plan.epochs)
        self._settings = dataclasses.replace(of_run, train=train)
        self._code = source_digest("models.trainer", "models.ablation")
        self._data: Data | None = None
        self.epochs = train.epochs
        self.seeds = tuple(range(train.seed, train.seed + plan.seeds))

    def truth(self) -> Floats:
        """`[rows]`: the labels of the validation split."""
        from models import ablation

        return ablation.truth(self._loaded().validation)

    def answers(self, dropped: Sequence[str]) -> list[Floats]:
        """To the validation split, one entry a seed, of networks that lack some features."""
        found = []
        for seed in self.seeds:
            train = dataclasses.replace(self._settings.train, seed=seed)
            found.append(self._one(dataclasses.replace(self._settings, train=train), dropped))
            self._done += 1
            _PROGRESS.info(TRAININGS, extra={"done": self._done, "total": self._total, "unit": TRAININGS})
        return found

    def _one(self, settings: Settings, dropped: Sequence[str]) -> Floats:
        path = self._kept / f"{self._identity(settings, dropped)}.npy"
        if path.exists():
            return np.asarray(np.load(path, allow_pickle=False))
        from models import ablation

        found = ablation.answers_without(self._loaded(), settings, dropped)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, found, allow_pickle=False)
        partial.replace(path)
        return found

    def _loaded(self) -> Data:
        from models.trainer import load_data

        if self._data is None:
            folder = self._run.training_examples
            arguments = SimpleNamespace(
                custom_config=self._run.learning,
                train_files=[str(folder / "Split-train" / "*")],
                eval_files=[str(folder / f"Split-{_SPLIT}" / "*")],
                transform_graph_path=str(self._run.transform_graph),
            )
            self._data = load_data(arguments, self._settings.train)
        return self._data

    def _identity(self, settings: Settings, dropped: Sequence[str]) -> str:
        """Follows from what decides a training; the run's folder tells the data apart."""
        decisive = {
            "features": self._run.learning["features"],
            "settings": dataclasses.asdict(settings),
            "dropped": sorted(dropped),
            "code": self._code,  # of today, which trains; that of the run may be older
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
