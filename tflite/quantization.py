"""Number formats of a device model: how the network's weights are stored and its layers compute.

Only the network changes. What prepares the raw columns stays float32 and int64 in every format, for an integer's range
is that of the rows it was calibrated with: a later reading outside it would be cut before anything looked at it.

AI Edge Quantizer does the work, operator by operator, on the float32 file. `TFLiteConverter` quantises too, but the
whole graph: with float16 it rounds the constants of the preprocessing as well, and with int8 the raw columns. Two
things are done here, because the quantiser does them in ways that do not suit a model of one row:

- Ranges of activations are the smallest and largest value seen. The quantiser's own calibration takes a moving average
  of each sample's extremes; where a sample is one row, that is nearly the average row: on flights it takes 0.09 of AUC.
- float16 is written here: the quantiser casts dense layers but no embedding tables, which are read by GATHER.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer

from tflite.graph import Operator, Tensor, interpreter, operators, read_model
from tflite.variants import NumberFormat

Sample = Mapping[str, npt.NDArray[Any]]
"""One row: a tensor by input, as the signature of the model takes it."""

_WEIGHT_BITS = 8
_ACTIVATION_BITS = {NumberFormat.INT8: 8, NumberFormat.INT16X8: 16}

_HEADROOM = {8: 1.0, 16: 4.0}
"""By bits of an activation, how much wider its range is made than what the samples showed. Of 16 bits two are well
spent on rows more extreme than every sample: on flights they cut the largest error from 0.095 to 0.004. Of 8 bits none
can be spared."""

_DENSE = "FULLY_CONNECTED"
_EMBEDDING = "GATHER"


class QuantizationError(ValueError):
    """A number format that this network, or these samples, cannot give."""


def quantize(float32: bytes, number_format: NumberFormat, samples: Iterable[Sample]) -> bytes:
    """The same model with another number format in its network.

    - float16: dense weights and embedding tables are stored as float16 and widened once, when the model is loaded.
    - dynamic_int8: they are stored as int8, with a scale for each output of a dense layer and one for a table. Dense
      layers quantise what comes in row by row and compute in int8; what they give is float32.
    - int8, int16x8: stored alike; the dense layers and what lies between them compute in int8 or int16 throughout, with
      ranges that the samples showed. The sum of the logits and what follows stay float32: a probability in 256 steps
      would tie rows that the network tells apart.

    Args:
      float32: a device model as `device_model.convert` gives it.
      number_format: the wanted one; float32 gives the model back as it is.
      samples: rows of training, for formats that are calibrated, read once; others read none. Two thousand are enough.
        With a few hundred, rows beyond what they showed are cut: on flights the largest error of int8 is 0.17 with 300
        rows, 0.10 with 1000 and 0.06 with 2000.

    Raises:
      QuantizationError: no samples where they are needed, a sample that does not fit the model, or an operator that
        cannot be had in this format.
      ModelFileError: the bytes are no LiteRT model.
    """
    if number_format is NumberFormat.FLOAT32:
        return float32
    rows = _some(samples, number_format) if number_format.is_calibrated else ()
    model = read_model(float32, "the float32 model")
    network = tuple(operator for operator in operators(model) if not operator.is_preprocessing)
    if number_format is NumberFormat.FLOAT16:
        quantized = _with_float16_weights(model, network)
    else:
        quantized = _with_integers(float32, network, number_format, rows)
    _check_that_it_loads(quantized, number_format)
    return quantized


def _some(samples: Iterable[Sample], number_format: NumberFormat) -> Iterable[Sample]:
    rows = iter(samples)
    first = next(rows, None)
    if first is None:
        raise QuantizationError(
            f"{number_format} has to see rows to know the range of activations, and the set of samples is empty: give "
            "some two thousand rows of the training split"
        )
    return itertools.chain([first], rows)


@dataclass(frozen=True)
class _Parts:
    """The operators of a network that change.

    Attributes:
      dense: dense layers.
      between: what lies on a path from one dense layer to another.
      embeddings: lookups in tables that are weights.
    """

    dense: tuple[Operator, ...]
    between: tuple[Operator, ...]
    embeddings: tuple[Operator, ...]


def _parts(network: Sequence[Operator]) -> _Parts:
    dense = tuple(operator for operator in network if operator.name == _DENSE and operator.weights)
    after = _reached(network, dense)
    before = _reached(
        [
            Operator(operator.position, operator.name, operator.outputs, operator.inputs)
            for operator in reversed(network)
        ],
        [Operator(operator.position, operator.name, (), operator.inputs) for operator in dense],
    )
    own = {operator.position for operator in dense}
    return _Parts(
        dense,
        tuple(operator for operator in network if operator.position in (after & before) - own),
        tuple(operator for operator in network if operator.name == _EMBEDDING and operator.weights),
    )


def _reached(ordered: Sequence[Operator], starts: Sequence[Operator]) -> set[int]:
    """Positions of the operators that take, directly or not, what the starts give."""
    known = {tensor.index for operator in starts for tensor in operator.outputs}
    positions = set()
    for operator in ordered:
        if any(tensor.index in known for tensor in operator.inputs if tensor.content is None):
            positions.add(operator.position)
            known |= {tensor.index for tensor in operator.outputs}
    return positions


def _with_integers(
    float32: bytes, network: Sequence[Operator], number_format: NumberFormat, rows: Iterable[Sample]
) -> bytes:
    parts = _parts(network)
    quantizer = Quantizer(float32)
    bits = _ACTIVATION_BITS.get(number_format)
    for operator in parts.dense:
        if bits is None:
            quantizer.add_dynamic_config(_only(operator), TFLOperationName.FULLY_CONNECTED, _WEIGHT_BITS)
        else:
            quantizer.add_static_config(_only(operator), TFLOperationName.FULLY_CONNECTED, bits, _WEIGHT_BITS)
    for operator in parts.embeddings:
        # What is looked up is the table's own int8, so its range is known without any row.
        quantizer.add_static_config(_only(operator), TFLOperationName.GATHER, 8, _WEIGHT_BITS)
    if bits is not None:
        for operator in parts.between:
            _add_between(quantizer, operator, number_format, bits)
    ranges = {operator.weights[0].name: _range(operator.weights[0].values()) for operator in parts.embeddings}
    if bits is not None:
        seen = _seen_ranges(float32, _activations((*parts.dense, *parts.between)), rows)
        ranges |= {name: _range(values * _HEADROOM[bits]) for name, values in seen.items()}
    # It draws progress bars on stderr, of work that takes less than a second, and warns of its own debugging mode.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
        return bytes(quantizer.quantize(ranges or None, enable_progress_report=False).quantized_model)


def _only(operator: Operator) -> str:
    """A pattern of this operator's name as the quantiser has it: its outputs, each with a semicolon behind."""
    return "^" + re.escape("".join(f"{tensor.name};" for tensor in operator.outputs)) + "$"


def _add_between(quantizer: Any, operator: Operator, number_format: NumberFormat, bits: int) -> None:
    try:
        quantizer.add_static_config(_only(operator), TFLOperationName(operator.name), bits, _WEIGHT_BITS)
    except ValueError as error:
        raise QuantizationError(
            f"{number_format}: the network has {operator.name} between two dense layers "
            f"({operator.outputs[0].name!r}), which cannot be had with {bits}-bit activations: choose "
            "another number format, or an activation that can, such as relu"
        ) from error


def _activations(changed: Iterable[Operator]) -> dict[int, str]:
    """Names of the computed float tensors by index."""
    return {
        tensor.index: tensor.name
        for operator in changed
        for tensor in (*operator.inputs, *operator.outputs)
        if tensor.content is None and tensor.dtype == "float32"
    }


def _seen_ranges(
    float32: bytes, activations: Mapping[int, str], rows: Iterable[Sample]
) -> dict[str, npt.NDArray[Any]]:
    """The smallest and the largest value of each activation, by name."""
    seen = interpreter(float32, experimental_preserve_all_tensors=True)
    (signature,) = seen.get_signature_list()
    run = seen.get_signature_runner(signature)
    lowest = np.full(len(activations), np.inf)
    highest = np.full(len(activations), -np.inf)
    for number, row in enumerate(rows):
        try:
            run(**row)
        except ValueError as error:
            raise QuantizationError(f"sample {number} does not fit the model: {error}") from error
        values = [seen.get_tensor(index) for index in activations]
        lowest = np.minimum(lowest, [value.min() for value in values])
        highest = np.maximum(highest, [value.max() for value in values])
    ranges = {}
    for name, low, high in zip(activations.values(), lowest, highest, strict=True):
        if not np.isfinite([low, high]).all():
            raise QuantizationError(
                f"the samples lead to values from {low} to {high} at {name!r}: there is no such range in integers"
            )
        ranges[name] = np.array([low, high])
    return ranges


def _range(values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    return {
        "min": values.min(keepdims=True).astype(np.float32),
        "max": values.max(keepdims=True).astype(np.float32),
    }


def _with_float16_weights(model: Any, network: Iterable[Operator]) -> bytes:
    weights = {weight.index: weight for operator in network for weight in operator.weights}
    code = _dequantize_code(model)
    graph = model.subgraphs[0]
    narrow = {weight.buffer: _as_float16(weight) for weight in weights.values()}
    for buffer, content in narrow.items():
        model.buffers[buffer].data = content
    widened = []
    for weight in weights.values():
        wide = graph.tensors[weight.index]
        stored = copy.copy(wide)
        stored.name = f"{weight.name}_float16".encode()
        stored.type = schema.TensorType.FLOAT16
        wide.buffer = 0  # By the format's rule the buffer of tensors that are computed.
        graph.tensors.append(stored)
        widened.append(_dequantize(code, len(graph.tensors) - 1, weight.index))
    graph.operators = widened + list(graph.operators)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _as_float16(weight: Tensor) -> npt.NDArray[np.uint8]:
    values = weight.values()
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise QuantizationError(
            f"float16: weight {weight.name!r} has values up to {np.abs(values).max():g}, beyond the largest float16, "
            f"{np.finfo(np.float16).max:g}"
        )
    return np.frombuffer(values.astype(np.float16).tobytes(), np.uint8)


def _dequantize_code(model: Any) -> int:
    """Position of the operator's code, which is added where the model has none yet."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # The first that takes float16.
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _dequantize(code: int, stored: int, wide: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs = np.array([stored], np.int32)
    operator.outputs = np.array([wide], np.int32)
    return operator


def _check_that_it_loads(model: bytes, number_format: NumberFormat) -> None:
    try:
        interpreter(model).allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise QuantizationError(f"{number_format}: LiteRT cannot run the quantised model: {error}") from error
