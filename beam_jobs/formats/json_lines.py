"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from beam_jobs.formats.text import Item, Overlong, ReadSettings, Row, chunks, lines, positions, too_long
from beam_jobs.rows import Batch, DeadLetter

_DEEPEST = 64
"""Nesting that Python can parse it may fail to print or pickle further up the stack."""

_MOST_CELLS = 1 << 22
"""Objects that share no names make a batch as wide as all of them."""

_TOO_DEEP = f"the JSON is nested more than {_DEEPEST} deep"
_COLON = b"\\u003"
"""How an escaped colon begins."""

_SPACE = b" \t\r"
_SHOWN = 60


def read_json_lines(stream: BinaryIO, source: str, settings: ReadSettings) -> Iterator[Item]:
    """Reads objects; a column is a list of what the JSON parser made of its values, None where absent.

    A line of nothing but white space is no row: it gets neither number nor dead letter.
    """
    for chunk in chunks(_rows(lines(stream, source, settings.max_row_bytes), source, settings), settings):
        if isinstance(chunk, DeadLetter):
            yield chunk
        else:
            yield from parse_objects(source, chunk, settings.columns)


def parse_objects(source: str, rows: Sequence[Row], names: Sequence[str] | None = None) -> Iterator[Item]:
    """JSON objects as batches of columns, and what is none as dead letters.

    Args:
      source: what to call the place they came from.
      rows: each the text of one object.
      names: which columns to keep; by default all that any row has.
    """
    kept: list[Row] = []
    objects: list[dict[str, Any]] = []
    found: dict[str, None] = dict.fromkeys(names or ())
    for row in rows:
        try:
            parsed = parse_object(row.raw)
        except ValueError as error:
            yield DeadLetter(source, str(row.number), str(error), row.raw)
            continue
        if names is None:
            wider = found if parsed.keys() <= found.keys() else found | dict.fromkeys(parsed)
            if kept and len(wider) * (len(kept) + 1) > _MOST_CELLS:
                yield _batch(source, kept, objects, found)
                kept, objects, wider = [], [], dict.fromkeys(parsed)
            found = wider
        kept.append(row)
        objects.append(parsed)
    if kept:
        yield _batch(source, kept, objects, found)


def _rows(
    physical: Iterator[bytes | Overlong], source: str, settings: ReadSettings
) -> Iterator[Row | DeadLetter]:
    number = 0
    for line in physical:
        if isinstance(line, Overlong):
            number += 1
            yield too_long(source, number, line, settings.max_row_bytes)
        elif text := line.strip(_SPACE):
            number += 1
            yield Row(number, text)


def _batch(
    source: str,
    rows: Sequence[Row],
    objects: Sequence[dict[str, Any]],
    names: Sequence[str] | dict[str, None],
) -> Batch:
    columns = {name: [row.get(name) for row in objects] for name in names}
    return Batch(source, positions(rows), columns, raw=[row.raw for row in rows])


def parse_object(raw: bytes) -> dict[str, Any]:
    """The object that a text is.

    Raises:
      ValueError: saying why it is none.
    """
    try:
        parsed = orjson.loads(raw)
        certain = isinstance(parsed, dict) and _colons(parsed) == raw.count(b":") and _COLON not in raw
    except orjson.JSONDecodeError:
        certain = False
    if not certain:
        # The fast parser takes no NaN and drops all but the last of the values that share a name.
        parsed = _parse_carefully(raw)
    if not isinstance(parsed, dict):
        raise ValueError(f"the row is no JSON object: {raw[:_SHOWN].decode(errors='replace')!r}")
    if raw.count(b"[") + raw.count(b"{") > _DEEPEST and _is_deep(parsed):
        raise ValueError(_TOO_DEEP)
    return parsed


def _colons(parsed: dict[str, Any]) -> int:
    """How many colons make a flat object that names nothing twice: one a name, and those in its values."""
    in_values = sum(value.count(":") for value in parsed.values() if type(value) is str)
    return len(parsed) + in_values


def _parse_carefully(raw: bytes) -> Any:
    try:
        return _CAREFUL.decode(raw.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"the text is not UTF-8 at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"the text is no JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a name that stands twice: which value is meant is anybody's guess."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the JSON names {twice[:_SHOWN]!r} twice")
    return found


_CAREFUL = json.JSONDecoder(object_pairs_hook=_object)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]
    return any(isinstance(item, dict | list) for item in level)


def _children(item: dict[str, Any] | list[Any]) -> Iterator[Any]:
    return iter(item.values() if isinstance(item, dict) else item)
