"""Where a network trains: one table from the name of a strategy to what builds it, and what a task is in a cluster."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from models.cluster import CLUSTER
from models.inputs import Share
from models.settings import TrainSettings

_ROLES = ("chief", "worker", "ps", "evaluator")
_NEEDED = {"multi_worker": {"worker"}, "parameter_server": {"chief", "worker", "ps"}}
_POLL_SECONDS = 1.0

STRATEGY = "HEADWORKS_STRATEGY"
"""Environment variable with a strategy that takes the place of `train.strategy` and `train.cluster`: one machine
rehearses a training that several are to do."""


class ClusterConfigError(ValueError):
    """A strategy that this machine or the description of its cluster cannot give; the message says what to do."""


@dataclass(frozen=True)
class Task:
    """A process's place in a cluster.

    Attributes:
      role: chief, worker, ps or evaluator.
      index: among those of its role.
      cluster: addresses, `host:port`, by role.
    """

    role: str
    index: int
    cluster: Mapping[str, Sequence[str]]

    @property
    def name(self) -> str:
        """For messages, such as `worker 1`."""
        return f"{self.role} {self.index}"

    @property
    def is_chief(self) -> bool:
        """Whether it exports and keeps the record: the chief, or the first worker where there is none."""
        return self.role == "chief" or (
            "chief" not in self.cluster and (self.role, self.index) == ("worker", 0)
        )


@dataclass(frozen=True)
class Distribution:
    """A strategy, and this process's part in it.

    Attributes:
      name: as `train.strategy` has it.
      strategy: TensorFlow's.
      task: this process's place, or None where it is alone.
    """

    name: str
    strategy: tf.distribute.Strategy
    task: Task | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process exports the model."""
        return self.task is None or self.task.is_chief

    @property
    def is_alone(self) -> bool:
        """Whether one device trains, without any strategy."""
        return self.strategy is tf.distribute.get_strategy()

    @property
    def has_servers(self) -> bool:
        """Whether variables live on parameter servers and steps are not synchronous."""
        return self.name == "parameter_server"

    @property
    def replicas(self) -> int:
        """Copies of the network that share a batch; of asynchronous workers each takes batches of its own."""
        return 1 if self.has_servers else int(self.strategy.num_replicas_in_sync)

    def batch_size(self, train: TrainSettings) -> int:
        """Rows of one step of the optimizer."""
        return train.batch_size * (self.replicas if train.batch_size_is == "replica" else 1)

    def learning_rate(self, train: TrainSettings) -> float:
        """The peak learning rate for that batch: linear (Goyal et al. 2017, arXiv:1706.02677) or by its root."""
        return train.learning_rate * _SCALES[train.scale_learning_rate](
            self.batch_size(train) / train.batch_size
        )

    def parts(self, network: tf.Module) -> tuple[str, ...]:
        """Names of the variables that are split over parameter servers."""
        return tuple(
            variable.name.partition("/part_")[0]
            for variable in network.variables
            if variable.name.partition("/part_")[2].startswith("0") and self.has_servers
        )

    def share(self, context: tf.distribute.InputContext, by_files: bool) -> Share:
        """What one input pipeline reads of every batch."""
        count = self.replicas // context.num_input_pipelines
        return Share(self.replicas, context.input_pipeline_id * count, count, by_files)


_SCALES: Mapping[str, Callable[[float], float]] = {
    "none": lambda _: 1.0,
    "linear": lambda ratio: ratio,
    "sqrt": math.sqrt,
}


class Export:
    """The chief's export, as the other tasks see it.

    Machines that write into folders of their own do not see the model. All see the training's folder, though, which
    the chief clears away last.

    Args:
      folder: of the SavedModel.
      kept: the training's folder; None where there is none.
      was_kept: whether that was there already.
    """

    def __init__(self, folder: Path, kept: Path | None = None, was_kept: bool = False) -> None:
        # A SavedModel's graph is written after its variables.
        self._last = folder / "saved_model.pb"
        self._kept = kept
        self._was_kept = was_kept

    def __str__(self) -> str:
        return str(self._last)

    def is_done(self) -> bool:
        """Whether it is there, or the training's folder came and went."""
        if tf.io.gfile.exists(str(self._last)):
            return True
        is_kept = self._kept is not None and self._kept.is_dir()
        self._was_kept = self._was_kept or is_kept
        return self._was_kept and not is_kept


def here(train: TrainSettings) -> TrainSettings:
    """The settings with the strategy that the environment variable `STRATEGY` names, if there is one."""
    strategy: Any = os.environ.get(STRATEGY)
    return replace(train, strategy=strategy, cluster=None) if strategy else train


def build(train: TrainSettings) -> Distribution:
    """What `train.strategy` names; has to come before anything else of TensorFlow where workers are several.

    Raises:
      ClusterConfigError: for devices that are not there, or a cluster that is not described or does not fit.
    """
    return _BUILDERS[train.strategy](train)


def serves(train: TrainSettings) -> Task | None:
    """This process's task, if all it does is to serve a coordinator, as worker or parameter server.

    Raises:
      ClusterConfigError: as `build`.
    """
    if train.strategy != "parameter_server":
        return None
    task = _clustered_task(train.strategy)
    return task if task.role in ("worker", "ps") else None


def serve(task: Task, until: Callable[[], bool]) -> None:
    """Serves the coordinator until `until` says that it is done, which is asked every second."""
    spec = tf.train.ClusterSpec({role: list(addresses) for role, addresses in task.cluster.items()})
    server = tf.distribute.Server(spec, job_name=task.role, task_index=task.index, protocol="grpc")
    while not until():
        time.sleep(_POLL_SECONDS)
    del server


def read_task(text: str) -> Task:
    """Reads a value of TF_CONFIG.

    Raises:
      ClusterConfigError: naming the fault and the value.
    """
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        found = json.loads(text)
        cluster = {
            role: [str(address) for address in addresses] for role, addresses in found["cluster"].items()
        }
        role, index = found["task"]["type"], int(found["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterConfigError(
            f"{CLUSTER} cannot be read ({type(error).__name__}: {error}): {text!r}; it looks like {example}"
        ) from error
    unknown = sorted({*cluster, role} - {*_ROLES})
    if unknown:
        raise ClusterConfigError(
            f"{CLUSTER}: no role {unknown[0]!r}; there are {', '.join(_ROLES)}: {text!r}"
        )
    if not 0 <= index < len(cluster.get(role, ())):
        raise ClusterConfigError(
            f"{CLUSTER}: the task is {role} {index}, but the cluster has {len(cluster.get(role, ()))} of that role: "
            f"{text!r}"
        )
    for address in (address for addresses in cluster.values() for address in addresses):
        if not address.rpartition(":")[2].isdigit():
            raise ClusterConfigError(f"{CLUSTER}: the address {address!r} is no host:port: {text!r}")
    return Task(role, index, cluster)


def wait_for_export(export: Export, seconds: float) -> None:
    """Returns when the chief has exported the model.

    Raises:
      ClusterConfigError: if that takes longer.
    """
    deadline = time.monotonic() + seconds
    while not export.is_done():
        if time.monotonic() > deadline:
            raise ClusterConfigError(
                f"{export}: the chief has not exported the model within {seconds:g} s after this worker had "
                "finished; see the chief's log, and whether both see the same folder"
            )
        time.sleep(_POLL_SECONDS)


def _alone(_: TrainSettings) -> Distribution:
    return Distribution("none", tf.distribute.get_strategy())


def _auto(train: TrainSettings) -> Distribution:
    several = len(tf.config.list_logical_devices("GPU")) > 1
    return _mirrored(train) if several else _alone(train)


def _mirrored(_: TrainSettings) -> Distribution:
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if not gpus and len(devices) < 2:
        raise ClusterConfigError(
            "train.strategy is mirrored, but TensorFlow sees no GPU: see what `headworks doctor` and nvidia-smi "
            "say, or set train.strategy: auto"
        )
    return Distribution("mirrored", tf.distribute.MirroredStrategy([device.name for device in devices]))


def _multi_worker(train: TrainSettings) -> Distribution:
    task = _clustered_task(train.strategy)
    implementation = tf.distribute.experimental.CommunicationImplementation
    # Reduction servers speak NCCL alone.
    chosen = implementation.NCCL if tf.config.list_physical_devices("GPU") else implementation.AUTO
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            cluster_resolver=_InStep(),
            communication_options=tf.distribute.experimental.CommunicationOptions(implementation=chosen),
        )
        return Distribution("multi_worker", strategy, task)
    except (tf.errors.OpError, RuntimeError) as error:
        raise ClusterConfigError(f"{CLUSTER}: {task.name} cannot join its cluster: {error}") from error


class _InStep(tf.distribute.cluster_resolver.TFConfigClusterResolver):
    """The tasks of TF_CONFIG that train in step: others, such as reduction servers, are none of TensorFlow's."""

    def cluster_spec(self) -> tf.train.ClusterSpec:
        cluster = super().cluster_spec().as_dict()
        return tf.train.ClusterSpec({role: cluster[role] for role in ("chief", "worker") if role in cluster})


def _parameter_server(train: TrainSettings) -> Distribution:
    task = _clustered_task(train.strategy)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver(rpc_layer="grpc")
    partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
        train.min_shard_bytes, max_shards=len(task.cluster["ps"])
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
    return Distribution("parameter_server", strategy, task)


def _tpu(train: TrainSettings) -> Distribution:
    name = train.tpu or os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise ClusterConfigError(
            f"train.strategy is tpu, but no TPU answers as {name!r} ({type(error).__name__}: {error}); "
            "name one by train.tpu or TPU_NAME, run on a TPU VM, or set train.strategy: auto"
        ) from error
    return Distribution("tpu", tf.distribute.TPUStrategy(resolver))


def _clustered_task(strategy: str) -> Task:
    """This process's task, checked against what the strategy needs and what the machine can give.

    Raises:
      ClusterConfigError: naming what is missing.
    """
    text = os.environ.get(CLUSTER)
    if not text:
        raise ClusterConfigError(
            f"train.strategy is {strategy}, but {CLUSTER} is not set: set train.cluster for a cluster on this "
            "machine, start the processes with `headworks cluster`, or set it on every machine"
        )
    task = read_task(text)
    missing = sorted(_NEEDED[strategy] - {*task.cluster})
    if missing:
        raise ClusterConfigError(f"{CLUSTER}: {strategy} needs tasks of the role {missing[0]!r}: {text!r}")
    if (task.role, strategy) != ("chief", "parameter_server"):
        _check_port(task)
    return task


def _check_port(task: Task) -> None:
    """TensorFlow ends the process on a port that is taken, or waits for the others for minutes."""
    host, _, port = task.cluster[task.role][task.index].rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host if host in ("localhost", "127.0.0.1") else "", int(port)))
        except OSError as error:
            raise ClusterConfigError(
                f"{CLUSTER}: {task.name} cannot listen on {host}:{port} ({error.strerror}): another process has "
                "that port; end it or choose another"
            ) from error


_BUILDERS: Mapping[str, Callable[[TrainSettings], Distribution]] = {
    "auto": _auto,
    "none": _alone,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "parameter_server": _parameter_server,
    "tpu": _tpu,
}
"""By name, as `train.strategy` has them."""
