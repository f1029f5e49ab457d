"""What a configuration asks of the gates, held against the schema before anything runs; loads no heavy library."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from gates.settings import (
    BehaviourTest,
    Direction,
    FairnessSettings,
    MinimumFunctionality,
    NamedRow,
)
from schemas.features import DType, Label, LabelKind

Value = float | int | str | None


def check_behaviour(settings: Sequence[BehaviourTest], label: Label, columns: Mapping[str, DType]) -> None:
    """Checks `model_gate.behaviour` before anything runs.

    Args:
      settings: the tests.
      label: what is predicted.
      columns: type of every column of the schema.

    Raises:
      ValueError: naming the test, for a name that is there twice, a column that the data lacks or that is the label, a
        value of another type than its column, or an expectation that the label cannot meet.
    """
    names = [test.name for test in settings]
    for test in settings:
        place = f"model_gate.behaviour: {test.name}"
        if names.count(test.name) > 1:
            raise ValueError(f"{place}: there are two tests of this name")
        if isinstance(test, MinimumFunctionality):
            for row in test.rows:
                _check_row(row, place, label, columns)
            continue
        _check_column(test.column, place, label, columns)
        if isinstance(test, Direction):
            value = test.add if test.set is None else test.set
            if test.add is not None and columns[test.column] is DType.BYTES:
                raise ValueError(f"{place}: column {test.column!r} is text: use set, add needs a number")
            _check_value(test.column, value, place, columns)


def _check_column(name: str, place: str, label: Label, columns: Collection[str]) -> None:
    if name == label.name:
        raise ValueError(f"{place}: {name!r} is the label; the model does not read it")
    if name not in columns:
        close = difflib.get_close_matches(name, columns, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{place}: the schema has no column {name!r}{hint}")


def _check_value(name: str, value: Value, place: str, columns: Mapping[str, DType]) -> None:
    fits: Callable[[Any], bool] = {
        DType.BYTES: lambda given: isinstance(given, str),
        DType.FLOAT: lambda given: not isinstance(given, str),
        DType.INT: lambda given: not isinstance(given, str) and float(given).is_integer(),
    }[columns[name]]
    if value is not None and not fits(value):
        raise ValueError(f"{place}: {value!r} does not fit column {name!r}, which is {columns[name]}")


def _check_row(row: NamedRow, place: str, label: Label, columns: Mapping[str, DType]) -> None:
    for name, value in row.values.items():
        _check_column(name, place, label, columns)
        _check_value(name, value, place, columns)
    if row.expect is not None and row.expect not in label.classes:
        known = ", ".join(label.classes) or "none: it is a number, use min and max"
        raise ValueError(f"{place}: expect is {row.expect!r}; the classes of {label.name!r} are {known}")
    if label.kind is LabelKind.MULTICLASS and (row.min is not None or row.max is not None):
        raise ValueError(f"{place}: min and max need a positive class; with several classes use expect")


def check_fairness(settings: Sequence[FairnessSettings], label: Label, columns: Sequence[str]) -> None:
    """Checks `model_gate.fairness` before anything runs.

    Raises:
      ValueError: for a label that has no two classes, a column that the data lacks, or two entries that are the same.
    """
    seen = set()
    for one in settings:
        if label.kind is not LabelKind.BINARY:
            raise ValueError(
                f"model_gate.fairness compares rates of two classes; the label {label.name!r} is {label.kind}: "
                "take fairness out and look at the slices"
            )
        if one.column == label.name:
            raise ValueError(
                f"model_gate.fairness: {one.column!r} is the label; groups are rows of a feature or a key"
            )
        if one.column not in columns:
            raise ValueError(f"model_gate.fairness: the schema has no column {one.column!r}")
        if (one.column, one.metric) in seen:
            raise ValueError(f"model_gate.fairness: {one.metric} by {one.column} is there twice")
        seen.add((one.column, one.metric))
