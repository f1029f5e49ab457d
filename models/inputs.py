"""Splits for training: parsed and transformed once, held in memory, shuffled in full before every pass.

A split that is too large for that is read anew in every pass, through a shuffle buffer. Training may be at any batch of
a pass, and may be one of several input pipelines that share every batch.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import MISSING_INT, FeatureSet, LabelKind

_PARSE_ROWS = 8192
"""Rows parsed and transformed at once: the graph's cost per call is then small against its cost per row."""

_GATHER_ROWS = 16_384
"""Rows gathered at once: many batches, and little enough for the processor's cache."""

_LEAST_EFFECTIVE_SHARE = 0.001
"""Of the rows, which weights must leave in effect: less is a half-life in the wrong unit."""

_DAY_SECONDS = 86_400.0

_Element = tuple[Any, ...]
"""Inputs by column, label and, where rows are weighted, weight: each `[rows, values]`."""


_as_written = tf.autograph.experimental.do_not_convert
"""Nothing here branches on a tensor; to look for that, TensorFlow would take most of the time of a first epoch."""


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
    _traced: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Loaded once: a layer made while a dataset's function is traced would not outlive the trace.
        if not self.is_transformed:
            object.__setattr__(self, "_layer", self.graph.transform_features_layer())
        # Traced once for all splits and passes: that takes seconds, however few the rows.
        signature = [tf.TensorSpec([None], tf.string)]
        object.__setattr__(self, "_traced", tf.function(self._decoded, signature, autograph=False))

    def decode(self, examples: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Serialized examples `[batch]` to the rows that can be learned from.

        Returns:
          Inputs by column and label `[rows, 1]`, of the rows with a known label.
        """
        inputs, label = self._traced(examples)
        return inputs, label

    def _decoded(self, examples: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        return self._learned(*self._read(examples))

    def decode_with(
        self, examples: tf.Tensor, column: str, dtype: tf.DType
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """As `decode`, and the rows' first value of a raw column, `[rows, 1]`, the type's missing one if none."""
        tensors, is_known = self._read(examples)
        [values] = tf.io.parse_example(examples, {column: tf.io.VarLenFeature(dtype)}).values()
        is_first = values.indices[:, 1] == 0
        first = tf.SparseTensor(
            tf.boolean_mask(values.indices, is_first),
            tf.boolean_mask(values.values, is_first),
            values.dense_shape,
        )
        dense = as_specified(first, tf.io.FixedLenFeature([1], dtype))
        return *self._learned(tensors, is_known), tf.boolean_mask(dense, is_known)

    def _read(self, examples: tf.Tensor) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        label = self.features.label.transformed_name
        if self.is_transformed:
            tensors = tf.io.parse_example(examples, self.graph.transformed_feature_spec())
        else:
            tensors = self._layer(parse_raw(examples, raw_spec(self.features, self.graph)))
        if self.features.label.kind is LabelKind.REGRESSION:
            return tensors, tf.math.is_finite(tensors[label][:, 0])
        return tensors, tensors[label][:, 0] >= 0

    def _learned(
        self, tensors: Mapping[str, tf.Tensor], is_known: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        known = {name: tf.boolean_mask(tensor, is_known) for name, tensor in tensors.items()}
        inputs = {
            column.name: tf.ensure_shape(known[column.name], [None, column.width])
            for column in self.features.columns()
        }
        return inputs, tf.ensure_shape(known[self.features.label.transformed_name], [None, 1])


@dataclass(frozen=True)
class Share:
    """Which part of every batch one input pipeline reads.

    Attributes:
      replicas: over all workers; a batch is cut into as many consecutive pieces of one size, the last ones smaller
        or empty where it does not divide.
      first: number of the first replica that this pipeline feeds.
      count: replicas that it feeds, a piece each.
      by_files: of a split not held in memory, whether each pipeline reads files of its own. Its pieces are then not
        those of a common batch, and all of them are full.

    Raises:
      ValueError: if there are no such replicas, or files could not be dealt out evenly.
    """

    replicas: int = 1
    first: int = 0
    count: int = 1
    by_files: bool = False

    def __post_init__(self) -> None:
        if self.count < 1 or self.first < 0 or self.first + self.count > self.replicas:
            raise ValueError(
                f"{self}: replicas are numbered from 0 to {self.replicas - 1}; want some of these"
            )
        if self.by_files and (self.replicas % self.count or self.first % self.count):
            raise ValueError(
                f"{self}: pipelines that read files of their own have to feed as many replicas each"
            )

    @property
    def pipelines(self) -> int:
        """How many input pipelines there are, if each feeds as many replicas."""
        return self.replicas // self.count

    def files(self, names: Sequence[str]) -> Sequence[str]:
        """The files of this pipeline."""
        return names[self.first // self.count :: self.pipelines]

    def piece_rows(self, batch_rows: Any) -> Any:
        """Rows of each piece of a batch but the last ones."""
        return -(-batch_rows // self.replicas)


@dataclass(frozen=True)
class Recency:
    """Weights by age: half as much for each half-life before the split's latest row.

    Attributes:
      column: raw column with the time: a number, or ISO 8601 text, in UTC where it has no zone.
      half_life: in the unit of the numbers (a date that the query gave is in Unix seconds), or in days for text.
    """

    column: str
    half_life: float

    def weights(self, times: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Weights of mean 1 for values of the column, `[rows, 1]`; a row without a time gets 1.

        Raises:
          ValueError: if the column does not hold times, or the half-life leaves next to no row in effect.
        """
        age = self._numbers(times)
        is_dated = np.isfinite(age)
        if not is_dated.any():
            raise ValueError(f"no row has a time in column {self.column!r}; weights by recency need one")
        dated = 0.5 ** ((age[is_dated].max() - age[is_dated]) / self.half_life)
        effective = dated.sum() ** 2 / np.square(dated).sum()  # Kish (1965), Survey Sampling
        if effective < _LEAST_EFFECTIVE_SHARE * len(dated):
            raise ValueError(
                f"a half-life of {self.half_life:g} in column {self.column!r} leaves the weight of {effective:.0f} of "
                f"{len(dated):,} rows; values go from {age[is_dated].min():g} to {age[is_dated].max():g}: is it in "
                "their unit?"
            )
        weights = np.ones(age.shape, np.float32)
        weights[is_dated] = dated / dated.mean()
        return weights

    def _numbers(self, times: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        if times.dtype.kind == "f":
            return times.astype(np.float64)
        if times.dtype.kind == "i":
            return np.where(times == MISSING_INT, np.nan, times.astype(np.float64))
        different, places = np.unique(times.astype(np.bytes_), return_inverse=True)
        days = np.array([self._days(text.decode()) for text in different.tolist()], np.float64)
        return days[places].reshape(times.shape)

    def _days(self, text: str) -> float:
        if not text:
            return np.nan
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(
                f"column {self.column!r}: {text!r} is not an ISO 8601 date or time; weights by recency need one, or a "
                "number"
            ) from error
        aware = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return aware.timestamp() / _DAY_SECONDS


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
    """

    name: str
    files: Sequence[str]
    reader: Reader
    rows: int
    label_counts: tuple[int, ...] = ()
    label_mean: float = 0.0
    label_std: float = 1.0
    _held: _Rows | None = field(default=None, repr=False)

    @property
    def is_in_memory(self) -> bool:
        """Whether the rows are held, transformed."""
        return self._held is not None

    @property
    def columns(self) -> Mapping[str, tf.Tensor] | None:
        """A copy of the transformed rows, or None where they are too many to be held."""
        return None if self._held is None else self._held.all()[0]

    @property
    def labels(self) -> tf.Tensor | None:
        """A copy of the labels, `[rows, 1]`, or None likewise."""
        return None if self._held is None else self._held.all()[1]

    @property
    def weights(self) -> tf.Tensor | None:
        """Weights of the rows, float32 `[rows, 1]` of mean 1, or None where all count the same."""
        if self._held is None:
            return None
        _, _, *weights = self._held.all()
        return weights[0] if weights else None

    def steps(self, batch_size: int) -> int:
        """Batches per pass."""
        return -(-self.rows // batch_size)

    def has_files_for(self, share: Share) -> bool:
        """Whether there is a file for each input pipeline."""
        return len(self.files) >= share.pipelines

    def relabelled(self, labels: tf.Tensor) -> Split:
        """The held rows with other labels, `[rows, 1]` of the same type."""
        assert self._held is not None, "rows that are not held have no labels to replace"
        inputs, _, *weights = self._held.all()
        packed = _packed(inputs, tf.cast(labels, self._held.parts[1].dtype), *weights)
        return replace(self, _held=_Rows.of([packed.numpy()], self._held.parts))

    @_as_written
    def batches(self, batch_size: int, share: Share = Share()) -> tf.data.Dataset:
        """All rows once, in order: of every batch the pieces of a share, each an element.

        Elements are inputs by column, label and, where rows are weighted, weight. `share.by_files` plays no part.
        """
        return self._pass(batch_size, share).prefetch(tf.data.AUTOTUNE)

    @_as_written
    def shuffled_batches(
        self, batch_size: int, *, seed: int, buffer_rows: int, first_batch: int = 0, share: Share = Share()
    ) -> tf.data.Dataset:
        """All rows once per pass of `steps(batch_size)` batches, pass after pass, without end: as `batches`.

        `seed` and the pass's number alone decide a pass's order, so that training which goes on after `first_batch`
        batches, in the middle of a pass or not, meets the rows as if it had never stopped. `buffer_rows` bounds the
        shuffling of rows not held in memory, which depends on TensorFlow's global seed too; those held are
        shuffled in full.

        Raises:
          ValueError: if each input pipeline should read files of its own and there are too few.
        """

        def shuffle(number: tf.Tensor) -> _Shuffle:
            return _Shuffle(tf.stack([tf.constant(seed, tf.int64), number]), buffer_rows)

        if share.by_files and self._held is None:
            batches = self._of_own_files(batch_size, shuffle, first_batch, share)
        else:
            passes, within = divmod(first_batch, self.steps(batch_size))
            endless = tf.data.Dataset.counter(passes).flat_map(
                lambda number: self._pass(batch_size, share, shuffle(number))
            )
            batches = endless.skip(within * share.count)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _pass(self, batch_size: int, share: Share, shuffle: _Shuffle | None = None) -> tf.data.Dataset:
        if self._held is None:
            batches = _decoded(self.files, self.reader.decode, shuffle).rebatch(batch_size)
            pieces = batches.flat_map(lambda *batch: _cut(batch, share)) if share.replicas > 1 else batches
        else:
            order = tf.range(self.rows, dtype=tf.int64)
            pieces = self._held.pieces(shuffle.rows(order) if shuffle else order, batch_size, share)
        return pieces.apply(tf.data.experimental.assert_cardinality(self.steps(batch_size) * share.count))

    def _of_own_files(
        self, batch_size: int, shuffle: Callable[[tf.Tensor], _Shuffle], first_batch: int, share: Share
    ) -> tf.data.Dataset:
        if not self.has_files_for(share):
            raise ValueError(
                f"split {self.name!r}: {len(self.files)} files for {share.pipelines} input pipelines that read files "
                "of their own; write more files or share rows"
            )
        files, rows = share.files(self.files), share.piece_rows(batch_size)
        passes, left = 0, first_batch * share.count * rows
        if left:
            passes, left = divmod(left, _count(_decoded(files, self.reader.decode)))
        endless = tf.data.Dataset.counter(passes).flat_map(
            lambda number: _decoded(files, self.reader.decode, shuffle(number))
        )
        return _without_first(endless, left).rebatch(rows)


@_as_written
def load_split(
    name: str, patterns: Sequence[str], reader: Reader, memory_rows: int, recency: Recency | None = None
) -> Split:
    """Reads a split once: counts it, and keeps it where it has at most `memory_rows` rows.

    With `recency` rows are weighted by their age, which the raw examples tell.

    Raises:
      ValueError: if no file matches, no row has a known label, or rows cannot be weighted; the message names the
        split.
    """
    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(f"split {name!r}: no file matches {', '.join(patterns)}")
    decode = reader.decode if recency is None else _decoder_with_times(name, files, reader, recency)
    loaded = _load(files, decode, memory_rows)
    if not loaded.rows:
        raise ValueError(
            f"split {name!r}: no row has a known value of {reader.features.label.name!r}; "
            "check the label's classes"
        )
    held = loaded.held
    if recency is not None:
        if held is None:
            raise ValueError(
                f"split {name!r}: its {loaded.rows:,} rows are more than train.memory_rows {memory_rows:,}, and "
                "weights by recency need them in memory: raise train.memory_rows, or leave out train.recency_half_life"
            )
        try:
            held = held.weighted(recency.weights(np.concatenate(loaded.times)))
        except ValueError as error:
            raise ValueError(f"split {name!r}: {error}") from error
    figures = _label_figures(np.concatenate(loaded.labels), reader.features)
    return Split(name, files, reader, loaded.rows, **figures, _held=held)


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
class _Rows:
    """Rows of several tensors as bits in one matrix: a batch is one gather instead of one for each column.

    Attributes:
      bits: int32 `[rows, words]`.
      parts: what stands in it, side by side: an element of `[None, values]` specifications of 4 or 8 bytes a value.
    """

    bits: tf.Tensor
    parts: _Element

    @classmethod
    def of(cls, packed: Sequence[npt.NDArray[np.int32]], parts: _Element) -> _Rows:
        """Joins packed rows."""
        # On the host: a GPU's memory is for the network, and tf.data gathers on the CPU anyway.
        with tf.device("/CPU:0"):
            return cls(tf.constant(np.concatenate(packed)), parts)

    def weighted(self, weights: npt.NDArray[np.float32]) -> _Rows:
        """The rows with a weight each, `[rows, 1]`."""
        with tf.device("/CPU:0"):
            bits = tf.concat([self.bits, _packed(tf.constant(weights))], axis=1)
        return _Rows(bits, (*self.parts, tf.TensorSpec([None, 1], tf.float32)))

    def all(self) -> _Element:
        """A copy of all rows."""
        with tf.device("/CPU:0"):
            return _unpacked(self.bits, self.parts)

    def pieces(self, order: tf.Tensor, batch_size: int, share: Share) -> tf.data.Dataset:
        """A share's pieces of the batches that rows make in an order, int64 `[rows]`.

        Whole batches are gathered many at once and sliced. A batch that the replicas do not divide is cut by itself.
        """
        rows, size = int(order.shape[0]), share.piece_rows(batch_size)
        batches, whole = -(-rows // batch_size), 0 if batch_size % share.replicas else rows // batch_size
        at_once = max(1, _GATHER_ROWS // (size * share.count))

        def gather(batch: tf.Tensor) -> _Element:
            end = tf.minimum(batch + at_once, whole) * batch_size
            pieces = tf.reshape(order[batch * batch_size : end], [-1, share.replicas, size])
            return self._take(tf.reshape(pieces[:, share.first : share.first + share.count], [-1]))

        def gather_piece(number: tf.Tensor) -> _Element:
            start = number // share.count * batch_size
            batch = order[start : start + batch_size]
            return self._take(_piece(batch, number % share.count + share.first, share))

        even = tf.data.Dataset.range(0, whole, at_once).map(gather, num_parallel_calls=2).rebatch(size)
        uneven = tf.data.Dataset.range(whole * share.count, batches * share.count).map(gather_piece)
        return even.concatenate(uneven)

    def _take(self, rows: tf.Tensor) -> _Element:
        return _unpacked(tf.gather(self.bits, rows), self.parts)


def _packed(*element: Any) -> tf.Tensor:
    """The bits of an element, int32 `[rows, words]`."""
    return tf.concat([_bits(tensor) for tensor in tf.nest.flatten(element)], axis=1)


def _bits(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.bitcast(tensor, tf.int32), [tf.shape(tensor)[0], _words(tensor)])


def _unpacked(bits: tf.Tensor, parts: _Element) -> _Element:
    flat = tf.nest.flatten(parts)
    pieces = tf.split(bits, [_words(part) for part in flat], axis=1)
    tensors = [
        tf.bitcast(tf.reshape(piece, [-1, part.shape[1], 2]) if part.dtype.size == 8 else piece, part.dtype)
        for piece, part in zip(pieces, flat, strict=True)
    ]
    element: _Element = tf.nest.pack_sequence_as(parts, tensors)
    return element


def _words(part: tf.Tensor | tf.TensorSpec) -> int:
    return int(part.shape[1]) * part.dtype.size // 4


def _cut(batch: _Element, share: Share) -> tf.data.Dataset:
    """A share's pieces of a batch."""
    return tf.data.Dataset.range(share.first, share.first + share.count).map(
        lambda number: tf.nest.map_structure(lambda tensor: _piece(tensor, number, share), batch)
    )


def _piece(batch: tf.Tensor, number: tf.Tensor, share: Share) -> tf.Tensor:
    rows = tf.shape(batch, tf.int64)[0]
    size = share.piece_rows(rows)
    return batch[tf.minimum(number * size, rows) : tf.minimum((number + 1) * size, rows)]


@dataclass(frozen=True)
class _Shuffle:
    """How one pass's records are shuffled.

    Attributes:
      pair: int64 `[2]`, the seed and the pass.
      buffer_rows: over how many records, where they are not held.
    """

    pair: tf.Tensor
    buffer_rows: int

    def rows(self, numbers: tf.Tensor) -> tf.Tensor:
        """The numbers in this pass's order."""
        return tf.random.experimental.stateless_shuffle(numbers, seed=self.pair)

    def files(self, names: Sequence[str]) -> tf.data.Dataset:
        """The names in this pass's order."""
        return tf.data.Dataset.from_tensor_slices(self.rows(tf.constant(list(names))))

    def records(self, records: tf.data.Dataset) -> tf.data.Dataset:
        """The records in this pass's order."""
        seed = tf.random.stateless_uniform([], self.pair, 0, tf.int32.max, tf.int32)
        return records.shuffle(self.buffer_rows, tf.cast(seed, tf.int64))


def _decoded(
    files: Sequence[str], decode: Callable[[tf.Tensor], Any], shuffle: _Shuffle | None = None
) -> tf.data.Dataset:
    names = shuffle.files(files) if shuffle else tf.data.Dataset.from_tensor_slices(list(files))
    records = names.flat_map(_records)
    if shuffle:
        records = shuffle.records(records)
    return records.batch(_PARSE_ROWS).map(decode, num_parallel_calls=2).prefetch(1)


def _records(path: tf.Tensor) -> tf.data.Dataset:
    is_gzip = tf.strings.regex_full_match(path, r".*\.gz")
    return tf.data.TFRecordDataset(path, compression_type=tf.where(is_gzip, "GZIP", ""))


def _count(decoded: tf.data.Dataset) -> int:
    return int(decoded.reduce(tf.constant(0, tf.int64), lambda rows, element: rows + _row_count(element)))


def _without_first(decoded: tf.data.Dataset, rows: int) -> tf.data.Dataset:
    """The data set without so many of its first rows, counted over its elements."""

    def drop(left: tf.Tensor, element: _Element) -> tuple[tf.Tensor, _Element]:
        dropped = tf.minimum(left, _row_count(element))
        return left - dropped, tf.nest.map_structure(lambda tensor: tensor[dropped:], element)

    return decoded.scan(tf.constant(rows, tf.int64), drop) if rows else decoded


def _row_count(element: Any) -> tf.Tensor:
    return tf.shape(tf.nest.flatten(element)[0], tf.int64)[0]


@dataclass(frozen=True)
class _Loaded:
    """What one reading of a split gives.

    Attributes:
      rows: with a known label.
      labels: of all rows, in parts of `[part, 1]`.
      times: likewise, where they were asked for.
      held: the rows, unless they are too many.
    """

    rows: int
    labels: Sequence[npt.NDArray[Any]]
    times: Sequence[npt.NDArray[Any]]
    held: _Rows | None


def _load(files: Sequence[str], decode: Callable[[tf.Tensor], Any], memory_rows: int) -> _Loaded:
    decoded = _decoded(files, decode)
    parts = decoded.element_spec[:2]
    kept, labels, times = list[Any](), list[Any](), list[Any]()
    rows, is_kept = 0, True
    # Raw texts and images have no fixed size to be packed in, and may be large: they are read anew.
    has_raw = any(part.dtype == tf.string for part in tf.nest.flatten(parts))
    if has_raw:
        memory_rows = 0
    reading = decoded.map(_without_inputs if has_raw else _packed_with)
    for bits, label, *time in reading.as_numpy_iterator():
        rows += len(label)
        labels.append(label)
        times += time
        is_kept = rows <= memory_rows
        if is_kept:
            kept.append(bits)
        else:
            kept.clear()
    return _Loaded(rows, labels, times, _Rows.of(kept, parts) if is_kept and rows else None)


def _packed_with(inputs: Mapping[str, tf.Tensor], label: tf.Tensor, *others: tf.Tensor) -> _Element:
    return _packed(inputs, label), label, *others


def _without_inputs(_: Mapping[str, tf.Tensor], label: tf.Tensor, *others: tf.Tensor) -> _Element:
    return label, label, *others


def _decoder_with_times(
    name: str, files: Sequence[str], reader: Reader, recency: Recency
) -> Callable[[tf.Tensor], Any]:
    if reader.is_transformed:
        raise ValueError(
            f"split {name!r}: transformed examples do not hold the raw column {recency.column!r} that weights by "
            "recency need: set transform.materialize: false, or leave out train.recency_half_life"
        )
    dtype = next(_types(files, recency.column), None)
    if dtype is None:
        raise ValueError(
            f"split {name!r}: no row has a value in column {recency.column!r}, by which to weight rows"
        )
    return lambda examples: reader.decode_with(examples, recency.column, dtype)


def _types(files: Sequence[str], column: str) -> Iterator[tf.DType]:
    """Type of a column in each row that has a value of it."""
    kinds = {"bytes_list": tf.string, "float_list": tf.float32, "int64_list": tf.int64}
    for record in tf.data.Dataset.from_tensor_slices(list(files)).flat_map(_records).as_numpy_iterator():
        kind = tf.train.Example.FromString(record).features.feature[column].WhichOneof("kind")
        if kind is not None:
            yield kinds[kind]


def _label_figures(labels: np.ndarray, features: FeatureSet) -> dict[str, Any]:
    if features.label.kind is LabelKind.REGRESSION:
        # A constant target has no spread to scale by.
        return {
            "label_mean": float(labels.mean(dtype=np.float64)),
            "label_std": float(labels.std(dtype=np.float64)) or 1.0,
        }
    counts = np.bincount(labels.ravel(), minlength=len(features.label.classes))
    return {"label_counts": tuple(int(count) for count in counts)}
