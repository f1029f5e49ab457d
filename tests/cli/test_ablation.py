"""What decides whether the answers of an earlier ablation are used again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cli.ablation
from cli.ablation import Plan, _Trainings
from models import ablation


def answers(tmp_path: Path, epochs: int | None = None) -> float:
    """Of the whole network."""
    learning: dict[str, Any] = {
        "features": "{}",
        "model": {},
        "train": {"warmup_epochs": 4.0},
        "source_digest": "of the run",
    }
    run = SimpleNamespace(learning=learning, hyperparameters={})
    trainings = _Trainings(run, Plan({}, seeds=1, epochs=epochs), tmp_path)  # type: ignore[arg-type]
    return float(trainings.answers(())[0][0])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of every training, each of which answers its own number."""
    settings: list[Any] = []

    def train(_: Any, given: Any, __: Any) -> Any:
        settings.append(given)
        return np.array([float(len(settings))])

    monkeypatch.setattr(_Trainings, "_loaded", lambda _: None)
    monkeypatch.setattr(ablation, "answers_without", train)
    return settings


def test_answers_are_kept_until_the_code_that_trains_changes(
    tmp_path: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answers(tmp_path) == 1.0
    assert answers(tmp_path) == 1.0
    monkeypatch.setattr(cli.ablation, "source_digest", lambda *_: "of tomorrow")
    assert answers(tmp_path) == 2.0


def test_trainings_that_are_shorter_than_the_warmup_still_reach_their_learning_rate(
    tmp_path: Path, trained: list[Any]
) -> None:
    answers(tmp_path, epochs=2)
    assert (trained[0].train.epochs, trained[0].train.warmup_epochs) == (2, 1.0)
