"""Training: the entry point that TFX's Trainer calls, and the fit that the tuner shares."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras

from models import distribution, probe, signatures
from models.checkpoints import Checkpoints
from models.inputs import Reader, Split, load_split
from models.network import build_network, sized_columns
from models.settings import NetworkSettings, TrainSettings
from schemas.features import FeatureSet, Label, LabelKind

_PROGRESS = logging.getLogger("headworks.progress")

_STEPS_PER_CALL = 32
"""Steps that run inside TensorFlow before Python looks again: a call costs more than a small step."""

_FINAL_RATE = 0.02
"""What the cosine schedule leaves of the learning rate."""


_SEED_FOR_ZERO = 2**31 - 2
"""Global seed that stands for 0, with which TensorFlow cannot shuffle a data set by a computed seed.

TensorFlow takes global seeds modulo 2**31 - 1.
"""


class TrainingError(RuntimeError):
    """Training that cannot give a model: the data or the settings have to change."""


@dataclass(frozen=True)
class Settings:
    """The settings that one training run uses."""

    network: NetworkSettings
    train: TrainSettings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Reads the keys `model` and `train`, and `best`: stored hyperparameters by dotted name."""
        settings = cls(NetworkSettings(**config["model"]), TrainSettings(**config["train"]))
        return settings.with_values(config.get("best") or {})

    def with_values(self, values: Mapping[str, Any]) -> Settings:
        """Replaces settings by dotted name, such as `train.learning_rate`.

        A list of values may come as JSON; what KerasTuner notes for itself under `tuner/` is passed over.

        Raises:
          ValueError: for a name that is not a setting of `model` or `train`.
        """
        parts: dict[str, dict[str, Any]] = {"model": asdict(self.network), "train": asdict(self.train)}
        for name, value in values.items():
            if name.startswith("tuner/"):
                continue
            part, _, key = name.partition(".")
            if key not in parts.get(part, {}):
                raise ValueError(
                    f"hyperparameter {name!r}: no such setting; names look like train.learning_rate"
                )
            is_list = isinstance(parts[part][key], tuple)
            parts[part][key] = json.loads(value) if is_list and isinstance(value, str) else value
        return Settings(NetworkSettings(**parts["model"]), TrainSettings(**parts["train"]))


@dataclass(frozen=True)
class Data:
    """The two splits of a training run, and what the network has to know of the columns."""

    train: Split
    validation: Split
    features: FeatureSet
    graph: tft.TFTransformOutput


@dataclass(frozen=True)
class Fitted:
    """A trained network with the record of its training.

    Attributes:
      network: with the weights of the chosen epoch.
      history: metrics per epoch.
      chosen: index into `history` of the epoch whose weights were kept.
      monitor: metric that chose it.
      seconds: wall time of the fit, without the epochs of an earlier process.
    """

    network: tf_keras.Model
    history: Sequence[Mapping[str, float]]
    chosen: int
    monitor: str
    seconds: float


def run_fn(fn_args: Any) -> None:
    """Trains on the splits that `fn_args` names and exports the model with its signatures.

    `fn_args.custom_config` holds `features` (a `FeatureSet` as JSON), `model` and `train` (settings). It may
    hold `best` (hyperparameters by dotted name), `materialized` (the examples are already transformed) and
    `training_folder`: where training keeps checkpoints and TensorBoard's logs until it has succeeded, so that
    the same training goes on after its last finished epoch when it is started again (dropout draws anew from
    there). `model_run_dir` gets the logs in any case, the record of the training and a `Probe` of its network.

    Raises:
      TrainingError: if the data cannot be learned from or the loss is not finite.
    """
    config = fn_args.custom_config
    settings = Settings.from_config(config).with_values(_tuned(fn_args.hyperparameters))
    data = load_data(fn_args, settings.train)
    record = Path(fn_args.model_run_dir)
    kept = Path(config["training_folder"]) / identity(fn_args) if config.get("training_folder") else None
    logs = kept / "logs" if kept else record
    tensorboard = tf_keras.callbacks.TensorBoard(str(logs), write_graph=False)
    fitted = fit(data, settings, [tensorboard], kept / "checkpoints" if kept else None)
    signatures.export(fitted.network, data.features, data.graph, fn_args.serving_model_dir)
    probe.take(fitted.network, data.validation).write(record)
    _write_record(fitted, data, settings, record / "training.json")
    if kept:
        shutil.copytree(logs, record, dirs_exist_ok=True)
        shutil.rmtree(kept)


def identity(fn_args: Any) -> str:
    """Names a training by what decides its outcome: settings, code, and the place and size of its data."""
    config = {key: value for key, value in fn_args.custom_config.items() if key != "training_folder"}
    patterns = [*fn_args.train_files, *fn_args.eval_files]
    files = {path for pattern in patterns for path in tf.io.gfile.glob(pattern)}
    content = {
        "config": config,
        "tuned": dict(_tuned(fn_args.hyperparameters)),
        "patterns": patterns,
        "files": {path: tf.io.gfile.stat(path).length for path in files},
        "graph": fn_args.transform_graph_path,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_data(fn_args: Any, train: TrainSettings) -> Data:
    """Reads both splits.

    Raises:
      TrainingError: if the training rows all belong to one class.
    """
    features = FeatureSet.from_json(fn_args.custom_config["features"])
    graph = tft.TFTransformOutput(fn_args.transform_graph_path)
    reader = Reader(features, graph, bool(fn_args.custom_config.get("materialized")))
    split = load_split("train", fn_args.train_files, reader, train.memory_rows)
    _check_classes(split, features.label)
    return Data(
        split, load_split("validation", fn_args.eval_files, reader, train.memory_rows), features, graph
    )


def fit(
    data: Data,
    settings: Settings,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    checkpoints: Path | None = None,
) -> Fitted:
    """Trains a new network; its weights are those of the epoch with the best validation metric.

    With `checkpoints`, a folder, every finished epoch is saved there, and training goes on from what it holds.

    Raises:
      TrainingError: if the loss is not finite.
      CheckpointError: if the folder holds a checkpoint that cannot be read.
    """
    train = settings.train
    tf_keras.utils.set_random_seed(train.seed % (2**31 - 1) or _SEED_FOR_ZERO)
    steps = data.train.steps(train.batch_size)
    with distribution.strategy(train.strategy).scope():
        network = compiled_network(data, settings, steps)
        best = BestEpoch(monitored(train, data.features.label), train.patience_epochs)
        after = [best, *([Checkpoints(checkpoints, network, best)] if checkpoints else [])]
    finished = len(best.history)
    started = time.monotonic()
    batches = data.train.shuffled_batches(
        train.batch_size, seed=train.seed, buffer_rows=train.shuffle_rows, first_epoch=finished
    )
    network.fit(
        _sharded_by_batch(batches),
        validation_data=_sharded_by_batch(data.validation.batches(max(train.batch_size, 4096))),
        steps_per_epoch=steps,
        initial_epoch=finished,
        epochs=finished if best.is_over else train.epochs,
        callbacks=[_FiniteLoss(), *callbacks, _Progress(train.epochs, steps), *after],
        verbose=0,
    )
    return Fitted(network, best.history, best.chosen, best.monitor, time.monotonic() - started)


def compiled_network(data: Data, settings: Settings, steps: int) -> tf_keras.Model:
    """The untrained network with its loss, optimizer and metrics; `steps` are those of one epoch."""
    label = data.features.label
    columns = data.features.columns()
    sizes = {c.vocabulary: data.graph.vocabulary_size_by_name(c.vocabulary) for c in columns if c.vocabulary}
    task = _TASKS[label.kind](data.train, label, settings.train)
    network = build_network(sized_columns(columns, sizes), task.outputs, settings.network, task.initial_bias)
    if task.scale != 1.0:
        # The layers work on a target of spread one, whatever its unit.
        scaled = tf_keras.layers.Rescaling(task.scale, name="in_units")(network.output)
        network = tf_keras.Model(network.input, scaled)
    network.compile(
        _optimizer(settings.train, steps),
        task.loss,
        metrics=task.metrics,
        steps_per_execution=min(_STEPS_PER_CALL, steps),
    )
    return network


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


def is_larger_better(monitor: str) -> bool:
    """Whether the monitored metric should rise."""
    return monitor == "val_auc"


class BestEpoch(tf_keras.callbacks.Callback, tf.train.experimental.PythonState):
    """Keeps the weights of the best epoch, stops when it is long past, and records every epoch.

    Keras' own early stopping restores them only where it stopped early. As part of a checkpoint this
    remembers what it has seen, so that training which goes on chooses among all epochs.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__()
        self.monitor = monitor
        self.history: list[dict[str, float]] = []
        self.chosen = 0
        self._patience = patience
        self._weights: list[Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the best epoch is so long past that training ends."""
        return bool(self._patience) and len(self.history) - 1 - self.chosen >= self._patience

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        latest = len(self.history) - 1
        if self._weights is None or self._is_better(latest):
            self.chosen, self._weights = latest, self.model.get_weights()
        self.model.stop_training = self.is_over

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        if self._weights is not None:
            self.model.set_weights(self._weights)

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

    def _is_better(self, epoch: int) -> bool:
        value, best = self.history[epoch][self.monitor], self.history[self.chosen][self.monitor]
        return value > best if is_larger_better(self.monitor) else value < best


class _FiniteLoss(tf_keras.callbacks.Callback):
    """Stops a run that has diverged, before its weights are taken for a model."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} after epoch {epoch + 1}: training diverged. "
                    "Lower train.learning_rate (or look for extreme values in the label)"
                )


class _Progress(tf_keras.callbacks.Callback):
    """Tells the run's display how many steps are done."""

    def __init__(self, epochs: int, steps: int) -> None:
        super().__init__()
        self._total = epochs * steps
        self._steps = steps
        self._before = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._before = epoch * self._steps

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        done = self._before + batch + 1
        _PROGRESS.info("steps", extra={"done": done, "total": self._total, "unit": "steps"})


@dataclass(frozen=True)
class _Task:
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


def _binary(split: Split, _: Label, train: TrainSettings) -> _Task:
    negative, positive = split.label_counts
    return _Task(
        1,
        (math.log(positive / negative),),
        tf_keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=train.label_smoothing),
        [tf_keras.metrics.AUC(1000, from_logits=True, name="auc")],
    )


def _multiclass(split: Split, label: Label, train: TrainSettings) -> _Task:
    classes = len(label.classes)
    cross_entropy = tf_keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=train.label_smoothing, reduction="none"
    )

    def loss(index: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return cross_entropy(tf.one_hot(tf.cast(index[:, 0], tf.int64), classes), logits)

    # One row more for each class: a declared class that was never seen keeps a finite log-share.
    shares = [(count + 1) / (split.rows + classes) for count in split.label_counts]
    return _Task(
        classes,
        tuple(math.log(share) for share in shares),
        loss,
        [tf_keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )


def _regression(split: Split, _: Label, __: TrainSettings) -> _Task:
    def loss(target: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        """Squared error as a share of the target's variance."""
        return tf.reduce_mean(tf.square((target - prediction) / split.label_std), axis=-1)

    return _Task(
        1,
        (split.label_mean / split.label_std,),
        loss,
        [
            tf_keras.metrics.MeanAbsoluteError(name="mean_absolute_error"),
            tf_keras.metrics.RootMeanSquaredError(name="root_mean_squared_error"),
        ],
        split.label_std,
    )


_TASKS: Mapping[LabelKind, Callable[[Split, Label, TrainSettings], _Task]] = {
    LabelKind.BINARY: _binary,
    LabelKind.MULTICLASS: _multiclass,
    LabelKind.REGRESSION: _regression,
}


def _optimizer(train: TrainSettings, steps: int) -> tf_keras.optimizers.Optimizer:
    rate: Any = train.learning_rate
    if train.schedule == "cosine":
        rate = tf_keras.optimizers.schedules.CosineDecay(rate, train.epochs * steps, alpha=_FINAL_RATE)
    if train.weight_decay:
        return tf_keras.optimizers.AdamW(rate, weight_decay=train.weight_decay, global_clipnorm=1.0)
    return tf_keras.optimizers.Adam(rate, global_clipnorm=1.0)


def _sharded_by_batch(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Lets a strategy split batches between replicas of one machine instead of files it cannot see."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options)


def _check_classes(split: Split, label: Label) -> None:
    if label.kind is LabelKind.REGRESSION:
        return
    seen = [name for name, count in zip(label.classes, split.label_counts, strict=True) if count]
    if len(seen) < 2:
        raise TrainingError(
            f"split {split.name!r}: all {split.rows} rows have {label.name} = {seen[0]!r}, so there is "
            "nothing to learn; check the label's query, its classes and data.split"
        )


def _tuned(hyperparameters: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The values in what KerasTuner's `HyperParameters.get_config` wrote, by dotted name."""
    return (hyperparameters or {}).get("values", {})


def _write_record(fitted: Fitted, data: Data, settings: Settings, path: Path) -> None:
    record = {
        "monitor": fitted.monitor,
        "chosen_epoch": fitted.chosen + 1,
        "history": [{"epoch": number, **metrics} for number, metrics in enumerate(fitted.history, start=1)],
        "seconds": round(fitted.seconds, 3),
        "parameters": fitted.network.count_params(),
        "rows": {split.name: split.rows for split in (data.train, data.validation)},
        "in_memory": data.train.is_in_memory,
        "model": asdict(settings.network),
        "train": asdict(settings.train),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
