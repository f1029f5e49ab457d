"""A small analysed table: rows as serialized examples in a file, and the graph over them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform import beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind
from transforms.preprocessing import preprocessing_fn

ROWS = 600
FEATURES = (
    Feature("fare", DType.FLOAT, Kind.NUMERIC),
    Feature("row", DType.INT, Kind.NUMERIC),
    Feature("company", DType.BYTES, Kind.CATEGORICAL),
    Feature("hour", DType.INT, Kind.CYCLICAL, period=24.0),
    Feature("remark", DType.BYTES, Kind.TEXT, max_tokens=4),
)
LABELS = {
    LabelKind.BINARY: Label("tip", DType.INT, LabelKind.BINARY, ("0", "1")),
    LabelKind.MULTICLASS: Label("size", DType.BYTES, LabelKind.MULTICLASS, ("none", "small", "big")),
    LabelKind.REGRESSION: Label("amount", DType.FLOAT, LabelKind.REGRESSION),
}
TYPES = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.string}


def only(*kinds: LabelKind) -> pytest.MarkDecorator:
    """Gives a test tables with these kinds of label only."""
    return pytest.mark.parametrize("table", kinds, ids=str, indirect=True)


def raw_rows() -> list[dict[str, Any]]:
    """Rows whose labels follow fare and company; every seventh lacks its fare, every fifth its company."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(ROWS):
        fare, company = random.normal(), random.choice(["red", "blue", "green"])
        score = fare + (company == "red")
        row = {
            "fare": float(np.float32(fare)), "row": number, "company": company, "hour": number % 24,
            "remark": "Good one" if number % 2 else "bad", "tip": int(score > 0.5),
            "size": ["none", "small", "big"][int(score > 0) + int(score > 1)], "amount": 1000.0 + 500 * score,
        }  # fmt: skip
        if number % 7 == 0:
            del row["fare"]
        if number % 5 == 0:
            del row["company"]
        rows.append(row)
    return rows


def serialized(row: dict[str, Any]) -> bytes:
    """The row as a tf.Example."""
    features = {}
    for name, value in row.items():
        if isinstance(value, str):
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        elif isinstance(value, int):
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(scope="package", params=list(LabelKind), ids=str)
def table(request: pytest.FixtureRequest, tables: Callable[[LabelKind], SimpleNamespace]) -> SimpleNamespace:
    """`features`, `graph`, `graph_path`, `files` and `rows` of a table with one kind of label."""
    return tables(request.param)


def made_table(folder: Path, kind: LabelKind, columns: tuple[Feature, ...] = FEATURES) -> SimpleNamespace:
    """Such a table, with its files in `folder`."""
    features = FeatureSet(columns, LABELS[kind])
    types = {f.name: f.dtype for f in features} | {features.label.name: features.label.dtype}
    rows = _rows(features)
    file = folder / "rows-00000-of-00001.gz"
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for row in rows:
            writer.write(serialized(row))
    _analyse(features, types, rows, folder / "graph")
    return table_in(folder, features)


def table_in(folder: Path, features: FeatureSet) -> SimpleNamespace:
    """The table that was made in `folder`."""
    path = str(folder / "graph")
    return SimpleNamespace(
        features=features,
        graph=tft.TFTransformOutput(path),
        graph_path=path,
        files=[str(folder / "rows-*")],
        rows=_rows(features),
    )


def _rows(features: FeatureSet) -> list[dict[str, Any]]:
    names = [*(f.name for f in features), features.label.name]
    return [{name: row[name] for name in names if name in row} for row in raw_rows()]


def _analyse(features: FeatureSet, types: dict[str, DType], rows: list[dict[str, Any]], folder: Path) -> None:
    spec = {name: tf.io.VarLenFeature(TYPES[dtype]) for name, dtype in types.items()}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    lists = [{name: [row[name]] if name in row else [] for name in spec} for row in rows]
    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "tmp")),
    ):
        function = ((pipeline | beam.Create(lists)), metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"features": features.to_json()})
        )
        _ = function | tft_beam.WriteTransformFn(str(folder))
        _ = metadata | tft_beam.WriteMetadata(str(folder / "metadata"), pipeline)
