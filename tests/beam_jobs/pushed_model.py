"""A pushed version small enough to be made for a test: the chance of rain from humidity, wind and the place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

FEATURES = FeatureSet(
    (
        Feature("humidity", DType.FLOAT, Kind.NUMERIC, is_required=True),
        Feature("gusts", DType.INT, Kind.NUMERIC),
        Feature("place", DType.BYTES, Kind.CATEGORICAL),
    ),
    Label("rain", DType.BYTES, LabelKind.BINARY, ("dry", "wet day")),
)
COLUMNS = {
    "day": "bytes",
    "humidity": "float",
    "gusts": "int",
    "place": "bytes",
    "rain": "bytes",
    "hour": "int",
}
NUMBERS = FeatureSet(FEATURES.features, Label("rain", DType.FLOAT, LabelKind.REGRESSION))


def push(
    serving: Path,
    version: int = 1,
    *,
    weight: float = 1.0,
    threshold: float | None = 0.5,
    features: FeatureSet = FEATURES,
    key: tuple[str, ...] = ("day",),
    with_warm_up: bool = True,
) -> Path:
    """Saves the model as a version, as ModelPusher leaves it; `weight` multiplies humidity."""
    from models import warm_up
    from schemas.probe import Probe

    folder = serving / str(version)
    model = _Rain(weight, features.label)
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.answer})
    if with_warm_up:
        rows = (b"", _example(50.0))
        probe = Probe(rows, {}, model.scores(tf.constant(rows)).numpy().astype(np.float64))
        warm_up.write(probe, features.label, str(folder))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    manifest = {
        "version": version,
        "pipeline": "rain",
        "run_id": f"run-{version}",
        "threshold": threshold,
        "rows": {
            "features": json.loads(features.to_json()),
            "columns": COLUMNS,
            "key": key,
            "null_values": ["", "NA"],
        },
        "files": {
            str(path.relative_to(folder)): {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in files
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def chance(humidity: float, gusts: int | None = None, weight: float = 1.0) -> float:
    """What the model says of a row."""
    return float(1 / (1 + np.exp(-(weight * humidity / 100 + 0.1 * (gusts or 0)))))


def _example(humidity: float) -> bytes:
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[humidity]))
    return tf.train.Example(features=tf.train.Features(feature={"humidity": feature})).SerializeToString()


class _Rain(tf.Module):
    def __init__(self, weight: float, label: Label) -> None:
        super().__init__()
        self._weight = tf.Variable(weight)
        self._label = label

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def answer(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        name = "prediction" if self._label.kind is LabelKind.REGRESSION else "scores"
        return {name: self.scores(examples)}

    def scores(self, examples: tf.Tensor) -> tf.Tensor:
        spec = {"humidity": tf.float32, "gusts": tf.int64, "place": tf.string}
        parsed = tf.io.parse_example(examples, {name: tf.io.VarLenFeature(t) for name, t in spec.items()})
        humidity = tf.sparse.to_dense(tf.sparse.slice(parsed["humidity"], [0, 0], [tf.shape(examples)[0], 1]))
        gusts = tf.sparse.to_dense(tf.sparse.slice(parsed["gusts"], [0, 0], [tf.shape(examples)[0], 1]))
        rows = tf.shape(examples)[0]
        logits = tf.zeros([rows, 1])
        for column, factor in ((humidity, self._weight / 100), (tf.cast(gusts, tf.float32), 0.1)):
            logits += tf.pad(column, [[0, 0], [0, 1 - tf.shape(column)[1]]]) * factor
        if self._label.kind is LabelKind.REGRESSION:
            return logits
        return tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=1)
