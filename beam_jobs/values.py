"""Values that a parser made, as a column's type has them: strictly, as training took them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from schemas.features import DType

_INT64 = range(-(2**63), 2**63)


def to_float(value: Any) -> float:
    """A number, NaN and Infinity too; neither a bool nor text that looks like one."""
    if isinstance(value, bool | str | bytes):
        raise TypeError(value)
    return float(value)


def to_int(value: Any) -> int:
    """A whole number of 64 bits; a bool is 0 or 1, as DuckDB has it."""
    if isinstance(value, str | bytes):
        raise TypeError(value)
    return whole(value)


def whole(value: Any) -> int:
    """A number without a fraction that int64 holds."""
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        raise ValueError(value)
    number = int(value)
    if number != value or number not in _INT64:
        raise ValueError(value)
    return number


def to_text(value: Any) -> str:
    """Text that UTF-8 can write."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(value)
    value.encode()  # Half a surrogate pair is no text.
    return value


CONVERTERS: Mapping[DType, Callable[[Any], Any]] = {
    DType.FLOAT: to_float,
    DType.INT: to_int,
    DType.BYTES: to_text,
}
"""By type; each raises one of `NOT_OF_THE_TYPE` where a value is none of it."""

NOT_OF_THE_TYPE = (TypeError, ValueError, OverflowError)
