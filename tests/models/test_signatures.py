"""What the trained and saved model answers, against the network in memory."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models import signatures, trainer
from models.inputs import Reader, load_split
from models.signatures import answers
from schemas.features import MISSING_INT, DType, LabelKind
from tests.models.conftest import serialized

MISSING = {DType.FLOAT: float("nan"), DType.INT: MISSING_INT, DType.BYTES: ""}
TYPES = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.string}


@pytest.fixture(scope="module")
def trained(table: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The model that `run_fn` saved, the network it saved, and its record."""
    folder = tmp_path_factory.mktemp("model")
    kept: dict[str, Any] = {}
    export = signatures.export
    arguments = SimpleNamespace(
        custom_config={
            "features": table.features.to_json(),
            "model": {"hidden_units": [8]},
            "train": {"epochs": 8, "batch_size": 32, "learning_rate": 0.02},
        },
        hyperparameters={"space": [], "values": {"model.dropout": 0.0}},
        transform_graph_path=table.graph_path,
        train_files=table.files,
        eval_files=table.files,
        serving_model_dir=str(folder / "serving"),
        model_run_dir=str(folder / "run"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "export", lambda n, *a: kept.update(network=n) or export(n, *a))
        trainer.run_fn(arguments)
    record = json.loads((folder / "run" / "training.json").read_text())
    return SimpleNamespace(
        network=kept["network"], record=record, saved=tf.saved_model.load(str(folder / "serving"))
    )


@pytest.fixture(scope="module")
def expected(trained: SimpleNamespace, table: SimpleNamespace) -> dict[str, Any]:
    """The answers of the network in memory, over inputs of the training path."""
    split = load_split("all", table.files, Reader(table.features, table.graph), 10_000)
    logits = trained.network.predict(split.batches(100), verbose=0)
    return {name: value.numpy() for name, value in answers(tf.constant(logits), table.features.label).items()}


def examples(table: SimpleNamespace) -> tf.Tensor:
    label = table.features.label.name
    return tf.constant([serialized({k: v for k, v in row.items() if k != label}) for row in table.rows])


def assert_same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(answer) == set(expected)
    for name, value in expected.items():
        if value.dtype == object:
            np.testing.assert_array_equal(answer[name].numpy(), value)
        else:
            np.testing.assert_allclose(answer[name].numpy(), value, rtol=1e-5, atol=1e-5)


def test_serialized_examples_without_a_label_score_as_in_memory(
    trained: SimpleNamespace, table: SimpleNamespace, expected: dict[str, Any]
) -> None:
    assert_same(trained.saved.signatures["serving_default"](examples=examples(table)), expected)


def test_raw_columns_score_as_in_memory(
    trained: SimpleNamespace, table: SimpleNamespace, expected: dict[str, Any]
) -> None:
    raw = {
        feature.name: tf.constant(
            [row.get(feature.name, MISSING[feature.dtype]) for row in table.rows], TYPES[feature.dtype]
        )
        for feature in table.features
    }
    assert_same(trained.saved.signatures["serving_raw"](**raw), expected)


def test_each_class_gets_its_own_score(
    trained: SimpleNamespace, table: SimpleNamespace, expected: dict[str, Any]
) -> None:
    label = table.features.label
    truth = [row[label.name] for row in table.rows]
    if label.kind is LabelKind.REGRESSION:
        assert np.corrcoef(expected["prediction"].ravel(), truth)[0, 1] > 0.7
        return
    for position, name in enumerate(label.classes):
        is_class = np.array([str(value) == name for value in truth])
        assert (expected["classes"][:, position] == name.encode()).all()
        scores = expected["scores"][:, position]
        assert scores[is_class].mean() > scores[~is_class].mean() + 0.1, name
    if label.kind is LabelKind.BINARY:
        np.testing.assert_array_equal(expected["probability"], expected["scores"][:, 1:])


def test_the_transformed_features_carry_the_label(trained: SimpleNamespace, table: SimpleNamespace) -> None:
    rows = tf.constant([serialized(row) for row in table.rows[:3]])
    transformed = trained.saved.signatures["transform_features"](examples=rows)
    columns = {column.name for column in table.features.columns()}
    assert set(transformed) == columns | {table.features.label.transformed_name}


def test_the_record_names_the_epoch_that_was_kept(trained: SimpleNamespace) -> None:
    record = trained.record
    values = [epoch[record["monitor"]] for epoch in record["history"]]
    best = max(values) if record["monitor"] == "val_auc" else min(values)
    assert values[record["chosen_epoch"] - 1] == best
    assert record["model"]["dropout"] == 0.0, "the tuned value"
