"""A network with its preprocessing as one LiteRT file: raw columns in, a probability per label out.

The file has one signature, `serving_raw`, which takes one row as `preprocessing.DeviceInput` says and answers as the
signature of that name of a saved model does, without `classes`. It has fixed shapes and builtin ops only.
"""

from __future__ import annotations

import tempfile
from typing import Any

import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from models.signatures import answers
from schemas.features import DType, FeatureSet
from tflite import preprocessing
from tflite.analysed import Analysed, DeviceError
from tflite.frozen_network import FrozenNetwork, Network
from tflite.graph import PREPROCESSING_SCOPE
from tflite.preprocessing import DeviceInput, input_layout

__all__ = ["SIGNATURE", "DeviceInput", "DeviceModel", "Network", "convert", "input_layout"]

SIGNATURE = "serving_raw"
"""The one signature of a device model."""

_TYPES = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.uint8}


class DeviceModel(tf.Module):
    """What a device model computes."""

    def __init__(self, network: Network, features: FeatureSet, analysed: Analysed) -> None:
        super().__init__(name="device_model")
        self._layout = input_layout(features, analysed)
        self._network = FrozenNetwork(network, features.columns())
        self._features = features
        self._analysed = analysed

    def signature(self) -> Any:
        """The concrete function: one row, by `Feature.graph_name`, to its scores."""
        specs = {
            place.graph_name: tf.TensorSpec(_shape(place), _TYPES[place.dtype], name=place.graph_name)
            for place in self._layout
        }
        return tf.function(self._answer, autograph=False).get_concrete_function(**specs)

    def _answer(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        # What a file's ops belong to is read from their names: only the network is quantised.
        with tf.name_scope(PREPROCESSING_SCOPE):
            columns = preprocessing.prepare(inputs, self._features, self._analysed)
        logits = self._network(columns, "network")
        with tf.name_scope("answers"):
            given = answers(logits, self._features.label)
        return {name: value for name, value in given.items() if name != "classes"}


def convert(
    network: Network, features: FeatureSet, analysed: Analysed, *, are_zeros_packed: bool = False
) -> bytes:
    """The float32 device model.

    Args:
      network: of the columns of `features`: a tf_keras model, or the `network` of a loaded SavedModel.
      features: the raw row.
      analysed: of the transform graph that the network was trained with.
      are_zeros_packed: whether matrices with many zeros are stored without them.

    Raises:
      DeviceError: naming a feature, or the network's ops, that LiteRT's builtin ops cannot compute.
    """
    model = DeviceModel(network, features, analysed)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(model, folder, signatures={SIGNATURE: model.signature()})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if are_zeros_packed:
            converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        try:
            return converter.convert()
        except ConverterError as error:
            raise DeviceError(_refusal(error)) from error


def _refusal(error: ConverterError) -> str:
    operators = sorted({fault.operator.name for fault in error.errors if fault.operator.name})
    if not operators:
        return f"the device model does not convert: {error}"
    return (
        f"the device model needs {', '.join(operators)}, which no builtin op of LiteRT computes: take a network "
        "without, or leave tflite out"
    )


def _shape(place: DeviceInput) -> list[int]:
    return [1] if place.width is None else [1, place.width]
