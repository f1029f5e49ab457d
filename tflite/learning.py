"""The fit that all treatments share: one process, the Trainer's batches, the epoch that is best on validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from models.callbacks import FiniteLoss, KeptEpoch, TrainingError
from models.inputs import Split
from models.network import Network
from models.settings import TrainSettings
from models.trainer import Data

VALIDATION_ROWS = 4096
"""Rows scored at once."""

_FINAL_RATE = 0.02
"""What the cosine schedule leaves of the learning rate."""

_STEPS_PER_CALL = 32
"""Steps that run inside TensorFlow before Python looks again: a call costs more than a small step."""

_SEED_FOR_ZERO = 2**31 - 2
"""Stands for seeds that are 0 to TensorFlow, with which it cannot shuffle by a computed seed."""


class TreatmentError(ValueError):
    """A network that cannot be treated as asked, or data it cannot be treated with."""


def check_rows(data: Data) -> None:
    """Refuses data in which a split is empty.

    Raises:
      TreatmentError: naming the split.
    """
    for split in (data.train, data.validation):
        if not split.rows:
            raise TreatmentError(
                f"split {split.name!r} has no rows: a treatment that trains needs rows to learn from and rows to "
                "choose the epoch by; check data.split, or leave treatments out of tflite.variants"
            )


def seed_all(train: TrainSettings) -> None:
    """Seeds what draws without a seed of its own: initial weights, centroids, buffers."""
    tf_keras.utils.set_random_seed(train.seed % (2**31 - 1) or _SEED_FOR_ZERO)


def epoch_steps(split: Split, train: TrainSettings) -> int:
    """Steps of one epoch, as in the Trainer."""
    if train.epoch_rows is not None:
        return -(-train.epoch_rows // train.batch_size)
    return split.steps(train.batch_size)


def batches(split: Split, train: TrainSettings) -> tf.data.Dataset:
    """The batches of all epochs, as in the Trainer."""
    return split.shuffled_batches(train.batch_size, seed=train.seed, buffer_rows=train.shuffle_rows)


def learn(
    network: Network,
    taken: tf.data.Dataset,
    steps: int,
    train: TrainSettings,
    loss: Callable[[Any, Any], Any],
    kept: KeptEpoch,
    callbacks: Sequence[tf_keras.callbacks.Callback],
    metrics: Sequence[Any] = (),
    validation: tf.data.Dataset | None = None,
) -> float:
    """Trains the network for `train.epochs` at most; it ends with the weights of the epoch that `kept` has chosen.

    Args:
      network: with the weights to begin with.
      taken: batches without end.
      steps: of one epoch.
      train: epochs, and the peak of the learning rate, which falls by a cosine.
      loss: of labels and logits.
      kept: chooses the epoch.
      callbacks: in their order, before `kept`.
      metrics: measured on `validation`, unless a callback validates.
      validation: the split in batches.

    Returns:
      Seconds.

    Raises:
      TreatmentError: if the loss is not finite.
    """
    rate = tf_keras.optimizers.schedules.CosineDecay(train.learning_rate, train.epochs * steps, _FINAL_RATE)
    network.compile(
        tf_keras.optimizers.Adam(rate, global_clipnorm=1.0),
        loss,
        metrics=list(metrics),
        steps_per_execution=min(_STEPS_PER_CALL, steps),
    )
    started = time.monotonic()
    try:
        network.fit(
            taken,
            steps_per_epoch=steps,
            epochs=train.epochs,
            callbacks=[*callbacks, FiniteLoss(), kept],
            validation_data=validation,
            verbose=0,
        )
    except TrainingError as error:
        raise TreatmentError(str(error)) from error
    network.set_weights(kept.weights)
    return time.monotonic() - started
