"""A wide block sharded over 2 × 2 virtual CPU devices against the same block whole: equality, bytes, step time.

python -m benchmarks.mesh [--width 4096] [--rows 1024] [--steps 5] [--json]
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
      output_error: largest difference of an output, relative to the largest output.
      gradient_error: likewise over all gradients of the first step.
      weight_error: likewise over all weights after the last step of SGD.
      bytes_whole: what the weights take unsharded.
      bytes_by_device: what each device of the mesh holds of them.
      seconds_whole: median of a step on one device.
      seconds_sharded: likewise on the mesh.
    """

    output_error: float
    gradient_error: float
    weight_error: float
    bytes_whole: int
    bytes_by_device: tuple[int, ...]
    seconds_whole: float
    seconds_sharded: float


@click.command()
@click.option("--inputs", default=64)
@click.option("--width", default=4096)
@click.option("--outputs", default=64)
@click.option("--rows", default=1024)
@click.option("--steps", default=5)
@click.option("--json", "as_json", is_flag=True)
def main(inputs: int, width: int, outputs: int, rows: int, steps: int, as_json: bool) -> None:
    """Train both for some steps of SGD on the same rows and compare."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    measured = measure(inputs, width, outputs, rows, steps)
    if as_json:
        click.echo(json.dumps(asdict(measured)))
        return
    for name, value in asdict(measured).items():
        click.echo(f"{name:<16} {value}")


def measure(inputs: int, width: int, outputs: int, rows: int, steps: int) -> Measured:
    """Compares whole and sharded. Takes hold of TensorFlow's devices: once in a process."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.experimental import dtensor

    from models.mesh import BATCH, ShardedBlock, Weights, cpu_mesh, forward, gathered, placed

    mesh = cpu_mesh(2, 2)
    start = Weights.random(inputs, width, outputs)
    random = np.random.default_rng(1)
    given = random.normal(size=(rows, inputs)).astype(np.float32)
    wanted = random.normal(size=(rows, outputs)).astype(np.float32)

    whole = [tf.Variable(value) for value in asdict(start).values()]
    sharded = ShardedBlock(start, mesh)

    # A step that suits the width: beyond it SGD diverges and doubles every rounding.
    rate = 6.4 / width
    one = _run(
        lambda x: forward(x, *whole), whole, tf.constant(given), tf.constant(wanted), steps, rate, np.asarray
    )
    parts, targets = (placed(values, mesh, BATCH, dtensor.UNSHARDED) for values in (given, wanted))
    many = _run(sharded, sharded.weights, parts, targets, steps, rate, gathered)
    return Measured(
        output_error=_difference([one.output], [many.output]),
        gradient_error=_difference(one.gradients, many.gradients),
        weight_error=_difference(one.weights, many.weights),
        bytes_whole=sum(values.nbytes for values in asdict(start).values()),
        bytes_by_device=sharded.bytes_by_device(),
        seconds_whole=one.seconds,
        seconds_sharded=many.seconds,
    )


@dataclass(frozen=True)
class _Trained:
    output: Any
    gradients: list[Any]
    weights: list[Any]
    seconds: float


def _run(
    block: Callable[[Any], Any],
    weights: Any,
    given: Any,
    wanted: Any,
    steps: int,
    rate: float,
    to_host: Callable[..., Any],
) -> _Trained:
    """First output and gradients, the weights after `steps` steps of SGD at a rate, and a step's median time."""
    import tensorflow as tf

    def gradients() -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            output = block(given)
            loss = tf.reduce_mean(tf.square(output - wanted))
        return output, tape.gradient(loss, weights)

    def step() -> Any:
        output, slopes = gradients()
        for weight, slope in zip(weights, slopes, strict=True):
            weight.assign_sub(rate * slope)
        return tf.reduce_sum(output)

    output, slopes = tf.function(gradients)()
    trained, seconds = tf.function(step), []
    for _ in range(steps):
        started = time.perf_counter()
        to_host(trained())
        seconds.append(time.perf_counter() - started)
    return _Trained(
        to_host(output),
        [to_host(slope) for slope in slopes],
        [to_host(weight.read_value()) for weight in weights],
        statistics.median(seconds),
    )


def _difference(left: list[Any], right: list[Any]) -> float:
    import numpy as np

    return max(
        float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in zip(left, right, strict=True)
    )


if __name__ == "__main__":
    main()
