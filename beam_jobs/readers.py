"""Files of rows to batches: which files, in which format, and how Beam reads them."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import posixpath
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from beam_jobs.formats.csv_files import read_csv
from beam_jobs.formats.json_lines import parse_object, read_json_lines
from beam_jobs.formats.parquet_files import read_parquet
from beam_jobs.formats.text import Item, ReadSettings
from beam_jobs.formats.tfrecords import read_tfrecord
from beam_jobs.outputs import SourceRead
from beam_jobs.rows import Batch, PredictionError

DEAD_LETTERS = "dead_letters"
FILES = "files"
"""Names of `ReadFiles`' outputs beside the batches."""

_Reader = Callable[[BinaryIO, str, ReadSettings], Iterator[Item]]

READERS: Mapping[str, _Reader] = {
    "csv": read_csv,
    "jsonl": read_json_lines,
    "parquet": read_parquet,
    "tfrecord": read_tfrecord,
}

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
_GZIP = ".gz"
_BUFFER_BYTES = 1 << 13


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    Attributes:
      path: on this machine or in an object store.
      format: one of `READERS`.
      size_bytes: as it is stored.
    """

    path: str
    format: str
    size_bytes: int


@dataclass(frozen=True)
class Wanted:
    """Columns without which no row of a source can be scored, or one of the output would be empty.

    Attributes:
      required: features that the model demands a value of.
      key: what names a row.
      carried: what else goes to the output.
      unlisted: what goes to the output and is no column of the schema: a name that may be misspelt.
    """

    required: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


def find_files(patterns: Iterable[str], format_name: str | None = None) -> list[InputFile]:
    """The files that patterns name, each once, in the order of their paths.

    Args:
      patterns: files, folders and globs, on this machine or in an object store. Of a folder those files are read
        whose suffix is known, without those whose names begin with a dot or an underscore.
      format_name: one of `READERS`; by default each file's suffix says.

    Raises:
      PredictionError: if a pattern finds no file or the format of one is unknown.
    """
    if format_name is not None and format_name not in READERS:
        raise PredictionError(f"format {format_name!r} is unknown; want one of {', '.join(READERS)}")
    found: dict[str, InputFile] = {}
    for pattern in patterns:
        for path, size in sorted(_matches(pattern)):
            identity = os.path.realpath(path) if _is_local(path) else path
            found.setdefault(identity, InputFile(path, format_name or _format(path), size))
    return [found[identity] for identity in sorted(found)]


def read_file(file: InputFile, settings: ReadSettings) -> Iterator[Item]:
    """Reads a file in memory that does not grow with it.

    Raises:
      PredictionError: if it cannot be read to its end, naming it and the rows before that point.
    """
    rows = 0
    try:
        with _opened(file) as stream:
            for item in READERS[file.format](stream, file.path, settings):
                yield item
                rows += len(item) if isinstance(item, Batch) else 1
    except (EOFError, zlib.error, OSError, pa.ArrowException) as error:
        raise PredictionError(
            f"{file.path}: gone, damaged or cut off ({_cause(error)}) after {rows} rows were read; "
            "put the whole file there and run again"
        ) from error


class ReadFiles(beam.PTransform):
    """Reads files into batches; beside them dead letters and, for each file read to its end, a `SourceRead`.

    The outputs are `batches`, `DEAD_LETTERS` and `FILES`. A file without the columns that are `wanted`, which are among
    those to read, fails the job: one with a header at its first batch, any other at its end.

    A file is read by one worker from its beginning to its end. A quoted value may hold line feeds, so that the middle
    of a CSV file does not say where a row begins; gzip cannot be entered in the middle at all; and the number of a row
    is known only to who has counted those before it.
    """

    def __init__(self, files: Sequence[InputFile], settings: ReadSettings, wanted: Wanted = Wanted()) -> None:
        super().__init__()
        self._files = files
        self._settings = settings
        self._wanted = wanted

    def expand(self, pipeline: Any) -> Any:
        return (
            pipeline
            | "files" >> beam.Create(self._files, reshuffle=True)
            | "read"
            >> beam.ParDo(_Read(self._settings, self._wanted)).with_outputs(
                DEAD_LETTERS, FILES, main="batches"
            )
        )


class _Read(beam.DoFn):
    def __init__(self, settings: ReadSettings, wanted: Wanted) -> None:
        self._settings = settings
        self._wanted = wanted

    def process(self, element: InputFile) -> Iterator[Any]:
        rows, has_header = 0, False
        absent: tuple[str, ...] | None = None
        for item in read_file(element, self._settings):
            if isinstance(item, Batch):
                if absent is None:
                    check_columns(item, self._wanted)
                    absent = self._settings.columns or ()
                absent = absent_columns(item, absent)
                has_header = item.has_header
                rows += len(item)
                yield item
            else:
                rows += 1
                yield beam.pvalue.TaggedOutput(DEAD_LETTERS, item)
        if not has_header:
            _check_rows(element.path, self._settings.columns or (), absent or (), self._wanted)
        yield beam.pvalue.TaggedOutput(
            FILES, SourceRead(element.path, rows, element.size_bytes, absent or ())
        )


def absent_columns(batch: Batch, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the columns that no row of a batch has; an explicit null of JSON is something to have."""
    return tuple(name for name in names if _is_absent(batch, name))


def check_columns(batch: Batch, wanted: Wanted) -> None:
    """Refuses a source with a header that has not the columns that are wanted.

    Raises:
      PredictionError: naming all columns that are missing.
    """
    if batch.has_header:
        _refuse(
            batch.source,
            [
                *_faults(absent_columns(batch, wanted.required), "the model requires"),
                *_faults(absent_columns(batch, wanted.key), "names the row"),
                *_faults(absent_columns(batch, wanted.carried), "is to be carried"),
            ],
            list(batch.columns),
        )


def _check_rows(source: str, names: Sequence[str], absent: Sequence[str], wanted: Wanted) -> None:
    """Refuses a source without a header of which no row has what is to be carried and no schema lists.

    JSON and tf.Examples have no header: there a row may have what those before it had not, and says on its own if it
    misses what it needs.

    Args:
      source: the file.
      names: of the columns that were to be read.
      absent: those that no row has.
      wanted: what has to be there.

    Raises:
      PredictionError: naming all columns that are missing.
    """
    missing = [name for name in wanted.unlisted if name in absent]
    _refuse(source, _faults(missing, "is to be carried"), [name for name in names if name not in absent])


def _refuse(source: str, faults: Sequence[str], known: Sequence[str]) -> None:
    if faults:
        raise PredictionError(
            f"{source}: there is {' and '.join(faults)}; of those asked for there are {', '.join(known) or 'none'}; "
            "rename them in the input, which has to have the columns that the query of the pipeline gives "
            "(predict --query scores its rows)"
        )


def _faults(absent: Sequence[str], why: str) -> list[str]:
    return [f"no column {', '.join(map(repr, absent))}, which {why}"] if absent else []


def _is_absent(batch: Batch, name: str) -> bool:
    column = batch.columns.get(name)
    if column is None:
        return True
    if not isinstance(column, list) or any(value is not None for value in column):
        return False
    # A name that an explicit null may have is in the text as it is or escaped; the others need no parsing.
    forms = json.dumps(name, ensure_ascii=False).encode("utf-8", "replace"), b"\\"
    return not any(name in parse_object(raw) for raw in batch.raw or () if any(form in raw for form in forms))


def _matches(pattern: str) -> list[tuple[str, int]]:
    """Paths and sizes of the files that a pattern finds."""
    try:
        if _is_local(pattern) and Path(pattern).is_file():  # Its name may look like a glob.
            return [(pattern, Path(pattern).stat().st_size)]
        found = [] if pattern.endswith("/") else _listed(pattern)
        if not found:
            found = [(path, size) for path, size in _listed(pattern.rstrip("/") + "/*") if _is_table(path)]
    except (OSError, ValueError) as error:
        raise PredictionError(f"{pattern}: cannot be looked up: {_cause(error)}") from error
    if not found:
        raise PredictionError(f"{pattern}: no file is there; name a file, a folder or a glob")
    return found


def _listed(pattern: str) -> list[tuple[str, int]]:
    (match,) = FileSystems.match([pattern])
    files = [(file.path, file.size_in_bytes) for file in match.metadata_list]
    return [(path, size) for path, size in files if not (_is_local(path) and Path(path).is_dir())]


def _is_table(path: str) -> bool:
    return not posixpath.basename(path).startswith((".", "_")) and _known_format(path) is not None


def _is_local(path: str) -> bool:
    return FileSystems.get_scheme(path) is None


def _format(path: str) -> str:
    known = _known_format(path)
    if known is None:
        raise PredictionError(
            f"{path}: the suffix does not say what it holds; want one of {', '.join(_SUFFIXES)} (and .gz), "
            "or name the format"
        )
    return known


def _known_format(path: str) -> str | None:
    stem = path.lower().removesuffix(_GZIP)
    known = _SUFFIXES.get(posixpath.splitext(stem)[1])
    # Parquet is packed inside, and read from its end.
    return None if known == "parquet" and stem != path.lower() else known


@contextlib.contextmanager
def _opened(file: InputFile) -> Iterator[BinaryIO]:
    # Beam's own decompression takes a gzip file that is cut off for a whole one.
    with FileSystems.open(file.path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        if file.path.lower().endswith(_GZIP):
            # Small reads cost much less from a buffer than from GzipFile, which is written in Python.
            with (
                gzip.GzipFile(fileobj=stream) as unpacked,
                io.BufferedReader(unpacked, _BUFFER_BYTES) as buffered,
            ):
                yield buffered
        else:
            yield stream


def _cause(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__
