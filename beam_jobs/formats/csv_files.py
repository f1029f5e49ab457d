"""CSV with a header: rows are found by their quotes, their values by Arrow, a thousand rows at a time.

Arrow does not say which bytes a row was made of, and an open quote would take it to the end of the file. So the
lines of each row are found first, by a pattern that says of a line what RFC 4180 says of a row. As DuckDB has it
when it reads for training, a quote may also stand inside a value that does not begin with one.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv

from beam_jobs.formats.text import (
    Item,
    Overlong,
    ReadSettings,
    Row,
    chunks,
    lines,
    positions,
    too_long,
)
from beam_jobs.rows import Batch, DeadLetter, PredictionError
from ingest.errors import convert_from

_DELIMITERS = b",;\t|"
_ROW_NAMES = "column1"
"""What training calls a first column without a name, as pandas writes its index."""

_BROKEN_QUOTING = (
    "broken quoting: a quote is never closed, follows spaces, or is closed before the value ends"
)
_BARE_RETURN = "a carriage return that ends no line stands outside of quotes"


def read_csv(stream: BinaryIO, source: str, settings: ReadSettings) -> Iterator[Item]:
    """Reads the rows below the header; a value is `pa.binary`, or NULL where it is one of `null_values`.

    A line without any character is no row: it gets neither number nor dead letter.

    Raises:
      PredictionError: if the header cannot be read, names a column twice or none of those that are to be read.
    """
    physical = lines(stream, source, settings.max_row_bytes)
    first = next((line for line in physical if line not in (b"", b"\r")), b"")
    delimiter = settings.delimiter or _likeliest_delimiter(first)
    rows = _Quoting(delimiter.encode(), settings.max_row_bytes, source).rows(
        itertools.chain((first,), physical)
    )
    header = _header(next(rows, None), source)
    parser = _Parser(_names(header, source, delimiter), delimiter, source, settings)
    for chunk in chunks(rows, settings):
        for item in [chunk] if isinstance(chunk, DeadLetter) else parser.items(chunk):
            yield replace(item, header=header)


def _likeliest_delimiter(header: bytes | Overlong) -> str:
    text = header.start if isinstance(header, Overlong) else header
    return chr(max(_DELIMITERS, key=text.count))


def _header(row: Row | DeadLetter | None, source: str) -> bytes:
    if row is None:
        raise PredictionError(f"{source}: the file is empty; CSV needs a header")
    if isinstance(row, DeadLetter):
        raise PredictionError(f"{source}: the header cannot be read: {row.reason}")
    return row.raw


def _names(header: bytes, source: str, delimiter: str) -> list[str]:
    if b"\0" in header:
        raise PredictionError(f"{source}: the text is not UTF-8: {convert_from('utf-16')}")
    try:
        text = io.StringIO(header.decode(), newline="")
        names = [name.strip() for name in next(csv.reader(text, delimiter=delimiter))]
    except UnicodeDecodeError as error:
        raise PredictionError(f"{source}: the header is not UTF-8: {convert_from('latin1')}") from error
    except csv.Error as error:
        raise PredictionError(f"{source}: the header cannot be read: {error}") from error
    if not names[0] and len(names) > 1:
        names[0] = _ROW_NAMES
    for number, name in enumerate(names, start=1):
        if not name:
            raise PredictionError(f"{source}: column {number} of the header has no name")
        if name in names[: number - 1]:
            raise PredictionError(f"{source}: the header names column {name!r} twice")
    return names


class _Quoting:
    """Finds which lines are a row."""

    def __init__(self, delimiter: bytes, longest: int, source: str) -> None:
        comma = re.escape(delimiter)
        inside = rb'(?:[^"]++|"")*+'
        # A quote after spaces is one to DuckDB and none to Arrow: refused, lest a value be read in two ways.
        bare = rb'(?! +")[^"\r\n%b][^\r\n%b]*+' % (comma, comma)
        value = rb'(?:"%b"|%b|)' % (inside, bare)
        values = rb'(?:%b%b)*+(?:%b|(?P<open>"%b))' % (value, comma, value, inside)
        self._value = value
        self._value_before_another = re.compile(value + comma)
        self._from_outside = re.compile(values)
        self._from_inside = re.compile(rb'%b(?:(?P<still_open>\Z)|"(?:%b%b)?)' % (inside, comma, values))
        self._delimiter = delimiter
        self._longest = longest
        self._source = source
        self._width = 0
        self._whole_row = re.compile(rb"(?!)")

    def rows(self, physical: Iterator[bytes | Overlong]) -> Iterator[Row | DeadLetter]:
        """The rows, numbered from 0, as the first is the header, and all as wide as it.

        Where a row's quotes are at fault, its first line alone is the dead letter and the next line is read as
        the beginning of a row: an open quote must not take the rows below it along.
        """
        ahead: deque[bytes | Overlong] = deque()
        number = -1
        while (line := ahead.popleft() if ahead else next(physical, None)) is not None:
            if isinstance(line, Overlong):
                number += 1
                yield too_long(self._source, number, line, self._longest)
                continue
            text = line.removesuffix(b"\r")
            if not text:
                continue
            number += 1
            if self._is_row(text):
                yield Row(number, text)
                continue
            row = self._row(line, ahead, physical)
            if row is None:
                reason = _BROKEN_QUOTING if b'"' in text else _BARE_RETURN
                yield DeadLetter(self._source, str(number), reason, text)
                continue
            width = self._values(row)
            if not self._width:
                self._expect(width)
            if width == self._width:
                yield Row(number, row)
            else:
                reason = f"the row has {width} values where the header names {self._width} columns"
                yield DeadLetter(self._source, str(number), reason, row)

    def _expect(self, width: int) -> None:
        self._width = width
        comma = re.escape(self._delimiter)
        self._whole_row = re.compile(rb"(?:%b%b){%d}%b" % (self._value, comma, width - 1, self._value))

    def _is_row(self, text: bytes) -> bool:
        """Whether a line is a row without a fault; says no of the header, whose width is the others'."""
        if b'"' in text or b"\r" in text:
            return self._whole_row.fullmatch(text) is not None
        return text.count(self._delimiter) == self._width - 1

    def _row(
        self, line: bytes, ahead: deque[bytes | Overlong], physical: Iterator[bytes | Overlong]
    ) -> bytes | None:
        """The row which a line begins, of that line or more; None, with `ahead` as if no other were taken."""
        held = [line]
        size, pattern = len(line), self._from_outside
        while True:
            if b'"' in held[-1] or pattern is self._from_outside:
                match = pattern.fullmatch(held[-1].removesuffix(b"\r"))
                if match is None:
                    break
                if match.lastgroup is None:
                    row = b"\n".join(held).removesuffix(b"\r")
                    if len(held) == 1 or self._width in (0, self._values(row)):
                        return row
                    break  # The quote that closed a row of several lines was another row's.
            following = ahead.popleft() if ahead else next(physical, None)
            if following is None:
                break
            if isinstance(following, Overlong) or size + len(following) >= self._longest:
                ahead.appendleft(following)
                break
            held.append(following)
            size, pattern = size + 1 + len(following), self._from_inside
        ahead.extendleft(reversed(held[1:]))
        return None

    def _values(self, row: bytes) -> int:
        """How many values a row has whose quotes are in order."""
        count, end = 1, 0
        while match := self._value_before_another.match(row, end):
            count, end = count + 1, match.end()
        return count


class _Parser:
    """Makes batches of rows whose quotes are in order."""

    def __init__(self, header: list[str], delimiter: str, source: str, settings: ReadSettings) -> None:
        wanted = header if settings.columns is None else [c for c in settings.columns if c in header]
        if not wanted:
            raise PredictionError(
                f"{source}: the header names none of the columns {', '.join(settings.columns or ())}: "
                f"is the first line one? It begins with {header[0]!r}"
            )
        self._header = header
        self._delimiter = delimiter
        self._source = source
        self._convert = pacsv.ConvertOptions(
            column_types={name: pa.binary() for name in wanted},
            include_columns=wanted,
            null_values=list(settings.null_values),
            strings_can_be_null=True,
        )

    def items(self, rows: Sequence[Row]) -> Iterator[Item]:
        """The rows as a batch.

        Where Arrow finds other rows than were found here, or refuses, half as many are tried: what is odd about one
        row costs no other its prediction.
        """
        try:
            table, cause = self._parse(rows), ""
        except pa.ArrowInvalid as error:
            table, cause = None, f": {error}"
        if table is not None and table.num_rows == len(rows):
            columns = dict(zip(table.column_names, _arrays(table), strict=True))
            raw = [row.raw for row in rows]
            yield Batch(self._source, positions(rows), columns, is_text=True, raw=raw)
        elif len(rows) == 1:
            reason = f"the row cannot be read as CSV{cause}"
            yield DeadLetter(self._source, str(rows[0].number), reason, rows[0].raw)
        else:
            yield from self.items(rows[: len(rows) // 2])
            yield from self.items(rows[len(rows) // 2 :])

    def _parse(self, rows: Sequence[Row]) -> pa.Table:
        # The line before the rows is skipped: Arrow would take bytes off the first one that look like a BOM.
        data = b"\n".join((b"", *(row.raw for row in rows), b""))
        return pacsv.read_csv(
            pa.BufferReader(data),
            read_options=pacsv.ReadOptions(
                column_names=self._header, skip_rows=1, use_threads=False, block_size=len(data) + 1
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=self._convert,
        )


def _arrays(table: pa.Table) -> Iterator[pa.Array]:
    for column in table.columns:
        yield column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
