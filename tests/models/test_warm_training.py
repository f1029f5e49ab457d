"""Training that begins with the champion's weights, as the Trainer does it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models import signatures, trainer
from models.inputs import Reader, load_split
from models.settings import NetworkSettings, TrainSettings, UnfreezeStep, WarmStartSettings
from schemas.features import LabelKind
from tests.models.conftest import only
from tests.models.test_trainer import arguments_of

NETWORK = NetworkSettings(hidden_units=(4,), dropout=0.0, input_dropout=0.0)
STILL = TrainSettings(
    epochs=1, batch_size=128, learning_rate=1e-12, checks=False, warm_start=WarmStartSettings()
)


def weights(fitted: trainer.Fitted) -> dict[str, np.ndarray]:
    return {weight.name: weight.numpy() for weight in fitted.network.weights}


@only(LabelKind.BINARY)
def test_training_begins_with_the_weights_of_the_champion(table: SimpleNamespace, tmp_path: Path) -> None:
    split = load_split("train", table.files, Reader(table.features, table.graph), 10_000)
    data = trainer.Data(split, split, table.features, table.graph)
    settings = trainer.Settings(NETWORK, TrainSettings(epochs=3, learning_rate=0.01, checks=False))
    champion = trainer.fit(data, settings)
    signatures.export(champion.network, data.features, data.graph, str(tmp_path))

    cold = trainer.fit(data, trainer.Settings(NETWORK, STILL))
    warm = trainer.fit(replace(data, base_model=str(tmp_path)), trainer.Settings(NETWORK, STILL))
    for name, value in weights(champion).items():
        np.testing.assert_allclose(weights(warm)[name], value, atol=1e-8, err_msg=name)
    assert any(not np.allclose(weights(cold)[name], value) for name, value in weights(champion).items())
    assert warm.history[0]["val_auc"] == pytest.approx(champion.history[champion.chosen]["val_auc"], abs=1e-4)
    assert not cold.carried
    assert {one.layer for one in warm.carried} >= {"wide_company_id", "deep_company_id", "hidden_1"}


@only(LabelKind.BINARY)
def test_the_trainer_takes_its_base_model_keeps_closed_layers_and_records_it(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    first = SimpleNamespace(**arguments_of(table, tmp_path / "first", epochs=1, checks=False))
    trainer.run_fn(first)
    warm = WarmStartSettings(unfreeze=(UnfreezeStep(9, ("hidden_*", "wide_company_id")),))
    given = arguments_of(table, tmp_path / "second", epochs=2, checks=False, warm_start=asdict(warm))
    second = SimpleNamespace(**{**given, "base_model": first.serving_model_dir})
    trainer.run_fn(second)
    record = json.loads(Path(second.model_run_dir, "training.json").read_text())
    assert record["warm_start"]["base_model"] == first.serving_model_dir
    rows = {one["layer"]: (one["rows_carried"], one["rows_new"]) for one in record["warm_start"]["layers"]}
    assert rows["deep_company_id"] == (5, 0)
    old, new = (saved(one.serving_model_dir) for one in (first, second))
    same = {name for name in old if np.array_equal(old[name], new[name])}
    assert same == {"hidden_1/kernel", "hidden_1/bias", "wide_company_id/embeddings"}


def saved(folder: str) -> dict[str, np.ndarray]:
    from models.warm_start import _Saved

    model = _Saved(folder)
    return {name: model.value(name) for name in model.keys}
