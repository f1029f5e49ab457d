"""A small device model that can learn: two numbers and a category to two, several or no classes."""

from functools import cache

import numpy as np
import tf_keras

from models.network import Network, build_network, sized_columns
from models.settings import NetworkSettings
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind
from tflite import training
from tflite.analysed import Analysed, Moments
from tflite.metadata import DeviceFeature, DeviceLabel, Metadata, attach
from tflite.preprocessing import input_layout
from tflite.settings import TrainableSettings

FEATURES = (
    Feature("distance", DType.FLOAT, Kind.NUMERIC),
    # What a tensor of `train` is called, too.
    Feature("weight", DType.INT, Kind.NUMERIC, is_required=True),
    Feature("carrier", DType.BYTES, Kind.CATEGORICAL),
)
LABELS = {
    LabelKind.BINARY: Label("late", DType.INT, LabelKind.BINARY, ("0", "1")),
    LabelKind.MULTICLASS: Label("fate", DType.BYTES, LabelKind.MULTICLASS, ("early", "on time", "late")),
    LabelKind.REGRESSION: Label("delay", DType.FLOAT, LabelKind.REGRESSION),
}
ANALYSED = Analysed(
    {"distance": Moments(500.0, 250_000.0), "weight": Moments(10.0, 4.0)},
    {},
    {"carrier": (b"DL", b"United", b"AA")},
)
SETTINGS = TrainableSettings(learning_rate=0.2, batch_rows=16)
SPREAD = 50.0


def features(kind=LabelKind.BINARY):
    return FeatureSet(FEATURES, LABELS[kind])


def network(kind=LabelKind.BINARY):
    tf_keras.utils.set_random_seed(1)
    sizes = {"carrier_vocabulary": 3}
    outputs = 3 if kind is LabelKind.MULTICLASS else 1
    settings = NetworkSettings(hidden_units=(8,), cross_layers=1, cross_rank=2)
    made = build_network(sized_columns(features().columns(), sizes), outputs, settings)
    if kind is LabelKind.REGRESSION:
        return Network(made.input, tf_keras.layers.Rescaling(SPREAD, name="in_units")(made.output))
    return made


@cache
def trainable_model(kind=LabelKind.BINARY):
    """The file, with metadata, and the network that it was made of."""
    made, columns = network(kind), features(kind)
    content = training.convert(made, columns, ANALYSED, SETTINGS)
    inputs = zip(columns, input_layout(columns, ANALYSED), strict=True)
    described = tuple(
        DeviceFeature(f.name, f.graph_name, f.dtype, f.kind, f.is_required, place.width)
        for f, place in inputs
    )
    label = columns.label
    said = DeviceLabel(label.name, label.kind, label.classes)
    return attach(content, Metadata("flights", 1, "run-1", "0" * 64, "float32", said, described)), made


def rows(count, seed=0):
    """Raw rows, of which the ones with DL are late, and two carriers that nobody knows."""
    draw = np.random.default_rng(seed)
    carriers = draw.choice(["DL", "AA", "United", "ZZ", ""], count).tolist()
    distances, weights = draw.uniform(100, 2000, count).tolist(), draw.integers(5, 15, count).tolist()
    return [
        {"distance": distance, "weight": weight, "carrier": carrier}
        for distance, weight, carrier in zip(distances, weights, carriers, strict=True)
    ]


def lateness(given):
    return [int(row["carrier"] == "DL") for row in given]
