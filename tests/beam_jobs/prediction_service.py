"""A prediction service on the loopback that speaks TF Serving's REST, and that of a Vertex AI endpoint.

`python -m tests.beam_jobs.prediction_service FOLDER` serves a pushed version to other processes.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
Score = Callable[[Sequence[bytes]], list[Any]]
"""Serialized tf.Examples to the entries of `predictions`; a ValueError says that it does not take one of them."""

_TF_SERVING = re.compile(r"/v1/models/(?P<model>[^/:]+)(/versions/(?P<version>\d+))?:predict")
_VERTEX = re.compile(r"/v1/projects/[^/]+/locations/[^/]+/endpoints/[^/:]+:predict")


@dataclass(frozen=True)
class Reply:
    """What to answer instead of predictions; `pieces` are sent one by one."""

    status: int
    content: bytes | Json = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterable[bytes] = ()

    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass(frozen=True)
class Request:
    """What was asked."""

    path: str
    headers: dict[str, str]
    body: Json
    size_bytes: int
    rows: list[bytes]


class PredictionService(ThreadingHTTPServer):
    """Serves one model.

    Attributes:
      score: the model.
      meddle: sees each request first; what it returns, if anything, is the answer.
      token: that requests in Vertex AI's form must bear.
      requests: all of them, in the order of their arrival.
      stopped: set when the service ends; what hangs waits for it.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, score: Score, model: str = "model", port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.score = score
        self.model = model
        self.meddle: Callable[[Request], Reply | None] = lambda _: None
        self.token = "secret"
        self.requests: list[Request] = []
        self.stopped = threading.Event()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(score: Score, model: str = "model") -> Iterator[PredictionService]:
    server = PredictionService(score, model)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def saved_model(folder: str) -> Score:
    """A real SavedModel, answering row by row as TF Serving does: its only output goes without a name."""
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)

    def score(examples: Sequence[bytes]) -> list[Any]:
        try:
            answer = loaded.signatures["serving_default"](examples=tf.constant(list(examples), tf.string))
        except tf.errors.OpError as error:
            raise ValueError(error.message) from error
        columns = {name: _plain(tensor.numpy().tolist()) for name, tensor in answer.items()}
        if len(columns) == 1:
            return list(*columns.values())
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    return score


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


class _Handler(BaseHTTPRequestHandler):
    server: PredictionService
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(content)
        rows = [base64.b64decode(instance["b64"]) for instance in body["instances"]]
        request = Request(self.path, dict(self.headers), body, len(content), rows)
        self.server.requests.append(request)
        self._send(self.server.meddle(request) or self._answer(request))

    def _answer(self, request: Request) -> Reply:
        place, is_vertex = _TF_SERVING.fullmatch(self.path), _VERTEX.fullmatch(self.path)
        if is_vertex and request.headers.get("Authorization") != f"Bearer {self.server.token}":
            message = "Request had invalid authentication credentials."
            return Reply(401, {"error": {"code": 401, "message": message, "status": "UNAUTHENTICATED"}})
        if not is_vertex and (place is None or place["model"] != self.server.model):
            return Reply(404, {"error": f"Servable not found for request: {self.path}"})
        try:
            predictions = self.server.score(request.rows)
        except ValueError as error:
            return Reply(400, {"error": str(error)})
        facts = {"deployedModelId": "77", "modelVersionId": "3"} if is_vertex else {}
        return Reply(200, {"predictions": predictions, **facts})

    def _send(self, reply: Reply) -> None:
        body = reply.body()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}
        try:
            self.send_response(reply.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            for piece in reply.pieces:
                self.wfile.write(piece)
        except ConnectionError:
            self.close_connection = True  # The client waits no longer.


if __name__ == "__main__":
    import click

    @click.command()
    @click.argument("folder")
    @click.option("--port", default=0)
    def main(folder: str, port: int) -> None:
        """Serves the version in FOLDER until it is interrupted; says where."""
        server = PredictionService(saved_model(folder), port=port)
        click.echo(server.base)
        server.serve_forever()

    main()
