from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline.changed_examples import AskedExamples
from schemas.features import DType

TYPES = {"size": DType.FLOAT, "floor": DType.INT, "color": DType.BYTES, "sold": DType.INT}
SIZES = [1.5, None, 3.5]


def example(size: float | None, floor: int) -> bytes:
    features = {
        "floor": tf.train.Feature(int64_list=tf.train.Int64List(value=[floor])),
        "color": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"red", b"blue"])),
        "sold": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
    }
    if size is not None:
        features["size"] = tf.train.Feature(float_list=tf.train.FloatList(value=[size]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def seen() -> list[list[dict[str, list[Any]]]]:
    """The rows of each question, as the model sees them."""
    return []


@pytest.fixture
def asked(seen) -> AskedExamples:
    def answer(serialized) -> np.ndarray:
        spec = {
            "size": tf.io.VarLenFeature(tf.float32),
            "floor": tf.io.VarLenFeature(tf.int64),
            "color": tf.io.VarLenFeature(tf.string),
            "sold": tf.io.VarLenFeature(tf.int64),
        }
        parsed = tf.io.parse_example(tf.constant(list(serialized)), spec)
        ragged = {name: tf.RaggedTensor.from_sparse(values).to_list() for name, values in parsed.items()}
        seen.append([{name: ragged[name][row] for name in spec} for row in range(len(serialized))])
        return np.zeros((len(serialized), 2))

    rows = [example(size, floor) for floor, size in enumerate(SIZES)]
    return AskedExamples(answer, rows, pd.DataFrame({"size": SIZES}), TYPES, "sold")


def test_rows_are_asked_about_as_they_are_once_and_without_the_label(asked, seen):
    asked.plainly()
    asked.plainly()
    [rows] = seen
    assert [row["size"] for row in rows] == [[1.5], [], [3.5]]
    assert [row["floor"] for row in rows] == [[0], [1], [2]]
    assert all(row["color"] == [b"red", b"blue"] and row["sold"] == [] for row in rows)


def test_a_shuffled_column_takes_its_missing_values_along_and_leaves_the_others(asked, seen):
    asked.shuffled("size", np.array([2, 0, 1]))
    [rows] = seen
    assert [row["size"] for row in rows] == [[3.5], [1.5], []]
    assert [row["floor"] for row in rows] == [[0], [1], [2]]


def test_a_column_that_no_row_has_is_shuffled_in_vain(asked, seen):
    asked.shuffled("height", np.array([2, 0, 1]))
    assert [row["size"] for row in seen[0]] == [[1.5], [], [3.5]]


def test_values_are_put_in_place_in_the_columns_own_type(asked, seen):
    asked.replaced("floor", [4.0, None, 6.0])
    asked.replaced("color", ["a", "b", None])
    assert [row["floor"] for row in seen[0]] == [[4], [], [6]]
    assert [row["color"] for row in seen[1]] == [[b"a"], [b"b"], []]


def test_a_column_that_is_nowhere_is_replaced_in_vain(asked, seen):
    asked.replaced("height", [1.0, 2.0, 3.0])
    asked.of([{"height": 1.0}])
    assert [row["size"] for row in seen[0]] == [[1.5], [], [3.5]]
    assert seen[1] == [{"size": [], "floor": [], "color": [], "sold": []}]


def test_other_rows_have_only_what_they_name(asked, seen):
    asked.of([{"size": 2, "color": "red"}, {"floor": None}])
    assert seen[0] == [
        {"size": [2.0], "floor": [], "color": [b"red"], "sold": []},
        {"size": [], "floor": [], "color": [], "sold": []},
    ]
