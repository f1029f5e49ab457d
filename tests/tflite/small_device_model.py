"""A device model of one number and one id, with extreme raw values before its network; for tests."""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf

MEAN, DEVIATION, IDS, WIDTH = 5e4, 1e4, 40, 8


class SmallModel(tf.Module):
    def __init__(self, activation=tf.nn.relu, first_weight=None):
        super().__init__()
        draw = np.random.default_rng(7)

        def weights(*shape):
            return tf.Variable(draw.normal(0, 0.5, shape).astype(np.float32))

        self.table, self.first, self.bias = weights(IDS, WIDTH), weights(WIDTH + 1, 16), weights(16)
        if first_weight is not None:
            self.first.assign(tf.fill(self.first.shape, first_weight))
        self.second, self.last = weights(16, 16), weights(16, 1)
        self.activation = activation

    def network(self, value, key):
        # As a Keras layer does: without a scope of its own it would have no names of its own.
        row = tf.nn.embedding_lookup(self.table, key)
        inputs = tf.concat([tf.clip_by_value(value, -5.0, 5.0), tf.reshape(row, [1, WIDTH])], axis=1)
        hidden = tf.nn.relu(inputs @ self.first + self.bias)
        hidden = self.activation(hidden @ self.second) * hidden + hidden
        return hidden @ self.last

    @tf.function(autograph=False)
    def serve(self, number, key):
        with tf.name_scope("preprocess"):
            scaled = tf.reshape((number - MEAN) / DEVIATION, [1, 1])
            key = tf.reshape(tf.minimum(key, IDS - 1), [1, 1])
        with tf.name_scope("network"):
            logits = self.network(scaled, key)
        return {"scores": tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=1)}


def convert(folder, **options):
    """The float32 file."""
    model = SmallModel(**options)
    function = model.serve.get_concrete_function(
        tf.TensorSpec([1], tf.float32, name="number"), tf.TensorSpec([1], tf.int64, name="key")
    )
    tf.saved_model.save(model, str(folder), signatures={"serving_raw": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["serving_raw"])
    return converter.convert()


def rows(count, seed=1):
    draw = np.random.default_rng(seed)
    return [
        {
            "number": draw.normal(MEAN, DEVIATION, 1).astype(np.float32),
            "key": draw.integers(0, IDS, 1, np.int64),
        }
        for _ in range(count)
    ]
