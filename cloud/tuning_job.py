"""Trials chosen by Vertex AI Vizier: the service suggests values, the machines of the search try them as ever.

The search stays ours: what is tried, what comes of it and the artifacts of the Tuner are as without the service, whose
part is to choose. `models.tuner` finds `open_study` by its path, on the machine that hands out trials.

What was seen of this is what the client library sends to, and makes of, a server on the loopback that answers as the
documentation of the API says. It has never met the real service.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloud.api_errors import CloudError, Remedies, explained, retrying
from cloud.custom_job import client_of

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import Trial, VizierServiceClient

_ALGORITHMS = {"bayesian": "ALGORITHM_UNSPECIFIED", "random": "RANDOM_SEARCH"}
"""By `tune.method`. Unspecified is the service's Bayesian optimization."""
_REMEDIES = Remedies(
    forbidden="the account of the custom job needs roles/aiplatform.user",
    quota="ask for more, or take fewer workers in tuning",
)

Space = Sequence[Mapping[str, Any]]
Json = dict[str, Any]


class StudyError(CloudError):
    """A study that cannot be made, or answers what it should not."""


class Study:
    """A study of Vizier, as `models.oracles.Suggestions`."""

    def __init__(
        self,
        client: VizierServiceClient,
        name: str,
        objective: str,
        space: Space,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self.name, self._objective, self._sleep = client, name, objective, sleep
        self._space = {entry["name"]: entry for entry in space}

    def suggest(self, trial: str) -> Mapping[str, Any] | None:
        """Values by name for a trial, the same again if asked again; None: there is no more to try."""
        with explained(self.name, StudyError, _REMEDIES):
            found = retrying(self._sleep)(self._suggested, trial)
        if not found:
            return None
        values = {parameter.parameter_id: parameter.value for parameter in found[0].parameters}
        if values.keys() != self._space.keys():
            raise StudyError(
                f"{found[0].name}: suggests {', '.join(sorted(values)) or 'nothing'}, but the search is over "
                f"{', '.join(self._space)}; delete the study to begin anew"
            )
        return {name: _as_searched(entry, values[name]) for name, entry in self._space.items()}

    def complete(self, trial: str, score: float | None) -> None:
        """Tells what a trial came to, if that was not told before; None: it failed."""
        with explained(self.name, StudyError, _REMEDIES):
            for found in retrying(self._sleep)(self._active, trial):
                retrying(self._sleep)(self._client.complete_trial, request=self._completion(found, score))

    def _suggested(self, trial: str) -> Sequence[Trial]:
        # The service gives a client that asks again what it has not completed.
        request = {"parent": self.name, "suggestion_count": 1, "client_id": trial}
        suggested: Sequence[Trial] = self._client.suggest_trials(request=request).result().trials
        return suggested

    def _active(self, trial: str) -> list[Trial]:
        trials = self._client.list_trials(request={"parent": self.name})
        return [
            found
            for found in trials
            if found.client_id == trial and found.state.name in ("ACTIVE", "REQUESTED")
        ]

    def _completion(self, found: Trial, score: float | None) -> Json:
        if score is None:
            return {"name": found.name, "trial_infeasible": True, "infeasible_reason": "the trial failed"}
        return {
            "name": found.name,
            "final_measurement": {"metrics": [{"metric_id": self._objective, "value": score}]},
        }


def open_study(
    parent: str,
    name: str,
    method: str,
    space: Space,
    objective: str,
    is_larger_better: bool,
    connection: Mapping[str, Any] | None = None,
) -> Study:
    """The study of this name, which is made if it is not there: a search that is started again goes on with it.

    Args:
      parent: `projects/PROJECT/locations/REGION`.
      name: of the search.
      method: `tune.method`.
      space: as `models.search_space.described` tells it.
      objective: name of the metric.
      is_larger_better: of the metric.
      connection: what else the client takes, such as `credentials`; by default the machine's own credentials and the
        region's endpoint.

    Raises:
      StudyError: if the service refuses, or cannot search by that method.
    """
    from google.api_core.exceptions import NotFound
    from google.cloud.aiplatform_v1 import Study as Description

    if method not in _ALGORITHMS:
        raise StudyError(f"tune.method: {method}: the service chooses settings only; want bayesian or random")
    described = {
        "displayName": name,
        "studySpec": {
            "algorithm": _ALGORITHMS[method],
            "metrics": [{"metricId": objective, "goal": "MAXIMIZE" if is_larger_better else "MINIMIZE"}],
            "parameters": [parameter_spec(entry) for entry in space],
        },
    }
    with explained(f"{parent}: study {name}", StudyError, _REMEDIES):
        client = client_of("VizierServiceClient", parent.rpartition("/")[2], connection)
        try:
            found = client.lookup_study(request={"parent": parent, "display_name": name})
        except NotFound:
            found = client.create_study(parent=parent, study=Description.from_json(json.dumps(described)))
    return Study(client, found.name, objective, space)


def parameter_spec(entry: Mapping[str, Any]) -> Json:
    """A hyperparameter as Vizier takes it.

    Numbers to choose from are an ordered set to it; all else are categories, told by their JSON.
    """
    spec: Json = {"parameterId": entry["name"]}
    if entry["kind"] == "choice":
        values = entry["values"]
        if all(isinstance(value, str) for value in values):
            return {**spec, "categoricalValueSpec": {"values": list(values)}}
        return {**spec, "discreteValueSpec": {"values": sorted(set(values))}}
    spec["scaleType"] = "UNIT_LOG_SCALE" if entry["is_log"] else "UNIT_LINEAR_SCALE"
    if entry["kind"] == "integer":
        # As text, because JSON has no whole numbers of 64 bits.
        return {**spec, "integerValueSpec": {"minValue": str(entry["low"]), "maxValue": str(entry["high"])}}
    return {**spec, "doubleValueSpec": {"minValue": entry["low"], "maxValue": entry["high"]}}


def _as_searched(entry: Mapping[str, Any], value: Any) -> Any:
    """The service's value as one of the space: it tells every number as a fraction."""
    if entry["kind"] == "choice":
        return next(known for known in entry["values"] if known == value)
    return round(value) if entry["kind"] == "integer" else float(value)
