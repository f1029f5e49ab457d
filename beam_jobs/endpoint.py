"""A prediction service over REST as a way to a model: TF Serving's form of request, and that of a Vertex AI endpoint.

What goes wrong decides what is done about it:

| what | done |
|---|---|
| no connection, 429, 503 | the same request again, until the service is given up |
| any other 5xx, no answer in time, a broken or unreadable answer | again, a few times; then in halves |
| any other 4xx, or not one prediction an instance | in halves |
| 401, 403, 404, 405, 407, a redirect, a page of HTML, the answers of another model | the job fails |

Halving leaves the rows at fault alone, and they become failures. A row is thus never blamed for a service that is not
there; a service that fails too many requests in a row, with none answered in between, fails the job.
"""

from __future__ import annotations

import base64
import ipaddress
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import requests
import tenacity
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from beam_jobs.core import Answer
from beam_jobs.pushed import PushedModel, Scores, difference
from beam_jobs.rows import PredictionError

_OVERLOADED = frozenset({429, 503})
_MISTAKEN = {
    401: "give it a token that it takes",
    403: "give the account that asks the permission to predict",
    404: "look at the names in the URL, and whether the model is loaded",
    405: "is it a prediction service?",
    407: "the proxy in between asks for credentials",
}
"""Statuses that no row and no patience changes, and what to do."""
_SHOWN = 300
"""Characters of a service's own words that a reason repeats."""
_READ_BYTES = 1 << 16
_CHECK_ATTEMPTS = 3
"""Of the first request, before a single row was read for it."""


@dataclass(frozen=True)
class EndpointSettings:
    """Where a prediction service is and how it is to be asked.

    Attributes:
      url: that predictions are asked of (`tf_serving_url`, `vertex_url`).
      signature: TF Serving's name for what to ask; None: not said, as Vertex AI wants it.
      token: gives the bearer token for a request; must be picklable, and keep a token as long as it holds.
      version: Vertex AI's `modelVersionId` that has to answer; None: any.
      max_rows: in a request.
      max_bytes: of a request's body; a Vertex AI endpoint takes 1.5 MB.
      concurrency: requests under way at a time, of one worker.
      connect_timeout_seconds: until there is a connection.
      read_timeout_seconds: until the answer is complete.
      attempts: of a request that the service fails on.
      first_pause_seconds: upper bound of the random pause after a first attempt; it doubles with each.
      longest_pause_seconds: its bound, also for what a service asks for with Retry-After.
      max_consecutive_failures: failed attempts, with no request answered in between, that fail the job.
    """

    url: str
    signature: str | None = "serving_default"
    token: Callable[[], str] | None = None
    version: str | None = None
    max_rows: int = 512
    max_bytes: int = 1_500_000
    concurrency: int = 4
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 60.0
    attempts: int = 5
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 20.0
    max_consecutive_failures: int = 50

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PredictionError(f"endpoint {self.url!r}: want a URL that begins with https:// or http://")
        if self.token and parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise PredictionError(f"endpoint {self.url}: a token must not travel unencrypted; use https://")
        for name in ("max_rows", "max_bytes", "concurrency", "attempts", "max_consecutive_failures"):
            if getattr(self, name) < 1:
                raise PredictionError(
                    f"endpoint {self.url}: {name} is {getattr(self, name)}; want at least 1"
                )
        for name in ("connect_timeout_seconds", "read_timeout_seconds"):
            if not getattr(self, name) > 0:
                raise PredictionError(
                    f"endpoint {self.url}: {name} is {getattr(self, name)}; want more than 0"
                )

    def connect(self, pushed: PushedModel) -> EndpointModel:
        """The way to the service for rows of this version, as `ScoringHandler` takes it (`reach=settings.connect`).

        `model_version` and `run_id` of the output come from `pushed`: the service has to answer the version's
        warm-up requests as it did in training.

        Raises:
          PredictionError: if the service cannot be reached, or another version answers.
        """
        self._check_version(pushed)
        return EndpointModel(self, pushed.features.label.classes)

    def _check_version(self, pushed: PushedModel) -> None:
        attempts = min(self.attempts, _CHECK_ATTEMPTS)
        hasty = replace(self, attempts=attempts, max_consecutive_failures=attempts)
        model = EndpointModel(hasty, pushed.features.label.classes)
        try:
            requests = pushed.recorded()
            for request in requests:
                answer = model.answer(request.examples)
                if answer.failures:
                    raise PredictionError(
                        f"{self.url}: does not answer the warm-up requests of version {pushed.version} "
                        f"({pushed.folder}): {next(iter(answer.failures.values()))}"
                    )
                if told := difference(answer.scores, request.scores):
                    raise PredictionError(
                        f"{self.url}: answers the warm-up requests of version {pushed.version} "
                        f"({pushed.folder}) otherwise than in training ({told}): another version answers there; "
                        "name the version in the URL, or give the job the version that is served"
                    )
            if not requests:
                model.answer([b""])  # Whether it is there at all; it need not take a row without values.
        finally:
            model.close()


def tf_serving_url(base: str, model: str, version: int | None = None) -> str:
    """Where TF Serving answers for a model; without a version it takes the one that it serves as the latest.

    Args:
      base: scheme, host and port of its REST interface, such as `http://127.0.0.1:8501`.
      model: the name that it serves it by.
      version: of the model.
    """
    place = f"/versions/{version}" if version is not None else ""
    return f"{base.rstrip('/')}/v1/models/{quote(model, safe='')}{place}:predict"


def vertex_url(project: str, location: str, endpoint: str, base: str | None = None) -> str:
    """Where a Vertex AI endpoint answers.

    Args:
      project: id or number.
      location: such as `europe-west1`.
      endpoint: id.
      base: scheme and host; by default the location's, which is not that of a dedicated or private endpoint.
    """
    host = base or f"https://{location}-aiplatform.googleapis.com"
    parts = (quote(part, safe="") for part in (project, location, endpoint))
    return "{}/v1/projects/{}/locations/{}/endpoints/{}:predict".format(host.rstrip("/"), *parts)


def read_predictions(predictions: Sequence[Any], classes: Sequence[str], source: str) -> Scores:
    """Scores from predictions in TF Serving's row form, one a row.

    Args:
      predictions: the model's outputs by name; where it has but one, that without its name.
      classes: of the label, in the model's order; empty: it predicts a number.
      source: what to call the service in errors.

    Returns:
      float64 `[rows, classes]`, or `[rows, 1]`; not necessarily finite.

    Raises:
      PredictionError: if these are no answers of the model that was pushed.
    """
    values = [_scores_of(prediction, classes, source) for prediction in predictions]
    outputs = len(classes) or 1
    try:
        numbers: Scores = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _other_model(source, f"no numbers, or not as many for each row ({error})") from error
    if numbers.shape == (len(values),) and outputs == 1:
        return numbers[:, np.newaxis]
    if numbers.shape != (len(values), outputs):
        raise _other_model(source, f"numbers of shape {list(numbers.shape)}, not {[len(values), outputs]}")
    return numbers


def _scores_of(prediction: Any, classes: Sequence[str], source: str) -> Any:
    if not isinstance(prediction, dict):
        return prediction
    output = "scores" if classes else "prediction"
    if output not in prediction:
        raise _other_model(source, f"{', '.join(map(str, prediction)) or 'nothing'}, no {output}")
    found = prediction.get("classes")
    if classes and found is not None and found != list(classes):
        raise _other_model(source, f"for the classes {found}, not {list(classes)}")
    return prediction[output]


def _other_model(source: str, what: str) -> PredictionError:
    return PredictionError(f"{source}: this is another model than was pushed: it answers {what}")


class EndpointModel:
    """A connection to a prediction service; any number of threads may share it, and with it its bound on requests."""

    def __init__(
        self,
        settings: EndpointSettings,
        classes: Sequence[str],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects to nothing yet.

        Args:
          settings: of the service.
          classes: of the label, in the model's order; empty: it predicts a number.
          sleep: waits for some seconds.
        """
        self._settings = settings
        self._form = _Form(settings, tuple(classes))
        self._given_up = _Breaker(settings)
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="endpoint")
        self._session = requests.Session()
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=settings.concurrency)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._sleep = sleep
        self._pause = tenacity.wait_random_exponential(
            multiplier=settings.first_pause_seconds, max=settings.longest_pause_seconds
        )

    def answer(self, examples: Sequence[bytes]) -> Answer:
        """Scores serialized tf.Examples, several requests at a time; the order is kept.

        Returns:
          float64 scores `[rows, classes]`, or predictions `[rows, 1]`; NaN for a row that failed, with its reason.

        Raises:
          PredictionError: if the service is given up, or cannot be the one for this model.
        """
        self._given_up.try_again()
        scores = np.full((len(examples), self._form.outputs), np.nan)
        failures: dict[int, str] = {}
        futures: list[Future[list[_Scored | _Failed]]] = []
        for request in self._form.requests(examples):
            if isinstance(request, _Failed):
                failures[request.row] = request.reason
            else:
                futures.append(self._pool.submit(self._score, request, self._settings.attempts))
        try:
            ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for outcome in itertools.chain.from_iterable(future.result() for future in ended):
                if isinstance(outcome, _Failed):
                    failures[outcome.row] = outcome.reason
                else:
                    scores[outcome.first : outcome.first + len(outcome.scores)] = outcome.scores
        finally:
            for future in futures:
                future.cancel()
        for row in np.flatnonzero(~np.isfinite(scores).all(axis=1)):
            failures.setdefault(int(row), f"{self._settings.url} answers {scores[row].tolist()}")
        return Answer(scores, failures)

    def close(self) -> None:
        """Gives up what is not under way, and closes the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def _score(self, request: _Request, attempts: int) -> list[_Scored | _Failed]:
        """A request's scores; if it fails for good, those of its halves."""
        try:
            return [_Scored(request.first, self._ask(request, attempts))]
        except (_FaultError, _RefusedError) as error:
            if len(request) == 1:
                return [_Failed(request.first, str(error))]
        # Only rows that stand alone are worth asking for often: of what is more, the halves say more.
        halves = request.halves()
        return [
            outcome
            for half in halves
            for outcome in self._score(half, self._settings.attempts if len(half) == 1 else 1)
        ]

    def _ask(self, request: _Request, attempts: int) -> Scores:
        def is_enough(state: tenacity.RetryCallState) -> bool:
            return isinstance(_error(state), _FaultError) and state.attempt_number >= attempts

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((_FaultError, _UnavailableError)),
            stop=is_enough,
            wait=self._wait_seconds,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(self._ask_once, request)

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        error = _error(state)
        asked_for = error.retry_after_seconds if isinstance(error, _UnavailableError | _FaultError) else 0.0
        return max(self._pause(state), min(asked_for, self._settings.longest_pause_seconds))

    def _ask_once(self, request: _Request) -> Scores:
        self._given_up.check()
        try:
            scores = self._form.scores(self._post(self._form.body(request)), len(request))
        except (_FaultError, _RefusedError, _UnavailableError) as error:
            self._given_up.failed(error)
            raise
        self._given_up.answered()
        return scores

    def _post(self, body: bytes) -> bytes:
        """The content of the answer to a request, if its status is 200."""
        settings = self._settings
        deadline = time.monotonic() + settings.read_timeout_seconds
        try:
            with self._session.post(
                settings.url,
                data=body,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                auth=_Bearer(settings.token()) if settings.token else None,
                timeout=(settings.connect_timeout_seconds, settings.read_timeout_seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = self._content(response, deadline)
        except requests.exceptions.SSLError as error:
            if "certificate" in str(error).lower():
                raise PredictionError(f"{settings.url}: its certificate is not trusted: {error}") from error
            raise _UnavailableError(f"{settings.url}: no encrypted connection: {error}") from error
        except requests.ConnectTimeout as error:
            seconds = settings.connect_timeout_seconds
            raise _UnavailableError(f"{settings.url}: no connection within {seconds:g} s") from error
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise self._too_late() from error
        except requests.ConnectionError as error:
            if _was_connected(error):
                raise _FaultError(f"{settings.url}: it broke the connection: {_cause(error)}") from error
            raise _UnavailableError(f"{settings.url}: no connection: {_cause(error)}") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _FaultError(f"{settings.url}: its answer broke off: {_cause(error)}") from error
        self._check_status(response, content)
        return content

    def _content(self, response: requests.Response, deadline: float) -> bytes:
        """All of the body. The client's own time limit is one of each read: bytes that drip would never end."""
        pieces = []
        while piece := response.raw.read1(_READ_BYTES, decode_content=True):
            pieces.append(piece)
            if time.monotonic() > deadline:
                raise self._too_late()
        return b"".join(pieces)

    def _too_late(self) -> _FaultError:
        return _FaultError(
            f"{self._settings.url}: no full answer within {self._settings.read_timeout_seconds:g} s"
        )

    def _check_status(self, response: requests.Response, content: bytes) -> None:
        url, status = self._settings.url, response.status_code
        if 300 <= status < 400:
            raise PredictionError(
                f"{url}: answers {status}, a redirect to {response.headers.get('Location', 'nowhere')}: name the "
                "prediction service itself, or log in"
            )
        if status in _MISTAKEN:
            raise PredictionError(f"{url}: answers {status}: {_words(content)}; {_MISTAKEN[status]}")
        if status in _OVERLOADED or status >= 500:
            kind = _UnavailableError if status in _OVERLOADED else _FaultError
            raise kind(f"{url}: answers {status}: {_words(content)}", _retry_after_seconds(response))
        if status != 200:
            raise _RefusedError(f"{url}: answers {status}: {_words(content)}")
        if _is_html(content):
            raise PredictionError(
                f"{url}: answers a page of HTML, not predictions: {_words(content)}; is it the prediction service, "
                "or the page to log in to it?"
            )


class _RequestError(Exception):
    """A request without a usable answer; says URL, status and the service's words."""

    def __init__(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class _UnavailableError(_RequestError):
    """The service answers nobody at the moment."""


class _FaultError(_RequestError):
    """The service failed, perhaps on one of the rows."""


class _RefusedError(_RequestError):
    """The service does not take the request, or one of its rows."""


@dataclass(frozen=True)
class _Request:
    """Instances of consecutive rows, as JSON."""

    first: int
    instances: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.instances)

    def halves(self) -> tuple[_Request, _Request]:
        middle = len(self) // 2
        return (
            _Request(self.first, self.instances[:middle]),
            _Request(self.first + middle, self.instances[middle:]),
        )


@dataclass(frozen=True)
class _Scored:
    first: int
    scores: Scores


@dataclass(frozen=True)
class _Failed:
    row: int
    reason: str


class _Form:
    """What requests look like and how answers are read."""

    def __init__(self, settings: EndpointSettings, classes: tuple[str, ...]) -> None:
        self._settings = settings
        self._classes = classes
        signature = f'"signature_name": {json.dumps(settings.signature)}, ' if settings.signature else ""
        self._head, self._tail = f'{{{signature}"instances": ['.encode(), b"]}"

    @property
    def outputs(self) -> int:
        """Numbers a row."""
        return len(self._classes) or 1

    def requests(self, examples: Sequence[bytes]) -> Iterator[_Request | _Failed]:
        """Requests within the bounds, in the order of the rows, and rows that are too large for any."""
        settings = self._settings
        frame = len(self._head) + len(self._tail)
        first, instances, size = 0, list[bytes](), frame
        for row, example in enumerate(examples):
            instance = b'{"b64": "' + base64.b64encode(example) + b'"}'
            is_too_large = frame + len(instance) > settings.max_bytes
            is_full = len(instances) == settings.max_rows or size + len(instance) + 1 > settings.max_bytes
            if instances and (is_too_large or is_full):
                yield _Request(first, instances)
                instances, size = [], frame
            if is_too_large:
                yield _Failed(
                    row,
                    f"is {len(instance)} bytes in a request, which may have {settings.max_bytes} in all",
                )
                continue
            first = first if instances else row
            instances.append(instance)
            size += len(instance) + 1
        if instances:
            yield _Request(first, instances)

    def body(self, request: _Request) -> bytes:
        return self._head + b",".join(request.instances) + self._tail

    def scores(self, content: bytes, rows: int) -> Scores:
        """What the service answers for so many instances; not yet whether they are finite."""
        url = self._settings.url
        try:
            answer = json.loads(content)
        except ValueError as error:  # Also of text that is not UTF-8.
            raise _FaultError(f"{url}: answers no JSON ({error}): {_words(content)}") from error
        predictions = answer.get("predictions") if isinstance(answer, dict) else None
        if not isinstance(predictions, list):
            raise PredictionError(f"{url}: its answer has no list `predictions`: {_words(content)}")
        self._check_version(answer)
        if len(predictions) != rows:
            raise _RefusedError(f"{url}: answers {len(predictions)} predictions for {rows} rows")
        return read_predictions(predictions, self._classes, url)

    def _check_version(self, answer: dict[str, Any]) -> None:
        wanted, found = self._settings.version, answer.get("modelVersionId")
        if wanted is not None and found != wanted:
            raise PredictionError(
                f"{self._settings.url}: version {found} of the model answers (deployed as "
                f"{answer.get('deployedModelId')}), not {wanted}; deploy that, or give the job the other version"
            )


@dataclass
class _Breaker:
    """Counts failed attempts between which none was answered, and gives the service up when they are too many."""

    settings: EndpointSettings
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failures: int = 0
    _last: str = ""

    def try_again(self) -> None:
        """Allows one more attempt of a service that was given up: a worker may get the rows another time."""
        with self._lock:
            self._failures = min(self._failures, self.settings.max_consecutive_failures - 1)

    def check(self) -> None:
        with self._lock:
            if self._failures >= self.settings.max_consecutive_failures:
                raise PredictionError(
                    f"{self._failures} requests in a row failed, the last: {self._last}; look at the service and run "
                    "the job again"
                )

    def failed(self, error: _RequestError) -> None:
        """Counts an attempt that failed; raises when it was one too many."""
        with self._lock:
            self._failures += 1
            self._last = str(error)
        self.check()

    def answered(self) -> None:
        with self._lock:
            self._failures = 0


class _Bearer(AuthBase):
    """The token of a request. As a header of its own, the machine's .netrc could take its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _was_connected(error: requests.ConnectionError) -> bool:
    """Whether it was the connection that broke, and not that there was none."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, urllib3.exceptions.ProtocolError | urllib3.exceptions.ReadTimeoutError)


def _cause(error: Exception) -> str:
    """The innermost of the errors that libraries wrapped: the one that says what happened."""
    cause = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
    return _cause(cause) if isinstance(cause, Exception) else _cut(str(error))


def _words(content: bytes) -> str:
    """What a service says went wrong."""
    text = content.decode("utf-8", "replace").strip()
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return _cut(text) or "nothing"
    return _cut(str(error.get("message", error) if isinstance(error, dict) else error))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _is_html(content: bytes) -> bool:
    return content.lstrip()[:1] == b"<"


def _retry_after_seconds(response: requests.Response) -> float:
    """What Retry-After asks for, in seconds or as a date; 0 where it says nothing."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # A date without a time zone cannot be subtracted from.
        return 0.0


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
