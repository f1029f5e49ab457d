"""BigQueryExampleGen: TFX's component with one query a split, parameters that a run gives, and rows as ours.

TFX's executor splits by a hash of its own, never notices a changed table, and takes numbers, truth values and texts
only. Here the queries carry the split (`pipeline.bigquery_query`) and the snapshot time, and BigQuery turns every
column into INT64, FLOAT64, STRING or BYTES, by the table of `ingest.query`, before the rows are encoded as those of
files are.

The span and the snapshot time are parameters of their own, because a compiled pipeline can give a run whole parameters
only; they are bound when the component runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import apache_beam as beam
import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError
from tfx import types
from tfx.components.example_gen import utils as example_gen
from tfx.components.example_gen.component import QueryBasedExampleGen
from tfx.dsl.components.base import base_beam_component, base_driver, executor_spec
from tfx.dsl.components.base.base_node import BaseNode
from tfx.extensions.google_cloud_big_query import utils as stock_utils
from tfx.extensions.google_cloud_big_query.example_gen import executor as stock
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.utils import proto_utils

from ingest.errors import DataError
from ingest.records import to_examples
from pipeline import data_plan
from pipeline.bigquery_query import AT_START, Binding, Reading, SplitQuery, fingerprint
from pipeline.components.located_example_gen import AS_CONFIGURED
from pipeline.config import BigQuerySource, ConfigError, Project
from pipeline.source_digest import source_digest

_EXAMPLES = standard_component_specs.EXAMPLES_KEY
_INPUT_CONFIG = standard_component_specs.INPUT_CONFIG_KEY
_READING, _SOURCE_DIGEST, _FINGERPRINT = "reading", "source_digest", "fingerprint"
_SPAN, _WINDOW, _SNAPSHOT_TIME = "span", "window", "snapshot_time"
_CONFIGURED_SPAN = "configured_span"
_MOST_ROWS = 1024

_ALIASES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
_CONVERTED = {
    "INTEGER": "{}",
    "BOOLEAN": "CAST({} AS INT64)",
    "FLOAT": "{}",
    "NUMERIC": "CAST({} AS FLOAT64)",
    "BIGNUMERIC": "CAST({} AS FLOAT64)",
    "STRING": "{}",
    "BYTES": "{}",
    "DATE": "UNIX_SECONDS(TIMESTAMP({}))",
    "DATETIME": "UNIX_SECONDS(TIMESTAMP(DATETIME_TRUNC({}, SECOND)))",
    "TIMESTAMP": "UNIX_SECONDS(TIMESTAMP_TRUNC({}, SECOND))",
}
"""SQL of the value that becomes a feature, by type of the column."""
_ARROW = {
    "FLOAT": pa.float32(),
    "NUMERIC": pa.float32(),
    "BIGNUMERIC": pa.float32(),
    "STRING": pa.string(),
    "BYTES": pa.binary(),
}
"""Type of the feature, where it is not int64."""
_KEYS = frozenset({"STRING", "INTEGER", "BOOLEAN", "DATE"})
"""Types that both engines write as the same text."""


class BigQueryExampleGenSpec(component_spec.ComponentSpec):
    """Parameters and output of BigQueryExampleGen: TFX's, and ours."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        **standard_component_specs.QueryBasedExampleGenSpec.PARAMETERS,
        _READING: component_spec.ExecutionParameter(type=str),
        _SOURCE_DIGEST: component_spec.ExecutionParameter(type=str),
        _SPAN: component_spec.ExecutionParameter(type=int, optional=True),
        _CONFIGURED_SPAN: component_spec.ExecutionParameter(type=int, optional=True),
        _WINDOW: component_spec.ExecutionParameter(type=int, optional=True),
        _SNAPSHOT_TIME: component_spec.ExecutionParameter(type=str, optional=True),
        _FINGERPRINT: component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}  # noqa: RUF012
    OUTPUTS = {_EXAMPLES: component_spec.ChannelParameter(type=standard_artifacts.Examples)}  # noqa: RUF012


@dataclass(frozen=True)
class Column:
    """A column of a query's result.

    Attributes:
      name: the feature's name.
      sql_type: as BigQuery's API calls it: INTEGER, FLOAT, STRING, ...
      is_list: whether a row has any number of values.
      is_widened: whether a whole number is FLOAT all the same.
    """

    name: str
    sql_type: str
    is_list: bool = False
    is_widened: bool = False

    def expression(self) -> str:
        """SQL that gives the column as INT64, FLOAT64, STRING or BYTES, or an ARRAY of these without NULL."""
        name = f"`{self.name}`"
        if not self.is_list:
            return f"{self._converted(name)} AS {name}"
        value = self._converted("x")
        return (
            f"ARRAY(SELECT {value} FROM UNNEST({name}) AS x WITH OFFSET AS position WHERE x IS NOT NULL "
            f"ORDER BY position) AS {name}"
        )

    @property
    def arrow(self) -> pa.DataType:
        """Type of the feature's values, or of lists of them."""
        found = pa.float32() if self.is_widened else _ARROW.get(self.sql_type, pa.int64())
        return pa.list_(found) if self.is_list else found

    def _converted(self, value: str) -> str:
        converted = _CONVERTED[self.sql_type].format(value)
        return f"CAST({converted} AS FLOAT64)" if self.is_widened else converted


class Executor(stock.Executor):
    """Binds the parameters, lets TFX's executor read and write, and says what the rows are."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the three splits into the output artifact.

        Raises:
          DataError: if BigQuery refuses a query, a column can be no feature, or a parameter lacks its value.
        """
        binding = Binding(
            _newest(exec_properties),
            exec_properties.get(_WINDOW),
            _snapshot(exec_properties.get(_SNAPSHOT_TIME)),
        )
        given = proto_utils.json_to_proto(exec_properties[_INPUT_CONFIG], example_gen_pb2.Input())
        queries = [SplitQuery(split.name, split.pattern) for split in given.splits]
        for split in given.splits:
            split.pattern = binding.bind(split.pattern)
        bound = {**exec_properties, _INPUT_CONFIG: proto_utils.proto_to_json(given)}
        super().Do(input_dict, output_dict, bound)
        examples = artifact_utils.get_single_instance(output_dict[_EXAMPLES])
        span = binding.span or 0
        examples.span, examples.version = span, 0
        # Span resolvers and downstream components look among the custom properties.
        examples.set_int_custom_property(example_gen.SPAN_PROPERTY_NAME, span)
        digest = fingerprint(queries, _reading(exec_properties), binding)
        examples.set_string_custom_property(example_gen.FINGERPRINT_PROPERTY_NAME, digest)

    def GetInputSourceToExamplePTransform(self) -> type[beam.PTransform]:  # noqa: N802 (TFX's interface)
        """Says how the rows of one query become Examples."""
        return ReadExamples


class ReadExamples(beam.PTransform):
    """Rows of a query → serialized tf.Examples."""

    def __init__(self, exec_properties: Mapping[str, Any], split_pattern: str) -> None:
        super().__init__()
        self._properties = exec_properties
        self._query = split_pattern

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        project = stock_utils.parse_gcp_project(self._properties["_beam_pipeline_args"])
        columns = described(stock.bigquery.Client(project=project), self._query, _reading(self._properties))
        return (
            pipeline
            | "Read rows" >> stock_utils.ReadFromBigQuery(query=selection(self._query, columns))
            | "Batches" >> beam.BatchElements(max_batch_size=_MOST_ROWS)
            | "Encode" >> beam.FlatMap(encoded, columns).with_output_types(bytes)
        )


def described(client: Any, query: str, reading: Reading) -> tuple[Column, ...]:
    """The columns that a query gives, by a dry run, which costs nothing.

    Raises:
      DataError: if BigQuery refuses the query, or a column can be no feature or no key of a split.
    """
    try:
        config = stock.bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
        fields = client.query(query, job_config=config).schema
    except GoogleAPICallError as error:
        raise DataError(f"BigQuery refuses the query: {error.message}") from error
    columns = tuple(_column(field, reading) for field in fields)
    by_name = {column.name: column for column in columns}
    for key in reading.keys:
        if key not in by_name:
            raise DataError(f"split: the query gives no column {key!r}; it gives {', '.join(by_name)}")
        if by_name[key].sql_type not in _KEYS or by_name[key].is_list:
            raise DataError(
                f"split: column {key!r} is {by_name[key].sql_type}, whose texts differ between engines; split by a "
                "STRING, INT64, BOOL or DATE, or CAST it in the query"
            )
    return columns


def selection(query: str, columns: Sequence[Column]) -> str:
    """The query with every column as the value that its feature has."""
    return f"SELECT {', '.join(column.expression() for column in columns)}\nFROM (\n{query}\n)"


def encoded(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Iterator[bytes]:
    """Rows of `selection` as serialized tf.Examples; what is NULL or NaN is a feature without a value."""
    arrays = [pa.array([_value(row[column.name]) for row in rows], column.arrow) for column in columns]
    batch = pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
    yield from to_examples(batch).to_pylist()


class BigQueryExampleGen(QueryBasedExampleGen):
    """Queries to BigQuery → `examples` with the splits train, validation and test."""

    SPEC_CLASS = BigQueryExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    # TFX's own would put another span in the place of ours.
    DRIVER_CLASS = base_driver.BaseDriver

    def __init__(
        self,
        queries: Sequence[SplitQuery],
        reading: Reading,
        source_digest: str,
        span: int | RuntimeParameter | None = None,
        window: int | None = None,
        snapshot_time: str | RuntimeParameter | None = None,
        fingerprint: str | None = None,
        configured_span: int | None = None,
    ) -> None:
        """Describes the step; asks nothing of BigQuery.

        Args:
          queries: one a split.
          reading: what is done with the rows.
          source_digest: changes with the code that reads and writes; only there to be part of the cache key.
          span: the newest span to read, where the data has spans.
          window: number of spans up to it; absent: all.
          snapshot_time: as of which the tables are read, ISO 8601.
          fingerprint: of what is read, where all of it is known by now; only there to be found in ML Metadata.
          configured_span: what `span` is where it is AS_CONFIGURED.
        """
        splits = [example_gen_pb2.Input.Split(name=query.split, pattern=query.sql) for query in queries]
        given = {_SPAN: span, _WINDOW: window, _SNAPSHOT_TIME: snapshot_time, _FINGERPRINT: fingerprint}
        given[_CONFIGURED_SPAN] = configured_span
        spec = BigQueryExampleGenSpec(
            input_config=example_gen_pb2.Input(splits=splits),
            output_config=example_gen_pb2.Output(),
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
            reading=json.dumps(asdict(reading), sort_keys=True),
            source_digest=source_digest,
            examples=types.Channel(type=standard_artifacts.Examples),
            **{name: value for name, value in given.items() if value is not None},
        )
        # QueryBasedExampleGen would make a specification without our parameters.
        base_beam_component.BaseBeamComponent.__init__(self, spec=spec)


def build(
    project: Project,
    beam_pipeline_args: Sequence[str],
    *,
    span: int | RuntimeParameter | None = None,
    snapshot_time: str | RuntimeParameter | None = None,
) -> BaseNode:
    """The component of a configuration.

    Args:
      project: whose `data.source` is of BigQuery.
      beam_pipeline_args: `--project` and `--temp_location` are added as configured, where they are not among them.
      span: in the place of `data.span.last`, unless it is AS_CONFIGURED.
      snapshot_time: in the place of `data.source.snapshot`.

    Raises:
      ConfigError: if something is given that the configuration has no use for.
      DataError: if the query cannot be translated.
    """
    source = project.config.data.source
    assert isinstance(source, BigQuerySource), "chosen by its kind"
    configured = data_plan.bigquery_binding(project, source)
    for name, given, is_used in (
        ("span", span, configured.span is not None),
        ("snapshot_time", snapshot_time, configured.snapshot_time is not None),
    ):
        if given is not None and not is_used:
            key = "data.span" if name == "span" else "data.source.snapshot"
            raise ConfigError(f"{name}: the configuration has no use for it ({project.place(key)})")
    queries = data_plan.bigquery_queries(project, source)
    reading = data_plan.bigquery_reading(project)
    is_known = span is None and snapshot_time is None
    node = BigQueryExampleGen(
        queries,
        reading,
        source_digest("pipeline.components.bigquery_example_gen"),
        span=configured.span if span is None else span,
        window=configured.window,
        snapshot_time=configured.snapshot_time if snapshot_time is None else snapshot_time,
        fingerprint=fingerprint(queries, reading, configured) if is_known else None,
        configured_span=None if span is None else configured.span,
    )
    ours = {"--project": source.project, "--temp_location": source.temp_location}
    missing = [
        f"{name}={value}"
        for name, value in ours.items()
        if not any(argument.startswith(f"{name}=") for argument in beam_pipeline_args)
    ]
    return node.with_beam_pipeline_args([*beam_pipeline_args, *missing])


def _column(field: Any, reading: Reading) -> Column:
    sql_type = _ALIASES.get(field.field_type, field.field_type)
    if sql_type not in _CONVERTED:
        raise DataError(
            f"column {field.name!r} has type {sql_type}, which no feature can hold; CAST it to a number, a text, a "
            "time, or an array of these"
        )
    is_widened = sql_type in ("INTEGER", "BOOLEAN") and field.name in reading.floats
    return Column(field.name, sql_type, field.mode == "REPEATED", is_widened)


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [item for item in map(_value, value) if item is not None]
    return None if isinstance(value, float) and math.isnan(value) else value


def _newest(exec_properties: Mapping[str, Any]) -> int | None:
    span = exec_properties.get(_SPAN)
    return exec_properties.get(_CONFIGURED_SPAN, span) if span == AS_CONFIGURED else span


def _snapshot(given: str | None) -> str | None:
    """In whole seconds, as that of a local run."""
    return datetime.now(UTC).replace(microsecond=0).isoformat() if given == AT_START else given or None


def _reading(exec_properties: Mapping[str, Any]) -> Reading:
    return Reading(**{name: tuple(value) for name, value in json.loads(exec_properties[_READING]).items()})
