"""Transformed rows with a label that follows from them, made without Beam, and a network over them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from models.inputs import Reader, load_split
from models.settings import NetworkSettings, TrainSettings
from models.trainer import Data, Settings
from models.warm_start import note_columns
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

TOKENS = tuple(f"token {number}".encode() for number in range(60))
NUMBERS = tuple(f"n{number}" for number in range(5))
LABELS = {
    LabelKind.BINARY: Label("late", DType.INT, LabelKind.BINARY, ("0", "1")),
    LabelKind.MULTICLASS: Label("size", DType.INT, LabelKind.MULTICLASS, ("0", "1", "2")),
    LabelKind.REGRESSION: Label("amount", DType.FLOAT, LabelKind.REGRESSION),
}
SETTINGS = Settings(
    NetworkSettings(hidden_units=(32, 16), dropout=0.1, l2=1e-5),
    TrainSettings(
        epochs=4, batch_size=128, learning_rate=0.01, patience_epochs=0, strategy="none", checks=False
    ),
)


def made_data(folder: Path, kind: LabelKind = LabelKind.BINARY, memory_rows: int = 10_000) -> Data:
    """Splits of 2000 and 1000 transformed rows, held in memory if there may be as many."""
    features = FeatureSet(
        (
            *(Feature(name, DType.FLOAT, Kind.NUMERIC, is_required=True) for name in NUMBERS),
            Feature("word", DType.BYTES, Kind.CATEGORICAL, is_required=True),
        ),
        LABELS[kind],
    )
    label = features.label.transformed_name
    spec = {
        column.name: tf.io.FixedLenFeature([1], tf.int64 if column.vocabulary else tf.float32)
        for column in features.columns()
    } | {label: tf.io.FixedLenFeature([1], tf.float32 if kind is LabelKind.REGRESSION else tf.int64)}
    graph: Any = SimpleNamespace(
        transformed_feature_spec=lambda: spec,
        vocabulary_size_by_name=lambda _: len(TOKENS),
        vocabulary_by_name=lambda _: list(TOKENS),
    )
    reader = Reader(features, graph, is_transformed=True)
    splits = []
    for seed, (name, rows) in enumerate({"train": 2000, "validation": 1000}.items()):
        file = folder / f"{kind}-{name}"
        with tf.io.TFRecordWriter(str(file)) as writer:
            for row in _rows(seed, rows, kind, features):
                writer.write(row)
        splits.append(load_split(name, [str(file)], reader, memory_rows))
    return Data(splits[0], splits[1], features, graph)


def _rows(seed: int, count: int, kind: LabelKind, features: FeatureSet) -> list[bytes]:
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(count, len(NUMBERS)))
    words = random.integers(1, len(TOKENS) + 1, count)
    score = numbers[:, 0] + numbers[:, 1] * numbers[:, 2] + np.where(words % 3 == 0, 1.0, -0.5)
    score += random.normal(scale=0.3, size=count)
    labels = {
        LabelKind.BINARY: (score > 0.5).astype(np.int64),
        LabelKind.MULTICLASS: np.digitize(score, [-0.5, 0.8]),
        LabelKind.REGRESSION: 1000.0 + 500.0 * score,
    }[kind]
    columns = [column.name for column in features.columns()]
    return [
        _serialized(
            {
                **dict(zip(columns, (*map(float, row), int(word)), strict=True)),
                features.label.transformed_name: label,
            }
        )
        for row, word, label in zip(numbers, words, labels.tolist(), strict=True)
    ]


def _serialized(row: dict[str, int | float]) -> bytes:
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        if isinstance(value, int)
        else tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        for name, value in row.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def saved(network: Any, data: Data, folder: Path) -> str:
    """The network as a SavedModel with its vocabulary, as far as what reads its weights can tell."""
    asset = folder / data.features.features[-1].vocabulary
    asset.write_bytes(b"".join(token + b"\n" for token in TOKENS))
    module = tf.Module()
    module.network = network
    module.vocabulary = tf.saved_model.Asset(str(asset))
    model = str(folder / "model")
    tf.saved_model.save(module, model)
    note_columns(data.features.columns(), model)
    return model


def answers(network: Any, split: Any) -> np.ndarray:
    """What a network says of all rows, `[rows, outputs]`."""
    return np.concatenate([np.asarray(network(inputs)) for inputs, *_ in split.batches(500)])
