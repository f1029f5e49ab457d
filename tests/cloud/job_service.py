"""Vertex AI's custom jobs and its Vizier on the loopback: the server of the batch jobs, with what those do not need."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any

from tests.cloud import batch_service
from tests.cloud.batch_service import Answer, BatchService, Call, Handler, Json

_STUDIES = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+)/studies(:lookup)?")
_TRIALS = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+/studies/\d+)/trials(:suggest|/\d+:complete)?")
_RESPONSE = "type.googleapis.com/google.cloud.aiplatform.v1.SuggestTrialsResponse"


class _Handler(Handler):
    server: JobService

    def answer(self, body: Json) -> Answer:
        path = self.place.path
        if path.endswith(":cancel"):
            job = self.server.jobs[path.removeprefix("/v1/").removesuffix(":cancel")]
            job["state"] = "JOB_STATE_CANCELLING"
            return 200, {}
        if place := _STUDIES.fullmatch(path):
            return self._studies(place[1], place[2], body)
        if place := _TRIALS.fullmatch(path):
            return self._trials(place[1], place[2], body)
        return super().answer(body)

    def _studies(self, parent: str, method: str | None, body: Json) -> Answer:
        studies = self.server.studies
        if method:
            found = [study for study in studies.values() if study["displayName"] == body["displayName"]]
            return (200, found[0]) if found else self.missing()
        name = f"{parent}/studies/{len(studies) + 1}"
        studies[name] = {**body, "name": name, "state": "ACTIVE"}
        return 200, studies[name]

    def _trials(self, study: str, method: str | None, body: Json) -> Answer:
        trials = self.server.trials
        if method is None:
            return 200, {"trials": list(trials.values())}
        if method == ":suggest":
            return 200, self._suggestion(study, body["clientId"])
        trial = trials[self.place.path.removeprefix("/v1/").removesuffix(":complete")]
        trial |= {**body, "state": "INFEASIBLE" if body.get("trialInfeasible") else "SUCCEEDED"}
        return 200, trial

    def _suggestion(self, study: str, client: str) -> Json:
        """An operation that has ended: the client's active trial, or a new one."""
        trials = self.server.trials
        mine = [t for t in trials.values() if (t["clientId"], t["state"]) == (client, "ACTIVE")]
        if not mine and self.server.suggestions:
            name = f"{study}/trials/{len(trials) + 1}"
            parameters = [{"parameterId": k, "value": v} for k, v in self.server.suggestions.pop(0).items()]
            trials[name] = {"name": name, "state": "ACTIVE", "clientId": client, "parameters": parameters}
            mine = [trials[name]]
        return {
            "name": f"{study}/operations/1",
            "done": True,
            "response": {"@type": _RESPONSE, "trials": mine, "studyState": "ACTIVE"},
        }


class JobService(BatchService):
    """Keeps custom jobs as the batch jobs, and the studies of Vizier.

    Attributes:
      studies: by name.
      trials: by name, oldest first.
      suggestions: values by parameter of the next trials.
    """

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.studies: dict[str, Json] = {}
        self.trials: dict[str, Json] = {}
        self.suggestions: list[dict[str, Any]] = []

    @property
    def asked(self) -> list[Call]:
        """What was asked for by POST."""
        return [call for call in self.calls if call.method == "POST"]


def serving() -> AbstractContextManager[JobService]:
    return batch_service.serving(JobService)
