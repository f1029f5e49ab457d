"""What bounds a training: input, compute or memory, from the times of its steps; and what to change."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from models.settings import TrainSettings
from models.trainer import Settings, compiled_network, load_data

_INPUT_SHARE = 0.3
"""Of a step's time, from which on waiting for rows is what to mend first."""
_OVERHEAD_SHARE = 0.5
_MEMORY_SHARE = 0.8
_MORE_ROWS = 1.25
"""Gain in rows/s from which on a doubled batch is worth its price in quality."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Bound(StrEnum):
    """What training would be quicker with more of."""

    INPUT = "input"
    COMPUTE = "compute"
    MEMORY = "memory"


@dataclass(frozen=True)
class Measured:
    """Times per step, seconds, medians; memory in bytes.

    Attributes:
      batch_size: rows of a step.
      steps: that were timed, of each kind.
      steps_per_call: that run inside TensorFlow before Python looks again.
      step_seconds: the input pipeline and the network together, as in training.
      compute_seconds: the network with one batch, repeated from memory.
      input_seconds: the input pipeline alone.
      one_row_seconds: the network with a batch of one row: what a step costs whatever its size.
      doubled_seconds: the network with a batch of twice the rows.
      peak_bytes: largest resident memory of this process.
      limit_bytes: memory that it may use.
      gpu_peak_bytes: of the first GPU, where there is one.
      parameters: of the network.
    """

    batch_size: int
    steps: int
    steps_per_call: int
    step_seconds: float
    compute_seconds: float
    input_seconds: float
    one_row_seconds: float
    doubled_seconds: float
    peak_bytes: int
    limit_bytes: int
    gpu_peak_bytes: int | None
    parameters: int

    @property
    def input_share(self) -> float:
        """Of a step, what goes away when the batch is already there."""
        return max(0.0, 1 - self.compute_seconds / self.step_seconds)

    @property
    def overhead_share(self) -> float:
        """Of the network's step, what it costs with one row already."""
        return min(1.0, self.one_row_seconds / self.compute_seconds)

    @property
    def rows_per_second(self) -> float:
        """In training."""
        return self.batch_size / self.step_seconds

    @property
    def doubling_gain(self) -> float:
        """Rows/s of the network at a doubled batch, over those at the present one."""
        return 2 * self.compute_seconds / self.doubled_seconds


@dataclass(frozen=True)
class Diagnosis:
    """What bounds training.

    Attributes:
      bound: the verdict.
      reasons: sentences with the figures that led to it.
      changes: what to do, the most promising first.
    """

    bound: Bound
    reasons: tuple[str, ...]
    changes: tuple[str, ...]


def profiled(fn_args: Any, hyperparameters: Mapping[str, Any], steps: int) -> tuple[Measured, Diagnosis]:
    """Times a training, in this process and on one device whatever its strategy.

    Args:
      fn_args: `custom_config`, `train_files`, `eval_files` and `transform_graph_path` of the training.
      hyperparameters: what a search found, by dotted name.
      steps: how many to time of each kind, at least.
    """
    settings = Settings.from_config(fn_args.custom_config).with_values(hyperparameters)
    train = replace(settings.train, strategy="none", cluster=None, warm_start=None)
    data = load_data(fn_args, train)
    measured = measure(
        lambda rows: data.train.shuffled_batches(rows, seed=train.seed, buffer_rows=train.shuffle_rows),
        compiled_network(data, replace(settings, train=train), data.train.steps(train.batch_size)),
        train.batch_size,
        steps,
    )
    found = diagnose(measured, train, rows=data.train.rows, is_in_memory=data.train.is_in_memory)
    return measured, found


def measure(
    batches: Callable[[int], tf.data.Dataset], network: tf_keras.Model, batch_size: int, steps: int
) -> Measured:
    """Times steps of a compiled network, which learns on the way.

    Args:
      batches: from a number of rows to an endless data set of what `fit` takes, in batches of so many rows.
      network: compiled; its calls run as many steps as it was compiled for.
      batch_size: rows of a step.
      steps: how many to time, at least; rounded up to whole calls.
    """
    per_call = int(network._steps_per_execution or 1)
    calls = -(-steps // per_call)
    train = network.make_train_function()
    pipeline = batches(batch_size)
    batch = next(iter(batches(2 * batch_size)))
    rows = int(batch[1].shape[0])

    def seconds(of: Callable[[Any], Any], given: tf.data.Dataset) -> float:
        return _median_seconds(of, given, calls) / per_call

    return Measured(
        batch_size=batch_size,
        steps=calls * per_call,
        steps_per_call=per_call,
        step_seconds=seconds(train, pipeline),
        compute_seconds=seconds(train, _repeated(batch, batch_size)),
        input_seconds=seconds(_drain(per_call), pipeline),
        one_row_seconds=seconds(train, _repeated(batch, 1)),
        # A small split has no batch of twice the size: its time is scaled up.
        doubled_seconds=seconds(train, _repeated(batch, rows)) * 2 * batch_size / rows,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        limit_bytes=_memory_limit(),
        gpu_peak_bytes=_gpu_peak(),
        parameters=network.count_params(),
    )


def diagnose(measured: Measured, train: TrainSettings, *, rows: int, is_in_memory: bool) -> Diagnosis:
    """Says in words what the figures mean.

    Args:
      measured: by `measure`.
      train: the settings under which it was measured.
      rows: of the training split.
      is_in_memory: whether the split is held in memory.
    """
    reasons = tuple(_reasons(measured, is_in_memory))
    if measured.peak_bytes >= _MEMORY_SHARE * measured.limit_bytes:
        return Diagnosis(Bound.MEMORY, reasons, tuple(_less_memory(train, is_in_memory)))
    if measured.input_share >= _INPUT_SHARE:
        return Diagnosis(Bound.INPUT, reasons, tuple(_faster_input(measured, rows, is_in_memory)))
    return Diagnosis(Bound.COMPUTE, reasons, tuple(_faster_compute(measured, train)))


def _median_seconds(of: Callable[[Any], Any], given: tf.data.Dataset, calls: int) -> float:
    """Of one call; the first, which may trace and fill buffers, is not counted."""
    iterator = iter(given)
    of(iterator)
    taken = []
    for _ in range(calls):
        started = time.perf_counter()
        # What a call returns is ready only when it is read.
        tf.nest.map_structure(lambda value: value.numpy(), of(iterator))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _repeated(batch: Any, rows: int) -> tf.data.Dataset:
    """The first rows of one batch again and again, at no cost, in tensors of no fixed length like the pipeline's."""

    def unfixed(*tensors: Any) -> Any:
        return tf.nest.map_structure(
            lambda tensor: tf.compat.v1.placeholder_with_default(tensor, [None, *tensor.shape[1:]]), tensors
        )

    first = tf.nest.map_structure(lambda tensor: tensor[:rows], tuple(batch))
    return tf.data.Dataset.from_tensors(first).map(unfixed).cache().repeat()


def _drain(steps: int) -> Callable[[Any], tf.Tensor]:
    @tf.function
    def drain(iterator: Any) -> tf.Tensor:
        for _ in tf.range(steps):
            next(iterator)
        return tf.constant(steps)

    return drain


def _memory_limit() -> int:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.is_file() else ""
    return min(physical, int(told)) if told.isdigit() else physical


def _gpu_peak() -> int | None:
    if not tf.config.list_logical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def _reasons(measured: Measured, is_in_memory: bool) -> Iterator[str]:
    yield (
        f"A step of {measured.batch_size:,} rows takes {_ms(measured.step_seconds)}; with its rows already there "
        f"{_ms(measured.compute_seconds)}, so {measured.input_share:.0%} of the time goes into getting rows."
    )
    yield (
        f"The input pipeline alone needs {_ms(measured.input_seconds)} a batch; "
        f"the split is {'held in memory' if is_in_memory else 'read and transformed anew in every epoch'}."
    )
    yield (
        f"With one row a step takes {_ms(measured.one_row_seconds)}: {measured.overhead_share:.0%} of the network's "
        f"time is a fixed cost of the step. Twice the rows make {measured.doubling_gain:.2f} times the rows/s."
    )
    yield (
        f"Memory: at most {measured.peak_bytes / 1e9:.1f} GB of {measured.limit_bytes / 1e9:.1f} GB"
        + (f", on the GPU {measured.gpu_peak_bytes / 1e9:.2f} GB." if measured.gpu_peak_bytes else ".")
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _less_memory(train: TrainSettings, is_in_memory: bool) -> Iterator[str]:
    if is_in_memory:
        yield "Set train.memory_rows below the rows of the split: it is then read anew in every epoch."
    else:
        yield f"Lower train.shuffle_rows ({train.shuffle_rows:,}): the buffer holds so many rows."
    if not train.recompute:
        yield "Set train.recompute: true, where hidden layers are wide."
    yield f"Lower train.batch_size ({train.batch_size:,}) or model.embedding_size."


def _faster_input(measured: Measured, rows: int, is_in_memory: bool) -> Iterator[str]:
    if not is_in_memory:
        yield f"Raise train.memory_rows to {rows:,} or more, where memory allows: later epochs then read no file."
        yield "Set transform.materialize: true: rows are then transformed once instead of in every epoch."
        yield "Give the split more files than one, and put them on a local disk."
    else:
        yield f"Raise train.batch_size ({measured.batch_size:,}): a batch's cost is then shared by more rows."
    yield "Give the machine more cores: the pipeline runs beside the network."


def _faster_compute(measured: Measured, train: TrainSettings) -> Iterator[str]:
    if measured.overhead_share >= _OVERHEAD_SHARE or measured.doubling_gain >= _MORE_ROWS:
        yield (
            f"Raise train.batch_size to {2 * measured.batch_size:,}: {measured.doubling_gain:.2f} times the rows/s; "
            "look at the quality, and raise train.learning_rate with it."
        )
    if measured.steps_per_call == 1 and measured.overhead_share >= _OVERHEAD_SHARE:
        yield "Compile the network with more steps per execution: each call costs Python's time."
    if measured.gpu_peak_bytes is None:
        if train.jit_compile:
            yield (
                "Measure a step with train.jit_compile: false: on CPUs XLA made that of the shipped flights network "
                "three times as long."
            )
        yield "Narrow model.hidden_units, or train where there is a GPU, or on several machines (train.strategy)."
        return
    if not train.jit_compile:
        yield (
            "Measure a step with train.jit_compile: true: XLA joins small operations, which helps some networks and "
            "slows others; the first step takes longer."
        )
    if train.mixed_precision == "off":
        yield "Measure a step with train.mixed_precision: bfloat16 (or float16 on older GPUs)."
