"""One row at a time: device models beside the SavedModel that they were made from, in one process.

    python -m benchmarks.tflite output/flights/serving/1 output/flights/device/1 < rows.jsonl

Rows of standard input are JSON objects of raw columns. Times are of the interpreter (of the signature `serving_raw` for
the SavedModel) from tensors that are in place to scores, preprocessing included. Cold start and memory are those of a
process of its own for each: from opening the model to its first answer, and what the process grew by.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

_WARM_UP = 200
_COLD = """
import json, resource, sys, time
import numpy as np
model, kind, row = sys.argv[1], sys.argv[2], json.load(sys.stdin)
if kind == "device":
    sys.path.insert(0, sys.argv[3])
    import client
else:
    import tensorflow as tf
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, started = peak(), time.perf_counter()
if kind == "device":
    loaded = client.DeviceModel(model)
    loaded.predict(row)
else:
    loaded = tf.saved_model.load(model)
    answer = loaded.signatures["serving_raw"]
    types = answer.structured_input_signature[1]
    missing = {tf.float32: float("nan"), tf.int64: -2**63, tf.string: ""}
    given = {n: row[n] if row.get(n) is not None else missing[s.dtype] for n, s in types.items()}
    answer(**{n: tf.constant([given[n]], s.dtype) for n, s in types.items()})
print(json.dumps({"seconds": time.perf_counter() - started, "bytes": peak() - before}))
"""


def main() -> None:
    """Prints a line for each model and number of threads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("saved_model", type=Path)
    parser.add_argument("device_models", type=Path)
    parser.add_argument("--calls", type=int, default=5000)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in sys.stdin]
    files = sorted(arguments.device_models.glob("*.tflite"), key=lambda file: file.stat().st_size)
    print(f"{'model':32} {'threads':>7} {'p50 us':>8} {'p99 us':>8} {'bytes':>10} {'cold ms':>8} {'MB':>6}")
    size = sum(file.stat().st_size for file in arguments.saved_model.rglob("*") if file.is_file())
    cold = _cold(arguments.saved_model, "server", rows[0])
    _tell("SavedModel", 2, _times(_server(arguments.saved_model), rows, arguments.calls), size, cold)
    for file in files:
        cold = _cold(file, "device", rows[0])
        for threads in (1, 2):
            times = _times(_device(file, threads), rows, arguments.calls)
            _tell(file.stem, threads, times, file.stat().st_size, cold)


def _times(
    prepare: Callable[[Mapping[str, Any]], Callable[[], Any]], rows: Sequence[Mapping[str, Any]], calls: int
) -> list[float]:
    seconds = []
    for number in range(_WARM_UP + calls):
        call = prepare(rows[number % len(rows)])
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds[_WARM_UP:]


def _device(path: Path, threads: int) -> Callable[[Mapping[str, Any]], Callable[[], Any]]:
    from ai_edge_litert.interpreter import Interpreter

    from tflite.client import DeviceModel

    client = DeviceModel(path)
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    places = {details["name"]: details["index"] for details in interpreter.get_input_details()}
    signature = next(iter(interpreter.get_signature_list()))
    inputs = interpreter.get_signature_runner(signature).get_input_details()

    def prepare(row: Mapping[str, Any]) -> Callable[[], Any]:
        for name, tensor in client.tensors(row).items():
            interpreter.set_tensor(places[inputs[name]["name"]], tensor)
        return interpreter.invoke

    return prepare


def _server(folder: Path) -> Callable[[Mapping[str, Any]], Callable[[], Any]]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    types = loaded.signatures["serving_raw"].structured_input_signature[1]
    missing = {tf.float32: float("nan"), tf.int64: -(2**63), tf.string: ""}

    def prepare(row: Mapping[str, Any]) -> Callable[[], Any]:
        given = {n: row[n] if row.get(n) is not None else missing[s.dtype] for n, s in types.items()}
        tensors = {n: tf.constant([given[n]], s.dtype) for n, s in types.items()}
        # A signature lives no longer than what it was loaded with.
        return partial(loaded.signatures["serving_raw"], **tensors)

    return prepare


def _cold(model: Path, kind: str, row: Mapping[str, Any]) -> dict[str, float]:
    found = subprocess.run(
        [sys.executable, "-c", _COLD, str(model), kind, str(Path(__file__).parents[1] / "tflite")],
        input=json.dumps(row),
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(found.stdout))


def _tell(name: str, threads: int, seconds: Sequence[float], size: int, cold: Mapping[str, float]) -> None:
    p50, p99 = np.percentile(seconds, (50, 99)) * 1e6
    print(
        f"{name:32} {threads:>7} {p50:8.1f} {p99:8.1f} {size:10,} {cold['seconds'] * 1000:8.1f} "
        f"{cold['bytes'] / 1e6:6.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
