"""Encoders that were trained elsewhere: frozen they stay, fine-tuned they move, and they travel with the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.encoders import Encoded, EncoderError

TEXTS = ["good fast", "bad slow", "good", "slow"] * 8
LABELS = np.array([[1.0], [0.0], [1.0], [0.0]] * 8, np.float32)


class Words(tf.Module):
    """The mean of a vector for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(tf.random.stateless_normal([16, 3], seed=[1, 2]), name="table")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        words = tf.strings.to_hash_bucket_fast(tf.strings.split(texts), 16)
        return tf.reduce_mean(tf.gather(self.table, words), axis=1)


def callable_model(folder: Path) -> str:
    tf.saved_model.save(Words(), str(folder / "callable"))
    return str(folder / "callable")


def signature_alone(folder: Path) -> str:
    words = Words()
    holder = tf.Module()
    holder.words = words
    tf.saved_model.save(holder, str(folder / "signature"), signatures=words.__call__)
    return str(folder / "signature")


def trained_keras_model(folder: Path) -> str:
    text = tf_keras.Input((1,), dtype="string")
    ids = tf_keras.layers.Hashing(16)(text)
    vector = tf_keras.layers.Flatten()(tf_keras.layers.Embedding(16, 3)(ids))
    model = tf_keras.Model(text, tf_keras.layers.Dense(1)(vector))
    model.compile("sgd", "mse")
    model.fit(tf.constant(TEXTS)[:, tf.newaxis], LABELS, epochs=1, verbose=0)
    tf_keras.Model(text, vector).save(folder / "words.keras")
    return str(folder / "words.keras")


def network_on(path: str, *, trainable: bool) -> tf_keras.Model:
    remark = tf_keras.Input((1,), dtype="string", name="remark")
    vector = Encoded(path, "remark", trainable, name="encoded_remark")(remark)
    network = tf_keras.Model({"remark": remark}, tf_keras.layers.Dense(1)(vector))
    network.compile(tf_keras.optimizers.Adam(0.1), tf_keras.losses.BinaryCrossentropy(from_logits=True))
    return network


def values(layer: tf_keras.layers.Layer) -> list[Any]:
    return [np.array(weight) for weight in layer.get_weights()]


INPUTS = {"remark": tf.constant(TEXTS)[:, tf.newaxis]}
KINDS = pytest.mark.parametrize("saved", [callable_model, signature_alone, trained_keras_model])


@KINDS
def test_a_frozen_encoder_stays_to_the_bit_and_a_fine_tuned_one_learns(
    saved: Callable[[Path], str], tmp_path: Path
) -> None:
    path = saved(tmp_path)
    losses = {}
    for trainable in (False, True):
        network = network_on(path, trainable=trainable)
        layer = network.get_layer("encoded_remark")
        before = values(layer)
        assert len(before) == 1
        assert bool(layer.trainable_weights) is trainable
        history = network.fit(INPUTS, LABELS, epochs=4, verbose=0)
        assert np.array_equal(before[0], values(layer)[0]) is not trainable
        losses[trainable] = history.history["loss"]
    assert losses[True][-1] < losses[True][0]


@KINDS
def test_the_encoder_travels_inside_the_saved_network(saved: Callable[[Path], str], tmp_path: Path) -> None:
    path = Path(saved(tmp_path))
    network = network_on(str(path), trainable=True)
    network.fit(INPUTS, LABELS, epochs=1, verbose=0)
    answer = network(INPUTS).numpy()
    module = tf.Module()
    module.network = network
    spec = {"remark": tf.TensorSpec([None, 1], tf.string, name="remark")}
    serve = tf.function(lambda remark: {"logits": network({"remark": remark}, training=False)})
    tf.saved_model.save(module, str(tmp_path / "out"), signatures=serve.get_concrete_function(**spec))
    path.rename(path.with_name("gone"))
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"](**INPUTS)["logits"]
    np.testing.assert_allclose(served, answer, rtol=1e-6)


def test_a_missing_value_is_a_vector_of_zeros(tmp_path: Path) -> None:
    layer = Encoded(callable_model(tmp_path), "remark")
    vectors = layer(tf.constant([["good"], [""]])).numpy()
    assert vectors[0].any()
    assert not vectors[1].any()


def test_images_are_decoded_and_resized_to_what_the_model_takes(tmp_path: Path) -> None:
    pixels = tf_keras.Input((4, 4, 3))
    model = tf_keras.Model(pixels, tf_keras.layers.GlobalAveragePooling2D()(pixels))
    model.save(tmp_path / "mean.keras")
    red = tf.io.encode_png(tf.constant([[[200, 0, 10]] * 9] * 7, tf.uint8))
    layer = Encoded(str(tmp_path / "mean.keras"), "photo")
    vectors = layer(tf.stack([red, tf.constant("")])[:, tf.newaxis])
    np.testing.assert_allclose(vectors, [[200, 0, 10], [0, 0, 0]], atol=1e-3)


class Numbers(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def __call__(self, numbers: tf.Tensor) -> tf.Tensor:
        return numbers[:, tf.newaxis]


class Flat(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.strings.length(texts), tf.float32)


@pytest.mark.parametrize(
    ("module", "what"), [(Numbers, "does not take strings"), (Flat, r"output is float32 \(None,\)")]
)
def test_a_saved_model_that_breaks_the_contract_is_named_with_its_column(
    module: type[tf.Module], what: str, tmp_path: Path
) -> None:
    tf.saved_model.save(module(), str(tmp_path))
    with pytest.raises(EncoderError, match=rf"feature 'remark': encoder {tmp_path}: .*{what}"):
        Encoded(str(tmp_path), "remark")


def test_a_path_that_holds_no_encoder_is_named_with_its_column(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"'remark': encoder .*nowhere: no such file"):
        Encoded(str(tmp_path / "nowhere"), "remark")
    with pytest.raises(EncoderError, match="neither a tf_keras model nor a SavedModel"):
        Encoded(str(tmp_path), "remark")
    (tmp_path / "torn.keras").write_text("no model")
    with pytest.raises(EncoderError, match="tf_keras cannot load it"):
        Encoded(str(tmp_path / "torn.keras"), "remark")


def test_fine_tuning_needs_weights(tmp_path: Path) -> None:
    class Length(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.strings.length(texts), tf.float32)[:, tf.newaxis]

    tf.saved_model.save(Length(), str(tmp_path))
    assert Encoded(str(tmp_path), "remark")(tf.constant([["four"]])).numpy() == 4.0
    with pytest.raises(EncoderError, match="no weights that can be trained"):
        Encoded(str(tmp_path), "remark", trainable=True)
