"""TFRecord files of tf.Examples, read without TensorFlow.

Format: tensorflow/core/lib/io/record_writer.h: length, its masked CRC32C, record, its masked CRC32C.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import google_crc32c
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from beam_jobs.formats.text import KEPT_BYTES, Item, Overlong, ReadSettings, Row, chunks, positions, too_long
from beam_jobs.rows import Batch, DeadLetter, PredictionError
from schemas.features import DType

_HEAD = struct.Struct("<8sI")
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_CRC_MASK_DELTA = 0xA282EAD8
_BLOCK_BYTES = 1 << 15
_KNOWN_HEADS = 1 << 16
_CUT_OFF = "the file ends inside a record"
_TYPES = {DType.FLOAT: schema_pb2.FLOAT, DType.INT: schema_pb2.INT, DType.BYTES: schema_pb2.BYTES}


def read_tfrecord(stream: BinaryIO, source: str, settings: ReadSettings) -> Iterator[Item]:
    """Reads examples; `examples` holds them as they came, a column is a list array of a feature's values.

    Raises:
      PredictionError: if a record's length is damaged: where the next one begins is then unknown.
      EOFError: if the file ends inside a record.
    """
    decoder = _Decoder(source, settings)
    for chunk in chunks(records(stream, source, settings.max_row_bytes), settings):
        if isinstance(chunk, DeadLetter):
            yield chunk
        else:
            yield from decoder.items(chunk)


def records(stream: BinaryIO, source: str, longest: int) -> Iterator[Row | DeadLetter]:
    """The records of a file, and dead letters of those that are damaged or longer than `longest` bytes.

    Raises:
      PredictionError, EOFError: as `read_tfrecord`.
    """
    taken = _Taken(stream)
    lengths: dict[bytes, int] = {}
    number = 0
    while head := taken.at_most(_HEAD.size):
        number += 1
        length = lengths.get(head)  # Many records of a file are of one length.
        if length is None:
            length = _length(head, source, number)
            if len(lengths) < _KNOWN_HEADS:
                lengths[head] = length
        if length > longest:
            start = taken.exactly(min(longest, KEPT_BYTES))
            taken.skip(length - len(start) + _CRC.size)
            yield too_long(source, number, Overlong(start, length), longest)
            continue
        body = taken.exactly(length + _CRC.size)
        record, (crc,) = body[:length], _CRC.unpack_from(body, length)
        if crc == _masked_crc(record):
            yield Row(number, record)
        else:
            yield DeadLetter(source, str(number), "the record's checksum does not match its bytes", record)


class _Taken:
    """A stream that is read in large blocks and taken in small pieces: a read costs more than a record."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._block = b""
        self._at = 0

    def at_most(self, size: int) -> bytes:
        """The next bytes; fewer at the end of the file."""
        end = self._at + size
        while end > len(self._block):
            # All that is lacking at once: each read has the held bytes copied.
            more = self._stream.read(max(_BLOCK_BYTES, end - len(self._block)))
            if not more:
                break
            self._block, self._at = self._block[self._at :] + more, 0
            end = size
        piece = self._block[self._at : end]
        self._at += len(piece)
        return piece

    def exactly(self, size: int) -> bytes:
        """The next bytes.

        Raises:
          EOFError: if there are fewer.
        """
        piece = self.at_most(size)
        if len(piece) < size:
            raise EOFError(_CUT_OFF)
        return piece

    def skip(self, size: int) -> None:
        """Passes over bytes without holding them.

        Raises:
          EOFError: if there are fewer.
        """
        while size:
            size -= len(self.exactly(min(size, _BLOCK_BYTES)))


def _length(head: bytes, source: str, number: int) -> int:
    if len(head) < _HEAD.size:
        raise EOFError(_CUT_OFF)
    length, crc = _HEAD.unpack(head)
    if crc != _masked_crc(length):
        what = "this is no TFRecord file" if number == 1 else f"record {number} is damaged"
        raise PredictionError(f"{source}: {what}: the checksum of its length does not match")
    return int(_LENGTH.unpack(length)[0])


def _masked_crc(data: bytes) -> int:
    """The checksum as TFRecord stores it: turned by 15 bits and shifted, so that it can protect itself."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF


class _Decoder:
    """Records to batches of their features, and what is no example to dead letters.

    Features are read as of the types that they ought to have, which is much cheaper than finding out what they are.
    Records of which that fails, or all if a type is unknown, are read as whatever they hold. A batch that cannot be
    read even so is halved: a record may be broken, or two may hold a feature in different types, which then come in
    different batches.
    """

    def __init__(self, source: str, settings: ReadSettings) -> None:
        self._source = source
        self._columns = settings.columns
        self._typed = _typed(settings)
        self._untyped = ExamplesToRecordBatchDecoder()

    def items(self, rows: Sequence[Row]) -> Iterator[Item]:
        """The batches and dead letters of these records."""
        if self._typed is not None:
            with contextlib.suppress(RuntimeError):  # Which of them are at fault is found out below.
                return iter([self._batch(self._typed, rows)])
        return self._found_out(rows)

    def _found_out(self, rows: Sequence[Row]) -> Iterator[Item]:
        try:
            yield self._batch(self._untyped, rows)
        except RuntimeError as error:
            if len(rows) == 1:
                reason = f"the record is no tf.Example: {error}"
                yield DeadLetter(self._source, str(rows[0].number), reason, rows[0].raw)
                return
            yield from self._found_out(rows[: len(rows) // 2])
            yield from self._found_out(rows[len(rows) // 2 :])

    def _is_wanted(self, name: str) -> bool:
        return self._columns is None or name in self._columns

    def _batch(self, decoder: ExamplesToRecordBatchDecoder, rows: Sequence[Row]) -> Batch:
        examples = [row.raw for row in rows]
        features = decoder.DecodeBatch(examples)
        columns = {
            name: values
            for name, values in zip(features.schema.names, features.columns, strict=True)
            # A type that was asked for makes a column, whether or not a record has it.
            if (values.null_count < len(values) if decoder is self._typed else self._is_wanted(name))
        }
        return Batch(self._source, positions(rows), columns, raw=examples, examples=examples)


def _typed(settings: ReadSettings) -> ExamplesToRecordBatchDecoder | None:
    """A decoder of the columns that are to be read, if all their types are known."""
    names = settings.columns
    if not names or not all(name in settings.types for name in names):
        return None
    schema = schema_pb2.Schema(
        feature=[schema_pb2.Feature(name=name, type=_TYPES[settings.types[name]]) for name in names]
    )
    return ExamplesToRecordBatchDecoder(schema.SerializeToString())
