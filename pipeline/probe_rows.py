"""The rows of a probe as the signatures of an exported model take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft
from scipy.spatial import cKDTree

from pipeline.example_rows import TF_TYPES
from schemas.features import MISSING_INT, DType, FeatureSet
from schemas.probe import Probe

_BATCH = 4096
_MISSING = {DType.FLOAT: np.nan, DType.INT: MISSING_INT, DType.BYTES: b""}
_NUMPY = {DType.FLOAT: np.float32, DType.INT: np.int64, DType.BYTES: object}

_SAME = 1e-4
"""Two transformed rows whose columns differ by no more are the same: batches of other sizes round otherwise."""


def serialized(probe: Probe) -> npt.NDArray[Any]:
    """The raw rows as the other signatures take them: bytes `[rows]`."""
    rows = np.empty(len(probe), dtype=object)
    rows[:] = probe.examples
    return rows


def raw_columns(examples: Sequence[bytes], features: FeatureSet) -> dict[str, npt.NDArray[Any]]:
    """Values `[rows]` by input of `serving_raw`; of a list the first, of nothing the type's missing value."""
    spec = {feature.name: tf.io.VarLenFeature(TF_TYPES[feature.dtype]) for feature in features}
    parsed = tf.io.parse_example(tf.constant(list(examples)), spec)
    columns = {}
    for feature in features:
        values = np.full(len(examples), _MISSING[feature.dtype], _NUMPY[feature.dtype])
        indices = parsed[feature.name].indices.numpy()
        is_first = indices[:, 1] == 0
        values[indices[is_first, 0]] = parsed[feature.name].values.numpy()[is_first]
        columns[feature.graph_name] = values
    return columns


def with_raw_rows(probe: Probe, split: Path, graph: str) -> Probe:
    """Adds the raw rows to a probe of rows that training read transformed; those that are not found are left out.

    A raw row is looked for that the Transform graph turns into the row of the probe. Rows that do so are alike to
    the network, so any of them will do.

    Args:
      probe: without `examples`.
      split: folder of the raw rows that it was taken from.
      graph: place of the Transform graph.
    """
    names = sorted(probe.columns)
    tree = cKDTree(_matrix(probe.columns, names))
    found: dict[int, bytes] = {}
    for batch, columns in _transformed(split, graph):
        matches = tree.query_ball_point(_matrix(columns, names), _SAME, p=np.inf)
        for example, rows in zip(batch, matches, strict=True):
            found.update((row, example) for row in rows if row not in found)
        if len(found) == len(probe):
            break
    rows = sorted(found)
    return replace(
        probe,
        examples=tuple(found[row] for row in rows),
        columns={name: values[rows] for name, values in probe.columns.items()},
        scores=probe.scores[rows],
    )


def _transformed(split: Path, graph: str) -> Iterator[tuple[list[bytes], dict[str, npt.NDArray[Any]]]]:
    output = tft.TFTransformOutput(graph)
    spec, layer = output.raw_feature_spec(), output.transform_features_layer()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def transform(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(layer(tf.io.parse_example(examples, spec)))

    files = sorted(str(path) for path in split.glob("*.gz"))
    for batch in tf.data.TFRecordDataset(files, "GZIP").batch(_BATCH).as_numpy_iterator():
        columns = {name: tensor.numpy() for name, tensor in transform(tf.constant(batch)).items()}
        yield batch.tolist(), columns


def _matrix(columns: Any, names: list[str]) -> npt.NDArray[np.float64]:
    return np.concatenate(
        [columns[name].reshape(len(columns[name]), -1) for name in names], axis=1, dtype=float
    )
