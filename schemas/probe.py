"""What a trained network said of some rows while it was still in memory: the measure of its export."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FILE = "probe.npz"
MOST_ROWS = 512
"""Rows in a probe of a split that has as many."""

_COLUMN = "column:"


@dataclass(frozen=True)
class Probe:
    """Rows of the validation split with what training made of them. First come the rows that lack a value.

    Attributes:
      examples: the raw rows, serialized; none where training read rows that were transformed before.
      columns: what the network was given: `[rows, width]` by name of the model column.
      scores: what it said, float64: `[rows, classes]` in the order of the label's classes, or, for regression,
        predictions `[rows, 1]`.
    """

    examples: tuple[bytes, ...]
    columns: Mapping[str, npt.NDArray[Any]]
    scores: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def first(self, rows: int) -> Probe:
        """The probe cut to its first rows."""
        columns = {name: values[:rows] for name, values in self.columns.items()}
        return Probe(self.examples[:rows], columns, self.scores[:rows])

    def write(self, folder: Path) -> None:
        """Writes `probe.npz`, which holds no pickled object."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{FILE}.partial"
        packed, ends = pack(self.examples)
        columns = {f"{_COLUMN}{name}": values for name, values in self.columns.items()}
        with partial.open("wb") as file:
            np.savez(
                file, allow_pickle=False, examples=packed, examples_ends=ends, scores=self.scores, **columns
            )
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / FILE)

    @classmethod
    def read(cls, folder: Path) -> Probe:
        """Reads what `write` wrote.

        Raises:
          FileNotFoundError: if there is none.
        """
        with np.load(folder / FILE, allow_pickle=False) as stored:
            names = [name for name in stored.files if name.startswith(_COLUMN)]
            columns = {name.removeprefix(_COLUMN): stored[name] for name in names}
            return cls(unpack(stored["examples"], stored["examples_ends"]), columns, stored["scores"])


def pack(values: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Byte strings as one array and where each ends: NumPy's own would cut zeros at their end."""
    ends = np.cumsum([len(value) for value in values], dtype=np.int64)
    return np.frombuffer(b"".join(values), np.uint8), ends


def unpack(packed: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> tuple[bytes, ...]:
    """What `pack` was given."""
    whole = packed.tobytes()
    return tuple(whole[start:end] for start, end in pairwise([0, *ends.tolist()]))
