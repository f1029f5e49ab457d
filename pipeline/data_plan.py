"""From a configuration to the plan by which `ingest` makes examples; knows no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from ingest import splits
from ingest.locations import Spans, Table, available_spans, has_span, resolve_table
from ingest.plan import Plan
from ingest.quoting import literal, quoted
from pipeline.config import (
    ColumnSplit,
    ConfigError,
    FolderSplit,
    HashSplit,
    Project,
    QuerySource,
    SpanConfig,
    Split,
    TimeSplit,
)


def plan(project: Project) -> Plan:
    """Resolves the files, the SQL, the split and the spans that the configuration names.

    Raises:
      ConfigError: if the source is not a query, or what `data` names does not exist.
      DataError: if a table finds no file, or of an unknown kind.
    """
    source, folder = project.config.data.source, project.file.parent
    if not isinstance(source, QuerySource):
        raise ConfigError(
            f"data.source.kind: {source.kind}: only a query has a plan; rows of this kind are read by TFX "
            f"({project.file})"
        )
    spans = _spans(project, source)
    tables = tuple(_table(name, location, folder, spans) for name, location in source.tables.items())
    sql, sql_source = _sql(project, source)
    split = project.config.data.split
    if isinstance(split, ColumnSplit):
        sql = _with_our_names(sql, split)
    return Plan(
        tables=tables,
        sql=sql,
        sql_source=sql_source,
        split=ingest_split(split),
        null_values=source.null_values,
        spans=spans,
    )


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


def _table(name: str, location: str, folder: Path, spans: Spans | None) -> Table:
    return resolve_table(name, [location], folder, spans if has_span(location) else None)


def _sql(project: Project, source: QuerySource) -> tuple[str, str]:
    """The SQL and what to call it in errors."""
    if source.sql is None:
        if len(source.tables) != 1:
            raise ConfigError(
                f"data.source.sql: missing; {len(source.tables)} tables need a query that joins them "
                f"({project.file})"
            )
        return f"SELECT * FROM {quoted(next(iter(source.tables)))}", str(project.file)
    file = project.resolve(source.sql)
    try:
        return file.read_text(encoding="utf-8"), str(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"data.source.sql: {file}: cannot be read: {error} ({project.file})") from error


def _with_our_names(sql: str, split: ColumnSplit) -> str:
    """The query with the column that names the split in `ingest`'s words, where the data uses others."""
    names = {split.train: splits.TRAIN, split.validation: splits.VALIDATION, split.test: splits.TEST}
    if all(theirs == ours for theirs, ours in names.items()):
        return sql
    column = quoted(split.column)
    cases = " ".join(f"WHEN {literal(theirs)} THEN {literal(ours)}" for theirs, ours in names.items())
    case = f"CASE CAST({column} AS VARCHAR) {cases} ELSE CAST({column} AS VARCHAR) END"
    inner = sql.rstrip().rstrip(";")
    return f"SELECT * REPLACE ({case} AS {column}) FROM (\n{inner}\n)"


def _spans(project: Project, source: QuerySource) -> Spans | None:
    spanned = [location for location in source.tables.values() if has_span(location)]
    config = project.config.data.span
    if config is None:
        if spanned:
            raise ConfigError(
                f"data.span: missing; the location {spanned[0]} has {{SPAN}}: say which spans to read, "
                f"such as `span: {{last: latest, window: 4}}` ({project.file})"
            )
        return None
    return _span_range(project, config, available_spans(spanned, project.file.parent) if spanned else ())


def _span_range(project: Project, config: SpanConfig, available: tuple[int, ...]) -> Spans:
    if config.last == "latest":
        if not available:
            raise ConfigError(
                "data.span.last: latest: no file shows a span; give a number, or a table whose location has "
                f"{{SPAN}} and files ({project.file})"
            )
        last = available[-1]
    else:
        last = config.last
    oldest = available[0] if available else 0
    first = oldest if config.window is None else max(last - config.window + 1, oldest)
    return Spans(min(first, last), last)
