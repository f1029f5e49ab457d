"""Decode, predict, encode: what every prediction job does with a batch, however it reaches the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
import pyarrow as pa

from beam_jobs.decoding import Decoded, Decoder, check_carried
from beam_jobs.encoding import Encoder, answer_fields
from beam_jobs.pushed import PushedModel, Scores
from beam_jobs.rows import Batch, Outcome, PredictionError


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
      scores: float64 `[rows, classes]`, or `[rows, 1]` predictions; anything where the row failed.
      failures: reason by row, of those that got no answer.
    """

    scores: Scores
    failures: Mapping[int, str] = field(default_factory=dict)


class Model(Protocol):
    """A way to a model."""

    def answer(self, examples: Sequence[bytes]) -> Answer:
        """Scores serialized tf.Examples; a row that cannot be scored takes no other along."""
        ...


class Loaded(Protocol):
    """A model in memory, such as a `pushed.LoadedModel`."""

    pushed: PushedModel

    def predict(self, examples: Sequence[bytes]) -> Scores:
        """Scores of all the rows, or a `PredictionError`."""
        ...


class Direct:
    """A model in this process."""

    def __init__(self, model: Loaded) -> None:
        self._model = model

    def answer(self, examples: Sequence[bytes]) -> Answer:
        """As `Model.answer`: rows on which the model fails are found by halving."""
        try:
            return Answer(self._model.predict(examples))
        except PredictionError as error:
            if len(examples) <= 1:
                return Answer(np.full((len(examples), self._model.pushed.outputs), np.nan), {0: str(error)})
        middle = len(examples) // 2
        first, second = self.answer(examples[:middle]), self.answer(examples[middle:])
        later = {row + middle: reason for row, reason in second.failures.items()}
        return Answer(np.concatenate([first.scores, second.scores]), {**first.failures, **later})


class Scorer:
    """Batches to predictions and dead letters, with one version of one model."""

    def __init__(self, pushed: PushedModel, model: Model, carry: Sequence[str] = ()) -> None:
        """Checks that the columns to carry go with what the model says.

        Raises:
          PredictionError: if one does not.
        """
        check_carried(pushed, carry, [name for name, _ in answer_fields(pushed)])
        self.pushed = pushed
        self._model = model
        self._decoder = Decoder(pushed, carry)
        self._encoder = Encoder(pushed, self._decoder.carried_schema)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the output."""
        return self._encoder.schema

    def score(self, batch: Batch, at: datetime | Sequence[datetime]) -> Outcome:
        """Predictions for the rows that the model takes, dead letters for the others.

        Args:
          batch: the rows.
          at: the time of prediction that the output says: one for all, or one for each row of the batch.
        """
        decoded, dead = self._decoder.decode(batch)
        if decoded is None:
            return Outcome(None, dead)
        answer = self._model.answer(decoded.examples)
        scores = answer.scores
        if answer.failures:
            dead += [
                batch.dead_letter(int(decoded.rows[row]), why) for row, why in sorted(answer.failures.items())
            ]
            decoded, scores = _without(decoded, scores, answer.failures)
        times = at if isinstance(at, datetime) else [at[row] for row in decoded.rows]
        predictions, unusable = self._encoder.encode(decoded, scores, times)
        return Outcome(predictions, [*dead, *unusable])


def _without(decoded: Decoded, scores: Scores, failures: Mapping[int, str]) -> tuple[Decoded, Scores]:
    kept = np.setdiff1d(np.arange(len(decoded)), list(failures))
    examples = [decoded.examples[row] for row in kept]
    rest = Decoded(decoded.batch, decoded.rows[kept], examples, decoded.carried.take(pa.array(kept)))
    return rest, scores[kept]
