"""Rows of the validation split with what the network in memory says of them, taken on the way training took them.

The serving check holds the exported model against these. Nothing here goes through the export or its signatures: the
columns come from the reader that fed the training, the scores from the network's logits by formulas of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from models.inputs import Reader, Split, raw_spec
from schemas.features import FeatureSet, Form, Label, LabelKind
from schemas.probe import MOST_ROWS, Probe

Array = npt.NDArray[Any]

_BATCH = 4096
_Row = TypeVar("_Row")


def take(network: tf_keras.Model, split: Split) -> Probe:
    """Asks the network for some rows of a split: one that lacks each column, and others at random."""
    rows = list(_transformed(split) if split.reader.is_transformed else _raw(split))
    columns = {name: np.stack([inputs[name] for _, inputs in rows]) for name in rows[0][1]}
    # Serving computes on the host; a GPU rounds otherwise.
    with tf.device("/CPU:0"):
        logits = network({name: tf.constant(values) for name, values in columns.items()}, training=False)
    examples = tuple(example for example, _ in rows if example)
    # Raw values pass through the graph as they are: there is nothing in them to compare.
    columns = {name: values for name, values in columns.items() if values.dtype != object}
    return Probe(examples, columns, scores(logits.numpy().astype(np.float64), split.reader.features.label))


def scores(logits: npt.NDArray[np.float64], label: Label) -> npt.NDArray[np.float64]:
    """Logits `[rows, outputs]` to what a probe holds: a column for each class, or the predictions."""
    if label.kind is LabelKind.REGRESSION:
        return logits
    if label.kind is LabelKind.BINARY:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _raw(split: Split) -> Iterator[tuple[bytes, Mapping[str, Array]]]:
    """Serialized rows with a known label, and the columns that the reader makes of each."""
    chosen = _in_order(_chosen_records(split))
    yield from islice(_decoded(chosen, split.reader), MOST_ROWS)


def _decoded(chosen: Sequence[bytes], reader: Reader) -> Iterator[tuple[bytes, Mapping[str, Array]]]:
    """The rows that the reader keeps: it leaves out those without a label, and does not say which."""
    inputs, label = reader.decode(tf.constant(chosen))
    if len(label) == len(chosen):
        plain = {name: values.numpy() for name, values in inputs.items()}
        for row, example in enumerate(chosen):
            yield example, {name: values[row] for name, values in plain.items()}
    else:
        one_by_one = tf.data.Dataset.from_tensor_slices(chosen).batch(1).map(reader.decode)
        for example, (inputs, label) in zip(chosen, one_by_one.as_numpy_iterator(), strict=True):
            if len(label):
                yield example, {name: values[0] for name, values in inputs.items()}


def _transformed(split: Split) -> Iterator[tuple[bytes, Mapping[str, Array]]]:
    """Nothing for the serialized rows, which training has not seen, and the columns as it read them."""
    for columns in islice(_in_order(_chosen_columns(split)), MOST_ROWS):
        yield b"", columns


def _chosen_records(split: Split) -> Iterator[tuple[bytes, bool]]:
    """Records, and whether each is there because a column of it is missing."""
    features = split.reader.features
    spec = raw_spec(features, split.reader.graph)
    parsing = {name: tf.io.VarLenFeature(spec[name].dtype) for name in (feature.name for feature in features)}
    draw = _Draw(split.rows)
    files = (tf.data.TFRecordDataset(path, "GZIP" if path.endswith(".gz") else "") for path in split.files)
    for batch in (batch for file in files for batch in file.batch(_BATCH).as_numpy_iterator()):
        parsed = tf.io.parse_example(tf.constant(batch), parsing)
        rows = np.arange(len(batch))
        is_missing = {name: ~np.isin(rows, values.indices.numpy()[:, 0]) for name, values in parsed.items()}
        for row, is_lacking in draw.rows(len(batch), is_missing):
            yield batch[row], is_lacking


def _chosen_columns(split: Split) -> Iterator[tuple[Mapping[str, Array], bool]]:
    """Transformed rows, and whether each is there because a column of it is missing."""
    signs = _signs_of_missing(split.reader.features)
    draw = _Draw(split.rows)
    for inputs, label in split.batches(_BATCH).as_numpy_iterator():
        is_missing = {name: (inputs[name] == sign).all(axis=1) for name, sign in signs.items()}
        for row, is_lacking in draw.rows(len(label), is_missing):
            yield {name: values[row] for name, values in inputs.items()}, is_lacking


def _signs_of_missing(features: FeatureSet) -> dict[str, int]:
    """By column, the value that stands for a missing one: 0 among ids, 1 in an indicator."""
    signs = {column.name: 0 for column in features.columns() if column.form in (Form.ID, Form.BAG)}
    indicators = {column.name: 1 for feature in features for column in feature.columns()[1:]}
    return signs | indicators


class _Draw:
    """Which rows of the batches of a split are taken; the same rows every time."""

    def __init__(self, rows: int) -> None:
        # Twice as many as wanted, so that chance and rows without a label leave enough.
        self._share = 2 * MOST_ROWS / rows
        self._random = np.random.default_rng(0)
        self._found: set[str] = set()

    def rows(self, count: int, is_missing: Mapping[str, Array]) -> Iterator[tuple[int, bool]]:
        """Row numbers of the next batch, and whether a row is the first that lacks some column.

        `is_missing` holds bool `[count]` by column.
        """
        lacking: set[int] = set()
        for name, where in is_missing.items():
            if name not in self._found and where.any():
                self._found.add(name)
                lacking.add(int(np.argmax(where)))
        drawn = np.flatnonzero(self._random.random(count) < self._share).tolist()
        yield from ((row, row in lacking) for row in sorted(lacking.union(drawn)))


def _in_order(chosen: Iterable[tuple[_Row, bool]]) -> list[_Row]:
    """Rows that lack a column first, the others shuffled: any first part of them is a fair one."""
    pairs = list(chosen)
    others = [row for row, is_lacking in pairs if not is_lacking]
    order = np.random.default_rng(0).permutation(len(others))
    return [row for row, is_lacking in pairs if is_lacking] + [others[place] for place in order]
