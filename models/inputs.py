"""Splits for training: parsed and transformed once, held in memory, shuffled in full before every epoch.

A split that is too large for that is read anew in every epoch, through a shuffle buffer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import MISSING_INT, FeatureSet, LabelKind

_PARSE_ROWS = 8192
"""Rows parsed and transformed at once: the graph's cost per call is then small against its cost per row."""


@dataclass(frozen=True)
class Reader:
    """Turns serialized tf.Examples into what the network consumes.

    Attributes:
      features: the columns.
      graph: the tf.Transform output.
      is_transformed: whether the examples are already transformed.
    """

    features: FeatureSet
    graph: tft.TFTransformOutput
    is_transformed: bool = False
    _layer: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Loaded once: a layer made while a dataset's function is traced would not outlive the trace.
        if not self.is_transformed:
            object.__setattr__(self, "_layer", self.graph.transform_features_layer())

    def decode(self, examples: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Serialized examples `[batch]` to the rows that can be learned from.

        Returns:
          Inputs by column and label `[rows, 1]`, of the rows with a known label.
        """
        label = self.features.label.transformed_name
        if self.is_transformed:
            spec = self.graph.transformed_feature_spec()
            tensors = tf.io.parse_example(examples, spec)
        else:
            tensors = self._layer(parse_raw(examples, raw_spec(self.features, self.graph)))
        if self.features.label.kind is LabelKind.REGRESSION:
            is_known = tf.math.is_finite(tensors[label][:, 0])
        else:
            is_known = tensors[label][:, 0] >= 0
        known = {name: tf.boolean_mask(tensor, is_known) for name, tensor in tensors.items()}
        return {column.name: known[column.name] for column in self.features.columns()}, known[label]


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
      name: for messages.
      files: its TFRecord files.
      reader: how their records are decoded.
      rows: number of rows with a known label.
      label_counts: number of rows per class; empty for regression.
      label_mean: mean of a regression target, else 0.
      label_std: standard deviation of a regression target, else 1.
      columns: the transformed rows, or None where they are too many to be held.
      labels: `[rows, 1]`, or None likewise.
    """

    name: str
    files: Sequence[str]
    reader: Reader
    rows: int
    label_counts: tuple[int, ...] = ()
    label_mean: float = 0.0
    label_std: float = 1.0
    columns: Mapping[str, tf.Tensor] | None = field(default=None, repr=False)
    labels: tf.Tensor | None = field(default=None, repr=False)

    @property
    def is_in_memory(self) -> bool:
        """Whether the rows are held, transformed."""
        return self.columns is not None

    def steps(self, batch_size: int) -> int:
        """Batches per epoch."""
        return -(-self.rows // batch_size)

    def batches(self, batch_size: int) -> tf.data.Dataset:
        """All rows once, in order."""
        if self.columns is None:
            batches = _rebatched(_decoded(self.files, self.reader), batch_size, self.steps(batch_size))
        else:
            batches = _gathered(self, batch_size, tf.range(self.rows, dtype=tf.int64))
        return batches.prefetch(tf.data.AUTOTUNE)

    def shuffled_batches(
        self, batch_size: int, *, seed: int, buffer_rows: int, first_epoch: int = 0
    ) -> tf.data.Dataset:
        """All rows once per epoch of `steps(batch_size)` batches, epoch after epoch, without end.

        `seed` and the epoch's number alone decide an epoch's order, so that training which goes on at
        `first_epoch` meets the rows as if it had never stopped. `buffer_rows` bounds the shuffling of rows not
        held in memory, which depends on TensorFlow's global seed too; those held are shuffled in full.
        """

        def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            pair = tf.stack([tf.constant(seed, tf.int64), epoch])
            if self.columns is None:
                records = _decoded(self.files, self.reader, _Shuffle(pair, buffer_rows))
                return _rebatched(records, batch_size, self.steps(batch_size))
            rows = tf.range(self.rows, dtype=tf.int64)
            return _gathered(self, batch_size, tf.random.experimental.stateless_shuffle(rows, seed=pair))

        return tf.data.Dataset.counter(first_epoch).flat_map(of_epoch).prefetch(tf.data.AUTOTUNE)


def load_split(name: str, patterns: Sequence[str], reader: Reader, memory_rows: int) -> Split:
    """Reads a split once: counts it, and keeps it where it has at most `memory_rows` rows.

    Raises:
      ValueError: if no file matches or no row has a known label; the message names the split.
    """
    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(f"split {name!r}: no file matches {', '.join(patterns)}")
    held: list[tuple[dict[str, np.ndarray], np.ndarray]] | None = []
    labels: list[np.ndarray] = []
    rows = 0
    for inputs, label in _decoded(files, reader).as_numpy_iterator():
        rows += len(label)
        labels.append(label)
        if held is not None and rows > memory_rows:
            held = None
        if held is not None:
            held.append((inputs, label))
    if not rows:
        raise ValueError(
            f"split {name!r}: no row has a known value of {reader.features.label.name!r}; "
            "check the label's classes"
        )
    split = Split(name, files, reader, rows, **_label_figures(np.concatenate(labels), reader.features))
    return split if held is None else _with_rows(split, held)


def raw_spec(features: FeatureSet, graph: tft.TFTransformOutput) -> dict[str, Any]:
    """How the graph expects the features and, where it knows it, the label: parsing specs by name."""
    names = {feature.name for feature in features} | {features.label.name}
    return {name: spec for name, spec in graph.raw_feature_spec().items() if name in names}


def parse_raw(examples: tf.Tensor, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Serialized examples `[batch]` to the raw columns the graph takes; no value is ever demanded."""
    sparse = tf.io.parse_example(
        examples, {name: tf.io.VarLenFeature(column.dtype) for name, column in spec.items()}
    )
    return {name: as_specified(sparse[name], column) for name, column in spec.items()}


def as_specified(values: tf.SparseTensor, column: Any) -> Any:
    """A column as the graph takes it: sparse, or dense with the type's missing value where there is none."""
    if not isinstance(column, tf.io.FixedLenFeature):
        return values
    one_wide = tf.SparseTensor(values.indices, values.values, tf.stack([values.dense_shape[0], 1]))
    return tf.reshape(tf.sparse.to_dense(one_wide, _missing(column.dtype)), [-1, *column.shape])


def present(values: tf.Tensor) -> tf.SparseTensor:
    """Values `[batch]` without the missing ones (NaN, `MISSING_INT`, ""), as a `[batch, 1]` sparse tensor."""
    if values.dtype.is_floating:
        is_there = tf.logical_not(tf.math.is_nan(values))
    else:
        is_there = tf.not_equal(values, tf.constant(_missing(values.dtype), values.dtype))
    rows = tf.where(is_there)
    shape = tf.stack([tf.size(values, out_type=tf.int64), 1])
    return tf.SparseTensor(tf.pad(rows, [[0, 0], [0, 1]]), tf.boolean_mask(values, is_there), shape)


def _missing(dtype: tf.DType) -> float | int | str:
    if dtype.is_floating:
        return float("nan")
    return MISSING_INT if dtype.is_integer else ""


@dataclass(frozen=True)
class _Shuffle:
    """How one epoch's records are shuffled.

    Attributes:
      pair: int64 `[2]`, the seed and the epoch.
      buffer_rows: over how many records.
    """

    pair: tf.Tensor
    buffer_rows: int

    def files(self, names: Sequence[str]) -> tf.data.Dataset:
        """The names in this epoch's order."""
        order = tf.random.experimental.stateless_shuffle(tf.constant(list(names)), seed=self.pair)
        return tf.data.Dataset.from_tensor_slices(order)

    def records(self, records: tf.data.Dataset) -> tf.data.Dataset:
        """The records in this epoch's order."""
        seed = tf.random.stateless_uniform([], self.pair, 0, tf.int32.max, tf.int32)
        return records.shuffle(self.buffer_rows, tf.cast(seed, tf.int64))


def _decoded(files: Sequence[str], reader: Reader, shuffle: _Shuffle | None = None) -> tf.data.Dataset:
    names = shuffle.files(files) if shuffle else tf.data.Dataset.from_tensor_slices(list(files))
    records = names.flat_map(_records)
    if shuffle:
        records = shuffle.records(records)
    return records.batch(_PARSE_ROWS).map(reader.decode, num_parallel_calls=2).prefetch(1)


def _records(path: tf.Tensor) -> tf.data.Dataset:
    is_gzip = tf.strings.regex_full_match(path, r".*\.gz")
    return tf.data.TFRecordDataset(path, compression_type=tf.where(is_gzip, "GZIP", ""))


def _rebatched(decoded: tf.data.Dataset, batch_size: int, steps: int) -> tf.data.Dataset:
    return decoded.rebatch(batch_size).apply(tf.data.experimental.assert_cardinality(steps))


def _gathered(split: Split, batch_size: int, order: tf.Tensor) -> tf.data.Dataset:
    """The batches of a held split, by the order of its row numbers, int64 `[rows]`."""
    columns, labels = split.columns, split.labels
    assert columns is not None

    def gather(start: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        chosen = order[start : start + batch_size]
        batch = {name: tf.gather(column, chosen) for name, column in columns.items()}
        return batch, tf.gather(labels, chosen)

    return tf.data.Dataset.range(0, split.rows, batch_size).map(gather)


def _with_rows(split: Split, held: Sequence[tuple[dict[str, np.ndarray], np.ndarray]]) -> Split:
    names = held[0][0]
    # On the host: a GPU's memory is for the network, and tf.data gathers on the CPU anyway.
    with tf.device("/CPU:0"):
        columns = {name: tf.constant(np.concatenate([inputs[name] for inputs, _ in held])) for name in names}
        labels = tf.constant(np.concatenate([label for _, label in held]))
    return replace(split, columns=columns, labels=labels)


def _label_figures(labels: np.ndarray, features: FeatureSet) -> dict[str, Any]:
    if features.label.kind is LabelKind.REGRESSION:
        # A constant target has no spread to scale by.
        return {
            "label_mean": float(labels.mean(dtype=np.float64)),
            "label_std": float(labels.std(dtype=np.float64)) or 1.0,
        }
    counts = np.bincount(labels.ravel(), minlength=len(features.label.classes))
    return {"label_counts": tuple(int(count) for count in counts)}
