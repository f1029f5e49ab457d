"""Every number format is run by the interpreter and held against float32."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from tests.tflite.small_device_model import DEVIATION, MEAN, convert, rows
from tflite.graph import operators, read_model
from tflite.model_file import ModelFileError
from tflite.quantization import QuantizationError, quantize
from tflite.variants import NumberFormat

SAMPLES = rows(500)
LARGEST_DIFFERENCE = {
    NumberFormat.FLOAT32: 0.0,
    NumberFormat.FLOAT16: 2e-3,
    NumberFormat.DYNAMIC_INT8: 0.03,
    NumberFormat.INT8: 0.06,
    NumberFormat.INT16X8: 0.03,
}


def answers(model, given):
    runner = Interpreter(model_content=model).get_signature_runner("serving_raw")
    return np.array([runner(**row)["scores"][0] for row in given])


def of(model):
    return operators(read_model(model, "the model"))


def types_of(model, name):
    return {tensor.dtype for operator in of(model) if operator.name == name for tensor in operator.outputs}


@pytest.fixture(scope="module")
def quantized(float32_model):
    return {one: quantize(float32_model, one, SAMPLES) for one in NumberFormat}


@pytest.mark.parametrize("number_format", NumberFormat)
def test_a_quantised_model_answers_nearly_as_float32_does(float32_model, quantized, number_format):
    unseen = rows(300, seed=2)
    difference = np.abs(answers(quantized[number_format], unseen) - answers(float32_model, unseen))
    assert difference.max() <= LARGEST_DIFFERENCE[number_format]
    assert number_format is NumberFormat.FLOAT32 or difference.max() > 0


@pytest.mark.parametrize("number_format", NumberFormat)
def test_a_reading_beyond_every_sample_is_prepared_as_float32_prepares_it(
    float32_model, quantized, number_format
):
    far = [{**row, "number": np.array([MEAN + 40 * DEVIATION], np.float32)} for row in rows(20, seed=3)]
    cut = [{**row, "number": np.array([MEAN + 5 * DEVIATION], np.float32)} for row in far]
    assert np.array_equal(answers(quantized[number_format], far), answers(quantized[number_format], cut))


@pytest.mark.parametrize("number_format", NumberFormat)
def test_preprocessing_keeps_its_operators_types_and_constants(float32_model, quantized, number_format):
    def preparation(model):
        return sorted(
            (operator.name, *((tensor.name, tensor.dtype, tensor.content) for tensor in operator.outputs))
            for operator in of(model)
            if operator.is_preprocessing
        )

    assert preparation(quantized[number_format]) == preparation(float32_model)


def test_dense_layers_compute_in_the_integers_of_the_format(quantized):
    assert types_of(quantized[NumberFormat.DYNAMIC_INT8], "FULLY_CONNECTED") == {"float32"}
    assert types_of(quantized[NumberFormat.INT8], "FULLY_CONNECTED") == {"int8"}
    assert types_of(quantized[NumberFormat.INT16X8], "FULLY_CONNECTED") == {"int16"}
    assert types_of(quantized[NumberFormat.INT8], "ADD") == {"int8"}
    assert types_of(quantized[NumberFormat.INT8], "LOGISTIC") == {"float32"}


@pytest.mark.parametrize(
    ("number_format", "dtype"),
    [
        (NumberFormat.FLOAT16, "float16"),
        (NumberFormat.DYNAMIC_INT8, "int8"),
        (NumberFormat.INT8, "int8"),
        (NumberFormat.INT16X8, "int8"),
    ],
)
def test_every_matrix_is_stored_small_embedding_tables_too(float32_model, quantized, number_format, dtype):
    matrices = {
        tensor.size: tensor.dtype
        for operator in of(quantized[number_format])
        for tensor in operator.inputs
        if tensor.content is not None and len(tensor.shape) == 2
    }
    assert matrices == dict.fromkeys((40 * 8, 9 * 16, 16 * 16, 16), dtype)
    assert len(quantized[number_format]) < len(float32_model)


@pytest.mark.parametrize("number_format", [NumberFormat.INT8, NumberFormat.INT16X8])
def test_an_empty_set_of_samples_is_refused_before_anything_is_read(number_format):
    with pytest.raises(
        QuantizationError, match=f"{number_format} has to see rows.*the set of samples is empty"
    ):
        quantize(b"never looked at", number_format, iter(()))


def test_formats_without_calibration_read_no_sample(float32_model):
    fails_when_read = map(pytest.fail, ["a sample was read"])
    quantize(float32_model, NumberFormat.DYNAMIC_INT8, fails_when_read)


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": np.zeros(1, np.float32)},
        {"number": np.zeros(1, np.float64), "key": np.zeros(1, np.int64)},
        {"number": np.zeros(1, np.float32), "key": np.zeros(1, np.int64), "other": np.zeros(1, np.int64)},
    ],
)
def test_a_sample_that_does_not_fit_is_named(float32_model, wrong):
    with pytest.raises(QuantizationError, match="sample 2 does not fit the model"):
        quantize(float32_model, NumberFormat.INT8, [*rows(2), wrong])


def test_an_operator_without_16_bits_is_named(tmp_path):
    model = convert(tmp_path, activation=tf.nn.elu)
    with pytest.raises(QuantizationError, match="int16x8: the network has ELU between two dense layers"):
        quantize(model, NumberFormat.INT16X8, SAMPLES)


def test_bytes_that_are_no_model_are_refused(float32_model):
    with pytest.raises(ModelFileError, match="is no LiteRT model"):
        quantize(b"PK\3\4 something else", NumberFormat.FLOAT16, ())
    with pytest.raises(ModelFileError, match="cut short or damaged"):
        quantize(float32_model[:-100], NumberFormat.DYNAMIC_INT8, ())


@pytest.mark.parametrize(
    ("weight", "number_format", "told"),
    [
        (1e5, NumberFormat.FLOAT16, "beyond the largest float16, 65504"),
        (3e38, NumberFormat.INT8, "there is no such range in integers"),
    ],
)
def test_numbers_that_the_format_cannot_hold_are_named(tmp_path, weight, number_format, told):
    with pytest.raises(QuantizationError, match=told):
        quantize(convert(tmp_path, first_weight=weight), number_format, SAMPLES)


def test_nothing_is_printed_on_stdout_or_stderr(float32_model, capfd):
    quantize(float32_model, NumberFormat.INT8, rows(20))
    assert capfd.readouterr() == ("", "")
