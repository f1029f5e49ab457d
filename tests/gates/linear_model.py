"""Models whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gates.asking import Value


class Asked:
    """Rows of a table and a model of two classes, as `gates.asking.Asked` wants them.

    The logit is a formula over the columns, which rises with `size` and does nothing else unless told otherwise.
    """

    def __init__(
        self, columns: pd.DataFrame, logit: Callable[[pd.DataFrame], Any] = lambda rows: rows["size"]
    ) -> None:
        self._columns = columns
        self._logit = logit

    @property
    def columns(self) -> pd.DataFrame:
        return self._columns

    def plainly(self) -> np.ndarray:
        return self._answer(self.columns)

    def shuffled(self, column: str, order: np.ndarray) -> np.ndarray:
        return self._answer(self.columns.assign(**{column: self.columns[column].to_numpy()[order]}))

    def replaced(self, column: str, values: Sequence[Value]) -> np.ndarray:
        return self._answer(self.columns.assign(**{column: list(values)}))

    def of(self, rows: Sequence[Mapping[str, Value]]) -> np.ndarray:
        return self._answer(pd.DataFrame(rows, columns=self.columns.columns))

    def _answer(self, rows: pd.DataFrame) -> np.ndarray:
        positive = 1 / (1 + np.exp(-np.nan_to_num(np.asarray(self._logit(rows), np.float64))))
        return np.stack([1 - positive, positive], axis=1)
