"""What a saved model answers, and how.

`serving_default` takes serialized tf.Examples, `serving_raw` the raw columns by name (`Feature.graph_name`: with
underscores for spaces and the like), and `transform_features` shows what the network sees. All carry the same
preprocessing graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras

from models.inputs import as_specified, parse_raw, present, raw_spec
from models.warm_start import note_columns
from schemas.features import DType, FeatureSet, Label, LabelKind

_TYPES = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.string}


class ServedModel(tf.Module):
    """A network with its preprocessing graph, as it is saved.

    Attributes:
      network: transformed columns → logits `[batch, outputs]`.
      tft_layer: raw columns → transformed columns. Held here so that its vocabularies are saved with it.
    """

    def __init__(self, network: tf_keras.Model, features: FeatureSet, graph: tft.TFTransformOutput) -> None:
        super().__init__(name="served_model")
        self.network = network
        self.tft_layer = graph.transform_features_layer()
        self._features = features
        self._spec = raw_spec(features, graph)
        self._input_spec = {feature.name: self._spec[feature.name] for feature in features}

    def signatures(self) -> dict[str, Any]:
        """The concrete functions by name of signature."""
        examples = tf.TensorSpec([None], tf.string, name="examples")
        raw = {
            feature.graph_name: tf.TensorSpec([None], _TYPES[feature.dtype], name=feature.graph_name)
            for feature in self._features
        }
        return {
            "serving_default": _traced(self._answer_examples).get_concrete_function(examples),
            "serving_raw": _traced(self._answer_raw).get_concrete_function(**raw),
            "transform_features": _traced(self._transform).get_concrete_function(examples),
        }

    def _answer_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(parse_raw(examples, self._input_spec))

    def _answer_raw(self, **columns: tf.Tensor) -> dict[str, tf.Tensor]:
        given = {feature.name: columns[feature.graph_name] for feature in self._features}
        return self._answer(
            {name: as_specified(present(values), self._spec[name]) for name, values in given.items()}
        )

    def _transform(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(self.tft_layer(parse_raw(examples, self._spec)))

    def _answer(self, raw: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        transformed = self.tft_layer(raw)
        inputs = {column.name: transformed[column.name] for column in self._features.columns()}
        return answers(self.network(inputs, training=False), self._features.label)


def _traced(function: Callable[..., Any]) -> Any:
    # Nothing branches on a tensor; to look for that takes seconds.
    return tf.function(function, autograph=False)


def answers(logits: tf.Tensor, label: Label) -> dict[str, tf.Tensor]:
    """The outputs of a signature, from logits `[batch, outputs]`.

    Returns:
      For classes `scores`, float32 `[batch, classes]`, and `classes`, string of the same shape, as ordered in
      `label.classes`; for a binary label also `probability` `[batch, 1]` of the second class. For regression
      `prediction`, float32 `[batch, 1]`.
    """
    if label.kind is LabelKind.REGRESSION:
        return {"prediction": logits}
    classes = tf.tile(tf.constant([list(label.classes)]), [tf.shape(logits)[0], 1])
    if label.kind is LabelKind.MULTICLASS:
        return {"scores": tf.nn.softmax(logits), "classes": classes}
    # The sigmoid of the negated logit keeps the digits of a tiny share that 1 - p would lose.
    scores = tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=1)
    return {"scores": scores, "classes": classes, "probability": scores[:, 1:]}


def export(network: tf_keras.Model, features: FeatureSet, graph: tft.TFTransformOutput, folder: str) -> None:
    """Saves the network with its preprocessing graph and all signatures."""
    model = ServedModel(network, features, graph)
    tf.saved_model.save(model, folder, signatures=model.signatures())
    note_columns(features.columns(), folder)
