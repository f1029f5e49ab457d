"""Splits: every row once per epoch, in another order each time, held in memory or not."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from models.inputs import Reader, Split, load_split
from schemas.features import LabelKind


@pytest.fixture(scope="module", params=[10_000, 10], ids=["in memory", "streamed"])
def split(request: pytest.FixtureRequest, table: SimpleNamespace) -> Split:
    return load_split("train", table.files, Reader(table.features, table.graph), request.param)


def order(batches: Any) -> Any:
    return np.concatenate([inputs["row_scaled"].ravel() for inputs, _ in batches.as_numpy_iterator()])


def test_every_row_comes_once_per_epoch_and_in_a_new_order(split: Split, table: SimpleNamespace) -> None:
    batches, steps = split.shuffled_batches(64, seed=1, buffer_rows=1000), split.steps(64)
    first, second = order(batches.take(steps)), order(batches.skip(steps).take(steps))
    plain = order(split.batches(64))
    assert len(plain) == len(table.rows) == split.rows
    assert len(np.unique(plain)) == len(plain)
    for shuffled in (first, second):
        np.testing.assert_array_equal(np.sort(shuffled), np.sort(plain))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, plain)


def test_an_epoch_has_the_same_order_whether_or_not_the_ones_before_it_were_read(split: Split) -> None:
    steps = split.steps(64)
    tf.random.set_seed(7)
    third = order(split.shuffled_batches(64, seed=1, buffer_rows=1000).skip(2 * steps).take(steps))
    resumed = order(split.shuffled_batches(64, seed=1, buffer_rows=1000, first_epoch=2).take(steps))
    np.testing.assert_array_equal(resumed, third)
    other = order(split.shuffled_batches(64, seed=2, buffer_rows=1000, first_epoch=2).take(steps))
    assert not np.array_equal(resumed, other)


def test_a_label_stays_with_its_row(split: Split, table: SimpleNamespace) -> None:
    label = table.features.label
    shuffled = split.shuffled_batches(50, seed=2, buffer_rows=1000).take(split.steps(50))
    pairs = [(i["row_scaled"], y) for i, y in shuffled.as_numpy_iterator()]
    rows = np.concatenate([row.ravel() for row, _ in pairs])
    labels = np.concatenate([y.ravel() for _, y in pairs])[np.argsort(rows)]
    expected = [row[label.name] for row in table.rows]
    if label.kind is LabelKind.REGRESSION:
        np.testing.assert_allclose(labels, expected, rtol=1e-6)
    else:
        assert [label.classes[i] for i in labels] == [str(value) for value in expected]


def test_materialized_rows_equal_rows_transformed_on_the_fly(table: SimpleNamespace, tmp_path: Path) -> None:
    reader = Reader(table.features, table.graph)
    files = tf.io.gfile.glob(table.files[0])
    records = tf.data.TFRecordDataset(files, "GZIP").batch(10_000).get_single_element()
    raw = tf.io.parse_example(records, table.graph.raw_feature_spec())
    transformed = table.graph.transform_features_layer()(raw)
    encode = tft.coders.ExampleProtoCoder(table.graph.transformed_metadata.schema).encode
    file = tmp_path / "transformed.gz"
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for number in range(len(table.rows)):
            writer.write(encode({name: values[number].numpy() for name, values in transformed.items()}))
    stored = load_split("train", [str(file)], replace(reader, is_transformed=True), 10_000)
    held = load_split("train", table.files, reader, 10_000)
    assert held.columns is not None
    assert stored.columns is not None
    for name, values in held.columns.items():
        np.testing.assert_allclose(stored.columns[name], values, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(stored.labels), np.asarray(held.labels), rtol=1e-6)


def test_a_split_without_files_is_named(table: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split 'validation': no file matches"):
        load_split("validation", [str(tmp_path / "none-*")], Reader(table.features, table.graph), 10)
