"""Training: the entry point that TFX's Trainer calls, and the fit that the tuner shares."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras

from models import cluster, distribution, ensemble, probe, signatures, tracking, warm_start, warm_up
from models.callbacks import (
    BestEpoch,
    EpochProgress,
    FiniteLoss,
    KeptEpoch,
    LastEpoch,
    LocalValidation,
    Progress,
    TrainingError,
    monitored,
)
from models.checkpoints import Checkpoints, delete_abandoned
from models.child_environment import child_environment
from models.distribution import ClusterConfigError, Distribution, Export
from models.inputs import Reader, Recency, Share, Split, load_split
from models.network import Compute, Network, build_network, sized_columns
from models.preflight import Finding, preflight
from models.settings import OUTPUTS_FOLLOW, NetworkSettings, TrainSettings
from models.tasks import TASKS
from models.warm_start import Carried, Unfreezing
from schemas.features import FeatureSet, Label, LabelKind

_PROGRESS = logging.getLogger("headworks.progress")

_LOG = logging.getLogger(__name__)

_STEPS_PER_CALL = 32
"""Steps that run inside TensorFlow before Python looks again: a call costs more than a small step."""

_FINAL_RATE = 0.02
"""What the cosine schedule leaves of the learning rate."""

_VALIDATION_ROWS = 4096
"""Rows scored at once, at least."""

_EXPORT_SECONDS = 600.0
"""How long workers wait for the chief's export."""

_SEED_FOR_ZERO = 2**31 - 2
"""Global seed that stands for 0, with which TensorFlow cannot shuffle a data set by a computed seed.

TensorFlow takes global seeds modulo 2**31 - 1.
"""

_ARGUMENTS = (
    "train_files",
    "eval_files",
    "transform_graph_path",
    "serving_model_dir",
    "model_run_dir",
    "base_model",
    "hyperparameters",
    "custom_config",
)
"""What `run_fn` reads of what TFX hands it."""


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
    """The two splits of a training run, and what the network has to know of the columns.

    Attributes:
      train: learned from.
      validation: chooses the epoch.
      features: the columns.
      graph: the tf.Transform output.
      base_model: folder of the SavedModel whose weights `train.warm_start` begins with; None begins cold.
    """

    train: Split
    validation: Split
    features: FeatureSet
    graph: tft.TFTransformOutput
    base_model: str | None = None


@dataclass(frozen=True)
class Fitted:
    """A trained network with the record of its training.

    Attributes:
      network: with the weights of the chosen epoch, on this machine and whole, wherever it was trained.
      history: metrics per epoch.
      chosen: index into `history` of the epoch whose weights were kept.
      monitor: metric that chose it.
      seconds: wall time of the fit, without the epochs of an earlier process.
      replicas: copies of the network that shared a batch.
      resumed: epochs that an earlier process had finished.
      carried: what a warm start took over.
    """

    network: tf_keras.Model
    history: Sequence[Mapping[str, float]]
    chosen: int
    monitor: str
    seconds: float
    replicas: int = 1
    resumed: int = 0
    carried: Sequence[Carried] = ()


def run_fn(fn_args: Any) -> None:
    """Trains on the splits that `fn_args` names and exports the model with its signatures.

    `fn_args.custom_config` holds `features` (a `FeatureSet` as JSON), `model` and `train` (settings). It may
    hold `best` (hyperparameters by dotted name), `materialized` (the examples are already transformed) and
    `training_folder`: where training keeps checkpoints and TensorBoard's logs until it has succeeded, so that
    the same training goes on after its last finished epoch when it is started again. `model_run_dir` gets the
    logs in any case, the record of the training and a `Probe` of its network.

    Where TF_CONFIG makes this process one of several, the chief alone exports; the others wait for that, or
    serve it. Their folders for the model may be apart, but `training_folder` is one. Where the settings ask for a
    cluster on this machine, it is started, and this process waits.

    Raises:
      TrainingError: if the data cannot be learned from or the loss is not finite.
      ClusterConfigError: if the strategy cannot be had here.
      ClusterError: if a task of the local cluster failed.
    """
    train = _members(fn_args)[0].train
    if train.cluster is None:
        run_task(fn_args)
    elif cluster.CLUSTER in os.environ:
        raise ClusterConfigError(
            f"train.cluster asks for a cluster on this machine, but {cluster.CLUSTER} describes one: take out "
            "train.cluster to train in that one, or unset the variable"
        )
    else:
        _train_in_cluster(fn_args, train)


def run_task(fn_args: Any) -> None:
    """Does this process's part of a training: all of it, or what TF_CONFIG says. Otherwise as `run_fn`."""
    members = _members(fn_args)
    train = members[0].train
    exported, kept = Path(fn_args.serving_model_dir), _kept(fn_args)
    served = distribution.serves(train)
    if served is not None:
        distribution.serve(served, until=Export(exported, kept).is_done)
        exported.mkdir(parents=True, exist_ok=True)  # TFX looks for it in every process.
        return
    where = distribution.build(train)
    if where.task is not None and Export(exported).is_done():
        return  # All was done when the cluster was started again: the export is the last thing.
    _train(fn_args, members, where, kept)
    if not where.is_chief:
        distribution.wait_for_export(Export(exported, kept, was_kept=True), _EXPORT_SECONDS)
        exported.mkdir(parents=True, exist_ok=True)


def _kept(fn_args: Any) -> Path | None:
    """Where this training keeps what it goes on from; None: nowhere."""
    folder = fn_args.custom_config.get("training_folder")
    return Path(folder) / identity(fn_args) if folder else None


def _train(fn_args: Any, members: Sequence[Settings], where: Distribution, kept: Path | None) -> None:
    settings = members[0]
    base_model = warm_start.base_model(fn_args, settings.train.warm_start)
    data = replace(load_data(fn_args, settings.train), base_model=base_model)
    findings = preflight(data, settings, compiled_network) if settings.train.checks and where.is_chief else ()
    record = Path(fn_args.model_run_dir)
    logs = kept / "logs" if kept else record
    fits = []
    for number, member in enumerate(members, start=1):
        own = logs / f"member_{number}" if len(members) > 1 else logs
        checkpoints = kept / "checkpoints" / str(number) if kept else None
        fits.append(fit(data, member, _loggers(member, own, where), checkpoints, where))
    again = _refit(fn_args, data, members, fits, kept, where) if settings.train.refit else None
    if not where.is_chief:
        return
    networks = again.networks if again else [one.network for one in fits]
    network = ensemble.averaged(networks, data.features.label) if len(networks) > 1 else networks[0]
    fitted = replace(fits[0], network=network, seconds=sum(one.seconds for one in fits))
    if kept:
        shutil.copytree(logs, record, dirs_exist_ok=True)
    asked = probe.take(fitted.network, data.validation)
    asked.write(record)
    _write_record(fitted, data, settings, findings, len(fits), again, record / "training.json")
    signatures.export(fitted.network, data.features, data.graph, fn_args.serving_model_dir)
    warm_up.write(asked, data.features.label, fn_args.serving_model_dir)
    if kept and not fn_args.custom_config.get(OUTPUTS_FOLLOW):
        shutil.rmtree(kept)
    if kept:
        delete_abandoned(kept.parent)


@dataclass(frozen=True)
class _Refit:
    """Networks that were trained anew on the rows of train and validation together.

    Attributes:
      networks: one for each member, in their order.
      rows: of both splits.
      seconds: wall time of the fits, without the epochs of an earlier process.
    """

    networks: Sequence[tf_keras.Model]
    rows: int
    seconds: float


def _refit(
    fn_args: Any,
    data: Data,
    members: Sequence[Settings],
    fits: Sequence[Fitted],
    kept: Path | None,
    where: Distribution,
) -> _Refit:
    """Trains every member anew on all rows but the test split's, for as many epochs as were best on validation."""
    first = members[0].train
    patterns = [*fn_args.train_files, *fn_args.eval_files]
    recency = _recency(fn_args.custom_config.get("order_column"), first)
    split = load_split("train and validation", patterns, data.train.reader, first.memory_rows, recency)
    again = []
    for number, (member, found) in enumerate(zip(members, fits, strict=True), start=1):
        checkpoints = kept / "checkpoints" / f"{number}-refit" if kept else None
        settings = replace(member, train=_grown(member.train, split.rows / data.train.rows))
        epochs = found.chosen + 1
        again.append(_fit(replace(data, train=split), settings, LastEpoch(), epochs, (), checkpoints, where))
    return _Refit([one.network for one in again], split.rows, sum(one.seconds for one in again))


def _grown(train: TrainSettings, ratio: float) -> TrainSettings:
    """The settings for a split with so many times the rows: an epoch is still the same part of them."""
    if train.epoch_rows is None:
        return train
    return replace(train, epoch_rows=max(1, round(train.epoch_rows * ratio)))


def _members(fn_args: Any) -> Sequence[Settings]:
    """The settings of each network to train, the best first: several where the Tuner found an ensemble."""
    settings = Settings.from_config(fn_args.custom_config)
    settings = replace(settings, train=distribution.here(settings.train))
    return [settings.with_values(values) for values in _tuned(fn_args.hyperparameters)]


def _loggers(settings: Settings, logs: Path, where: Distribution) -> list[tf_keras.callbacks.Callback]:
    if not where.is_chief:
        return []
    shown = tracking.service_logs(logs.name)
    return [
        *(tf_keras.callbacks.TensorBoard(str(folder), write_graph=False) for folder in (logs, *shown)),
        tracking.hparams_callback(settings.network, settings.train, logs),
    ]


def _train_in_cluster(fn_args: Any, train: TrainSettings) -> None:
    """Has processes of this machine train, and repeats what they say."""
    assert train.cluster is not None, "asked before"
    given = {name: getattr(fn_args, name, None) for name in _ARGUMENTS}
    with tempfile.TemporaryDirectory(prefix="headworks-cluster-") as folder:
        arguments = Path(folder) / "arguments.json"
        arguments.write_text(json.dumps(given), encoding="utf-8")
        cluster.run(
            [sys.executable, "-P", "-m", "models.cluster_task", str(arguments)],
            cluster.Shape(train.cluster.workers, train.cluster.parameter_servers),
            _repeat,
            restarts=train.cluster.restarts,
            environment=child_environment(),
        )


def _repeat(task: str, line: str) -> None:
    if line.startswith(cluster.PROGRESS):
        _PROGRESS.info("steps", extra=json.loads(line.removeprefix(cluster.PROGRESS)))
    else:
        _LOG.info("%s: %s", task, line)


def identity(fn_args: Any) -> str:
    """Names a training by what decides its outcome: settings, code, and the place and size of its data."""
    config = {key: value for key, value in fn_args.custom_config.items() if key != "training_folder"}
    patterns = [*fn_args.train_files, *fn_args.eval_files]
    files = {path for pattern in patterns for path in tf.io.gfile.glob(pattern)}
    content = {
        "config": config,
        "tuned": _tuned(fn_args.hyperparameters),
        "patterns": patterns,
        "files": {path: tf.io.gfile.stat(path).length for path in files},
        "graph": fn_args.transform_graph_path,
        "base": getattr(fn_args, "base_model", None),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_data(fn_args: Any, train: TrainSettings) -> Data:
    """Reads both splits.

    Raises:
      TrainingError: if the training rows all belong to one class, or cannot be weighted by age.
    """
    features = FeatureSet.from_json(fn_args.custom_config["features"])
    graph = tft.TFTransformOutput(fn_args.transform_graph_path)
    reader = Reader(features, graph, bool(fn_args.custom_config.get("materialized")))
    recency = _recency(fn_args.custom_config.get("order_column"), train)
    split = load_split("train", fn_args.train_files, reader, train.memory_rows, recency)
    _check_classes(split, features.label)
    return Data(
        split, load_split("validation", fn_args.eval_files, reader, train.memory_rows), features, graph
    )


def _recency(column: str | None, train: TrainSettings) -> Recency | None:
    if train.recency_half_life is None:
        return None
    if column is None:
        raise TrainingError(
            "train.recency_half_life needs to know which column orders the rows: set data.time, or split by time"
        )
    return Recency(column, train.recency_half_life)


def fit(
    data: Data,
    settings: Settings,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    checkpoints: Path | None = None,
    where: Distribution | None = None,
) -> Fitted:
    """Trains a new network; its weights are those of the epoch with the best validation metric.

    With `checkpoints`, a folder, every finished epoch is saved there, and training goes on from what it holds:
    with the weights, the optimizer, the draws of the dropout and the place in the data that it would have had.
    `where` is what `distribution.build` gave, which it is asked for if absent.

    Raises:
      TrainingError: if the loss is not finite.
      CheckpointError: if the folder holds a checkpoint that cannot be read.
      ClusterConfigError: if the strategy cannot be had here.
    """
    best = BestEpoch(monitored(settings.train, data.features.label), settings.train.patience_epochs)
    where = where or distribution.build(settings.train)
    return _fit(data, settings, best, settings.train.epochs, callbacks, checkpoints, where)


def _fit(
    data: Data,
    settings: Settings,
    kept: KeptEpoch,
    epochs: int,
    callbacks: Sequence[tf_keras.callbacks.Callback],
    checkpoints: Path | None,
    where: Distribution,
) -> Fitted:
    """Trains for so many epochs at most; the learning rate follows its schedule over `train.epochs` nevertheless."""
    train = settings.train
    batch_size = where.batch_size(train)
    steps = _epoch_steps(data.train, train, batch_size)
    tf_keras.utils.set_random_seed(train.seed % (2**31 - 1) or _SEED_FOR_ZERO)
    with where.strategy.scope():
        network = compiled_network(data, settings, steps, where.learning_rate(train))
        carried, unfreezing = _begun(network, data, train)
        keeper = [Checkpoints(checkpoints, network, kept, where.is_chief)] if checkpoints else []
    parts = where.parts(network)
    if parts:
        servers = len(where.task.cluster["ps"]) if where.task else 0
        _LOG.info(
            "variables in parts: %s", ", ".join(f"{name} over {servers} parameter servers" for name in parts)
        )
    finished = len(kept.history)
    validation = (
        _validation(
            data, max(batch_size, _VALIDATION_ROWS), where, lambda: compiled_network(data, settings, 1)
        )
        if kept.validates
        else _Validation({})
    )
    progress = [(EpochProgress if where.has_servers else Progress)(epochs, steps)] if where.is_chief else []
    started = time.monotonic()
    network.fit(
        _training_batches(data.train, train, where, batch_size, first_batch=finished * steps),
        steps_per_epoch=steps,
        initial_epoch=finished,
        epochs=finished if kept.is_over else epochs,
        callbacks=[*validation.callbacks, FiniteLoss(), *unfreezing, *callbacks, *progress, kept, *keeper],
        verbose=0,
        **validation.arguments,
    )
    seconds = time.monotonic() - started
    chosen = untrained(data, settings)
    chosen.set_weights(kept.weights)
    monitor = monitored(train, data.features.label)
    return Fitted(chosen, kept.history, kept.chosen, monitor, seconds, where.replicas, finished, carried)


def compiled_network(
    data: Data, settings: Settings, steps: int, learning_rate: float | None = None
) -> Network:
    """The untrained network with its loss, optimizer and metrics; `steps` are those of one epoch."""
    train = settings.train
    task = TASKS[data.features.label.kind](data.train, data.features.label, train)
    network = untrained(data, settings)
    network.compile(
        _optimizer(train, learning_rate or train.learning_rate, steps),
        task.loss,
        metrics=task.metrics,
        steps_per_execution=min(_STEPS_PER_CALL, steps),
        jit_compile=train.jit_compile,
    )
    return network


def untrained(data: Data, settings: Settings) -> Network:
    """The network with the weights that it begins with."""
    label, train = data.features.label, settings.train
    columns = data.features.columns()
    sizes = {c.vocabulary: data.graph.vocabulary_size_by_name(c.vocabulary) for c in columns if c.vocabulary}
    task = TASKS[label.kind](data.train, label, train)
    compute = Compute(train.mixed_precision, train.recompute, train.seed)
    widths = (
        warm_start.embedding_widths(data.base_model, train.warm_start)
        if data.base_model is not None and train.warm_start is not None
        else {}
    )
    network = build_network(
        sized_columns(columns, sizes), task.outputs, settings.network, task.initial_bias, compute, widths
    )
    if task.scale != 1.0:
        # The layers work on a target of spread one, whatever its unit.
        scaled = tf_keras.layers.Rescaling(task.scale, name="in_units")(network.output)
        network = Network(network.input, scaled)
    return network


def _begun(
    network: Network, data: Data, train: TrainSettings
) -> tuple[Sequence[Carried], Sequence[tf_keras.callbacks.Callback]]:
    """Gives the network the weights to begin with, and keeps from learning what is to stay for a while."""
    if data.base_model is None or train.warm_start is None:
        return (), ()
    columns = data.features.columns()
    names = {column.vocabulary for column in columns if column.vocabulary}
    tokens = {name: data.graph.vocabulary_by_name(name) for name in names}
    carried = warm_start.begin_from(network, data.base_model, train.warm_start, columns, tokens)
    unfreeze = train.warm_start.unfreeze
    return carried, [Unfreezing(network, unfreeze)] if unfreeze else []


def _epoch_steps(split: Split, train: TrainSettings, batch_size: int) -> int:
    if train.epoch_rows is not None:
        return -(-train.epoch_rows // batch_size)
    return split.steps(batch_size) if train.strategy != "tpu" else _full_batches(split, batch_size)


def _full_batches(split: Split, batch_size: int) -> int:
    """A TPU's steps are compiled for one size: the rows beyond the last full batch are left out."""
    if split.rows < batch_size:
        raise TrainingError(
            f"split {split.name!r} has {split.rows} rows, less than one batch of {batch_size}, and a TPU takes full "
            "ones only: lower train.batch_size"
        )
    return split.rows // batch_size


def _training_batches(
    split: Split, train: TrainSettings, where: Distribution, batch_size: int, first_batch: int
) -> Any:
    """What Keras' fit takes: the batches of all epochs, from the one where training goes on."""
    if where.name == "tpu":
        passes, within = divmod(first_batch, _full_batches(split, batch_size))
        first_batch = passes * split.steps(batch_size) + within

    def batches(share: Share, seed: int) -> tf.data.Dataset:
        return split.shuffled_batches(
            batch_size, seed=seed, buffer_rows=train.shuffle_rows, first_batch=first_batch, share=share
        )

    if where.is_alone:
        return batches(Share(), train.seed)
    if where.has_servers:
        # Each worker goes through all rows, in an order of its own.
        return tf_keras.utils.experimental.DatasetCreator(
            lambda context: batches(Share(), train.seed + context.input_pipeline_id)
        )
    by_files = _is_by_files(split, train, where)
    return where.strategy.distribute_datasets_from_function(
        lambda context: _of_one_size(batches(where.share(context, by_files), train.seed), where, batch_size)
    )


def _of_one_size(batches: tf.data.Dataset, where: Distribution, batch_size: int) -> tf.data.Dataset:
    if where.name != "tpu":
        return batches
    rows = batch_size // where.replicas

    def fix(*batch: Any) -> Any:
        return tf.nest.map_structure(lambda tensor: tf.ensure_shape(tensor, [rows, *tensor.shape[1:]]), batch)

    return batches.filter(lambda _, label, *__: tf.shape(label)[0] == rows).map(fix)


def _is_by_files(split: Split, train: TrainSettings, where: Distribution) -> bool:
    if split.is_in_memory or train.auto_shard == "rows" or where.task is None:
        return False
    workers = len(where.task.cluster["worker"]) + len(where.task.cluster.get("chief", ()))
    if train.auto_shard == "files" and len(split.files) < workers:
        raise TrainingError(
            f"train.auto_shard is files, but split {split.name!r} has {len(split.files)} files for {workers} "
            "workers; use auto or rows"
        )
    return len(split.files) >= workers


@dataclass(frozen=True)
class _Validation:
    """How the validation split is scored: by Keras' fit with these arguments, or by these callbacks."""

    arguments: Mapping[str, Any]
    callbacks: Sequence[tf_keras.callbacks.Callback] = ()


def _validation(data: Data, rows: int, where: Distribution, build: Callable[[], Network]) -> _Validation:
    split = data.validation
    if where.is_alone:
        return _Validation({"validation_data": split.batches(rows)})
    if where.has_servers:
        # Keras would have workers take what they get, some rows twice; the chief takes each once.
        return _Validation({}, (LocalValidation(build, split.batches(rows)),))
    batches = where.strategy.distribute_datasets_from_function(
        lambda context: split.batches(rows, where.share(context, by_files=False))
    )
    return _Validation({"validation_data": batches, "validation_steps": split.steps(rows)})


def _optimizer(train: TrainSettings, learning_rate: float, steps: int) -> tf_keras.optimizers.Optimizer:
    rate: Any = learning_rate
    warmup = round(train.warmup_epochs * steps)
    if train.schedule == "cosine":
        rate = tf_keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            max(1, train.epochs * steps - warmup),
            alpha=_FINAL_RATE,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    elif warmup:
        rate = tf_keras.optimizers.schedules.PolynomialDecay(0.0, warmup, rate)
    if train.weight_decay:
        optimizer = tf_keras.optimizers.AdamW(rate, weight_decay=train.weight_decay, global_clipnorm=1.0)
    else:
        optimizer = tf_keras.optimizers.Adam(rate, global_clipnorm=1.0)
    if train.mixed_precision == "float16":
        return tf_keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


def _check_classes(split: Split, label: Label) -> None:
    if label.kind is LabelKind.REGRESSION:
        # Not by the deviation: that of equal values is zero only up to rounding.
        batches = (labels.numpy() for _, labels, *_ in split.batches(_VALIDATION_ROWS))
        first = next(batches)
        if (first == first[0]).all() and all((labels == first[0]).all() for labels in batches):
            raise TrainingError(
                f"split {split.name!r}: all {split.rows} rows have {label.name} = {first[0, 0]:g}, so there is "
                "nothing to learn; check the label's query and data.split"
            )
        return
    seen = [name for name, count in zip(label.classes, split.label_counts, strict=True) if count]
    if len(seen) < 2:
        raise TrainingError(
            f"split {split.name!r}: all {split.rows} rows have {label.name} = {seen[0]!r}, so there is "
            "nothing to learn; check the label's query, its classes and data.split"
        )


def _tuned(hyperparameters: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """The values by dotted name in what the Tuner wrote, of each network to train."""
    given = hyperparameters or {}
    return given.get("ensemble") or [given.get("values", {})]


def _write_record(
    fitted: Fitted,
    data: Data,
    settings: Settings,
    findings: Sequence[Finding],
    members: int,
    again: _Refit | None,
    path: Path,
) -> None:
    record = {
        "monitor": fitted.monitor,
        "chosen_epoch": fitted.chosen + 1,
        "history": [{"epoch": number, **metrics} for number, metrics in enumerate(fitted.history, start=1)],
        "seconds": round(fitted.seconds, 3),
        "parameters": fitted.network.count_params(),
        "replicas": fitted.replicas,
        "members": members,
        "refit": None if again is None else {"rows": again.rows, "seconds": round(again.seconds, 3)},
        "resumed_after_epochs": fitted.resumed,
        "checks": [asdict(finding) for finding in findings],
        "warm_start": None
        if not fitted.carried
        else {"base_model": data.base_model, "layers": [asdict(layer) for layer in fitted.carried]},
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
