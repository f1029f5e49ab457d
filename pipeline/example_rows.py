"""Rows of an Examples artifact, as the gates look at them: raw columns, the truth, and what a model answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf

from gates.baselines import Rows
from schemas.features import DType, FeatureSet, LabelKind

Floats = npt.NDArray[np.float64]

_BATCH = 4096
_TYPES = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.string}


def records(folder: Path, most_rows: int) -> list[bytes]:
    """Serialized Examples of a split, evenly spread over it where there are more than `most_rows`."""
    files = sorted(str(path) for path in folder.glob("*.gz"))
    found = tf.data.TFRecordDataset(files, "GZIP")
    # In batches, because every element that reaches Python costs as much as many that do not.
    total = sum(len(batch) for batch in found.batch(_BATCH).as_numpy_iterator())
    taken = found.shard(max(1, -(-total // most_rows)), 0)
    return [record for batch in taken.batch(_BATCH).as_numpy_iterator() for record in batch]


def read_rows(serialized: Sequence[bytes], features: FeatureSet) -> Rows:
    """The raw columns and the truth.

    Numbers become float64 with NaN for a missing value, text becomes a category; of a list the first value counts.

    Raises:
      ValueError: if a row has no label.
    """
    wanted = {feature.name: feature.dtype for feature in features}
    wanted[features.label.name] = features.label.dtype
    spec = {name: tf.io.VarLenFeature(_TYPES[dtype]) for name, dtype in wanted.items()}
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in wanted}
    for batch in _batches(serialized):
        for name, sparse in tf.io.parse_example(tf.constant(batch), spec).items():
            parts[name].append(_first_values(sparse, len(batch)))
    columns = {name: np.concatenate(found) for name, found in parts.items()}
    truth = _truth(columns.pop(features.label.name), features)
    text = {feature.name for feature in features if feature.dtype is DType.BYTES}
    frame = {
        name: pd.Series(values, dtype="category") if name in text else values
        for name, values in columns.items()
    }
    return Rows(pd.DataFrame(frame), truth)


def answers(model: Path, serialized: Sequence[bytes], kind: LabelKind) -> Floats:
    """What a SavedModel's `serving_default` says: `[rows, classes]` probabilities, or `[rows]` predictions."""
    loaded = tf.saved_model.load(str(model))  # keeps the variables of its signature alive
    signature = loaded.signatures["serving_default"]
    key = "prediction" if kind is LabelKind.REGRESSION else "scores"
    found = [signature(examples=tf.constant(batch))[key].numpy() for batch in _batches(serialized)]
    joined = np.concatenate(found).astype(np.float64)
    return joined[:, 0] if kind is LabelKind.REGRESSION else joined


def _batches(serialized: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(serialized), _BATCH):
        yield serialized[start : start + _BATCH]


def _first_values(sparse: tf.SparseTensor, rows: int) -> npt.NDArray[Any]:
    indices, values = sparse.indices.numpy(), sparse.values.numpy()
    is_first = indices[:, 1] == 0
    if values.dtype == object:
        found = np.full(rows, None, dtype=object)
        found[indices[is_first, 0]] = [value.decode("utf-8", "replace") for value in values[is_first]]
        return found
    numbers = np.full(rows, np.nan)
    numbers[indices[is_first, 0]] = values[is_first]
    return numbers


def _truth(values: npt.NDArray[Any], features: FeatureSet) -> Floats:
    label = features.label
    missing = int(pd.isna(values).sum())
    if missing:
        raise ValueError(f"label {label.name!r} is missing in {missing:,} of {len(values):,} rows")
    if label.kind is LabelKind.REGRESSION:
        return values.astype(np.float64)
    if label.dtype is DType.INT:
        values = values.astype(np.int64).astype(str)
    index = {name: place for place, name in enumerate(label.classes)}
    return np.array([index[value] for value in values], np.float64)
