"""Rows of an Examples artifact, as the gates look at them: raw columns, the truth, and what a model answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from gates.baselines import Rows
from schemas.features import DType, Feature, FeatureSet, Kind, LabelKind

Floats = npt.NDArray[np.float64]

_BATCH = 4096
TF_TYPES = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.string}
"""The types of values as TensorFlow parses them."""
_KINDS = {"float_list": DType.FLOAT, "int64_list": DType.INT, "bytes_list": DType.BYTES}


class ModelError(RuntimeError):
    """A saved model that cannot be loaded, or cannot answer the rows it is asked about."""


@dataclass(frozen=True)
class Records:
    """Serialized Examples of a split.

    Attributes:
      taken: evenly spread over the split.
      total: how many the split holds.
    """

    taken: list[bytes]
    total: int


def records(folder: Path, most_rows: int) -> Records:
    """Reads a split once; of more than `most_rows` every second row, every fourth and so on."""
    taken: list[bytes] = []
    step, total = 1, 0
    for batch in _dataset(folder).batch(_BATCH).as_numpy_iterator():
        taken.extend(batch[-total % step :: step])
        total += len(batch)
        while len(taken) > most_rows:
            taken, step = taken[::2], 2 * step
    return Records(taken, total)


def count(folder: Path) -> int:
    """How many rows a split holds."""
    # In batches, because every element that reaches Python costs as much as many that do not.
    return sum(len(batch) for batch in _dataset(folder).batch(_BATCH).as_numpy_iterator())


def _dataset(folder: Path) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(sorted(str(path) for path in folder.glob("*.gz")), "GZIP")


def column_types(serialized: Sequence[bytes]) -> dict[str, DType]:
    """Types of all columns of which any row has a value, however few have one."""
    found: dict[str, DType] = {}
    for record in serialized:
        columns = tf.train.Example.FromString(record).features.feature
        for name in columns:
            if name not in found and (kind := columns[name].WhichOneof("kind")):
                found[name] = _KINDS[kind]
    return found


def read_rows(
    serialized: Sequence[bytes], features: FeatureSet, also: Mapping[str, DType] | None = None
) -> Rows:
    """The raw columns and the truth.

    Numbers become float64 with NaN for a missing or infinite value, text becomes a category; of a list the first value
    counts.

    Args:
      serialized: Examples.
      features: the columns to read, and the label.
      also: more columns by name, such as keys; their text stays text, with None for a missing value.

    Raises:
      ValueError: if a row has no label.
    """
    more = {name: dtype for name, dtype in (also or {}).items() if name != features.label.name}
    wanted = {**more, **{feature.name: feature.dtype for feature in features}}
    wanted[features.label.name] = features.label.dtype
    spec = {name: tf.io.VarLenFeature(TF_TYPES[dtype]) for name, dtype in wanted.items()}
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in wanted}
    for batch in _batches(serialized):
        for name, sparse in tf.io.parse_example(tf.constant(batch), spec).items():
            parts[name].append(_first_values(sparse, len(batch)))
    columns = {name: np.concatenate(found) for name, found in parts.items()}
    truth = _truth(columns.pop(features.label.name), features)
    text = {feature.name for feature in features if feature.dtype is DType.BYTES}
    frame = {
        name: pd.Series(values, dtype="category") if name in text else _finite(values)
        for name, values in columns.items()
    }
    return Rows(pd.DataFrame(frame), truth)


class SavedModel:
    """A saved model's `serving_default`, as a function of serialized Examples."""

    def __init__(self, folder: Path, kind: LabelKind) -> None:
        """Loads it.

        Raises:
          ModelError: if the folder holds no model that can be loaded, or one without the signature.
        """
        try:
            # Held, because it keeps the variables of its signatures alive.
            self._loaded = tf.saved_model.load(str(folder))
            self._signature = self._loaded.signatures["serving_default"]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise ModelError(f"the model in {folder} cannot be loaded: {_first_line(error)}") from error
        self._folder = folder
        self._kind = kind

    def __call__(self, serialized: Sequence[bytes]) -> Floats:
        """Its answers: `[rows, classes]` probabilities, or `[rows]` predictions.

        Raises:
          ModelError: if it cannot answer these rows.
        """
        key = "prediction" if self._kind is LabelKind.REGRESSION else "scores"
        try:
            found = [
                self._signature(examples=tf.constant(batch))[key].numpy() for batch in _batches(serialized)
            ]
        except (KeyError, ValueError, TypeError, tf.errors.OpError) as error:
            raise ModelError(f"the model in {self._folder} gives no {key}: {_first_line(error)}") from error
        joined = np.concatenate(found).astype(np.float64)
        return joined[:, 0] if self._kind is LabelKind.REGRESSION else joined


def misfit(model: Path, types: Mapping[str, DType], *, may_lack: bool = False) -> str:
    """Why a model cannot answer rows that have columns of these types; empty where nothing is known against it.

    A model takes a column that is gone for missing in every row, and loses for no fault of its own. Only what its
    signature `serving_raw` says is looked at; the model is not loaded. With `may_lack` a column that is not there is no
    misfit: some rows may lack what others have.
    """
    try:
        saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    except FileNotFoundError:
        return f"there is no model in {model}"
    except DecodeError as error:
        return f"the model in {model} cannot be loaded: {error}"
    there = {Feature(name, dtype, Kind.NUMERIC).graph_name: TF_TYPES[dtype] for name, dtype in types.items()}
    wanted = {
        name: tf.dtypes.as_dtype(tensor.dtype)
        for graph in saved.meta_graphs
        for name, tensor in graph.signature_def["serving_raw"].inputs.items()
    }
    gone = sorted(wanted.keys() - there.keys())
    if gone and not may_lack:
        return f"it reads {', '.join(map(repr, gone))}, which the data does not have"
    changed = [name for name in sorted(wanted.keys() & there.keys()) if wanted[name] != there[name]]
    return ", ".join(
        f"it reads {name!r} as {wanted[name].name}, and the data has {there[name].name}" for name in changed
    )


def champion_answers(folder: Path, serialized: Sequence[bytes], features: FeatureSet) -> Floats:
    """What the champion says of rows that were made for another model.

    Raises:
      ModelError: if it does not fit the rows, or cannot be loaded or asked.
    """
    types = {**column_types(serialized), **{feature.name: feature.dtype for feature in features}}
    if fault := misfit(folder, types):
        raise ModelError(fault)
    return SavedModel(folder, features.label.kind)(serialized)


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _batches(serialized: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(serialized), _BATCH):
        yield serialized[start : start + _BATCH]


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers with NaN for infinity, which neither trees nor regressions take; other values as they are."""
    return np.where(np.isfinite(values), values, np.nan) if values.dtype.kind == "f" else values


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
