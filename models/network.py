"""The network for tables: a linear model over every column, plus layers that add the interactions.

The deep part is held small by dropout and an L2 penalty, so that it adds to the linear ("wide") part without
remembering the training months. Wide & Deep: Cheng et al. 2016, arXiv:1606.07792; low-rank crossing layers
(DCN-V2): Wang et al. 2021, arXiv:2008.13535.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras import layers

from models.encoders import Encoded
from models.settings import NetworkSettings
from schemas.features import Form, ModelColumn

_DTYPES = {Form.DENSE: "float32", Form.ID: "int64", Form.BAG: "int64", Form.RAW: "string"}

_LARGEST_INPUT = 5.0
"""Scaled values are cut at five standard deviations, so that one faulty reading cannot decide a score."""


@dataclass(frozen=True)
class Column:
    """A model column whose number of ids is known.

    Attributes:
      name: name of the input.
      form: as in `ModelColumn`.
      width: values per row.
      size: number of ids, in `[0, size)`; 0 for other values.
      encoder: as in `ModelColumn`.
      is_fine_tuned: as in `ModelColumn`.
    """

    name: str
    form: Form
    width: int
    size: int
    encoder: str | None = None
    is_fine_tuned: bool = False


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
            column.encoder,
            column.is_fine_tuned,
        )
        for column in columns
    )


@dataclass(frozen=True)
class Compute:
    """How the layers compute; what they say is the same, up to rounding.

    Attributes:
      precision: `off`, or the type, `float16` or `bfloat16`, in which the deep part computes. Weights and
        logits stay float32.
      recompute: whether hidden and crossing layers are computed again in the backward pass instead of being
        kept (Chen et al. 2016, arXiv:1604.06174).
      seed: of the dropout.
    """

    precision: str = "off"
    recompute: bool = False
    seed: int = 0


@tf_keras.saving.register_keras_serializable("headworks")
class Network(tf_keras.Model):
    """A functional model whose training step can leave weights as they are."""

    def hold(self, gates: Mapping[int, tf.Variable]) -> None:
        """Multiplies gradients: 0 leaves a weight as it is, where the optimizer has no momentum of it yet.

        Args:
          gates: a float scalar by the weight's position in `trainable_variables`.
        """
        # Behind a function: Keras would take the scalars for weights of the model.
        self._gates = lambda: gates

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As Keras does; dropout then follows the optimizer's count of steps."""
        super().compile(*args, **kwargs)
        iterations = self.optimizer.iterations
        for layer in self.layers:
            if isinstance(layer, Dropout):
                layer.follow(lambda: iterations)

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of the optimizer on a batch of inputs, label and, where given, weights."""
        inputs, label, weights = tf_keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = self.compute_loss(inputs, label, logits, weights)
        pairs = self.optimizer.compute_gradients(loss, self.trainable_variables, tape)
        self.optimizer.apply_gradients(self._gated(pairs))
        return dict(self.compute_metrics(inputs, label, logits, weights))

    def _gated(self, pairs: Sequence[tuple[Any, Any]]) -> Sequence[tuple[Any, Any]]:
        gates = self._gates()
        return [
            (_scaled(gradient, gates[position]) if position in gates else gradient, variable)
            for position, (gradient, variable) in enumerate(pairs)
        ]

    _gates: Callable[[], Mapping[int, tf.Variable]] = staticmethod(dict)


def _scaled(gradient: Any, factor: tf.Variable) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


def build_network(
    columns: Sequence[Column],
    outputs: int,
    settings: NetworkSettings,
    initial_bias: Sequence[float] | None = None,
    compute: Compute = Compute(),
    widths: Mapping[str, int] | None = None,
) -> Network:
    """Builds the untrained network.

    Args:
      columns: the inputs; the model takes a dict with one tensor for each, by name.
      outputs: number of logits: 1 for a binary label or a regression, one a class otherwise.
      initial_bias: `[outputs]`, where the scores start: log-odds, log-shares or mean of the training
        labels. Without it the first steps go into learning how frequent the label is.
      compute: precision and memory.
      widths: of embeddings by column, where they are not to follow from the number of ids.

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
        logits.append(_deep(columns, inputs, outputs, settings, compute, widths or {}))
    if not logits:
        raise ValueError("model.wide is false and model.hidden_units is empty: the network has no part left")
    return Network(inputs, Bias(bias, name="logits")(_sum(logits)))


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


@tf_keras.saving.register_keras_serializable("headworks")
class Dropout(layers.Layer):
    """Dropout whose draws the seed, the step and the replica decide, and nothing else.

    Training that goes on from a checkpoint therefore draws what it would have drawn. Keras' own keeps its state
    where no checkpoint sees it. Counter-based random numbers: Salmon et al. 2011, doi:10.1145/2063384.2063405.
    """

    def __init__(self, rate: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rate = rate
        self._seed = seed
        self._step: Callable[[], Any] = lambda: 0

    def follow(self, step: Callable[[], Any]) -> None:
        """Takes the number of steps done, int64, from here."""
        self._step = step

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """Any shape to the same; the identity but in training."""
        if training:
            return self._dropped(inputs)
        return inputs

    def _dropped(self, inputs: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        pair = tf.stack([tf.constant(self._seed, tf.int64), tf.cast(self._step(), tf.int64)])
        seed = tf.random.experimental.stateless_fold_in(pair, tf.cast(replica, tf.int64))
        return tf.nn.experimental.stateless_dropout(inputs, self._rate, seed=seed)

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to build the layer again."""
        return {**super().get_config(), "rate": self._rate, "seed": self._seed}


@tf_keras.saving.register_keras_serializable("headworks")
class Recomputed(layers.Layer):
    """A layer whose output is not kept for the backward pass but computed again there."""

    def __init__(self, layer: layers.Layer, **kwargs: Any) -> None:
        super().__init__(name=layer.name, **kwargs)
        self._layer = layer

    def build(self, input_shape: Any) -> None:
        """Creates the layer's weights: a recomputed function may not."""
        self._layer.build(input_shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the layer gives."""
        output = tf.recompute_grad(self._layer)(inputs)
        output.set_shape(self._layer.compute_output_shape(inputs.shape))
        return output

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to build the layer again."""
        config = super().get_config()
        del config["name"]
        return {**config, "layer": tf_keras.saving.serialize_keras_object(self._layer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Recomputed:
        """The layer again."""
        return cls(tf_keras.saving.deserialize_keras_object(config.pop("layer")), **config)


@contextmanager
def _policy(precision: str) -> Iterator[None]:
    """Layers that are made within compute in this type and keep float32 weights."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32" if precision == "off" else f"mixed_{precision}")
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def _input(column: Column) -> Any:
    return tf_keras.Input((column.width,), name=column.name, dtype=_DTYPES[column.form])


def _wide(columns: Sequence[Column], inputs: Tensors, outputs: int, settings: NetworkSettings) -> list[Any]:
    """One `[batch, outputs]` tensor for each id column and one for all dense values."""
    # From zero: the penalty then keeps an id that is hardly ever seen without influence.
    parts = [
        _embedding(column, inputs, outputs, "zeros", f"wide_{column.name}", settings)
        for column in columns
        if column.form in (Form.ID, Form.BAG)
    ]
    dense = _dense_values(columns, inputs)
    if dense:
        parts.append(_dense(outputs, settings, name="wide_dense", start="zeros")(_concatenate(dense)))
    return parts


def _deep(
    columns: Sequence[Column],
    inputs: Tensors,
    outputs: int,
    settings: NetworkSettings,
    compute: Compute,
    widths: Mapping[str, int],
) -> Any:
    """Crossing layers, then hidden layers, over dense values and embeddings: `[batch, outputs]`."""
    with _policy(compute.precision):
        embeddings = [
            _embedding(
                column,
                inputs,
                widths.get(column.name) or embedding_width(column.size, settings.embedding_size),
                # One of its own for each: a shared one would start every embedding from the same numbers.
                tf_keras.initializers.RandomNormal(stddev=0.05),
                f"deep_{column.name}",
                settings,
            )
            for column in columns
            if column.form in (Form.ID, Form.BAG)
        ]
        first = _concatenate(_dense_values(columns, inputs) + embeddings + _encoded(columns, inputs))
        first = Dropout(settings.input_dropout, compute.seed, name="input_dropout")(first)
        hidden = first
        for number in range(1, settings.cross_layers + 1):
            hidden = _cross(first, hidden, settings, number, compute)
        for number, width in enumerate(settings.hidden_units, start=1):
            layer = _dense(width, settings, use_bias=True, activation="relu", name=f"hidden_{number}")
            hidden = (Recomputed(layer) if compute.recompute else layer)(hidden)
            # A layer's number keeps its draws apart from those of the others.
            hidden = Dropout(settings.dropout, compute.seed + number, name=f"dropout_{number}")(hidden)
    return _dense(outputs, settings, name="deep_logits")(hidden)


def _cross(first: Any, current: Any, settings: NetworkSettings, number: int, compute: Compute) -> Any:
    """`first * (U V current + b) + current`: raises the degree of the interactions by one (DCN-V2)."""
    low = _dense(settings.cross_rank, settings, name=f"cross_{number}_low")
    high = _dense(first.shape[-1], settings, use_bias=True, name=f"cross_{number}")
    if compute.recompute:
        low, high = Recomputed(low), Recomputed(high)
    return layers.Add()([layers.Multiply()([first, high(low(current))]), current])


def _dense(
    width: int,
    settings: NetworkSettings,
    *,
    name: str,
    use_bias: bool = False,
    activation: str | None = None,
    start: str = "glorot_uniform",
) -> layers.Dense:
    return layers.Dense(
        width,
        activation=activation,
        use_bias=use_bias,
        kernel_initializer=start,
        kernel_regularizer=tf_keras.regularizers.l2(settings.l2),
        name=name,
    )


def _dense_values(columns: Sequence[Column], inputs: Tensors) -> list[Any]:
    """All dense values as one `[batch, width]`, bounded; nothing where there are none."""
    values = [inputs[column.name] for column in columns if column.form is Form.DENSE]
    return [tf.clip_by_value(_concatenate(values), -_LARGEST_INPUT, _LARGEST_INPUT)] if values else []


def _encoded(columns: Sequence[Column], inputs: Tensors) -> list[Any]:
    """What the encoders make of raw texts and images, each `[batch, d]`."""
    return [
        Encoded(column.encoder, column.name, column.is_fine_tuned, name=f"encoded_{column.name}")(
            inputs[column.name]
        )
        for column in columns
        if column.form is Form.RAW and column.encoder is not None
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
    is_id = tf.cast(tf.not_equal(ids, 0), rows.dtype)[:, :, tf.newaxis]
    return tf.math.divide_no_nan(tf.reduce_sum(rows * is_id, axis=1), tf.reduce_sum(is_id, axis=1))


def _concatenate(tensors: Sequence[Any]) -> Any:
    return layers.Concatenate()(tensors) if len(tensors) > 1 else tensors[0]


def _sum(tensors: Sequence[Any]) -> Any:
    return layers.Add()(tensors) if len(tensors) > 1 else tensors[0]
