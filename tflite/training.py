"""Device models that learn on the device: signatures `train`, `infer`, `prepare`, `save` and `restore`.

Everything is made of LiteRT's built-in ops. TensorFlow's own ways to save and restore, and its gradient of ReLU, are
not (they need the Flex delegate, which LiteRT has stopped shipping): so `save` gives the weights as tensors and
`restore` takes them, a client writes the file, and ReLU has here a gradient of comparison and selection. With these,
the gradients of all our layers convert, embeddings included, and all weights can learn.

Rows are prepared once, by `prepare`, however often the network learns from them: preprocessing has nothing to learn.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow.lite.python.convert_phase import ConverterError

from models.signatures import answers
from schemas.features import DType, FeatureSet, Form, Label, LabelKind, ModelColumn
from tflite import preprocessing
from tflite.analysed import Analysed, DeviceError
from tflite.settings import TrainableSettings

_RELU = "HeadworksDeviceRelu"
_RAW = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.uint8}

Tensors = dict[str, tf.Tensor]


def convert(
    network: tf_keras.Model,
    features: FeatureSet,
    analysed: Analysed,
    settings: TrainableSettings,
) -> bytes:
    """A `.tflite` that learns.

    Its signatures, all tensors of fixed shape:

    - `infer`: one raw row, laid out as in the signature `serving_raw`, to what that answers;
    - `prepare`: one raw row to the network's inputs by column, `[1, width]`;
    - `train`: a batch of the network's inputs by column, `label` float32 `[batch_rows, 1]` (a number, or the place
      of the class) and `weight` float32 `[batch_rows, 1]` (0: the row does not count), to `loss`, float32 scalar:
      weighted mean before this step;
    - `save`: `unused`, float32 `[1]` of any value, to the weights by name (Android's interpreter runs no signature
      without an input);
    - `restore`: the weights by name to `restored`, their number.

    Args:
      network: from inputs by column to logits, as `tflite.compression.trained_network` builds it; what is frozen in it
        (`trainable = False`) stays as it is.
      features: the raw row, and what is predicted.
      analysed: of the graph that the network was trained with.
      settings: how it learns. Dropout and penalties of the training on the server play no part.

    Raises:
      DeviceError: the network has nothing to learn, reads raw text or images, or has an op that LiteRT lacks.
    """
    columns = features.columns()
    encoded = [column.name for column in columns if column.form is Form.RAW]
    if encoded:
        raise DeviceError(f"{encoded[0]} goes through an encoder, which no device model holds")
    if not network.trainable_variables:
        raise DeviceError("no layer of the network is trainable: there is nothing to learn on a device")
    model = _Learner(network, features.label, settings)
    raw = _raw_specs(features, analysed)
    batch = _specs(columns, settings.batch_rows)
    per_row = tf.TensorSpec([settings.batch_rows, 1], tf.float32)

    def prepare(**row: tf.Tensor) -> Tensors:
        return preprocessing.prepare(row, features, analysed)

    signatures = {
        "infer": _traced(lambda **row: model.infer(**prepare(**row)), raw),
        "prepare": _traced(prepare, raw),
        "train": _traced(model.train, {**batch, "label": per_row, "weight": per_row}),
        "save": _traced(model.save, {"unused": tf.TensorSpec([1], tf.float32)}),
        "restore": _traced(model.restore, model.weight_specs()),
    }
    return _converted(model, signatures)


def named_weights(network: tf_keras.Model) -> dict[str, tf.Variable]:
    """What can be learned, by the names that `save` and `restore` use."""
    names: Counter[str] = Counter()
    named = {}
    for variable in network.trainable_variables:
        name = variable.name.removesuffix(":0").replace("/", "_")
        names[name] += 1
        # Members of an ensemble have layers of the same names.
        named[name if names[name] == 1 else f"{name}_{names[name]}"] = variable
    return named


class _Learner(tf.Module):
    """A network with what its signatures compute."""

    def __init__(self, network: tf_keras.Model, label: Label, settings: TrainableSettings) -> None:
        super().__init__()
        # Behind a function: of the network itself TensorFlow would save, slowly, what no device reads.
        self._network = lambda inputs: network(inputs, training=False)
        self._variables = network.variables
        self._scale = _scale(network, label)
        self._label = label
        self._settings = settings
        self._weights = named_weights(network)
        self._loss = _LOSSES[label.kind]

    def train(self, label: tf.Tensor, weight: tf.Tensor, **inputs: tf.Tensor) -> Tensors:
        """A step of gradient descent."""
        # Layers are traced with the gradient that converts; the network itself stays as it is.
        with tf.compat.v1.get_default_graph().gradient_override_map({"Relu": _RELU}):
            outputs = self._network(inputs)
        losses = self._loss(outputs / self._scale, label / self._scale, self._label)
        loss = tf.math.divide_no_nan(tf.reduce_sum(losses * weight), tf.reduce_sum(weight))
        variables = list(self._weights.values())
        # Not with a tape, which would not see the other gradient.
        gradients = tf.gradients(loss, variables)
        with tf.control_dependencies([loss]):
            for variable, gradient in zip(variables, gradients, strict=True):
                if gradient is not None:
                    variable.assign_sub(self._settings.learning_rate * tf.convert_to_tensor(gradient))
        return {"loss": loss}

    def infer(self, **inputs: tf.Tensor) -> Tensors:
        """As the signature `serving_raw`, without the names of the classes: a device gets them from the metadata."""
        given = answers(self._network(inputs), self._label)
        return {name: tensor for name, tensor in given.items() if name != "classes"}

    def save(self, unused: tf.Tensor) -> Tensors:
        """The weights by name."""
        return {name: variable.read_value() for name, variable in self._weights.items()}

    def restore(self, **weights: tf.Tensor) -> Tensors:
        """Puts weights in place."""
        for name, values in weights.items():
            self._weights[name].assign(values)
        # A signature without an output would do nothing.
        return {"restored": tf.constant(len(weights))}

    def weight_specs(self) -> dict[str, tf.TensorSpec]:
        """Shape and type of the weights by name."""
        return {
            name: tf.TensorSpec(variable.shape, variable.dtype) for name, variable in self._weights.items()
        }


def _scale(network: tf_keras.Model, label: Label) -> float:
    """What the outputs are divided by: a learning rate fits a target of spread one, whatever its unit."""
    last = network.layers[-1]
    if label.kind is LabelKind.REGRESSION and isinstance(last, tf_keras.layers.Rescaling):
        return float(last.scale)
    return 1.0


def _cross_entropy_of_two(logits: tf.Tensor, label: tf.Tensor, _: Label) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=label, logits=logits)


def _cross_entropy(logits: tf.Tensor, label: tf.Tensor, of: Label) -> tf.Tensor:
    chosen = tf.one_hot(tf.cast(label[:, 0], tf.int32), len(of.classes))
    return -tf.reduce_sum(chosen * tf.nn.log_softmax(logits), axis=1, keepdims=True)


def _squared_error(prediction: tf.Tensor, label: tf.Tensor, _: Label) -> tf.Tensor:
    return tf.square(prediction - label)


_LOSSES: Mapping[LabelKind, Callable[[tf.Tensor, tf.Tensor, Label], tf.Tensor]] = {
    LabelKind.BINARY: _cross_entropy_of_two,
    LabelKind.MULTICLASS: _cross_entropy,
    LabelKind.REGRESSION: _squared_error,
}
"""From outputs and labels, `[rows, outputs]` and `[rows, 1]`, to losses `[rows, 1]`."""


@tf.RegisterGradient(_RELU)
def _relu_gradient(op: Any, gradient: tf.Tensor) -> tf.Tensor:
    return tf.where(op.outputs[0] > 0, gradient, tf.zeros_like(gradient))


def _specs(columns: Sequence[ModelColumn], rows: int) -> dict[str, tf.TensorSpec]:
    return {
        column.name: tf.TensorSpec(
            [rows, column.width], tf.float32 if column.form is Form.DENSE else tf.int64
        )
        for column in columns
    }


def _raw_specs(features: FeatureSet, analysed: Analysed) -> dict[str, tf.TensorSpec]:
    return {
        place.graph_name: tf.TensorSpec([1] if place.width is None else [1, place.width], _RAW[place.dtype])
        for place in preprocessing.input_layout(features, analysed)
    }


def _traced(function: Callable[..., Tensors], specs: Mapping[str, tf.TensorSpec]) -> Any:
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()}
    return tf.function(function, autograph=False).get_concrete_function(**named)


def _converted(model: tf.Module, signatures: Mapping[str, Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        # The gradient that LiteRT can compute is in the graph; whoever loads this asks for no further one.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(model, folder, signatures=signatures, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = True
        try:
            return converter.convert()
        except ConverterError as error:
            raise DeviceError(f"LiteRT cannot train this network: {error}") from error
