"""Names and texts as parts of SQL."""

from __future__ import annotations

from collections.abc import Iterable


def literals(values: Iterable[str]) -> str:
    """Texts as SQL literals with commas between them."""
    return ", ".join(literal(value) for value in values)


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
