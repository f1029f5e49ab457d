"""What stops a training, and which epoch is kept."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models import trainer
from models.inputs import Reader, load_split
from models.settings import NetworkSettings, TrainSettings
from schemas.features import LabelKind
from tests.models.conftest import serialized


def test_the_weights_of_the_best_epoch_are_restored_after_the_last() -> None:
    network = tf_keras.Sequential([tf_keras.layers.Dense(1, use_bias=False, input_shape=(1,))])
    best = trainer.BestEpoch("val_loss", patience=0)
    best.set_model(network)
    for epoch, loss in enumerate([3.0, 1.0, 2.0]):
        network.set_weights([np.array([[float(epoch)]])])
        best.on_epoch_end(epoch, {"val_loss": loss})
    best.on_train_end()
    assert best.chosen == 1
    assert network.get_weights()[0].item() == 1.0


def test_training_that_diverges_is_an_error(table: SimpleNamespace) -> None:
    if table.features.label.kind is not LabelKind.REGRESSION:
        pytest.skip("one kind of label is enough")
    split = load_split("train", table.files, Reader(table.features, table.graph), 10_000)
    broken = replace(split, label_std=1e-30)
    data = trainer.Data(broken, split, table.features, table.graph)
    with pytest.raises(trainer.TrainingError, match="diverged"):
        trainer.fit(data, trainer.Settings(NetworkSettings(), TrainSettings(epochs=1)))


def test_one_class_alone_cannot_be_trained_on(table: SimpleNamespace, tmp_path: Path) -> None:
    if table.features.label.kind is LabelKind.REGRESSION:
        pytest.skip("a regression target has no classes")
    label = table.features.label.name
    file = tmp_path / "rows.gz"
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for row in table.rows:
            writer.write(serialized({**row, label: table.rows[0][label]}))
    arguments = SimpleNamespace(
        custom_config={"features": table.features.to_json()},
        transform_graph_path=table.graph_path,
        train_files=[str(file)],
        eval_files=[str(file)],
    )
    with pytest.raises(trainer.TrainingError, match="nothing to learn"):
        trainer.load_data(arguments, TrainSettings())


def test_an_unknown_hyperparameter_is_named() -> None:
    settings = trainer.Settings(NetworkSettings(), TrainSettings())
    with pytest.raises(ValueError, match=r"train\.lerning_rate"):
        settings.with_values({"train.lerning_rate": 1.0})
