"""Parquet to Examples for the stock FileBasedExampleGen.

TFX's own Parquet executor takes every false value for a missing one: 0, 0.0, false and "" vanish, and with them one
class of a binary label.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor

from ingest.errors import DataError


@beam.ptransform_fn
def _rows_to_examples(
    pipeline: beam.Pipeline, exec_properties: Mapping[str, Any], split_pattern: str
) -> beam.PCollection:
    pattern = str(Path(exec_properties["input_base"]) / split_pattern)
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
    match value:
        case None:
            return tf.train.Feature()
        case int():  # bool too
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        case float():
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        case str():
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        case bytes():
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    raise DataError(
        f"column {column!r} holds {value!r}, a {type(value).__name__}, which no Example can hold; write it as a "
        "number or text, or use data.source.kind: query and convert it in the SQL"
    )
