"""What each kind of label asks of a network: outputs, loss, metrics and where the scores start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from models.inputs import Split
from models.settings import TrainSettings
from schemas.features import Label, LabelKind


@dataclass(frozen=True)
class Task:
    """What a kind of label asks of the network.

    Attributes:
      outputs: number of outputs.
      initial_bias: where they start, `[outputs]`, before `scale`.
      scale: factor between the last layer and the label's unit.
    """

    outputs: int
    initial_bias: tuple[float, ...]
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | tf_keras.losses.Loss
    metrics: list[Any]
    scale: float = 1.0


def class_shares(split: Split) -> tuple[float, ...]:
    """Share of each class, with one row more for each: one that was never seen keeps a finite log-share."""
    rows = sum(split.label_counts) + len(split.label_counts)
    return tuple((count + 1) / rows for count in split.label_counts)


def _binary(split: Split, _: Label, train: TrainSettings) -> Task:
    negative, positive = class_shares(split)
    return Task(
        1,
        (math.log(positive / negative),),
        tf_keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=train.label_smoothing),
        [tf_keras.metrics.AUC(1000, from_logits=True, name="auc")],
    )


def _multiclass(split: Split, label: Label, train: TrainSettings) -> Task:
    classes = len(label.classes)
    cross_entropy = tf_keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=train.label_smoothing, reduction="none"
    )

    def loss(index: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return cross_entropy(tf.one_hot(tf.cast(index[:, 0], tf.int64), classes), logits)

    return Task(
        classes,
        tuple(math.log(share) for share in class_shares(split)),
        loss,
        [tf_keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )


def _regression(split: Split, _: Label, __: TrainSettings) -> Task:
    def loss(target: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        """Squared error as a share of the target's variance."""
        return tf.reduce_mean(tf.square((target - prediction) / split.label_std), axis=-1)

    return Task(
        1,
        (split.label_mean / split.label_std,),
        loss,
        [
            tf_keras.metrics.MeanAbsoluteError(name="mean_absolute_error"),
            tf_keras.metrics.RootMeanSquaredError(name="root_mean_squared_error"),
        ],
        split.label_std,
    )


TASKS: Mapping[LabelKind, Callable[[Split, Label, TrainSettings], Task]] = {
    LabelKind.BINARY: _binary,
    LabelKind.MULTICLASS: _multiclass,
    LabelKind.REGRESSION: _regression,
}
