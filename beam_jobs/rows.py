"""Rows on their way to a model, and rows that cannot go there.

A source gives `Batch`es and `DeadLetter`s, and every row of it ends in exactly one of them. Rows travel many at a
time, in columns: what is done to a row costs the more the smaller the pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

Column: TypeAlias = pa.Array | list[Any]
"""Values of a column, one a row: Arrow's, or what a JSON parser made of each (None: absent or null)."""


_STEP = re.compile(r" \[while running '[^']*'\]")


class PredictionError(Exception):
    """A prediction job that cannot be done; the message says what to change."""


def own_error(error: BaseException) -> PredictionError | None:
    """The error of ours that Beam has wrapped, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PredictionError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def plainly(error: PredictionError) -> PredictionError:
    """The error without the name of the step that Beam writes behind its words."""
    return PredictionError(_STEP.sub("", str(error)))


@dataclass(frozen=True)
class DeadLetter:
    """A row that got no prediction.

    Attributes:
      source: the file, table or subscription it came from.
      position: where in the source: number of the row, from 1 (a header does not count), or id of the message.
      reason: what is wrong with it, naming the column and the value.
      raw: the row as it came; JSON where it came in columns.
      header: of the CSV file that the row is of, as it came; else empty.
    """

    source: str
    position: str
    reason: str
    raw: bytes
    header: bytes = b""


@dataclass(frozen=True)
class Batch:
    """Rows of one source, parsed and not yet checked against what the model takes.

    Attributes:
      source: the file, table or subscription they came from.
      positions: of each row: its number in the source, from 1, or the id of its message.
      columns: by name, each with one value a position. From CSV they are `pa.binary` (NULL: a null value), from JSON
        lists of Python values, from Parquet and BigQuery arrays of their own types, from TFRecord list arrays.
      is_text: whether values are text that has yet to be read as numbers (CSV).
      raw: each row as it came; None where it came in columns (Parquet, BigQuery).
      examples: the rows as serialized tf.Examples, where they came so; `columns` then holds their features.
      header: of the CSV file that they are of, as it came; else empty.
    """

    source: str
    positions: Sequence[str] | range
    columns: Mapping[str, Column]
    is_text: bool = False
    raw: Sequence[bytes] | None = None
    examples: Sequence[bytes] | None = None
    header: bytes = b""

    def __len__(self) -> int:
        return len(self.positions)

    def dead_letter(self, row: int, reason: str) -> DeadLetter:
        """A row of the batch as a dead letter."""
        return DeadLetter(self.source, str(self.positions[row]), reason, self.raw_row(row), self.header)

    @property
    def has_header(self) -> bool:
        """Whether the columns are those of the whole source, and not what these rows happened to have."""
        return self.is_text or self.raw is None

    def raw_row(self, row: int) -> bytes:
        """A row as it came, or as JSON where it came in columns."""
        if self.raw is not None:
            return self.raw[row]
        values = {name: _plain(column[row]) for name, column in self.columns.items()}
        return json.dumps(values, default=_as_text, ensure_ascii=False).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Outcome:
    """What became of a batch: rows of the output, and dead letters.

    Attributes:
      predictions: `encoding.Encoder.schema` says its columns; None where no row was scored.
      dead_letters: the other rows.
    """

    predictions: pa.RecordBatch | None
    dead_letters: Sequence[DeadLetter] = ()


def _plain(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
