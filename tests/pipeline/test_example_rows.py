from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.example_rows import (
    ModelError,
    SavedModel,
    champion_answers,
    column_types,
    count,
    misfit,
    read_rows,
    records,
)
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

FEATURES = FeatureSet(
    (Feature("size", DType.FLOAT, Kind.NUMERIC), Feature("colour", DType.BYTES, Kind.CATEGORICAL)),
    Label("sold", DType.INT, LabelKind.BINARY, ("7", "3")),
)


def example(size: float | None, colours: list[str], sold: int | None, key: str = "") -> bytes:
    features = {
        "size": tf.train.Feature(float_list=tf.train.FloatList(value=[] if size is None else [size])),
        "colour": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode() for text in colours])),
    }
    if sold is not None:
        features["sold"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[sold]))
    if key:
        features["key"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[key.encode()]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_missing_values_stay_missing_and_the_truth_is_the_index_of_the_class() -> None:
    rows = read_rows(
        [example(1.5, ["red"], 3), example(None, [], 7), example(2.0, ["blue", "red"], 3)], FEATURES
    )
    np.testing.assert_array_equal(rows.columns["size"], [1.5, np.nan, 2.0])
    assert rows.columns["colour"].tolist() == ["red", np.nan, "blue"]
    assert rows.truth.tolist() == [1.0, 0.0, 1.0]


def test_columns_that_are_no_features_can_be_read_too() -> None:
    some = [example(1.5, ["red"], 3, "a"), example(2.0, [], 7)]
    types = column_types(some)
    assert types == {"size": DType.FLOAT, "colour": DType.BYTES, "sold": DType.INT, "key": DType.BYTES}
    assert read_rows(some, FEATURES, also=types).columns["key"].tolist() == ["a", None]
    assert "sold" not in read_rows(some, FEATURES, also=types).columns


def test_a_row_without_a_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="label 'sold' is missing in 1 of 2 rows"):
        read_rows([example(1.0, ["red"], None), example(1.0, ["red"], 3)], FEATURES)


@pytest.mark.parametrize(("rows", "most", "step"), [(1000, 1000, 1), (1000, 300, 4), (9001, 5000, 2)])
def test_of_many_rows_some_are_taken_from_all_over_the_split(tmp_path: Path, rows, most, step) -> None:
    for part in range(2):
        with tf.io.TFRecordWriter(str(tmp_path / f"rows-{part}.gz"), "GZIP") as writer:
            for number in range(part * rows // 2, (part + 1) * rows // 2):
                writer.write(str(number).encode())
    found = records(tmp_path, most)
    assert found.total == count(tmp_path) == rows
    assert [int(record) for record in found.taken] == list(range(0, rows, step))


def save(folder: Path, *columns: str) -> Path:
    """A model whose score is the length of the row; `columns` are what it says that it reads."""
    model = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.cast(tf.strings.length(examples), tf.float32) / 100000.0
        return {"scores": tf.stack([1.0 - length, length], axis=1)}

    @tf.function
    def raw(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": tf.stack([tf.strings.length(values) for values in columns.values()], axis=1)}

    named = {name: tf.TensorSpec([None], tf.string, name=name) for name in columns}
    signatures = {"serving_default": serve}
    if columns:
        signatures["serving_raw"] = raw.get_concrete_function(**named)
    tf.saved_model.save(model, str(folder), signatures=signatures)
    return folder


def test_a_saved_model_answers_every_row_in_order(tmp_path: Path) -> None:
    rows = [b"x" * number for number in range(5000)]
    found = SavedModel(save(tmp_path), LabelKind.BINARY)(rows)
    np.testing.assert_allclose(found[:, 1], np.arange(5000) / 100000.0, rtol=1e-5)


def test_a_folder_without_a_model_and_a_model_of_another_kind_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        SavedModel(tmp_path / "gone", LabelKind.BINARY)
    with pytest.raises(ModelError, match="gives no prediction"):
        SavedModel(save(tmp_path / "model"), LabelKind.REGRESSION)([b"x"])


def test_a_broken_model_is_told(tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        SavedModel(folder, LabelKind.BINARY)


def test_a_champion_that_reads_a_column_which_is_gone_or_was_of_another_type_does_not_answer(
    tmp_path: Path,
) -> None:
    rows = [example(1.0, ["red"], 3, "a")]
    assert champion_answers(save(tmp_path / "a", "colour", "key"), rows, FEATURES).shape == (1, 2)
    with pytest.raises(ModelError, match="it reads 'tariff', which the data does not have"):
        champion_answers(save(tmp_path / "b", "colour", "tariff"), rows, FEATURES)
    with pytest.raises(ModelError, match="it reads 'size' as string, and the data has float32"):
        champion_answers(save(tmp_path / "c", "size"), rows, FEATURES)


def test_a_champion_that_is_gone_or_broken_is_told_without_loading_it(tmp_path: Path) -> None:
    assert misfit(tmp_path, {}) == f"there is no model in {tmp_path}"
    (tmp_path / "saved_model.pb").write_bytes(b"broken")
    assert "cannot be loaded" in misfit(tmp_path, {})
    assert misfit(save(tmp_path / "model"), {}) == ""


def test_an_infinite_number_is_read_as_missing() -> None:
    rows = read_rows([example(float("inf"), [], 7), example(2.0, [], 3)], FEATURES)
    assert rows.columns["size"].isna().tolist() == [True, False]


def test_a_column_that_one_row_of_many_has_is_found() -> None:
    rows = [example(1.0, ["red"], 3)] * 5001
    rows[3333] = example(1.0, ["red"], 3, "a")
    assert column_types(rows)["key"] is DType.BYTES
