"""What the triggers ask: a bucket that lets one of two writers win, and Vertex AI's pipeline jobs."""

import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from flask import Flask, jsonify, request

ENVIRONMENT = {
    "project": "my-project",
    "region": "europe-west1",
    "service_account": "runner@my-project.iam.gserviceaccount.com",
    "labels": {"team": "flights"},
}
COMPILED = {
    "displayName": "flights",
    "labels": {"headworks-code": "0123456789abcdef"},
    "pipelineSpec": {
        "schemaVersion": "2.1.0",
        "pipelineInfo": {"name": "flights"},
        "root": {"inputDefinitions": {"parameters": {"span": {"parameterType": "NUMBER_INTEGER"}}}},
    },
    "runtimeConfig": {"gcsOutputDirectory": "gs://my-bucket/runs", "parameterValues": {}},
}


@dataclass
class Pipelines:
    """Vertex AI's pipeline jobs: what was made, and how many of the next requests it fails with which status."""

    made: dict[str, Any] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    address: str = ""

    def app(self):
        app = Flask("pipelines")
        folder = "/v1/projects/my-project/locations/europe-west1/pipelineJobs"

        def create():
            job_id = request.args["pipelineJobId"]
            if self.failures:
                status = self.failures.pop(0)
                return jsonify({"error": {"code": status, "message": "said no"}}), status
            if job_id in self.made:
                return jsonify(
                    {"error": {"code": 409, "message": "is there", "status": "ALREADY_EXISTS"}}
                ), 409
            name = f"{folder.removeprefix('/v1/')}/{job_id}"
            self.made[job_id] = {**request.get_json(), "name": name, "state": "PIPELINE_STATE_PENDING"}
            return jsonify(self.made[job_id])

        app.add_url_rule(folder, view_func=create, methods=["POST"])
        app.add_url_rule(f"{folder}/<job_id>", "get", lambda job_id: jsonify(self.made[job_id]))
        return app


def generation(emulated, bucket, name):
    from gcp_storage_emulator.exceptions import NotFound

    try:
        return emulated.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def with_preconditions(handler, lock):
    """The emulator overlooks `ifGenerationMatch`, by which Cloud Storage lets one of two writers win."""

    def handle(request, response, emulated, *args, **kwargs):
        wanted = request.query.get("ifGenerationMatch")
        with lock:
            if wanted:
                name = request.params.get("object_id") or request.data["meta"]["name"]
                if wanted[0] != generation(emulated, request.params["bucket_name"], name):
                    response.status = HTTPStatus.PRECONDITION_FAILED
                    response.json({"error": {"code": 412, "message": "conditionNotMet"}})
                    return None
            return handler(request, response, emulated, *args, **kwargs)

    return handle


def guard_writes(monkeypatch):
    """Makes gcp-storage-emulator heed preconditions."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects

    lock = threading.RLock()
    writes = (objects.insert, objects.delete)
    guarded = [
        (
            regex,
            {m: with_preconditions(one, lock) if one in writes else one for m, one in handlers.items()},
        )
        for regex, handlers in server.HANDLERS
    ]
    monkeypatch.setattr(server, "HANDLERS", guarded)
