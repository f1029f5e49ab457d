"""A small Vertex AI on the loopback: keeps resources by name and speaks the REST of its metadata and TensorBoard."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


_IDS = {
    "metadataStores": "metadataStoreId",
    "contexts": "contextId",
    "artifacts": "artifactId",
    "experiments": "tensorboardExperimentId",
    "runs": "tensorboardRunId",
    "timeSeries": "tensorboardTimeSeriesId",
}
"""Kinds of resources, as they stand in paths, and the parameter that names a new one."""


class VertexService(ThreadingHTTPServer):
    """Keeps what the client library makes.

    Attributes:
      resources: by name.
      calls: methods that are no plain reading or writing: method, resource and body.
      refusal: code, status and message to answer everything with.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.resources: dict[str, Json] = {}
        self.calls: list[tuple[str, str, Json]] = []
        self.refusal: tuple[int, str, str] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def metadata(self, run: str) -> Json:
        """What was logged for a context."""
        return next(r["metadata"] for name, r in self.resources.items() if name.endswith(f"/contexts/{run}"))


@contextmanager
def serving() -> Iterator[VertexService]:
    server = VertexService()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: VertexService

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _answer(self) -> None:
        place = urlsplit(self.path)
        name = re.sub(r"^/v1(beta1)?/", "", place.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        if self.server.refusal is not None:
            code, status, message = self.server.refusal
            self._send(code, {"error": {"code": code, "status": status, "message": message}})
        else:
            self._send(*self._result(name, parse_qs(place.query), body))

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815

    def _result(self, name: str, query: Json, body: Json) -> tuple[int, Json]:
        resources = self.server.resources
        collection, _, last = name.rpartition("/")
        if ":" in last:
            self.server.calls.append((last.partition(":")[2], f"{collection}/{last.partition(':')[0]}", body))
            return 200, {}
        if self.command == "PATCH":
            resources[name].update({key: value for key, value in body.items() if key != "name"})
            return 200, resources[name]
        if self.command == "POST" and last in _IDS:
            made = f"{name}/{query.get(_IDS[last], [len(resources)])[0]}"
            resources[made] = {**body, "name": made}
            return 200, _done(made) if last == "metadataStores" else resources[made]
        if self.command == "GET" and name in resources:
            return 200, resources[name]
        if self.command == "GET" and last in _IDS:
            return 200, {last: [r for place, r in resources.items() if place.rpartition("/")[0] == name]}
        return 404, {"error": {"code": 404, "status": "NOT_FOUND", "message": f"{name} not found"}}

    def _send(self, code: int, body: Json) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _done(name: str) -> Json:
    """A long-running operation that has ended."""
    kind = "type.googleapis.com/google.cloud.aiplatform.v1.MetadataStore"
    return {"name": f"{name}/operations/1", "done": True, "response": {"@type": kind, "name": name}}
