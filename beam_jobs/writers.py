"""Rows of the output and dead letters to files, a format a class."""

from __future__ import annotations

import base64
import gzip
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from beam_jobs.rows import DeadLetter, PredictionError
from ingest.records import to_examples, to_frames

_GZIP = ".gz"
_GZIP_LEVEL = 1
_ROW_GROUP = 1 << 16

MOST_KINDS = 100
"""Kinds of reasons that are counted apart."""

_OTHER_KINDS = "other reasons"
_VALUE = re.compile(r"""'[^']*'|"[^"]*"|\[.*\]|\{.*\}|(?<![\w.])-?\d[\w.+-]*""", re.DOTALL)


@dataclass(frozen=True)
class Reason:
    """Why rows became dead letters: how many for a reason of one kind, and one of them, with its place."""

    rows: int
    example: str


Reasons = dict[str, Reason]
"""By kind of reason: its text without the values in it."""


class Sink(ABC):
    """Rows on their way into an open file.

    Attributes:
      rows: how many it took.
      reasons: of the dead letters among them.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.reasons: Reasons = {}

    @abstractmethod
    def write(self, item: Any) -> None: ...

    def close(self) -> None:  # noqa: B027 (most hold nothing back)
        """Writes what is held back; the file stays open."""


class Format(ABC):
    """How to write items of one kind into a file."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """What the names of its files end in."""

    @abstractmethod
    def sink(self, stream: BinaryIO) -> Sink: ...


@dataclass(frozen=True)
class RowsFormat(Format):
    """Record batches of one schema, in files of one format.

    Attributes:
      name: one of `ROWS_FORMATS`.
      schema: of every batch.

    Raises:
      PredictionError: if the format is unknown or cannot hold a column.
    """

    name: str
    schema: pa.Schema

    def __post_init__(self) -> None:
        if self.name not in ROWS_FORMATS:
            raise PredictionError(
                f"output format {self.name!r} is unknown; want one of {', '.join(ROWS_FORMATS)}"
            )
        takes_nested = _SINKS[self._plain].takes_nested
        for field in self.schema:
            if pa.types.is_nested(field.type) and not takes_nested:
                raise PredictionError(
                    f"column {field.name!r} of type {field.type} cannot be written as {self.name}: "
                    "leave it out or write Parquet"
                )

    @property
    def suffix(self) -> str:
        return f".{self.name}"

    def sink(self, stream: BinaryIO) -> Sink:
        make = _SINKS[self._plain]
        if not self.name.endswith(_GZIP):
            return make(stream, self.schema)
        # Its bytes depend on the rows only: no name, no time.
        packed = gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0)
        return _Packed(packed, make(cast(BinaryIO, packed), self.schema))

    @property
    def _plain(self) -> str:
        return self.name.removesuffix(_GZIP)


@dataclass(frozen=True)
class DeadLettersFormat(Format):
    """Dead letters as JSON lines: source, position, reason, and `raw`, or `raw_base64` if that is not UTF-8.

    One of a CSV file also has its `header`, which says what the values of `raw` are.
    """

    @property
    def suffix(self) -> str:
        return ".jsonl"

    def sink(self, stream: BinaryIO) -> Sink:
        return _DeadLetters(stream)


def kind_of(reason: str) -> str:
    """A reason without the values in it: `age is 'x', not a number` becomes `age is …, not a number`."""
    return _VALUE.sub("…", reason)


def add_reason(reasons: Reasons, kind: str, reason: Reason) -> None:
    """Counts dead letters; beyond `MOST_KINDS` kinds, as of one kind."""
    if kind not in reasons and len(reasons) >= MOST_KINDS:
        kind = _OTHER_KINDS
    known = reasons.get(kind)
    reasons[kind] = Reason(known.rows + reason.rows, known.example) if known else reason


class _Rows(Sink):
    """A sink of record batches."""

    takes_nested = False

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        super().__init__()
        self._stream = stream

    def write(self, item: pa.RecordBatch) -> None:
        self._put(item)
        self.rows += item.num_rows

    @abstractmethod
    def _put(self, rows: pa.RecordBatch) -> None: ...


class _Csv(_Rows):
    """With a header; text in quotes, NULL as nothing, times in ISO 8601."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        super().__init__(stream, schema)
        self._writer = pacsv.CSVWriter(stream, schema)

    def _put(self, rows: pa.RecordBatch) -> None:
        self._writer.write_batch(rows)

    def close(self) -> None:
        self._writer.close()


class _JsonLines(_Rows):
    """An object a row; NULL and NaN as null, bytes in base64, times in ISO 8601."""

    takes_nested = True

    def _put(self, rows: pa.RecordBatch) -> None:
        names = rows.schema.names
        columns = [_iso(column).to_pylist() for column in rows.columns]
        self._stream.write(
            b"".join(
                orjson.dumps(dict(zip(names, row, strict=True)), _plain, orjson.OPT_APPEND_NEWLINE)
                for row in zip(*columns, strict=True)
            )
        )


class _Parquet(_Rows):
    """Row groups of a size that reads well."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        super().__init__(stream, schema)
        self._writer = pq.ParquetWriter(stream, schema)
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0

    takes_nested = True

    def _put(self, rows: pa.RecordBatch) -> None:
        self._held.append(rows)
        self._held_rows += rows.num_rows
        if self._held_rows >= _ROW_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held), row_group_size=self._held_rows)
        self._held, self._held_rows = [], 0

    def close(self) -> None:
        self._write_group()
        self._writer.close()


class _TFRecord(_Rows):
    """tf.Examples: whole numbers and booleans as int64, numbers as float, all else as text; NULL is no value."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        super().__init__(stream, schema)
        self._schema = pa.schema([(field.name, _feature_type(field.type)) for field in schema])

    def _put(self, rows: pa.RecordBatch) -> None:
        columns = [
            # A number with more digits than a float holds is rounded: there is no other in a tf.Example.
            pc.cast(column, field.type, safe=not pa.types.is_floating(field.type))
            for column, field in zip(rows.columns, self._schema, strict=True)
        ]
        self._stream.write(to_frames(to_examples(pa.RecordBatch.from_arrays(columns, schema=self._schema))))


class _Packed(Sink):
    """Another sink through gzip."""

    def __init__(self, packed: gzip.GzipFile, inner: Sink) -> None:
        super().__init__()
        self._packed = packed
        self._inner = inner

    def write(self, item: Any) -> None:
        self._inner.write(item)
        self.rows = self._inner.rows

    def close(self) -> None:
        self._inner.close()
        self._packed.close()


class _DeadLetters(Sink):
    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, item: DeadLetter) -> None:
        record = {"source": item.source, "position": item.position, "reason": item.reason, **_raw(item.raw)}
        if item.header:
            record["header"] = item.header.decode()
        text = json.dumps(record, ensure_ascii=False) + "\n"
        # What Python writes for half a surrogate pair is how JSON escapes it.
        self._stream.write(text.encode("utf-8", "backslashreplace"))
        self.rows += 1
        example = f"{item.source}: row {item.position}: {item.reason}"
        add_reason(self.reasons, kind_of(item.reason), Reason(1, example))


_SINKS: Mapping[str, type[_Rows]] = {
    "csv": _Csv,
    "jsonl": _JsonLines,
    "parquet": _Parquet,
    "tfrecord": _TFRecord,
}

ROWS_FORMATS = (*_SINKS, *(f"{name}{_GZIP}" for name in _SINKS if name != "parquet"))
"""Names of formats for rows. Parquet is packed inside."""


def _raw(raw: bytes) -> dict[str, str]:
    try:
        return {"raw": raw.decode()}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(raw).decode()}


def _iso(column: pa.Array) -> pa.Array:
    """Times as text, which Arrow makes of them much faster than Python."""
    if not pa.types.is_timestamp(column.type):
        return column
    return pc.replace_substring(column.cast(pa.string()), " ", "T")


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _feature_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float32()
    return pa.binary() if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else pa.string()
