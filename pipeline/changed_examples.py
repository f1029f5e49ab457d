"""Serialized Examples with other values in a column, and a model that is asked about them.

An Example that is cut into Examples of one column each is their concatenation: that is how Protocol Buffers merge. So
a column is replaced by joining bytes, and a row is parsed only once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf

from gates.asking import Value
from schemas.features import DType

Floats = npt.NDArray[np.float64]
Answer = Callable[[Sequence[bytes]], Floats]


class AskedExamples:
    """What `gates.asking.Asked` wants: a model and Examples that can be changed before it is asked.

    Args:
      answer: the model.
      serialized: the Examples.
      columns: their values, in the same order.
      types: of all columns that the model may read.
      label: column that no Example that the model is asked about has.
    """

    def __init__(
        self,
        answer: Answer,
        serialized: Sequence[bytes],
        columns: pd.DataFrame,
        types: Mapping[str, DType],
        label: str,
    ) -> None:
        self._answer = answer
        self._columns = columns
        self._types = types
        self._cells = _cells(serialized, label)
        self._plain: Floats | None = None

    @property
    def columns(self) -> pd.DataFrame:
        """The rows as they are."""
        return self._columns

    def plainly(self) -> Floats:
        """Answers to the rows as they are."""
        if self._plain is None:
            self._plain = self._answer(self._joined(self._cells))
        return self._plain

    def shuffled(self, column: str, order: npt.NDArray[np.int64]) -> Floats:
        """Answers where row i has the value that row `order[i]` has in the column."""
        if column not in self._cells:  # nobody has a value
            return self.plainly()
        cells = self._cells[column]
        return self._answer(self._joined({**self._cells, column: [cells[place] for place in order]}))

    def replaced(self, column: str, values: Sequence[Value]) -> Floats:
        """Answers where the column has these values, one a row."""
        dtype = self._types.get(column)
        if dtype is None:  # no feature, and nobody has a value
            return self.plainly()
        return self._answer(
            self._joined({**self._cells, column: [_cell(column, value, dtype) for value in values]})
        )

    def of(self, rows: Sequence[Mapping[str, Value]]) -> Floats:
        """Answers to other rows; columns that a row does not name are missing in it."""
        return self._answer(
            [
                b"".join(
                    _cell(name, value, self._types[name])
                    for name, value in row.items()
                    if name in self._types
                )
                for row in rows
            ]
        )

    def _joined(self, cells: Mapping[str, Sequence[bytes]]) -> list[bytes]:
        return [b"".join(row) for row in zip(*cells.values(), strict=True)]


def _cells(serialized: Sequence[bytes], label: str) -> dict[str, list[bytes]]:
    """By column, an Example of only this column for every row; of no bytes where the row lacks it."""
    cells: dict[str, list[bytes]] = {}
    for row, record in enumerate(serialized):
        for name, value in tf.train.Example.FromString(record).features.feature.items():
            if name != label:
                found = cells.setdefault(name, [b""] * len(serialized))
                found[row] = _one_column(name, value)
    return cells


def _one_column(name: str, value: tf.train.Feature) -> bytes:
    return bytes(
        tf.train.Example(features=tf.train.Features(feature={name: value})).SerializePartialToString()
    )


def _cell(name: str, value: Value, dtype: DType) -> bytes:
    if value is None:
        return b""
    match dtype:
        case DType.BYTES:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[str(value).encode()]))
        case DType.INT:
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
        case DType.FLOAT:
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=[float(value)]))
    return _one_column(name, feature)
