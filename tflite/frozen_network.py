"""A network with its weights as constants, and with one op where one for each of its columns would do the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from schemas.features import Form, ModelColumn

Tensors = Mapping[str, tf.Tensor]

Network = Callable[[Tensors], tf.Tensor]
"""Model columns of one row, by name, to logits `[1, outputs]`."""

_CALL = re.compile(r"(Stateful)?PartitionedCall/")

_BOUNDS = ("Minimum", "Maximum")

_Bounds = tuple[tuple[str, float], ...]
"""What a value is cut by, in this order: the op and its number."""


class FrozenNetwork:
    """A network's graph for one row.

    Columns that are cut to the same range and then joined are joined first: for one row a device pays for each op,
    and hardly for its length.
    """

    def __init__(self, network: Network, columns: Sequence[ModelColumn]) -> None:
        specs = {column.name: _spec(column) for column in columns}
        traced = tf.function(lambda **given: network(given), autograph=False).get_concrete_function(**specs)
        constant = convert_variables_to_constants_v2(traced, lower_control_flow=False)
        # The output keeps its name: it is no call's.
        self._definition = _shortly_named(_joined_first(constant.graph.as_graph_def()))
        self._inputs = [tensor.name for tensor in constant.inputs]
        self._output = constant.outputs[0].name

    def __call__(self, columns: Tensors, scope: str) -> tf.Tensor:
        """The logits `[1, outputs]`, of ops whose names begin with `scope`."""
        given = {name: columns[name.partition(":")[0]] for name in self._inputs}
        (logits,) = tf.graph_util.import_graph_def(
            self._definition, input_map=given, return_elements=[self._output], name=scope
        )
        return logits


def _spec(column: ModelColumn) -> tf.TensorSpec:
    dtype = tf.float32 if column.form is Form.DENSE else tf.int64
    return tf.TensorSpec([1, column.width], dtype, name=column.name)


def _joined_first(definition: Any) -> Any:
    """The graph with `concat(cut(a), cut(b))` as `cut(concat(a, b))`."""
    graph = _Graph(definition)
    for node in [node for node in definition.node if node.op == "ConcatV2"]:
        *parts, axis = node.input
        joined: list[str] = []
        for bounds, group in groupby(parts, key=graph.bounds):
            alike = list(group)
            is_repeated = bounds and len(alike) > 1
            joined += [graph.cut_together(node, alike, bounds)] if is_repeated else alike
        graph.set_parts(node, joined, axis)
    return definition


def _shortly_named(definition: Any) -> Any:
    """The graph without the names of the calls that its ops were in, which a file would repeat for each."""
    names = {node.name: node.name for node in definition.node}
    taken = set(names)
    for name in names:
        short = _CALL.sub("", name)
        if short not in taken:
            names[name] = short
            taken.add(short)
    for node in definition.node:
        node.name = names[node.name]
        node.input[:] = [_renamed(tensor, names) for tensor in node.input]
    return definition


def _renamed(tensor: str, names: Mapping[str, str]) -> str:
    name, colon, position = tensor.removeprefix("^").partition(":")
    return f"{'^' if tensor.startswith('^') else ''}{names[name]}{colon}{position}"


class _Graph:
    """A graph's nodes by name."""

    def __init__(self, definition: Any) -> None:
        self._definition = definition
        self._nodes = {node.name: node for node in definition.node}
        self._together: dict[tuple[float | str | None, ...], str] = {}

    def bounds(self, tensor: str) -> _Bounds:
        """What a tensor is cut by, as its last steps; nothing where it is not."""
        return self._traced(tensor)[1]

    def _traced(self, tensor: str) -> tuple[str, _Bounds]:
        """Where a tensor comes from before it is cut, and how it is cut then."""
        node = self._nodes.get(tensor)
        if node is not None and node.op == "Identity":
            return self._traced(node.input[0])
        bound = None if node is None or node.op not in _BOUNDS else self._number(node.input[1])
        if node is None or bound is None:
            return tensor, ()
        source, before = self._traced(node.input[0])
        return source, (*before, (node.op, bound))

    def _number(self, tensor: str) -> float | None:
        """The value of a constant of one number."""
        node = self._nodes.get(tensor)
        if node is not None and node.op == "Identity":
            return self._number(node.input[0])
        if node is None or node.op != "Const":
            return None
        value = tf.make_ndarray(node.attr["value"].tensor)
        return value.item() if value.ndim == 0 else None

    def cut_together(self, concat: Any, parts: Sequence[str], bounds: _Bounds) -> str:
        """A tensor that is like `parts`, joined as `concat` joins them; the same one whoever asks for it."""
        axis = concat.input[-1]
        name = self._together.setdefault(
            (self._number(axis), *parts), f"{concat.name}/together_{len(self._together)}"
        )
        if name in self._nodes:
            return self._last_cut(name, bounds)
        inner = self._add(name, "ConcatV2", concat.attr["T"])
        inner.attr["Tidx"].CopyFrom(concat.attr["Tidx"])
        self.set_parts(inner, [self._traced(part)[0] for part in parts], axis)
        for place, (op, bound) in enumerate(bounds):
            number = self._add(f"{name}/bound_{place}", "Const", None)
            dtype = tf.dtypes.as_dtype(concat.attr["T"].type)
            number.attr["dtype"].type = dtype.as_datatype_enum
            number.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(bound, dtype))
            cut = self._add(f"{name}/cut_{place}", op, concat.attr["T"])
            cut.input.extend([f"{name}/cut_{place - 1}" if place else name, number.name])
        return self._last_cut(name, bounds)

    def _last_cut(self, name: str, bounds: _Bounds) -> str:
        return f"{name}/cut_{len(bounds) - 1}"

    def _add(self, name: str, op: str, dtype: Any) -> Any:
        node = self._definition.node.add(name=name, op=op)
        if dtype is not None:
            node.attr["T"].CopyFrom(dtype)
        self._nodes[name] = node
        return node

    def set_parts(self, concat: Any, parts: Sequence[str], axis: str) -> None:
        """Makes a node join other tensors; of a single one there is nothing to join."""
        del concat.input[:]
        if len(parts) == 1:
            concat.op = "Identity"
            concat.input.append(parts[0])
            del concat.attr["N"], concat.attr["Tidx"]
            return
        concat.input.extend([*parts, axis])
        concat.attr["N"].i = len(parts)
