"""Runs logged to Vertex AI Experiments: parameters, metrics and, where there is a TensorBoard, the curves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud.api_errors import Remedies, explained
from report.comparison import ComparedRun

if TYPE_CHECKING:
    from google.cloud import aiplatform

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_STATES: Mapping[str, str] = {"succeeded": "COMPLETE", "failed": "FAILED", "interrupted": "CANCELLED"}
"""State of a run here to that of an experiment run; any other is RUNNING."""
_REMEDIES = Remedies(
    forbidden="the account needs roles/aiplatform.user in the project",
    not_found="look at the project, the location and the TensorBoard",
    quota="log fewer runs at a time, or again later",
)


class ExperimentError(Exception):
    """Vertex AI Experiments did not take the runs."""


@dataclass(frozen=True)
class Destination:
    """One experiment.

    Attributes:
      project: id or number.
      location: such as `europe-west1`.
      experiment: its name; made if it is not there.
      tensorboard: resource name of a Vertex AI TensorBoard, which stores curves; without one they are left out.
    """

    project: str
    location: str
    experiment: str
    tensorboard: str | None = None

    def __str__(self) -> str:
        return f"{self.project}/{self.location}/{self.experiment}"

    @classmethod
    def parse(cls, text: str, tensorboard: str | None = None) -> Destination:
        """Reads `PROJECT/LOCATION/EXPERIMENT`.

        Raises:
          ExperimentError: if it is not of that form.
        """
        parts = text.split("/")
        if len(parts) != 3 or not all(parts):
            raise ExperimentError(f"{text}: write it as PROJECT/LOCATION/EXPERIMENT")
        project, location, experiment = parts
        if not _ID.fullmatch(experiment):
            raise ExperimentError(
                f"{text}: the experiment's name may hold small letters, digits and -, and must not begin with -"
            )
        return cls(project, location, experiment, tensorboard)


def log(
    runs: Sequence[ComparedRun], destination: Destination, connection: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Logs runs, each under its id in small letters; one that is there already gets its values anew.

    Args:
      runs: to log.
      destination: where.
      connection: what else `aiplatform.init` takes, such as `credentials` or `api_endpoint`; by default the
        machine's own credentials and the location's endpoint.

    Yields:
      One line a run, when it is logged.

    Raises:
      ExperimentError: if there are no credentials, no permission or no connection; naming the destination.
    """
    from google.cloud import aiplatform

    with explained(str(destination), ExperimentError, _REMEDIES):
        aiplatform.init(project=destination.project, location=destination.location, **(connection or {}))
        experiment = aiplatform.Experiment.get_or_create(destination.experiment)
        for run in runs:
            yield _log_one(run, experiment, destination)


def _log_one(run: ComparedRun, experiment: aiplatform.Experiment, destination: Destination) -> str:
    from google.cloud import aiplatform

    name = run.run_id.lower()
    logged = aiplatform.ExperimentRun.get(name, experiment=experiment)
    is_new = logged is None
    if logged is None:
        logged = aiplatform.ExperimentRun.create(
            name, experiment=experiment, tensorboard=destination.tensorboard
        )
    logged.log_params(parameters(run))
    logged.log_metrics(metrics(run))
    if is_new and destination.tensorboard and run.training is not None:
        for epoch in run.training.epochs:
            logged.log_time_series_metrics(dict(epoch.metrics), step=epoch.number)
    state = aiplatform.gapic.Execution.State[_STATES.get(run.state, "RUNNING")]
    logged.update_state(state)
    return f"Vertex AI Experiments: {run.run_id} {'logged' if is_new else 'logged again'} to {destination}"


def parameters(run: ComparedRun) -> dict[str, bool | float | str]:
    """The settings that are set, with the data and the pipeline, as Vertex AI takes them: a list becomes JSON."""
    facts = {"pipeline": run.pipeline, "data_fingerprint": run.fingerprint}
    given = {**facts, **(run.parameters or {})}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in given.items()
        if value is not None
    }


def metrics(run: ComparedRun) -> dict[str, float]:
    """Metrics on the test split, those of the model gate with the ends of their intervals, and the training's cost."""
    found: dict[str, float | None] = dict(run.metrics)
    for estimate in run.estimates:
        found[estimate.metric] = estimate.value
        found[f"{estimate.metric}_low"] = estimate.low
        found[f"{estimate.metric}_high"] = estimate.high
    if run.training is not None:
        found["training_seconds"] = run.training.seconds
        found["weights"] = run.training.parameters
    found["model_bytes"] = run.model_bytes
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
