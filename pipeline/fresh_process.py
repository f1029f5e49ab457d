"""Asks an exported model in a fresh process without the project's code, and survives whatever that process does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gates.serving import Answered, Fallen, Served
from pipeline import serving_script
from schemas.probe import pack

ROOMS = (
    "schemas",
    "transforms",
    "models",
    "ingest",
    "gates",
    "report",
    "pipeline",
    "beam_jobs",
    "tflite",
    "serving",
    "monitoring",
    "cloud",
    "cli",
)
"""The project's packages, none of which an exported model may need."""

KERAS = ("keras", "tf_keras")
"""A model server has no Keras either. Without it TensorFlow loads in half the time."""

CALLS = 200
"""Calls with a single row that the latency of a signature is taken from."""

_SECONDS_OF_CALLS = 5.0
_SECONDS_BESIDES_LOADING = 180.0
"""To start Python, load TensorFlow and ask all signatures, on a machine that does something else too."""

_OURS = ("PYTHON", "TF_", "HEADWORKS_")

Inputs = Mapping[str, Mapping[str, npt.NDArray[Any]]]


def ask(model: Path, inputs: Inputs, max_load_seconds: float) -> Served | Fallen:
    """Loads a SavedModel and asks its signatures.

    Args:
      model: its folder.
      inputs: values `[rows]` by name of the input, by name of the signature; text as bytes (object).
      max_load_seconds: how long loading may take; the process gets some time more for all else.
    """
    with tempfile.TemporaryDirectory(prefix="serving-check-") as name:
        folder = Path(name)
        _write_question(folder, model, inputs)
        fault = run_alone(Path(serving_script.__file__), folder, max_load_seconds + _SECONDS_BESIDES_LOADING)
        if not fault:
            return _read_answers(folder)
        doing = folder / "doing"
        return Fallen(doing.read_text(encoding="utf-8") if doing.exists() else "", fault)


def _write_question(folder: Path, model: Path, inputs: Inputs) -> None:
    question = {
        "model": str(model.resolve()),
        "forbidden": [*ROOMS, *KERAS],
        "inputs": {signature: list(columns) for signature, columns in inputs.items()},
        "calls": CALLS,
        "seconds": _SECONDS_OF_CALLS,
    }
    (folder / "question.json").write_text(json.dumps(question), encoding="utf-8")
    arrays: dict[str, npt.NDArray[Any]] = {}
    for signature, columns in inputs.items():
        arrays |= packed(columns, f"{signature}/")
    np.savez(folder / "question.npz", allow_pickle=False, **arrays)


def run_alone(script: Path, folder: Path, timeout_seconds: float) -> str:
    """Runs a copy of a script as `python -I FILE FOLDER` to its end, with nothing of this project in reach.

    Returns:
      What happened where it did not end well, with the last line it said; else nothing.
    """
    copy = shutil.copyfile(script, folder / "ask.py")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
    # The answers are compared with those of a processor, and the GPU may be in use.
    environment |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with (folder / "log").open("wb") as log:
        try:
            code = subprocess.run(
                [sys.executable, "-I", str(copy), str(folder)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=timeout_seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return _last_said(folder, f"it did not end within {timeout_seconds:g} s and was killed")
    if code < 0:
        return _last_said(folder, f"its process was killed by {signal.Signals(-code).name}")
    return _last_said(folder, f"its process ended with exit code {code}") if code else ""


def _last_said(folder: Path, cause: str) -> str:
    words = (folder / "log").read_text(encoding="utf-8", errors="replace").strip()
    last = words.splitlines()[-1][:500] if words else "nothing"
    return f"{cause}; it said last: {last}"


def packed(columns: Mapping[str, npt.NDArray[Any]], prefix: str = "") -> dict[str, npt.NDArray[Any]]:
    """The arrays in which columns travel in an `.npz` file: text as all its bytes and where each value ends."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for key, values in columns.items():
        place = f"{prefix}{key}"
        if values.dtype == object:
            arrays[place], arrays[f"{place}/ends"] = pack(values.tolist())
        else:
            arrays[place] = values
    return arrays


def _read_answers(folder: Path) -> Served | Fallen:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if error := report.get("load_error"):
        return Fallen("", error)
    with np.load(folder / "answers.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    return Served(
        report["load_seconds"],
        {
            name: Answered(
                {
                    key.removeprefix(f"{name}/"): value
                    for key, value in arrays.items()
                    if key.startswith(f"{name}/")
                },
                **figures,
            )
            for name, figures in report["signatures"].items()
        },
    )
