"""Transfer: a network that was trained elsewhere turns a raw text or image into numbers.

An encoder is a path to one of

- a SavedModel: its `__call__`, or else its signature `serving_default`, takes strings `[batch]`, raw values as
  they stand in the column, and gives floats `[batch, d]` (of a signature's outputs: the only one);
- a tf_keras model (`.keras`, `.h5`, or a folder that Keras saved): its one input is either strings, `[batch]` or
  `[batch, 1]`, or pixels `[batch, height, width, channels]`; its one output is floats `[batch, d]`. Values of the
  column are then encoded images (JPEG, PNG, GIF, BMP), resized to the input's size, with pixels from 0 to 255: an
  application's own scaling has to be a layer of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

_KERAS_FILES = (".keras", ".h5", ".hdf5")
_SIGNATURE = "serving_default"


class EncoderError(ValueError):
    """An encoder that is not there or does not fit its column."""


@tf_keras.saving.register_keras_serializable("headworks")
class Encoded(tf_keras.layers.Layer):
    """Raw values `[batch, 1]` to float32 `[batch, d]`, zeros where the value is missing ("").

    The encoder's weights are weights of this layer, so that they are saved with the network. They learn only where the
    layer is trainable. Whatever the encoder does only in training (dropout, batch statistics) stays off.
    """

    def __init__(self, path: str, column: str, trainable: bool = False, **kwargs: Any) -> None:
        """Loads the encoder.

        Args:
          path: as this module describes.
          column: name of the column, for messages.
          trainable: whether the encoder is fine-tuned.

        Raises:
          EncoderError: naming the column, the path and what is wrong with it.
        """
        super().__init__(trainable=trainable, **kwargs)
        self._path = path
        self._column = column
        place = Path(path)
        if not place.exists():
            raise EncoderError(f"feature {column!r}: encoder {path}: no such file or folder")
        is_keras = place.suffix in _KERAS_FILES or (place / "keras_metadata.pb").exists()
        self._encode = self._of_keras(place) if is_keras else self._of_saved_model(place)
        if trainable and not self.trainable_weights:
            raise self._error("it has no weights that can be trained; use trainable: false")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Strings `[batch, 1]` to float32 `[batch, d]`."""
        values = tf.reshape(inputs, [-1])
        is_there = tf.not_equal(values, "")[:, tf.newaxis]
        vectors = tf.cast(self._encode(values), self.compute_dtype)
        return tf.where(is_there, vectors, tf.zeros_like(vectors))

    def get_config(self) -> dict[str, Any]:
        """What builds the layer again, from the same path."""
        return {**super().get_config(), "path": self._path, "column": self._column}

    def _of_keras(self, place: Path) -> Callable[[tf.Tensor], tf.Tensor]:
        try:
            model = tf_keras.models.load_model(str(place), compile=False)
        except (OSError, ValueError, TypeError, tf.errors.OpError) as error:
            raise self._error(f"tf_keras cannot load it: {error}") from error
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise self._error(
                f"it has {len(model.inputs)} inputs and {len(model.outputs)} outputs; it must have one of each"
            )
        self._check_output(model.outputs[0].shape, model.outputs[0].dtype)
        self._model = model
        prepare = self._preparation(model.inputs[0])
        return lambda values: model(prepare(values), training=False)

    def _preparation(self, taken: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        """From strings `[batch]` to what a Keras model takes."""
        shape = taken.shape.as_list()
        if taken.dtype == tf.string and len(shape) <= 2:
            return lambda values: tf.reshape(values, [-1, *shape[1:]])
        if taken.dtype.is_floating and len(shape) == 4 and None not in shape[1:] and shape[3] in (1, 3):
            height, width, channels = shape[1:]
            return lambda values: _images(values, height, width, channels, taken.dtype)
        raise self._error(
            f"its input is {taken.dtype.name} {shape}; it must be string [None] or [None, 1], or float "
            "[None, height, width, 1 or 3]"
        )

    def _of_saved_model(self, place: Path) -> Callable[[tf.Tensor], tf.Tensor]:
        try:
            loaded = tf.saved_model.load(str(place))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise self._error(f"it is neither a tf_keras model nor a SavedModel: {error}") from error
        function = self._function(loaded)
        [output] = tf.nest.flatten(function.structured_outputs)
        self._check_output(output.shape, output.dtype)
        # With these Keras knows the weights, and with the whole their tables and files are saved too.
        self._loaded = loaded
        self._variables = list(function.variables)
        return lambda values: tf.nest.flatten(function(values))[0]

    def _function(self, loaded: Any) -> Any:
        """The concrete function from strings `[batch]` to one output."""
        strings = tf.TensorSpec([None], tf.string)
        if callable(loaded):
            try:
                function = loaded.__call__.get_concrete_function(strings)
            except (ValueError, TypeError) as error:
                raise self._error(f"its __call__ does not take strings [batch]: {error}") from error
        elif _SIGNATURE in loaded.signatures:
            signature = loaded.signatures[_SIGNATURE]
            inputs = list(signature.structured_input_signature[1].items())
            if len(inputs) != 1 or inputs[0][1].dtype != tf.string or inputs[0][1].shape.rank != 1:
                raise self._error(f"its signature {_SIGNATURE} takes {inputs}, not strings [batch] alone")
            function = signature
        else:
            raise self._error(f"it can neither be called nor has it a signature {_SIGNATURE}")
        outputs = tf.nest.flatten(function.structured_outputs)
        if len(outputs) != 1:
            raise self._error(f"it gives {len(outputs)} outputs; it must give one")
        return function

    def _check_output(self, shape: tf.TensorShape, dtype: tf.DType) -> None:
        if shape.rank != 2 or shape[1] is None or not dtype.is_floating:
            raise self._error(
                f"its output is {dtype.name} {shape}; it must be floats [None, d] with a known d, such as after "
                "global pooling"
            )

    def _error(self, what: str) -> EncoderError:
        return EncoderError(f"feature {self._column!r}: encoder {self._path}: {what}")


def _images(values: tf.Tensor, height: int, width: int, channels: int, dtype: tf.DType) -> tf.Tensor:
    """Encoded images `[batch]` to pixels `[batch, height, width, channels]`, black where there is none."""

    def decoded(value: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(value, channels, expand_animations=False)
        return tf.cast(tf.image.resize(pixels, [height, width]), dtype)

    def black() -> tf.Tensor:
        return tf.zeros([height, width, channels], dtype)

    return tf.map_fn(
        lambda value: tf.cond(tf.equal(value, ""), black, lambda: decoded(value)),
        values,
        fn_output_signature=tf.TensorSpec([height, width, channels], dtype),
    )
