"""A slimmed model answers to the last bit as before, and can still be inspected."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.tflite.small_device_model import rows
from tflite.inspection import inspect
from tflite.model_file import ModelFileError
from tflite.quantization import quantize
from tflite.slimming import slimmed
from tflite.variants import NumberFormat


def answers(model):
    runner = Interpreter(model_content=model).get_signature_runner("serving_raw")
    return [runner(**row)["scores"] for row in rows(20, seed=5)]


@pytest.mark.parametrize("number_format", NumberFormat)
def test_a_slimmed_model_is_smaller_and_says_the_same(float32_model, tmp_path, number_format):
    model = quantize(float32_model, number_format, rows(50))
    slim = slimmed(model)
    assert len(slim) < len(model)
    assert np.array_equal(answers(slim), answers(model))
    found = []
    for name, content in (("full", model), ("slim", slim)):
        (tmp_path / name).write_bytes(content)
        found.append(inspect(tmp_path / name))
    full, small = found
    assert small.signatures == full.signatures
    assert small.operators == full.operators
    assert small.parameters == full.parameters
    assert {(one.role, one.quantization, one.bytes) for one in small.weights} == {
        (one.role, one.quantization, one.bytes) for one in full.weights
    }


def test_a_model_is_slimmed_once(float32_model):
    once = slimmed(float32_model)
    assert slimmed(once) == once


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelFileError, match="the model to slim is no LiteRT model"):
        slimmed(b"something else")
