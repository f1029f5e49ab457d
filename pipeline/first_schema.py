"""From what SchemaGen inferred to a schema that a pipeline can use and a person can curate."""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipeline.config import ConfigError, Project
from pipeline.runners.records import RunRecord
from schemas.features import SERVING, TRAINING, load_schema

_HEADER = """\
# Inferred by SchemaGen from the first run's statistics. Read it before you trust it: what stands here is what every
# later batch of data is held to.
"""


class NoSchemaError(Exception):
    """The run that should infer the schema failed."""


def write_first_schema(project: Project, record: RunRecord) -> Path:
    """Writes the schema that a run of `pipeline.dag.build_schema` inferred, where the pipeline looks for it.

    Raises:
      ConfigError: if the data has no column of the label's name, or there is a schema by now.
    """
    inferred = load_schema(str(Path(record.nodes["SchemaGen"].uris("schema")[0]) / "schema.pbtxt"))
    [statistics] = record.nodes["StatisticsGen"].uris("statistics")
    path = Path(statistics) / "Split-train" / "FeatureStats.pb"
    train = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()).datasets[0]
    schema = curated(inferred, train, project)
    file = project.schema_file
    partial = file.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as output:
        output.write(_HEADER + text_format.MessageToString(schema))
        output.flush()
        os.fsync(output.fileno())
    try:
        os.link(partial, file)  # unlike a rename, it refuses to replace what somebody wrote meanwhile
    except FileExistsError as error:
        raise ConfigError(f"schema: {file} was written by somebody else during the run; run again") from error
    finally:
        partial.unlink()
    return file


def curated(
    inferred: schema_pb2.Schema, train: statistics_pb2.DatasetFeatureStatistics, project: Project
) -> schema_pb2.Schema:
    """The inferred schema with the two environments.

    Raises:
      ConfigError: if the label is not among the columns, or it cannot be told what its numbers mean.
    """
    schema = schema_pb2.Schema()
    schema.CopyFrom(inferred)
    schema.default_environment.extend([TRAINING, SERVING])
    label = project.config.label
    column = next((column for column in schema.feature if column.name == label.column), None)
    if column is None:
        names = ", ".join(column.name for column in schema.feature)
        raise ConfigError(
            f"label.column: the data has no column {label.column!r}; it has {names} "
            f"({project.place('label.column')})"
        )
    column.not_in_environment.append(SERVING)
    is_whole = column.type == schema_pb2.INT and column.WhichOneof("domain_info") is None
    if is_whole and label.kind != "regression" and not label.classes:
        numbers = next(f.num_stats for f in train.features if (f.path.step or [f.name])[0] == label.column)
        raise ConfigError(
            f"label: {label.column!r} holds whole numbers from {numbers.min:.0f} to {numbers.max:.0f}: say which of "
            f"them are classes (label.classes), or label.kind: regression ({project.place('label')})"
        )
    return schema
