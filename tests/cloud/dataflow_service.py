"""A small Dataflow on the loopback: takes jobs as they come over the wire, and says of them what it is told to."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
_VERSION = "/v1b3/"


class DataflowService(ThreadingHTTPServer):
    """Keeps what a submission sends.

    Attributes:
      jobs: what was asked to be created, as it was sent.
      states: of a job, each told once; the last for ever.
      messages: of a job.
      work: what a job's workers do; done when it is first asked for.
      launches: bodies of requests to launch a Flex Template.
      refusals: code, status and message for paths that match a pattern, how many times (-1: always).
      requests: method and path of all that came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: list[Json] = []
        self.states = ["JOB_STATE_DONE"]
        self.messages: list[Json] = []
        self.work: Callable[[], object] | None = None
        self.launches: list[tuple[str, Json]] = []
        self.refusals: list[list[Any]] = []
        self.requests: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def dataflow(self) -> str:
        """The service's address: Beam takes one with a port only of `localhost` (and calls its workers `local`)."""
        return f"http://localhost:{self.server_port}"

    def refuse(self, pattern: str, code: int, status: str, message: str, times: int = -1) -> None:
        self.refusals.append([re.compile(pattern), code, status, message, times])

    def refusal(self, request: str) -> tuple[int, str, str] | None:
        for one in self.refusals:
            pattern, code, status, message, times = one
            if times and pattern.search(request):
                one[4] = times - 1
                return code, status, message
        return None


@contextmanager
def serving() -> Iterator[DataflowService]:
    server = DataflowService()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: DataflowService
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _answer(self) -> None:
        place = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.requests.append((self.command, place.path))
        refused = self.server.refusal(f"{self.command} {place.path}")
        if refused is not None:
            code, status, message = refused
            details = [{"reason": status, "message": message}]
            self._send(
                code, {"error": {"code": code, "status": status, "message": message, "errors": details}}
            )
            return
        if not place.path.startswith(_VERSION):
            self._send(404, {"error": {"code": 404, "message": f"{place.path} not found"}})
            return
        self._send(200, self._result(place.path.removeprefix(_VERSION), body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

    def _result(self, name: str, body: bytes) -> Json:
        server = self.server
        if name.endswith("/flexTemplates:launch"):
            sent = json.loads(body)
            server.launches.append((name, sent))
            return {"job": {"id": "job-flex", "name": sent["launchParameter"]["jobName"]}}
        if self.command == "POST" and name.endswith("/jobs"):
            job = json.loads(body)
            server.jobs.append({"request": name, **job})
            return {"id": f"job-{len(server.jobs)}", "name": job["name"]}
        if name.endswith("/messages"):
            return {"jobMessages": server.messages}
        if server.work is not None:
            work, server.work = server.work, None
            work()
        states = server.states
        return {"id": name, "currentState": states.pop(0) if len(states) > 1 else states[0]}

    def _send(self, code: int, body: Json) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
