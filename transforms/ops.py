"""Tensor functions of the preprocessing graph that need no analysis of the data.

A raw column arrives as a `SparseTensor` with at most one value per row that counts (the first), or as a dense
tensor `[batch]` or `[batch, 1]`. Missing is: no value, a float that is not finite, `MISSING_INT`, or "".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from schemas.features import MISSING_ID, MISSING_INT

UNKNOWN_CLASS = -1
"""Class index of a label that is missing or not one of the declared classes."""


def one_value(raw: Any) -> tf.Tensor:
    """The first value of each row, or the dtype's missing value: `[batch, 1]`, dtype of `raw`."""
    if not isinstance(raw, tf.SparseTensor):
        return tf.reshape(raw, [-1, 1])
    first = tf.sparse.retain(raw, tf.equal(raw.indices[:, 1], 0))
    narrow = tf.SparseTensor(first.indices, first.values, tf.stack([raw.dense_shape[0], 1]))
    return tf.reshape(tf.sparse.to_dense(narrow, missing_value(raw.dtype)), [-1, 1])


def missing_value(dtype: tf.DType) -> float | int | str:
    """What stands for a missing value in a dense tensor of this type."""
    if dtype.is_floating:
        return math.nan
    return MISSING_INT if dtype.is_integer else ""


def is_present(values: tf.Tensor) -> tf.Tensor:
    """Which values are there: bool, shape of `values`.

    An infinite reading counts as missing: a single one would turn the mean of its column into NaN.
    """
    if values.dtype.is_floating:
        return tf.math.is_finite(values)
    return tf.not_equal(values, tf.constant(missing_value(values.dtype), values.dtype))


def present_values(values: tf.Tensor, present: tf.Tensor) -> tf.SparseTensor:
    """The values that are there, at their places in `[batch, width]`."""
    return tf.SparseTensor(
        tf.where(present), tf.boolean_mask(values, present), tf.shape(values, out_type=tf.int64)
    )


def filled(values: tf.SparseTensor, width: int) -> tf.Tensor:
    """`[batch, width]` with zeros where there is no value."""
    return tf.reshape(tf.sparse.to_dense(values), [-1, width])


def signed_log(values: tf.Tensor) -> tf.Tensor:
    """`sign(x)·log(1+|x|)`: tames long tails on both sides of zero."""
    return tf.sign(values) * tf.math.log1p(tf.abs(values))


def missing_flag(present: tf.Tensor) -> tf.Tensor:
    """float32 1 where a value is missing, else 0; shape of `present`."""
    return tf.cast(tf.logical_not(present), tf.float32)


def cycle(values: tf.Tensor, period: float) -> tf.Tensor:
    """Sine and cosine of the place in the cycle: float32 `[batch, 2]`, zeros where the value is missing."""
    present = is_present(values)
    phase = tf.math.floormod(_finite(values, present), period) * (2 * math.pi / period)
    both = tf.concat([tf.sin(phase), tf.cos(phase)], axis=1)
    return tf.cast(tf.where(present, both, tf.zeros_like(both)), tf.float32)


def flag(values: tf.Tensor) -> tf.Tensor:
    """float32 1 where the value is there and not 0, else 0: `[batch, 1]`."""
    return tf.cast(tf.logical_and(is_present(values), tf.not_equal(values, 0)), tf.float32)


def as_text(values: tf.Tensor) -> tf.Tensor:
    """The values as strings, "" where missing; shape of `values`."""
    if values.dtype == tf.string:
        return values
    return tf.where(is_present(values), tf.as_string(values), "")


def hash_ids(values: tf.Tensor, buckets: int) -> tf.Tensor:
    """int64 ids 1..`buckets`, 0 where missing; shape of `values`."""
    text = as_text(values)
    ids = tf.strings.to_hash_bucket_fast(text, buckets) + 1
    return tf.where(is_present(text), ids, tf.constant(MISSING_ID, tf.int64))


def tokens(values: tf.Tensor, most: int) -> tf.Tensor:
    """Lower-cased words between white space: string `[batch, most]`, padded with "" or cut."""
    words = tf.strings.split(tf.strings.lower(tf.reshape(values, [-1]), encoding="utf-8"))
    return words.to_tensor(default_value="", shape=[None, most])


def class_index(values: tf.Tensor, classes: Sequence[str]) -> tf.Tensor:
    """Position of each label among `classes`: int64 `[batch, 1]`, `UNKNOWN_CLASS` for any other."""
    matches = tf.equal(as_text(values), tf.constant([list(classes)]))
    positions = tf.range(len(classes), dtype=tf.int64)[tf.newaxis, :]
    index = tf.reduce_max(tf.where(matches, positions, tf.constant(UNKNOWN_CLASS, tf.int64)), axis=1)
    return tf.reshape(index, [-1, 1])


def as_double(values: tf.Tensor) -> tf.Tensor:
    """float64, in which the square of the largest float32 is still finite."""
    return tf.cast(values, tf.float64)


def _finite(values: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    doubles = as_double(values)
    return tf.where(present, doubles, tf.zeros_like(doubles))
