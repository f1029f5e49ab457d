"""What the formats share: how to read, rows with their numbers, and lines of bounded length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from beam_jobs.rows import Batch, DeadLetter, PredictionError
from ingest.errors import convert_from
from schemas.features import DType

Item = Batch | DeadLetter

KEPT_BYTES = 4096
"""What a dead letter keeps of a row that is too long."""

_BLOCK_BYTES = 1 << 18
_CHUNK_BYTES = 1 << 24
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class ReadSettings:
    """How to read a file.

    Attributes:
      rows: most rows of a batch.
      max_row_bytes: a longer row becomes a dead letter, which keeps its first `KEPT_BYTES`.
      columns: which columns to read, where the file has them; all of them by default.
      types: of the columns, as far as they are known; for formats in which finding out costs much.
      null_values: texts that mean "no value" in CSV.
      delimiter: between the values of CSV; by default the one that the header has most of.
    """

    rows: int = 1024
    max_row_bytes: int = 1 << 20
    columns: tuple[str, ...] | None = None
    types: Mapping[str, DType] = field(default_factory=dict)
    null_values: tuple[str, ...] = ("",)
    delimiter: str | None = None


class Row(NamedTuple):
    """A row as it came and its number in the file, from 1."""

    number: int
    raw: bytes


@dataclass(frozen=True)
class Overlong:
    """The beginning of a line or record that is too long, and its length in bytes."""

    start: bytes
    size: int


def lines(stream: BinaryIO, source: str, longest: int) -> Iterator[bytes | Overlong]:
    """The lines of a text file without their line feeds and without a byte order mark.

    Raises:
      PredictionError: if the file begins like no text in UTF-8.
    """
    held, dropped = b"", 0
    block = _text(stream.read(_BLOCK_BYTES), source)
    while block:
        *complete, held = (held + block).split(b"\n")
        for line in complete:
            yield _bounded(line, dropped, longest)
            dropped = 0
        if len(held) > longest:
            kept = held[: min(longest, KEPT_BYTES)]
            dropped += len(held) - len(kept)
            held = kept
        block = stream.read(_BLOCK_BYTES)
    if held:
        yield _bounded(held, dropped, longest)


def chunks(rows: Iterable[Row | DeadLetter], settings: ReadSettings) -> Iterator[list[Row] | DeadLetter]:
    """Rows together, bounded in number and bytes; dead letters pass."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        if isinstance(row, DeadLetter):
            yield row
            continue
        chunk.append(row)
        size += len(row.raw)
        if len(chunk) >= settings.rows or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def positions(rows: Sequence[Row]) -> Sequence[str] | range:
    """The positions of a batch of these rows."""
    numbers = range(rows[0].number, rows[-1].number + 1)
    return numbers if len(numbers) == len(rows) else [str(row.number) for row in rows]


def too_long(source: str, number: int, row: Overlong, longest: int) -> DeadLetter:
    """The dead letter of a row that is longer than a row may be."""
    reason = (
        f"the row is {row.size} bytes long, more than {longest}; the first {len(row.start)} are kept here"
    )
    return DeadLetter(source, str(number), reason, row.start)


def _bounded(line: bytes, dropped: int, longest: int) -> bytes | Overlong:
    size = dropped + len(line)
    return line if size <= longest else Overlong(line[: min(longest, KEPT_BYTES)], size)


def _text(block: bytes, source: str) -> bytes:
    if block.startswith(_UTF16_BOMS):
        raise PredictionError(f"{source}: the text is not UTF-8: {convert_from('utf-16')}")
    if block.startswith(_GZIP):
        raise PredictionError(f"{source}: the file is packed by gzip: let its name end in .gz")
    return block.removeprefix(_UTF8_BOM)
