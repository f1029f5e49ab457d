"""The server of a prediction container: `python -m cloud.prediction_server`, told what to do as Vertex AI tells it.

An instance is one of two things. An object of raw columns is decoded, scored and encoded by the code of batch jobs, and
answered with the columns of their output. `{"b64": ...}`, a serialized tf.Example, goes to the model as it is and gets
the model's own answer: so it answers `headworks predict --via endpoint` and `--via vertex-batch`, which have decoded
their rows and encode the answers themselves.

A request with an instance at fault is refused whole, with all faults: a client that goes through the predictions would
otherwise take a fault for one. With `"parameters": {"bad_rows": "answer"}` the others are answered, and the one at
fault by `{"error": ...}` in its place.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask
import pyarrow as pa
from werkzeug.exceptions import HTTPException

from beam_jobs.core import Direct, Scorer
from beam_jobs.pushed import LoadedModel, PushedModel, Scores
from beam_jobs.rows import Batch, PredictionError
from cloud.api_errors import Remedies, explained
from cloud.prediction_container import LARGEST_REQUEST_BYTES, Container

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from google.cloud import storage

_LOG = logging.getLogger(__name__)
_SOURCE = "the request"
_BASE64 = "b64"
_BAD_ROWS = ("refuse", "answer")
_SHOWN_FAULTS = 20
"""In the sentence; the list has them all."""
_THREADS = 8
_NO_MODEL = 3
"""Exit code of a worker after which gunicorn ends instead of starting another."""
_REMEDIES = Remedies(
    forbidden="the account of the container has to read the bucket", not_found="upload the version again"
)


class RequestError(Exception):
    """A request that cannot be answered; `faults` by instance, where it is these that are wrong."""

    def __init__(self, message: str, faults: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.faults = faults or {}


@dataclass(frozen=True)
class _Answers:
    """Predictions by instance, and why the others have none."""

    predictions: Mapping[int, Any]
    faults: Mapping[int, str]


class Answering:
    """Instances to predictions, with one loaded version; for any number of threads."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.version = loaded.pushed
        self._model = Direct(loaded)
        # Whoever asks for one row knows which it is: the key is answered if it is given, and not asked for.
        self._scorer = Scorer(replace(self.version, key=()), self._model, carry=self.version.key)

    def answer(self, request: Any) -> dict[str, Any]:
        """The answer to a parsed request.

        Raises:
          RequestError: if it is none, or an instance cannot be predicted.
        """
        instances, bad_rows = _read(request)
        encoded = [_is_example(instance) for instance in instances]
        if any(encoded) and not all(encoded):
            raise RequestError(
                f"instances: {sum(encoded)} of {len(encoded)} are {{{_BASE64!r}: ...}}; want all or none to be"
            )
        found = self._examples(instances) if any(encoded) else self._rows(instances)
        if found.faults and bad_rows == "refuse":
            raise RequestError(_sentence(found.faults, len(instances)), found.faults)
        return {
            "predictions": [
                found.predictions[number] if number in found.predictions else {"error": found.faults[number]}
                for number in range(len(instances))
            ]
        }

    def _rows(self, instances: Sequence[Any]) -> _Answers:
        """Objects of raw columns to rows of a batch job's output."""
        faults = {
            number: f"is {json.dumps(instance)[:60]}, not an object of columns"
            for number, instance in enumerate(instances)
            if not isinstance(instance, dict)
        }
        numbers = [number for number in range(len(instances)) if number not in faults]
        names = dict.fromkeys(name for number in numbers for name in instances[number])
        columns = {name: [instances[number].get(name) for number in numbers] for name in names}
        outcome = self._scorer.score(Batch(_SOURCE, [str(n) for n in numbers], columns), datetime.now(UTC))
        faults |= {int(letter.position): letter.reason for letter in outcome.dead_letters}
        rows = self._without_place(outcome.predictions).to_pylist() if outcome.predictions is not None else []
        predicted = [number for number in numbers if number not in faults]
        return _Answers({n: _plain(row) for n, row in zip(predicted, rows, strict=True)}, faults)

    def _without_place(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows without the two columns, behind the key, that say where in the request they were."""
        first = len(self.version.key)
        return rows.select([n for n in range(rows.num_columns) if n not in (first, first + 1)])

    def _examples(self, instances: Sequence[Mapping[str, str]]) -> _Answers:
        """Serialized tf.Examples to what the model itself answers, as a model server writes it."""
        faults: dict[int, str] = {}
        examples: dict[int, bytes] = {}
        for number, instance in enumerate(instances):
            try:
                examples[number] = base64.b64decode(instance[_BASE64], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                faults[number] = f"{_BASE64} is not base64: {error}"
        answer = self._model.answer(list(examples.values())) if examples else None
        if answer is None:
            return _Answers({}, faults)
        numbers = list(examples)
        faults |= {numbers[row]: reason for row, reason in answer.failures.items()}
        predictions = self._outputs(answer.scores)
        return _Answers({n: p for n, p in zip(numbers, predictions, strict=True) if n not in faults}, faults)

    def _outputs(self, scores: Scores) -> list[dict[str, Any]]:
        if self.version.is_regression:
            return [{"prediction": row[0]} for row in scores.tolist()]
        classes = list(self.version.features.label.classes)
        return [{"scores": row, "classes": classes} for row in scores.tolist()]


class Loading:
    """A version that is loaded while the server already listens."""

    def __init__(self, load: Callable[[], Answering], give_up: Callable[[], None]) -> None:
        """Takes what loads it, and what to do if that cannot be done; begins with nothing yet."""
        self._load = load
        self._give_up = give_up
        self._answering: Answering | None = None

    @property
    def answering(self) -> Answering | None:
        """What answers; None until the model is loaded."""
        return self._answering

    def start(self) -> None:
        """Loads it in a thread of its own."""
        threading.Thread(target=self._run, name="load the model", daemon=True).start()

    def _run(self) -> None:
        try:
            self._answering = self._load()
        except Exception:  # noqa: BLE001 (a container without a model is of no use, whatever the reason)
            _LOG.exception("the model cannot be loaded; the container ends")
            self._give_up()
            return
        version = self._answering.version
        _LOG.info("version %d of %s (run %s) answers", version.version, version.pipeline, version.run_id)


def load(container: Container, folder: Path, client: storage.Client | None = None) -> Answering:
    """Loads the version that a container is to serve, checked as for a batch job.

    Args:
      container: where it is.
      folder: gets the files, if they are in a bucket.
      client: of Cloud Storage; by default with the container's own credentials.

    Raises:
      PredictionError: if it cannot be read, or answers otherwise than in training.
    """
    uri = container.storage_uri
    local = _download(uri, folder, client) if uri.startswith("gs://") else uri
    return Answering(PushedModel.read(local).load())


def application(container: Container, loading: Loading) -> flask.Flask:
    """The WSGI application."""
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST_BYTES
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]

    @app.get(container.health_route)
    def health() -> ResponseReturnValue:
        answering = loading.answering
        if answering is None:
            return {"status": "the model is being loaded"}, 503
        return {"status": "ready", "model_version": answering.version.version}, 200

    @app.post(container.predict_route)
    def predict() -> ResponseReturnValue:
        answering = loading.answering
        if answering is None:
            return {"error": {"message": "the model is being loaded; ask again"}}, 503
        return answering.answer(_parse(flask.request.get_data())), 200

    @app.errorhandler(RequestError)
    def refuse(error: RequestError) -> ResponseReturnValue:
        faults = [{"instance": number, "error": reason} for number, reason in sorted(error.faults.items())]
        return {"error": {"message": str(error), "faults": faults}}, 400

    @app.errorhandler(HTTPException)
    def no_page(error: HTTPException) -> ResponseReturnValue:
        return {"error": {"message": f"{error.code}: {error.description}"}}, error.code or 500

    return app


def main() -> None:
    """Serves until it is ended."""
    from gunicorn.app.base import BaseApplication

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        container = Container.of(os.environ)
    except PredictionError as error:
        sys.exit(f"error: {error}")

    class Gunicorn(BaseApplication):
        def load_config(self) -> None:
            # One process: its model answers all threads, and a second would hold a second model in memory.
            for name, value in {
                "bind": f"0.0.0.0:{container.port}",
                "workers": 1,
                "worker_class": "gthread",
                "threads": _THREADS,
                # Without it the container needs no home that it may write to.
                "control_socket_disable": True,
            }.items():
                self.cfg.set(name, value)

        def load(self) -> flask.Flask:
            # In the worker: TensorFlow does not survive a fork.
            loading = Loading(_load_into_new_folder(container), lambda: os._exit(_NO_MODEL))
            loading.start()
            return application(container, loading)

    Gunicorn().run()


def _load_into_new_folder(container: Container) -> Callable[[], Answering]:
    def run() -> Answering:
        # The model is read from its files once, so they need not stay.
        with tempfile.TemporaryDirectory() as folder:
            return load(container, Path(folder))

    return run


def _download(uri: str, folder: Path, client: storage.Client | None) -> str:
    from google.cloud import storage

    with explained(uri, PredictionError, _REMEDIES):
        client = client or storage.Client()
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        for blob in client.list_blobs(bucket, prefix=f"{prefix}/"):
            name = blob.name.removeprefix(f"{prefix}/")
            if name and not name.endswith("/"):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                blob.download_to_filename(str(target))
    return str(folder)


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is not JSON: {error}") from error


def _read(request: Any) -> tuple[list[Any], str]:
    """The instances of a request, and what is to become of bad ones."""
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list) or not instances:
        raise RequestError('the request has no instances; want {"instances": [{COLUMN: VALUE, ...}, ...]}')
    parameters = request.get("parameters") or {}
    if not isinstance(parameters, dict) or parameters.keys() - {"bad_rows"}:
        raise RequestError(f"parameters {json.dumps(parameters)[:60]}: bad_rows is the only one")
    bad_rows = parameters.get("bad_rows", _BAD_ROWS[0])
    if bad_rows not in _BAD_ROWS:
        raise RequestError(f"parameters.bad_rows {bad_rows!r}: want {' or '.join(_BAD_ROWS)}")
    return instances, bad_rows


def _is_example(instance: Any) -> bool:
    return isinstance(instance, dict) and instance.keys() == {_BASE64}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def _sentence(faults: Mapping[int, str], instances: int) -> str:
    shown = [f"instances[{number}] {reason}" for number, reason in sorted(faults.items())[:_SHOWN_FAULTS]]
    more = f"; and {len(faults) - len(shown)} more" if len(faults) > len(shown) else ""
    return f"{len(faults)} of {instances} instances cannot be predicted: {'; '.join(shown)}{more}"


if __name__ == "__main__":
    main()
