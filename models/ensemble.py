"""Several networks as one, whose answer is the mean of theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from schemas.features import Label, LabelKind


@tf_keras.saving.register_keras_serializable("headworks")
class MeanAnswer(tf_keras.layers.Layer):
    """The logits, or the prediction, that say the mean of what several say.

    Probabilities are averaged, not logits: one network that is wrongly sure then moves the mean no further than
    its share. All is computed from logarithms, so that probabilities near 0 and 1 keep their digits.

    Args:
      kind: of the label.
    """

    def __init__(self, kind: LabelKind | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kind = LabelKind(kind)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Tensors `[batch, outputs]`, one a network → `[batch, outputs]`."""
        return _MEANS[self._kind](tf.stack([tf.cast(tensor, tf.float32) for tensor in inputs]))

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to build the layer again."""
        return {**super().get_config(), "kind": str(self._kind)}


def averaged(networks: Sequence[tf_keras.Model], label: Label) -> tf_keras.Model:
    """One network over the inputs that the given ones share; their weights are theirs still.

    Args:
      networks: from a dict of inputs by name to logits, or predictions, `[batch, outputs]`.
      label: what they predict.

    Returns:
      From the same inputs to logits whose sigmoid or softmax is the mean of theirs, or to the mean prediction. Its
      layers `member_1`, `member_2`, … are the given networks.

    Raises:
      ValueError: if there are none, or their inputs differ.
    """
    if not networks:
        raise ValueError("an ensemble needs at least one network")
    inputs = {
        name: tf_keras.Input(tensor.shape[1:], name=name, dtype=tensor.dtype)
        for name, tensor in networks[0].input.items()
    }
    for number, network in enumerate(networks, start=1):
        if set(network.input) != set(inputs):
            raise ValueError(f"member {number} reads {sorted(network.input)}, the first {sorted(inputs)}")
    # Networks are named in the order in which a process makes them, which says nothing: here by their place.
    members = [
        tf_keras.Model(network.input, network.output, name=f"member_{number}")
        for number, network in enumerate(networks, start=1)
    ]
    answers = [member(inputs) for member in members]
    return tf_keras.Model(inputs, MeanAnswer(label.kind, name="mean", dtype="float32")(answers))


def _log_mean(logarithms: tf.Tensor) -> tf.Tensor:
    """Logarithm of the mean over the first axis, of values given as logarithms."""
    return tf.reduce_logsumexp(logarithms, axis=0) - math.log(logarithms.shape[0])


def _mean_logit(logits: tf.Tensor) -> tf.Tensor:
    return _log_mean(tf.math.log_sigmoid(logits)) - _log_mean(tf.math.log_sigmoid(-logits))


def _log_mean_softmax(logits: tf.Tensor) -> tf.Tensor:
    return _log_mean(tf.nn.log_softmax(logits))


def _mean(predictions: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(predictions, axis=0)


_MEANS: Mapping[LabelKind, Callable[[tf.Tensor], tf.Tensor]] = {
    LabelKind.BINARY: _mean_logit,
    LabelKind.MULTICLASS: _log_mean_softmax,
    LabelKind.REGRESSION: _mean,
}
