"""A network with its preprocessing, as one file."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from models.network import build_network, sized_columns
from models.settings import NetworkSettings
from models.signatures import answers
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind
from tests.tflite.every_kind import Device
from tflite.analysed import Analysed, DeviceError, Moments
from tflite.device_model import convert, input_layout

FEATURES = (
    Feature("fare", DType.FLOAT, Kind.NUMERIC),
    Feature("class", DType.BYTES, Kind.CATEGORICAL),
)
ANALYSED = Analysed({"fare": Moments(10.0, 4.0)}, {}, {"class": (b"first", b"second")})
LABELS = {
    LabelKind.BINARY: Label("late", DType.INT, LabelKind.BINARY, ("0", "1")),
    LabelKind.MULTICLASS: Label("tip", DType.BYTES, LabelKind.MULTICLASS, ("none", "small", "big")),
    LabelKind.REGRESSION: Label("delay", DType.FLOAT, LabelKind.REGRESSION),
}
ROWS: list[tuple[dict[str, Any], tuple[float, float, int]]] = [
    ({"fare": 14.0, "class": b"second"}, (2.0, 0.0, 2)),
    ({"fare": 7.0, "class": b"third"}, (-1.5, 0.0, 3)),
    ({"class": b"first"}, (0.0, 1.0, 1)),
    ({}, (0.0, 1.0, 0)),
]


def network(features, outputs):
    tf.random.set_seed(3)
    columns = sized_columns(features.columns(), {"class__vocabulary": 2})
    made = build_network(
        columns, outputs, NetworkSettings(hidden_units=(8,)), list(np.linspace(-1, 1, outputs))
    )
    for weight in made.trainable_weights:
        weight.assign(tf.random.normal(weight.shape, stddev=0.5))
    return made


@pytest.mark.parametrize("kind", LabelKind)
def test_a_file_answers_as_the_network_on_prepared_columns(kind):
    label = LABELS[kind]
    features = FeatureSet(FEATURES, label)
    made = network(features, len(label.classes) if kind is LabelKind.MULTICLASS else 1)
    device = Device(convert(made, features, ANALYSED), input_layout(features, ANALYSED))
    for row, (scaled, missing, key) in ROWS:
        columns = {
            "fare_scaled": tf.constant([[scaled]]),
            "fare_missing": tf.constant([[missing]]),
            "class__id": tf.constant([[key]], tf.int64),
        }
        expected = answers(made(columns), label)
        expected.pop("classes", None)
        found = device(row)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=f"{name} of {row}")


def test_a_file_has_one_signature_of_fixed_shapes():
    features = FeatureSet(FEATURES, LABELS[LabelKind.BINARY])
    interpreter = Interpreter(model_content=convert(network(features, 1), features, ANALYSED))
    assert interpreter.get_signature_list() == {
        "serving_raw": {"inputs": ["class_", "fare"], "outputs": ["probability", "scores"]}
    }
    shapes = {
        detail["name"]: detail["shape_signature"].tolist() for detail in interpreter.get_input_details()
    }
    assert shapes == {"serving_raw_class_:0": [1, 8], "serving_raw_fare:0": [1]}


def test_an_op_that_does_not_convert_is_named():
    features = FeatureSet(FEATURES[:1], LABELS[LabelKind.REGRESSION])

    def through_text(columns):
        return tf.strings.to_number(tf.strings.as_string(columns["fare_scaled"]))

    with pytest.raises(DeviceError, match=r"needs tf\.AsString.*leave tflite out"):
        convert(through_text, features, ANALYSED)
