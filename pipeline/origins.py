"""What a run starts from, kept beside its plans: the data by content, and the configuration.

ML Metadata holds an ExampleGen's parameters, and among them the fingerprint of its data. Which files, with which
digests and of which spans, stand behind a fingerprint is written here, under its name, before the run: the files
themselves may be gone or changed by the day somebody asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ingest.locations import available_spans, has_span, resolve_table
from ingest.plan import Plan, file_digest
from pipeline import data_plan
from pipeline.config import BigQuerySource, Config, Project, QuerySource
from pipeline.file_source import FileInput, file_input

PARAMETERS = ("fingerprint", "custom_config", "input_config")
"""Parameters of an ExampleGen among which the fingerprint of its data is found."""
_DATA = ".data.json"
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


class OriginError(Exception):
    """A record of what a run started from cannot be read."""


@dataclass(frozen=True)
class DataFile:
    """One file by its content.

    Attributes:
      table: its name in the SQL; of a folder of files, the split, or `all`.
      sha256: of the content, in hexadecimal.
      size_bytes: its length.
      span: number of the span it holds; None where its location has none.
      paths: where it lay, in all the runs that read it.
    """

    table: str
    sha256: str
    size_bytes: int
    span: int | None
    paths: tuple[str, ...]


@dataclass(frozen=True)
class DataOrigin:
    """What stands behind the fingerprint of examples.

    Attributes:
      fingerprint: as the ExampleGen has it among its parameters.
      kind: of the source: `query`, `csv`, `parquet`, `tfrecord` or `bigquery`.
      files: what was read; none of BigQuery.
      first_span: oldest span that was read, or None where the data has no spans.
      last_span: newest one.
      sql: the query, with its parameters as they are written; None where files are read as they are.
      sql_source: the file it stood in.
    """

    fingerprint: str
    kind: str
    files: tuple[DataFile, ...]
    first_span: int | None
    last_span: int | None
    sql: str | None
    sql_source: str | None

    def covers(self, span: int) -> bool:
        """Whether rows of a span were read.

        Spans that are files are known one by one; of those that the SQL picks only the range is.
        """
        if self.first_span is None or self.last_span is None:
            return False
        in_files = {file.span for file in self.files if file.span is not None}
        return span in in_files if in_files else self.first_span <= span <= self.last_span


def write(project: Project) -> None:
    """Keeps the data and the configuration of a run about to be made, in the `plans` folder of the output.

    Raises:
      ConfigError, DataError: if what the configuration names cannot be found or read.
    """
    folder = project.root / "plans"
    folder.mkdir(parents=True, exist_ok=True)
    config = TypeAdapter(Config).dump_python(project.config, mode="json")
    _write(config_path(project.root, project.digest()), config)
    path = data_path(project.root, data_plan.fingerprint(project))
    known = read_data(path) if path.exists() else None
    found = _Found.of(project)
    if known is None:
        _write(path, asdict(_with_digests(found, fingerprint_at(path))))
    elif moved := _with_paths(known, found):
        _write(path, asdict(moved))


def fingerprint_of(parameters: Mapping[str, str]) -> str | None:
    """The fingerprint of the data among the parameters of an ExampleGen; None if it is not one of ours.

    Ours have it by its name; the stock ones that read files among other digests, first; that of TFX's for BigQuery is
    the query's.
    """
    if "fingerprint" in parameters:
        return parameters["fingerprint"]
    if found := _DIGEST.search(parameters.get("custom_config", "")):
        return found[0]
    splits = json.loads(parameters.get("input_config", "{}")).get("splits")
    return hashlib.sha256(splits[0]["pattern"].encode()).hexdigest() if splits else None


def config_path(root: Path, digest: str) -> Path:
    """Where the configuration with a digest is kept."""
    return root / "plans" / f"config-{digest}.json"


def data_path(root: Path, fingerprint: str) -> Path:
    """Where the origin of the data with a fingerprint is kept."""
    return root / "plans" / f"{fingerprint}{_DATA}"


def fingerprint_at(path: Path) -> str:
    """The fingerprint whose origin is kept at a path."""
    return path.name.removesuffix(_DATA)


def data_paths(root: Path) -> list[Path]:
    """All origins of data that are kept."""
    return sorted((root / "plans").glob(f"*{_DATA}"))


def read_data(path: Path) -> DataOrigin:
    """Reads one origin.

    Raises:
      OriginError: if the file is not what `write` wrote.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        files = (DataFile(**{**file, "paths": tuple(file["paths"])}) for file in record.pop("files"))
        return DataOrigin(files=tuple(files), **record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OriginError(f"{path}: cannot be read as a record of data: {error}") from error


@dataclass(frozen=True)
class _Place:
    table: str
    path: Path
    span: int | None


@dataclass(frozen=True)
class _Found:
    """What the configuration finds, before any content is read; the order of places is that of the reader."""

    kind: str
    places: tuple[_Place, ...] = ()
    spans: tuple[int, int] | None = None
    sql: str | None = None
    sql_source: str | None = None

    @staticmethod
    def of(project: Project) -> _Found:
        source = project.config.data.source
        if isinstance(source, QuerySource):
            return _of_query(project, source, data_plan.plan(project))
        if isinstance(source, BigQuerySource):
            return _of_bigquery(project, source)
        return _of_files(source.kind, file_input(project))


def _of_query(project: Project, source: QuerySource, plan: Plan) -> _Found:
    spans = None if plan.spans is None else (plan.spans.first, plan.spans.last)
    places = (
        _Place(table.name, path, span)
        for table in plan.tables
        for path, span in _span_of_each(project, table.paths, source.tables[table.name], spans)
    )
    return _Found(source.kind, tuple(places), spans, plan.sql, plan.sql_source)


def _span_of_each(
    project: Project, paths: Iterable[Path], location: str, spans: tuple[int, int] | None
) -> Iterator[tuple[Path, int | None]]:
    of_path: dict[Path, int] = {}
    if spans is not None and has_span(location):
        folder = project.file.parent
        for span in available_spans([location], folder):
            if spans[0] <= span <= spans[1]:
                table = resolve_table("", [location], folder, [span])
                of_path.update(dict.fromkeys(table.paths, span))
    yield from ((path, of_path.get(path)) for path in paths)


def _of_files(kind: str, found: FileInput) -> _Found:
    places = (
        _Place(split.name, file.resolve(), found.span) for split in found.splits for file in split.files
    )
    return _Found(kind, tuple(places), None if found.span is None else (found.span, found.span))


def _of_bigquery(project: Project, source: BigQuerySource) -> _Found:
    spans = data_plan.bigquery_binding(project, source).spans
    sql = data_plan.bigquery_sql(project, source)
    return _Found(source.kind, (), spans, sql, str(project.resolve(source.sql)))


def _with_digests(found: _Found, fingerprint: str) -> DataOrigin:
    files = (
        DataFile(
            place.table, file_digest(place.path), place.path.stat().st_size, place.span, (str(place.path),)
        )
        for place in found.places
    )
    first, last = found.spans or (None, None)
    return DataOrigin(fingerprint, found.kind, tuple(files), first, last, found.sql, found.sql_source)


def _with_paths(known: DataOrigin, found: _Found) -> DataOrigin | None:
    """The known origin with the places where its files lie now; None if they were there before.

    The same fingerprint means the same files in the same order.
    """
    files = tuple(
        file if str(place.path) in file.paths else replace(file, paths=(*file.paths, str(place.path)))
        for file, place in zip(known.files, found.places, strict=True)
    )
    return None if files == known.files else replace(known, files=files)


def _write(path: Path, record: Mapping[str, Any] | Sequence[Any]) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".partial", encoding="utf-8", delete=False
    ) as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
