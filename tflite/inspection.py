"""What is in a LiteRT file: what it takes and gives, what it computes, what its bytes are spent on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tflite.graph import Operator, Tensor, operators, read_model, tensors
from tflite.metadata import DeviceFeature, Metadata, NoMetadataError, bare, parse
from tflite.model_file import read_file

_LEARNED: Mapping[tuple[str, int], str] = {
    ("FULLY_CONNECTED", 1): "dense",
    ("FULLY_CONNECTED", 2): "bias",
    ("BATCH_MATMUL", 1): "dense",
    ("GATHER", 0): "embedding",
    ("EMBEDDING_LOOKUP", 1): "embedding",
    ("CONV_2D", 1): "kernel",
    ("CONV_2D", 2): "bias",
    ("DEPTHWISE_CONV_2D", 1): "kernel",
    ("DEPTHWISE_CONV_2D", 2): "bias",
    ("ADD", 0): "bias",
    ("ADD", 1): "bias",
    ("ASSIGN_VARIABLE", 1): "variable",
}
"""By operator and position of an input, what a constant that is given there is to a network."""


@dataclass(frozen=True)
class Port:
    """An input or an output of a signature.

    Attributes:
      name: in the signature.
      dtype: name of its type.
      shape: sizes; one that is open counts as LiteRT first allocates it.
      meaning: what is in it, where the file's metadata say so.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    meaning: str = ""


@dataclass(frozen=True)
class Signature:
    """A function that the file offers."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class OperatorCount:
    """How often an operator is in the file's graphs."""

    name: str
    preprocessing: int
    network: int


@dataclass(frozen=True)
class Weight:
    """Numbers that the network has learned.

    Attributes:
      name: of the tensor.
      role: `dense`, `embedding`, `kernel`, `bias`, or `variable` where the file can go on learning it.
      dtype: as stored.
      shape: sizes.
      scales: how many scales its numbers share; 0 where they are not quantised.
      bytes: as stored.
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    scales: int
    parameters: int
    bytes: int

    @property
    def quantization(self) -> str:
        """In words."""
        if not self.scales:
            return "none"
        return "per tensor" if self.scales == 1 else f"per channel of {self.scales}"


@dataclass(frozen=True)
class Part:
    """What some of the file's bytes hold."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Inspection:
    """What is in a LiteRT file.

    Attributes:
      path: of the file.
      bytes: its length.
      signatures: what it offers.
      operators: the commonest first.
      weights: the largest first.
      parts: all of its bytes.
      metadata: None where it has none.
      without_metadata: then, why.
    """

    path: str
    bytes: int
    signatures: tuple[Signature, ...]
    operators: tuple[OperatorCount, ...]
    weights: tuple[Weight, ...]
    parts: tuple[Part, ...]
    metadata: Metadata | None
    without_metadata: str = ""

    @property
    def parameters(self) -> int:
        """How many numbers the network has learned."""
        return sum(weight.parameters for weight in self.weights)


def inspect(path: str | Path) -> Inspection:
    """Reads a LiteRT file; nothing of it is run.

    Raises:
      ModelFileError: there is no such file, it is no LiteRT model, or it is damaged.
    """
    content = read_file(Path(path))
    model = read_model(content, str(path))
    metadata, without = _metadata(content, str(path))
    every = [operators(model, graph) for graph in range(len(model.subgraphs))]
    weights = _weights(every)
    return Inspection(
        str(path),
        len(content),
        tuple(_described(signature, metadata) for signature in _signatures(model)),
        tuple(_counts(itertools.chain.from_iterable(every))),
        tuple(sorted(weights.values(), key=lambda weight: -weight.bytes)),
        tuple(_parts(content, model, every, weights)),
        metadata,
        without,
    )


def _metadata(content: bytes, source: str) -> tuple[Metadata | None, str]:
    try:
        return parse(content, source), ""
    except NoMetadataError as error:
        return None, str(error)


def _signatures(model: Any) -> Iterator[Signature]:
    for definition in model.signatureDefs or ():
        known = tensors(model, definition.subgraphIndex)
        yield Signature(
            definition.signatureKey.decode(),
            _ports(definition.inputs, known),
            _ports(definition.outputs, known),
        )


def _ports(maps: Any, known: Sequence[Tensor]) -> tuple[Port, ...]:
    return tuple(
        Port(one.name.decode(), known[one.tensorIndex].dtype, known[one.tensorIndex].shape)
        for one in maps or ()
    )


def _described(signature: Signature, metadata: Metadata | None) -> Signature:
    if metadata is None:
        return signature
    features = {feature.graph_name: feature for feature in metadata.features}
    order = {name: position for position, name in enumerate(features)}
    inputs = sorted(signature.inputs, key=lambda port: order.get(port.name, len(order)))
    return replace(
        signature,
        inputs=tuple(
            replace(port, meaning=_input_meaning(features[port.name])) if port.name in features else port
            for port in inputs
        ),
        outputs=tuple(
            replace(port, meaning=_output_meaning(port.name, metadata)) for port in signature.outputs
        ),
    )


def _input_meaning(feature: DeviceFeature) -> str:
    missing = {"float": "NaN", "int": "-2**63", "bytes": "zeros"}[feature.dtype]
    what = [feature.kind if feature.unit is None else f"{feature.kind}, {feature.unit}"]
    if feature.dtype == "bytes":
        what.append(f"UTF-8 with zeros after it, at most {feature.width} bytes")
    what.append("required" if feature.is_required else f"missing: {missing}")
    return "; ".join(what)


def _output_meaning(name: str, metadata: Metadata) -> str:
    label = metadata.label
    match name:
        case "scores":
            return f"probability of each class of {label.name}, in the order of the labels"
        case "probability" if label.classes:
            return f"probability that {label.name} is {label.classes[-1]}"
        case "prediction":
            return f"predicted {label.name}"
    return ""


def _counts(found: Iterable[Operator]) -> Iterator[OperatorCount]:
    counts = Counter((operator.name, operator.is_preprocessing) for operator in found)
    names = sorted(
        {name for name, _ in counts}, key=lambda name: (-counts[name, True] - counts[name, False], name)
    )
    for name in names:
        yield OperatorCount(name, counts[name, True], counts[name, False])


def _weights(graphs: Iterable[Sequence[Operator]]) -> dict[int, Weight]:
    """The network's weights by buffer; several graphs, and several operators, may share one."""
    found: dict[int, Weight] = {}
    for graph in graphs:
        stored = {
            operator.outputs[0].index: operator.inputs[0]
            for operator in graph
            if operator.name == "DEQUANTIZE" and operator.inputs[0].content is not None
        }
        for operator in graph:
            if operator.is_preprocessing or operator.name == "DEQUANTIZE":
                continue
            for position, given in enumerate(operator.inputs):
                role = _LEARNED.get((operator.name, position))
                tensor = stored.get(given.index, given)
                if role is not None and _is_constant(tensor):
                    found.setdefault(tensor.buffer, _weight(tensor, role))
    return found


def _is_constant(tensor: Tensor) -> bool:
    """Whether it holds real numbers; a scalar is part of how an operator computes."""
    is_real = tensor.dtype in ("float32", "float16") or bool(tensor.scales)
    return tensor.content is not None and bool(tensor.shape) and is_real


def _weight(tensor: Tensor, role: str) -> Weight:
    assert tensor.content is not None
    return Weight(
        tensor.name,
        role,
        tensor.dtype,
        tensor.shape,
        len(tensor.scales),
        tensor.size,
        len(tensor.content),
    )


def _parts(
    content: bytes, model: Any, graphs: Iterable[Sequence[Operator]], weights: dict[int, Weight]
) -> Iterator[Part]:
    whole = len(bare(content))
    prepares = {
        tensor.buffer: len(tensor.content)
        for graph in graphs
        for operator in graph
        if operator.is_preprocessing
        for tensor in operator.inputs
        if tensor.content is not None and tensor.buffer not in weights
    }
    learned = sum(weight.bytes for weight in weights.values())
    constants = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    yield Part("weights of the network", learned)
    yield Part("vocabularies and other constants of the preprocessing", sum(prepares.values()))
    yield Part("other constants", constants - learned - sum(prepares.values()))
    yield Part("graph: operators, tensors and their names", whole - constants)
    yield Part("metadata", len(content) - whole)
