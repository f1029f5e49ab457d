"""One signature of a SavedModel in a session, as TensorFlow Serving has it, with what it needs of the graph.

`tf.saved_model.load` makes Python functions of whatever was traced in training, most of which no signature calls: for a
small model that is most of a short job. And the functions that its graph calls, each of which would be prepared and
optimized anew at its first call, are taken into the graph. Grappler is left out: for the flights model it takes longer
than it saves in a million rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

_TAG = "serve"
_START = "__saved_model_init_op"
"""How TensorFlow 2 names the signature that fills the tables of a model."""
_COLOCATED = b"loc:@"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_INLINED = "_lower_as_multi_device_function"
"""TensorFlow's own mark of calls that it is to replace by what is called. Without effect the first call is slower."""


class SavedSignature:
    """A signature of one input and one output, for any number of threads."""

    def __init__(self, folder: str, name: str, input_name: str, output_name: str) -> None:
        """Loads it.

        Args:
          folder: of the SavedModel.
          name: of the signature.
          input_name: of the input to feed.
          output_name: of the output to fetch; what only others need is not computed.

        Raises:
          OSError, ValueError, tf.errors.OpError: if there is no SavedModel, or it is damaged.
          KeyError: if it has no such signature, input or output.
        """
        import tensorflow as tf

        meta = _read(folder)
        signature = _member(meta.signature_def, name)
        fed = _member(signature.inputs, input_name).name
        fetched = _member(signature.outputs, output_name).name
        # As eager TensorFlow does: what was traced for a device that is not here runs elsewhere.
        config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
        config.gpu_options.allow_growth = True
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.Graph().as_default() as graph:
            needed = [tensor for tensor in (fed, fetched, *_started_by(meta)) if tensor]
            tf.graph_util.import_graph_def(_part(meta.graph_def, needed), name="")
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        _start(self._session, meta, folder)
        self._run = self._session.make_callable(fetched, feed_list=[fed])

    def __call__(self, rows: npt.NDArray[np.object_]) -> npt.NDArray[Any]:
        """The output for the input.

        Raises:
          tf.errors.OpError: if the model fails on it.
        """
        found: npt.NDArray[Any] = self._run(rows)
        return found


def _read(folder: str) -> MetaGraphDef:
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        with tf.io.gfile.GFile(f"{folder}/saved_model.pb", "rb") as file:
            saved = SavedModel.FromString(file.read())
    except DecodeError as error:
        raise ValueError(f"saved_model.pb: {error}") from error
    for meta in saved.meta_graphs:
        if _TAG in meta.meta_info_def.tags:
            return meta
    raise ValueError(f"saved_model.pb: no graph with the tag {_TAG!r}")


def _member(known: Mapping[str, Any], name: str) -> Any:
    """An entry of a protobuf map, whose own brackets would make what is not there."""
    if name not in known:
        raise KeyError(name)
    return known[name]


def _started_by(meta: MetaGraphDef) -> tuple[str, ...]:
    """The operations that restore variables and fill tables, and what is fed to them."""
    started = [meta.saver_def.restore_op_name, meta.saver_def.filename_tensor_name]
    if _START in meta.signature_def:
        started.append(meta.signature_def[_START].outputs[_START].name)
    return (*started, *(asset.tensor_info.name for asset in meta.asset_file_def))


def _start(session: Any, meta: MetaGraphDef, folder: str) -> None:
    saver = meta.saver_def
    session.run(saver.restore_op_name, {saver.filename_tensor_name: f"{folder}/variables/variables"})
    if _START in meta.signature_def:
        assets = {
            asset.tensor_info.name: f"{folder}/assets/{asset.filename}" for asset in meta.asset_file_def
        }
        session.run(meta.signature_def[_START].outputs[_START].name, assets)


def _part(graph: GraphDef, tensors: Iterable[str]) -> GraphDef:
    """What some tensors are computed from, with the functions that are called for it."""
    nodes = {node.name: node for node in graph.node}
    kept = _reached((_node(tensor) for tensor in tensors), lambda name: _sources(nodes[name]))
    functions = {function.signature.name: function for function in graph.library.function}
    called = _reached(_called([nodes[name] for name in kept], functions), _calls_of(functions))
    part = type(graph)(versions=graph.versions)
    part.node.extend(node for node in graph.node if node.name in kept)
    part.library.function.extend(functions[name] for name in sorted(called))
    for node in (*part.node, *(node for function in part.library.function for node in function.node_def)):
        if node.op in _CALLS:
            node.attr[_INLINED].b = True
    return part


def _reached(names: Iterable[str], follow: Any) -> set[str]:
    reached: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += follow(name)
    return reached


def _sources(node: NodeDef) -> Iterator[str]:
    """The nodes that one takes its inputs from, follows, or is to share a device with."""
    yield from map(_node, node.input)
    if "_class" in node.attr:
        for place in node.attr["_class"].list.s:
            if place.startswith(_COLOCATED):
                yield place.removeprefix(_COLOCATED).decode()


def _node(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _calls_of(functions: Mapping[str, FunctionDef]) -> Any:
    return lambda name: _called(functions[name].node_def, functions)


def _called(nodes: Iterable[NodeDef], functions: Mapping[str, FunctionDef]) -> Iterator[str]:
    """The functions that nodes call, by their operation or by an attribute."""
    for node in nodes:
        names = [node.op]
        for attribute in node.attr.values():
            names += [attribute.func.name, *(function.name for function in attribute.list.func)]
        yield from (name for name in names if name in functions)
