"""From the settings that a search may vary to KerasTuner's hyperparameters, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras_tuner

from models.settings import SearchRange, search_fault, searchable

_OWN = "tuner/"
"""Begins the names under which KerasTuner keeps notes of its own among the values."""


def search_space(search: Mapping[str, SearchRange], objective: str | None = None) -> Any:
    """The `keras_tuner.HyperParameters` to search, by dotted name.

    Args:
      search: values or range of each.
      objective: the metric that compares trials.

    Raises:
      ValueError: if there are none, a name cannot be searched, or a range does not fit its setting.
    """
    if not search:
        raise ValueError("tune.search is empty: name the settings to search, such as train.learning_rate")
    space = keras_tuner.HyperParameters()
    for name, wanted in search.items():
        if fault := search_fault(name, objective):
            raise ValueError(f"tune.search: {fault}")
        _add(space, name, wanted, searchable()[name])
    return space


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """KerasTuner's values of a trial as the settings take them, without its own notes."""
    return {
        name: json.loads(value) if isinstance(value, str) else value
        for name, value in values.items()
        if not name.startswith(_OWN)
    }


def described(space: Any) -> list[dict[str, Any]]:
    """A space in plain words.

    Each entry has `name` and `kind`: `choice` with `values`, or `integer` or `number` with `low`, `high` and `is_log`.
    """
    return [_described(one) for one in space.space]


def _described(one: Any) -> dict[str, Any]:
    if isinstance(one, keras_tuner.engine.hyperparameters.Choice):
        return {"name": one.name, "kind": "choice", "values": list(one.values)}
    kind = "integer" if isinstance(one, keras_tuner.engine.hyperparameters.Int) else "number"
    is_log = one.sampling == "log"
    return {"name": one.name, "kind": kind, "low": one.min_value, "high": one.max_value, "is_log": is_log}


def _add(space: Any, name: str, wanted: SearchRange, number: type[int] | type[float] | None) -> None:
    if choices := wanted.choices():
        space.Choice(name, _carried([_as_number(name, value, number) for value in choices]))
        return
    if number is None:
        raise ValueError(f"tune.search.{name}: min and max are for numbers: give values")
    sampling = "log" if wanted.log else "linear"
    low, high = _as_number(name, wanted.min, number), _as_number(name, wanted.max, number)
    if number is int:
        space.Int(name, low, high, sampling=sampling)
    else:
        space.Float(name, low, high, sampling=sampling)


def _as_number(name: str, value: Any, number: type[int] | type[float] | None) -> Any:
    """The value in the type of the setting: KerasTuner does not choose between 0 and 0.1."""
    if number is None or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if number(value) != value:
        raise ValueError(f"tune.search.{name}: {value} is no whole number")
    return number(value)


def _carried(values: list[Any]) -> list[Any]:
    """Values as KerasTuner takes them: it chooses between numbers or strings, and makes numbers of booleans.

    Whatever else there is travels as JSON.
    """
    if all(type(value) in (int, float) for value in values):
        return values
    return [json.dumps(value) for value in values]
