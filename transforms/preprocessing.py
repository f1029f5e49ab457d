"""The preprocessing graph: raw columns to model columns, for any table, as its `FeatureSet` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import Feature, FeatureSet, Kind, Label, LabelKind
from transforms import ops


def preprocessing_fn(inputs: Mapping[str, Any], custom_config: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Prepares all columns; the entry point that TFX's Transform calls.

    Args:
      inputs: the raw columns by name; the label's may be absent, others than the features are ignored.
      custom_config: `features` holds the `FeatureSet` as JSON.

    Returns:
      A tensor for each of `FeatureSet.columns()`, with the type and shape its `Form` states, and, where
      `inputs` has the label, `[batch, 1]` under `Label.transformed_name`.

    Raises:
      ValueError: if the data lacks a feature.
    """
    features = FeatureSet.from_json(custom_config["features"])
    outputs: dict[str, tf.Tensor] = {}
    for feature in features:
        if feature.name not in inputs:
            raise ValueError(f"the data has no column {feature.name!r}; it has {', '.join(sorted(inputs))}")
        outputs.update(_prepare(feature, ops.one_value(inputs[feature.name])))
    if features.label.name in inputs:
        outputs[features.label.transformed_name] = _label(features.label, inputs[features.label.name])
    return outputs


def _prepare(feature: Feature, values: tf.Tensor) -> dict[str, tf.Tensor]:
    """`values` `[batch, 1]` to the tensors of `feature.columns()`."""
    present = ops.is_present(values)
    tensors = [_PREPARATIONS[feature.kind](feature, values), ops.missing_flag(present)]
    # The columns of a kind are its values and, for dense kinds that may be missing, the indicator after them.
    return {column.name: tensor for column, tensor in zip(feature.columns(), tensors, strict=False)}


def _numeric(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    present = ops.is_present(values)
    doubles = ops.as_double(values)
    if feature.log:
        doubles = ops.signed_log(doubles)
    scaled = tft.scale_to_z_score(ops.present_values(doubles, present), name=f"{feature.graph_name}_z_score")
    return tf.cast(ops.filled(scaled, 1), tf.float32)


def _bucketized(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    floats = tf.cast(values, tf.float32)
    known = ops.present_values(floats, ops.is_present(values))
    buckets = tft.bucketize(known, feature.buckets, name=f"{feature.graph_name}_quantiles")
    return ops.filled(_shifted(buckets), 1)


def _vocabulary_ids(feature: Feature, text: tf.Tensor, width: int) -> tf.Tensor:
    """String `[batch, width]` to ids: 0 missing, 1..V by falling frequency, V+1 unseen."""
    ids = tft.compute_and_apply_vocabulary(
        ops.present_values(text, ops.is_present(text)),
        top_k=feature.vocabulary_size,
        frequency_threshold=feature.min_count if feature.min_count > 1 else None,
        num_oov_buckets=1,
        vocab_filename=feature.vocabulary,
        name=feature.vocabulary,
    )
    return ops.filled(_shifted(ids), width)


def _shifted(ids: tf.SparseTensor) -> tf.SparseTensor:
    """Ids from 1, which leaves 0 for a missing value."""
    return tf.SparseTensor(ids.indices, tf.cast(ids.values, tf.int64) + 1, ids.dense_shape)


def _categorical(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    return _vocabulary_ids(feature, ops.as_text(values), 1)


def _text(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    return _vocabulary_ids(feature, ops.tokens(values, feature.max_tokens), feature.max_tokens)


def _hashed(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    return ops.hash_ids(values, feature.hash_buckets)


def _cyclical(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    return ops.cycle(values, feature.period)


def _boolean(_: Feature, values: tf.Tensor) -> tf.Tensor:
    return ops.flag(values)


def _encoded(_: Feature, values: tf.Tensor) -> tf.Tensor:
    return values


_PREPARATIONS: Mapping[Kind, Callable[[Feature, tf.Tensor], tf.Tensor]] = {
    Kind.NUMERIC: _numeric,
    Kind.BUCKETIZED: _bucketized,
    Kind.CATEGORICAL: _categorical,
    Kind.HASHED: _hashed,
    Kind.CYCLICAL: _cyclical,
    Kind.BOOLEAN: _boolean,
    Kind.TEXT: _text,
    Kind.ENCODED: _encoded,
}


def _label(label: Label, raw: Any) -> tf.Tensor:
    values = ops.one_value(raw)
    if label.kind is not LabelKind.REGRESSION:
        return ops.class_index(values, label.classes)
    target = tf.cast(values, tf.float32)
    return tf.where(ops.is_present(values), target, tf.constant(float("nan")))
