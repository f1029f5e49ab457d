"""The preprocessing graph, analysed and applied in memory."""

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

FEATURES = FeatureSet(
    features=(
        Feature("fare", DType.FLOAT, Kind.NUMERIC),
        Feature("miles", DType.FLOAT, Kind.NUMERIC, is_required=True, log=True),
        Feature("seconds", DType.INT, Kind.BUCKETIZED, buckets=2),
        Feature("company", DType.BYTES, Kind.CATEGORICAL, min_count=2),
        Feature("area", DType.INT, Kind.CATEGORICAL),
        Feature("card", DType.BYTES, Kind.HASHED, hash_buckets=5),
        Feature("hour", DType.INT, Kind.CYCLICAL, period=24.0),
        Feature("is_night", DType.INT, Kind.BOOLEAN),
        Feature("remark", DType.BYTES, Kind.TEXT, max_tokens=3),
        Feature("never", DType.BYTES, Kind.CATEGORICAL),
        Feature("empty", DType.FLOAT, Kind.NUMERIC),
    ),
    label=Label("tip", DType.BYTES, LabelKind.MULTICLASS, ("none", "small", "big")),
)
TYPES = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.string}
# fmt: off
ROWS = [
    {"fare": [1.0], "miles": [0.0], "seconds": [10], "company": [b"A"], "area": [7], "card": [b"x"],
     "hour": [0], "is_night": [1], "remark": [b"Very  NICE"], "tip": [b"big"]},
    {"fare": [3.0], "miles": [-3.0], "seconds": [20], "company": [b"A"], "area": [7], "card": [b"y"],
     "hour": [6], "is_night": [0], "remark": [b"nice one two three"], "tip": [b"none"]},
    {"fare": [float("nan")], "miles": [1e30], "seconds": [30], "company": [b"B"], "area": [8],
     "hour": [18], "tip": [b"huge"]},
    {"seconds": [40], "company": [b"B"], "area": [9]},
    {"fare": [float("inf")], "company": [b"C"], "remark": [b"  "], "tip": [b"small"]},
]
# fmt: on


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tft.TFTransformOutput:
    """The graph, analysed on `ROWS`."""
    spec = {f.name: tf.io.VarLenFeature(TYPES[f.dtype]) for f in FEATURES}
    spec["tip"] = tf.io.VarLenFeature(tf.string)
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    rows = [{name: row.get(name, []) for name in spec} for row in ROWS]
    folder = tmp_path_factory.mktemp("graph")
    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "tmp")),
    ):
        function = ((pipeline | beam.Create(rows)), metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"features": FEATURES.to_json()})
        )
        _ = function | tft_beam.WriteTransformFn(str(folder / "graph"))
        _ = metadata | tft_beam.WriteMetadata(str(folder / "graph" / "metadata"), pipeline)
    return tft.TFTransformOutput(str(folder / "graph"))


def apply(graph: tft.TFTransformOutput, rows: list[dict[str, Any]], *, label: bool = True) -> dict[str, Any]:
    inputs = {}
    for name, spec in graph.raw_feature_spec().items():
        if name == "tip" and not label:
            continue
        ragged = tf.ragged.constant([row.get(name, []) for row in rows], dtype=spec.dtype, ragged_rank=1)
        inputs[name] = ragged.to_sparse()
    return {name: value.numpy() for name, value in graph.transform_features_layer()(inputs).items()}


def test_the_graph_yields_exactly_the_declared_columns(graph: tft.TFTransformOutput) -> None:
    transformed = apply(graph, ROWS)
    for column in FEATURES.columns():
        values = transformed.pop(column.name)
        assert values.shape == (len(ROWS), column.width), column
        assert values.dtype == (np.float32 if column.form == "dense" else np.int64), column
        assert np.isfinite(values).all(), column
    assert set(transformed) == {"tip_label"}


def test_numbers_are_scaled_over_the_values_that_are_there(graph: tft.TFTransformOutput) -> None:
    transformed = apply(graph, ROWS)
    np.testing.assert_allclose(transformed["fare_scaled"].ravel(), [-1, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(transformed["fare_missing"].ravel(), [0, 0, 1, 1, 1])


def test_the_logarithm_keeps_order_and_sign(graph: tft.TFTransformOutput) -> None:
    low, zero, high = (apply(graph, [{"miles": [v]}])["miles_scaled"].item() for v in (-3e38, 0.0, 3e38))
    assert low < zero < high


def test_ids_are_zero_where_missing_and_ordered_where_seen(graph: tft.TFTransformOutput) -> None:
    transformed = apply(graph, ROWS)
    assert sorted(transformed["company_id"].ravel()[[0, 2]]) == [1, 2]
    assert transformed["company_id"][4] == 3, "seen less often than min_count: unseen"
    assert transformed["area_id"].ravel()[[0, 1, 4]].tolist() == [1, 1, 0]
    assert transformed["seconds_bucket"].ravel().tolist() == [1, 1, 2, 2, 0]
    assert (transformed["card_hash"].ravel() > 0).tolist() == [True, True, False, False, False]


def test_values_never_seen_get_the_last_id(graph: tft.TFTransformOutput) -> None:
    row = apply(graph, [{"company": [b"Z"], "area": [-5], "never": [b"new"], "seconds": [10**15]}])
    for name in ("company", "area", "never"):
        size = graph.vocabulary_size_by_name(f"{name}_vocabulary") + 2
        assert row[f"{name}_id"].item() == size - 1, name
    assert row["seconds_bucket"].item() == 2


def test_text_becomes_lower_case_words_cut_and_padded(graph: tft.TFTransformOutput) -> None:
    transformed = apply(graph, ROWS)
    tokens = transformed["remark_tokens"]
    assert tokens[0, 1] == tokens[1, 0] != 0
    assert tokens[0, 2] == 0
    assert (tokens[1] > 0).all()
    assert not tokens[4].any()


def test_a_cycle_closes(graph: tft.TFTransformOutput) -> None:
    rows = apply(graph, [{"hour": [0]}, {"hour": [24]}, {"hour": [6]}, {}])
    np.testing.assert_allclose(rows["hour_cycle"], [[0, 1], [0, 1], [1, 0], [0, 0]], atol=1e-6)


def test_a_label_is_its_place_among_the_classes_and_unknown_is_minus_one(
    graph: tft.TFTransformOutput,
) -> None:
    assert apply(graph, ROWS)["tip_label"].ravel().tolist() == [2, 0, -1, -1, 1]


def test_rows_without_a_label_are_transformed_all_the_same(graph: tft.TFTransformOutput) -> None:
    with_label, without = apply(graph, ROWS), apply(graph, ROWS, label=False)
    assert "tip_label" not in without
    for name, values in without.items():
        np.testing.assert_array_equal(values, with_label[name])


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'fare'"):
        preprocessing_fn({}, {"features": FEATURES.to_json()})
