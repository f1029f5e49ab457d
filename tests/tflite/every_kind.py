"""A table with every kind of feature, analysed by tf.Transform, and its rows on the server and on a device."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from ai_edge_litert.interpreter import Interpreter
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform import beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from schemas.features import MISSING_INT, DType, Feature, FeatureSet, Kind, Label, LabelKind
from tflite.preprocessing import DeviceInput
from transforms.preprocessing import preprocessing_fn

FEATURES = FeatureSet(
    features=(
        Feature("fare", DType.FLOAT, Kind.NUMERIC),
        Feature("miles", DType.FLOAT, Kind.NUMERIC, is_required=True, log=True),
        Feature("pressure", DType.FLOAT, Kind.NUMERIC),
        Feature("same", DType.FLOAT, Kind.NUMERIC),
        Feature("empty", DType.FLOAT, Kind.NUMERIC),
        Feature("stamp", DType.INT, Kind.NUMERIC),
        Feature("count", DType.INT, Kind.NUMERIC, log=True),
        Feature("seconds", DType.INT, Kind.BUCKETIZED, buckets=3),
        Feature("ratio", DType.FLOAT, Kind.BUCKETIZED, buckets=5),
        Feature("no ratio", DType.FLOAT, Kind.BUCKETIZED, buckets=5),
        Feature("company", DType.BYTES, Kind.CATEGORICAL, min_count=2),
        Feature("street", DType.BYTES, Kind.CATEGORICAL),
        Feature("area", DType.INT, Kind.CATEGORICAL),
        Feature("never", DType.BYTES, Kind.CATEGORICAL),
        Feature("never_int", DType.INT, Kind.CATEGORICAL),
        Feature("card", DType.BYTES, Kind.HASHED, hash_buckets=5),
        Feature("ticket", DType.BYTES, Kind.HASHED, hash_buckets=1000),
        Feature("number", DType.INT, Kind.HASHED, hash_buckets=97),
        Feature("hour", DType.INT, Kind.CYCLICAL, period=24.0),
        Feature("day", DType.INT, Kind.CYCLICAL, period=365.25),
        Feature("orbit", DType.INT, Kind.CYCLICAL, period=24.1),
        Feature("angle", DType.FLOAT, Kind.CYCLICAL, period=360.0, is_required=True),
        Feature("turn", DType.FLOAT, Kind.CYCLICAL, period=0.3),
        Feature("is_night", DType.INT, Kind.BOOLEAN),
        Feature("remark", DType.BYTES, Kind.TEXT, max_tokens=3),
        Feature("bemerkung", DType.BYTES, Kind.TEXT, max_tokens=4),
    ),
    label=Label("tip", DType.FLOAT, LabelKind.REGRESSION),
)

TYPES = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.string}

Row = Mapping[str, Any]
"""One value by feature; a missing one is not there."""

# fmt: off
ROWS: list[Row] = [
    {"fare": 1.5, "miles": 0.0, "pressure": 16777.2, "same": 7.25, "stamp": 1_700_000_000, "count": 0, "seconds": 10,
     "ratio": -0.5, "company": b"A", "street": "Straße am Fluß".encode(), "area": 7, "card": b"x", "ticket": b"t1",
     "number": 5, "hour": 0, "day": 1, "orbit": 3, "angle": 10.0, "turn": 0.1, "is_night": 1,
     "remark": b"Very  NICE", "bemerkung": "Größe ÄRGER".encode()},
    {"fare": 3.0, "miles": -3.0, "pressure": 16777.21, "same": 7.25, "stamp": 1_700_000_090, "count": 3, "seconds": 20,
     "ratio": 0.0, "company": b"A", "street": b"12345678", "area": -12, "hour": 6, "angle": 370.0, "is_night": 0,
     "remark": b"nice one two three", "bemerkung": "größe ЖУК".encode()},
    {"fare": 2.25, "miles": 1e30, "pressure": 16777.19, "same": 7.25, "stamp": 1_700_000_120, "count": -100_000,
     "seconds": 30, "ratio": 0.25, "company": b"B", "street": b"12345678", "area": 8,
     "remark": b"a-very-long-word-here"},
    {"fare": 9.75, "miles": 1e-6, "pressure": 16777.25, "stamp": 1_700_000_400, "count": 7, "seconds": 40, "ratio": 0.5,
     "company": b"B", "street": b"Q", "area": 9, "angle": -90.0, "remark": b"very"},
    {"miles": 0.02, "seconds": 50, "ratio": 3.0, "company": b"C", "area": 9223372036854775807, "angle": 0.0},
    {"miles": 0.5, "seconds": 60, "ratio": 7.5, "street": b"0123456789abcdef", "angle": 1.0},
]
# fmt: on


def analyse(folder: Path) -> None:
    """Writes the graph, analysed on `ROWS`, below a folder."""
    spec = {feature.name: tf.io.VarLenFeature(TYPES[feature.dtype]) for feature in FEATURES}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    rows = [{name: [row[name]] if name in row else [] for name in spec} for row in ROWS]
    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "tmp")),
    ):
        function = ((pipeline | beam.Create(rows)), metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"features": FEATURES.to_json()})
        )
        _ = function | tft_beam.WriteTransformFn(str(folder / "graph"))
        _ = metadata | tft_beam.WriteMetadata(str(folder / "graph" / "metadata"), pipeline)


class Server:
    """The transform graph as the server computes it."""

    def __init__(self, graph: str) -> None:
        output = tft.TFTransformOutput(graph)
        self._spec = output.raw_feature_spec()
        self._layer = output.transform_features_layer()

    def columns(self, rows: Sequence[Row]) -> dict[str, np.ndarray[Any, Any]]:
        """The model columns `[rows, width]` by name."""
        inputs = {}
        for name, spec in self._spec.items():
            values = [[row[name]] if name in row else [] for row in rows]
            inputs[name] = tf.ragged.constant(values, dtype=spec.dtype, ragged_rank=1).to_sparse()
        return {name: value.numpy() for name, value in self._layer(inputs).items()}


class Device:
    """A file in the interpreter."""

    def __init__(self, model: bytes, layout: Sequence[DeviceInput]) -> None:
        self._interpreter = Interpreter(model_content=model, num_threads=1)
        self._run = self._interpreter.get_signature_runner("serving_raw")
        self._layout = layout

    def __call__(self, row: Row) -> dict[str, np.ndarray[Any, Any]]:
        return dict(
            self._run(**{place.graph_name: tensor(place, row.get(place.name)) for place in self._layout})
        )


def tensor(place: DeviceInput, value: Any) -> np.ndarray[Any, Any]:
    """A raw value as a device gives it."""
    if place.width is not None:
        cut = (value or b"")[: place.width]
        return np.frombuffer(cut.ljust(place.width, b"\0"), np.uint8).reshape(1, -1)
    if place.dtype is DType.INT:
        return np.array([MISSING_INT if value is None else value], np.int64)
    return np.array([np.nan if value is None else value], np.float32)
