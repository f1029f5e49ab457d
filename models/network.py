"""The network for tables: a linear model over every column, plus layers that add the interactions.

The deep part is held small by dropout and an L2 penalty, so that it adds to the linear ("wide") part without
remembering the training months. Wide & Deep: Cheng et al. 2016, arXiv:1606.07792; low-rank crossing layers
(DCN-V2): Wang et al. 2021, arXiv:2008.13535.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras import layers

from models.settings import NetworkSettings
from schemas.features import Form, ModelColumn

_LARGEST_INPUT = 5.0
"""Scaled values are cut at five standard deviations, so that one faulty reading cannot decide a score."""


@dataclass(frozen=True)
class Column:
    """A model column whose number of ids is known.

    Attributes:
      name: name of the input.
      form: as in `ModelColumn`.
      width: values per row.
      size: number of ids, in `[0, size)`; 0 for dense values.
    """

    name: str
    form: Form
    width: int
    size: int


Tensors = Mapping[str, Any]


def sized_columns(columns: Sequence[ModelColumn], vocabulary_sizes: Mapping[str, int]) -> tuple[Column, ...]:
    """Adds what only the analysed data knows: each vocabulary's entries, one missing id and one unseen id.

    Args:
      columns: as `FeatureSet.columns()` gives them.
      vocabulary_sizes: number of entries by name of vocabulary.

    Raises:
      KeyError: a column's vocabulary is not among the sizes.
    """
    return tuple(
        Column(
            column.name,
            column.form,
            column.width,
            vocabulary_sizes[column.vocabulary] + 2 if column.vocabulary else column.size or 0,
        )
        for column in columns
    )


def build_network(
    columns: Sequence[Column],
    outputs: int,
    settings: NetworkSettings,
    initial_bias: Sequence[float] | None = None,
) -> tf_keras.Model:
    """Builds the untrained network.

    Args:
      columns: the inputs; the model takes a dict with one tensor for each, by name.
      outputs: number of logits: 1 for a binary label or a regression, one a class otherwise.
      initial_bias: `[outputs]`, where the scores start: log-odds, log-shares or mean of the training
        labels. Without it the first steps go into learning how frequent the label is.

    Returns:
      A model from a dict of inputs to float32 logits `[batch, outputs]`.

    Raises:
      ValueError: there is no column, no part of the network, or not as many biases as outputs.
    """
    if not columns:
        raise ValueError("a network needs at least one input column")
    bias = (0.0,) * outputs if initial_bias is None else tuple(initial_bias)
    if len(bias) != outputs:
        raise ValueError(f"initial_bias has {len(bias)} values for {outputs} outputs")
    inputs = {column.name: _input(column) for column in columns}
    logits = _wide(columns, inputs, outputs, settings) if settings.wide else []
    if settings.hidden_units:
        logits.append(_deep(columns, inputs, outputs, settings))
    if not logits:
        raise ValueError("model.wide is false and model.hidden_units is empty: the network has no part left")
    return tf_keras.Model(inputs, Bias(bias, name="logits")(_sum(logits)))


def embedding_width(size: int, largest: int) -> int:
    """Twice the fourth root of the number of ids, at most `largest`: three airports need no eight."""
    return min(largest, math.ceil(2 * size**0.25))


@tf_keras.saving.register_keras_serializable("headworks")
class Bias(layers.Layer):
    """Adds one learned number per output, starting from given values."""

    def __init__(self, start: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._start = tuple(start)

    def build(self, input_shape: Any) -> None:
        """Creates the weight, `[outputs]`."""
        self._bias = self.add_weight(
            name="bias",
            shape=(len(self._start),),
            initializer=tf_keras.initializers.Constant(list(self._start)),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """`[batch, outputs]` → `[batch, outputs]`."""
        return inputs + self._bias

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to build the layer again."""
        return {**super().get_config(), "start": self._start}


def _input(column: Column) -> Any:
    dtype = "float32" if column.form is Form.DENSE else "int64"
    return tf_keras.Input((column.width,), name=column.name, dtype=dtype)


def _wide(columns: Sequence[Column], inputs: Tensors, outputs: int, settings: NetworkSettings) -> list[Any]:
    """One `[batch, outputs]` tensor for each id column and one for all dense values."""
    # From zero: the penalty then keeps an id that is hardly ever seen without influence.
    parts = [
        _embedding(column, inputs, outputs, "zeros", f"wide_{column.name}", settings)
        for column in columns
        if column.form is not Form.DENSE
    ]
    dense = _dense_values(columns, inputs)
    if dense:
        parts.append(_dense(outputs, settings, name="wide_dense", start="zeros")(_concatenate(dense)))
    return parts


def _deep(columns: Sequence[Column], inputs: Tensors, outputs: int, settings: NetworkSettings) -> Any:
    """Crossing layers, then hidden layers, over dense values and embeddings: `[batch, outputs]`."""
    embeddings = [
        _embedding(
            column,
            inputs,
            embedding_width(column.size, settings.embedding_size),
            # One of its own for each: a shared one would start every embedding from the same numbers.
            tf_keras.initializers.RandomNormal(stddev=0.05),
            f"deep_{column.name}",
            settings,
        )
        for column in columns
        if column.form is not Form.DENSE
    ]
    first = layers.Dropout(settings.input_dropout)(_concatenate(_dense_values(columns, inputs) + embeddings))
    hidden = first
    for _ in range(settings.cross_layers):
        hidden = _cross(first, hidden, settings)
    for width in settings.hidden_units:
        hidden = layers.ReLU()(_dense(width, settings, use_bias=True)(hidden))
        hidden = layers.Dropout(settings.dropout)(hidden)
    return _dense(outputs, settings, name="deep_logits")(hidden)


def _cross(first: Any, current: Any, settings: NetworkSettings) -> Any:
    """`first * (U V current + b) + current`: raises the degree of the interactions by one (DCN-V2)."""
    low_rank = _dense(settings.cross_rank, settings)(current)
    mixed = _dense(first.shape[-1], settings, use_bias=True)(low_rank)
    return layers.Add()([layers.Multiply()([first, mixed]), current])


def _dense(
    width: int,
    settings: NetworkSettings,
    *,
    use_bias: bool = False,
    name: str | None = None,
    start: str = "glorot_uniform",
) -> layers.Dense:
    return layers.Dense(
        width,
        use_bias=use_bias,
        kernel_initializer=start,
        kernel_regularizer=tf_keras.regularizers.l2(settings.l2),
        name=name,
    )


def _dense_values(columns: Sequence[Column], inputs: Tensors) -> list[Any]:
    return [
        tf.clip_by_value(inputs[column.name], -_LARGEST_INPUT, _LARGEST_INPUT)
        for column in columns
        if column.form is Form.DENSE
    ]


def _embedding(
    column: Column, inputs: Tensors, width: int, start: Any, name: str, settings: NetworkSettings
) -> Any:
    """`[batch, width]`; for a bag the mean over its ids, zeros where it is empty."""
    ids = inputs[column.name]
    rows = layers.Embedding(
        column.size,
        width,
        embeddings_initializer=start,
        embeddings_regularizer=tf_keras.regularizers.l2(settings.embedding_l2),
        name=name,
    )(ids)
    if column.form is Form.ID:
        return layers.Flatten()(rows)
    is_id = tf.cast(tf.not_equal(ids, 0), tf.float32)[:, :, tf.newaxis]
    return tf.math.divide_no_nan(tf.reduce_sum(rows * is_id, axis=1), tf.reduce_sum(is_id, axis=1))


def _concatenate(tensors: Sequence[Any]) -> Any:
    return layers.Concatenate()(tensors) if len(tensors) > 1 else tensors[0]


def _sum(tensors: Sequence[Any]) -> Any:
    return layers.Add()(tensors) if len(tensors) > 1 else tensors[0]
