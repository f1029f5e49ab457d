"""One pass over the rows of a split: hashes of every row, values that train lacks, and a sample of the records.

Rows are compared by 64-bit hashes of all their values, lists included: among ten million rows the chance that any two
different ones are taken for equal is about 3 in a million. Memory: 24 bytes a row, and the sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gates.data import NewValues
from gates.leakage import TimeRange
from pipeline.example_rows import TF_TYPES
from schemas.features import DType, FeatureSet, Kind, LabelKind

Hashes = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.int64]

_BATCH = 4096
_BUCKETS = 2**62
_SHOWN_VALUES = 3
_MOST_NEW_VALUES = 1000
_MOST_RARE = 2000
"""Most rows of rare classes that are sampled besides the evenly spread ones, the same number of each."""
_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Wanted:
    """What to look at.

    Attributes:
      features: the inputs of the model and the label.
      key: columns that together name a row; may be none.
      time: the column that orders the rows, if any.
      dtypes: of the columns of key and time.
    """

    features: FeatureSet
    key: tuple[str, ...]
    time: str | None
    dtypes: Mapping[str, DType]

    @property
    def content(self) -> tuple[str, ...]:
        """Columns that make two rows the same to a model."""
        return (*(feature.name for feature in self.features), self.features.label.name)

    @property
    def named(self) -> tuple[str, ...]:
        """Columns whose values are a closed set of names."""
        return tuple(feature.name for feature in self.features if feature.kind is Kind.CATEGORICAL)

    def specification(self) -> dict[str, tf.io.VarLenFeature]:
        """How to parse the records."""
        dtypes = {feature.name: feature.dtype for feature in self.features}
        dtypes[self.features.label.name] = self.features.label.dtype
        own = (*self.key, *(() if self.time is None else (self.time,)))
        dtypes |= {name: self.dtypes[name] for name in own}
        return {name: tf.io.VarLenFeature(TF_TYPES[dtype]) for name, dtype in dtypes.items()}


@dataclass(frozen=True)
class Scan:
    """What one split holds.

    Attributes:
      rows: how many.
      content: `[rows]`: a hash of features and label.
      dated: `[rows]`: the same with the time, if there is one.
      keys: `[rows]`: a hash of the key, None without one.
      time: first and last value of the time, None without one.
      values: of each named column, the codes of the values it holds, ascending.
      new: of each named column, the values that train lacks; empty for train itself.
      sample: records in their order, evenly spread over the split, with more of the classes that are rare among them.
    """

    rows: int
    content: Hashes
    dated: Hashes
    keys: Hashes | None
    time: TimeRange | None
    values: Mapping[str, Codes]
    new: Mapping[str, NewValues]
    sample: tuple[bytes, ...]


@dataclass
class _Values:
    """Values of one named column, as they are met."""

    known: Codes | None
    seen: Codes = field(default_factory=lambda: np.empty(0, np.int64))
    total: int = 0
    unknown: int = 0
    counts: dict[Any, int] = field(default_factory=dict)

    def add(self, codes: Codes, values: npt.NDArray[Any]) -> None:
        self.total += len(codes)
        if self.known is None:
            self.seen = np.union1d(self.seen, codes)
            return
        is_new = ~np.isin(codes, self.known)
        self.unknown += int(is_new.sum())
        for value in values[is_new]:
            if value in self.counts or len(self.counts) < _MOST_NEW_VALUES:
                self.counts[value] = self.counts.get(value, 0) + 1

    def new(self) -> NewValues:
        frequent = sorted(self.counts, key=lambda value: -self.counts[value])[:_SHOWN_VALUES]
        return NewValues(
            self.total,
            self.unknown,
            tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in frequent),
        )


@dataclass
class _Class:
    """At most so many rows of one class: every `step`-th, by their place in the split."""

    most: int
    step: int = 1
    seen: int = 0
    taken: dict[int, bytes] = field(default_factory=dict)

    def add(self, batch: tf.Tensor, rows: Codes, first: int) -> None:
        """Takes some of a batch's rows, of which the first stands at `first` in the split."""
        chosen = rows[-self.seen % self.step :: self.step]
        self.seen += len(rows)
        self.taken |= zip((first + chosen).tolist(), tf.gather(batch, chosen).numpy(), strict=True)
        while len(self.taken) > self.most:
            self.taken, self.step = dict(list(self.taken.items())[::2]), 2 * self.step


@dataclass
class _Sample:
    """Every `step`-th row of a split, none for 0, and more of each of so many classes of which these would be few."""

    step: int
    class_count: int
    taken: dict[int, bytes] = field(default_factory=dict)
    classes: dict[int, _Class] = field(default_factory=dict)

    def add(self, batch: tf.Tensor, rows_with_label: Codes, labels: Codes, first: int) -> None:
        """Takes some of a batch's rows, of which the first stands at `first` in the split."""
        if not self.step:
            return
        records = batch[-first % self.step :: self.step].numpy()
        start = first + -first % self.step
        self.taken |= zip(range(start, start + self.step * len(records), self.step), records, strict=True)
        if self.step == 1 or not self.class_count:
            return
        most = max(1, _MOST_RARE // self.class_count)
        for label in np.unique(labels).tolist():
            one = self.classes.setdefault(label, _Class(most))
            if one.step < self.step:  # else the evenly spread rows hold as many
                one.add(batch, rows_with_label[labels == label], first)

    def records(self) -> tuple[bytes, ...]:
        """What was taken, in its order."""
        rare = [one.taken for one in self.classes.values() if one.step < self.step]
        taken = {row: record for found in (self.taken, *rare) for row, record in found.items()}
        return tuple(taken[row] for row in sorted(taken))


def scan(folder: Path, wanted: Wanted, *, step: int = 0, known: Mapping[str, Codes] | None = None) -> Scan:
    """Reads a split once.

    Args:
      folder: with its gzipped TFRecord files.
      wanted: what to look at.
      step: take each so-many-th record into the sample, and more of a rare class; 0: none.
      known: `values` of train, for another split.
    """
    specification = wanted.specification()
    content, dated, keys = list[Hashes](), list[Hashes](), list[Hashes]()
    times, rows = list[Any](), 0
    label = wanted.features.label
    sample = _Sample(step, 0 if label.kind is LabelKind.REGRESSION else len(label.classes))
    values = {name: _Values(None if known is None else known[name]) for name in wanted.named}
    files = sorted(str(path) for path in folder.glob("*.gz"))
    for batch in tf.data.TFRecordDataset(files, "GZIP").batch(_BATCH).prefetch(2):
        count = int(batch.shape[0])
        parsed = tf.io.parse_example(batch, specification)
        codes = {name: _codes(sparse.values) for name, sparse in parsed.items()}
        hashed = {
            name: _hashed(sparse.indices.numpy(), codes[name], count) for name, sparse in parsed.items()
        }
        sample.add(batch, parsed[label.name].indices.numpy()[:, 0], codes[label.name], rows)
        content.append(_combined(hashed, wanted.content, count))
        if wanted.time is not None:
            dated.append(_combined(hashed, (*wanted.content, wanted.time), count))
            found = parsed[wanted.time].values.numpy()
            times += [found.min(), found.max()] if len(found) else []
        if wanted.key:
            keys.append(_combined(hashed, wanted.key, count))
        for name, one in values.items():
            one.add(codes[name], parsed[name].values.numpy())
        rows += count
    contents = _joined(content)
    return Scan(
        rows=rows,
        content=contents,
        dated=contents if wanted.time is None else _joined(dated),
        keys=_joined(keys) if wanted.key else None,
        time=TimeRange(_plain(min(times)), _plain(max(times))) if times else None,
        values={name: one.seen for name, one in values.items()},
        new={} if known is None else {name: one.new() for name, one in values.items()},
        sample=sample.records(),
    )


def _codes(values: tf.Tensor) -> Codes:
    """A number for each value, the same for the same value."""
    if values.dtype == tf.string:
        return np.asarray(tf.strings.to_hash_bucket_fast(values, _BUCKETS).numpy(), np.int64)
    if values.dtype == tf.float32:
        return np.asarray((values.numpy() + np.float32(0)).view(np.int32), np.int64)  # -0 is 0
    return np.asarray(values.numpy(), np.int64)


def _hashed(indices: Codes, codes: Codes, rows: int) -> Hashes:
    """A hash of each row's values of one column, 0 for a row without any."""
    mixed = _mixed(codes.view(np.uint64) + _STEP * (indices[:, 1].astype(np.uint64) + np.uint64(1)))
    hashes = np.zeros(rows, np.uint64)
    if len(indices) and int(indices[:, 1].max()):
        np.add.at(hashes, indices[:, 0], mixed)
    else:
        hashes[indices[:, 0]] = mixed
    return hashes


def _combined(hashed: Mapping[str, Hashes], names: tuple[str, ...], rows: int) -> Hashes:
    combined = np.zeros(rows, np.uint64)
    for name in names:
        combined = _mixed(combined + _STEP + hashed[name])
    return combined


def _mixed(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _joined(parts: list[Hashes]) -> Hashes:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _plain(value: Any) -> float | str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return int(value) if isinstance(value, np.integer) else float(value)
