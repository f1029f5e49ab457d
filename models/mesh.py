"""A block of two layers that is too wide for one device, on a mesh of devices: batch × model.

The first kernel is split by columns and the second by rows over the model dimension, so that each device computes its
part of the hidden layer alone and one sum over the devices ends the block (Shoeybi et al. 2019, arXiv:1909.08053);
rows are split over the batch dimension. Nothing else in this project uses it:
docs/decisions/0011-no-mesh-strategy.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.experimental import dtensor

BATCH, MODEL = "batch", "model"
_WHOLE = dtensor.UNSHARDED

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """The block's weights, whole.

    Attributes:
      first: `[inputs, width]`.
      first_bias: `[width]`.
      second: `[width, outputs]`.
      second_bias: `[outputs]`.
    """

    first: Array
    first_bias: Array
    second: Array
    second_bias: Array

    @classmethod
    def random(cls, inputs: int, width: int, outputs: int, seed: int = 0) -> Weights:
        """Kernels with variance 2 / inputs, biases zero."""
        draw = np.random.default_rng(seed).normal

        def kernel(rows: int, columns: int) -> Array:
            return (draw(size=(rows, columns)) * (2 / rows) ** 0.5).astype(np.float32)

        return cls(
            kernel(inputs, width),
            np.zeros(width, np.float32),
            kernel(width, outputs),
            np.zeros(outputs, np.float32),
        )


def forward(inputs: tf.Tensor, first: Any, first_bias: Any, second: Any, second_bias: Any) -> tf.Tensor:
    """`[rows, inputs]` → `[rows, outputs]`: dense, ReLU, dense. The same code whole and sharded."""
    return tf.nn.relu(inputs @ first + first_bias) @ second + second_bias


class ShardedBlock(tf.Module):
    """The block with its weights spread over a mesh with the dimensions `BATCH` and `MODEL`."""

    def __init__(self, weights: Weights, mesh: dtensor.Mesh) -> None:
        """Splits the weights.

        Raises:
          ValueError: the width is no multiple of the mesh's model dimension.
        """
        super().__init__()
        self.mesh = mesh
        self.first = dtensor.DVariable(placed(weights.first, mesh, _WHOLE, MODEL))
        self.first_bias = dtensor.DVariable(placed(weights.first_bias, mesh, MODEL))
        self.second = dtensor.DVariable(placed(weights.second, mesh, MODEL, _WHOLE))
        self.second_bias = dtensor.DVariable(placed(weights.second_bias, mesh, _WHOLE))

    @property
    def weights(self) -> tuple[dtensor.DVariable, ...]:
        """In the order of `Weights`."""
        return self.first, self.first_bias, self.second, self.second_bias

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """`[rows, inputs]` → `[rows, outputs]`, both split by rows over `BATCH`."""
        return forward(inputs, *self.weights)

    def bytes_by_device(self) -> tuple[int, ...]:
        """What the weights take on each device."""
        parts = [dtensor.unpack(weight.read_value()) for weight in self.weights]
        return tuple(sum(part.numpy().nbytes for part in device) for device in zip(*parts, strict=True))


def cpu_mesh(batch: int, model: int) -> dtensor.Mesh:
    """A mesh of virtual CPU devices; to be called before TensorFlow has used any device.

    Raises:
      RuntimeError: if TensorFlow has already begun.
    """
    [processor] = tf.config.list_physical_devices("CPU")
    count = batch * model
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    )
    return dtensor.create_mesh([(BATCH, batch), (MODEL, model)], devices=[f"CPU:{n}" for n in range(count)])


def placed(values: npt.NDArray[Any], mesh: dtensor.Mesh, *dimensions: str) -> tf.Tensor:
    """Spreads an array over the mesh part by part, so that no device ever holds what it does not keep.

    Args:
      values: whole, on the host.
      mesh: where to.
      dimensions: for each axis of `values` the dimension of the mesh that splits it, or `dtensor.UNSHARDED`.

    Raises:
      ValueError: an axis is no multiple of the mesh's dimension that splits it.
    """
    for axis, dimension in enumerate(dimensions):
        if dimension != _WHOLE and values.shape[axis] % mesh.dim_size(dimension):
            raise ValueError(
                f"axis {axis} of shape {values.shape} cannot be split evenly over the {mesh.dim_size(dimension)} "
                f"devices of dimension {dimension!r}; use a multiple"
            )
    parts = [
        values[tuple(_slice(values.shape[axis], d, location, mesh) for axis, d in enumerate(dimensions))]
        for location in mesh.local_device_locations()
    ]
    return dtensor.pack([tf.constant(part) for part in parts], dtensor.Layout(list(dimensions), mesh))


def _slice(length: int, dimension: str, location: dict[str, int], mesh: dtensor.Mesh) -> slice:
    if dimension == _WHOLE:
        return slice(None)
    share = length // mesh.dim_size(dimension)
    return slice(location[dimension] * share, (location[dimension] + 1) * share)


def gathered(tensor: tf.Tensor) -> npt.NDArray[Any]:
    """A tensor on a mesh as one array on the host."""
    layout = dtensor.fetch_layout(tensor)
    whole = dtensor.relayout(tensor, dtensor.Layout.replicated(layout.mesh, tensor.shape.rank))
    return np.asarray(dtensor.unpack(whole)[0].numpy())
