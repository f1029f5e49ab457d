"""What the analysis of the training data left in a transform graph: moments, boundaries and vocabularies.

Read from the graph's own constants and vocabulary files, so that a device computes with what the server computes with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import Feature, FeatureSet, Kind


class DeviceError(ValueError):
    """A feature or a network that cannot go to a device."""


@dataclass(frozen=True)
class Moments:
    """Mean and variance of a column, float64 as the server has them; of `signed_log(x)` where `log` is set."""

    mean: float
    variance: float


@dataclass(frozen=True)
class Analysed:
    """What the data decided, by name of feature.

    Attributes:
      moments: NUMERIC.
      boundaries: BUCKETIZED: float32, ascending; a value's bucket is the number of boundaries up to it.
      vocabularies: CATEGORICAL and TEXT: the tokens whose ids are 1..V, in this order.
    """

    moments: Mapping[str, Moments]
    boundaries: Mapping[str, tuple[float, ...]]
    vocabularies: Mapping[str, tuple[bytes, ...]]

    @classmethod
    def read(cls, features: FeatureSet, transform_graph: str) -> Analysed:
        """Reads a transform graph.

        Args:
          features: those the graph was made for.
          transform_graph: folder that tf.Transform wrote.

        Raises:
          DeviceError: the graph has no such preparation of a feature.
        """
        output = tft.TFTransformOutput(transform_graph)
        constants = _Constants(output.transform_savedmodel_dir)
        return cls(
            {f.name: constants.moments(f) for f in _of(features, Kind.NUMERIC)},
            {f.name: constants.boundaries(f) for f in _of(features, Kind.BUCKETIZED)},
            {
                f.name: tuple(output.vocabulary_by_name(f.vocabulary))
                for f in _of(features, Kind.CATEGORICAL, Kind.TEXT)
            },
        )


def _of(features: FeatureSet, *kinds: Kind) -> Iterator[Feature]:
    return (feature for feature in features if feature.kind in kinds)


class _Constants:
    """The constants of a transform graph, found by the names that tf.Transform gives the ops that use them."""

    def __init__(self, saved_model: str) -> None:
        self._function = tf.saved_model.load(saved_model).transform_fn
        self._captured = {
            inside.name: outside
            for outside, inside in self._function.graph.captures
            if outside.dtype != tf.resource
        }

    def moments(self, feature: Feature) -> Moments:
        scope = f"{feature.graph_name}_z_score"
        return Moments(
            float(self._value(feature, f"{scope}/sub", 1)), float(self._value(feature, f"{scope}/Sqrt", 0))
        )

    def boundaries(self, feature: Feature) -> tuple[float, ...]:
        scope = f"{feature.graph_name}_quantiles/apply_buckets/assign_buckets"
        return tuple(self._value(feature, f"{scope}/UpperBound", 0).ravel().tolist())

    def _value(self, feature: Feature, operation: str, position: int) -> Any:
        """The array that flows into an input of an op, through reshapes."""
        try:
            tensor = self._function.graph.get_operation_by_name(operation).inputs[position]
        except KeyError as error:
            raise DeviceError(
                f"feature {feature.name!r} ({feature.kind}): the transform graph has no op {operation!r}; it was made "
                "for other features or by another tf.Transform: run Transform again"
            ) from error
        while tensor.op.type in ("Reshape", "Identity"):
            tensor = tensor.op.inputs[0]
        value = (
            self._captured[tensor.name].numpy()
            if tensor.name in self._captured
            else tf.get_static_value(tensor)
        )
        if value is None:
            raise DeviceError(
                f"feature {feature.name!r} ({feature.kind}): {operation!r} of the transform graph computes with "
                f"{tensor.name!r}, which is not a constant"
            )
        return value
