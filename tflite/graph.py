"""The graph inside a LiteRT file: operators by name, with the tensors they take and give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils

from tflite.model_file import ModelFileError, check_identifier

PREPROCESSING_SCOPE = "preprocess"
"""The name scope of everything before the network, as in `tflite/device_model.py`."""


def _names(constants: type) -> dict[int, str]:
    return {value: name for name, value in vars(constants).items() if isinstance(value, int)}


OPERATORS = _names(schema.BuiltinOperator)
"""Names of the builtin operators by code."""

TYPES = {code: name.lower() for code, name in _names(schema.TensorType).items()}
"""Names of the tensor types by code, as numpy has them where it has them."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
      index: position in the file and in the interpreter.
      name: unique.
      dtype: name of its type.
      shape: sizes; empty for a scalar.
      content: the bytes of a constant; None where the tensor is computed.
      buffer: position of its bytes, which several constants may share.
      scales: one for the whole tensor or one a channel; empty where its numbers are not quantised.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    content: bytes | None
    buffer: int
    scales: tuple[float, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape))

    def values(self) -> npt.NDArray[Any]:
        """The numbers of a constant."""
        assert self.content is not None
        return np.frombuffer(self.content, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Operator:
    """An operator of the graph; an optional input that is not given is left out.

    Attributes:
      position: among the operators, in the order in which they run.
    """

    position: int
    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def is_preprocessing(self) -> bool:
        """Whether it comes before the network."""
        return any(tensor.name.startswith(f"{PREPROCESSING_SCOPE}/") for tensor in self.outputs)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The weight matrix of a dense layer or the table of an embedding, where this is one of a network."""
        candidate = {"FULLY_CONNECTED": 1, "GATHER": 0, "EMBEDDING_LOOKUP": 1}.get(self.name)
        if candidate is None or self.is_preprocessing:
            return ()
        tensor = self.inputs[candidate]
        return (tensor,) if tensor.content is not None and len(tensor.shape) == 2 else ()


def read_model(content: bytes, source: str) -> Any:
    """The file as a mutable object, after LiteRT itself has checked that it is whole.

    Args:
      content: a LiteRT file, with or without metadata.
      source: what messages call it.

    Raises:
      ModelFileError: it is no LiteRT model, is cut short, or has an operator that this LiteRT has not.
    """
    check_identifier(content, source)
    try:
        interpreter(content)
    except ValueError as error:
        said = str(error).replace("\n", " ").strip()
        if "flatbuffer" not in said.lower():
            raise ModelFileError(f"{source} cannot be run by this LiteRT: {said}") from error
        raise ModelFileError(
            f"{source} begins as a LiteRT model but is cut short or damaged ({len(content):,} bytes): export or copy "
            f"it again. LiteRT says: {said}"
        ) from error
    model = flatbuffer_utils.read_model_from_bytearray(content)
    if not model.subgraphs:
        raise ModelFileError(f"{source} holds no graph")
    return model


def interpreter(model: bytes, **options: Any) -> Any:
    """LiteRT's interpreter of a file's content, on one thread.

    Raises:
      ValueError: the content is damaged, or has an operator that this LiteRT has not.
    """
    # Without the default delegate: it announces itself on stderr, and fuses away what is to be looked at.
    return Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        **options,
    )


def operators(model: Any, graph: int = 0) -> tuple[Operator, ...]:
    """The operators of a graph; a device model that does not learn has one graph."""
    return tuple(_operators(model, graph))


def tensors(model: Any, graph: int = 0) -> tuple[Tensor, ...]:
    """The tensors of a graph, by index."""
    return tuple(_tensor(model, tensor, index) for index, tensor in enumerate(model.subgraphs[graph].tensors))


def _operators(model: Any, graph: int) -> Iterator[Operator]:
    known = tensors(model, graph)
    for position, operator in enumerate(model.subgraphs[graph].operators or ()):
        name = _operator_name(model.operatorCodes[operator.opcodeIndex])
        yield Operator(position, name, _given(known, operator.inputs), _given(known, operator.outputs))


def _operator_name(code: Any) -> str:
    if code.customCode:
        return str(code.customCode.decode())
    # Codes above 127 came later and have a field of their own.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return OPERATORS.get(number, f"operator {number}")


def _given(known: tuple[Tensor, ...], indices: Any) -> tuple[Tensor, ...]:
    return tuple(known[index] for index in indices if index >= 0) if indices is not None else ()


def _tensor(model: Any, tensor: Any, index: int) -> Tensor:
    content = model.buffers[tensor.buffer].data
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return Tensor(
        index,
        (tensor.name or b"").decode(),
        TYPES[tensor.type],
        tuple(int(size) for size in tensor.shape) if tensor.shape is not None else (),
        None if content is None else bytes(content),
        tensor.buffer,
        tuple(float(scale) for scale in scales) if scales is not None else (),
    )
