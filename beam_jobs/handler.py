"""The core as a model handler of Beam's RunInference, which shares a model among the threads of a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler

from beam_jobs.core import Direct, Model, Scorer
from beam_jobs.pushed import PushedModel
from beam_jobs.rows import Batch, DeadLetter, Outcome


class ScoringHandler(ModelHandler[Batch | DeadLetter, Outcome, Scorer]):
    """Scores batches; what is a dead letter already passes through.

    Elements are batches already, so Beam is to make none of its own.
    """

    def __init__(
        self,
        pushed: PushedModel,
        carry: Sequence[str] = (),
        *,
        reach: Callable[[PushedModel], Model] | None = None,
        model_copies: int | None = None,
        predicted_at: datetime | None = None,
    ) -> None:
        """Says which model, and how to reach it.

        Args:
          pushed: the version.
          carry: input columns that go to the output as they are, beside the key.
          reach: makes the way to the model, in the worker; None loads it there.
          model_copies: models that the processes of one worker machine share, at the price of passing rows between
            processes; None: each process has its own.
          predicted_at: the time that the output says; None: that of each batch.
        """
        super().__init__()
        self._pushed = pushed
        self._carry = tuple(carry)
        self._reach = reach or _direct
        self._copies = model_copies
        self._predicted_at = predicted_at

    def load_model(self) -> Scorer:
        """Loads the model, or connects to it, and warms it up."""
        return Scorer(self._pushed, self._reach(self._pushed), self._carry)

    def run_inference(
        self,
        batch: Sequence[Batch | DeadLetter],
        model: Scorer,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[Outcome]:
        """One outcome an element."""
        for rows in batch:
            if isinstance(rows, DeadLetter):
                yield Outcome(None, [rows])
            else:
                yield model.score(rows, self._predicted_at or datetime.now(UTC))

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """No batches of batches."""
        return {"min_batch_size": 1, "max_batch_size": 1}

    def share_model_across_processes(self) -> bool:
        """Whether the number of copies is bounded."""
        return self._copies is not None

    def model_copies(self) -> int:
        """The bound on copies in one worker machine."""
        return self._copies or 1

    def get_num_bytes(self, batch: Sequence[Batch | DeadLetter]) -> int:
        """For Beam's metrics, roughly; by default Beam pickles all rows to find out."""
        return sum(_size(rows) for rows in batch)

    def get_metrics_namespace(self) -> str:
        """Under which Beam counts inferences, their latency and size."""
        return "headworks"


def _size(rows: Batch | DeadLetter) -> int:
    if isinstance(rows, DeadLetter):
        return len(rows.raw)
    if rows.raw is not None:
        return sum(map(len, rows.raw))
    return sum(column.nbytes for column in rows.columns.values() if isinstance(column, pa.Array))


def _direct(pushed: PushedModel) -> Model:
    return Direct(pushed.load())
