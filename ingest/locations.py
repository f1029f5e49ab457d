"""From the locations written in a configuration to files on this machine.

A location is a file, a folder, a glob, `package://name/path` (a file inside an installed Python package,
which is not imported), and any of these with `{SPAN}`: the number of a span of data, in three digits as
`{SPAN:3}`.
"""

from __future__ import annotations

import glob
import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ingest.errors import DataError

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".zip", ".parquet")
_PACKAGE = "package://"
_SPAN = re.compile(r"\{SPAN(?::(\d+))?\}")


@dataclass(frozen=True)
class Spans:
    """A range of spans, both ends included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise DataError(f"spans {self.first} to {self.last}: want 0 <= first <= last")


@dataclass(frozen=True)
class Table:
    """A name for the SQL and the files that hold its rows, read in this order."""

    name: str
    paths: tuple[Path, ...]


def resolve_table(
    name: str, locations: Sequence[str], folder: Path, spans: Sequence[int] | None = None
) -> Table:
    """Finds a table's files.

    Args:
      name: the table's name in SQL.
      locations: where its files are.
      folder: where relative locations start.
      spans: numbers of the spans to read; needed where a location has `{SPAN}`.

    Returns:
      The table; each location's files are in the order of their paths, of their spans first.

    Raises:
      DataError: if a location finds no file, a span has none, or a file has an unknown suffix.
    """
    paths: list[Path] = []
    for location in locations:
        for pattern in _expand_spans(name, location, spans):
            paths.extend(_files(name, pattern, folder))
    repeated = sorted({str(path) for path in paths if paths.count(path) > 1})
    if repeated:
        raise DataError(f"table {name!r}: {repeated[0]} is found by more than one location")
    return Table(name, tuple(paths))


def available_spans(locations: Sequence[str], folder: Path) -> tuple[int, ...]:
    """The spans for which at least one location with `{SPAN}` finds files, in ascending order."""
    return tuple(sorted({span for location in locations for span in _spans_of(location, folder)}))


def has_span(location: str) -> bool:
    """Whether a location depends on the span."""
    return _SPAN.search(location) is not None


def _expand_spans(name: str, location: str, spans: Sequence[int] | None) -> Iterator[str]:
    if not has_span(location):
        yield location
    elif spans is None:
        raise DataError(f"table {name!r}: {location} has a {{SPAN}} but no spans are given")
    else:
        for span in spans:
            yield with_span(location, span)


def with_span(location: str, span: int) -> str:
    """The location of one span."""
    return _SPAN.sub(lambda match: str(span).zfill(int(match[1] or 0)), location)


def span_of(location: str, path: str) -> int | None:
    """The span of a file or folder that a location with `{SPAN}` finds, and None for what it does not find.

    Its number stands there with as many digits as the location says: `with_span` leads back to it.
    """
    place = _SPAN.search(location)
    match = _span_expression(location).fullmatch(path)
    if place is None or match is None:
        return None
    digits = match["span"]
    return int(digits) if digits == str(int(digits)).zfill(int(place[1] or 0)) else None


def _spans_of(location: str, folder: Path) -> Iterator[int]:
    if not has_span(location):
        return
    pattern = str(folder / location)
    for path in _glob(_SPAN.sub("*", pattern)):
        span = span_of(pattern, path)
        if span is not None:
            yield span


@cache
def _span_expression(pattern: str) -> re.Pattern[str]:
    text, end = "", 0
    for index, place in enumerate(_SPAN.finditer(pattern)):
        text += _glob_expression(pattern[end : place.start()])
        text += "(?P=span)" if index else r"(?P<span>[0-9]+)"
        end = place.end()
    return re.compile(text + _glob_expression(pattern[end:]))


def _glob_expression(text: str) -> str:
    """A glob as a regular expression: a star does not cross a folder."""
    return re.escape(text).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")


def _glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern))  # noqa: PTH207 (Path.glob wants a root)


def _files(name: str, location: str, folder: Path) -> list[Path]:
    path = _package_file(name, location) if location.startswith(_PACKAGE) else folder / location
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.is_file() and _is_table(child))
    elif glob.has_magic(str(path)) and not path.exists():
        found = [Path(match) for match in _glob(str(path)) if Path(match).is_file()]
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise DataError(f"table {name!r}: no file at {path}; a table's files end in {', '.join(SUFFIXES)}")
    for file in found:
        if not _is_table(file):
            raise DataError(f"table {name!r}: {file} is of an unknown kind; want {', '.join(SUFFIXES)}")
    return [file.resolve() for file in found]


def _is_table(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def _package_file(name: str, location: str) -> Path:
    package, _, inside = location.removeprefix(_PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"table {name!r}: {location}: no package {package!r} is installed here")
    return Path(next(iter(spec.submodule_search_locations))) / inside
