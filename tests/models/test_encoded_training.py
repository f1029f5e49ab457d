"""A raw text column that an encoder turns into numbers, from training to every signature."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models import signatures, trainer
from models.inputs import Reader, load_split
from models.settings import NetworkSettings, TrainSettings
from schemas.features import DType, Feature, Kind, LabelKind
from tests.models.conftest import FEATURES, made_table, serialized
from tests.models.test_encoders import Words


@pytest.mark.parametrize("trainable", [False, True])
def test_a_frozen_encoder_stays_a_fine_tuned_one_moves_and_signatures_answer_as_the_network(
    trainable: bool, tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder"
    words = Words()
    tf.saved_model.save(words, str(encoder))
    remark = Feature("remark", DType.BYTES, Kind.ENCODED, encoder=str(encoder), trainable=trainable)
    table = made_table(tmp_path, LabelKind.BINARY, (FEATURES[0], remark))
    split = load_split("train", table.files, Reader(table.features, table.graph), 10_000)
    data = trainer.Data(split, split, table.features, table.graph)
    settings = TrainSettings(epochs=2, learning_rate=0.01, checks=False)
    network = trainer.fit(data, trainer.Settings(NetworkSettings(hidden_units=(4,)), settings)).network
    [learned] = network.get_layer("encoded_remark_raw").get_weights()
    assert np.array_equal(learned, words.table.numpy()) is not trainable

    signatures.export(network, table.features, table.graph, str(tmp_path / "out"))
    encoder.rename(tmp_path / "gone")
    served = tf.saved_model.load(str(tmp_path / "out")).signatures
    rows: list[dict[str, Any]] = [
        {"fare": 1.5, "remark": "bad"},
        {"fare": -0.5, "remark": "Good one"},
        {"fare": 0.0},
    ]
    examples = tf.constant([serialized({**row, "tip": 0}) for row in rows])
    inputs, _ = split.reader.decode(examples)
    expected = tf.sigmoid(network(inputs)).numpy()
    raw = {
        "fare": tf.constant([row["fare"] for row in rows]),
        "remark": tf.constant([row.get("remark", "") for row in rows]),
    }
    for answer in (served["serving_default"](examples), served["serving_raw"](**raw)):
        np.testing.assert_allclose(answer["probability"], expected, rtol=1e-5)
