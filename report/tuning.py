"""A search for hyperparameters as the report shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DECADES = 20.0
"""Values whose largest is so many times the smallest are laid out by their logarithm."""


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
      name: its number.
      values: by dotted name of the setting.
      score: None where it failed.
      epochs: that it trained.
      seconds: that it trained.
      cause: of its failure, in its first line.
    """

    name: str
    values: Mapping[str, str | float]
    score: float | None
    epochs: int | None = None
    seconds: float | None = None
    cause: str | None = None


@dataclass(frozen=True)
class Search:
    """A search; `method` chose its trials, in the order of which they stand."""

    objective: str
    is_larger_better: bool
    method: str
    trials: tuple[Trial, ...]

    @property
    def ranked(self) -> tuple[Trial, ...]:
        """The trials that succeeded, best first."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return tuple(sorted(scored, key=lambda trial: trial.score or 0.0, reverse=self.is_larger_better))

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials that have no score."""
        return tuple(trial for trial in self.trials if trial.score is None)

    @property
    def names(self) -> tuple[str, ...]:
        """The settings that were searched."""
        return tuple(dict.fromkeys(name for trial in self.trials for name in trial.values))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """One for each setting, over the trials that succeeded, and the objective last."""
        trials = self.ranked
        settings = [Axis.of(name, [trial.values.get(name, "") for trial in trials]) for name in self.names]
        return (*settings, Axis.of(self.objective, [trial.score or 0.0 for trial in trials]))


@dataclass(frozen=True)
class Axis:
    """Where the trials lie on one of the parallel coordinates.

    Attributes:
      name: of the setting.
      places: of the trials, 0 to 1, or None without a value.
      marks: text at a place, ascending.
    """

    name: str
    places: tuple[float, ...]
    marks: tuple[tuple[float, str], ...]

    @classmethod
    def of(cls, name: str, values: Sequence[str | float]) -> Axis:
        """Lays out numbers by size, or by its logarithm where they span decades, and words side by side."""
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) == len(values) and len(set(numbers)) > 1:
            return cls._of_numbers(name, numbers)
        words = sorted({str(value) for value in values})
        place = {word: (index + 0.5) / len(words) for index, word in enumerate(words)}
        marks = tuple((place[word], word) for word in words)
        return cls(name, tuple(place[str(value)] for value in values), marks)

    @classmethod
    def _of_numbers(cls, name: str, values: Sequence[float]) -> Axis:
        low, high = min(values), max(values)
        by_logarithm = low > 0 and high / low >= _DECADES
        scaled = [math.log(value) if by_logarithm else value for value in values]
        first, last = min(scaled), max(scaled)
        places = tuple((value - first) / (last - first) for value in scaled)
        return cls(name, places, ((0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")))
