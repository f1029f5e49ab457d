"""Asks a device model in a process that has what a device has: the client that ships with the model, and LiteRT.

`pipeline/device_process.py` runs a copy of this file as `python -I FILE FOLDER`. The folder holds `question.json`; it
gets `answers.npy` and `report.json`.
"""

import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

MISSING_INT = -(2**63)
TIMED_ROWS = 500
PASSES = 8


def main(folder: Path) -> None:
    """Answers the question in the folder, one row after the other."""
    question = json.loads((folder / "question.json").read_text(encoding="utf-8"))
    sys.modules.update(dict.fromkeys(question["forbidden"]))  # None halts an import
    client = _client(Path(question["client"]))
    rows = _rows(Path(question["rows"]), question["columns"])
    before = _memory("VmRSS")
    started = time.perf_counter()
    model = client.DeviceModel(question["model"], threads=1)
    first = _scores(model.predict(rows[0]))
    cold_start = time.perf_counter() - started
    memory = _memory("VmHWM") - before
    clock = _Clock(client, question["model"], [model.tensors(row) for row in rows[:TIMED_ROWS]])
    answers = [first]
    passes = []
    for part in np.array_split(np.arange(1, len(rows)), PASSES):
        # Between the answers, so that one moment at which the machine is busy spoils one pass.
        passes.append(np.percentile(clock.seconds(), (50, 99), method="higher") * 1000)
        answers += [_scores(model.predict(rows[place])) for place in part]
    np.save(folder / "answers.npy", np.array(answers))
    p50, p99 = np.min(passes, axis=0)
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


class _Clock:
    """What the interpreter takes for a row, from tensors that are in place to scores that can be read.

    What puts them there is another language on another device.
    """

    def __init__(self, client: ModuleType, model: str, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self._interpreter = client.Interpreter(model_path=model, num_threads=1)
        signatures = self._interpreter.get_signature_list()
        # Of several signatures only a runner can call the right one, and it lays out its tensors again every time.
        self._runner = self._interpreter.get_signature_runner("infer") if len(signatures) > 1 else None
        if self._runner is None:
            self._interpreter.allocate_tensors()
            places = {details["name"]: details["index"] for details in self._interpreter.get_input_details()}
            details = self._interpreter.get_signature_runner(next(iter(signatures))).get_input_details()
            self._places = {name: places[found["name"]] for name, found in details.items()}
        self.seconds()

    def seconds(self) -> list[float]:
        """One pass over the rows."""
        return [_timed(self._call(row)) for row in self._rows]

    def _call(self, row: dict[str, Any]) -> Callable[[], Any]:
        if self._runner is not None:
            return partial(self._runner, **row)
        for name, tensor in row.items():
            self._interpreter.set_tensor(self._places[name], tensor)
        return self._interpreter.invoke


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


def _memory(what: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most so far."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
