from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.example_rows import answers, read_rows, records
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

FEATURES = FeatureSet(
    (Feature("size", DType.FLOAT, Kind.NUMERIC), Feature("colour", DType.BYTES, Kind.CATEGORICAL)),
    Label("sold", DType.INT, LabelKind.BINARY, ("7", "3")),
)


def example(size: float | None, colours: list[str], sold: int | None) -> bytes:
    features = {
        "size": tf.train.Feature(float_list=tf.train.FloatList(value=[] if size is None else [size])),
        "colour": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode() for text in colours])),
    }
    if sold is not None:
        features["sold"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[sold]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_missing_values_stay_missing_and_the_truth_is_the_index_of_the_class() -> None:
    rows = read_rows(
        [example(1.5, ["red"], 3), example(None, [], 7), example(2.0, ["blue", "red"], 3)], FEATURES
    )
    np.testing.assert_array_equal(rows.columns["size"], [1.5, np.nan, 2.0])
    assert rows.columns["colour"].tolist() == ["red", np.nan, "blue"]
    assert rows.truth.tolist() == [1.0, 0.0, 1.0]


def test_a_row_without_a_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="label 'sold' is missing in 1 of 2 rows"):
        read_rows([example(1.0, ["red"], None), example(1.0, ["red"], 3)], FEATURES)


def test_of_many_rows_some_are_taken_from_all_over_the_split(tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "rows.gz"), "GZIP") as writer:
        for number in range(1000):
            writer.write(str(number).encode())
    assert len(records(tmp_path, 1000)) == 1000
    some = [int(record) for record in records(tmp_path, 300)]
    assert 200 <= len(some) <= 300
    assert np.diff(some).tolist() == [4] * (len(some) - 1)


def test_a_saved_model_answers_every_row_in_order(tmp_path: Path) -> None:
    model = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.cast(tf.strings.length(examples), tf.float32) / 100000.0
        return {"scores": tf.stack([1.0 - length, length], axis=1)}

    tf.saved_model.save(model, str(tmp_path), signatures={"serving_default": serve})
    rows = [b"x" * number for number in range(5000)]
    found = answers(tmp_path, rows, LabelKind.BINARY)
    np.testing.assert_allclose(found[:, 1], np.arange(5000) / 100000.0, rtol=1e-5)
