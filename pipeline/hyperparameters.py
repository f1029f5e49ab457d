"""The outcome of a search for hyperparameters, kept for later runs to use (`tune.best`)."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.settings import search_fault, searchable
from pipeline.config import ConfigError, Project
from schemas.features import LabelKind

FILE = "best_hyperparameters.json"
_TUNERS_FILE = "best_hyperparameters.txt"


def stored(project: Project) -> dict[str, Any] | None:
    """Values by dotted name from the file of `tune.best`; None where a search is enabled or none is named.

    Raises:
      ConfigError: if the file is missing or unreadable, or names something that is no setting.
    """
    tune = project.config.tune
    if tune.best is None or tune.enabled:
        return None
    path = project.existing_file("tune.best", tune.best)
    where = f"tune.best: {path}"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: cannot be read as stored hyperparameters: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must hold values by dotted name, such as train.learning_rate")
    for name, value in values.items():
        _check(project, where, "tune.best", name, (value,))
    return values


def check_search(project: Project) -> None:
    """Refuses a search that is enabled and cannot be made.

    Raises:
      ConfigError: if there is nothing to search, a name is no setting, or a value is out of its range.
    """
    tune = project.config.tune
    if not tune.enabled:
        return
    if not tune.search:
        raise ConfigError(
            "tune.search: missing; tune.enabled needs settings to search, such as "
            f"`train.learning_rate: {{min: 0.0005, max: 0.01, log: true}}` ({project.place('tune')})"
        )
    objective = _objective(project)
    for name, wanted in tune.search.items():
        key = f"tune.search.{name}"
        if fault := search_fault(name, objective):
            raise ConfigError(f"tune.search: {fault} ({project.place(key)})")
        _check(project, "tune.search", key, name, wanted.choices() or (wanted.min, wanted.max))


def _objective(project: Project) -> str | None:
    """The metric that compares trials; None where only the first run will tell."""
    config = project.config
    for named in (config.tune.objective, config.train.monitor):
        if named != "auto":
            return named
    if project.lacks_schema:
        return None
    return "val_auc" if project.feature_set().label.kind is LabelKind.BINARY else "val_loss"


def _check(project: Project, where: str, key: str, name: str, values: Iterable[Any]) -> None:
    """Refuses a name that is no setting of `model` or `train`, and a value that the setting refuses."""
    parts: Mapping[str, Any] = {"model": project.config.model, "train": project.config.train}
    known = [f"{part}.{field.name}" for part in parts for field in dataclasses.fields(parts[part])]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{where}: {name!r} is no setting{hint} ({project.place(key)})")
    part, _, field = name.partition(".")
    is_whole = searchable().get(name) is int
    for value in values:
        given = int(value) if is_whole and isinstance(value, float) and value.is_integer() else value
        try:
            dataclasses.replace(parts[part], **{field: given})
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"{where}: {name}: {value!r}: {fault} ({project.place(key)})") from error


def keep(tuner_artifact: str, folder: Path) -> Path:
    """Writes what the Tuner found to `folder`, atomically, and returns the file.

    Args:
      tuner_artifact: uri of the Tuner's `best_hyperparameters`.
      folder: the pipeline's output folder.
    """
    text = (Path(tuner_artifact) / _TUNERS_FILE).read_text(encoding="utf-8")
    found: Mapping[str, Any] = json.loads(text)["values"]
    # KerasTuner notes for itself under tuner/, and carries a list of widths as JSON.
    values = {name: _as_list(value) for name, value in found.items() if not name.startswith("tuner/")}
    path = folder / FILE
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def _as_list(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value
