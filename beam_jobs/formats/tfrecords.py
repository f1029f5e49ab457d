"""TFRecord files of tf.Examples, read without TensorFlow.

Format: tensorflow/core/lib/io/record_writer.h: length, its masked CRC32C, record, its masked CRC32C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import google_crc32c
import pyarrow as pa
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from beam_jobs.formats.text import KEPT_BYTES, Item, Overlong, ReadSettings, Row, chunks, positions, too_long
from beam_jobs.rows import Batch, DeadLetter, PredictionError

_HEAD = struct.Struct("<8sI")
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_CRC_MASK_DELTA = 0xA282EAD8
_SKIPPED_BYTES = 1 << 18


def read_tfrecord(stream: BinaryIO, source: str, settings: ReadSettings) -> Iterator[Item]:
    """Reads examples; `examples` holds them as they came, a column is a list array of a feature's values.

    Raises:
      PredictionError: if a record's length is damaged: where the next one begins is then unknown.
      EOFError: if the file ends inside a record.
    """
    decoder = ExamplesToRecordBatchDecoder()
    for chunk in chunks(_records(stream, source, settings.max_row_bytes), settings):
        if isinstance(chunk, DeadLetter):
            yield chunk
        else:
            yield from _decoded(decoder, source, chunk, settings.columns)


def _records(stream: BinaryIO, source: str, longest: int) -> Iterator[Row | DeadLetter]:
    number = 0
    while head := stream.read(_HEAD.size):
        number += 1
        length = _length(head, source, number)
        if length > longest:
            start = _exactly(stream, min(longest, KEPT_BYTES))
            _skip(stream, length - len(start) + _CRC.size)
            yield too_long(source, number, Overlong(start, length), longest)
            continue
        record = _exactly(stream, length)
        (crc,) = _CRC.unpack(_exactly(stream, _CRC.size))
        if crc == _masked_crc(record):
            yield Row(number, record)
        else:
            yield DeadLetter(source, str(number), "the record's checksum does not match its bytes", record)


def _length(head: bytes, source: str, number: int) -> int:
    if len(head) < _HEAD.size:
        raise EOFError("the file ends inside a record")
    length, crc = _HEAD.unpack(head)
    if crc != _masked_crc(length):
        what = "this is no TFRecord file" if number == 1 else f"record {number} is damaged"
        raise PredictionError(f"{source}: {what}: the checksum of its length does not match")
    return int(_LENGTH.unpack(length)[0])


def _exactly(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise EOFError("the file ends inside a record")
    return found


def _skip(stream: BinaryIO, size: int) -> None:
    while size:
        size -= len(_exactly(stream, min(size, _SKIPPED_BYTES)))


def _masked_crc(data: bytes) -> int:
    """The checksum as TFRecord stores it: turned by 15 bits and shifted, so that it can protect itself."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF


def _decoded(
    decoder: ExamplesToRecordBatchDecoder, source: str, rows: Sequence[Row], names: Sequence[str] | None
) -> Iterator[Item]:
    """Records as a batch, and what is no example as dead letters.

    A batch that cannot be decoded is halved: a record may be broken, or two may hold a feature in different types,
    which then come in different batches.
    """
    records = [row.raw for row in rows]
    try:
        features = decoder.DecodeBatch(records)
    except RuntimeError as error:
        if len(rows) == 1:
            yield DeadLetter(
                source, str(rows[0].number), f"the record is no tf.Example: {error}", rows[0].raw
            )
            return
        yield from _decoded(decoder, source, rows[: len(rows) // 2], names)
        yield from _decoded(decoder, source, rows[len(rows) // 2 :], names)
        return
    yield Batch(source, positions(rows), _columns(features, names), raw=records, examples=records)


def _columns(features: pa.RecordBatch, names: Sequence[str] | None) -> dict[str, pa.Array]:
    found = dict(zip(features.schema.names, features.columns, strict=True))
    return found if names is None else {name: found[name] for name in names if name in found}
