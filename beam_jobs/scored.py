"""A micro-batch after the model: rows with their predictions, and what got none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from beam_jobs.rows import DeadLetter
from schemas.features import DType


class Confirm(Protocol):
    """Notes that a step is done with messages; see `beam_jobs.local_pubsub.confirm`."""

    def __call__(self, ids: Iterable[str], step: str) -> None:
        """Notes it; a message that all steps are done with is acknowledged."""


@dataclass(frozen=True)
class ScoredRow:
    """A row with its prediction.

    Attributes:
      message_id: Pub/Sub's id of the message it came with.
      prediction_id: the name of the prediction.
      time: event time.
      inputs: the raw columns.
      output: what is written: key, carried columns, prediction, version, run, time.
      score: probability of a binary label's second class, of several classes the highest one's, or the prediction.
      predicted_class: None where a number is predicted.
    """

    message_id: str
    prediction_id: str
    time: datetime
    inputs: Mapping[str, Any]
    output: Mapping[str, Any]
    score: float
    predicted_class: str | None


@dataclass(frozen=True)
class ScoredDeadLetter:
    """A dead letter and the event time of its message; that of publishing where the message's own cannot be read."""

    letter: DeadLetter
    time: datetime

    @property
    def message_id(self) -> str:
        """Pub/Sub's id of the message."""
        return self.letter.position


@dataclass(frozen=True)
class Scored:
    """A micro-batch, scored by one version.

    Attributes:
      version: the version.
      features: names of the columns it takes.
      columns: type of each column of the curated schema but the label.
      has_probabilities: whether scores are probabilities.
      rows: those with a prediction.
      dead: those without.
    """

    version: int
    features: tuple[str, ...]
    columns: Mapping[str, DType]
    has_probabilities: bool
    rows: tuple[ScoredRow, ...]
    dead: tuple[ScoredDeadLetter, ...]

    @property
    def members(self) -> list[ScoredRow | ScoredDeadLetter]:
        """What became of each message of the batch."""
        return [*self.rows, *self.dead]
