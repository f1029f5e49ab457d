"""What watches a training: the choice of the epoch, a loss that is no number, progress."""

from __future__ import annotations

import io
import json
import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from models.settings import TrainSettings
from schemas.features import Label, LabelKind

_PART = re.compile(r"/part_(\d+)(:\d+)?$")
"""Ends the names of the parts into which TensorFlow splits a variable by rows."""

_RISING = ("auc", "accuracy", "precision", "recall")

_PROGRESS = logging.getLogger("headworks.progress")


class TrainingError(RuntimeError):
    """Training that cannot give a model: the data or the settings have to change."""


def monitored(train: TrainSettings, label: Label) -> str:
    """Name of the validation metric that picks the epoch.

    Raises:
      ValueError: if the settings name a metric that the label does not have.
    """
    is_binary = label.kind is LabelKind.BINARY
    if train.monitor == "auto":
        return "val_auc" if is_binary else "val_loss"
    if train.monitor == "val_auc" and not is_binary:
        raise ValueError(
            f"train.monitor: val_auc needs a binary label; {label.name!r} is {label.kind}: use val_loss"
        )
    return train.monitor


def is_larger_better(metric: str) -> bool:
    """Whether a metric should rise: shares of what is right do, losses and errors do not."""
    return any(word in metric for word in _RISING)


class KeptEpoch(tf_keras.callbacks.Callback, tf.train.experimental.PythonState, ABC):
    """Keeps the weights of one epoch, and records every epoch.

    As part of a checkpoint this remembers what it has seen, so that training which goes on chooses among all epochs.

    Attributes:
      history: metrics per epoch.
      chosen: index into `history` of the epoch whose weights are kept.
      validates: whether it needs the metrics of the validation split.
    """

    validates: bool

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self.chosen = 0
        self._weights: list[Any] | None = None

    @property
    def weights(self) -> list[Any]:
        """Those of the chosen epoch, whole, in the order of an undistributed network's."""
        assert self._weights is not None, "no epoch has ended"
        return self._weights

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether training ends before its last epoch."""

    @abstractmethod
    def _replaces(self, epoch: int) -> bool:
        """Whether the weights of an epoch, an index into `history`, take the place of those that are kept."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        latest = len(self.history) - 1
        if self._weights is None or self._replaces(latest):
            self.chosen, self._weights = latest, whole_weights(self.model)
        self.model.stop_training = self.is_over

    def serialize(self) -> bytes:
        """What it has seen, as a checkpoint stores it."""
        buffer = io.BytesIO()
        seen = np.array(json.dumps({"history": self.history, "chosen": self.chosen}))
        np.savez(buffer, *(self._weights or ()), seen=seen)
        return buffer.getvalue()

    def deserialize(self, string_value: bytes) -> None:
        """Reads what `serialize` wrote."""
        with np.load(io.BytesIO(string_value), allow_pickle=False) as stored:
            seen = json.loads(stored["seen"].item())
            self._weights = [stored[f"arr_{number}"] for number in range(len(stored.files) - 1)]
        self.history, self.chosen = seen["history"], seen["chosen"]


class BestEpoch(KeptEpoch):
    """Keeps the epoch that is best by a metric, and stops when it is long past.

    Keras' own early stopping keeps its weights only where it stopped early.
    """

    validates = True

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__()
        self.monitor = monitor
        self._patience = patience

    @property
    def is_over(self) -> bool:
        return bool(self._patience) and len(self.history) - 1 - self.chosen >= self._patience

    def _replaces(self, epoch: int) -> bool:
        value, best = self.history[epoch][self.monitor], self.history[self.chosen][self.monitor]
        return value > best if is_larger_better(self.monitor) else value < best


class LastEpoch(KeptEpoch):
    """Keeps the last epoch, where all rows are trained on and none is left to choose by."""

    validates = False
    is_over = False

    def _replaces(self, epoch: int) -> bool:
        return True


class LocalValidation(tf_keras.callbacks.Callback):
    """Scores the validation split in this process, with a copy of a network whose weights are elsewhere.

    Stands before the callbacks that read the metrics, which it adds.

    Args:
      build: makes a compiled copy.
      batches: the split.
    """

    def __init__(self, build: Callable[[], tf_keras.Model], batches: tf.data.Dataset) -> None:
        super().__init__()
        self._build = build
        self._batches = batches
        self._copy: tf_keras.Model | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        weights = whole_weights(self.model)
        # Keras calls within the scope of the strategy, where all that is made would be distributed. It is of a thread.
        with ThreadPoolExecutor(1) as outside:
            found = outside.submit(self._score, weights).result()
        assert logs is not None, "Keras hands what it has measured"
        logs.update({f"val_{name}": value for name, value in found.items()})

    def _score(self, weights: list[Any]) -> dict[str, float]:
        if self._copy is None:
            self._copy = self._build()
        self._copy.set_weights(weights)
        return dict(self._copy.evaluate(self._batches, return_dict=True, verbose=0))


def whole_weights(network: tf_keras.Model) -> list[Any]:
    """The weights as arrays, in the order of an undistributed network's; parts of one on several servers joined."""
    whole: list[Any] = []
    for variable, values in zip(network.weights, network.get_weights(), strict=True):
        part = _PART.search(variable.name)
        if part is not None and int(part[1]) > 0:
            whole[-1] = np.concatenate([whole[-1], values])
        else:
            whole.append(values)
    return whole


class FiniteLoss(tf_keras.callbacks.Callback):
    """Stops a run that has diverged, before its weights are taken for a model."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} after epoch {epoch + 1}: training diverged. "
                    "Lower train.learning_rate (or look for extreme values in the label)"
                )


class EpochProgress(tf_keras.callbacks.Callback):
    """Tells the run's display how many steps are done, after every epoch."""

    def __init__(self, epochs: int, steps: int) -> None:
        super().__init__()
        self._total = epochs * steps
        self._steps = steps

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._tell((epoch + 1) * self._steps)

    def _tell(self, done: int) -> None:
        _PROGRESS.info("steps", extra={"done": done, "total": self._total, "unit": "steps"})


class Progress(EpochProgress):
    """Does so after every batch, where the steps are this process's own."""

    def __init__(self, epochs: int, steps: int) -> None:
        super().__init__(epochs, steps)
        self._before = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._before = epoch * self._steps

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._tell(self._before + batch + 1)
