"""Asks a device model in a process that has what a device has: the client that ships with the model, and LiteRT.

`pipeline/device_process.py` runs a copy of this file as `python -I FILE FOLDER`. The folder holds `question.json`; it
gets `answers.npy` and `report.json`.
"""

import importlib.util
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

MISSING_INT = -(2**63)
TIMED_ROWS = 2000
WARM_UP_ROWS = 50


def main(folder: Path) -> None:
    """Answers the question in the folder, one row after the other."""
    question = json.loads((folder / "question.json").read_text(encoding="utf-8"))
    sys.modules.update(dict.fromkeys(question["forbidden"]))  # None halts an import
    client = _client(Path(question["client"]))
    rows = _rows(Path(question["rows"]), question["columns"])
    before = _resident_bytes()
    started = time.perf_counter()
    model = client.DeviceModel(question["model"], threads=1)
    first = _scores(model.predict(rows[0]))
    cold_start = time.perf_counter() - started
    tensors = [model.tensors(row) for row in rows[:TIMED_ROWS]]
    p50, p99 = np.percentile(_seconds(client, question["model"], tensors), (50, 99), method="higher") * 1000
    memory = _resident_bytes() - before
    answers = np.array([first, *(_scores(model.predict(row)) for row in rows[1:])])
    np.save(folder / "answers.npy", answers)
    report = {
        "cold_start_milliseconds": cold_start * 1000,
        "p50_milliseconds": float(p50),
        "p99_milliseconds": float(p99),
        "memory_bytes": max(0, memory),
    }
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def _scores(prediction: Any) -> list[float]:
    """In the order of the label's classes; of a number that alone."""
    return list(prediction.probability.values()) or [prediction.value]


def _seconds(client: ModuleType, model: str, rows: list[dict[str, Any]]) -> list[float]:
    """What the interpreter takes for each row, from tensors that are in place to scores that can be read.

    What puts them there is another language on another device.
    """
    interpreter = client.Interpreter(model_path=model, num_threads=1)
    signatures = interpreter.get_signature_list()
    if len(signatures) > 1:
        # Of several signatures only a runner can call the right one, which lays out its tensors again every time.
        answer = interpreter.get_signature_runner("infer")
        return [_timed(partial(answer, **row)) for row in [*rows[:WARM_UP_ROWS], *rows]][WARM_UP_ROWS:]
    interpreter.allocate_tensors()
    places = {details["name"]: details["index"] for details in interpreter.get_input_details()}
    details = interpreter.get_signature_runner(next(iter(signatures))).get_input_details()
    seconds = []
    for row in [*rows[:WARM_UP_ROWS], *rows]:
        for name, tensor in row.items():
            interpreter.set_tensor(places[details[name]["name"]], tensor)
        seconds.append(_timed(interpreter.invoke))
    return seconds[WARM_UP_ROWS:]


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _client(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("client", path)
    assert spec is not None, "a path of a Python file"
    assert spec.loader is not None, "a path of a Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules["client"] = module
    spec.loader.exec_module(module)
    return module


def _rows(path: Path, names: list[str]) -> list[dict[str, Any]]:
    """The rows as a caller has them: a missing value is None."""
    with np.load(path, allow_pickle=False) as stored:
        columns = [_values(stored, name) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(stored: Any, name: str) -> list[Any]:
    if f"{name}/ends" in stored.files:
        whole, ends = stored[name].tobytes(), stored[f"{name}/ends"].tolist()
        return [whole[start:end] or None for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return [None if value == MISSING_INT or math.isnan(value) else value for value in stored[name].tolist()]


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
