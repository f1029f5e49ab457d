"""Scores to rows of the output: what the row was called, what the model says of it, and which model says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa

from beam_jobs.decoding import Decoded
from beam_jobs.pushed import PushedModel, Scores
from beam_jobs.rows import DeadLetter

_SOURCE = (("source", pa.string()), ("position", pa.string()))
_FACTS = (
    ("model_version", pa.int64()),
    ("run_id", pa.string()),
    ("predicted_at", pa.timestamp("us", tz="UTC")),
)


class Encoder:
    """Makes the output's rows: the carried columns, where there is no key the row's place, and the model's answer.

    A model for classes says `prediction`, the class, and `probability_CLASS` for each; one for numbers `prediction`. A
    binary label's second class is predicted from the manifest's threshold on, of several classes the likeliest.
    """

    def __init__(self, model: PushedModel, carried: pa.Schema) -> None:
        self._model = model
        self._classes = model.features.label.classes
        self._probabilities = probability_columns(self._classes)
        place = () if model.key else _SOURCE
        self.schema = pa.schema([*carried, *place, *answer_fields(model)])

    def encode(
        self, decoded: Decoded, scores: Scores, at: datetime | Sequence[datetime]
    ) -> tuple[pa.RecordBatch, list[DeadLetter]]:
        """Output rows, and the rows whose answer is no number.

        Args:
          decoded: the rows.
          scores: `[rows, classes]`, or `[rows, 1]` predictions.
          at: when they were scored: one time for all, or one for each.
        """
        finite = np.isfinite(scores).all(axis=1)
        dead = [
            decoded.batch.dead_letter(int(decoded.rows[row]), f"the model answers {scores[row].tolist()}")
            for row in np.flatnonzero(~finite)
        ]
        times = [at] * len(decoded) if isinstance(at, datetime) else at
        batch = decoded.batch
        place = (
            ()
            if self._model.key
            else (
                pa.array([batch.source] * len(decoded)),
                pa.array([str(batch.positions[row]) for row in decoded.rows]),
            )
        )
        rows = pa.RecordBatch.from_arrays(
            [
                *decoded.carried.columns,
                *place,
                *self._answers(scores),
                pa.array(np.full(len(decoded), self._model.version)),
                pa.array([self._model.run_id] * len(decoded)),
                pa.array(times, pa.timestamp("us", tz="UTC")),
            ],
            schema=self.schema,
        )
        return (rows if finite.all() else rows.filter(pa.array(finite))), dead

    def _answers(self, scores: Scores) -> list[pa.Array]:
        if not self._classes:
            return [pa.array(scores[:, 0])]
        best = scores.argmax(axis=1)
        if self._model.threshold is not None and len(self._classes) == 2:
            best = (scores[:, 1] >= self._model.threshold).astype(np.int64)
        chosen = pa.array(self._classes).take(pa.array(best))
        return [chosen, *(pa.array(column) for column in scores.T)]


def answer_fields(model: PushedModel) -> tuple[tuple[str, pa.DataType], ...]:
    """The columns of the output that hold what the model says, and which model it is."""
    classes = model.features.label.classes
    prediction = pa.string() if classes else pa.float64()
    probabilities = [(name, pa.float64()) for name in probability_columns(classes)]
    return (("prediction", prediction), *probabilities, *_FACTS)


def probability_columns(classes: Sequence[str]) -> tuple[str, ...]:
    """Name of each class's column: letters, digits and underscores, as BigQuery has it, and no name twice."""
    names = [f"probability_{re.sub('[^A-Za-z0-9_]+', '_', name)}" for name in classes]
    taken = {name for name in names if names.count(name) > 1}
    return tuple(f"{name}_{number}" if name in taken else name for number, name in enumerate(names))
