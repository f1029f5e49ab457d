"""From a configuration to the plan by which `ingest` makes examples; knows no TensorFlow."""

from __future__ import annotations

import hashlib
import json

from tensorflow_metadata.proto.v0 import schema_pb2

import ingest.plan
from ingest import splits
from ingest.errors import DataError
from ingest.locations import Spans, Table, available_spans, has_span, resolve_table
from ingest.plan import Plan
from ingest.query import without_end
from ingest.quoting import literal, quoted
from pipeline import bigquery_query
from pipeline.bigquery_query import Binding, Reading, SplitQuery
from pipeline.config import (
    NO_SNAPSHOT,
    BigQuerySource,
    ColumnSplit,
    ConfigError,
    FilesSource,
    FolderSplit,
    HashSplit,
    Project,
    QuerySource,
    SpanConfig,
    Split,
    TimeSplit,
)
from pipeline.file_source import file_input
from schemas.features import load_schema

_SPLIT = "_split"


def plan(project: Project) -> Plan:
    """Resolves the files, the SQL, the split and the spans that the configuration names.

    Raises:
      ConfigError: if the source is not a query, or what `data` names does not exist.
      DataError: if a table finds no file, or of an unknown kind.
    """
    source = project.config.data.source
    assert isinstance(source, QuerySource), "rows of other kinds are read by TFX"
    spans = _spans(project, source)
    tables = tuple(_table(project, name, location, spans) for name, location in source.tables.items())
    sql, sql_source = query_text(project, source)
    if spans and not any(has_span(location) for location in source.tables.values()):
        _check_uses_span(project, sql, sql_source)
    split = project.config.data.split
    if isinstance(split, ColumnSplit):
        sql = _with_our_names(sql, split)
    return Plan(
        tables=tables,
        sql=sql,
        sql_source=sql_source,
        split=ingest_split(split),
        null_values=source.null_values,
        spans=Spans(spans[0], spans[-1]) if spans else None,
        floats=_floats(project),
    )


def preview(project: Project) -> Plan | None:
    """A plan that reads the rows for a check; None where they cannot be read without TensorFlow or a cloud.

    Of files that TFX splits itself by hash, the preview's splits have other rows than the run's will.
    """
    source = project.config.data.source
    if isinstance(source, QuerySource):
        return plan(project)
    if not isinstance(source, FilesSource) or source.kind == "tfrecord":
        return None
    parts = file_input(project).splits
    tables = tuple(Table(part.name, part.files) for part in parts)
    if isinstance(project.config.data.split, FolderSplit):
        rows = (f"SELECT *, {literal(t.name)} AS {quoted(_SPLIT)} FROM {quoted(t.name)}" for t in tables)
        sql = "\nUNION ALL BY NAME ".join(rows)
        return Plan(tables=tables, sql=sql, sql_source=source.folder, split=splits.ColumnSplit(_SPLIT))
    sql = f"SELECT * FROM {quoted(tables[0].name)}"
    split = ingest_split(project.config.data.split)
    return Plan(tables=tables, sql=sql, sql_source=source.folder, split=split)


def fingerprint(project: Project) -> str:
    """SHA-256 over what decides the examples, in hexadecimal: the content of files and the query.

    Of BigQuery it is the query and its snapshot time: tables that are not read at one may change without it.
    """
    source = project.config.data.source
    if isinstance(source, QuerySource):
        return ingest.plan.fingerprint(plan(project))
    if isinstance(source, BigQuerySource):
        queries = bigquery_queries(project, source)
        return bigquery_query.fingerprint(
            queries, bigquery_reading(project), bigquery_binding(project, source)
        )
    found = file_input(project)
    content = [[part.name, [ingest.plan.file_digest(file) for file in part.files]] for part in found.splits]
    return hashlib.sha256(json.dumps([content, found.span]).encode()).hexdigest()


def bigquery_sql(project: Project, source: BigQuerySource) -> str:
    """The query as BigQuery gets it, before it is split, with the values of the configuration.

    Raises:
      ConfigError: if the file is missing, or nothing in it says which spans to read.
      DataError: if it cannot be translated.
    """
    return bigquery_binding(project, source).bind(_bigquery_query(project, source))


def bigquery_queries(project: Project, source: BigQuerySource) -> tuple[SplitQuery, ...]:
    """One query a split, with `$first_span`, `$last_span` and `$snapshot_time` where a run's values belong.

    Raises:
      ConfigError: if the file is missing, nothing in it says which spans to read, or the split needs a text
        that the engines do not write alike.
      DataError: if it cannot be translated.
    """
    split = project.config.data.split
    names = None
    if isinstance(split, ColumnSplit):
        names = {splits.TRAIN: split.train, splits.VALIDATION: split.validation, splits.TEST: split.test}
    numbers = set(_floats(project))
    for key in split.columns if isinstance(split, HashSplit) else ():
        if key in numbers:
            raise ConfigError(
                f"data.split.columns: {key} is FLOAT in the schema, which BigQuery and DuckDB do not write alike; "
                f"split by a text or a whole number ({project.place('data.split.columns')})"
            )
    return bigquery_query.split_queries(_bigquery_query(project, source), ingest_split(split), names)


def bigquery_binding(project: Project, source: BigQuerySource) -> Binding:
    """The configured values of the query's parameters; the snapshot time is the run's start where none is given."""
    span = project.config.data.span
    last = None
    if span is not None:
        assert span.last != "latest", "the configuration refuses it"
        last = span.last
    snapshot = None if source.snapshot == NO_SNAPSHOT else source.snapshot or project.read_at.isoformat()
    return Binding(last, span.window if span else None, snapshot)


def reads_at_snapshot(project: Project, source: BigQuerySource) -> bool:
    """Whether the query names a snapshot time for at least one table.

    Raises:
      ConfigError, DataError: as `bigquery_queries`.
    """
    sql = _bigquery_query(project, source)
    return bigquery_query.SNAPSHOT_PARAMETER in bigquery_query.parameters_of(sql)


def bigquery_reading(project: Project) -> Reading:
    """What is done with the rows of BigQuery."""
    split = project.config.data.split
    return Reading(_floats(project), split.columns if isinstance(split, HashSplit) else ())


def bigquery_columns(project: Project, source: BigQuerySource) -> tuple[str, ...] | None:
    """The columns that become features; None where only BigQuery could tell, because of a `*` or SQL of its own.

    Raises:
      ConfigError: if the file is missing.
      DataError: if it cannot be translated.
    """
    from pipeline.bigquery_translation import output_columns

    text = _read(project, "data.source.sql", source.sql)
    found = output_columns(text, str(project.resolve(source.sql)), source.dialect)
    split = project.config.data.split
    left_out = split.column if isinstance(split, ColumnSplit) else None
    return None if found is None else tuple(name for name in found if name != left_out)


def _bigquery_query(project: Project, source: BigQuerySource) -> str:
    text = _read(project, "data.source.sql", source.sql)
    name = str(project.resolve(source.sql))
    if project.config.data.span is not None:
        _check_uses_span(project, text, name)
    if source.dialect == "bigquery":
        return text.rstrip().removesuffix(";")
    from pipeline.bigquery_translation import translate

    return translate(text, name, source.tables, at_snapshot=source.snapshot != NO_SNAPSHOT)


def ingest_split(split: Split) -> splits.Split:
    """The split in the terms of `ingest`, which knows neither YAML nor other names for the three splits."""
    match split:
        case TimeSplit():
            if split.validation_from and split.test_from:
                return splits.TimeBoundaries(split.column, split.validation_from, split.test_from)
            return splits.TimeFractions(
                split.column, split.validation_fraction or 0.0, split.test_fraction or 0.0
            )
        case ColumnSplit():
            return splits.ColumnSplit(split.column)
        case HashSplit():
            return splits.HashSplit(split.columns, split.validation_fraction, split.test_fraction)
        case FolderSplit():
            raise ConfigError("data.split.by: folder: a query has no sub-folders to split by")


def _check_uses_span(project: Project, sql: str, sql_source: str) -> None:
    if "$first_span" not in sql and "$last_span" not in sql:
        raise ConfigError(
            f"data.span: neither a table's location has {{SPAN}} nor {sql_source} $first_span or $last_span, so all "
            f"spans would be read ({project.place('data.span')})"
        )


def _floats(project: Project) -> tuple[str, ...]:
    """The columns that the schema calls FLOAT: a delivery of whole numbers must not change their type."""
    if project.lacks_schema:
        return ()
    schema = load_schema(str(project.schema_file))
    return tuple(sorted(column.name for column in schema.feature if column.type == schema_pb2.FLOAT))


def _table(project: Project, name: str, location: str, spans: tuple[int, ...] | None) -> Table:
    try:
        return resolve_table(name, [location], project.file.parent, spans if has_span(location) else None)
    except DataError as error:
        raise DataError(f"{error} ({project.place(f'data.source.tables.{name}')})") from error


def query_text(project: Project, source: QuerySource) -> tuple[str, str]:
    """The SQL and what to call it in errors."""
    if source.sql is None:
        if len(source.tables) != 1:
            raise ConfigError(
                f"data.source.sql: missing; {len(source.tables)} tables need a query that joins them "
                f"({project.place('data.source')})"
            )
        return f"SELECT * FROM {quoted(next(iter(source.tables)))}", str(project.file)
    return _read(project, "data.source.sql", source.sql), str(project.resolve(source.sql))


def _read(project: Project, key: str, path: str) -> str:
    file = project.existing_file(key, path)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {file}: cannot be read: {error} ({project.place(key)})") from error


def _with_our_names(sql: str, split: ColumnSplit) -> str:
    """The query with the column that names the split in `ingest`'s words, where the data uses others."""
    names = {split.train: splits.TRAIN, split.validation: splits.VALIDATION, split.test: splits.TEST}
    if all(theirs == ours for theirs, ours in names.items()):
        return sql
    column = quoted(split.column)
    cases = " ".join(f"WHEN {literal(theirs)} THEN {literal(ours)}" for theirs, ours in names.items())
    # A value that the configuration does not name must not pass for one of ours that looks the same.
    case = f"CASE CAST({column} AS VARCHAR) {cases} ELSE 'not named: ' || CAST({column} AS VARCHAR) END"
    return f"SELECT * REPLACE ({case} AS {column}) FROM (\n{without_end(sql)}\n)"


def _spans(project: Project, source: QuerySource) -> tuple[int, ...] | None:
    """The spans to read, oldest first; None where the data has none."""
    spanned = [location for location in source.tables.values() if has_span(location)]
    config = project.config.data.span
    if config is None:
        if spanned:
            raise ConfigError(
                f"data.span: missing; the location {spanned[0]} has {{SPAN}}: say which spans to read, "
                f"such as `span: {{last: latest, window: 4}}` ({project.place('data.source.tables')})"
            )
        return None
    if spanned:
        return _window(project, config, available_spans(spanned, project.file.parent))
    if config.last == "latest":
        raise ConfigError(
            "data.span.last: latest: no file shows a span; give a number, or a table whose location has "
            f"{{SPAN}} ({project.place('data.span')})"
        )
    first = 0 if config.window is None else max(config.last - config.window + 1, 0)
    return tuple(range(first, config.last + 1))


def _window(project: Project, config: SpanConfig, available: tuple[int, ...]) -> tuple[int, ...]:
    """The newest of the spans that have files. Their numbers may have gaps, as those made of dates do."""
    last = config.last if config.last != "latest" else next(reversed(available), None)
    if last not in available:
        there = ", ".join(map(str, available)) or "none"
        raise ConfigError(
            f"data.span.last: {config.last}: no file of that span; there are {there} ({project.place('data.span')})"
        )
    past = tuple(span for span in available if span <= last)
    return past if config.window is None else past[-config.window :]
