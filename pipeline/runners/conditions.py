"""Conditions of tasks: expressions of the Common Expression Language over a task's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.celtypes import BoolType
from celpy.evaluation import CELEvalError


class ConditionError(Exception):
    """A condition that cannot be read, or has no answer."""


def check(condition: str) -> None:
    """Raises ConditionError for text that is no expression."""
    _program(condition)


def holds(condition: str, inputs: Mapping[str, Any]) -> bool:
    """Whether a condition is true.

    Args:
      condition: in terms of `inputs.artifacts` and `inputs.parameter_values`.
      inputs: of the task, as in an ExecutorInput in JSON.

    Raises:
      ConditionError: if it cannot be read, names what is not there, or is neither true nor false.
    """
    program = _program(condition)
    # The service's numbers are doubles, as those of JSON are, and CEL compares none with an integer.
    terms = {
        "artifacts": _doubled(inputs.get("artifacts", {})),
        "parameter_values": _doubled(inputs.get("parameterValues", {})),
    }
    try:
        answer = program.evaluate({"inputs": json_to_cel(terms)})
    except CELEvalError as error:
        there = ", ".join(sorted({*terms["artifacts"], *terms["parameter_values"]}))
        raise ConditionError(f"condition {condition}: {error.args[0]}; inputs are: {there}") from error
    if not isinstance(answer, BoolType):
        raise ConditionError(f"condition {condition}: is neither true nor false but {answer!r}")
    return bool(answer)


def _program(condition: str) -> celpy.Runner:
    environment = celpy.Environment()
    try:
        return environment.program(environment.compile(condition))
    except CELParseError as error:
        raise ConditionError(f"condition {condition}: not an expression of CEL") from error


def _doubled(value: Any) -> Any:
    match value:
        case dict():
            return {key: _doubled(item) for key, item in value.items()}
        case list():
            return [_doubled(item) for item in value]
        case bool() | float() | str() | None:
            return value
    return float(value)
