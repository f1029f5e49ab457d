"""Splits: every row once per epoch, in another order each time, held in memory or not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from models.inputs import Reader, Recency, Share, Split, load_split
from schemas.features import LabelKind
from tests.models.conftest import only, serialized


@pytest.fixture(scope="module", params=[10_000, 10], ids=["in memory", "streamed"])
def split(request: pytest.FixtureRequest, table: SimpleNamespace) -> Split:
    return load_split("train", table.files, Reader(table.features, table.graph), request.param)


def pieces_of(batches: Any) -> list[Any]:
    return [inputs["row_scaled"].ravel() for inputs, _ in batches.as_numpy_iterator()]


def sizes(rows: int, replicas: int) -> list[int]:
    """Rows of each piece of a batch."""
    size = -(-rows // replicas)
    return [max(0, min(size, rows - number * size)) for number in range(replicas)]


def written(folder: Path, rows: Sequence[dict[str, Any]], files: int = 1) -> list[str]:
    """Files that hold the rows in turn."""
    for number in range(files):
        with tf.io.TFRecordWriter(str(folder / f"rows-{number}.gz"), "GZIP") as writer:
            for row in rows[number::files]:
                writer.write(serialized(row))
    return [str(folder / "rows-*")]


def order(batches: Any) -> Any:
    return np.concatenate(pieces_of(batches))


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


def test_what_comes_after_a_batch_is_the_same_whether_or_not_the_ones_before_it_were_read(
    split: Split,
) -> None:
    steps = split.steps(64)
    position = 2 * steps + 3
    tf.random.set_seed(7)
    uninterrupted = order(split.shuffled_batches(64, seed=1, buffer_rows=1000).skip(position).take(steps))
    resumed = order(split.shuffled_batches(64, seed=1, buffer_rows=1000, first_batch=position).take(steps))
    np.testing.assert_array_equal(resumed, uninterrupted)
    other = order(split.shuffled_batches(64, seed=2, buffer_rows=1000, first_batch=position).take(steps))
    assert not np.array_equal(resumed, other)


@only(LabelKind.BINARY)
@pytest.mark.parametrize(("replicas", "count"), [(4, 2), (3, 1)], ids=["even", "uneven"])
def test_the_shares_of_a_batch_make_the_batch(split: Split, replicas: int, count: int) -> None:
    steps = split.steps(64)
    tf.random.set_seed(7)
    whole = pieces_of(split.shuffled_batches(64, seed=1, buffer_rows=1000, first_batch=4).take(2 * steps))
    shares = [Share(replicas, first, count) for first in range(0, replicas, count)]
    parts = [
        pieces_of(
            split.shuffled_batches(64, seed=1, buffer_rows=1000, first_batch=4, share=share).take(
                2 * steps * count
            )
        )
        for share in shares
    ]
    for number, batch in enumerate(whole):
        pieces = [piece for part in parts for piece in part[number * count : (number + 1) * count]]
        np.testing.assert_array_equal(np.concatenate(pieces), batch)
        assert [len(piece) for piece in pieces] == sizes(len(batch), replicas)
    in_order = [pieces_of(split.batches(64, share)) for share in shares]
    assert len(np.unique(np.concatenate([piece for part in in_order for piece in part]))) == split.rows


@only(LabelKind.BINARY)
def test_the_last_replicas_get_nothing_of_a_small_batch(split: Split) -> None:
    last = split.batches(split.rows - 2, Share(4, 2, 2)).as_numpy_iterator()
    assert [len(label) for _, label in last] == [150, 148, 0, 0]


@only(LabelKind.BINARY)
def test_pipelines_with_files_of_their_own_meet_each_row_once_and_go_on_anywhere(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    split = load_split(
        "train", written(tmp_path, table.rows, files=3), Reader(table.features, table.graph), 10
    )
    shares = [Share(4, first, 2, by_files=True) for first in (0, 2)]
    assert split.has_files_for(shares[0])
    tf.random.set_seed(7)
    endless = [split.shuffled_batches(40, seed=1, buffer_rows=1000, share=share) for share in shares]
    seen = [order(batches.take(rows // 10)) for batches, rows in zip(endless, (400, 200), strict=True)]
    assert len(np.unique(np.concatenate(seen))) == split.rows
    position = (
        23  # the third pass through the first pipeline's files ends after 60 batches, the second after 40
    )
    resumed = split.shuffled_batches(40, seed=1, buffer_rows=1000, first_batch=position, share=shares[1])
    uninterrupted = pieces_of(endless[1].skip(2 * position).take(30))
    np.testing.assert_array_equal(pieces_of(resumed.take(30)), uninterrupted)
    with pytest.raises(ValueError, match="3 files for 4 input pipelines"):
        split.shuffled_batches(40, seed=1, buffer_rows=10, share=Share(4, by_files=True))


@only(LabelKind.BINARY)
def test_rows_weigh_less_the_older_they_are(table: SimpleNamespace) -> None:
    split = load_split(
        "train", table.files, Reader(table.features, table.graph), 10_000, Recency("row", 100.0)
    )
    elements = list(
        split.shuffled_batches(64, seed=1, buffer_rows=1).take(split.steps(64)).as_numpy_iterator()
    )
    rows = np.concatenate([inputs["row_scaled"].ravel() for inputs, _, _ in elements])
    by_row = np.concatenate([weight for _, _, weight in elements])[np.argsort(rows)]
    assert by_row.shape == (split.rows, 1)
    assert by_row.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(by_row[100:] / by_row[:-100], 2.0, rtol=1e-5)
    assert split.weights is not None
    np.testing.assert_array_equal(split.weights, by_row)


@only(LabelKind.BINARY)
def test_age_is_read_from_dates_and_a_row_without_one_weighs_as_the_mean(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    days = ["2026-01-01", "2026-01-03 00:00:00", None, "2026-01-05T02:00:00+02:00"]
    rows = [dict(row) for row in table.rows[:4]]
    for row, day in zip(rows, days, strict=True):
        row.pop("day", None)
        if day is not None:
            row["day"] = day
    split = load_split(
        "train", written(tmp_path, rows), Reader(table.features, table.graph), 10, Recency("day", 2.0)
    )
    expected = np.array([0.25, 0.5, 1.75 / 3, 1.0]) * 3 / 1.75
    assert split.weights is not None
    np.testing.assert_allclose(np.asarray(split.weights).ravel(), expected, rtol=1e-6)


@only(LabelKind.BINARY)
def test_rows_that_cannot_be_weighted_are_an_error_that_says_what_to_change(table: SimpleNamespace) -> None:
    reader = Reader(table.features, table.graph)
    with pytest.raises(ValueError, match=r"raise train\.memory_rows"):
        load_split("train", table.files, reader, 10, Recency("row", 100.0))
    with pytest.raises(ValueError, match=r"transform\.materialize: false"):
        load_split("train", table.files, replace(reader, is_transformed=True), 10_000, Recency("row", 100.0))
    with pytest.raises(ValueError, match="no row has a value in column 'day'"):
        load_split("train", table.files, reader, 10_000, Recency("day", 1.0))
    with pytest.raises(ValueError, match="'red' is not an ISO 8601 date"):
        Recency("company", 1.0).weights(np.array([[b"red"]], object))
    with pytest.raises(ValueError, match="is it in their unit"):
        Recency("second", 30.0).weights(np.arange(0, 3600 * 10_000, 3600)[:, None])


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
