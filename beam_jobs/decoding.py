"""Parsed rows to checked tf.Examples, and rows that the model cannot take to dead letters.

A column is read at once; only where that fails are its values looked at one by one. What counts as missing is what
did in training: no value, "", NaN and Infinity.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.pushed import PushedModel
from beam_jobs.rows import Batch, Column, DeadLetter, PredictionError
from beam_jobs.values import CONVERTERS, NOT_OF_THE_TYPE, whole
from ingest.records import to_examples
from schemas.features import DType

_ARROW = {DType.FLOAT: pa.float64(), DType.INT: pa.int64(), DType.BYTES: pa.string()}
_EXAMPLE = {DType.FLOAT: pa.float32(), DType.INT: pa.int64(), DType.BYTES: pa.binary()}
_WORDS = {DType.FLOAT: "a number", DType.INT: "a whole number", DType.BYTES: "text in UTF-8"}
_EXACT_IN_FLOAT64 = 2.0**53
_TICKS_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SHOWN = 60
"""Characters of a value that a reason shows."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Decoded:
    """Rows that the model takes.

    Attributes:
      batch: the batch that they are of.
      rows: which of its rows.
      examples: each as a serialized tf.Example, with the types that the model parses.
      carried: the key and the columns that go to the output as they are.
    """

    batch: Batch
    rows: npt.NDArray[np.int64]
    examples: Sequence[bytes]
    carried: pa.RecordBatch

    def __len__(self) -> int:
        return len(self.rows)


class Decoder:
    """Reads batches as the columns of one model.

    The key is carried before the columns of `carry`. A column that the curated schema knows is carried in its type,
    any other as text.
    """

    def __init__(self, model: PushedModel, carry: Sequence[str] = ()) -> None:
        self._features = {feature.name: feature for feature in model.features}
        self._key = model.key
        names = dict.fromkeys([*model.key, *carry])
        self._carried = {name: model.columns.get(name) for name in names}

    @property
    def carried_schema(self) -> pa.Schema:
        """The columns of `Decoded.carried`."""
        return pa.schema([(name, _ARROW[dtype or DType.BYTES]) for name, dtype in self._carried.items()])

    def decode(self, batch: Batch) -> tuple[Decoded | None, list[DeadLetter]]:
        """The rows that can be scored, if there are any, and the others with their reasons."""
        faults: dict[int, str] = {}
        read = {name: self._read(batch, name, faults) for name in {**self._features, **self._carried}}
        for name, feature in self._features.items():
            if feature.is_required:
                _note_missing(read[name], f"misses {name}, which the model requires", faults)
        for name in self._key:
            _note_missing(read[name], f"misses {name}, which names the row", faults)
        dead = [batch.dead_letter(row, faults[row]) for row in sorted(faults)]
        kept = np.ones(len(batch), bool)
        kept[list(faults)] = False
        rows = np.flatnonzero(kept)
        if not len(rows):
            return None, dead
        if faults:
            taken = pa.array(rows)
            read = {name: values.take(taken) for name, values in read.items()}
        carried = pa.RecordBatch.from_arrays(
            [read[name] for name in self._carried], schema=self.carried_schema
        )
        return Decoded(batch, rows, self._examples(batch, read, rows), carried), dead

    def _read(self, batch: Batch, name: str, faults: dict[int, str]) -> pa.Array:
        feature = self._features.get(name)
        dtype = feature.dtype if feature else self._carried[name]
        column = batch.columns.get(name)
        if column is None:
            return pa.nulls(len(batch), _ARROW[dtype or DType.BYTES])
        if dtype is None:
            return _as_any_text(column, is_feature=batch.examples is not None)
        if isinstance(column, list):
            return _from_json(name, column, dtype, faults)
        if batch.is_text:
            return _from_text(name, column, dtype, faults)
        return _from_arrow(name, column, dtype, faults)

    def _examples(
        self, batch: Batch, kept: Mapping[str, pa.Array], rows: npt.NDArray[np.int64]
    ) -> Sequence[bytes]:
        if batch.examples is not None and self._are_as_the_model_has_them(batch):
            return (
                [batch.examples[row] for row in rows.tolist()] if len(rows) < len(batch) else batch.examples
            )
        columns = {
            name: kept[name].cast(_EXAMPLE[feature.dtype], safe=False)
            for name, feature in self._features.items()
        }
        found: list[bytes] = to_examples(pa.RecordBatch.from_pydict(columns)).to_pylist()
        return found

    def _are_as_the_model_has_them(self, batch: Batch) -> bool:
        """Whether the features of a batch of tf.Examples have the types that the model parses them as."""
        columns = ((batch.columns.get(name), feature.dtype) for name, feature in self._features.items())
        return all(
            not isinstance(column, pa.Array) or _is_stored_as(column.type, dtype) for column, dtype in columns
        )


def check_carried(model: PushedModel, carry: Sequence[str], produced: Sequence[str]) -> None:
    """Refuses columns to carry whose names the output uses for what the model says.

    Raises:
      PredictionError: naming the column.
    """
    for name in (*model.key, *carry):
        if name in produced:
            raise PredictionError(
                f"column {name!r} cannot be carried to the output, where that is the name of what the model says: "
                "rename it in the input"
            )


def _from_text(name: str, values: pa.Array, dtype: DType, faults: dict[int, str]) -> pa.Array:
    """Fields of a CSV file, as bytes."""
    with contextlib.suppress(pa.ArrowInvalid):  # Some value is none of this type; which one is found below.
        text = values.cast(pa.string())
        if dtype is DType.BYTES:
            return text
        text = pc.utf8_trim_whitespace(text)
        if dtype is DType.FLOAT:
            return pc.cast(text, pa.float64())
        if (numbers := _whole_numbers(text)) is not None:
            return numbers
    return _one_by_one(name, values.to_pylist(), dtype, _PARSERS[dtype], faults)


def _whole_numbers(text: pa.Array) -> pa.Array | None:
    """Texts as int64, also those that pandas wrote as 12.0 because others were missing; None if that is not clear."""
    if pc.any(pc.match_substring(text, "x", ignore_case=True)).as_py():
        return None  # Arrow takes 0x1F for a number.
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(text, pa.int64())
    floats = pc.cast(text, pa.float64())
    exact = pc.and_(pc.equal(floats, pc.floor(floats)), pc.less(pc.abs(floats), _EXACT_IN_FLOAT64))
    return pc.cast(floats, pa.int64()) if pc.all(exact, min_count=0).as_py() else None


def _from_json(name: str, values: list[Any], dtype: DType, faults: dict[int, str]) -> pa.Array:
    """Values that a JSON parser made."""
    if set(map(type, values)) <= _JSON_TYPES[dtype]:
        # A value may be out of range, or half a character: found below.
        with contextlib.suppress(pa.ArrowException, OverflowError, UnicodeError):
            return pa.array(values, _ARROW[dtype])
    return _one_by_one(name, values, dtype, CONVERTERS[dtype], faults)


def _from_arrow(name: str, values: pa.Array, dtype: DType, faults: dict[int, str]) -> pa.Array:
    """A column with a type of its own: from Parquet, BigQuery, or the features of tf.Examples."""
    if _is_list(values.type):
        values = _first_values(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if not pa.types.is_null(kind) and not _may_hold(kind, dtype):
        for row in np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False)):
            faults.setdefault(int(row), f"{name} is of type {kind}, not {_WORDS[dtype]}")
        return pa.nulls(len(values), _ARROW[dtype])
    if _is_date_or_timestamp(kind):
        values = _unix_seconds(values)
    try:
        return pc.cast(values, _ARROW[dtype])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _one_by_one(name, values.to_pylist(), dtype, CONVERTERS[dtype], faults)


def _as_any_text(values: Column, is_feature: bool) -> pa.Array:
    """A carried column that the schema does not know: text as it is, anything else as JSON or in Python's words.

    Of a tf.Example's feature the first value counts, as always.
    """
    if is_feature and not isinstance(values, list) and _is_list(values.type):
        values = _first_values(values)
    plain = values if isinstance(values, list) else values.to_pylist()
    return pa.array([None if value is None else _in_words(value) for value in plain], pa.string())


def _in_words(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    is_json = isinstance(value, bool | int | float | list | dict)
    text = json.dumps(value, default=_in_words) if is_json else str(value)
    return text.encode("utf-8", "replace").decode()


def _first_values(values: pa.Array) -> pa.Array:
    """The first value of each list, which is the one that counts; NULL where there is none."""
    flat = values.flatten()
    if (
        not values.null_count
        and len(flat) == len(values)
        and pc.all(pc.equal(pc.list_value_length(values), 1)).as_py()
    ):
        return flat
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    starts = values.offsets.to_numpy()[:-1].astype(np.int64)
    return values.values.take(pa.array(np.where(lengths > 0, starts, 0), mask=lengths == 0))


def _may_hold(kind: pa.DataType, dtype: DType) -> bool:
    """Whether values of an Arrow type can be of a feature's: a time of day and a duration are no number of ours."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_binary(kind)
    if dtype is DType.BYTES:
        return is_text
    return not is_text and (not pa.types.is_temporal(kind) or _is_date_or_timestamp(kind))


def _is_stored_as(kind: pa.DataType, dtype: DType) -> bool:
    """Whether a tf.Example's feature of an Arrow type is of a type of ours; one without any value is of each."""
    value = kind.value_type if _is_list(kind) else kind
    return bool(
        pa.types.is_null(value)
        or {
            DType.FLOAT: pa.types.is_floating,
            DType.INT: pa.types.is_integer,
            DType.BYTES: _is_binary,
        }[dtype](value)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_date_or_timestamp(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _unix_seconds(values: pa.Array) -> pa.Array:
    """Dates and timestamps as training has them: whole seconds, rounded down; without a zone they are UTC."""
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s" if pa.types.is_date32(values.type) else "ms"))
    ticks = pc.fill_null(values.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    seconds = np.floor_divide(ticks, _TICKS_A_SECOND[values.type.unit])
    return pa.array(seconds, mask=values.is_null().to_numpy(zero_copy_only=False))


def _one_by_one(
    name: str, values: Sequence[Any], dtype: DType, convert: Callable[[Any], Any], faults: dict[int, str]
) -> pa.Array:
    converted: list[Any] = []
    for row, value in enumerate(values):
        try:
            converted.append(None if value is None else convert(value))
        except NOT_OF_THE_TYPE:
            faults.setdefault(row, f"{name} is {_shown(value)}, not {_WORDS[dtype]}")
            converted.append(None)
    return pa.array(converted, _ARROW[dtype])


def _note_missing(values: pa.Array, reason: str, faults: dict[int, str]) -> None:
    for row in np.flatnonzero(_is_missing(values)):
        faults.setdefault(int(row), reason)


def _is_missing(values: pa.Array) -> Bools:
    missing: Bools = values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(values.type):
        with np.errstate(over="ignore"):  # What float32 cannot hold is infinite to the model, and so missing.
            finite = np.isfinite(values.to_numpy(zero_copy_only=False).astype(np.float32))
        return missing | ~finite
    if pa.types.is_string(values.type):
        return missing | pc.fill_null(pc.equal(values, ""), False).to_numpy(zero_copy_only=False)
    return missing


def _text_to_float(value: bytes) -> float:
    text = value.decode().strip()
    if "_" in text:  # Python's floats may have it, nobody else's.
        raise ValueError(text)
    return float(text)


def _text_to_int(value: bytes) -> int:
    text = value.decode().strip()
    if text.lower() in ("true", "false"):  # What DuckDB makes of them when it reads CSV for training.
        return int(text.lower() == "true")
    if "_" in text:
        raise ValueError(text)
    try:
        return whole(int(text))
    except ValueError:
        return whole(float(text))


_PARSERS: Mapping[DType, Callable[[bytes], Any]] = {
    DType.FLOAT: _text_to_float,
    DType.INT: _text_to_int,
    DType.BYTES: bytes.decode,
}
_JSON_TYPES: Mapping[DType, frozenset[type]] = {
    DType.FLOAT: frozenset({float, int, type(None)}),
    DType.INT: frozenset({int, type(None)}),
    DType.BYTES: frozenset({str, type(None)}),
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
