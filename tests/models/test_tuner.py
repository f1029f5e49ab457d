"""The search finds values that the trainer can use."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from models import trainer, tuner
from models.settings import SearchRange
from schemas.features import LabelKind
from tests.models.conftest import only


@only(LabelKind.BINARY)
@pytest.mark.parametrize("method", ["random", "bayesian", "hyperband"])
def test_the_best_values_are_settings_of_the_trainer(
    method: str, table: SimpleNamespace, tmp_path: Path
) -> None:
    arguments = SimpleNamespace(
        custom_config={
            "features": table.features.to_json(),
            "model": {"hidden_units": [4]},
            "train": {"batch_size": 64},
            "tune": {
                "trials": 2,
                "epochs": 2,
                "method": method,
                "search": {
                    "train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True},
                    "model.hidden_units": {"values": [[4], [8, 4]]},
                    "model.cross_layers": {"min": 0, "max": 1},
                },
            },
        },
        transform_graph_path=table.graph_path,
        train_files=table.files,
        eval_files=table.files,
        working_dir=str(tmp_path),
    )
    found = tuner.tuner_fn(arguments)
    found.tuner.search(**found.fit_kwargs)
    best = found.tuner.get_best_hyperparameters()[0].get_config()["values"]
    settings = trainer.Settings.from_config(arguments.custom_config).with_values(best)
    assert settings.train.learning_rate == best["train.learning_rate"] != 2e-3
    assert settings.network.hidden_units in ((4,), (8, 4))
    best_score = found.tuner.oracle.get_best_trials()[0].score
    assert best_score == max(trial.score for trial in found.tuner.oracle.trials.values())


def test_a_name_that_is_no_setting_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train\.lerning_rate"):
        tuner.search_space({"train.lerning_rate": SearchRange(values=(1.0,))})
