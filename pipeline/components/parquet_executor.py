"""Parquet to Examples for the stock FileBasedExampleGen.

TFX's own Parquet executor takes every false value for a missing one: 0, 0.0, false and "" vanish, and with them one
class of a binary label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor

from ingest.errors import DataError


@beam.ptransform_fn
def _rows_to_examples(
    pipeline: beam.Pipeline, exec_properties: Mapping[str, Any], split_pattern: str
) -> beam.PCollection:
    pattern = f"{exec_properties['input_base']}/{split_pattern}"
    return pipeline | beam.io.ReadFromParquet(pattern) | beam.Map(to_example)


class Executor(BaseExampleGenExecutor):
    """Reads Parquet row by row."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802 (TFX's interface)
        """Says how the rows of one input split become Examples."""
        return _rows_to_examples


def to_example(row: Mapping[str, Any]) -> tf.train.Example:
    """One row as an Example; a missing value is a feature without values.

    Raises:
      DataError: for a value that is no number, truth value or text; the message names the column.
    """
    features = {name: _feature(name, value) for name, value in row.items()}
    return tf.train.Example(features=tf.train.Features(feature=features))


def _feature(column: str, value: Any) -> tf.train.Feature:
    values = [_plain(item) for item in value] if isinstance(value, list) else [_plain(value)]
    values = [item for item in values if item is not None]
    match values[0] if values else None:
        case None:
            return tf.train.Feature()
        case int():
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        case float():
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        case str():
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[item.encode() for item in values]))
        case bytes():
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    raise DataError(
        f"column {column!r} holds {value!r}, a {type(value).__name__}, which no Example can hold; write it as a "
        "number or text, or use data.source.kind: query and convert it in the SQL"
    )


def _plain(value: Any) -> Any:
    """Dates and times as Unix seconds, as `ingest` writes them; truth as 0 and 1; decimals as floats; NaN missing."""
    match value:
        case bool():
            return int(value)
        case datetime():
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            return int(aware.timestamp() // 1)
        case date():
            return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
        case Decimal():
            return float(value)
        case float() if math.isnan(value):
            return None
    return value
