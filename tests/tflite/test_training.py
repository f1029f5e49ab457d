import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.network import Network
from schemas.features import DType, Feature, FeatureSet, Kind, LabelKind
from tests.tflite.toy_model import described, toy_model
from tests.tflite.trainable_model import (
    ANALYSED,
    LABELS,
    SETTINGS,
    SPREAD,
    features,
    lateness,
    network,
    rows,
    trainable_model,
)
from tflite import training
from tflite.analysed import DeviceError
from tflite.client import ModelFileError, RowError, TrainableModel


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("trainable") / "trainable.tflite"
    file.write_bytes(trainable_model()[0])
    return file


@pytest.fixture
def model(path):
    return TrainableModel(path)


def tape_step(made, kind, columns, labels):
    """Loss, and the weights after a step as TensorFlow takes it, in the unit of the label's spread."""
    spread = SPREAD if kind is LabelKind.REGRESSION else 1.0
    losses = {
        LabelKind.BINARY: tf_keras.losses.BinaryCrossentropy(from_logits=True),
        LabelKind.MULTICLASS: tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        LabelKind.REGRESSION: tf_keras.losses.MeanSquaredError(),
    }
    with tf.GradientTape() as tape:
        outputs = made({name: tf.constant(values) for name, values in columns.items()}, training=False)
        loss = losses[kind](labels / spread, outputs / spread)
    variables = training.named_weights(made)
    gradients = tape.gradient(loss, variables)
    return float(loss), {
        name: variable.numpy() - SETTINGS.learning_rate * tf.convert_to_tensor(gradients[name]).numpy()
        for name, variable in variables.items()
    }


@pytest.mark.parametrize("kind", LabelKind)
def test_a_step_on_the_device_is_tensorflows_for_every_weight(tmp_path, kind):
    file = tmp_path / "model.tflite"
    content, made = trainable_model(kind)
    file.write_bytes(content)
    model = TrainableModel(file)
    raw = rows(11)  # Fewer than a batch: what fills it up must not count.
    columns = model.prepare(raw)
    values = {
        LabelKind.BINARY: lateness(raw),
        LabelKind.MULTICLASS: [("early", "on time", "late")[place % 3] for place in range(len(raw))],
        LabelKind.REGRESSION: [row["distance"] / 10 for row in raw],
    }
    labels = model.labels(values[kind])
    expected_loss, expected = tape_step(made, kind, columns, labels)
    before = model.weights()
    [loss] = model.learn(columns, labels)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    after = model.weights()
    assert after.keys() == expected.keys()
    for name, weight in expected.items():
        np.testing.assert_allclose(after[name], weight, atol=2e-6, err_msg=name)
    assert [name for name in after if np.array_equal(after[name], before[name])] == []


def test_it_begins_with_the_answers_of_the_network_it_was_made_of(model):
    [row] = rows(1)
    columns = model.prepare([row])
    logit = trainable_model()[1](columns, training=False).numpy().item()
    assert model.predict(row).probability["1"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_the_loss_falls_on_a_clients_rows_and_unseen_rows_are_told_apart(model):
    own, others = rows(200), rows(100, seed=1)
    losses = model.learn(model.prepare(own), model.labels(lateness(own)), epochs=20)
    assert losses[-1] < losses[0] / 2
    answers = [model.predict(row).probability["1"] for row in others]
    late = np.array(lateness(others), bool)
    assert np.min(np.array(answers)[late]) > np.max(np.array(answers)[~late])


def test_what_was_learned_is_there_again_in_a_new_interpreter(model, path, tmp_path):
    own = rows(50)
    untrained = model.predict(own[0])
    model.learn(model.prepare(own), model.labels(lateness(own)), epochs=3)
    model.save(tmp_path / "learned.npz")
    again = TrainableModel(path)
    assert again.predict(own[0]) == untrained
    again.restore(tmp_path / "learned.npz")
    assert [again.predict(row) for row in own] == [model.predict(row) for row in own]
    assert untrained != model.predict(own[0])
    assert [file.name for file in tmp_path.iterdir()] == ["learned.npz"]


# --- bad input ---


def test_weights_of_another_shape_or_name_are_refused_and_nothing_changes(model, path, tmp_path):
    weights = model.weights()
    name = "deep_logits_kernel"
    wrong = {
        "has to be float32 [8, 1], not float32 [9, 1]": {**weights, name: np.zeros([9, 1], np.float32)},
        f"the tensor '{name}' is absent": {key: value for key, value in weights.items() if key != name},
        "no tensor 'deep_logit_kernel'; did you mean": {**weights, "deep_logit_kernel": weights[name]},
    }
    for message, given in wrong.items():
        with pytest.raises(RowError) as caught:
            model.set_weights(given)
        assert message in str(caught.value)
        np.savez(tmp_path / "wrong.npz", **given)
        with pytest.raises(ModelFileError, match="weights of another model"):
            model.restore(tmp_path / "wrong.npz")
    for key, value in model.weights().items():
        np.testing.assert_array_equal(value, weights[key])


def test_a_file_that_holds_no_weights_is_refused(model, tmp_path):
    for number, content in enumerate([b"", b"PK\x03\x04 cut off", b"text", b"\x93NUMPY\x01\x00"]):
        file = tmp_path / f"{number}.npz"
        file.write_bytes(content)
        with pytest.raises(ModelFileError) as caught:
            model.restore(file)
        assert str(caught.value) == f"{file}: damaged, or not written by save"


def test_columns_and_labels_that_do_not_fit_are_named(model):
    columns, labels = model.prepare(rows(3)), model.labels([0, 1, 0])
    wrong = {
        "'label' has to be float32": (columns, labels.astype(np.int64)),
        "'carrier_id' has to be int64 [3, 1], not int64 [2, 1]": (
            {**columns, "carrier_id": columns["carrier_id"][:2]},
            labels,
        ),
        "'weight_scaled' is absent": (
            {name: column for name, column in columns.items() if name != "weight_scaled"},
            labels,
        ),
        "there is no row to learn from": (columns, labels[:0]),
        "the columns are a list: give what prepare() returned": (rows(3), labels),
        "the labels are a list: give what labels() returned": (columns, [0, 1, 0]),
        "2 labels for 3 rows": (columns, labels[:2]),
    }
    for message, given in wrong.items():
        with pytest.raises(RowError) as caught:
            model.learn(*given)
        assert message in str(caught.value)


def test_a_row_or_a_label_that_cannot_be_learned_from_is_named(model):
    with pytest.raises(RowError, match="row 2: column 'weight' is missing"):
        model.prepare([{"weight": 1}, {}])
    with pytest.raises(RowError, match="no row to learn from"):
        model.prepare([])
    with pytest.raises(RowError, match=r"row 3: late is 2, not one of \['0', '1'\]"):
        model.labels([0, True, 2])


def test_a_model_that_was_not_exported_for_training_says_so(tmp_path):
    file = tmp_path / "serving.tflite"
    file.write_bytes(described(toy_model()))
    with pytest.raises(ModelFileError, match="not exported for training: no signature prepare, train"):
        TrainableModel(file)


def test_a_network_whose_gradient_litert_lacks_is_refused():
    made = network()
    odd = Network(made.input, tf_keras.layers.Lambda(tf.math.lgamma)(made.output))
    with pytest.raises(DeviceError, match=r"LiteRT cannot train this network(.|\n)*Digamma"):
        training.convert(odd, features(), ANALYSED, SETTINGS)


def test_nothing_to_learn_and_an_encoder_are_refused():
    made = network()
    made.trainable = False
    with pytest.raises(DeviceError, match="there is nothing to learn"):
        training.convert(made, features(), ANALYSED, SETTINGS)
    photo = Feature("photo", DType.BYTES, Kind.ENCODED, encoder="resnet")
    with pytest.raises(DeviceError, match="photo_raw goes through an encoder"):
        training.convert(network(), FeatureSet((photo,), LABELS[LabelKind.BINARY]), ANALYSED, SETTINGS)
