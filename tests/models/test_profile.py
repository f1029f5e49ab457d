"""A slow pipeline is called bound by input, a big network bound by compute, whatever the machine."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.profile import Bound, Diagnosis, Measured, diagnose, measure
from models.settings import TrainSettings

FIGURES = Measured(
    batch_size=512,
    steps=64,
    steps_per_call=32,
    step_seconds=0.004,
    compute_seconds=0.0038,
    input_seconds=0.001,
    one_row_seconds=0.0005,
    doubled_seconds=0.0076,
    peak_bytes=2 * 10**9,
    limit_bytes=16 * 10**9,
    gpu_peak_bytes=None,
    parameters=10_000,
)


def diagnosis(measured: Measured, *, is_in_memory: bool = True, **train: Any) -> Diagnosis:
    return diagnose(measured, TrainSettings(**train), rows=7_000_000, is_in_memory=is_in_memory)


def measured(width: int, wait_seconds: float = 0.0) -> Measured:
    network = tf_keras.Sequential([tf_keras.layers.Dense(width, "relu"), tf_keras.layers.Dense(1)])
    network.compile("sgd", "mse", steps_per_execution=2)

    def waited(values: Any) -> Any:
        time.sleep(wait_seconds)
        return values

    def batches(rows: int) -> tf.data.Dataset:
        x, y = np.ones((rows, 256), np.float32), np.ones((rows, 1), np.float32)
        endless = tf.data.Dataset.from_tensors((x, y)).repeat()
        if wait_seconds:
            endless = endless.map(
                lambda x, y: (tf.ensure_shape(tf.numpy_function(waited, [x], tf.float32), x.shape), y)
            )
        return endless

    return measure(batches, network, batch_size=256, steps=4)


def test_a_pipeline_that_sleeps_is_the_bound() -> None:
    found = measured(width=4, wait_seconds=0.05)
    assert found.input_seconds > 0.04
    assert found.step_seconds > found.compute_seconds
    assert diagnosis(found).bound is Bound.INPUT


def test_a_big_network_takes_its_time_itself_whatever_else_the_machine_does() -> None:
    found = measured(width=8192)
    assert found.steps == 4
    assert found.parameters > 2_000_000
    assert found.compute_seconds > 5 * found.input_seconds
    assert diagnosis(FIGURES).bound is Bound.COMPUTE


@pytest.mark.parametrize(
    ("is_in_memory", "advice"), [(False, "train.memory_rows to 7,000,000"), (True, "train.batch_size (512)")]
)
def test_what_to_change_about_slow_input_depends_on_where_the_rows_are(
    is_in_memory: bool, advice: str
) -> None:
    found = diagnosis(replace(FIGURES, compute_seconds=0.001), is_in_memory=is_in_memory)
    assert found.bound is Bound.INPUT
    assert advice in found.changes[0]
    assert "75% of the time goes into getting rows" in found.reasons[0]


def test_full_memory_comes_first() -> None:
    found = diagnosis(replace(FIGURES, peak_bytes=15 * 10**9, compute_seconds=0.001))
    assert found.bound is Bound.MEMORY
    assert "train.memory_rows" in found.changes[0]


def test_steps_that_cost_the_same_with_one_row_ask_for_larger_batches() -> None:
    assert "train.batch_size" not in diagnosis(FIGURES).changes[0]
    small = diagnosis(replace(FIGURES, one_row_seconds=0.0035, doubled_seconds=0.004))
    assert small.bound is Bound.COMPUTE
    assert "train.batch_size to 1,024: 1.90 times" in small.changes[0]


def test_xla_is_advised_on_gpus_alone_and_only_to_be_measured() -> None:
    on_cpu, on_gpu = diagnosis(FIGURES), diagnosis(replace(FIGURES, gpu_peak_bytes=10**9))
    assert not any("jit_compile" in change for change in on_cpu.changes)
    assert any(change.startswith("Measure a step with train.jit_compile: true") for change in on_gpu.changes)
    assert "train.jit_compile: false" in diagnosis(FIGURES, jit_compile=True).changes[0]


def test_nothing_is_advised_that_is_already_set() -> None:
    words = " ".join(diagnosis(replace(FIGURES, gpu_peak_bytes=10**9)).changes)
    assert "jit_compile" in words
    assert "mixed_precision" in words
    done = diagnosis(replace(FIGURES, gpu_peak_bytes=10**9), jit_compile=True, mixed_precision="bfloat16")
    assert done.changes == ()
