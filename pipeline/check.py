"""Does the data fit the configuration and the schema? Answered before a run, without TensorFlow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
from tensorflow_metadata.proto.v0 import schema_pb2

from gates.configured import check_behaviour, check_fairness
from ingest import splits
from ingest.errors import DataError
from ingest.plan import Plan
from ingest.query import Column, bind, check_columns, describe, run_error
from ingest.quoting import quoted
from ingest.tables import Database, connect
from pipeline import data_plan, hyperparameters
from pipeline.config import BigQuerySource, ConfigError, FilesSource, HashSplit, Project
from schemas.features import DType, FeatureSet, Kind, Label, LabelKind, dtype_of, load_schema

_MEMORY_MB = 2048
_ALL = "all"

LONGEST_HASHED = 64
"""Bytes of text that a device model hashes as the server does; of longer text its client refuses the row."""


@dataclass(frozen=True)
class CheckReport:
    """What was found in data that fits.

    Attributes:
      feature_set: roles and kinds of all columns.
      columns: the columns of the query; empty where the rows are read by a stock component.
      rows: rows by split, `all` where TFX will split them by its own hash; None where they were not read.
      classes: rows by class of the label, over all splits; empty for regression or where they were not read.
      notes: what stops no run, and somebody should know; one sentence each.
    """

    feature_set: FeatureSet
    columns: tuple[Column, ...] = ()
    rows: Mapping[str, int] | None = None
    classes: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Group:
    """Rows of one split and one label value (of one split, for regression).

    Attributes:
      present: by column, how many have a value.
      too_long: by column that a device model hashes, how many have more than `LONGEST_HASHED` bytes.
    """

    split: str | None
    label: str | None
    rows: int
    present: Mapping[str, int]
    too_long: Mapping[str, int]


def check(project: Project) -> CheckReport:
    """Checks SQL, schema, features, label and splits against the data.

    Of TFRecords only the files are looked for; TFX reads their rows. A query for BigQuery is translated and its columns
    are compared with the schema, as far as it names them; nothing is asked of the service.

    Raises:
      ConfigError: if the configuration or the schema is at fault.
      DataError: if the SQL or the data is.
    """
    features = project.feature_set()
    hyperparameters.stored(project)
    hyperparameters.check_search(project)
    project.warm_start_weights()
    _check_gates(project, features)
    _check_folder(project)
    plan = data_plan.preview(project)
    if plan is None:
        data_plan.fingerprint(project)  # reads what there is to read
        source = project.config.data.source
        notes = _check_bigquery(project, source) if isinstance(source, BigQuerySource) else ()
        return CheckReport(features, notes=notes)
    schema = load_schema(str(project.schema_file))
    with connect(
        plan.tables, plan.null_values, memory_limit_mb=_MEMORY_MB, conversion_memory_mb=_MEMORY_MB
    ) as database:
        columns = describe(database, plan.sql, plan.params, plan.sql_source, plan.floats)
        if project.config.data.source.kind == "csv":
            columns = tuple(column.as_csv_example_gen() for column in columns)
        kept = splits.written(columns, plan.split)
        check_columns(database, kept, _expected(schema, kept), plan.sql_source)
        try:
            return _check_rows(database, project, plan, columns, features)
        except duckdb.Error as error:
            raise run_error(plan.sql, plan.sql_source, error) from error


def _check_bigquery(project: Project, source: BigQuerySource) -> tuple[str, ...]:
    """What a query for BigQuery says of itself."""
    notes = ["the query was not run: only BigQuery knows its rows, their types and what it costs"]
    columns = data_plan.bigquery_columns(project, source)
    if columns is None:
        notes.append("the query does not name its columns, so they were not compared with the schema")
    else:
        schema = load_schema(str(project.schema_file))
        expected = {column.name for column in schema.feature}
        name = project.resolve(source.sql)
        for column in sorted(expected.difference(columns)):
            raise DataError(f"{name}: the query gives no column {column!r}, which the schema has")
        for column in sorted(set(columns) - expected):
            raise DataError(f"{name}: the query gives a column {column!r}, which the schema lacks")
    if not data_plan.reads_at_snapshot(project, source):
        notes.append(
            "the tables are not read at a snapshot time: a change between two runs, or two splits, goes unnoticed"
        )
    return tuple(notes)


def _check_gates(project: Project, features: FeatureSet) -> None:
    """What the gates would only find out in the middle of a run."""
    gate = project.config.model_gate
    dtypes = {column.name: dtype_of(column) for column in load_schema(str(project.schema_file)).feature}
    try:
        check_behaviour(gate.behaviour, features.label, dtypes)
        check_fairness(gate.fairness, features.label, list(dtypes))
    except ValueError as error:
        key = str(error).partition(":")[0]
        raise ConfigError(f"{error} ({project.place(key)})") from error
    if any(rule.action == "quarantine" for rule in project.config.data_gate.rules):
        from gates.quarantine import rule_faults  # loads pandas

        faults = list(rule_faults(project.config.data_gate.rules))
        if faults:
            place = project.place("data_gate.rules")
            raise ConfigError("\n".join(f"{fault} ({place})" for fault in faults))
    if project.config.serving_check.docker:
        from pipeline.infra_validation import require_docker

        require_docker()


def _is_split_by_tfx(project: Project) -> bool:
    """Whether the run's splits will have other rows than ours: TFX has a hash of its own."""
    config = project.config.data
    return isinstance(config.source, FilesSource) and isinstance(config.split, HashSplit)


def _check_folder(project: Project) -> None:
    """A model that cannot be pushed should not be trained first. The runner looks after its own folder."""
    if project.config.push.folder is None:
        return
    folder = project.serving_folder
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"push.folder: {folder}: {existing} is no folder that can be written to "
            f"({project.place('push.folder')})"
        )


def _expected(schema: schema_pb2.Schema, columns: Sequence[Column]) -> dict[str, DType]:
    """The schema's columns; one that it calls deprecated may be there or not."""
    given = {column.name for column in columns}
    return {
        column.name: dtype_of(column)
        for column in schema.feature
        if column.lifecycle_stage != schema_pb2.DEPRECATED or column.name in given
    }


def _check_rows(
    database: Database, project: Project, plan: Plan, columns: tuple[Column, ...], features: FeatureSet
) -> CheckReport:
    sql = bind(plan.sql, plan.params, plan.sql_source)
    split = splits.resolve(database, sql, columns, plan.split)
    hashed = _hashed_on_devices(features, columns) if project.config.tflite.enabled else []
    groups = _count(database, sql, columns, split, features.label, hashed)
    parts: Sequence[str] = splits.SPLITS
    if _is_split_by_tfx(project):
        groups, parts = [replace(group, split=_ALL) for group in groups], (_ALL,)
    rows: Counter[str | None] = Counter()
    for group in groups:
        rows[group.split] += group.rows
    if set(rows) != set(parts):
        splits.check(database, sql, columns, split)  # raises, and says where the data lies
    for column in splits.written(columns, plan.split):
        if not any(group.present[column.name] for group in groups):
            raise DataError(
                f"{plan.sql_source}: column {column.name!r} has no value in any row; leave it out of the "
                "query and the schema, or look at where it comes from"
            )
    classes = _check_label(groups, parts, features.label, plan.sql_source)
    counts = {name: rows[name] for name in parts}
    return CheckReport(features, columns, counts, classes, tuple(_too_long(groups, hashed)))


def _hashed_on_devices(features: FeatureSet, columns: Sequence[Column]) -> list[Column]:
    names = {
        feature.name for feature in features if feature.kind is Kind.HASHED and feature.dtype is DType.BYTES
    }
    return [column for column in columns if column.name in names and not column.is_list]


def _too_long(groups: Sequence[_Group], hashed: Sequence[Column]) -> Iterator[str]:
    total = sum(group.rows for group in groups)
    for name in (column.name for column in hashed):
        rows = sum(group.too_long[name] for group in groups)
        if rows:
            yield (
                f"column {name!r} is longer than {LONGEST_HASHED} bytes in {rows:,} of {total:,} rows, which the "
                "client of a device model refuses; shorten it in the query and wherever rows come from, or "
                f"set features.exclude: [{name}]"
            )


def _count(
    database: Database,
    sql: str,
    columns: Sequence[Column],
    split: splits.Resolved,
    label: Label,
    hashed: Sequence[Column],
) -> list[_Group]:
    """Counts rows and values in one pass, because the query may be the costly part."""
    value = "NULL" if label.kind is LabelKind.REGRESSION else f"CAST({_label(columns, label)} AS VARCHAR)"
    # NaN is no value; of other types every value counts.
    floats = {column for column in columns if column.dtype is DType.FLOAT and not column.is_list}
    present = ", ".join(
        f"count({column.expression() if column in floats else quoted(column.name)})" for column in columns
    )
    too_long = "".join(f", count_if({_bytes(column)} > {LONGEST_HASHED})" for column in hashed)
    query = (
        f"SELECT {splits.expression(split, columns)}, {value}, count(*), {present}{too_long} "
        f"FROM ({sql}\n) GROUP BY 1, 2"
    )
    return [_group(record, columns, hashed) for record in database.connection.execute(query).fetchall()]


def _bytes(column: Column) -> str:
    """SQL that gives the size of a text in UTF-8, or of a BLOB."""
    return f"{'octet_length' if column.sql_type.startswith('BLOB') else 'strlen'}({column.expression()})"


def _label(columns: Sequence[Column], label: Label) -> str:
    return next(column.expression() for column in columns if column.name == label.name)


def _group(record: tuple[Any, ...], columns: Sequence[Column], hashed: Sequence[Column]) -> _Group:
    split, label, rows, *counts = record
    present, too_long = counts[: len(columns)], counts[len(columns) :]
    return _Group(split, label, rows, _by_name(columns, present), _by_name(hashed, too_long))


def _by_name(columns: Sequence[Column], counts: Sequence[int]) -> dict[str, int]:
    return dict(zip((column.name for column in columns), counts, strict=True))


def _check_label(groups: Sequence[_Group], parts: Sequence[str], label: Label, source: str) -> dict[str, int]:
    missing = sum(group.rows - group.present[label.name] for group in groups)
    if missing:
        raise DataError(
            f"{source}: label {label.name!r} is missing in {missing} rows, which cannot be learnt from; "
            f"leave them out of the query (WHERE {label.name} IS NOT NULL)"
        )
    if label.kind is LabelKind.REGRESSION:
        return {}
    return _check_classes(groups, parts, label, source)


def _check_classes(
    groups: Sequence[_Group], parts: Sequence[str], label: Label, source: str
) -> dict[str, int]:
    rows: Counter[str] = Counter()
    for group in groups:
        rows[str(group.label)] += group.rows
    unknown = sorted(set(rows) - set(label.classes))
    if unknown:
        raise DataError(
            f"{source}: label {label.name!r} is {unknown[0]!r} in {rows[unknown[0]]} rows, but its "
            f"classes are {', '.join(label.classes)}; add it to the label's domain in the "
            "schema, or correct the data"
        )
    for name in parts:
        found = sorted({str(group.label) for group in groups if group.split == name})
        if len(found) < 2:
            raise DataError(
                f"{source}: label {label.name!r} is {found[0]!r} in every row of {name}; at least two "
                "classes are needed to learn and to measure"
            )
    return {value: rows[value] for value in label.classes}
