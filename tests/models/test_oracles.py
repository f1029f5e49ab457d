"""What is left of a search after a kill at the worst moments."""

import json
from pathlib import Path

import keras_tuner
import pytest

from models.oracles import build_oracle, initial_points
from models.settings import TuneSettings


def oracle(folder: Path):
    space = keras_tuner.HyperParameters()
    space.Float("train.learning_rate", 0.0, 1.0)
    tune = TuneSettings(trials=4, method="random")
    made = build_oracle(tune, keras_tuner.Objective("val_auc", "max"), space, 1)
    made._set_project_dir(str(folder), "search")
    return made


def ended(made, trial, score: float = 0.7):
    made.update_trial(trial.trial_id, {"val_auc": score})
    trial.status = "COMPLETED"
    made.end_trial(trial)


def test_a_trial_that_had_ended_just_before_the_kill_is_not_run_again(tmp_path):
    first = oracle(tmp_path)
    trial = first.create_trial("one")
    ended(first, trial)
    # As KerasTuner leaves it: the file of the oracle says that the trial goes on.
    assert json.loads((tmp_path / "search" / "oracle.json").read_text())["ongoing_trials"]
    second = oracle(tmp_path)
    second.reload()
    assert second.create_trial("one").trial_id != trial.trial_id
    assert second.get_best_trials()[0].score == 0.7


def test_a_trial_that_was_under_way_is_run_again_with_its_values(tmp_path):
    first = oracle(tmp_path)
    ended(first, first.create_trial("one"))
    begun = first.create_trial("one")
    first.update_trial(begun.trial_id, {"val_auc": 0.1})
    second = oracle(tmp_path)
    second.reload()
    again = second.create_trial("another")
    assert again.trial_id == begun.trial_id
    assert again.hyperparameters.values == begun.hyperparameters.values
    assert not again.metrics.exists("val_auc"), "it would be taken for the outcome of the new run"


def test_a_trial_whose_start_was_not_noted_takes_no_place(tmp_path):
    first = oracle(tmp_path)
    ended(first, first.create_trial("one"))
    state = (tmp_path / "search" / "oracle.json").read_text()
    first.create_trial("one")
    (tmp_path / "search" / "oracle.json").write_text(state)
    second = oracle(tmp_path)
    second.reload()
    scores = []
    while (trial := second.create_trial("one")).status != "STOPPED":
        ended(second, trial)
        scores.append(trial.trial_id)
    assert scores == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("trials", "dimensions", "points"), [(8, 4, 2), (30, 4, 10), (100, 4, 12), (1, 1, 2)]
)
def test_a_bayesian_search_leaves_most_trials_to_its_model(trials, dimensions, points):
    assert initial_points(trials, dimensions) == points
