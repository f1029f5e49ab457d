"""A device model with one feature of each type, whose score lets every byte of its inputs be seen."""

import tempfile
from functools import cache

import tensorflow as tf

from tflite.metadata import DeviceFeature, DeviceLabel, Metadata, attach

FEATURES = (
    DeviceFeature("age", "age", "float", "numeric", is_required=True, unit="years"),
    DeviceFeature("visits last year", "visits_last_year", "int", "numeric", is_required=False),
    DeviceFeature("city", "city", "bytes", "categorical", is_required=False, width=6),
    DeviceFeature("device", "device", "bytes", "hashed", is_required=False, width=8),
    DeviceFeature("remark", "remark", "bytes", "text", is_required=False, width=12),
)
BINARY = DeviceLabel("churned", "binary", ("no", "yes"))


def described(content, label=BINARY, features=FEATURES, threshold=0.6):
    """The file with metadata."""
    return attach(
        content, Metadata("shop", 7, "run-1", "0" * 64, "float32", label, features, threshold, "a test")
    )


@cache
def toy_model(outputs=1):
    """The file without metadata; one output is a probability, more are classes, none is a number."""
    text = {f.graph_name: tf.TensorSpec([1, f.width], tf.uint8, f.graph_name) for f in FEATURES if f.width}
    module = tf.Module()
    module.score = tf.function(_answer(outputs), autograph=False)
    concrete = module.score.get_concrete_function(
        age=tf.TensorSpec([1], tf.float32, "age"),
        visits_last_year=tf.TensorSpec([1], tf.int64, "visits_last_year"),
        **text,
    )
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_raw": concrete})
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def _answer(outputs):
    def answer(**inputs):
        # Sines of different slopes: hardly any two rows have the same sum.
        parts = [
            tf.reduce_sum(tf.sin(_small(tensor) * slope * _slopes(tensor.shape[-1])))
            for slope, (_, tensor) in enumerate(sorted(inputs.items()), start=1)
            if tensor.dtype != tf.float32
        ]
        age = tf.where(tf.equal(inputs["age"], inputs["age"]), inputs["age"], -1.0)
        total = tf.reshape(0.01 * age + 0.1 * tf.add_n(parts), [1, 1])
        if outputs == 0:
            return {"prediction": total}
        if outputs == 1:
            scores = tf.concat([tf.sigmoid(-total), tf.sigmoid(total)], axis=1)
            return {"scores": scores, "probability": scores[:, 1:]}
        return {"scores": tf.nn.softmax(total * tf.range(1.0, outputs + 1.0))}

    return answer


def _small(integers):
    # The sine of the missing integer would be no number.
    return tf.clip_by_value(tf.cast(integers, tf.float32), -1000.0, 1000.0)


def _slopes(size):
    return tf.range(1.0, size + 1.0) / 10
