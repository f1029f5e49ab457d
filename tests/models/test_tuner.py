"""The search finds values that the trainer can use, and survives a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tf_keras

from models import trainer, tuner
from schemas.features import LabelKind
from tests.models.conftest import only

SEARCH = {
    "train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True},
    "model.hidden_units": {"values": [[4], [8, 4]]},
    "model.cross_layers": {"min": 0, "max": 1},
}


def arguments(table: SimpleNamespace, folder: Path, **tune: object) -> dict[str, Any]:
    """What TFX hands to `tuner_fn`, as JSON takes it."""
    return {
        "custom_config": {
            "features": table.features.to_json(),
            "model": {"hidden_units": [4]},
            "train": {"batch_size": 64},
            "tune": {"trials": 2, "epochs": 2, "search": SEARCH, **tune},
            "training_folder": str(folder / "training"),
        },
        "transform_graph_path": table.graph_path,
        "train_files": table.files,
        "eval_files": table.files,
        "working_dir": str(folder),
    }


def searched(given: dict[str, Any]) -> tuner.SettingsTuner:
    found = tuner.tuner_fn(SimpleNamespace(**given))
    found.tuner.search(**found.fit_kwargs)
    return found.tuner


@only(LabelKind.BINARY)
@pytest.mark.parametrize("method", ["random", "bayesian", "hyperband"])
def test_the_best_values_are_settings_of_the_trainer(
    method: str, table: SimpleNamespace, tmp_path: Path
) -> None:
    given = arguments(table, tmp_path, method=method)
    found = searched(given)
    best = found.get_best_hyperparameters()[0].get_config()["values"]
    settings = trainer.Settings.from_config(given["custom_config"]).with_values(best)
    assert settings.train.learning_rate == best["train.learning_rate"] != 2e-3
    assert list(settings.network.hidden_units) == best["model.hidden_units"]
    scores = [trial["score"] for trial in found.trials()]
    assert found.oracle.get_best_trials()[0].score == max(scores)
    # TFX asks for all of them in this way, whatever the method.
    assert len(found.oracle.get_best_trials(found.oracle.max_trials)) == len(scores) >= 2


@only(LabelKind.MULTICLASS)
def test_trials_are_compared_by_the_metric_that_is_asked_for(table: SimpleNamespace, tmp_path: Path) -> None:
    found = searched(arguments(table, tmp_path, objective="val_accuracy"))
    trials = found.trials()
    assert [trial["score"] for trial in trials] == [trial["metrics"]["val_accuracy"] for trial in trials]
    assert found.oracle.get_best_trials()[0].score == max(trial["score"] for trial in trials)


@only(LabelKind.BINARY)
def test_a_metric_that_does_not_exist_is_refused_before_the_first_trial(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"val_rmse is no metric of this label; there are .*val_auc"):
        searched(arguments(table, tmp_path, objective="val_rmse"))
    assert not list(tmp_path.glob("training/search-*/trial_*"))


@only(LabelKind.BINARY)
def test_a_trial_that_fails_is_told_and_a_search_of_such_trials_is_an_error(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    hopeless = {"train.learning_rate": {"values": [10.0]}, "model.dropout": {"min": 0.0, "max": 0.5}}
    no_part = {"model.wide": {"values": [False]}, "model.hidden_units": {"values": [[], [4]]}}
    found = searched(arguments(table, tmp_path / "some", search=no_part, method="random"))
    by_state = {trial["state"]: trial for trial in found.trials()}
    assert "the network has no part left" in by_state["failed"]["cause"]
    assert found.get_best_hyperparameters(5)[0].values["model.hidden_units"] == [4]
    assert len(found.get_best_hyperparameters(5)) == 1
    none_left = {
        **no_part,
        "model.hidden_units": {"values": [[]]},
        "model.dropout": hopeless["model.dropout"],
    }
    with pytest.raises(tuner.SearchError, match=r"none of 2 trials succeeded; model\.wide is false"):
        searched(arguments(table, tmp_path / "none", search=none_left))


@only(LabelKind.BINARY)
def test_the_members_of_an_ensemble_are_the_best_trials_each_once(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    found = searched(arguments(table, tmp_path, trials=4, ensemble=3, epochs=1))
    ranked = sorted(found.trials(), key=lambda trial: -trial["score"])
    distinct = []
    for trial in ranked:
        if trial["values"] not in distinct:
            distinct.append(trial["values"])
    assert found.ensemble() == distinct[:3]
    assert found.ensemble()[0] == found.get_best_hyperparameters()[0].values


@only(LabelKind.BINARY)
def test_no_trial_keeps_the_graphs_of_the_one_before(
    table: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = []
    fit = trainer.fit

    def numbered(*given: Any) -> trainer.Fitted:
        numbers.append(tf_keras.backend.get_uid("trial"))  # counts on unless the session was cleared
        return fit(*given)

    monkeypatch.setattr(tuner, "fit", numbered)
    searched(arguments(table, tmp_path, trials=3, epochs=1))
    assert numbers == [1, 1, 1]


@only(LabelKind.BINARY)
def test_a_trial_that_is_shorter_than_the_warmup_still_reaches_its_learning_rate(
    table: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    fit = trainer.fit

    def noted(data: trainer.Data, settings: trainer.Settings) -> trainer.Fitted:
        trained.append(settings.train)
        return fit(data, settings)

    monkeypatch.setattr(tuner, "fit", noted)
    given = arguments(table, tmp_path, trials=1, epochs=2)
    given["custom_config"]["train"] |= {"warmup_epochs": 3.0, "epochs": 9}
    searched(given)
    assert [(train.epochs, train.warmup_epochs) for train in trained] == [(2, 1.0)]


SCRIPT = """
import json, sys
from types import SimpleNamespace
from models.tuner import build_tuner
build_tuner(SimpleNamespace(**json.loads(sys.argv[1]))).search()
"""


def finished_trials(folder: Path) -> dict[str, int]:
    """When each trial that has ended was recorded."""
    records = folder.glob("training/search-*/trial_*/record.json")
    return {record.parent.name: record.stat().st_mtime_ns for record in records}


@only(LabelKind.BINARY)
@pytest.mark.timeout(600)
def test_a_search_that_was_killed_goes_on_after_its_finished_trials(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    given = arguments(table, tmp_path, trials=4, epochs=1, method="random")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(given)])
    try:
        while len(finished_trials(tmp_path)) < 2:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = finished_trials(tmp_path)
    assert 2 <= len(before) < 4
    [state] = tmp_path.glob("training/search-*/oracle.json")
    given["custom_config"]["tune"]["ensemble"] = 2
    found = searched(given)
    after = finished_trials(tmp_path)
    assert len(after) == len(found.trials()) == 4
    # The one that had ended when the kill came, unnoted, may be run again.
    kept = [name for name, moment in before.items() if after[name] == moment]
    assert len(kept) >= len(before) - 1
    assert all(trial["state"] == "completed" for trial in found.trials())
    assert state.exists()
    found.forget()
    assert not list(tmp_path.glob("training/*"))


@only(LabelKind.BINARY)
def test_another_search_space_or_data_is_another_search(table: SimpleNamespace, tmp_path: Path) -> None:
    def name(**tune: object) -> str:
        return tuner.search_identity(SimpleNamespace(**arguments(table, tmp_path, **tune)))

    assert name() == name(workers=4) == name(ensemble=2)
    assert len({name(), name(trials=9), name(search={"model.dropout": {"values": [0.1]}})}) == 3
