"""Settings of training that would silently do nothing are refused, with what to set instead."""

from typing import Any

import pytest

from models.settings import TrainSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale_learning_rate": "linear"}, "set batch_size_is: replica, or scale_learning_rate: none"),
        (
            {"strategy": "parameter_server", "batch_size_is": "replica"},
            "set batch_size_is: global, and batch_size and learning_rate for one worker",
        ),
        (
            {"strategy": "parameter_server", "scale_learning_rate": "sqrt"},
            "set scale_learning_rate: none, and batch_size and learning_rate for one worker",
        ),
        ({"epochs": 2, "warmup_epochs": 2.0}, "warmup_epochs 2 must be below epochs 2"),
    ],
)
def test_a_setting_without_effect_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size_is": "replica", "scale_learning_rate": "linear", "strategy": "mirrored"},
        {"batch_size_is": "replica"},
        {"epochs": 2, "warmup_epochs": 1.5},
        {"strategy": "parameter_server"},
    ],
)
def test_a_setting_with_an_effect_is_taken(given: dict[str, Any]) -> None:
    TrainSettings(**given)


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.5), (4, 2.0), (6, 3.0), (20, 3.0)])
def test_a_shorter_training_spends_half_of_its_epochs_on_warmup_at_most(epochs: int, warmup: float) -> None:
    train = TrainSettings(epochs=10, warmup_epochs=3.0).lasting(epochs)
    assert (train.epochs, train.warmup_epochs) == (epochs, warmup)
