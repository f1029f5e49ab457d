"""Vertex AI's pipeline jobs and schedules, a bucket's permissions and an image registry on the loopback."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
Answer = tuple[int, Json]

_COLLECTION = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+)/(pipelineJobs|schedules)")
_RESOURCE = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+/(?:pipelineJobs|schedules)/[^/:]+)(?::(\w+))?")
_BUCKET = re.compile(r"/storage/v1/b/([^/]+)(/iam/testPermissions)?")
_REGISTRY = re.compile(r"/v2/(.+)/(?:manifests|blobs)/(.+)")
_LABEL = re.compile(r'labels\.([\w-]+)="([^"]*)"')
_NAME = re.compile(r'display_name="([^"]*)"')


@dataclass(frozen=True)
class Call:
    """A request in the order of its arrival."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Json
    headers: dict[str, str]


@dataclass
class Refusal:
    """An answer to the next requests whose method and path match; `happens`: what was asked is done nevertheless."""

    pattern: str
    code: int
    status: str
    message: str
    times: int = 1
    reason: str = ""
    happens: bool = False


class PipelineService(ThreadingHTTPServer):
    """Keeps what it is told.

    Attributes:
      jobs: by name, oldest first; a test changes how they stand.
      schedules: by name.
      permissions: held on the bucket; None: there is no bucket.
      bucket: what is known of it.
      blobs: of the registry, by digest.
      calls: all that came.
      refusals: taken from the front.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, Json] = {}
        self.schedules: dict[str, Json] = {}
        self.permissions: list[str] | None = [
            "storage.objects.create",
            "storage.objects.get",
            "storage.objects.list",
        ]
        self.bucket: Json = {"location": "EUROPE-WEST1", "locationType": "region"}
        self.blobs: dict[str, bytes] = {}
        self.calls: list[Call] = []
        self.refusals: list[Refusal] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}"

    def refuse(self, pattern: str, code: int, status: str, message: str, **more: Any) -> None:
        self.refusals.append(Refusal(pattern, code, status, message, **more))

    def called(self, method: str, ending: str) -> list[Call]:
        return [call for call in self.calls if call.method == method and call.path.endswith(ending)]

    def push(self, labels: Json | None, platforms: tuple[str, ...] = ()) -> str:
        """Stores an image, for several platforms if they are named, and returns its name by digest."""
        config = self._store({"architecture": "amd64", "config": {"Labels": labels}})
        manifest = self._store({"schemaVersion": 2, "config": {"digest": config}, "layers": []})
        if platforms:
            entries = [
                {"digest": manifest, "platform": {"os": "linux", "architecture": platform}}
                for platform in platforms
            ]
            manifest = self._store({"schemaVersion": 2, "manifests": entries})
        return f"{self.host}/my-project/images/headworks@{manifest}"

    def _store(self, content: Json) -> str:
        encoded = json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(encoded).hexdigest()}"
        self.blobs[digest] = encoded
        return digest


@contextmanager
def serving() -> Iterator[PipelineService]:
    server = PipelineService()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: PipelineService
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        place = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = Call(
            self.command,
            place.path,
            parse_qs(place.query),
            json.loads(content or b"{}"),
            dict(self.headers.items()),
        )
        self.server.calls.append(call)
        refusal = self._refusal(f"{call.method} {call.path}")
        if refusal is None or refusal.happens:
            code, answer = self._answer(call)
        if refusal is not None:
            code, answer = refusal.code, _error(refusal)
        self._send(code, answer)

    do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _refusal(self, request: str) -> Refusal | None:
        for refusal in self.server.refusals:
            if refusal.times and re.search(refusal.pattern, request):
                refusal.times -= 1
                return refusal
        return None

    def _answer(self, call: Call) -> tuple[int, Json | bytes]:
        if found := _COLLECTION.fullmatch(call.path):
            known = self.server.jobs if found[2] == "pipelineJobs" else self.server.schedules
            if call.method == "GET":
                return 200, {found[2]: _listed(list(known.values()), call)}
            return _make(known, found[1], found[2], call)
        if found := _RESOURCE.fullmatch(call.path):
            return self._resource(found[1], found[2], call)
        if found := _BUCKET.fullmatch(call.path):
            if self.server.permissions is None:
                return _missing(f"bucket {found[1]}")
            if not found[2]:
                return 200, {"name": found[1], **self.server.bucket}
            asked = call.query["permissions"]
            return 200, {"permissions": [name for name in asked if name in self.server.permissions]}
        if found := _REGISTRY.fullmatch(call.path):
            return (200, self.server.blobs[found[2]]) if found[2] in self.server.blobs else (404, {})
        return _missing(call.path)

    def _resource(self, name: str, verb: str | None, call: Call) -> Answer:
        known = self.server.jobs if "/pipelineJobs/" in name else self.server.schedules
        if name not in known:
            return _missing(name)
        if call.method == "DELETE":
            del known[name]
            return 200, {"name": f"{name}/operations/1", "done": True, "response": {"@type": _EMPTY}}
        if call.method == "PATCH":
            paths = call.query["updateMask"][0].split(",")
            known[name].update({path: call.body[path] for path in paths})
        elif verb is not None:
            known[name]["state"] = {"pause": "PAUSED", "resume": "ACTIVE"}[verb]
            return 200, {}
        return 200, known[name]

    def _send(self, code: int, body: Json | bytes) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


_EMPTY = "type.googleapis.com/google.protobuf.Empty"


def _make(known: dict[str, Json], parent: str, collection: str, call: Call) -> Answer:
    number = len(known) + 1
    name = f"{parent}/{collection}/{call.query.get('pipelineJobId', [str(number)])[0]}"
    if name in known:
        return 409, _error(Refusal("", 409, "ALREADY_EXISTS", f"{name} already exists"))
    state = "PIPELINE_STATE_PENDING" if collection == "pipelineJobs" else "ACTIVE"
    known[name] = {**call.body, "name": name, "state": state, "createTime": f"2026-01-01T00:00:{number:02}Z"}
    return 200, known[name]


def _listed(known: list[Json], call: Call) -> list[Json]:
    condition = call.query.get("filter", [""])[0]
    labels, names = dict(_LABEL.findall(condition)), _NAME.findall(condition)
    found = [
        one
        for one in known
        if labels.items() <= one.get("labels", {}).items() and (not names or one["displayName"] in names)
    ]
    return found[::-1][: int(call.query.get("pageSize", ["100"])[0])]


def _missing(what: str) -> Answer:
    return 404, _error(Refusal("", 404, "NOT_FOUND", f"{what} is not found"))


def _error(refusal: Refusal) -> Json:
    details = []
    if refusal.reason:
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        details = [{"@type": kind, "reason": refusal.reason, "domain": "googleapis.com", "metadata": {}}]
    facts = {"code": refusal.code, "status": refusal.status, "message": refusal.message, "details": details}
    return {"error": facts}
