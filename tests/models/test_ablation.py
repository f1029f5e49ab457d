"""Networks that never saw a feature, on the small table whose labels follow fare and company."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from gates.ablation import Judge
from gates.intervals import Bootstrap
from gates.metrics import METRICS_OF
from models import ablation
from models.inputs import Reader, load_split
from models.settings import NetworkSettings, TrainSettings
from models.trainer import Data, Settings
from schemas.features import LabelKind
from tests.models.conftest import only


def data_of(table: SimpleNamespace, memory_rows: int = 10_000) -> Data:
    split = load_split("train", table.files, Reader(table.features, table.graph), memory_rows)
    return Data(split, split, table.features, table.graph)


def settings(seed: int, epochs: int = 5) -> Settings:
    train = TrainSettings(epochs=epochs, batch_size=64, learning_rate=0.02, seed=seed, checks=False)
    return Settings(NetworkSettings(hidden_units=()), train)  # the linear part is enough, and quick


@only(LabelKind.BINARY)
def test_the_decisive_feature_is_missed_and_the_useless_one_is_not(table: SimpleNamespace) -> None:
    data = data_of(table)
    truth = ablation.truth(data.validation)
    judge = Judge(METRICS_OF[LabelKind.BINARY][0], truth, Bootstrap.draw(len(truth), 200, 0.95))
    whole, without_fare, without_hour = (
        judge.trainings([ablation.answers_without(data, settings(seed), dropped) for seed in (1, 2)])
        for dropped in ((), ("fare",), ("hour",))
    )
    fare = judge.contribution("fare", ("fare",), whole, without_fare)
    hour = judge.contribution("hour", ("hour",), whole, without_hour)
    assert fare.low > 0.05
    assert hour.low <= 0 <= hour.high


@only(LabelKind.REGRESSION)
def test_a_network_without_a_feature_answers_every_row_even_of_a_split_that_is_not_held(
    table: SimpleNamespace,
) -> None:
    data = data_of(table, memory_rows=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = ablation.answers_without(data, settings(1, epochs=1), ("row", "remark"))
    assert found.shape == (len(table.rows),)
    assert np.isfinite(found).all()


@only(LabelKind.BINARY)
def test_what_is_no_feature_and_what_leaves_none_is_said(table: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="'fair': no such feature; there are fare, row"):
        ablation.remaining(table.features, ["fair"])
    with pytest.raises(ValueError, match="leave one in"):
        ablation.remaining(table.features, [feature.name for feature in table.features])
