"""What is said of a file is held against what is known of it."""

from pathlib import Path

import pytest

from tests.tflite.small_device_model import IDS, WIDTH, rows
from tflite.inspection import Inspection, Part, Signature, inspect
from tflite.metadata import DeviceFeature, DeviceLabel, Metadata, attach
from tflite.model_file import ModelFileError
from tflite.quantization import quantize
from tflite.variants import NumberFormat

METADATA = Metadata(
    "shop",
    1,
    "run",
    "ab" * 32,
    "int8",
    DeviceLabel("bought", "binary", ("no", "yes")),
    (
        DeviceFeature("Number", "number", "float", "numeric", is_required=False, unit="kg"),
        DeviceFeature("Key", "key", "int", "categorical", is_required=True),
    ),
)
PARAMETERS = IDS * WIDTH + (WIDTH + 1) * 16 + 16 + 16 * 16 + 16


@pytest.fixture(scope="module")
def inspected(float32_model, tmp_path_factory):
    """What is found in a file of every number format, with metadata."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for one in NumberFormat:
        path = folder / f"{one}.tflite"
        path.write_bytes(attach(quantize(float32_model, one, rows(50)), METADATA))
        found[one] = inspect(path)
    return found


@pytest.mark.parametrize("number_format", NumberFormat)
def test_parameters_are_counted_in_every_number_format(inspected, number_format):
    assert inspected[number_format].parameters == PARAMETERS


@pytest.mark.parametrize("number_format", NumberFormat)
def test_every_byte_is_spent_on_something(inspected: dict[NumberFormat, Inspection], number_format):
    found = inspected[number_format]
    assert sum(part.bytes for part in found.parts) == found.bytes == Path(found.path).stat().st_size
    assert all(part.bytes > 0 for part in found.parts)
    assert found.parts[0] == Part("weights of the network", sum(one.bytes for one in found.weights))


@pytest.mark.parametrize(
    ("number_format", "table", "dense"),
    [
        (NumberFormat.FLOAT32, ("float32", "none"), ("float32", "none")),
        (NumberFormat.FLOAT16, ("float16", "none"), ("float16", "none")),
        (NumberFormat.DYNAMIC_INT8, ("int8", "per tensor"), ("int8", "per channel of 16")),
        (NumberFormat.INT16X8, ("int8", "per tensor"), ("int8", "per channel of 16")),
    ],
)
def test_how_weights_are_stored_is_told(inspected, number_format, table, dense):
    by_shape = {weight.shape: weight for weight in inspected[number_format].weights}
    stored = {role: (one.role, one.dtype, one.quantization) for role, one in by_shape.items()}
    assert stored[IDS, WIDTH] == ("embedding", *table)
    assert stored[16, 16] == ("dense", *dense)


def test_operators_are_counted_by_what_they_are_for(inspected):
    counts = {count.name: count for count in inspected[NumberFormat.FLOAT32].operators}
    assert (counts["FULLY_CONNECTED"].preprocessing, counts["FULLY_CONNECTED"].network) == (0, 3)
    assert counts["SUB"].preprocessing == 1
    assert counts["LOGISTIC"].network == 2


def test_inputs_and_outputs_are_described_by_the_metadata(inspected):
    (signature,) = inspected[NumberFormat.INT8].signatures
    assert signature.name == "serving_raw"
    number, key = signature.inputs
    assert (number.name, number.dtype, number.shape) == ("number", "float32", (1,))
    assert number.meaning == "numeric, kg; missing: NaN"
    assert (key.name, key.dtype, key.meaning) == ("key", "int64", "categorical; required")
    (scores,) = signature.outputs
    assert scores.shape == (1, 2)
    assert "in the order of the labels" in scores.meaning


def test_a_model_of_somebody_else_is_inspected_too(float32_model, tmp_path):
    path = tmp_path / "plain.tflite"
    path.write_bytes(float32_model)
    found = inspect(path)
    assert found.metadata is None
    assert "says nothing of itself" in found.without_metadata
    assert found.parameters == PARAMETERS
    assert isinstance(found.signatures[0], Signature)
    assert found.signatures[0].inputs[0].meaning == ""


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(float32_model, tmp_path, kept):
    path = tmp_path / "cut.tflite"
    path.write_bytes(float32_model[: int(kept * len(float32_model))])
    with pytest.raises(ModelFileError, match=r"cut\.tflite begins as a LiteRT model but is cut short"):
        inspect(path)


def test_a_file_whose_offsets_are_wrong_is_refused(float32_model, tmp_path):
    path = tmp_path / "wrong.tflite"
    path.write_bytes(b"\xff\xff\xff\x7f" + float32_model[4:])
    with pytest.raises(ModelFileError, match="cut short or damaged"):
        inspect(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("this is no model, whatever its name")
    with pytest.raises(ModelFileError, match=r"notes\.txt is no LiteRT model"):
        inspect(path)
