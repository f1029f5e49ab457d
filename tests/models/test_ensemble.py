"""Several networks exported as one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models import signatures, trainer
from models.ensemble import averaged
from models.inputs import Reader
from models.settings import NetworkSettings, TrainSettings
from models.signatures import answers
from models.trainer import Data, Settings, load_data
from schemas.features import DType, Label, LabelKind
from tests.models.conftest import serialized


def spread(data: Data, seed: int, **network: Any) -> tf_keras.Model:
    """A network whose scores are spread, without training one."""
    model = trainer.untrained(data, Settings(NetworkSettings(**network), TrainSettings()))
    model.set_weights([w + np.random.default_rng(seed).normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def data(table: SimpleNamespace) -> Data:
    arguments = SimpleNamespace(
        custom_config={"features": table.features.to_json()},
        transform_graph_path=table.graph_path,
        train_files=table.files,
        eval_files=table.files,
    )
    return load_data(arguments, TrainSettings())


@pytest.fixture(scope="module")
def members(data: Data) -> list[tf_keras.Model]:
    return [
        spread(data, 1, hidden_units=(4,)),
        spread(data, 2, hidden_units=(8, 4), cross_layers=0),
        spread(data, 3, hidden_units=(), wide=True),
    ]


def test_the_answer_is_the_mean_of_the_members_answers_in_every_signature(
    table: SimpleNamespace, data: Data, members: list[tf_keras.Model], tmp_path: Path
) -> None:
    signatures.export(
        averaged(members, table.features.label), data.features, data.graph, str(tmp_path / "all")
    )
    loaded_model = tf.saved_model.load(str(tmp_path / "all"))
    examples = tf.constant([serialized(row) for row in table.rows[:50]])
    answer = loaded_model.signatures["serving_default"](examples=examples)
    name = "prediction" if table.features.label.kind is LabelKind.REGRESSION else "scores"
    columns, _ = Reader(data.features, data.graph).decode(examples)
    # In memory, as exported networks answer the same (test_signatures), and each export costs seconds.
    each = [answers(member(columns), table.features.label)[name].numpy() for member in members]
    assert np.std(each, axis=0).max() > 1e-2, "members that agree would prove nothing"
    np.testing.assert_allclose(answer[name], np.mean(each, axis=0), rtol=2e-5, atol=1e-6)


def test_the_members_keep_their_weights_and_have_names_of_their_own(
    table: SimpleNamespace, members: list[tf_keras.Model]
) -> None:
    whole = averaged(members, table.features.label)
    names = [layer.name for layer in whole.layers]
    assert len(names) == len(set(names))
    assert whole.count_params() == sum(member.count_params() for member in members)
    for number, member in enumerate(members, start=1):
        for kept, given in zip(whole.get_layer(f"member_{number}").weights, member.weights, strict=True):
            assert kept is given


BINARY = Label("tip", DType.INT, LabelKind.BINARY, ("0", "1"))


def fixed(*logits: float) -> list[tf_keras.Model]:
    """Networks that answer a number each, whatever they read."""
    made = []
    for logit in logits:
        read = {"x": tf_keras.Input((1,), name="x")}
        made.append(tf_keras.Model(read, read["x"] * 0.0 + logit))
    return made


def test_a_probability_near_one_keeps_its_digits() -> None:
    answer = averaged(fixed(60.0, 62.0), BINARY)({"x": tf.zeros([1, 1])}).numpy().item()
    # 1 - p is the mean of exp(-60) and exp(-62), which no float32 probability could hold.
    assert answer == pytest.approx(-np.log((np.exp(-60) + np.exp(-62)) / 2), rel=1e-6)


def test_one_that_is_wrongly_sure_does_not_outvote_the_others() -> None:
    answer = averaged(fixed(2.0, 2.0, -50.0), BINARY)({"x": tf.zeros([1, 1])}).numpy().item()
    assert tf.sigmoid(answer).numpy() == pytest.approx(2 / 3 * tf.sigmoid(2.0).numpy(), rel=1e-5)


def test_networks_that_read_different_columns_are_no_ensemble() -> None:
    other = {"y": tf_keras.Input((1,), name="y")}
    with pytest.raises(ValueError, match=r"member 2 reads \['y'\], the first \['x'\]"):
        averaged([*fixed(1.0), tf_keras.Model(other, other["y"] * 1.0)], BINARY)
