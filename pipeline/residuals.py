"""Residuals of a finished run's exported model, on rows that its run made. Runs in a child that has TensorFlow."""

from __future__ import annotations

from pathlib import Path

from gates.evidence import Residuals
from gates.residuals import Answered, residuals
from gates.settings import ModelGateSettings
from pipeline import explanations
from pipeline.example_rows import SavedModel, column_types, read_rows, records
from pipeline.finished_run import FinishedRun, FinishedRunError, find
from pipeline.runners.records import load_run

_EARLIER = {"test": "validation", "validation": "train", "train": None}
"""What a split is compared with."""
_LOOKED_AT = 1000
"""Rows in which the type of the time is looked for."""


def measure(root: str, run_id: str, split: str) -> Residuals:
    """Has the run's model answer, writes what follows beside the run's record, and returns it.

    Args:
      root: output folder of the pipeline.
      run_id: of the run.
      split: to look at: test, validation or train.

    Raises:
      FinishedRunError: if the run trained no model, or something of it is gone.
      ModelError: if the model cannot be loaded or asked.
    """
    folder = Path(root)
    run = find(folder, load_run(folder, run_id))
    model = SavedModel(run.model, run.features.label.kind)
    earlier = _EARLIER[split]
    found = residuals(
        run.features.label,
        _answered(run, model, split),
        None if earlier is None else _answered(run, model, earlier),
        [feature.name for feature in run.features],
        run.time,
    )
    explanations.write(folder, run_id, found)
    return found


def _answered(run: FinishedRun, model: SavedModel, split: str) -> Answered:
    folder = run.examples / f"Split-{split}"
    taken = records(folder, ModelGateSettings().most_rows).taken
    if not taken:
        raise FinishedRunError(f"{folder}: there are no rows; look at another split")
    types = column_types(taken[:_LOOKED_AT])
    also = {run.time: types[run.time]} if run.time in types else {}
    rows = read_rows(taken, run.features, also=also)
    return Answered(split, rows.columns, rows.truth, model(taken))
