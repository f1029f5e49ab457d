"""A frozen network says what the network says."""

import numpy as np
import tensorflow as tf

from schemas.features import Form, ModelColumn
from tflite.frozen_network import FrozenNetwork

COLUMNS = (*(ModelColumn(name, Form.DENSE) for name in "abcd"), ModelColumn("id", Form.ID, size=3))


class Cutting(tf.Module):
    """Cuts some columns alike, one otherwise and one not at all, and joins them twice."""

    def __init__(self):
        super().__init__()
        self.table = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

    def __call__(self, columns):
        a, b = (tf.clip_by_value(columns[name], -5.0, 5.0) for name in "ab")
        c = tf.clip_by_value(columns["c"], -1.0, 7.0)
        rows = tf.reshape(tf.gather(self.table, columns["id"]), [1, 2])
        together = tf.concat([a, b], 1)
        return tf.concat([a, b, c, columns["d"], rows, together, tf.minimum(columns["d"], together)], 1)


def frozen(network, scope="network"):
    graph = FrozenNetwork(network, COLUMNS)
    return tf.function(lambda **columns: graph(columns, scope), autograph=False)


def row(*values, key):
    numbers = {name: tf.constant([[value]]) for name, value in zip("abcd", values, strict=True)}
    return {**numbers, "id": tf.constant([[key]], tf.int64)}


def test_columns_are_cut_as_before():
    network = Cutting()
    graph = frozen(network)
    for values, key in (((9.0, -9.0, 9.0, 9.0), 0), ((-9.0, 1.0, -9.0, -9.0), 2), ((4.9, 5.1, 0.0, 6.0), 1)):
        np.testing.assert_array_equal(graph(**row(*values, key=key)), network(row(*values, key=key)))


def test_columns_that_are_cut_alike_are_cut_together():
    operations = (
        frozen(Cutting()).get_concrete_function(**row(0.0, 0.0, 0.0, 0.0, key=0)).graph.get_operations()
    )
    joined = [
        operation
        for operation in operations
        if "/together_" in operation.name and operation.type == "ConcatV2"
    ]
    assert [len(operation.inputs) - 1 for operation in joined] == [2], "a and b, once for both who join them"


def test_ops_are_in_the_scope_asked_for():
    graph = frozen(Cutting(), scope="student").get_concrete_function(**row(0.0, 0.0, 0.0, 0.0, key=0)).graph
    names = [operation.name for operation in graph.get_operations() if operation.type == "ConcatV2"]
    assert names
    assert all(name.startswith("student/") for name in names)


def test_ops_are_not_named_after_the_calls_they_were_in():
    inner = Cutting()
    outer = tf.function(tf.function(inner, autograph=False), autograph=False)
    values = row(9.0, -9.0, 9.0, 9.0, key=1)
    graph = frozen(outer)
    np.testing.assert_array_equal(graph(**values), inner(values))
    operations = graph.get_concrete_function(**values).graph.get_operations()
    names = [
        operation.name for operation in operations if operation.type in ("ConcatV2", "GatherV2", "Minimum")
    ]
    assert names
    assert not [name for name in names if "PartitionedCall/" in name]
