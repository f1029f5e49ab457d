"""Vertex AI's models and endpoints on the loopback, with the rules of the API that matter to who calls it."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import unquote

from tests.cloud import batch_service
from tests.cloud.batch_service import Answer, BatchService, Handler, Json

_PLACE = r"/v1/(projects/[^/]+/locations/[^/]+)"
_MODEL = re.compile(rf"{_PLACE}/models/([^/@:]+)(?:@([^/:]+))?(?:/(evaluations(?:/\d+/slices)?))?(?::(\w+))?")
_ENDPOINT = re.compile(rf"{_PLACE}/endpoints/([^/:]+)(?::(\w+))?")
_OPERATION = re.compile(r"/(?:v1|ui)/(.+/operations/\d+)")
_TYPE = "type.googleapis.com/google.cloud.aiplatform.v1."


class _Handler(Handler):
    server: ModelService

    do_PATCH = Handler._handle  # noqa: N815

    def answer(self, body: Json) -> Answer:
        path = unquote(self.place.path)
        if match := _OPERATION.fullmatch(path):
            return 200, self._look(match[1])
        if match := re.fullmatch(rf"{_PLACE}/models:upload", path):
            return self._upload_model(match[1], body)
        if match := _MODEL.fullmatch(path):
            return self._model(match, body)
        if match := re.fullmatch(rf"{_PLACE}/endpoints", path):
            return self._create(match[1], body)
        if match := _ENDPOINT.fullmatch(path):
            return self._endpoint(match, body)
        return super().answer(body)

    def _upload_model(self, place: str, body: Json) -> Answer:
        models = self.server.models
        name = body.get("parentModel") or f"{place}/models/{body['modelId']}"
        if "parentModel" in body and name not in models:
            return self.missing()
        if "modelId" in body and name in models:
            return _refusal(409, "ALREADY_EXISTS", f"{name} already exists")
        versions = models.setdefault(name, [])
        number = str(len(versions) + 1)
        first = [] if versions else ["default"]
        versions.append({**body["model"], "name": name, "versionId": number, "versionAliases": first})
        return self._operation(place, "UploadModelResponse", {"model": name, "modelVersionId": number})

    def _model(self, match: re.Match[str], body: Json) -> Answer:
        place, model, version, part, method = match.groups()
        name = f"{place}/models/{model}"
        versions = self.server.models.get(name)
        if versions is None:
            return self.missing()
        if method == "listVersions":
            return 200, {"models": list(reversed(versions))}
        if method == "mergeVersionAliases":
            for one in versions:
                others = [alias for alias in one["versionAliases"] if alias not in body["versionAliases"]]
                one["versionAliases"] = others + (
                    body["versionAliases"] if one["versionId"] == version else []
                )
            return 200, versions[int(str(version)) - 1]
        evaluations = self.server.evaluations.setdefault(f"{name}@{version}", [])
        if part == "evaluations" and method == "import":
            imported = {**body["modelEvaluation"], "name": f"{name}/evaluations/{len(evaluations) + 1}"}
            evaluations.append(imported)
            return 200, imported
        if part == "evaluations":
            return 200, {"modelEvaluations": evaluations}
        return 200, {"importedModelEvaluationSlices": [f"{name}/{part}/1"]}

    def _create(self, place: str, body: Json) -> Answer:
        name = f"{place}/endpoints/{self.query['endpointId']}"
        self.server.endpoints[name] = {**body, "name": name, "etag": "0", "trafficSplit": {}}
        self.server.endpoints[name]["deployedModels"] = []
        return self._operation(place, "Endpoint", {"name": name})

    def _endpoint(self, match: re.Match[str], body: Json) -> Answer:
        place, endpoint, method = match.groups()
        found = self.server.endpoints.get(f"{place}/endpoints/{endpoint}")
        if found is None:
            return self.missing()
        if method is None and self.command == "GET":
            return 200, found
        deployed = found["deployedModels"]
        split = {**found, **body}["trafficSplit"]
        if method == "deployModel":
            one = {**body["deployedModel"], "id": str(1001 + len(self.server.deployed))}
            one["modelVersionId"] = one["model"].partition("@")[2]
            split = {one["id"] if id_ == "0" else id_: percent for id_, percent in split.items()}
            deployed = [*deployed, one]
        elif method == "undeployModel":
            deployed = [one for one in deployed if one["id"] != body["deployedModelId"]]
            split = split if deployed else {}
        elif body.get("etag") != found["etag"]:
            return _refusal(409, "ABORTED", "etag mismatch")
        if (split and sum(split.values()) != 100) or split.keys() - {one["id"] for one in deployed}:
            return _refusal(400, "INVALID_ARGUMENT", f"traffic_split {split}: want 100 of what is deployed")
        self.server.deployed |= {one["id"]: one for one in deployed}
        changed = {"trafficSplit": split, "deployedModels": deployed, "etag": str(int(found["etag"]) + 1)}
        found |= changed
        if method is None:
            return 200, found
        kind = f"{method[0].upper()}{method[1:]}Response"
        answer = {"deployedModel": deployed[-1]} if method == "deployModel" else {}
        return self._operation(f"{place}/endpoints/{endpoint}", kind, answer)

    def _operation(self, place: str, kind: str, response: Json) -> Answer:
        operations = self.server.operations
        name = f"{place}/operations/{len(operations) + 1}"
        done = {"name": name, "done": True, "response": {"@type": f"{_TYPE}{kind}", **response}}
        if self.server.failure:
            done = {"name": name, "done": True, "error": self.server.failure}
        operations[name] = [{"name": name}] * self.server.looks + [done]
        return 200, self._look(name)

    def _look(self, name: str) -> Json:
        states = self.server.operations[name]
        state: Json = states.pop(0) if len(states) > 1 else states[0]
        return state


class ModelService(BatchService):
    """Keeps models and endpoints as well as batch prediction jobs.

    Attributes:
      models: versions by the name of the model.
      evaluations: by the name of the version.
      endpoints: by name.
      deployed: all that was ever deployed, by id.
      operations: what is said of each, one look after the other; the last for ever.
      looks: at an operation before it has ended.
      failure: that operations end with.
    """

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    def clear(self) -> None:
        """Forgets all that was asked: a server serves the tests of a file, one after the other."""
        self.calls.clear()
        self.refusals = {"POST": [], "GET": [], "PATCH": [], "storage": []}
        self.models: dict[str, list[Json]] = {}
        self.evaluations: dict[str, list[Json]] = {}
        self.endpoints: dict[str, Json] = {}
        self.deployed: dict[str, Json] = {}
        self.operations: dict[str, list[Json]] = {}
        self.looks = 0
        self.failure: Json | None = None

    @property
    def changes(self) -> list[tuple[str, Json]]:
        """What was sent to change something: the end of the path, and the body."""
        sent = [call for call in self.calls if call.method != "GET"]
        return [(unquote(call.path.partition("?")[0]).rpartition("/")[2], call.body) for call in sent]


def _refusal(code: int, status: str, message: str) -> Answer:
    return code, {"error": {"code": code, "status": status, "message": message}}


def serving() -> AbstractContextManager[Any]:
    return batch_service.serving(ModelService)
