"""A model that can be asked about rows that are not as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from gates.metrics import Floats
from schemas.features import LabelKind

Value = str | int | float | None
"""What a row holds in a column; None is missing."""


class Asked(Protocol):
    """A model, and some rows that it is asked about.

    Answers are `[rows, classes]` probabilities, or `[rows]` predictions.
    """

    @property
    def columns(self) -> pd.DataFrame:
        """The rows as they are."""

    def plainly(self) -> Floats:
        """Answers to the rows as they are."""

    def shuffled(self, column: str, order: npt.NDArray[np.int64]) -> Floats:
        """Answers where row i has the value that row `order[i]` has in the column."""

    def replaced(self, column: str, values: Sequence[Value]) -> Floats:
        """Answers where the column has these values, one a row."""

    def of(self, rows: Sequence[Mapping[str, Value]]) -> Floats:
        """Answers to other rows; columns that a row does not name are missing in it."""


def decisive(kind: LabelKind, answers: Floats) -> Floats:
    """`[rows]`: the score of the positive (or last) class, or the prediction."""
    return answers if kind is LabelKind.REGRESSION else np.asarray(answers[:, -1])


def as_text(values: Mapping[Any, Any]) -> dict[str, str]:
    """A row for a person; missing values are empty."""
    return {str(name): _shown(value) for name, value in values.items()}


def _shown(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, float) and not value.is_integer() else _whole(value)


def _whole(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
