"""Asks an exported model in a process that knows nothing of this project, as a model server would.

`pipeline/fresh_process.py` runs a copy of this file as `python -I FILE FOLDER`. The folder holds `question.json` and
`question.npz`; it gets `doing` (the signature that is asked just now), `answers.npz` and `report.json`.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP_CALLS = 20
FEWEST_CALLS = 5
BATCH_CALLS = 5


def main(folder: Path) -> None:
    """Answers the question in the folder."""
    question = json.loads((folder / "question.json").read_text(encoding="utf-8"))
    forbid(question["forbidden"])
    import tensorflow as tf

    model = Path(question["model"])
    started = time.perf_counter()
    try:
        loaded = tf.saved_model.load(str(model))
    except Exception as error:  # noqa: BLE001  # whatever loading raises is what is to be reported
        broken = broken_file(model)
        _write(folder, {"load_error": f"{broken}: {_first_line(error)}" if broken else _first_line(error)})
        return
    report: dict[str, Any] = {"load_seconds": time.perf_counter() - started, "signatures": {}}
    arrays: dict[str, Any] = {}
    with np.load(folder / "question.npz", allow_pickle=False) as stored:
        inputs = {
            name: {key: _values(stored, f"{name}/{key}") for key in keys}
            for name, keys in question["inputs"].items()
        }
    for name, values in inputs.items():
        if name not in loaded.signatures:
            continue
        (folder / "doing").write_text(name, encoding="utf-8")
        try:
            outputs, figures = _ask(loaded.signatures[name], values, question["calls"], question["seconds"])
        except (TypeError, ValueError, tf.errors.OpError) as error:
            report["signatures"][name] = {"error": _first_line(error)}
            continue
        report["signatures"][name] = figures
        arrays.update({f"{name}/{key}": value for key, value in outputs.items()})
    np.savez(folder / "answers.npz", **arrays)
    _write(folder, report)


def forbid(packages: Sequence[str]) -> None:
    """Lets no import of these packages succeed, wherever they are installed.

    Raises:
      RuntimeError: if one is loaded already.
    """
    loaded = [name for name in packages if sys.modules.get(name) is not None]
    if loaded:
        raise RuntimeError(f"Python itself has loaded {', '.join(loaded)} at its start")
    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type]  # None halts an import


def broken_file(model: Path) -> str:
    """Which file of a SavedModel is missing or damaged, with what is wrong, or nothing."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    graph, values = model / "saved_model.pb", model / "variables" / "variables"
    if not graph.is_file():
        return f"{graph} is missing"
    try:
        saved_model_pb2.SavedModel.FromString(graph.read_bytes())
    except DecodeError:
        return f"{graph} is damaged"
    if not values.with_suffix(".index").is_file():
        return f"{values.with_suffix('.index')} is missing"
    files = sorted(str(path) for path in values.parent.glob("variables.data-*"))
    if not files:
        return f"{values}.data-00000-of-00001 is missing"
    try:
        reader = tf.train.load_checkpoint(str(values))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError):
        return f"{', '.join(files)} is cut short or damaged"
    return ""


def _ask(
    signature: Callable[..., Mapping[str, Any]], values: Mapping[str, Any], calls: int, seconds: float
) -> tuple[dict[str, Any], dict[str, float]]:
    """The answers to all rows, and how long they took."""
    import tensorflow as tf

    everything = {key: tf.constant(column) for key, column in values.items()}
    outputs = {key: _plain(tensor.numpy()) for key, tensor in signature(**everything).items()}
    count = len(next(iter(values.values())))
    started = time.perf_counter()
    for _ in range(BATCH_CALLS):
        signature(**everything)
    rate = BATCH_CALLS * count / (time.perf_counter() - started)
    singles = [
        {key: tf.constant(column[row : row + 1]) for key, column in values.items()}
        for row in range(min(count, calls))
    ]
    times = _times(signature, singles, calls, seconds)
    p50, p99 = (float(np.percentile(times, q, method="higher")) * 1000 for q in (50, 99))
    return outputs, {
        "single_p50_milliseconds": p50,
        "single_p99_milliseconds": p99,
        "batch_rows_per_second": rate,
    }


def _times(
    signature: Callable[..., Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], calls: int, seconds: float
) -> list[float]:
    """Seconds of single calls after some for warming up; fewer than `calls` where they fill `seconds`."""
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    for number, row in enumerate(cycle(rows)):
        started = time.perf_counter()
        signature(**row)
        ended = time.perf_counter()
        if number >= WARM_UP_CALLS or ended > deadline:
            times.append(ended - started)
        if len(times) >= calls or (ended > deadline and len(times) >= FEWEST_CALLS):
            break
    return times


def _values(stored: Any, key: str) -> Any:
    """A column of the question; text comes as its bytes and where each value ends."""
    if f"{key}/ends" not in stored.files:
        return stored[key]
    whole, ends = stored[key].tobytes(), stored[f"{key}/ends"].tolist()
    return np.array(
        [whole[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)], dtype=object
    )


def _plain(values: Any) -> Any:
    return values.astype(bytes) if values.dtype == object else values


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:500] if lines else 'no message'}"


def _write(folder: Path, report: Mapping[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
