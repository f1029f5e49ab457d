"""One row at a time: device models beside the SavedModel that they were made from, in one process.

    python -m benchmarks.tflite output/flights/serving/1 output/flights/device/1 < rows.jsonl

Rows of standard input are JSON objects of raw columns. Times are of the interpreter (of the signature `serving_raw` for
the SavedModel) from tensors that are in place to scores, preprocessing included: p50 and p99 of a pass over the rows,
and of these the median of several passes, in which the models take turns. For each number of threads all models are in
one process of its own, because TensorFlow takes that number once.

Cold start and memory are those of a process of its own for each model, with the threads of TensorFlow's choice and one
of LiteRT's: from opening the model, its library being imported, to the first answer; by how much the resident memory
grew in that time, at its peak; and the peak of the whole process, library included. They are medians too.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

_WARM_UP = 200
_LEARNS = "trainable"
"""Files that learn have several signatures, whose runner takes longer than the model does."""
_COPY = "model"
"""The recommended file once more."""

T = TypeVar("T")
Row = Mapping[str, Any]
Prepare = Callable[[Row], Callable[[], Any]]


@dataclass(frozen=True)
class Start:
    """What a first answer took: seconds, growth of the resident memory, and the process's peak, both in bytes."""

    seconds: float
    grown: float
    peak: float


@dataclass(frozen=True)
class Latency:
    """Microseconds of one answer."""

    p50: float
    p99: float


def main() -> None:
    """Prints a line for each number of threads and model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("saved_model", type=Path)
    parser.add_argument("device_models", type=Path)
    parser.add_argument("--calls", type=int, default=2000, help="of each model in a pass")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    rows = [json.loads(line) for line in sys.stdin]
    models = [arguments.saved_model, *_files(arguments.device_models)]
    print(f"{len(rows)} rows, {arguments.passes} passes of {arguments.calls} calls; {_load()}")
    starts = [_start(model, rows[0], arguments.passes) for model in models]
    print(
        f"{'model':28} {'threads':>7} {'p50 us':>8} {'p99 us':>8} {'bytes':>10} {'cold ms':>8} {'grown MB':>8} "
        f"{'peak MB':>8}"
    )
    for threads in arguments.threads:
        latencies = _alone(_latencies, models, threads, rows, arguments.passes, arguments.calls)
        for model, latency, start in zip(models, latencies, starts, strict=True):
            _tell(model, threads, latency, start)
    print(_load())


def _files(folder: Path) -> list[Path]:
    files = (file for file in folder.glob("*.tflite") if file.stem != _COPY)
    return sorted(
        (file for file in files if not file.stem.startswith(_LEARNS)), key=lambda file: file.stat().st_size
    )


def _alone(function: Callable[..., T], *arguments: Any) -> T:
    """The function's value in a fresh process, which shares no memory and no library with this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _start(model: Path, row: Row, times: int) -> Start:
    starts = [_alone(_first_answer, model, row) for _ in range(times)]
    return Start(
        statistics.median(start.seconds for start in starts),
        statistics.median(start.grown for start in starts),
        statistics.median(start.peak for start in starts),
    )


def _first_answer(model: Path, row: Row) -> Start:
    answer = _importing(model)
    before, started = _memory("VmRSS"), time.perf_counter()
    answer(row)
    seconds, peak = time.perf_counter() - started, _memory("VmHWM")
    return Start(seconds, peak - before, peak)


def _importing(model: Path) -> Callable[[Row], Any]:
    """What opens the model and answers a row with it; only the library is loaded yet."""
    if model.is_dir():
        import tensorflow  # noqa: F401

        return lambda row: _server(model)(row)()
    from tflite.client import DeviceModel

    return lambda row: DeviceModel(model).predict(row)


def _memory(field: str) -> int:
    """Bytes of this process: `VmRSS`, resident now, or `VmHWM`, at the peak.

    The peak that `getrusage` tells is no less than that of the process which started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _latencies(
    models: Sequence[Path], threads: int, rows: Sequence[Row], passes: int, calls: int
) -> list[Latency]:
    """Of each model in its turn."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    opened = [_server(model) if model.is_dir() else _device(model, threads) for model in models]
    found = [[_latency(prepare, rows, calls) for prepare in opened] for _ in range(passes)]
    return [
        Latency(
            statistics.median(one.p50 for one in of_model), statistics.median(one.p99 for one in of_model)
        )
        for of_model in zip(*found, strict=True)
    ]


def _latency(prepare: Prepare, rows: Sequence[Row], calls: int) -> Latency:
    seconds = []
    for number in range(_WARM_UP + calls):
        call = prepare(rows[number % len(rows)])
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    p50, p99 = np.percentile(seconds[_WARM_UP:], (50, 99)) * 1e6
    return Latency(float(p50), float(p99))


def _device(path: Path, threads: int) -> Prepare:
    from ai_edge_litert.interpreter import Interpreter

    from tflite.client import DeviceModel

    client = DeviceModel(path)
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    places = {details["name"]: details["index"] for details in interpreter.get_input_details()}
    signature = next(iter(interpreter.get_signature_list()))
    inputs = interpreter.get_signature_runner(signature).get_input_details()

    def prepare(row: Row) -> Callable[[], Any]:
        for name, tensor in client.tensors(row).items():
            interpreter.set_tensor(places[inputs[name]["name"]], tensor)
        return interpreter.invoke

    return prepare


def _server(folder: Path) -> Prepare:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    types = loaded.signatures["serving_raw"].structured_input_signature[1]
    missing = {tf.float32: float("nan"), tf.int64: -(2**63), tf.string: ""}

    def prepare(row: Row) -> Callable[[], Any]:
        given = {n: row[n] if row.get(n) is not None else missing[s.dtype] for n, s in types.items()}
        tensors = {n: tf.constant([given[n]], s.dtype) for n, s in types.items()}
        # A signature lives no longer than what it was loaded with.
        return partial(loaded.signatures["serving_raw"], **tensors)

    return prepare


def _load() -> str:
    one, five, _ = os.getloadavg()
    return f"load of the last minute {one:.1f}, of five {five:.1f}, on {os.cpu_count()} cores"


def _tell(model: Path, threads: int, latency: Latency, start: Start) -> None:
    is_server = model.is_dir()
    files = [file for file in model.rglob("*") if file.is_file()] if is_server else [model]
    print(
        f"{'SavedModel' if is_server else model.stem:28} {threads:>7} {latency.p50:8.1f} {latency.p99:8.1f} "
        f"{sum(file.stat().st_size for file in files):10,} {start.seconds * 1000:8.1f} {start.grown / 1e6:8.1f} "
        f"{start.peak / 1e6:8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
