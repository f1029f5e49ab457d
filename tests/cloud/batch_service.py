"""Vertex AI's jobs and Cloud Storage on the loopback, as far as such a job needs them."""

from __future__ import annotations

import base64
import gc
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

Json = dict[str, Any]
Answer = tuple[int, Json]

_JOBS = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+)/(batchPredictionJobs|customJobs)")
_FILTER = re.compile(r'labels\.(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Call:
    """A request in the order of its arrival."""

    method: str
    path: str
    body: Json


class BatchService(ThreadingHTTPServer):
    """Keeps jobs and objects.

    Attributes:
      jobs: by name, oldest first.
      states: what a job's further looks add to it, one after the other; the last stays.
      objects: content by `bucket/name`.
      calls: what was asked of the jobs.
      refusals: code, status and message to answer the next requests with, those on jobs or, under "storage", objects.
    """

    daemon_threads = True
    handler: type[BaseHTTPRequestHandler]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)
        self.jobs: dict[str, Json] = {}
        self.states: list[Json] = []
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.calls: list[Call] = []
        self.refusals: dict[str, list[tuple[int, str, str]]] = {"POST": [], "GET": [], "storage": []}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def submitted(self) -> list[Json]:
        return [call.body for call in self.calls if call.method == "POST"]


@contextmanager
def serving(kind: type[BatchService] | None = None) -> Iterator[Any]:
    server = (kind or BatchService)()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        # Cloud Storage's writer of a refused upload tries once more when it is collected, in whatever test that may
        # be, and for two minutes where nobody answers any more.
        gc.collect()
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: BatchService
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        self.place = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(self.place.query).items()}
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_storage = "/storage/v1/" in self.place.path
        refusals = self.server.refusals["storage" if is_storage else self.command]
        if re.fullmatch(r"/storage/v1/b/[^/]+", self.place.path):
            self._send(404, {})  # What the client library asks of its own accord, on the side.
            return
        if not is_storage:
            self.server.calls.append(Call(self.command, self.path, json.loads(content or b"{}")))
        if refusals:
            code, status, message = refusals.pop(0)
            self._send(code, {"error": {"code": code, "status": status, "message": message}})
        elif is_storage:
            self._storage(content)
        else:
            self._send(*self.answer(json.loads(content or b"{}")))

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def answer(self, body: Json) -> Answer:
        """What a job says."""
        jobs, path = self.server.jobs, self.place.path
        if path.removeprefix("/v1/") in jobs:
            job = jobs[path.removeprefix("/v1/")]
            if self.server.states:
                job.update(self.server.states.pop(0))
            return 200, job
        place = _JOBS.fullmatch(path)
        if place is None:
            return self.missing()
        if self.command == "POST":
            name = f"{place[1]}/{place[2]}/{len(jobs) + 1}"
            facts = {"state": "JOB_STATE_PENDING", "createTime": f"2026-01-01T00:00:{len(jobs):02}Z"}
            jobs[name] = {**body, "name": name, **facts}
            return 200, jobs[name]
        wanted = _FILTER.findall(self.query.get("filter", ""))
        found = [
            job
            for job in jobs.values()
            if all(job.get("labels", {}).get(name) == value for name, value in wanted)
        ]
        return 200, {place[2]: found}

    def missing(self) -> Answer:
        """There is nothing of that name."""
        return 404, {"error": {"code": 404, "status": "NOT_FOUND", "message": f"{self.place.path} not found"}}

    def _storage(self, content: bytes) -> None:
        objects, path = self.server.objects, unquote(self.place.path)
        upload = self.query.get("upload_id")
        if self.command == "DELETE":
            self._send(404, {})  # The client deletes where it asked for an upload, not the upload.
        elif upload is not None:
            self._upload(upload, content)
        elif match := re.fullmatch(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o", path):
            upload = str(len(self.server.uploads))
            name = self.query.get("name") or json.loads(content)["name"]
            self.server.uploads[upload] = (f"{match[1]}/{name}", bytearray())
            self._send(200, {}, Location=f"{self.server.endpoint}{self.place.path}?upload_id={upload}")
        elif match := re.fullmatch(r"/(?:download/)?storage/v1/b/([^/]+)/o/(.+)", path):
            self._object(f"{match[1]}/{match[2]}")
        elif match := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            prefix = f"{match[1]}/{self.query.get('prefix', '')}"
            names = [name.partition("/")[2] for name in sorted(objects) if name.startswith(prefix)]
            self._send(200, {"items": [{"name": name, "bucket": match[1]} for name in names]})

    def _upload(self, upload: str, content: bytes) -> None:
        name, received = self.server.uploads[upload]
        received += content
        if self.headers["Content-Range"].endswith("/*"):
            self._send(308, {}, Range=f"bytes=0-{len(received) - 1}")
        else:
            self.server.objects[name] = bytes(received)
            bucket, _, place = name.partition("/")
            checksum = base64.b64encode(google_crc32c.Checksum(bytes(received)).digest()).decode()
            size = str(len(received))
            self._send(200, {"name": place, "bucket": bucket, "size": size, "crc32c": checksum})

    def _object(self, name: str) -> None:
        content = self.server.objects[name]
        if self.query.get("alt") != "media":
            bucket, _, place = name.partition("/")
            self._send(200, {"name": place, "bucket": bucket, "size": str(len(content)), "generation": "1"})
            return
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
        if begin >= len(content):
            self._send(416, {})
            return
        self._send(206, content[begin : end + 1], **{"Content-Range": f"bytes {begin}-{end}/{len(content)}"})

    def _send(self, code: int, body: Json | bytes, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


BatchService.handler = Handler
