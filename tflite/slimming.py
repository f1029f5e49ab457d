"""Takes out of a LiteRT file what no device reads: names of what is computed on the way, and empty fields.

Of a small network's file most bytes are its graph, not its weights, and a quarter of those are names: on flights the
int8 file goes from 52 to 43 KB. A device finds inputs and outputs by the names in the signature, which stay.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert.tools import flatbuffer_utils

from tflite.graph import PREPROCESSING_SCOPE, read_model, tensors


def slimmed(model: bytes) -> bytes:
    """The same model in fewer bytes, without metadata; the last thing to do before those are attached.

    Inputs, outputs and matrices keep their names, and what the preprocessing computes that of its scope, for
    `tflite.inspection`. Other names go, so AI Edge Quantizer, which knows tensors by name, cannot take it any more.

    Raises:
      ModelFileError: the bytes are no LiteRT model.
    """
    read = read_model(model, "the model to slim")
    for position, graph in enumerate(read.subgraphs):
        kept = {*graph.inputs, *graph.outputs, *_matrices(read, position)}
        for index, tensor in enumerate(graph.tensors):
            if index not in kept:
                tensor.name = _shortened(tensor.name)
            _empty(tensor)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(read))


def _matrices(read: Any, graph: int) -> set[int]:
    return {
        tensor.index
        for tensor in tensors(read, graph)
        if tensor.content is not None and len(tensor.shape) == 2
    }


def _shortened(name: bytes | None) -> bytes | None:
    scope = f"{PREPROCESSING_SCOPE}/".encode()
    return scope if name and name.startswith(scope) else None


def _empty(tensor: Any) -> None:
    """Absent says the same as a quantisation without scales, and as a shape whose sizes are all known."""
    if tensor.quantization is not None and tensor.quantization.scale is None:
        tensor.quantization = None
    if tensor.shapeSignature is not None and all(size >= 0 for size in tensor.shapeSignature):
        tensor.shapeSignature = None
