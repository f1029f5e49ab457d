"""The one error of this room, and DuckDB's messages cut down to what helps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

_LONGEST_QUOTE = 80
_NO_CAST = re.compile(
    r"Error when converting column \"(.*)\"\. Could not convert string \"(.*?)\" to '([^']*)'", re.DOTALL
)


class DataError(ValueError):
    """Data or SQL that cannot become examples. The message names file, line and value, and what to do."""


def csv_error(name: str, error: duckdb.Error) -> DataError:
    """The cause of a failed read of one CSV file, in a sentence.

    Args:
      name: what to call the file.
      error: what DuckDB raised while reading this file alone.
    """
    message = str(error)
    line = re.search(r"CSV Error on Line: (\d+)", message)
    if not line:
        return DataError(f"{name}: cannot be read as CSV: {first_line(error)}")
    original = re.search(r"Original Line: ?(.*)", message)
    row = short(original.group(1)) if original else "''"
    return DataError(f"{name}:{line.group(1)}: {_csv_cause(message, row)}")


def _csv_cause(message: str, row: str) -> str:
    if "unterminated quote" in message:
        return f'broken quoting in {row}: close the quote, and write a quote inside a value as ""'
    if "not utf-8" in message:
        return f"the text is not UTF-8, near {row}: {convert_from('latin1')}"
    if width := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        # DuckDB stops counting at the first surplus value.
        found = f"more than {width[1]}" if int(width[2]) > int(width[1]) else width[2]
        return f"the header names {width[1]} columns but this row has {found} values: {row}"
    if cast := _NO_CAST.search(message):
        return f"column {cast[1]!r}: {short(cast[2])} is not a {cast[3]}"
    if size := re.search(r"Maximum line size of (\d+)", message):
        return f"a row is longer than {size[1]} bytes: look for a quote that is never closed"
    return f"{row}: {message.splitlines()[2] if message.count(chr(10)) > 1 else message}"


def convert_from(encoding: str) -> str:
    """What to do about a file whose text is not UTF-8 but probably `encoding`."""
    return f"convert the file, for example iconv -f {encoding} -t utf-8"


def first_line(error: BaseException) -> str:
    """An error's first sentence without DuckDB's name for the kind of error."""
    return re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", str(error).strip().splitlines()[0]).strip()


def short(text: str) -> str:
    """A value as it may stand in a message: quoted, and cut when it is long."""
    return repr(text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…")
